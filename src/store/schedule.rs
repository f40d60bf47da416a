//! Decides when to save: the schedule as a value, and what is remembered from save to save.

use super::keep::Mode;
use super::signals::Signals;
use crate::error::{Error, Result};
use crate::snapshot::{Progress, Snapshot};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};
use tensorkeep_signals::Signal;

/// A schedule as a value: due when any of its rules says so.
///
/// ```
/// use tensorkeep::{Every, Mode, Progress, Store, StoreOptions, engine::Memory};
///
/// let every = Every::steps(500).or(Every::minutes(10)).or_on_best("loss", Mode::Min);
/// let store = Store::open(Memory::new(), StoreOptions::new().save(every))?;
/// assert!(store.due(&Progress::new(499)).is_none());
/// assert_eq!(store.due(&Progress::new(500)).unwrap().to_string(), "every 500 steps");
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Every {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Steps(u64),
    Epochs(u64),
    Interval(Duration),
    StopOn(Vec<Signal>),
    SaveOn(Vec<Signal>),
    Best(String, Mode),
}

impl Every {
    /// Never by itself; `save` still saves. The default of [`StoreOptions`](super::StoreOptions).
    pub fn never() -> Self {
        Self::default()
    }

    /// When a multiple of `steps` was reached since the last save.
    pub fn steps(steps: u64) -> Self {
        Self::when(Rule::Steps(steps))
    }

    /// When a multiple of `epochs` was reached since the last save. A checkpoint has the name of
    /// its step, so let [`Progress`] count steps as well: a second checkpoint of the same step is
    /// refused.
    pub fn epochs(epochs: u64) -> Self {
        Self::when(Rule::Epochs(epochs))
    }

    /// When `minutes` passed since the last save, by a clock that does not jump.
    pub fn minutes(minutes: u64) -> Self {
        Self::interval(Duration::from_secs(minutes.saturating_mul(60)))
    }

    /// When `interval` passed since the last save.
    pub fn interval(interval: Duration) -> Self {
        Self::when(Rule::Interval(interval))
    }

    /// When SIGTERM or SIGINT asked this process to save and stop, or SIGUSR1 to save and go on.
    /// Short for `Every::stop_on([Signal::Term, Signal::Int]).or(Every::save_on([Signal::Usr1]))`.
    pub fn on_signal() -> Self {
        Self::stop_on([Signal::Term, Signal::Int]).or(Self::save_on([Signal::Usr1]))
    }

    /// When one of these signals came: it asks for a save and for the end, which
    /// [`Store::should_stop`](super::Store::should_stop) tells once that save is made.
    ///
    /// The same request may arrive more than once, since launchers forward and repeat signals. What
    /// a further one does:
    ///
    /// * Within 250 ms of the first: nothing, whichever of these signals it is.
    /// * SIGINT later than that, as when a person presses Ctrl-C again: it ends the process at
    ///   once, with exit code 130.
    /// * Any other of these signals: nothing, until 30 s after the first, or 1 s if a save has
    ///   answered it. From then on it ends the process at once, with exit code 128 + its number.
    ///
    /// While the store lives, handlers that were there before run as well. Afterwards everything is
    /// as it was. SIGINT and SIGHUP stay ignored where they are ignored when the store is opened:
    /// under `nohup`, and in a shell's background jobs. A forked child does not take part.
    pub fn stop_on(signals: impl IntoIterator<Item = Signal>) -> Self {
        Self::when(Rule::StopOn(signals.into_iter().collect()))
    }

    /// When one of these signals came: it asks for a save, and training goes on. One that is also
    /// in [`Every::stop_on`] asks to stop.
    pub fn save_on(signals: impl IntoIterator<Item = Signal>) -> Self {
        Self::when(Rule::SaveOn(signals.into_iter().collect()))
    }

    /// When a metric given to [`Store::observe`](super::Store::observe) beats every saved one. NaN
    /// and infinities beat nothing.
    pub fn on_best(metric: impl Into<String>, mode: Mode) -> Self {
        Self::when(Rule::Best(metric.into(), mode))
    }

