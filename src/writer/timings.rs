//! The time of a save, stage by stage, to show the next bottleneck.

use std::time::{Duration, Instant};

/// Chunks below this are not timed one by one: reading the clock would cost more than they do.
const TIMED_FROM: usize = 64 << 10;

/// The time of a save by stage. Stages overlap: bytes are written while the next ones are encoded.
/// The rest of `total` is planning, tables, and chunks below 64 KiB, which cost less than timing
/// them would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Filters, compression, and copies of sources that may change, all threads together.
    pub encode: Duration,
    /// Checksums, all threads together.
    pub checksum: Duration,
    /// Handing bytes to the engine: copying, and waiting for the disk.
    pub write: Duration,
    /// Everything after the last byte was handed over: blocks in flight, fsync, rename, fsync of
    /// the folder.
    pub commit: Duration,
    /// From the plan to the end.
    pub total: Duration,
}

/// A clock for the stages of one chunk.
pub(super) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    /// Runs if a chunk of this many bytes is worth timing.
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
