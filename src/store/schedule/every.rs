//! A schedule as a value: the rules that say when a save is due, and their words.

use crate::error::{Error, Result};
use crate::store::keep::Mode;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use tensorkeep_signals::Signal;

/// A schedule as a value: a save is due when any of its rules says so.
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
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    Steps(u64),
    Epochs(u64),
    Interval(Duration),
    Auto,
    StopOn(Vec<Signal>),
    SaveOn(Vec<Signal>),
    Best(String, Mode),
}

impl Every {
    /// Never due by itself; `save` still saves. The default of
    /// [`StoreOptions`](crate::StoreOptions).
    pub fn never() -> Self {
        Self::default()
    }

    /// When a multiple of `steps` was reached since the last save.
    pub fn steps(steps: u64) -> Self {
        Self::when(Rule::Steps(steps))
    }

    /// When a multiple of `epochs` was reached since the last save. A checkpoint has the name of
    /// its step, so let [`Progress`](crate::Progress) count steps as well: a second checkpoint of
    /// the same step is refused.
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

    /// At an interval that decides itself: as often as pays, by what saves cost here and by how
    /// often this run fails.
    ///
    /// ```
    /// use tensorkeep::{Every, Keep, StoreOptions};
    ///
    /// let options = StoreOptions::new().save(Every::auto().or_on_signal()).keep(Keep::last(3));
    /// # drop(options);
    /// ```
    ///
    /// Measured are how long a save holds training up (slower steps beside a save in the background
    /// are part of it: ask [`Store::due`](crate::Store::due) at every step) and how long it takes
    /// until it is durable. How often the run fails is told by its
    /// [history](crate::history::History::lives), where it begins with one failure in 24 hours; a
    /// closed store is no failure. [`AutoInterval`](crate::store::AutoInterval) has the formula,
    /// each checkpoint carries its terms, and `tensorkeep why RUN` prints them. Saving takes at
    /// most 3.5 % of the time. The first save is due after a minute; then each one moves the
    /// interval at most twofold.
    pub fn auto() -> Self {
        Self::when(Rule::Auto)
    }

    /// When SIGTERM or SIGINT asked this process to save and stop, or SIGUSR1 to save and go on.
    /// Short for `Every::stop_on([Signal::Term, Signal::Int]).or(Every::save_on([Signal::Usr1]))`.
    pub fn on_signal() -> Self {
        Self::stop_on([Signal::Term, Signal::Int]).or(Self::save_on([Signal::Usr1]))
    }

    /// When one of these signals came: it requests a save and then the end, which
    /// [`Store::should_stop`](crate::Store::should_stop) reports once that save is made.
    ///
    /// The same request may arrive more than once, since launchers forward and repeat signals. The
    /// effect of another one:
    ///
    /// * Within 250 ms of the first: nothing, for all of these signals.
    /// * SIGINT later than that, as when a person presses Ctrl-C again: it ends the process at
    ///   once, with exit code 130.
    /// * Any other of these signals: nothing, until 30 s after the first, or 1 s if a save has
    ///   answered it. From then on it ends the process at once, with exit code 128 + its number.
    ///
    /// While the store lives, handlers that were installed before run as well; afterwards they are
    /// restored. SIGINT and SIGHUP stay ignored if they are ignored when the store is opened: under
    /// `nohup`, and in a shell's background jobs. A forked child does not take part.
    pub fn stop_on(signals: impl IntoIterator<Item = Signal>) -> Self {
        Self::when(Rule::StopOn(signals.into_iter().collect()))
    }

    /// When one of these signals came: it requests a save, and training goes on. A signal that is
    /// also in [`Every::stop_on`] requests a stop.
    pub fn save_on(signals: impl IntoIterator<Item = Signal>) -> Self {
        Self::when(Rule::SaveOn(signals.into_iter().collect()))
    }

    /// When a metric given to [`Store::observe`](crate::Store::observe) beats every saved one. NaN
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
            Rule::Best(..) | Rule::Auto => false,
        };
        match self.rules.iter().find(never) {
            Some(rule) => {
                let what = match rule {
                    Rule::Steps(_) => "steps between saves",
                    Rule::Epochs(_) => "epochs between saves",
                    Rule::Interval(_) => "the time between saves",
                    _ => "the number of signals to save on",
                };
                Err(Error::invalid(what).expected("more than 0").found(0))
            }
            None => Ok(()),
        }
    }

    /// The metrics that it ranks by.
    pub(in crate::store) fn ranked(&self) -> impl Iterator<Item = (&str, Mode)> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Best(metric, mode) => Some((metric.as_str(), *mode)),
            _ => None,
        })
    }

    /// Whether an interval decides itself.
    pub(super) fn is_auto(&self) -> bool {
        self.rules.contains(&Rule::Auto)
    }

    /// The signals that request a stop, and those that request a save.
    pub(super) fn signals(&self) -> (Vec<Signal>, Vec<Signal>) {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SaveReason {
    /// A number of steps.
    Steps(u64),
    /// A number of epochs.
    Epochs(u64),
    /// Time passed.
    Interval(Duration),
    /// Time passed, as much as [`Every::auto`] chose.
    Auto(Duration),
    /// A signal requested it.
    Signal,
    /// The metric reached a new best.
    Best(String),
    /// A background save failed after it had been due.
    Again,
}

impl fmt::Display for SaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "every {steps} steps"),
            Self::Epochs(epochs) => write!(f, "every {epochs} epochs"),
            Self::Interval(interval) => write!(f, "every {} s", interval.as_secs_f64()),
            Self::Auto(interval) => write!(f, "auto, every {:.1} s", interval.as_secs_f64()),
            Self::Signal => f.write_str("signal"),
            Self::Best(metric) => write!(f, "best {metric}"),
            Self::Again => f.write_str("again, after a failure"),
        }
    }
}
