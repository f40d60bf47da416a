//! When to save. Owns: the schedule as a value, and what it remembers between two saves. Knows no engine.

use super::keep::Mode;
use super::signals::Signals;
use crate::error::{Error, Result};
use crate::snapshot::Progress;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// A schedule as a value: due when any of its rules says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Every {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Steps(u64),
    Epochs(u64),
    Interval(Duration),
    Signal,
    Best(String, Mode),
}

impl Every {
    /// Never by itself; `save` still saves. The default of [`Settings`](super::Settings).
    pub fn never() -> Self {
        Self::default()
    }

    /// When a multiple of `steps` was reached since the last save.
    pub fn steps(steps: u64) -> Self {
        Self { rules: vec![Rule::Steps(steps)] }
    }

    /// When a multiple of `epochs` was reached since the last save.
    pub fn epochs(epochs: u64) -> Self {
        Self { rules: vec![Rule::Epochs(epochs)] }
    }

    /// When `minutes` passed since the last save, by a clock that does not jump.
    pub fn minutes(minutes: u64) -> Self {
        Self::interval(Duration::from_secs(60 * minutes))
    }

    /// When `interval` passed since the last save.
    pub fn interval(interval: Duration) -> Self {
        Self { rules: vec![Rule::Interval(interval)] }
    }

    /// When SIGTERM, SIGINT or SIGUSR1 came. After the first two [`Store::should_stop`](super::Store::should_stop) is
    /// true, and the same signal again ends the process at once.
    pub fn on_signal() -> Self {
        Self { rules: vec![Rule::Signal] }
    }

    /// When a metric given to [`Store::observe`](super::Store::observe) beats every saved one.
    pub fn on_best(metric: impl Into<String>, mode: Mode) -> Self {
        Self { rules: vec![Rule::Best(metric.into(), mode)] }
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

    pub(super) fn check(&self) -> Result<()> {
        let never =
            |rule: &&Rule| matches!(rule, Rule::Steps(0) | Rule::Epochs(0) | Rule::Interval(Duration::ZERO));
        match self.rules.iter().find(never) {
            Some(rule) => Err(Error::invalid(format!("schedule {rule:?}")).expected("at least 1").found(0)),
            None => Ok(()),
        }
    }
}

/// Why a save is due; recorded with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
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

impl fmt::Display for Why {
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
    /// Best saved values, by rule.
    best: BTreeMap<String, f64>,
    observed: BTreeMap<String, f64>,
    /// Why the save that comes now was due.
    pending: Option<Why>,
    /// A save that was given to the background failed.
    failed: bool,
}

impl Schedule {
    pub(super) fn start(every: Every, now: Instant) -> Result<Self> {
        every.check()?;
        let signals = every.rules.contains(&Rule::Signal).then(Signals::register).transpose()?;
        let (best, observed) = Default::default();
        Ok(Self {
            every,
            signals,
            last: Progress::default(),
            last_is_saved: false,
            failed: false,
            last_at: now,
            best,
            observed,
            pending: None,
        })
    }

    /// This progress is durable: the next save is counted from this progress.
    pub(super) fn resumed(&mut self, progress: Progress, now: Instant) {
        (self.last, self.last_at, self.last_is_saved) = (progress, now, true);
    }

    /// A saved checkpoint's metrics, from this run or from before it.
    pub(super) fn remember(&mut self, metrics: &BTreeMap<String, f64>) {
        for rule in &self.every.rules {
            let Rule::Best(metric, mode) = rule else { continue };
            let Some(&value) = metrics.get(metric) else { continue };
            let best = self.best.entry(metric.clone()).or_insert(value);
            if mode.is_better(value, *best) {
                *best = value;
            }
        }
    }

    pub(super) fn observe(&mut self, metric: &str, value: f64) {
        self.observed.insert(metric.to_owned(), value);
    }

    pub(super) fn due(&mut self, progress: Progress, now: Instant) -> Option<Why> {
        if self.failed {
            self.pending = Some(Why::Again);
            return self.pending.clone();
        }
        if progress.step == self.last.step {
            // Saved already, or nothing was trained yet: a signal has nothing to add.
            return None;
        }
        self.pending = self.every.rules.iter().find_map(|rule| self.rule_due(rule, progress, now));
        self.pending.clone()
    }

