//! How many background saves are in flight, and the failures among them that no call has returned.

use crate::error::Error;
use crate::sync::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

/// State shared by the saving thread and the callers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub state: Mutex<State>,
    pub changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub in_flight: usize,
    /// Failures that no call has returned yet, oldest first.
    pub unreported: VecDeque<Error>,
    /// Failures that were returned in a [`PendingSave`](super::PendingSave) which was dropped
    /// unread.
    pub overlooked: VecDeque<Error>,
}

impl Shared {
    pub(super) fn was_overlooked(&self, error: Error) {
        lock(&self.state).overlooked.push_back(error);
    }
}
