//! Which checkpoint is being promoted now, so that deleting it can stop that first: a promotion
//! that went on would bring back what was deleted.

use crate::store::background::lock;
use crate::store::naming::CheckpointId;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// Promotions and deletions of the remote tier, told apart by name.
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

/// A checkpoint on its way up, for as long as this lives.
pub(super) struct Promoting<'u>(&'u Upward, CheckpointId);

/// A checkpoint that nobody promotes, for as long as this lives.
pub(in crate::store) struct Withheld<'u>(&'u Upward, CheckpointId);

impl Upward {
    /// None while the checkpoint is being deleted.
    pub(super) fn promote(&self, name: CheckpointId) -> Option<Promoting<'_>> {
        let mut state = lock(&self.state);
        if state.deleting.contains(&name) {
            return None;
        }
        state.promoting = Some(name);
        Some(Promoting(self, name))
    }

    /// As [`Upward::withhold`] up to where that would wait; whether it would.
    #[cfg(feature = "testing")]
    pub(in crate::store) fn ask_to_stop(&self, name: CheckpointId) -> bool {
        let mut state = lock(&self.state);
        state.deleting.insert(name);
        state.promoting == Some(name)
    }

    /// Stops the promotion of a checkpoint, waits until it has stopped, and begins no other.
    pub(in crate::store) fn withhold(&self, name: CheckpointId) -> Withheld<'_> {
        let mut state = lock(&self.state);
        state.deleting.insert(name);
        while state.promoting == Some(name) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Withheld(self, name)
    }
}

impl Promoting<'_> {
    /// Whether it is to be given up.
    pub(super) fn is_stopped(&self) -> bool {
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
