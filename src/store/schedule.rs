//! Decides when to save, with the state it keeps from save to save. The schedule as a value is in
//! `schedule/every.rs`, logged metrics are in `history/log.rs`.

mod auto;
mod every;

pub use auto::AutoInterval;
pub use every::{Every, SaveReason};

use super::cost::SaveCost;
use super::history::Log;
use super::signals::{Asked, Signals};
use crate::clock;
use crate::error::{Error, Result};
use crate::snapshot::{Progress, Snapshot};
use auto::Auto;
use every::Rule;
use std::collections::BTreeMap;
use std::time::Instant;
use tensorkeep_signals::Signal;

/// The state of a schedule in use.
#[derive(Debug)]
pub(super) struct Schedule {
    every: Every,
    signals: Option<Signals>,
    /// Progress and time of the last save, or of the start.
    last: Progress,
    last_is_saved: bool,
    last_at: Instant,
    /// Best durable values, by metric.
    best: BTreeMap<String, f64>,
    /// Values since the last save of metrics that a rule ranks by.
    observed: BTreeMap<String, f64>,
    /// Observed values that belong to the progress that is asked about next.
    coming: BTreeMap<String, f64>,
    /// Everything that was logged.
    pub log: Log,
    /// What [`Every::auto`] goes by.
    auto: Auto,
    /// Saves that were handed over and have neither arrived nor failed, and the number of the
    /// newest one ever.
    in_flight: Vec<InFlight>,
    newest: u64,
    /// Why the next save is due.
    pending: Option<SaveReason>,
    /// Whether the newest save that was handed over failed.
    failed: bool,
    /// The progress that [`due`](Self::due) was last asked about.
    seen: Option<Progress>,
}

/// The effects of a save that arrives.
#[derive(Debug)]
struct InFlight {
    number: u64,
    metrics: BTreeMap<String, f64>,
    /// Requests by signals that it answers.
    asked: u64,
}

/// Passed from a save's beginning to its end.
#[derive(Debug)]
pub(super) struct Begun {
    /// Why it was due, or that the caller requested it.
    pub why: String,
    /// The snapshot's progress, or the one that [`Schedule::due`] was last asked about.
    pub progress: Progress,
    /// The finite metrics at this progress: the snapshot's, and those that were observed or logged.
    pub metrics: BTreeMap<String, f64>,
    /// NaN and infinities likewise, which rank nothing.
    pub not_finite: BTreeMap<String, f64>,
    asked: u64,
}

/// A save in flight.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub number: u64,
    pub warnings: Vec<String>,
}

impl Schedule {
    pub(super) fn start(every: Every, now: Instant) -> Result<Self> {
        every.check()?;
        let (stop, save) = every.signals();
        let any = !(stop.is_empty() && save.is_empty());
        let signals = any.then(|| Signals::listen(&stop, &save)).transpose()?;
        Ok(Self {
            every,
            signals,
            last: Progress::default(),
            last_is_saved: false,
            last_at: now,
            best: BTreeMap::new(),
            observed: BTreeMap::new(),
            coming: BTreeMap::new(),
            log: Log::default(),
            auto: Auto::default(),
            in_flight: Vec::new(),
            newest: 0,
            pending: None,
            failed: false,
            seen: None,
        })
    }

    /// The signals that this process has heard.
    pub(super) fn asked_here(&self) -> Asked {
        self.signals.as_ref().map(Signals::asked_here).unwrap_or_default()
    }

    /// The signals that all ranks have heard, which count from here on.
    pub(super) fn asked_by_all(&mut self, all: &[Asked]) -> Asked {
        let asked = self.signals.as_ref().map(|signals| signals.asked_by_all(all)).unwrap_or_default();
        self.agree(asked.clone());
        asked
    }

    /// From here on these signals count, and those that this process hears do not.
    pub(super) fn agree(&mut self, asked: Asked) {
        if let Some(signals) = &mut self.signals {
            signals.agree(asked);
        }
    }

    /// As [`Schedule::due`], as another rank has decided.
    pub(super) fn due_as_decided(&mut self, progress: Progress, now: Instant, reason: Option<SaveReason>) {
        self.due(progress, now);
        self.pending = reason;
    }

    /// This progress is durable: the next save is counted from here.
    pub(super) fn resumed(&mut self, progress: Progress, now: Instant) {
        (self.last, self.last_at, self.last_is_saved) = (progress, now, true);
    }

