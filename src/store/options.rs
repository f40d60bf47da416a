//! How a store works, as a value: the options, their defaults, and which values make no sense.

use super::keep::{Keep, Mode};
use super::priority;
use super::schedule::Every;
use crate::checkpoint::OpenOptions;
use crate::codec::Codec;
use crate::deadline::CallDeadline;
use crate::engine::{Engine, MmapPromise};
use crate::error::{Error, ErrorKind, Result};
use crate::writer::WriteOptions;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a store works, as a value: when to save, what to keep, how to write.
///
/// ```
/// use std::time::Duration;
/// use tensorkeep::{Codec, Every, Keep, Mode, StoreOptions, WriteOptions, store::WhenFull};
///
/// let options = StoreOptions::new()
///     .save(Every::steps(500).or_on_signal())
///     .keep(Keep::last(3).or(Keep::best("val_loss", Mode::Min, 1)))
///     .write(WriteOptions::new().codec_for("optimizer/*", Codec::Balanced))
///     .in_flight(1, WhenFull::Skip)
///     .deadline(Duration::from_secs(60));
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub(super) every: Every,
    pub(super) keep: Keep,
    pub(super) keep_remote: Option<Keep>,
    pub(super) write: WriteOptions,
    pub(super) open: OpenOptions,
    pub(super) map: Option<MmapPromise>,
    pub(super) in_flight: usize,
    pub(super) when_full: WhenFull,
    pub(super) background_nice: u8,
    pub(super) remote_timeout: Duration,
    pub(super) deadline: Duration,
    pub(super) rank_deadline: Duration,
    pub(super) least_shard_bytes: u64,
    pub(super) cut_replicas: bool,
    pub(super) compare_replicas: bool,
}

/// What a save does when [`StoreOptions::in_flight`] saves are in
/// flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits until one is done.
    #[default]
    Wait,
    /// Saves nothing this time.
    Skip,
    /// Fails with [`ErrorKind::Busy`].
    Error,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            every: Every::never(),
            keep: Keep::all(),
            keep_remote: None,
            write: WriteOptions::default(),
            open: OpenOptions::default(),
            map: None,
            in_flight: 1,
            when_full: WhenFull::Wait,
            background_nice: 0,
            remote_timeout: Duration::from_secs(4),
            deadline: Duration::from_secs(180),
            rank_deadline: Duration::from_secs(600),
            least_shard_bytes: 64 << 20,
            cut_replicas: true,
            compare_replicas: true,
        }
    }
}

impl StoreOptions {
    /// Saves when asked, keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// When [`Store::due`](super::Store::due) says that a save is due.
    pub fn save(self, every: Every) -> Self {
        Self { every, ..self }
    }

    /// Which checkpoints rotation protects.
    pub fn keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// Which checkpoints rotation protects in the remote tier of
    /// [`Store::open_tiered`](super::Store::open_tiered), and thereby which are promoted there; by
    /// default the same as [`StoreOptions::keep`].
    pub fn keep_remote(self, keep: Keep) -> Self {
        Self { keep_remote: Some(keep), ..self }
    }

    /// How checkpoints are written. The default codec is
    /// [`Codec::Balanced`](crate::Codec::Balanced) on engines over a network and
    /// [`Codec::Raw`](crate::Codec::Raw) otherwise.
    pub fn write(self, write: WriteOptions) -> Self {
        Self { write, ..self }
    }

    /// How checkpoints are opened.
    pub fn open(self, open: OpenOptions) -> Self {
        Self { open, ..self }
    }

    /// How many background saves may be in flight, at least 1, and what happens to one more.
    /// Staging takes as many times the memory of the state.
    pub fn in_flight(self, saves: usize, when_full: WhenFull) -> Self {
        Self { in_flight: saves, when_full, ..self }
    }

    /// Niceness added to the threads of saves beside training
    /// ([`Store::stage`](super::Store::stage), [`Store::save_async`](super::Store::save_async),
    /// [`Store::save_during`](super::Store::save_during)): 0 to 19, default 0. Where training keeps
    /// all cores busy, 10 leaves it almost all of them, and the save takes longer. Linux only:
    /// elsewhere niceness belongs to the process, and this has no effect.
    pub fn background_nice(self, steps: u8) -> Self {
        Self { background_nice: steps, ..self }
    }

