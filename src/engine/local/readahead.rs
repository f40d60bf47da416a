//! Readahead: when to request it from the kernel, and for which range.

use crate::engine::vfs::VfsFile;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads of at least this many bytes probe the page cache.
const LOOK_FROM: u64 = 16 << 10;
/// How far readahead goes beyond a reader.
const AHEAD: u64 = 16 << 20;
/// Far from every offset.
const NEVER: u64 = u64::MAX;

/// The readers of one file, possibly several threads.
///
/// The kernel detects by itself that a file is read in order, but not by several threads, and does
/// not read far ahead: 1.84 GB that were in no cache took 5.4 s to read and verify, and 3.6 with
/// requests. But requesting cached bytes costs half as much as reading them, so the page cache is
/// probed first.
#[derive(Debug)]
pub(super) struct Ahead {
    /// End of the last requested range.
    asked: AtomicU64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { asked: AtomicU64::new(NEVER) }
    }
}

impl Ahead {
    /// Requests `wanted` of a file of `len` bytes, plus readahead if access is sequential.
    pub fn prepare(&self, file: &dyn VfsFile, wanted: Range<u64>, len: u64) {
        if wanted.end.saturating_sub(wanted.start) < LOOK_FROM {
            return;
        }
        let Some(ask) = self.next(wanted, len) else { return };
        // Probing bytes that are not cached makes the kernel read them, one page by itself: so only
        // if all will be requested. In the middle, because opening has read the ends of the file.
        if file.read_cached_at(ask.start.midpoint(ask.end), &mut [0]) == 0 {
            // Threads that request at the same time request the same, or a little twice.
            self.asked.store(ask.end, Ordering::Relaxed);
            file.read_ahead(ask);
        }
    }

    /// `wanted`, plus readahead if it is near the last requested range; nothing if it was requested
    /// already.
    fn next(&self, wanted: Range<u64>, len: u64) -> Option<Range<u64>> {
        let asked = self.asked.load(Ordering::Relaxed);
        let end = |ahead| len.min(wanted.end.saturating_add(ahead));
        if asked.abs_diff(wanted.start) > 2 * AHEAD {
            return Some(wanted);
        }
        // Halfway through the requested range, as much is still on its way.
        if asked >= end(AHEAD / 2) { None } else { Some(asked.max(wanted.start)..end(AHEAD)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn asked(starts: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
        let ahead = Ahead::default();
        let next = |start| ahead.next(start * MIB..(start + 1) * MIB, 128 * MIB);
        let ask = |next: &Range<u64>| ahead.asked.store(next.end, Ordering::Relaxed);
        starts
            .into_iter()
            .filter_map(next)
            .inspect(ask)
            .map(|range| range.start / MIB..range.end / MIB)
            .collect()
    }

    #[test]
    fn sequential_readers_get_readahead_and_random_ones_none() {
        // As one thread draws them, and as two do.
        for starts in [(0..128).collect::<Vec<u64>>(), (0..64).flat_map(|i| [2 * i + 1, 2 * i]).collect()] {
            let asked = asked(starts.clone());
            assert!(asked.len() < 20, "{asked:?}");
            assert_eq!(asked[0], starts[0]..starts[0] + 1);
            assert!(asked.windows(2).all(|pair| pair[1].start == pair[0].end), "{asked:?}");
            assert_eq!(asked.last().map(|last| last.end), Some(128));
        }
        assert_eq!(asked([80, 40, 120, 5]), [80..81, 40..41, 120..121, 5..6]);
    }
}
