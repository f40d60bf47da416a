//! Where a save's time goes, stage by stage, so that the next bottleneck is visible. Owns: which
//! chunks are worth timing.

use std::time::{Duration, Instant};

/// Chunks below this are not timed one by one: reading the clock would cost more than they do.
const TIMED_FROM: usize = 64 << 10;

/// Where a save's time went. Stages overlap: bytes are on their way to the disk while the next ones
/// are encoded. What is left of `total` is planning, tables, and chunks below 64 KiB, which cost
/// less than timing them would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Filters, compression, and copies of what may change, of all threads together.
    pub encode: Duration,
    /// Checksums, of all threads together.
    pub checksum: Duration,
    /// Handing bytes to the engine: copies, and waiting for the disk.
    pub write: Duration,
    /// Everything behind the last byte handed over: the blocks still in flight, fsync, rename,
    /// fsync of the folder.
    pub commit: Duration,
    /// From the plan to the end.
    pub total: Duration,
}

/// A clock for the stages of one chunk.
pub(super) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    /// Runs when a chunk of so many bytes is worth it.
    pub(super) fn start(bytes: usize) -> Self {
        Self((bytes >= TIMED_FROM).then(Instant::now))
    }

    /// The time since the start or the last lap.
    pub(super) fn lap(&mut self) -> Duration {
        let Some(last) = &mut self.0 else { return Duration::ZERO };
        let now = Instant::now();
        now - std::mem::replace(last, now)
    }
}
