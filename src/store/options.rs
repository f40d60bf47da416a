//! How a store works, as a value. Owns: defaults, and what means nothing.

use super::{Every, Keep, WhenFull, priority};
use crate::checkpoint::OpenOptions;
use crate::codec::Codec;
use crate::deadline::CallDeadline;
use crate::engine::{Engine, MmapPromise};
use crate::error::{Error, ErrorKind, Result};
use crate::writer::WriteOptions;
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
    pub(super) in_flight: (usize, WhenFull),
    pub(super) background_nice: u8,
    pub(super) remote_timeout: Duration,
    pub(super) deadline: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let (write, open) = Default::default();
        Self {
            every: Every::never(),
            keep: Keep::all(),
            keep_remote: None,
            write,
            open,
            map: None,
            in_flight: (1, WhenFull::Wait),
            background_nice: 0,
            remote_timeout: Duration::from_secs(4),
            deadline: Duration::from_secs(180),
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

    /// What rotation protects.
    pub fn keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// What rotation protects in the remote tier of
    /// [`Store::open_tiered`](super::Store::open_tiered), and thereby what is promoted there;
    /// without it the same as [`StoreOptions::keep`].
    pub fn keep_remote(self, keep: Keep) -> Self {
        Self { keep_remote: Some(keep), ..self }
    }

    /// How checkpoints are written. Without a codec, [`Codec::Balanced`](crate::Codec::Balanced)
    /// where bytes travel over a network and [`Codec::Raw`](crate::Codec::Raw) otherwise.
    pub fn write(self, write: WriteOptions) -> Self {
        Self { write, ..self }
    }

    /// How checkpoints are opened.
    pub fn open(self, open: OpenOptions) -> Self {
        Self { open, ..self }
    }

    /// How many saves may be in the background at a time, at least 1, and what one more does.
    /// Staged memory is as many times the state.
    pub fn in_flight(self, saves: usize, when_full: WhenFull) -> Self {
        Self { in_flight: (saves, when_full), ..self }
    }

    /// How many steps nicer than the thread that asks for it a save beside training runs
    /// ([`Store::stage`](super::Store::stage), [`Store::save_async`](super::Store::save_async),
    /// [`Store::save_during`](super::Store::save_during)), with every thread that it starts: 0 to
    /// 19, 0 unless it is set. Where training keeps all cores busy, 10 leaves it almost all of
    /// them, and the save takes longer. Linux only: elsewhere niceness is not a thread's own, and
    /// nothing happens.
    pub fn background_nice(self, steps: u8) -> Self {
        Self { background_nice: steps, ..self }
    }

    /// How long [`Store::open_tiered`](super::Store::open_tiered) and resuming wait, each, for a
    /// remote tier that does not answer, where there is a local checkpoint to go on from; 4 s
    /// unless it is set. Then the run goes on without it, says so, and the remote tier is tried
    /// again in the background. Where there is no local checkpoint the engine's own limits hold:
    /// whether there is a run to resume must be known.
    pub fn remote_timeout(self, limit: Duration) -> Self {
        Self { remote_timeout: limit, ..self }
    }

    /// How long a call of the store may wait for storage over a network in all, with every request
    /// and every retry of opening, listing, committing and rotating; 180 s unless it is set. Bytes
    /// that are moved add what they take on the slowest line that the engine puts up with. A call
    /// that reaches it fails with `Io`, or with `Unknown` where a commit was on its way; a
    /// promotion in the background is tried again behind the next save. Deleting what a save has
    /// made superfluous takes no more than 5 s of it: the save is durable, and the next one deletes
    /// the rest.
    pub fn deadline(self, limit: Duration) -> Self {
        Self { deadline: limit, ..self }
    }

    /// Checkpoints are mapped, under the promise that nobody changes the run's files in place.
    pub fn map(self, promise: MmapPromise) -> Self {
        Self { map: Some(promise), ..self }
    }

    /// Does what a call of the store does, by its deadline.
    pub(super) fn timed<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let deadline = CallDeadline::after(self.deadline);
        deadline.enter(call).map_err(|error| match error.kind() {
            ErrorKind::Io if deadline.left().is_zero() => {
                error.help("StoreOptions::deadline says how long a call may wait for the storage")
            }
            _ => error,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        self.keep.check()?;
        self.keep_remote.as_ref().map_or(Ok(()), Keep::check)?;
        if self.in_flight.0 == 0 {
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

/// What nobody chose: raw tensors are mapped where they lie, and bytes that travel are worth making
/// fewer.
pub(super) fn default_codec(engine: &dyn Engine) -> Codec {
    if engine.caps().over_network { Codec::Balanced } else { Codec::Raw }
}