    /// Goes on with the interval that the checkpoint has which was resumed from.
    pub(super) fn resume_auto(&mut self, interval: Option<AutoInterval>) {
        self.auto.resume(interval);
    }

    /// Hears what the newest save cost, if an interval goes by that.
    pub(super) fn learn(&mut self, cost: impl FnOnce() -> Option<SaveCost>, in_flight: usize) {
        if let Some(cost) = self.every.is_auto().then(cost).flatten() {
            let lives = self.log.lives(clock::seconds_since_1970());
            self.auto.learn(&cost, auto::between_failures(&lives), in_flight);
        }
    }

    /// The interval that was chosen, where one was.
    pub(super) fn auto_interval(&self) -> Option<AutoInterval> {
        self.auto.now.clone().filter(|_| self.every.is_auto())
    }

    /// Records a durable checkpoint's metrics, from this run or from before it.
    pub(super) fn remember(&mut self, metrics: &BTreeMap<String, f64>) {
        for (metric, mode) in self.every.ranked() {
            let Some(&value) = metrics.get(metric).filter(|value| value.is_finite()) else { continue };
            let best = self.best.entry(metric.to_owned()).or_insert(value);
            if mode.is_better(value, *best) {
                *best = value;
            }
        }
    }

    /// A value of the progress that is asked about next.
    pub(super) fn observe(&mut self, metric: &str, value: f64) {
        self.rank(metric, value);
        self.coming.insert(metric.to_owned(), value);
    }

    /// A value of this progress. `time` in seconds since 1970.
    pub(super) fn log(&mut self, progress: Progress, metric: &str, value: f64, time: f64) {
        self.rank(metric, value);
        self.log.add(progress, metric, value, time);
    }

    fn rank(&mut self, metric: &str, value: f64) {
        if !self.every.ranked().any(|(ranked, _)| ranked == metric) {
            return;
        }
        if value.is_finite() {
            self.observed.insert(metric.to_owned(), value);
        } else {
            // Values observed before no longer describe the model.
            self.observed.remove(metric);
        }
    }

    /// What was observed is of this progress.
    fn place_observed(&mut self, progress: Progress) {
        if self.coming.is_empty() {
            return;
        }
        let time = clock::time();
        for (metric, value) in std::mem::take(&mut self.coming) {
            self.log.add(progress, &metric, value, time);
        }
    }

    pub(super) fn due(&mut self, progress: Progress, now: Instant) -> Option<SaveReason> {
        self.place_observed(progress);
        self.seen = Some(progress);
        self.auto.came_to(progress, now, !self.in_flight.is_empty());
        self.pending = if self.failed {
            Some(SaveReason::Again)
        } else if self.has_nothing_new(progress) {
            if let Some(signals) = &mut self.signals {
                signals.answer(signals.asked());
            }
            None
        } else {
            self.every.rules.iter().find_map(|rule| self.rule_due(rule, progress, now))
        };
        self.pending.clone()
    }

    /// Whether nothing was trained since the last save, or since the start.
    fn has_nothing_new(&self, progress: Progress) -> bool {
        // A run that counts epochs alone is always at step 0. Any other step is saved once.
        let counts_epochs_alone = progress.step == 0;
        progress == self.last || (progress.step == self.last.step && !counts_epochs_alone)
    }

    fn rule_due(&self, rule: &Rule, progress: Progress, now: Instant) -> Option<SaveReason> {
        let crossed = |now: u64, last: u64, every: u64| now / every > last / every;
        let due = match rule {
            Rule::Steps(every) if crossed(progress.step, self.last.step, *every) => SaveReason::Steps(*every),
            Rule::Epochs(every) if crossed(progress.epoch, self.last.epoch, *every) => {
                SaveReason::Epochs(*every)
            }
            Rule::Interval(interval) if now.saturating_duration_since(self.last_at) >= *interval => {
                SaveReason::Interval(*interval)
            }
            Rule::Auto if now.saturating_duration_since(self.last_at) >= self.auto.interval() => {
                SaveReason::Auto(self.auto.interval())
            }
            Rule::StopOn(_) | Rule::SaveOn(_) if self.signals.as_ref().is_some_and(Signals::wants_save) => {
                SaveReason::Signal
            }
            Rule::Best(metric, mode) => {
                let value = *self.observed.get(metric)?;
                let in_flight = self.in_flight.iter().filter_map(|save| save.metrics.get(metric));
                let mut saved = self.best.get(metric).into_iter().chain(in_flight);
                saved.all(|&saved| mode.is_better(value, saved)).then(|| SaveReason::Best(metric.clone()))?
            }
            _ => return None,
        };
        Some(due)
    }