    fn rule_due(&self, rule: &Rule, progress: Progress, now: Instant) -> Option<Why> {
        let crossed = |now: u64, last: u64, every: u64| now / every > last / every;
        let due = match rule {
            Rule::Steps(every) if crossed(progress.step, self.last.step, *every) => Why::Steps(*every),
            Rule::Epochs(every) if crossed(progress.epoch, self.last.epoch, *every) => Why::Epochs(*every),
            Rule::Interval(interval) if now.saturating_duration_since(self.last_at) >= *interval => {
                Why::Interval(*interval)
            }
            Rule::Signal if self.signals.as_ref().is_some_and(Signals::wants_save) => Why::Signal,
            Rule::Best(metric, mode) => {
                let value = *self.observed.get(metric)?;
                let beaten = self.best.get(metric).is_none_or(|&best| mode.is_better(value, best));
                beaten.then(|| Why::Best(metric.clone()))?
            }
            _ => return None,
        };
        Some(due)
    }

    /// Why the save of now was due, or that the caller asked.
    pub(super) fn reason(&self) -> String {
        self.pending.as_ref().map_or_else(|| "asked".to_owned(), Why::to_string)
    }

    /// This progress is durable, or on its way and will be unless [`failed`](Self::failed) follows.
    pub(super) fn saved(&mut self, progress: Progress, metrics: &BTreeMap<String, f64>, now: Instant) {
        self.resumed(progress, now);
        (self.pending, self.failed) = (None, false);
        let observed = std::mem::take(&mut self.observed);
        self.remember(&observed);
        self.remember(metrics);
        if let Some(signals) = &self.signals {
            signals.saved();
        }
    }

    /// What was on its way did not arrive: a save is due, whatever the rules say.
    pub(super) fn failed(&mut self) {
        (self.failed, self.last_is_saved) = (true, false);
    }

    pub(super) fn has_saved(&self, progress: Progress) -> bool {
        self.last_is_saved && self.last == progress
    }

    pub(super) fn should_stop(&self) -> bool {
        self.signals.as_ref().is_some_and(Signals::wants_stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64, epoch: u64) -> Progress {
        Progress::new(step).epoch(epoch)
    }

    #[test]
    fn steps_are_due_when_a_multiple_was_passed_also_by_a_loop_that_skips() {
        let now = Instant::now();
        let mut schedule = Schedule::start(Every::steps(100), now).unwrap();
        assert_eq!(schedule.due(at(0, 0), now), None);
        assert_eq!(schedule.due(at(99, 0), now), None);
        assert_eq!(schedule.due(at(103, 0), now), Some(Why::Steps(100)));
        schedule.saved(at(103, 0), &BTreeMap::new(), now);
        assert_eq!(schedule.due(at(199, 0), now), None);
        assert_eq!(schedule.due(at(200, 0), now), Some(Why::Steps(100)));
        assert_eq!(schedule.due(at(201, 0), now), Some(Why::Steps(100)), "a save that failed is due again");
    }

    #[test]
    fn any_rule_makes_it_due_and_the_first_is_the_reason() {
        let now = Instant::now();
        let every = Every::epochs(1).or(Every::minutes(10)).or_on_best("acc", Mode::Max);
        let mut schedule = Schedule::start(every, now).unwrap();
        assert_eq!(schedule.due(at(50, 0), now), None);
        assert_eq!(schedule.due(at(60, 1), now), Some(Why::Epochs(1)));
        assert_eq!(schedule.reason(), "every 1 epochs");
        schedule.saved(at(60, 1), &BTreeMap::new(), now);
        let later = now + Duration::from_secs(600);
        assert_eq!(schedule.due(at(70, 1), later), Some(Why::Interval(Duration::from_secs(600))));
    }

    #[test]
    fn a_metric_is_best_only_when_it_beats_every_saved_one() {
        let now = Instant::now();
        let mut schedule = Schedule::start(Every::on_best("acc", Mode::Max), now).unwrap();
        schedule.remember(&BTreeMap::from([("acc".to_owned(), 0.9)]));
        schedule.observe("acc", 0.9);
        assert_eq!(schedule.due(at(1, 0), now), None);
        schedule.observe("acc", 0.91);
        assert_eq!(schedule.due(at(2, 0), now), Some(Why::Best("acc".to_owned())));
        schedule.saved(at(2, 0), &BTreeMap::new(), now);
        schedule.observe("acc", 0.905);
        assert_eq!(schedule.due(at(3, 0), now), None);
    }

    #[test]
    fn intervals_of_nothing_are_refused() {
        for every in [Every::steps(0), Every::epochs(0), Every::minutes(0)] {
            assert!(Schedule::start(every, Instant::now()).is_err());
        }
    }
}
