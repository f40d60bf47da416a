//! The requests to the promoting thread, and its errors, none of which is lost. There is no queue
//! to overflow: passes are counted, and each compares the local tier with the remote one.

use crate::error::{Error, ErrorKind, Result};
use crate::store::naming::CheckpointId;
use crate::sync::{lock, wait, wait_timeout};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// Checkpoints that belong in the remote tier and can never be promoted, and why.
pub(in crate::store) type Hopeless = BTreeMap<CheckpointId, Arc<Error>>;

/// The requests to the thread, and its errors.
#[derive(Debug, Default)]
pub(in crate::store) struct Passes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Passes requested and done, as counts: a pass counts for all requests before it began.
    asked: u64,
    done: u64,
    /// Failures that no call has returned yet, oldest first.
    unreported: VecDeque<Arc<Error>>,
    /// Why checkpoints that belong in the remote tier can never be promoted, as of the last pass.
    /// Each error was returned once.
    hopeless: Hopeless,
    /// A newer writer has taken over. This is final.
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

    /// Fails if this checkpoint can never be promoted.
    pub(in crate::store) fn check_hopeless(&self, id: CheckpointId) -> Result<()> {
        let error = lock(&self.state).hopeless.get(&id).cloned();
        error.map_or(Ok(()), |error| Err(told(error)))
    }

    /// Waits for a pass that begins now, at most until `until`. If nothing fails in it, earlier
    /// failures that may pass are resolved and no longer failures.
    ///
    /// # Errors
    /// `NotPromoted` when the time was not enough; `Fenced`.
    pub(in crate::store) fn settle(&self, until: Option<Instant>) -> Result<()> {
        self.check_fenced()?;
        let mut state = lock(&self.state);
        state.asked += 1;
        let asked = state.asked;
        self.changed.notify_all();
        while state.done < asked {
            let Some(until) = until else {
                state = wait(&self.changed, state);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_in_time());
            }
            state = wait_timeout(&self.changed, state, left);
        }
        if !state.last_failed {
            state.unreported.retain(|error| is_for_ever(error));
        }
        Ok(())
    }

    /// No pass begins once those that were requested are done.
    pub(in crate::store) fn end(&self) {
        lock(&self.state).ending = true;
        self.changed.notify_all();
    }

    /// Failures that no call has returned.
    pub(in crate::store) fn unreported(&self) -> Vec<Arc<Error>> {
        lock(&self.state).unreported.iter().cloned().collect()
    }

    /// The number of passes requested, as soon as one is due; None at the end.
    pub(in crate::store) fn next(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        while state.done == state.asked {
            if state.ending {
                return None;
            }
            state = wait(&self.changed, state);
        }
        Some(state.asked)
    }

    pub(in crate::store) fn finish(&self, asked: u64, errors: Vec<Error>, hopeless: &Hopeless) {
        let mut state = lock(&self.state);
        let is_new = |(id, _): &(&CheckpointId, &Arc<Error>)| !state.hopeless.contains_key(*id);
        let new: Vec<Arc<Error>> =
            hopeless.iter().filter(is_new).map(|(_, error)| Arc::clone(error)).collect();
        (state.done, state.last_failed) = (asked, !errors.is_empty() || !new.is_empty());
        state.hopeless.clone_from(hopeless);
        state.unreported.extend(new);
        for error in errors {
            match error.kind() {
                ErrorKind::Fenced => state.fenced = Some(Arc::new(error)),
                // One outage is reported once, however many passes meet it before a call asks.
                _ if state.unreported.iter().any(|told| told.to_string() == error.to_string()) => {}
                _ => state.unreported.push_back(Arc::new(error)),
            }
        }
        self.changed.notify_all();
    }
}

/// Whether trying again is useless.
pub(in crate::store) fn is_for_ever(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::AlreadyExists)
}

fn not_in_time() -> Error {
    Error::new(ErrorKind::NotPromoted, "not everything is in the remote tier yet").help(
        "everything that was saved is durable in the local tier; the next start promotes what is missing",
    )
}

/// The error with which a call reports a failed promotion.
fn told(error: Arc<Error>) -> Error {
    let told = Error::new(error.kind(), "a promotion to the remote tier failed");
    match error.kind() {
        ErrorKind::Fenced => told.help("this process must stop; nothing more is written or deleted by it"),
        _ => told.with_kind(ErrorKind::NotPromoted).help(
            "everything that was saved is durable in the local tier; the next save, or waiting for the remote tier, tries again",
        ),
    }
    .because_shared(error)
}
