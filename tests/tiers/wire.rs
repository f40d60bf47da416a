//! A remote engine for tests: memory behind a network that can be slow, down, or fail at a given
//! call. Without locks and renames, as object stores are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tensorkeep::engine::{Blob, Caps, CommitError, Engine, Entry, Lock, Memory, Nonce, Upload};
use tensorkeep::{Error, ErrorKind, Result};

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// The storage, without the network.
    pub memory: Memory,
    state: Arc<(Mutex<State>, Condvar)>,
    uploads: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    slow: bool,
    /// No call is answered.
    silent: bool,
    /// Number of calls that still succeed, and of those that then fail.
    fails: Option<(u64, u64)>,
    failures: u64,
    /// An object that listings do not show.
    unlisted: Option<String>,
    /// Uploads that have reached the gate.
    arrived: u64,
}

impl Wire {
    /// Whether every call fails.
    pub fn set_down(&self, down: bool) {
        self.change(|state| state.down = down);
    }

    /// Whether every call waits for an answer that never comes.
    pub fn set_silent(&self, silent: bool) {
        self.change(|state| state.silent = silent);
    }

    /// Whether uploads of checkpoints wait.
    pub fn set_slow(&self, slow: bool) {
        self.change(|state| state.slow = slow);
    }

    /// Lets `count` calls fail, after `pass` more.
    pub fn fail_after(&self, pass: u64, count: u64) {
        self.change(|state| state.fails = Some((pass, count)));
    }

    /// Hides an object from listings.
    pub fn unlist(&self, key: &str) {
        self.change(|state| state.unlisted = Some(key.to_owned()));
    }

    /// Waits until a call has failed.
    pub fn wait_for_failure(&self) {
        let state = self.state.0.lock().unwrap();
        drop(self.state.1.wait_while(state, |state| state.failures == 0).unwrap());
    }

    /// Waits until an upload is at the gate, or through it.
    pub fn wait_for_upload(&self) {
        let state = self.state.0.lock().unwrap();
        drop(self.state.1.wait_while(state, |state| state.arrived == 0).unwrap());
    }

    /// Number of uploads of checkpoints so far.
    pub fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.0.lock().unwrap());
        self.state.1.notify_all();
    }

    fn call(&self) -> Result<()> {
        let state = self.state.0.lock().unwrap();
        let mut state = self.state.1.wait_while(state, |state| state.silent).unwrap();
        let fails = match &mut state.fails {
            Some((0, left)) if *left > 0 => {
                *left -= 1;
                true
            }
            Some((pass, _)) => {
                *pass = pass.saturating_sub(1);
                false
            }
            None => false,
        };
        if state.down || fails {
            state.failures += 1;
            drop(state);
            self.state.1.notify_all();
            return Err(Error::new(ErrorKind::Io, "the network is down").in_object("wire:"));
        }
        Ok(())
    }
}

impl Engine for Wire {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        self.call()?;
        if key.ends_with(".tkeep") {
            self.change(|state| state.arrived += 1);
            let state = self.state.0.lock().unwrap();
            drop(self.state.1.wait_while(state, |state| state.slow).unwrap());
            self.uploads.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Box::new(WireUpload(self.clone(), self.memory.create(key, size_hint)?)))
    }
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.call()?;
        self.memory.open(key)
    }
    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        self.call()?;
        let mut listed = self.memory.list(folder)?;
        let unlisted = self.state.0.lock().unwrap().unlisted.clone();
        listed.retain(|entry| Some(&entry.key) != unlisted.as_ref());
        Ok(listed)
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.call()?;
        self.memory.delete(key)
    }
    fn rename(&self, _: &str, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "no renames"))
    }
    fn lock(&self, _: &str) -> Result<Box<dyn Lock>> {
        Err(Error::new(ErrorKind::Unsupported, "no locks"))
    }
    fn caps(&self) -> Caps {
        let mut caps = Caps::NONE;
        caps.create_only = true;
        caps
    }
    fn describe(&self, key: &str) -> String {
        format!("wire:{key}")
    }
}

struct WireUpload(Wire, Box<dyn Upload>);

impl Upload for WireUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.1.append(bytes)
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        self.0.call().map_err(CommitError::NotCommitted)?;
        self.1.commit(nonce)?;
        // A lost reply: it was applied.
        self.0.call().map_err(CommitError::Unknown)
    }
}
