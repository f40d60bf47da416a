//! Retention as a value: the rules of a run, and their words. `retention.rs` applies them.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::time::Duration;

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Smaller is better: a loss.
    Min,
    /// Larger is better: an accuracy.
    Max,
}

impl Mode {
    pub(super) fn is_better(self, new: f64, old: f64) -> bool {
        match self {
            Self::Min => new < old,
            Self::Max => new > old,
        }
    }

    /// Orders values from the best to the worst.
    pub(super) fn compare(self, a: f64, b: f64) -> Ordering {
        match self {
            Self::Min => a.total_cmp(&b),
            Self::Max => b.total_cmp(&a),
        }
    }
}

/// A retention policy as a value. Each rule protects checkpoints; those that no rule protects are
/// deleted after a newer one is durable. Regardless of the rules, the newest, the pinned and the
/// one that this run resumed from stay.
///
/// ```
/// use tensorkeep::{Keep, Mode};
///
/// let keep = Keep::last(3).or(Keep::best("loss", Mode::Min, 1)).or(Keep::every_steps(10_000));
/// assert_eq!(keep.to_string(), "last 3, 1 best loss (min), every 10000 steps");
/// ```
///
/// The rules apply to the run, however often it was restarted. A rollback
/// ([`Store::resume_at`](super::Store::resume_at)) removes the steps behind it from
/// [`Keep::every_steps`] and [`Keep::every_epochs`]; a restart does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keep {
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Rule {
    All,
    Last(usize),
    Best { metric: String, mode: Mode, count: usize },
    EverySteps(u64),
    EveryEpochs(u64),
    YoungerThan(Duration),
    NewestWithinBytes(u64),
}

impl Rule {
    /// Whether it keeps all checkpoints newer than some point.
    pub(super) fn is_of_age(&self) -> bool {
        matches!(self, Self::All | Self::Last(_) | Self::YoungerThan(_) | Self::NewestWithinBytes(_))
    }
}

impl Keep {
    /// Whether nothing is ever deleted by it.
    pub(super) fn keeps_all(&self) -> bool {
        self.rules.contains(&Rule::All)
    }

    /// Whether it has no other rule, either: then rotation need not list the run.
    pub(super) fn is_all(&self) -> bool {
        !self.rules.is_empty() && self.rules.iter().all(|rule| *rule == Rule::All)
    }

    /// Every checkpoint. The default of [`StoreOptions`](super::StoreOptions).
    pub fn all() -> Self {
        Self { rules: vec![Rule::All] }
    }

    /// The newest `count`.
    pub fn last(count: usize) -> Self {
        Self { rules: vec![Rule::Last(count)] }
    }

    /// The newest whose lengths add up to at most `bytes`: as many as fit.
    pub fn newest_within_bytes(bytes: u64) -> Self {
        Self { rules: vec![Rule::NewestWithinBytes(bytes)] }
    }

    /// The `count` best by a metric. Of equal ones the newer is better.
    pub fn best(metric: impl Into<String>, mode: Mode, count: usize) -> Self {
        Self { rules: vec![Rule::Best { metric: metric.into(), mode, count }] }
    }

    /// The first at or after each multiple of `steps`.
    pub fn every_steps(steps: u64) -> Self {
        Self { rules: vec![Rule::EverySteps(steps)] }
    }

    /// The first at or after each multiple of `epochs`.
    pub fn every_epochs(epochs: u64) -> Self {
        Self { rules: vec![Rule::EveryEpochs(epochs)] }
    }

    /// All saved less than `age` ago, or in the future: clocks jump.
    pub fn younger_than(age: Duration) -> Self {
        Self { rules: vec![Rule::YoungerThan(age)] }
    }

    /// Also keeps what `other` keeps.
    pub fn or(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }

    /// The metrics that it ranks by, and which direction of each is better.
    ///
    /// ```
    /// use tensorkeep::{Keep, Mode};
    ///
    /// let keep = Keep::last(3).or(Keep::best("loss", Mode::Min, 1));
    /// assert_eq!(keep.ranked().collect::<Vec<_>>(), [("loss", Mode::Min)]);
    /// ```
    pub fn ranked(&self) -> impl Iterator<Item = (&str, Mode)> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Best { metric, mode, .. } => Some((metric.as_str(), *mode)),
            _ => None,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        let means_nothing = |rule: &&Rule| match rule {
            Rule::All => false,
            Rule::Last(count) => *count == 0,
            Rule::Best { metric, count, .. } => metric.is_empty() || *count == 0,
            Rule::EverySteps(every) | Rule::EveryEpochs(every) => *every == 0,
            Rule::YoungerThan(age) => age.as_secs() == 0,
            Rule::NewestWithinBytes(bytes) => *bytes == 0,
        };
        match self.rules.iter().find(means_nothing) {
            Some(rule) => {
                let expected = match rule {
                    Rule::Best { metric, .. } if metric.is_empty() => "the name of a metric",
                    Rule::YoungerThan(_) => "at least a second",
                    _ => "at least 1",
                };
                let words = Self { rules: vec![rule.clone()] };
                Err(Error::invalid(format!("the rule \"{words}\" keeps nothing"))
                    .expected(expected)
                    .help("leave the rule out; the newest checkpoint always stays"))
            }
            None => Ok(()),
        }
    }
}

/// In words: `last 3, 1 best accuracy (max), every 1000 steps`.
impl std::fmt::Display for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.rules.is_empty() {
            return f.write_str("the newest only");
        }
        for (i, rule) in self.rules.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            match rule {
                Rule::All => f.write_str("all"),
                Rule::Last(count) => write!(f, "last {count}"),
                Rule::Best { metric, mode: Mode::Min, count } => write!(f, "{count} best {metric} (min)"),
                Rule::Best { metric, mode: Mode::Max, count } => write!(f, "{count} best {metric} (max)"),
                Rule::EverySteps(steps) => write!(f, "every {steps} steps"),
                Rule::EveryEpochs(epochs) => write!(f, "every {epochs} epochs"),
                Rule::YoungerThan(age) => write!(f, "younger than {} s", age.as_secs()),
                Rule::NewestWithinBytes(bytes) => write!(f, "newest within {bytes} bytes"),
            }?;
        }
        Ok(())
    }
}
