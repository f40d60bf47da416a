//! An engine that runs a hook at one of its calls.

use std::fmt;
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{Blob, Decorator, Engine, Entry, Lock, Memory, Upload};
use tensorkeep::{Error, ErrorKind, Result};

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    BeforeCreate,
    BeforeDelete,
    AfterList,
    BeforeList,
    AfterOpen,
}

type Act = Box<dyn FnOnce() + Send>;

struct Hook {
    at: At,
    key: String,
    skip: usize,
    act: Act,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.at, self.key)
    }
}

/// Memory, with or without locks and renames.
#[derive(Clone, Debug)]
pub struct Hooked {
    pub inner: Memory,
    hook: Arc<Mutex<Option<Hook>>>,
    locks: bool,
    renames: bool,
}

impl Hooked {
    pub fn new(inner: Memory) -> Self {
        Self { inner, hook: Arc::default(), locks: true, renames: true }
    }

    /// As an object store is.
    pub fn lockless(inner: Memory) -> Self {
        Self { locks: false, renames: false, ..Self::new(inner) }
    }

    /// Runs `act`, once, at the call after `skip` others like it.
    pub fn set(&self, at: At, key: &str, skip: usize, act: impl FnOnce() + Send + 'static) {
        let hook = Hook { at, key: key.to_owned(), skip, act: Box::new(act) };
        *self.hook.lock().unwrap() = Some(hook);
    }

    fn fire(&self, at: At, key: &str) {
        let mut hook = self.hook.lock().unwrap();
        let Some(there) = hook.as_mut().filter(|hook| hook.at == at && hook.key == key) else { return };
        if there.skip > 0 {
            there.skip -= 1;
            return;
        }
        let act = hook.take().map(|hook| hook.act);
        drop(hook);
        if let Some(act) = act {
            act();
        }
    }
}

impl Decorator for Hooked {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        self.fire(At::BeforeCreate, key);
        Engine::create(&self.inner, key, size_hint)
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        let blob = Engine::open(&self.inner, key);
        self.fire(At::AfterOpen, key);
        blob
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.fire(At::BeforeDelete, key);
        Engine::delete(&self.inner, key)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        self.fire(At::BeforeList, folder);
        let listed = Engine::list(&self.inner, folder);
        self.fire(At::AfterList, folder);
        listed
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        if !self.renames {
            return Err(Error::new(ErrorKind::Unsupported, "no renames"));
        }
        Engine::rename(&self.inner, from, to)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        if !self.locks {
            return Err(Error::new(ErrorKind::Unsupported, "no locks"));
        }
        Engine::lock(&self.inner, holder)
    }
}
