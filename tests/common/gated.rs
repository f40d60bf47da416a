//! An engine in memory whose uploads wait at a gate, and can be made to fail: a disk that is slow, or full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tensorkeep::engine::{Blob, Caps, Engine, Entry, Lock, Memory, Upload};
use tensorkeep::{Error, ErrorKind, Result};

/// Memory whose uploads wait at a gate, and can be made to fail.
#[derive(Clone, Debug, Default)]
pub struct Gated {
    pub inner: Memory,
    gate: Arc<(Mutex<Gate>, Condvar)>,
    pub uploads: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
pub struct Gate {
    pub closed: bool,
    pub fails: bool,
}

impl Gated {
    pub fn set(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate.0.lock().unwrap());
        self.gate.1.notify_all();
    }
}

impl Engine for Gated {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        if key.ends_with(".tkeep") {
            let open = |gate: &mut Gate| gate.closed;
            let gate = self.gate.1.wait_while(self.gate.0.lock().unwrap(), open).unwrap();
            self.uploads.fetch_add(1, Ordering::SeqCst);
            if gate.fails {
                return Err(Error::new(ErrorKind::NoSpace, "the disk is full").in_object(key));
            }
        }
        self.inner.create(key, size_hint)
    }
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.inner.open(key)
    }
    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        self.inner.list(folder)
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.inner.rename(from, to)
    }
    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        self.inner.lock(holder)
    }
    fn caps(&self) -> Caps {
        self.inner.caps()
    }
    fn describe(&self, key: &str) -> String {
        self.inner.describe(key)
    }
}
