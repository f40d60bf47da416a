//! Counts the requests that signals make of one store, and how many of them are answered. The crate
//! `tensorkeep-signals` receives the signals.

use crate::error::{Error, Result};
use tensorkeep_signals::{Listener, Signal};

/// The signals' requests of one store.
#[derive(Debug)]
pub(super) struct Signals {
    listener: Listener,
    /// The number of requests answered by a save that is durable or in flight.
    answered: u64,
    /// The number of requests answered by a durable save.
    durably: u64,
}

impl Signals {
    pub(super) fn listen(stop: &[Signal], save: &[Signal]) -> Result<Self> {
        let listener =
            Listener::begin(stop, save).map_err(|error| Error::io("registering signal handlers", error))?;
        Ok(Self { listener, answered: 0, durably: 0 })
    }

    /// The number of requests so far.
    pub(super) fn asked(&self) -> u64 {
        self.listener.requests()
    }

    /// Whether a request was made that no save has answered.
    pub(super) fn wants_save(&self) -> bool {
        self.asked() > self.answered
    }

    pub(super) fn wants_stop(&self) -> bool {
        self.listener.stop_request().is_some()
    }

    /// The signal that asked to stop.
    pub(super) fn stop_signal(&self) -> Option<Signal> {
        self.listener.stop_signal()
    }

    /// Whether a stop was requested, and a save has answered it.
    pub(super) fn stop_is_answered(&self) -> bool {
        self.listener.stop_request().is_some_and(|request| request <= self.answered)
    }

    /// A save in flight answers the first `asked` requests.
    pub(super) fn answer(&mut self, asked: u64) {
        self.answered = self.answered.max(asked);
        self.listener.set_answered(self.stop_is_answered());
    }

    /// That save is durable.
    pub(super) fn arrived(&mut self, asked: u64) {
        self.durably = self.durably.max(asked);
    }

    /// No save that was in flight has become durable.
    pub(super) fn take_back(&mut self) {
        self.answered = self.durably;
        self.listener.set_answered(self.stop_is_answered());
    }
}
