//! The history of a run, which travels in its checkpoints: the curve of every metric, and the lives
//! of the processes that wrote. Nothing but checkpoints is written, so what rotation deletes is not
//! lost, and what a kill lost is not in it. These are the types that readers get; recording is in
//! `log.rs`, the bytes in `record.rs`. What the run's other objects add is in `store/lives.rs`;
//! `store/resume/history.rs` goes on with a history.

mod curve;
mod log;
mod record;

pub(super) use log::Log;

use super::keep::Mode;
use super::naming::CheckpointId;
use crate::checkpoint::Inspect;
use crate::error::Result;
use std::collections::BTreeMap;
use std::fmt;

/// The record that holds it.
pub(super) const HISTORY: &str = "tensorkeep.history";

/// The history of a run up to some checkpoint.
///
/// ```
/// use tensorkeep::{Keep, Progress, Reader, Snapshot, Store, StoreOptions};
///
/// # let folder = std::env::temp_dir().join(format!("doc-history-{}", std::process::id()));
/// let store = Store::open(&folder, StoreOptions::new().keep(Keep::last(1)))?;
/// for step in 1..=100 {
///     let progress = Progress::new(step);
///     store.log(&progress, [("loss", 1.0 / step as f64), ("lr", 1e-3)]);
///     if step % 50 == 0 {
///         store.save(&Snapshot::new().progress(progress))?;
///     }
/// }
/// store.close()?;
///
/// let history = Reader::open(&folder)?.history()?; // one checkpoint is left, and the whole curve
/// let loss = &history.metrics["loss"];
/// assert_eq!((loss.len(), loss.last().unwrap().value), (100, 0.01));
/// assert_eq!(history.lives[0].end.to_string(), "closed");
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// It is that of the logical run: a resume goes on with what its checkpoint carries, so the steps
/// that a kill lost, or that a rollback went back behind, are in no curve. The lives of all
/// attempts stay.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// The curves, by the metric's name.
    pub metrics: BTreeMap<String, Series>,
    /// The attempts to write, oldest first.
    pub lives: Vec<Life>,
    /// How many further metrics there were. A checkpoint carries at most 16 KiB of history, or 1 %
    /// of its own length if that is more: first the curves are thinned, and what still does not fit
    /// is left out.
    pub metrics_left_out: u64,
    /// How many older lives were left out.
    pub lives_left_out: u64,
}

impl History {
    /// Whether it is empty: of a run that logged nothing and was never opened.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.lives.is_empty()
    }

    /// The life of an attempt.
    pub fn life(&self, attempt: u32) -> Option<&Life> {
        self.lives.iter().find(|life| life.attempt == attempt)
    }
}

/// The curve of one metric: columns of equal length, in the order of progress.
///
/// A long curve is thinned to at most 4,096 points: of neighbouring points the smallest and the
/// largest stay, and the first one that is not finite, so peaks and NaN are where they were.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Series {
    /// Completed steps.
    pub steps: Vec<u64>,
    /// Completed epochs.
    pub epochs: Vec<u64>,
    /// When each value was logged: seconds since 1970 by the writer's clock, which may jump.
    pub times: Vec<f64>,
    /// The values, NaN and infinities as they were logged.
    pub values: Vec<f64>,
    /// How many were logged, before thinning.
    pub logged: u64,
    /// Which direction is better, where a policy or a schedule ranks by this metric.
    pub mode: Option<Mode>,
}

/// One value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Completed steps.
    pub step: u64,
    /// Completed epochs.
    pub epoch: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// The value; may be NaN or infinite.
    pub value: f64,
}

impl Series {
    /// How many points there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether more was logged than is here.
    pub fn is_thinned(&self) -> bool {
        self.logged > self.len() as u64
    }