    /// How long [`Store::open_tiered`](super::Store::open_tiered) and resuming wait, each, for a
    /// remote tier that does not answer, if there is a local checkpoint to go on from; default 4 s.
    /// Then the run goes on without it, says so, and tries the remote tier again in the background.
    /// Without a local checkpoint the engine's own limits apply: whether there is a run to resume
    /// must be known.
    pub fn remote_timeout(self, limit: Duration) -> Self {
        Self { remote_timeout: limit, ..self }
    }

    /// How long a call of the store may wait for storage over a network in all, with every request
    /// and every retry of opening, listing, committing and rotating; default 180 s. Bytes that are
    /// moved add the time they take on the slowest link that the engine tolerates. A call that
    /// reaches the deadline fails with `Io`, or with `Unknown` if a commit was in flight; a
    /// promotion in the background is tried again after the next save. Rotation takes at most 5 s
    /// of it: the save is durable, and the next one deletes the rest.
    pub fn deadline(self, limit: Duration) -> Self {
        Self { deadline: limit, ..self }
    }

    /// How long a rank of a job of many ([`Store::open_ranks`](super::Store::open_ranks)) waits for
    /// the others to come to a call; default 10 minutes. Then the call fails on every rank, and
    /// names those that are missing.
    pub fn rank_deadline(self, limit: Duration) -> Self {
        Self { rank_deadline: limit, ..self }
    }

    /// Of what several ranks of a job hold, so many bytes at least to each rank that stores any;
    /// default 64 MiB. A small state is then stored by few ranks; if one of them stores everything,
    /// the checkpoint is one plain file. With 0, all ranks that hold something store their share.
    pub fn least_shard_bytes(self, bytes: u64) -> Self {
        Self { least_shard_bytes: bytes, ..self }
    }

    /// Whether what several ranks of a job hold is cut among them where it is more than 64 MiB and
    /// half a rank's share; the default. Without, each tensor is stored as it is held.
    pub fn cut_replicas(self, cut: bool) -> Self {
        Self { cut_replicas: cut, ..self }
    }

    /// Whether what several ranks of a job hold is compared, by checksums, with every save; the
    /// default. See [`Saved::diverged`](super::Saved::diverged).
    pub fn compare_replicas(self, compare: bool) -> Self {
        Self { compare_replicas: compare, ..self }
    }

    /// Maps checkpoints, under the promise that the run's files are never changed in place.
    pub fn map(self, promise: MmapPromise) -> Self {
        Self { map: Some(promise), ..self }
    }

    /// Runs a call of the store under its deadline.
    pub(super) fn timed<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let deadline = CallDeadline::after(self.deadline);
        deadline.enter(call).map_err(|error| match error.kind() {
            ErrorKind::Io if deadline.left().is_zero() => {
                error.help("StoreOptions::deadline says how long a call may wait for the storage")
            }
            _ => error,
        })
    }

    /// The metrics that something ranks by, and how.
    pub(super) fn ranked(&self) -> BTreeMap<String, Mode> {
        let kept = [Some(&self.keep), self.keep_remote.as_ref()].into_iter().flatten().flat_map(Keep::ranked);
        self.every.ranked().chain(kept).map(|(metric, mode)| (metric.to_owned(), mode)).collect()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.keep.check()?;
        if let Some(keep) = &self.keep_remote {
            keep.check()?;
        }
        if self.in_flight == 0 {
            return Err(Error::invalid("saves in flight").expected("at least 1").found(0));
        }
        if self.background_nice > priority::NICEST {
            return Err(Error::invalid("niceness of saves in the background")
                .expected(format!("0 to {}", priority::NICEST))
                .found(self.background_nice));
        }
        Ok(())
    }
}

/// Default codec: raw locally so that tensors can be mapped, compressed over a network.
pub(super) fn default_codec(engine: &dyn Engine) -> Codec {
    if engine.caps().over_network { Codec::Balanced } else { Codec::Raw }
}