    /// Due when this or `other` is.
    pub fn or(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }

    /// As `or(Every::on_signal())`.
    pub fn or_on_signal(self) -> Self {
        self.or(Self::on_signal())
    }

    /// As `or(Every::on_best(..))`.
    pub fn or_on_best(self, metric: impl Into<String>, mode: Mode) -> Self {
        self.or(Self::on_best(metric, mode))
    }

    fn when(rule: Rule) -> Self {
        Self { rules: vec![rule] }
    }

    pub(super) fn check(&self) -> Result<()> {
        let never = |rule: &&Rule| match rule {
            Rule::Steps(every) | Rule::Epochs(every) => *every == 0,
            Rule::Interval(interval) => interval.is_zero(),
            Rule::StopOn(signals) | Rule::SaveOn(signals) => signals.is_empty(),
            Rule::Best(..) => false,
        };
        match self.rules.iter().find(never) {
            Some(rule) => Err(Error::invalid(format!("schedule {rule:?}")).expected("at least 1").found(0)),
            None => Ok(()),
        }
    }

    /// The signals that ask to stop, and those that ask for a save.
    fn signals(&self) -> (Vec<Signal>, Vec<Signal>) {
        let (mut stop, mut save) = (Vec::new(), Vec::new());
        for rule in &self.rules {
            match rule {
                Rule::StopOn(signals) => stop.extend(signals),
                Rule::SaveOn(signals) => save.extend(signals),
                _ => {}
            }
        }
        (stop, save)
    }
}

/// Why a save is due; recorded with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveReason {
    /// A number of steps.
    Steps(u64),
    /// A number of epochs.
    Epochs(u64),
    /// Time passed.
    Interval(Duration),
    /// A signal asked.
    Signal,
    /// This metric was never better.
    Best(String),
    /// A save in the background failed after it had been due.
    Again,
}

impl fmt::Display for SaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "every {steps} steps"),
            Self::Epochs(epochs) => write!(f, "every {epochs} epochs"),
            Self::Interval(interval) => write!(f, "every {} s", interval.as_secs_f64()),
            Self::Signal => f.write_str("signal"),
            Self::Best(metric) => write!(f, "best {metric}"),
            Self::Again => f.write_str("again, after a failure"),
        }
    }
}

/// A schedule at work.
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
    observed: BTreeMap<String, f64>,
    /// Those of them that belong to the progress in `seen`, and those that came since: of the next
    /// one.
    current: BTreeMap<String, f64>,
    coming: BTreeMap<String, f64>,
    /// Saves that were handed over and have neither arrived nor failed, and the number of the
    /// newest ever.
    in_flight: Vec<InFlight>,
    newest: u64,
    /// Why the save that comes now was due.
    pending: Option<SaveReason>,
    /// The newest save that was handed over failed.
    failed: bool,
    /// The progress that [`due`](Self::due) was last asked about.
    seen: Option<Progress>,
}

/// What becomes true when a save arrives.
#[derive(Debug)]
struct InFlight {
    number: u64,
    metrics: BTreeMap<String, f64>,
    /// Requests by signals that it answers.
    asked: u64,
}

/// What a save's beginning tells its end.
#[derive(Debug)]
pub(super) struct Begun {
    /// Why it was due, or that the caller asked.
    pub why: String,
    /// The snapshot's, or what [`Schedule::due`] was last asked about.
    pub progress: Progress,
    /// The snapshot's, and what was observed at this progress.
    pub metrics: BTreeMap<String, f64>,
    asked: u64,
}