    /// Begins a save of this snapshot.
    ///
    /// # Errors
    /// `Invalid` when neither the snapshot nor [`Schedule::due`] has a progress, which names the
    /// checkpoint.
    pub(super) fn begin(&mut self, snapshot: &Snapshot<'_>) -> Result<Begun> {
        let progress = snapshot.its_progress().or(self.seen).ok_or_else(|| {
            Error::invalid("the snapshot does not say how far training is").help(
                "call snapshot.progress(Progress::new(completed_steps)), or ask store.due(&progress) first",
            )
        })?;
        if self.seen == Some(progress) {
            self.place_observed(progress);
        }
        let time = clock::time();
        for (metric, value) in snapshot.its_metrics() {
            self.log.add(progress, metric, *value, time);
        }
        let [metrics, not_finite] = self.log.metrics_at(progress);
        let why = self.pending.as_ref().map_or_else(|| "asked".to_owned(), SaveReason::to_string);
        Ok(Begun { why, progress, metrics, not_finite, asked: self.asked() })
    }

    fn asked(&self) -> u64 {
        self.signals.as_ref().map_or(0, Signals::asked)
    }

    /// This progress is in flight: [`arrived`](Self::arrived) or [`failed`](Self::failed) follows.
    pub(super) fn handed_over(&mut self, begun: &Begun, now: Instant) -> HandedOver {
        let Begun { progress, ref metrics, .. } = *begun;
        let warnings = self.unsaved_metrics(metrics);
        self.resumed(progress, now);
        self.auto.handed_over();
        (self.pending, self.failed) = (None, false);
        // A loop that saves right after asking has trained nothing since, so this save also answers
        // signals that came during it.
        let asked = if self.seen == Some(progress) { self.asked() } else { begun.asked };
        if let Some(signals) = &mut self.signals {
            signals.answer(asked);
        }
        self.newest += 1;
        let mut saved = std::mem::take(&mut self.observed);
        saved.extend(metrics.iter().map(|(metric, value)| (metric.clone(), *value)));
        self.in_flight.push(InFlight { number: self.newest, metrics: saved, asked });
        HandedOver { number: self.newest, warnings }
    }

    /// The save of this number is durable.
    pub(super) fn arrived(&mut self, number: u64) {
        let Some(InFlight { metrics, asked, .. }) = self.take(number) else { return };
        self.remember(&metrics);
        if let Some(signals) = &mut self.signals {
            signals.arrived(asked);
        }
    }

    /// The save of this number did not arrive. Without a newer one behind it, a save is due
    /// regardless of the rules.
    pub(super) fn failed(&mut self, number: u64) {
        self.take(number);
        if number == self.newest {
            (self.failed, self.last_is_saved) = (true, false);
            if let Some(signals) = &mut self.signals {
                signals.take_back();
            }
        }
    }

    fn take(&mut self, number: u64) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|save| save.number == number)?;
        Some(self.in_flight.remove(at))
    }

    /// A warning for each metric that was observed for a rule and is missing from the saved state.
    fn unsaved_metrics(&self, metrics: &BTreeMap<String, f64>) -> Vec<String> {
        let unsaved = |metric: &&str| self.observed.contains_key(*metric) && !metrics.contains_key(*metric);
        let warn = |metric| {
            format!(
                "the metric {metric:?} was observed at another step than the one that is saved, so this checkpoint \
                 cannot be ranked by it: observe it at the step that is saved"
            )
        };
        self.every.ranked().map(|(metric, _)| metric).filter(unsaved).map(warn).collect()
    }

    pub(super) fn has_saved(&self, progress: Progress) -> bool {
        self.last_is_saved && self.last == progress
    }

    /// The signal that asked to stop, if one has.
    pub(super) fn stop_signal(&self) -> Option<Signal> {
        self.signals.as_ref().and_then(Signals::stop_signal)
    }

    /// Whether a stop was requested and answered. A loop that never asks whether a save is due has
    /// its own way of saving, and stops at once.
    pub(super) fn should_stop(&self) -> bool {
        let answers_itself = self.seen.is_none();
        let stops =
            |signals: &Signals| signals.stop_is_answered() || (answers_itself && signals.wants_stop());
        self.signals.as_ref().is_some_and(stops)
    }
}

#[cfg(test)]
mod tests;
