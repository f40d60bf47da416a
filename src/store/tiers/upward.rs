//! Which checkpoint is being promoted now, so that a deletion can stop that first: a promotion that
//! continued would bring back a deleted checkpoint.

use crate::store::naming::CheckpointId;
use crate::sync::{lock, wait};
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};

/// Promotions and deletions of the remote tier, by name.
#[derive(Debug, Default)]
pub(in crate::store) struct Upward {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    promoting: Option<CheckpointId>,
    /// Names that are being deleted now.
    deleting: BTreeSet<CheckpointId>,
}

/// A checkpoint that is being promoted, for as long as this lives.
pub(in crate::store) struct Promoting<'u>(&'u Upward, CheckpointId);

/// A checkpoint that must not be promoted, for as long as this lives.
pub(in crate::store) struct Withheld<'u>(&'u Upward, CheckpointId);

impl Upward {
    /// None while the checkpoint is being deleted.
    pub(in crate::store) fn promote(&self, id: CheckpointId) -> Option<Promoting<'_>> {
        let mut state = lock(&self.state);
        if state.deleting.contains(&id) {
            return None;
        }
        state.promoting = Some(id);
        Some(Promoting(self, id))
    }

    /// As [`Upward::withhold`], but instead of waiting returns whether it would.
    #[cfg(feature = "testing")]
    pub(in crate::store) fn ask_to_stop(&self, id: CheckpointId) -> bool {
        let mut state = lock(&self.state);
        state.deleting.insert(id);
        state.promoting == Some(id)
    }

    /// Stops the promotion of a checkpoint, waits until it has stopped, and prevents others.
    pub(in crate::store) fn withhold(&self, id: CheckpointId) -> Withheld<'_> {
        let mut state = lock(&self.state);
        state.deleting.insert(id);
        while state.promoting == Some(id) {
            state = wait(&self.changed, state);
        }
        Withheld(self, id)
    }
}

impl Promoting<'_> {
    /// Whether the promotion is to be aborted.
    pub(in crate::store) fn is_stopped(&self) -> bool {
        lock(&self.0.state).deleting.contains(&self.1)
    }
}

impl Drop for Promoting<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).promoting = None;
        self.0.changed.notify_all();
    }
}

impl Drop for Withheld<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).deleting.remove(&self.1);
    }
}
