//! Detects a store that is used in another process than the one that opened it, and whether another
//! process is alive. A forked child has a copy of the store, but neither its threads nor a right to
//! its lock.

use super::history::LifeEnd;
use crate::error::{Error, Result};

/// This machine's name.
pub(super) fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if host.trim().is_empty() { "an unnamed host".to_owned() } else { host.trim().to_owned() }
}

/// Whether no process of this machine has this number.
pub(super) fn is_gone(pid: u32) -> bool {
    pid.try_into()
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// What became of the newest attempt, which has left no mark of an end: only its own host knows.
pub(super) fn end_of(its_host: &str, pid: u32) -> LifeEnd {
    if its_host != host() {
        LifeEnd::Unknown
    } else if is_gone(pid) {
        LifeEnd::Died
    } else {
        LifeEnd::Running
    }
}

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

    /// Fails in a forked child. Called before anything is locked: a thread that the child does not
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
