//! A caller's handle of a background save: its outcome, and an earlier failure that is returned
//! with it.

use super::in_flight::Shared;
use super::process::Process;
use super::saved::Saved;
use crate::error::{Error, Result};
use crate::sync::{self, lock, wait};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

pub(super) type Outcome = Result<Arc<Saved>, Arc<Error>>;

/// A background save.
#[derive(Clone, Debug)]
pub struct PendingSave {
    progressing: Arc<Progressing>,
    earlier: Option<Arc<Earlier>>,
}

/// A save and, once it is known, its outcome.
#[derive(Debug)]
pub(super) struct Progressing {
    process: Process,
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
}

/// An earlier failure: either taken, or due again when the last clone of its [`PendingSave`] is
/// dropped.
#[derive(Debug)]
struct Earlier {
    error: Mutex<Option<Error>>,
    process: Process,
    shared: Weak<Shared>,
}

impl PendingSave {
    pub(super) fn new(progressing: Arc<Progressing>, earlier: Option<Error>, shared: &Arc<Shared>) -> Self {
        let keep = |error| {
            let process = progressing.process;
            Arc::new(Earlier { error: Mutex::new(Some(error)), process, shared: Arc::downgrade(shared) })
        };
        Self { earlier: earlier.map(keep), progressing }
    }

    /// An earlier background save, or a promotion, that had failed when this save was handed over
    /// and that no call had returned. Returned once, then None. If it is not taken here, a later
    /// call on the store returns it.
    pub fn earlier_error(&self) -> Option<Error> {
        let earlier = self.earlier.as_ref().filter(|earlier| earlier.process.is_this())?;
        lock(&earlier.error).take()
    }

    /// The outcome; None while the save is still in flight. Reading it here does not count as
    /// returned: the next call on the store returns a failure all the same.
    pub fn outcome(&self) -> Option<Result<Arc<Saved>, Arc<Error>>> {
        match self.progressing.process.check() {
            Ok(()) => lock(&self.progressing.outcome).clone(),
            Err(forked) => Some(Err(Arc::new(forked))),
        }
    }

    /// Waits for at most `limit`; None when it is still in flight then. For callers that have to
    /// look for something else now and then, such as an interpreter's signals.
    pub fn wait_for(&self, limit: Duration) -> Option<Result<Arc<Saved>, Arc<Error>>> {
        if let Err(forked) = self.progressing.process.check() {
            return Some(Err(Arc::new(forked)));
        }
        let outcome = lock(&self.progressing.outcome);
        let is_running = |outcome: &mut Option<_>| outcome.is_none();
        sync::wait_timeout_while(&self.progressing.done, outcome, limit, is_running).clone()
    }

    /// Waits until it is durable or has failed.
    ///
    /// # Errors
    /// The error of the save. The next call on the store returns it, too. `Invalid` in a forked
    /// child.
    pub fn wait(&self) -> Result<Arc<Saved>, Arc<Error>> {
        self.progressing.process.check().map_err(Arc::new)?;
        let mut outcome = lock(&self.progressing.outcome);
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => outcome = wait(&self.progressing.done, outcome),
            }
        }
    }
}

impl Progressing {
    pub(super) fn begin(process: Process) -> Arc<Self> {
        Arc::new(Self { process, outcome: Mutex::default(), done: Condvar::new() })
    }

    pub(super) fn finish(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
        self.done.notify_all();
    }
}

impl Drop for Earlier {
    fn drop(&mut self) {
        if !self.process.is_this() {
            return;
        }
        let Some(error) = sync::get_mut(&mut self.error).take() else { return };
        match self.shared.upgrade() {
            Some(shared) => shared.was_overlooked(error),
            None => eprintln!("tensorkeep: the error of a save was never returned: {error:?}"),
        }
    }
}