/// A save that is on its way.
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
            current: BTreeMap::new(),
            coming: BTreeMap::new(),
            in_flight: Vec::new(),
            newest: 0,
            pending: None,
            failed: false,
            seen: None,
        })
    }

    /// This progress is durable: the next save is counted from this progress.
    pub(super) fn resumed(&mut self, progress: Progress, now: Instant) {
        (self.last, self.last_at, self.last_is_saved) = (progress, now, true);
    }

    /// A durable checkpoint's metrics, from this run or from before it.
    pub(super) fn remember(&mut self, metrics: &BTreeMap<String, f64>) {
        for rule in &self.every.rules {
            let Rule::Best(metric, mode) = rule else { continue };
            let Some(&value) = metrics.get(metric).filter(|value| value.is_finite()) else { continue };
            let best = self.best.entry(metric.clone()).or_insert(value);
            if mode.is_better(value, *best) {
                *best = value;
            }
        }
    }

    pub(super) fn observe(&mut self, metric: &str, value: f64) {
        if value.is_finite() {
            self.observed.insert(metric.to_owned(), value);
            self.coming.insert(metric.to_owned(), value);
        } else {
            // What was observed before is not what the model is now.
            for values in [&mut self.observed, &mut self.current, &mut self.coming] {
                values.remove(metric);
            }
        }
    }

    pub(super) fn due(&mut self, progress: Progress, now: Instant) -> Option<SaveReason> {
        if self.seen != Some(progress) {
            self.current.clear();
        }
        self.current.append(&mut self.coming);
        self.seen = Some(progress);
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

    /// Nothing was trained since the last save, or since the start.
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

    /// A save of this snapshot begins.
    ///
    /// # Errors
    /// `Invalid` when neither the snapshot nor [`Schedule::due`] has a progress, which names the
    /// checkpoint.
    pub(super) fn begin(&self, snapshot: &Snapshot<'_>) -> Result<Begun> {
        let progress = snapshot.its_progress().or(self.seen).ok_or_else(|| {
            Error::invalid("the snapshot does not say how far training is").help(
                "call snapshot.progress(Progress::new(completed_steps)), or ask store.due(&progress) first",
            )
        })?;
        let mut metrics = BTreeMap::new();
        if self.seen == Some(progress) {
            metrics.extend(self.current.clone());
            metrics.extend(self.coming.clone());
        }
        metrics.extend(snapshot.its_metrics().clone());
        let why = self.pending.as_ref().map_or_else(|| "asked".to_owned(), SaveReason::to_string);
        Ok(Begun { why, progress, metrics, asked: self.asked() })
    }

    fn asked(&self) -> u64 {
        self.signals.as_ref().map_or(0, Signals::asked)
    }

    /// This progress is on its way: [`arrived`](Self::arrived) or [`failed`](Self::failed) follows.
    pub(super) fn handed_over(&mut self, begun: &Begun, now: Instant) -> HandedOver {
        let Begun { progress, ref metrics, .. } = *begun;
        let warnings = self.unsaved_metrics(metrics);
        self.resumed(progress, now);
        (self.pending, self.failed) = (None, false);
        // A loop that saves where it asked has trained nothing since: it answers what came during
        // the save, too.
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

    /// The save of this number did not arrive. Without a newer one behind it, a save is due,
    /// whatever the rules say.
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

    /// What was observed for a rule and is not what the saved state has.
    fn unsaved_metrics(&self, metrics: &BTreeMap<String, f64>) -> Vec<String> {
        let ranked = self.every.rules.iter().filter_map(|rule| match rule {
            Rule::Best(metric, _) => Some(metric),
            _ => None,
        });
        let unsaved =
            |metric: &&String| self.observed.contains_key(*metric) && !metrics.contains_key(*metric);
        let warn = |metric| {
            format!(
                "the metric {metric:?} was observed at another step than the one that is saved, so this checkpoint \
                 cannot be ranked by it: observe it at the step that is saved"
            )
        };
        ranked.filter(unsaved).map(warn).collect()
    }

    pub(super) fn has_saved(&self, progress: Progress) -> bool {
        self.last_is_saved && self.last == progress
    }

    /// A stop was asked and answered. A loop that never asks whether a save is due has its own way
    /// of saving, and stops at once.
    pub(super) fn should_stop(&self) -> bool {
        let answers_itself = self.seen.is_none();
        let stops =
            |signals: &Signals| signals.stop_is_answered() || (answers_itself && signals.wants_stop());
        self.signals.as_ref().is_some_and(stops)
    }
}

#[cfg(test)]
mod tests;
