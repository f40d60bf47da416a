//! An open object. Owns: which bytes are here already, which are fetched, and in how many requests: near ranges in one,
//! long ones in several at a time, and what is read in order is fetched ahead.

use crate::remote::Remote;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tensorkeep::engine::Blob;
use tensorkeep::{Error, ErrorKind, Result};

/// Longest range of one request: long enough that its round trip does not matter, short enough that several share
/// the way.
pub(crate) const FETCH: u64 = 8 << 20;
/// Requests of one read at a time.
const REQUESTS_IN_FLIGHT: usize = 8;
/// Ranges that are no farther apart are fetched as one: what a round trip costs in bytes.
const NEAR: u64 = 64 << 10;
/// What is fetched ahead of a reader that reads in order: first, and at most. A reader that jumps gets its ranges only.
const FIRST_AHEAD: u64 = 4 << 20;
const MOST_AHEAD: u64 = 32 << 20;

/// A committed object.
#[derive(Debug)]
pub(crate) struct ObjectBlob {
    pub remote: Arc<Remote>,
    /// The committed key, for messages.
    pub key: String,
    /// Where the bytes are: at the key, or where its commit object says.
    pub path: Path,
    pub len: u64,
    /// The object's first and last bytes.
    pub head: Bytes,
    pub tail: Bytes,
    pub ahead: Mutex<Ahead>,
}

/// What was fetched before it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Pieces in the object's order, each beginning where the one before ends.
    pieces: VecDeque<(u64, Bytes)>,
    /// Where the last read ended.
    last_end: u64,
    /// How much to fetch next; 0 until two reads were in order.
    window: u64,
}

impl Blob for ObjectBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_ranges(&mut [(offset, buffer)])
    }

    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        ranges.iter().try_for_each(|(offset, buffer)| self.check_range(*offset, buffer.len()))?;
        let mut missing: Vec<&mut (u64, &mut [u8])> =
            ranges.iter_mut().filter_map(|range| (!self.is_here(range)).then_some(range)).collect();
        match &mut missing[..] {
            [] => Ok(()),
            [(offset, buffer)] => self.read_one(*offset, buffer),
            several => self.read_several(several),
        }
    }
}

impl ObjectBlob {
    fn check_range(&self, offset: u64, len: usize) -> Result<()> {
        if offset.checked_add(len as u64).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Damaged, format!("the object ends before the {len} bytes wanted"))
            .at_byte(offset)
            .found(format!("{} bytes in all", self.len))
            .in_object(self.remote.describe(&self.key)))
    }

    /// Fills a buffer from the bytes that came with opening, if they have it.
    fn is_here(&self, (offset, buffer): &mut (u64, &mut [u8])) -> bool {
        let tail_start = self.len - self.tail.len() as u64;
        [(0, &self.head), (tail_start, &self.tail)]
            .into_iter()
            .any(|(start, bytes)| copy_from(start, bytes, *offset, buffer))
            || buffer.is_empty()
    }

    /// One range: out of what was fetched ahead, or with what follows when the reads are in order.
    fn read_one(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        let in_order = {
            let mut ahead = self.lock_ahead();
            let in_order = offset.abs_diff(ahead.last_end) <= NEAR && ahead.last_end > 0;
            ahead.last_end = end;
            if !in_order {
                ahead.forget();
            } else if ahead.take(offset, buffer) {
                return Ok(());
            }
            in_order.then(|| ahead.widen())
        };
        let Some(window) = in_order else { return self.fetch_into(&mut [&mut (offset, buffer)]) };
        let until = end.saturating_add(window).min(self.len);
        let cuts = cut(offset..until);
        let starts: Vec<u64> = cuts.iter().map(|range| range.start).collect();
        let pieces = starts.into_iter().zip(self.fetch(cuts)?);
        let mut ahead = self.lock_ahead();
        ahead.pieces = pieces.collect();
        if ahead.take(offset, buffer) {
            return Ok(());
        }
        // Another reader of this object was between: it reads elsewhere.
        drop(ahead);
        self.fetch_into(&mut [&mut (offset, buffer)])
    }

    /// Ranges that are near each other are read as one, of which more may be here already or come with it.
    fn read_several(&self, wanted: &mut [&mut (u64, &mut [u8])]) -> Result<()> {
        let [Range { start, end }] = merged(wanted)[..] else { return self.fetch_into(wanted) };
        // OK to cast: as long as the buffers, and what lies between them.
        let mut together = vec![0; (end - start) as usize];
        self.read_one(start, &mut together)?;
        for (offset, buffer) in wanted {
            buffer.copy_from_slice(&together[(*offset - start) as usize..][..buffer.len()]);
        }
        Ok(())
    }

    fn lock_ahead(&self) -> MutexGuard<'_, Ahead> {
        // Whole values are replaced: a panic elsewhere leaves nothing half done.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches what the buffers want and nothing that is far from it.
    fn fetch_into(&self, wanted: &mut [&mut (u64, &mut [u8])]) -> Result<()> {
        let cuts: Vec<Range<u64>> = merged(wanted).into_iter().flat_map(cut).collect();
        let fetched = self.fetch(cuts.clone())?;
        for (offset, buffer) in wanted {
            let end = *offset + buffer.len() as u64;
            for (range, bytes) in cuts.iter().zip(&fetched) {
                let (from, to) = (range.start.max(*offset), range.end.min(end));
                if from < to {
                    // OK to cast: within the buffer, and within the bytes.
                    buffer[(from - *offset) as usize..(to - *offset) as usize]
                        .copy_from_slice(&bytes[(from - range.start) as usize..(to - range.start) as usize]);
                }
            }
        }
        Ok(())
    }

    /// One request for each range, several at a time.
    fn fetch(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let (store, path) = (Arc::clone(&self.remote.store), self.path.clone());
        let wanted: Vec<u64> = ranges.iter().map(|range| range.end - range.start).collect();
        let fetched = self.remote.run("reading", &self.key, fetch_all(store, path, ranges));
        let fetched: Vec<Bytes> = fetched.map_err(|error| self.explain_missing(error))?;
        match wanted.iter().zip(&fetched).find(|(wanted, bytes)| **wanted != bytes.len() as u64) {
            None => Ok(fetched),
            Some((wanted, bytes)) => Err(self.explain_missing(
                Error::new(ErrorKind::Damaged, "the store gave other than what was asked for")
                    .expected(format!("{wanted} bytes"))
                    .found(bytes.len())
                    .in_object(self.remote.describe(&self.key)),
            )),
        }
    }
}