    /// The points, oldest first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = Point> {
        let progress = self.steps.iter().zip(&self.epochs);
        let measured = self.times.iter().zip(&self.values);
        progress.zip(measured).map(|((&step, &epoch), (&time, &value))| Point { step, epoch, time, value })
    }

    /// The newest point.
    pub fn last(&self) -> Option<Point> {
        self.points().next_back()
    }

    /// The best finite point by [`Series::mode`], of equal ones the newest; None where no direction
    /// is known.
    pub fn best(&self) -> Option<Point> {
        let mode = self.mode?;
        let finite = self.points().filter(|point| point.value.is_finite());
        finite.reduce(|best, point| if mode.is_better(best.value, point.value) { best } else { point })
    }

    /// Adds a point behind the others.
    pub fn push(&mut self, point: Point) {
        let Point { step, epoch, time, value } = point;
        self.steps.push(step);
        self.epochs.push(epoch);
        self.times.push(time);
        self.values.push(value);
        self.logged = self.logged.saturating_add(1);
    }
}

/// One process that wrote to the run: an attempt.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Life {
    /// The attempt's number, counted from 1.
    pub attempt: u32,
    /// Its host; empty where its object cannot be read.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When it opened the run, in seconds since 1970; 0 where its object cannot be read.
    pub started: u64,
    /// When it was last heard of, in seconds since 1970: its end, or its newest save that is known.
    /// By a clock that may have jumped, so possibly before `started`.
    pub last_seen: u64,
    /// The step that it began at; None where no checkpoint and no end of it is known.
    pub first_step: Option<u64>,
    /// The newest step that is known of it. A process that died may have come further.
    pub last_step: Option<u64>,
    /// How many checkpoints it saved, as far as is known.
    pub saves: u64,
    /// The checkpoint that it went on from.
    pub resumed_from: Option<CheckpointId>,
    /// How it ended.
    pub end: LifeEnd,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifeEnd {
    /// [`Store::close`](super::Store::close) was called, and no signal had asked for it.
    Closed,
    /// A signal asked it to stop, and it closed the store: `SIGTERM`.
    Stopped(String),
    /// It ended without closing the store: it was killed, crashed, or returned early.
    Died,
    /// Its process runs.
    Running,
    /// It is the newest, on another host, and has not closed: it may run.
    #[default]
    Unknown,
}

impl LifeEnd {
    /// Whether the attempt is over.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Closed | Self::Stopped(_) | Self::Died)
    }

    /// Whether the program meant to end: such an end is no failure.
    pub fn is_planned(&self) -> bool {
        matches!(self, Self::Closed | Self::Stopped(_))
    }
}

/// In words: `closed`, `stopped by SIGTERM`, `died`, `running`, `unknown`.
impl fmt::Display for LifeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Stopped(signal) => write!(f, "stopped by {signal}"),
            Self::Died => f.write_str("died"),
            Self::Running => f.write_str("running"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Inspect<'_> {
    /// The history that this checkpoint carries: the curves up to its step, and the lives up to
    /// when it was saved. None in one that was saved without a store, or by version 0.1.
    ///
    /// ```no_run
    /// use tensorkeep::Checkpoint;
    ///
    /// let history = Checkpoint::open("runs/lenet/0001-0000000500.tkeep")?.inspect().history()?;
    /// let loss = history.as_ref().and_then(|history| history.metrics.get("loss"));
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Damaged`, `Mismatch` when the record breaks the rules that SPEC.md has for it, `Io`.
    pub fn history(&self) -> Result<Option<History>> {
        let Some(record) = self.0.optional_record::<record::Record>(HISTORY)? else { return Ok(None) };
        let history = record.history();
        history.map(Some).map_err(|error| error.in_record(HISTORY).in_object(self.0.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_point_is_finite_and_of_equal_ones_the_newest() {
        let mut series = Series::default();
        for (step, value) in [(1, 0.5), (2, 0.25), (3, f64::NAN), (4, 0.25), (5, f64::NEG_INFINITY)] {
            series.push(Point { step, epoch: 0, time: step as f64, value });
        }
        assert_eq!(series.best(), None, "no direction is known");
        series.mode = Some(Mode::Min);
        assert_eq!(series.best().map(|point| point.step), Some(4));
        series.mode = Some(Mode::Max);
        assert_eq!(series.best().map(|point| point.step), Some(1));
        assert_eq!((series.len(), series.logged, series.is_thinned()), (5, 5, false));
        assert_eq!(series.last().map(|point| point.value), Some(f64::NEG_INFINITY));
    }
}
