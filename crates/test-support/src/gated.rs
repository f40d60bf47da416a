//! An engine in memory whose uploads wait at a gate, and can be made to fail: a disk that is slow,
//! or full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tensorkeep::engine::{Decorator, Engine as _, Memory, Upload};
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
    /// Duration of a deletion.
    pub deleting: Duration,
}

impl Gated {
    pub fn set(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate.0.lock().unwrap());
        self.gate.1.notify_all();
    }
}

impl Decorator for Gated {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

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

    fn delete(&self, key: &str) -> Result<()> {
        let deleting = self.gate.0.lock().unwrap().deleting;
        std::thread::sleep(deleting);
        self.inner.delete(key)
    }
}