impl ObjectBlob {
    /// Whether an object that cannot be read was deleted, or is what its commit object names and is not there whole.
    fn explain_missing(&self, error: Error) -> Error {
        let (store, path, at) =
            (Arc::clone(&self.remote.store), self.path.clone(), self.remote.path(&self.key));
        let looked = self.remote.io.run(async move {
            let commit = store.head(&at).await;
            (store.head(&path).await, commit.is_ok())
        });
        let damaged = |found: String| {
            Error::new(ErrorKind::Damaged, "the object names bytes that are not there whole")
                .expected(format!("{} bytes at {}", self.len, self.path))
                .found(found)
                .help("resume from an older checkpoint")
                .in_object(self.remote.describe(&self.key))
        };
        match looked {
            Ok((Err(StoreError::NotFound { .. }), true)) => damaged("nothing".to_owned()),
            Ok((Err(StoreError::NotFound { .. }), false)) => {
                error.help("it was deleted while it was open: open a newer one")
            }
            Ok((Ok(meta), _)) if meta.size != self.len => damaged(format!("{} bytes", meta.size)),
            _ => error,
        }
    }
}

async fn fetch_all(
    store: Arc<dyn ObjectStore>,
    path: Path,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<Bytes>, StoreError> {
    let requests = ranges.into_iter().map(|range| {
        let (store, path) = (Arc::clone(&store), path.clone());
        async move { store.get_range(&path, range).await }
    });
    stream::iter(requests).buffered(REQUESTS_IN_FLIGHT).try_collect().await
}

impl Ahead {
    fn forget(&mut self) {
        self.pieces.clear();
        self.window = 0;
    }

    /// How much to fetch ahead now: the longer a reader reads in order, the more.
    fn widen(&mut self) -> u64 {
        self.window = (self.window * 2).clamp(FIRST_AHEAD, MOST_AHEAD);
        self.window
    }

    /// Fills the buffer if all its bytes are here, and drops what lies before them.
    fn take(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        while self.pieces.front().is_some_and(|(start, bytes)| start + bytes.len() as u64 <= offset) {
            self.pieces.pop_front();
        }
        let end = offset + buffer.len() as u64;
        let starts_here = self.pieces.front().is_some_and(|(start, _)| *start <= offset);
        let ends_here = self.pieces.back().is_some_and(|(start, bytes)| end <= start + bytes.len() as u64);
        if !starts_here || !ends_here {
            return false;
        }
        let mut filled = 0;
        for (start, bytes) in &self.pieces {
            let from = (offset + filled as u64 - start) as usize;
            let count = (bytes.len() - from).min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&bytes[from..from + count]);
            filled += count;
            if filled == buffer.len() {
                break;
            }
        }
        true
    }
}

/// Fills the buffer from bytes that begin at `start`, if they have all of it.
fn copy_from(start: u64, bytes: &Bytes, offset: u64, buffer: &mut [u8]) -> bool {
    let from = offset.checked_sub(start).and_then(|from| usize::try_from(from).ok());
    let found = from.and_then(|from| bytes.get(from..from.checked_add(buffer.len())?));
    found.map(|found| buffer.copy_from_slice(found)).is_some()
}

/// What buffers want, in order, near ranges as one.
fn merged(wanted: &[&mut (u64, &mut [u8])]) -> Vec<Range<u64>> {
    merge(wanted.iter().map(|(offset, buffer)| *offset..*offset + buffer.len() as u64).collect())
}

/// Ranges in order, near ones as one.
fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(NEAR) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Cuts a range into pieces of at most [`FETCH`].
fn cut(range: Range<u64>) -> Vec<Range<u64>> {
    let starts = (range.start..range.end).step_by(FETCH as usize);
    starts.map(|start| start..(start + FETCH).min(range.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_become_one_and_long_ones_several() {
        assert_eq!(merge(vec![100..200, 0..50, 10 << 20..11 << 20]), [0..200, 10 << 20..11 << 20]);
        assert_eq!(cut(5..5 + 2 * FETCH + 1).len(), 3);
        assert!(cut(7..7).is_empty());
    }

    #[test]
    fn what_was_fetched_ahead_is_found_across_its_pieces_and_dropped_behind() {
        let bytes: Bytes = (0..100).collect::<Vec<u8>>().into();
        let pieces = || VecDeque::from([(10, bytes.slice(10..40)), (40, bytes.slice(40..70))]);
        let mut ahead = Ahead { pieces: pieces(), ..Ahead::default() };
        let mut buffer = [0; 20];
        assert!(!ahead.take(5, &mut buffer) && !ahead.take(60, &mut buffer));
        ahead.pieces = pieces();
        assert!(ahead.take(30, &mut buffer));
        assert_eq!(buffer[..], bytes[30..50]);
        assert!(ahead.take(45, &mut buffer) && ahead.pieces.len() == 1);
        assert_eq!(buffer[..], bytes[45..65]);
    }
}
