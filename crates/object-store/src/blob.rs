//! An open object: which bytes are in memory, which are fetched, and in how many requests. Near
//! ranges are one request, long ones several in parallel, and sequential reads are read ahead.

use crate::ahead::{Ahead, Taken};
use crate::error::{explain, is_past_the_end};
use crate::fetch::fetch;
use crate::remote::Remote;
use crate::runtime::Started;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tensorkeep::engine::{Blob, count_read};
use tensorkeep::{Error, ErrorKind, Result};

/// Longest range of one request: long enough that its round trip does not matter, short enough that
/// several share the bandwidth.
pub(crate) const FETCH: u64 = 8 << 20;
/// Requests of one read at a time.
const REQUESTS_IN_FLIGHT: usize = 8;
/// Ranges that are no farther apart are fetched as one: the cost of a round trip in bytes.
const NEAR: u64 = 64 << 10;

/// A committed object.
#[derive(Debug)]
pub(crate) struct ObjectBlob {
    pub remote: Arc<Remote>,
    /// The committed key, for messages.
    pub key: String,
    /// The path of the bytes: the key's, or the one in its commit object.
    pub path: Path,
    pub len: u64,
    /// The object's first and last bytes.
    pub head: Bytes,
    pub tail: Bytes,
    pub ahead: Arc<Ahead>,
}

type Fetched = Result<Bytes, StoreError>;

impl Blob for ObjectBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_ranges(&mut [(offset, buffer)])
    }

    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        ranges.iter().try_for_each(|(offset, buffer)| self.check_range(*offset, buffer.len()))?;
        let wanted = ranges.iter().map(|(_, buffer)| buffer.len()).sum();
        let mut missing: Vec<&mut (u64, &mut [u8])> =
            ranges.iter_mut().filter_map(|range| (!self.is_here(range)).then_some(range)).collect();
        match &mut missing[..] {
            [] => {}
            [(offset, buffer)] => self.read_one(*offset, buffer)?,
            several => self.read_several(several)?,
        }
        count_read(wanted);
        Ok(())
    }
}

impl Drop for ObjectBlob {
    fn drop(&mut self) {
        self.ahead.stop();
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

    /// Fills a buffer from the bytes that came with opening, if they cover it.
    fn is_here(&self, (offset, buffer): &mut (u64, &mut [u8])) -> bool {
        let tail_start = self.len - self.tail.len() as u64;
        [(0, &self.head), (tail_start, &self.tail)]
            .into_iter()
            .any(|(start, bytes)| copy_from(start, bytes, *offset, buffer))
            || buffer.is_empty()
    }

    /// One range, from the readahead or by itself.
    fn read_one(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let plan = self.ahead.plan(offset..offset + buffer.len() as u64, self.len);
        for range in plan.fetch {
            self.fetch_ahead(range);
        }
        if plan.is_ahead {
            match self.ahead.take(offset, buffer) {
                Taken::Filled => return Ok(()),
                Taken::Failed(error) => return Err(self.explain(error)),
                Taken::Gone => {}
            }
        }
        self.fetch_into(&mut [&mut (offset, buffer)])
    }

    /// Reads ranges that are near each other as one; parts of it may be in memory or in flight.
    fn read_several(&self, wanted: &mut [&mut (u64, &mut [u8])]) -> Result<()> {
        let [Range { start, end }] = merged(wanted)[..] else { return self.fetch_into(wanted) };
        // OK to cast: as long as the buffers, and the gaps between them.
        let mut together = vec![0; (end - start) as usize];
        self.read_one(start, &mut together)?;
        for (offset, buffer) in wanted {
            buffer.copy_from_slice(&together[(*offset - start) as usize..][..buffer.len()]);
        }
        Ok(())
    }

    fn fetch_ahead(&self, range: Range<u64>) {
        let (ahead, at) = (Arc::clone(&self.ahead), range.clone());
        let fetched = self.request(range.clone());
        let task = self.remote.io.handle().spawn(async move { ahead.arrived(&at, fetched.await) });
        self.ahead.started(&range, task.abort_handle());
    }

    fn request(&self, range: Range<u64>) -> impl Future<Output = Fetched> + Send + 'static {
        fetch(Arc::clone(&self.remote.store), self.path.clone(), range, self.remote.patience())
    }

