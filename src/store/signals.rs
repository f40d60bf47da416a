//! What signals ask of one store, and how much of it has been answered. The crate
//! `tensorkeep-signals` hears them.

use crate::error::{Error, Result};
use tensorkeep_signals::{Listener, Signal};

/// What one store was asked by signals.
#[derive(Debug)]
pub(super) struct Signals {
    listener: Listener,
    /// How many requests a save has answered that is durable, or on its way.
    answered: u64,
    /// How many a durable save has answered.
    durably: u64,
}

impl Signals {
    pub(super) fn listen(stop: &[Signal], save: &[Signal]) -> Result<Self> {
        let listener =
            Listener::begin(stop, save).map_err(|error| Error::io("registering signal handlers", error))?;
        Ok(Self { listener, answered: 0, durably: 0 })
    }

    /// How many requests were made so far.
    pub(super) fn asked(&self) -> u64 {
        self.listener.requests()
    }

    /// A request was made that no save has answered.
    pub(super) fn wants_save(&self) -> bool {
        self.asked() > self.answered
    }

    pub(super) fn wants_stop(&self) -> bool {
        self.listener.stop_request().is_some()
    }

    /// A stop was asked, and a save has answered.
    pub(super) fn stop_is_answered(&self) -> bool {
        self.listener.stop_request().is_some_and(|request| request <= self.answered)
    }

    /// A save on its way answers the first `asked` requests.
    pub(super) fn answer(&mut self, asked: u64) {
        self.answered = self.answered.max(asked);
        self.listener.set_answered(self.stop_is_answered());
    }

    /// That save is durable.
    pub(super) fn arrived(&mut self, asked: u64) {
        self.durably = self.durably.max(asked);
    }

    /// No save that was on its way has become durable.
    pub(super) fn take_back(&mut self) {
        self.answered = self.durably;
        self.listener.set_answered(self.stop_is_answered());
    }
}
