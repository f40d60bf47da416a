//! What a caller holds of a save in the background: its outcome, and an earlier failure that is
//! told beside it.

use super::background::{Shared, lock};
use super::process::Process;
use super::save::Saved;
use crate::error::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

pub(super) type Outcome = Result<Arc<Saved>, Arc<Error>>;

/// A save in the background.
#[derive(Clone, Debug)]
pub struct PendingSave {
    progressing: Arc<Progressing>,
    earlier: Option<Arc<Earlier>>,
}

/// A save whose outcome is not known yet, or is.
#[derive(Debug)]
pub(super) struct Progressing {
    process: Process,
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
}

/// An earlier failure: looked at, or due again when the last clone of its [`PendingSave`] is gone.
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

    /// An earlier save in the background, or a promotion, that had failed when this save was handed
    /// over and that no call had returned. Given once: afterwards it is None. A failure that is not
    /// looked at here is returned by a later call on the store.
    pub fn earlier_error(&self) -> Option<Error> {
        let earlier = self.earlier.as_ref().filter(|earlier| earlier.process.is_this())?;
        lock(&earlier.error).take()
    }

    /// What became of it; None while it is still in flight. Looking does not count as being told: a
    /// failure is returned by the next call on the store all the same.
    pub fn outcome(&self) -> Option<Result<Arc<Saved>, Arc<Error>>> {
        match self.progressing.process.check() {
            Ok(()) => lock(&self.progressing.outcome).clone(),
            Err(forked) => Some(Err(Arc::new(forked))),
        }
    }

    /// Waits until it is durable or has failed.
    ///
    /// # Errors
    /// What the save failed with. The next call on the store returns it, too. `Invalid` in a forked
    /// child.
    pub fn wait(&self) -> Result<Arc<Saved>, Arc<Error>> {
        self.progressing.process.check().map_err(Arc::new)?;
        let mut outcome = lock(&self.progressing.outcome);
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => {
                    outcome = self.progressing.done.wait(outcome).unwrap_or_else(PoisonError::into_inner);
                }
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
        let error = self.error.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(error) = error.filter(|_| self.process.is_this()) else { return };
        match self.shared.upgrade() {
            Some(shared) => shared.was_overlooked(error),
            None => eprintln!("tensorkeep: nobody looked at this failure: {error:?}"),
        }
    }
}
