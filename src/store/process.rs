//! Tells whether a store is used in the process that opened it. A forked child has a copy of the
//! store, and neither its threads nor a right to its lock.

use crate::error::{Error, Result};

/// The process that opened a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

impl Process {
    pub(super) fn this() -> Self {
        Self(std::process::id())
    }

    pub(super) fn is_this(self) -> bool {
        self.0 == std::process::id()
    }

    /// Fails in a forked child. Asked before anything is locked: a thread that the child does not
    /// have may hold the lock.
    pub(super) fn check(self) -> Result<()> {
        if self.is_this() {
            return Ok(());
        }
        Err(Error::invalid(format!("this store belongs to process {}", self.0))
            .found(format!("a forked child, process {}", std::process::id()))
            .help("open the run in the child, or fork before opening it"))
    }
}
