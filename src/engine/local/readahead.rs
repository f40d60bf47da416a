//! What the kernel is asked to read before it is wanted. Owns: when it is asked, and for what.

use crate::engine::vfs::VfsFile;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// From so many bytes on it is looked whether they are in the page cache.
const LOOK_FROM: u64 = 16 << 10;
/// How far ahead of a reader is read.
const AHEAD: u64 = 16 << 20;
/// Far from everything.
const NEVER: u64 = u64::MAX;

/// The readers of one file, several threads perhaps.
///
/// The kernel sees for itself that a file is read in order, but not by several threads, and not far
/// ahead: 1.84 GB that were in no cache took 5.4 s to read and verify, and 3.6 when it was asked.
/// But asking for what is here costs half as much as reading it, so it is looked for first.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Where that ends which was asked for last.
    asked: AtomicU64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { asked: AtomicU64::new(NEVER) }
    }
}

impl Ahead {
    /// Has what is `wanted` of a file of `len` bytes read, and what follows it if it is read in
    /// order.
    pub fn prepare(&self, file: &dyn VfsFile, wanted: Range<u64>, len: u64) {
        if wanted.end.saturating_sub(wanted.start) < LOOK_FROM {
            return;
        }
        let Some(ask) = self.next(wanted, len) else { return };
        // Looking at what is not here makes the kernel read it, one page by itself: so only where
        // all will be asked for. In the middle, because opening has read the ends of the file.
        if file.read_cached_at(ask.start.midpoint(ask.end), &mut [0]) == 0 {
            // Threads that ask at the same time ask for the same, or twice for a little.
            self.asked.store(ask.end, Ordering::Relaxed);
            file.read_ahead(ask);
        }
    }

    /// What is `wanted`, and what follows it if it is near what was asked for before; nothing if
    /// that was asked for already.
    fn next(&self, wanted: Range<u64>, len: u64) -> Option<Range<u64>> {
        let asked = self.asked.load(Ordering::Relaxed);
        let end = |ahead| len.min(wanted.end.saturating_add(ahead));
        match asked.abs_diff(wanted.start) <= 2 * AHEAD {
            // Half way of what was asked for there is still as much on its way.
            true if asked >= end(AHEAD / 2) => None,
            true => Some(asked.max(wanted.start)..end(AHEAD)),
            false => Some(wanted),
        }
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