    /// Fetches the buffers' ranges and nothing that is far from them, a few requests at a time, and
    /// copies each into its buffer as it arrives.
    fn fetch_into(&self, wanted: &mut [&mut (u64, &mut [u8])]) -> Result<()> {
        let mut cuts = merged(wanted).into_iter().flat_map(cut);
        let mut coming: VecDeque<(Range<u64>, Started<Fetched>)> = VecDeque::new();
        loop {
            while coming.len() < REQUESTS_IN_FLIGHT {
                let Some(range) = cuts.next() else { break };
                coming.push_back((range.clone(), self.remote.io.spawn(self.request(range))));
            }
            let Some((range, fetched)) = coming.pop_front() else { return Ok(()) };
            let bytes = self.check_len(&range, fetched.wait()?.map_err(|error| self.explain(error))?)?;
            for (offset, buffer) in wanted.iter_mut() {
                let end = *offset + buffer.len() as u64;
                let (from, to) = (range.start.max(*offset), range.end.min(end));
                if from < to {
                    // OK to cast: within the buffer, and within the bytes.
                    buffer[(from - *offset) as usize..(to - *offset) as usize]
                        .copy_from_slice(&bytes[(from - range.start) as usize..(to - range.start) as usize]);
                }
            }
        }
    }

    fn check_len(&self, range: &Range<u64>, bytes: Bytes) -> Result<Bytes> {
        if bytes.len() as u64 == range.end - range.start {
            return Ok(bytes);
        }
        Err(self.explain_missing(
            Error::new(ErrorKind::Damaged, "the store gave other than what was asked for")
                .expected(format!("{} bytes", range.end - range.start))
                .found(bytes.len())
                .in_object(self.remote.describe(&self.key)),
        ))
    }

    /// The error of a read. Its cause is looked up only where the store answered `NotFound`: a
    /// store that does not answer would be waited for three times over.
    fn explain(&self, error: StoreError) -> Error {
        let is_missing = matches!(error, StoreError::NotFound { .. }) || is_past_the_end(&error);
        let error = explain("reading", &self.remote.describe(&self.key), error);
        if is_missing { self.explain_missing(error) } else { error }
    }

    /// Whether an object that cannot be read was deleted, or its commit object names bytes that are
    /// not whole.
    fn explain_missing(&self, error: Error) -> Error {
        let (store, path, at) =
            (Arc::clone(&self.remote.store), self.path.clone(), self.remote.path(&self.key));
        let deadline = self.remote.deadline();
        let looked = self.remote.io.run(async move {
            let commit = deadline.retry(0, || store.head(&at)).await;
            (deadline.retry(0, || store.head(&path)).await, commit.is_ok())
        });
        let not_whole = |kind, found: String, help: &'static str| {
            Error::new(kind, "the object names bytes that are not there whole")
                .expected(format!("{} bytes at {}", self.len, self.path))
                .found(found)
                .help(help)
                .in_object(self.remote.describe(&self.key))
        };
        match looked {
            // A bucket that replicates may have the commit object before the bytes: this does not
            // show that they are incomplete.
            Ok((Err(StoreError::NotFound { .. }), true)) => not_whole(
                ErrorKind::NotFound,
                "nothing".to_owned(),
                "if this bucket is a replica, they may be on their way; else resume from an older checkpoint",
            ),
            Ok((Err(StoreError::NotFound { .. }), false)) => {
                error.help("it was deleted while it was open: open a newer one")
            }
            Ok((Ok(meta), _)) if meta.size != self.len => not_whole(
                ErrorKind::Damaged,
                format!("{} bytes", meta.size),
                "resume from an older checkpoint",
            ),
            _ => error,
        }
    }
}

/// Fills the buffer from bytes that begin at `start`, if they cover it.
fn copy_from(start: u64, bytes: &Bytes, offset: u64, buffer: &mut [u8]) -> bool {
    let from = offset.checked_sub(start).and_then(|from| usize::try_from(from).ok());
    let found = from.and_then(|from| bytes.get(from..from.checked_add(buffer.len())?));
    found.map(|found| buffer.copy_from_slice(found)).is_some()
}

/// The buffers' ranges, sorted, near ranges merged.
fn merged(wanted: &[&mut (u64, &mut [u8])]) -> Vec<Range<u64>> {
    merge(wanted.iter().map(|(offset, buffer)| *offset..*offset + buffer.len() as u64).collect())
}

/// Sorts ranges and merges near ones.
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

/// Splits a range into pieces of at most [`FETCH`].
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
}
