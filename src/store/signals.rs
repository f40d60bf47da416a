//! Counts the requests that signals make of one store, and how many of them are answered. The crate
//! `tensorkeep-signals` receives the signals.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tensorkeep_signals::{Listener, Signal};

/// Every signal that a store may hear.
const ALL: [Signal; 5] = [Signal::Hup, Signal::Int, Signal::Term, Signal::Usr1, Signal::Usr2];

/// The requests that signals have made, as ranks of a job tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    requests: u64,
    /// Which of them asked to stop, and by which signal.
    stop: Option<(u64, String)>,
}

/// The signals' requests of one store.
#[derive(Debug)]
pub(super) struct Signals {
    listener: Listener,
    /// The number of requests answered by a save that is durable or in flight.
    answered: u64,
    /// The number of requests answered by a durable save.
    durably: u64,
    /// In a job of many ranks, the requests of all, as of the last call in which they told each
    /// other. What this process has heard since does not count yet.
    agreed: Option<Asked>,
}

impl Signals {
    pub(super) fn listen(stop: &[Signal], save: &[Signal]) -> Result<Self> {
        let listener =
            Listener::begin(stop, save).map_err(|error| Error::io("registering signal handlers", error))?;
        Ok(Self { listener, answered: 0, durably: 0, agreed: None })
    }

    /// The number of requests so far.
    pub(super) fn asked(&self) -> u64 {
        self.agreed.as_ref().map_or_else(|| self.listener.requests(), |agreed| agreed.requests)
    }

    /// What this process has heard.
    pub(super) fn asked_here(&self) -> Asked {
        let stop = self.listener.stop_request();
        let signal = |request| Some((request, self.listener.stop_signal()?.to_string()));
        Asked { requests: self.listener.requests(), stop: stop.and_then(signal) }
    }

    /// What all ranks have heard. A request to stop is the newest of all when it is first told.
    pub(super) fn asked_by_all(&self, all: &[Asked]) -> Asked {
        let requests = all.iter().fold(0, |sum: u64, asked| sum.saturating_add(asked.requests));
        let before = self.agreed.as_ref().and_then(|agreed| agreed.stop.clone());
        let now = || all.iter().find_map(|asked| Some((requests, asked.stop.as_ref()?.1.clone())));
        Asked { requests, stop: before.or_else(now) }
    }

    /// From here on the requests of all ranks count.
    pub(super) fn agree(&mut self, asked: Asked) {
        self.agreed = Some(asked);
    }

    fn stop_request(&self) -> Option<u64> {
        match &self.agreed {
            Some(agreed) => agreed.stop.as_ref().map(|(request, _)| *request),
            None => self.listener.stop_request(),
        }
    }

    /// Whether a request was made that no save has answered.
    pub(super) fn wants_save(&self) -> bool {
        self.asked() > self.answered
    }

    pub(super) fn wants_stop(&self) -> bool {
        self.stop_request().is_some()
    }

    /// The signal that asked to stop.
    pub(super) fn stop_signal(&self) -> Option<Signal> {
        match &self.agreed {
            Some(agreed) => {
                let (_, name) = agreed.stop.as_ref()?;
                ALL.into_iter().find(|signal| signal.to_string() == *name)
            }
            None => self.listener.stop_signal(),
        }
    }

    /// Whether a stop was requested, and a save has answered it.
    pub(super) fn stop_is_answered(&self) -> bool {
        self.stop_request().is_some_and(|request| request <= self.answered)
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
