//! What is asked of the promoting thread, and what it has to say. Owns: that no error of it is
//! lost. There is no passes to overflow: passes are counted, and each compares what is here with
//! what is there.

use super::promote::Hopeless;
use crate::error::{Error, ErrorKind, Result};
use crate::store::background::{Cause, lock};
use crate::store::naming::CheckpointId;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is asked of the thread, and what it has to say.
#[derive(Debug, Default)]
pub(in crate::store) struct Passes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Passes asked for and done, as counts: one that begins after it was asked for counts for all
    /// before.
    asked: u64,
    done: u64,
    /// Failures that no call has returned yet, oldest first.
    unreported: VecDeque<Arc<Error>>,
    /// Why checkpoints that belong there can never be promoted, as the last pass found it. Each was
    /// told once.
    hopeless: Hopeless,
    /// A newer writer has taken over: for ever.
    fenced: Option<Arc<Error>>,
    ending: bool,
    /// Whether the last pass met an error.
    last_failed: bool,
}

impl Passes {
    /// Something may have to be promoted.
    pub(in crate::store) fn wake(&self) {
        lock(&self.state).asked += 1;
        self.changed.notify_all();
    }

    /// Fails when a newer writer has taken over. A failure that is due stays due.
    pub(in crate::store) fn check_fenced(&self) -> Result<()> {
        let fenced = lock(&self.state).fenced.clone();
        fenced.map_or(Ok(()), |error| Err(told(error)))
    }

    /// Returns a failure that is due.
    pub(in crate::store) fn report(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let error = state.fenced.clone().or_else(|| state.unreported.pop_front());
        error.map_or(Ok(()), |error| Err(told(error)))
    }

    /// Fails where this one can never be promoted.
    pub(in crate::store) fn check_hopeless(&self, name: CheckpointId) -> Result<()> {
        let error = lock(&self.state).hopeless.get(&name).cloned();
        error.map_or(Ok(()), |error| Err(told(error)))
    }

    /// Waits for a pass that begins now, at most until then. Where nothing of it failed, what
    /// failed before and may pass is made good, and no failure any more.
    ///
    /// # Errors
    /// `NotPromoted` when the time was not enough; `Fenced`.
    pub(super) fn settle(&self, until: Option<Instant>) -> Result<()> {
        self.check_fenced()?;
        let mut state = lock(&self.state);
        state.asked += 1;
        let asked = state.asked;
        self.changed.notify_all();
        while state.done < asked {
            let Some(until) = until else {
                state = self.wait(state);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_in_time());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.last_failed {
            state.unreported.retain(|error| is_for_ever(error));
        }
        Ok(())
    }

    /// No pass is begun any more once those that were asked for are done.
    pub(super) fn end(&self) {
        lock(&self.state).ending = true;
        self.changed.notify_all();
    }

    /// Failures that no call has returned.
    pub(super) fn unreported(&self) -> Vec<Arc<Error>> {
        lock(&self.state).unreported.iter().cloned().collect()
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of passes asked for, as soon as one is due; None at the end.
    pub(super) fn next(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        while state.done == state.asked {
            if state.ending {
                return None;
            }
            state = self.wait(state);
        }
        Some(state.asked)
    }

    pub(super) fn finish(&self, asked: u64, errors: Vec<Error>, hopeless: &Hopeless) {
        let mut state = lock(&self.state);
        let is_new = |(name, _): &(&CheckpointId, &Arc<Error>)| !state.hopeless.contains_key(*name);
        let new: Vec<Arc<Error>> =
            hopeless.iter().filter(is_new).map(|(_, error)| Arc::clone(error)).collect();
        (state.done, state.last_failed) = (asked, !errors.is_empty() || !new.is_empty());
        state.hopeless.clone_from(hopeless);
        state.unreported.extend(new);
        for error in errors {
            match error.kind() {
                ErrorKind::Fenced => state.fenced = Some(Arc::new(error)),
                // One outage is told once, however many passes meet it before a call asks.
                _ if state.unreported.iter().any(|told| told.to_string() == error.to_string()) => {}
                _ => state.unreported.push_back(Arc::new(error)),
            }
        }
        self.changed.notify_all();
    }
}

/// Whether trying again is of no use.
pub(super) fn is_for_ever(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::AlreadyExists)
}

fn not_in_time() -> Error {
    Error::new(ErrorKind::NotPromoted, "not everything is in the remote tier yet").help(
        "everything that was saved is durable in the local tier; the next start promotes what is missing",
    )
}

/// What a call says of a failed promotion.
fn told(error: Arc<Error>) -> Error {
    let told = Error::new(error.kind(), "a promotion to the remote tier failed");
    match error.kind() {
        ErrorKind::Fenced => told.help("this process must stop; nothing more is written or deleted by it"),
        _ => told.with_kind(ErrorKind::NotPromoted).help(
            "everything that was saved is durable in the local tier; the next save, or waiting for the remote tier, tries again",
        ),
    }
    .because(Cause(error))
}
