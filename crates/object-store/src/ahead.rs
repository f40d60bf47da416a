//! Readahead of one object. Sequential readers, several in parallel too, share it: a thread that
//! reads behind another finds its bytes in flight already and waits for them. Random reads are
//! fetched exactly as requested. This file decides which ranges to fetch and which to drop; it
//! fetches nothing itself.

use bytes::Bytes;
use object_store::Error as StoreError;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// Length of one readahead request: long enough that its round trip matters little.
pub(crate) const PIECE: u64 = 4 << 20;
/// How far ahead of a sequential reader: first, and at most.
const FIRST_AHEAD: u64 = 4 << 20;
const MOST_AHEAD: u64 = 16 << 20;
/// Memory of one object's readahead, including pieces that slower readers still need.
pub(crate) const MOST_BYTES: u64 = 32 << 20;
/// Longer reads bypass the readahead and are fetched in parallel.
pub(crate) const LONG: u64 = 8 << 20;
/// Reads that are no farther apart count as sequential.
const NEAR: u64 = 64 << 10;
/// Remembered sequential readers, and readers that may become one.
const MOST_STREAMS: usize = 8;

/// The readahead of one object.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pieces: Vec<Piece>,
    /// In order of last use, the latest last.
    streams: Vec<Stream>,
}

/// A range that is in memory or in flight.
#[derive(Debug)]
struct Piece {
    range: Range<u64>,
    content: Content,
    /// Bytes of it that were read.
    used: u64,
}

#[derive(Debug)]
enum Content {
    Coming(Option<AbortHandle>),
    Here(Bytes),
    /// Taken by the first reader that waited for it.
    Failed(Option<StoreError>),
}

/// A sequence of sequential reads.
#[derive(Debug)]
struct Stream {
    /// The end of the farthest read.
    end: u64,
    /// The end of the fetched range.
    frontier: u64,
    /// How far to fetch ahead; 0 until two reads were in order.
    window: u64,
}

/// The requests for a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To be fetched now; the outcome of each goes to [`Ahead::arrived`].
    pub fetch: Vec<Range<u64>>,
    /// The read is in memory or in flight: [`Ahead::take`] returns it.
    pub is_ahead: bool,
}

/// The outcome of a read from the readahead.
#[derive(Debug)]
pub(crate) enum Taken {
    Filled,
    /// Part of it was dropped: the read is to be fetched by itself.
    Gone,
    Failed(StoreError),
}

impl Ahead {
    /// Records a read of an object of `len` bytes.
    pub(crate) fn plan(&self, range: Range<u64>, len: u64) -> Plan {
        let mut state = self.lock();
        // An earlier failure does not answer a new read.
        state.pieces.retain(|piece| !matches!(piece.content, Content::Failed(_)));
        let fetch = if range.end - range.start > LONG { Vec::new() } else { state.advance(&range, len) };
        for range in &fetch {
            let content = Content::Coming(None);
            state.pieces.push(Piece { range: range.clone(), content, used: 0 });
        }
        Plan { fetch, is_ahead: state.has(&range) }
    }

    /// Stores the handle that aborts a piece in flight.
    pub(crate) fn started(&self, range: &Range<u64>, task: AbortHandle) {
        let mut state = self.lock();
        let piece = state.pieces.iter_mut().find(|piece| piece.range == *range);
        if let Some(Piece { content: Content::Coming(handle), .. }) = piece {
            *handle = Some(task);
        }
    }

    /// Reports a piece's bytes or its failure.
    pub(crate) fn arrived(&self, range: &Range<u64>, result: Result<Bytes, StoreError>) {
        let mut state = self.lock();
        if let Some(piece) = state.pieces.iter_mut().find(|piece| piece.range == *range) {
            piece.content = match result {
                Ok(bytes) if bytes.len() as u64 == range.end - range.start => Content::Here(bytes),
                // Too short: the reader that fetches it by itself gets the error.
                Ok(_) => Content::Failed(None),
                Err(error) => Content::Failed(Some(error)),
            };
        }
        self.changed.notify_all();
    }

    /// Fills the buffer from the pieces; waits for those in flight.
    pub(crate) fn take(&self, offset: u64, buffer: &mut [u8]) -> Taken {
        let wanted = offset..offset + buffer.len() as u64;
        let mut state = self.lock();
        while state.overlapping(&wanted).any(|piece| matches!(piece.content, Content::Coming(_))) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        for piece in state.overlapping(&wanted) {
            if let Content::Failed(error) = &mut piece.content {
                return error.take().map_or(Taken::Gone, Taken::Failed);
            }
        }
        if !state.has(&wanted) {
            return Taken::Gone;
        }
        for piece in state.overlapping(&wanted) {
            let Content::Here(bytes) = &piece.content else { return Taken::Gone };
            let (from, to) = (piece.range.start.max(wanted.start), piece.range.end.min(wanted.end));
            // OK to cast: within the buffer, and within the bytes.
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(
                &bytes[(from - piece.range.start) as usize..(to - piece.range.start) as usize],
            );
            piece.used += to - from;
        }
        state.pieces.retain(|piece| piece.used < piece.range.end - piece.range.start);
        Taken::Filled
    }

    /// Aborts the requests in flight.
    pub(crate) fn stop(&self) {
        for piece in &self.lock().pieces {
            if let Content::Coming(Some(task)) = &piece.content {
                task.abort();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole values are replaced: a panic elsewhere leaves no partial update.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn overlapping(&mut self, wanted: &Range<u64>) -> impl Iterator<Item = &mut Piece> {
        let wanted = wanted.clone();
        self.pieces
            .iter_mut()
            .filter(move |piece| piece.range.start < wanted.end && wanted.start < piece.range.end)
    }

    /// Whether all of a range is in memory or in flight.
    fn has(&mut self, wanted: &Range<u64>) -> bool {
        let covered: u64 = self
            .overlapping(wanted)
            .map(|piece| piece.range.end.min(wanted.end) - piece.range.start.max(wanted.start))
            .sum();
        // Pieces do not overlap each other.
        covered == wanted.end - wanted.start
    }

    /// Finds or begins the stream of a read; returns the ranges to fetch for it.
    fn advance(&mut self, read: &Range<u64>, len: u64) -> Vec<Range<u64>> {
        let Some(mut stream) = self.take_stream(read) else {
            if self.streams.len() == MOST_STREAMS {
                self.streams.remove(0);
            }
            self.streams.push(Stream { end: read.end, frontier: read.end, window: 0 });
            return Vec::new();
        };
        stream.end = stream.end.max(read.end);
        let mut fetch = Vec::new();
        if stream.window == 0 {
            (stream.window, stream.frontier) = (FIRST_AHEAD, read.start);
        }
        // A reader that skips a little does not need the skipped bytes.
        if read.start > stream.frontier {
            stream.frontier = read.start;
        }
        while stream.frontier < len && stream.frontier < stream.end.saturating_add(stream.window) {
            let piece = stream.frontier..(stream.frontier + PIECE).min(len);
            if self.pieces.iter().any(|other| other.range.start < piece.end && piece.start < other.range.end)
            {
                // Another stream has reached this range: one is enough.
                break;
            }
            let coming: u64 = fetch.iter().map(|piece: &Range<u64>| piece.end - piece.start).sum();
            if !self.make_room(coming + piece.end - piece.start, &stream, read) {
                break;
            }
            stream.frontier = piece.end;
            stream.window = (stream.window * 2).min(MOST_AHEAD);
            fetch.push(piece);
        }
        self.streams.push(stream);
        fetch
    }

    /// The stream that a read belongs to. Parallel readers are one stream, rather than several that
    /// compete for the memory.
    fn take_stream(&mut self, read: &Range<u64>) -> Option<Stream> {
        let is_inside = |stream: &Stream| {
            stream.window > 0
                && read.start.saturating_add(MOST_BYTES) >= stream.end
                && read.start <= stream.frontier.saturating_add(NEAR)
        };
        let is_next = |stream: &Stream| read.start.abs_diff(stream.end) <= NEAR;
        let at = self.streams.iter().rposition(is_inside);
        let at = at.or_else(|| self.streams.iter().rposition(is_next))?;
        Some(self.streams.remove(at))
    }

    /// Drops pieces behind a stream, or of none, until `more` bytes fit.
    fn make_room(&mut self, more: u64, stream: &Stream, read: &Range<u64>) -> bool {
        loop {
            let held: u64 = self.pieces.iter().map(|piece| piece.range.end - piece.range.start).sum();
            if held + more <= MOST_BYTES {
                return true;
            }
            let victim = self.pieces.iter().position(|piece| {
                let range = &piece.range;
                let is_ahead = stream.end < range.end && range.start <= stream.frontier;
                let is_wanted = range.start < read.end && read.start < range.end;
                matches!(piece.content, Content::Here(_)) && !is_ahead && !is_wanted
            });
            let Some(victim) = victim else { return false };
            // The oldest: pieces are in order of their requests.
            self.pieces.remove(victim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LEN: u64 = 200 * MIB;

    fn held(ahead: &Ahead) -> u64 {
        ahead.lock().pieces.iter().map(|piece| piece.range.end - piece.range.start).sum()
    }

    /// A read whose requests are answered at once; returns the number of bytes fetched for it.
    fn read(ahead: &Ahead, range: Range<u64>) -> u64 {
        let plan = ahead.plan(range.clone(), LEN);
        let mut fetched = 0;
        for piece in &plan.fetch {
            let byte = |at: u64| (at / 1000) as u8;
            fetched += piece.end - piece.start;
            ahead.arrived(piece, Ok(piece.clone().map(byte).collect::<Vec<u8>>().into()));
        }
        assert!(held(ahead) <= MOST_BYTES, "{} bytes", held(ahead));
        if !plan.is_ahead {
            return fetched + range.end - range.start;
        }
        let mut buffer = vec![0; (range.end - range.start) as usize];
        assert!(matches!(ahead.take(range.start, &mut buffer), Taken::Filled));
        assert!(range.zip(buffer).all(|(at, byte)| byte == (at / 1000) as u8));
        fetched
    }

    #[test]
    fn a_reader_in_order_fetches_everything_once() {
        let ahead = Ahead::default();
        let fetched: u64 = (0..100).map(|at| read(&ahead, at * MIB..(at + 1) * MIB)).sum();
        assert!((100 * MIB..=100 * MIB + MOST_AHEAD + PIECE).contains(&fetched), "{fetched}");
    }

    #[test]
    fn readers_side_by_side_fetch_everything_once() {
        let ahead = Ahead::default();
        let mut fetched = 0;
        // Three of them, each with 4 MiB at a time, in turns.
        for batch in (0..96).step_by(12) {
            for at in 0..4 {
                for reader in 0..3 {
                    let start = (batch + reader * 4 + at) * MIB;
                    fetched += read(&ahead, start..start + MIB);
                }
            }
        }
        assert!(fetched <= 96 * MIB + MOST_AHEAD + PIECE + 4 * MIB, "{} MiB", fetched / MIB);
    }

    #[test]
    fn a_random_reader_fetches_only_its_ranges() {
        let ahead = Ahead::default();
        for at in [0, 50, 10, 90, 30, 150, 70] {
            assert_eq!(read(&ahead, at * MIB..at * MIB + 1000), 1000);
        }
        assert_eq!(held(&ahead), 0);
    }

    #[test]
    fn readers_that_go_away_leave_no_more_than_the_bound() {
        let ahead = Ahead::default();
        for reader in 0..20 {
            for at in 0..5 {
                read(&ahead, reader * 10 * MIB + at * MIB..reader * 10 * MIB + (at + 1) * MIB);
            }
        }
        assert!(held(&ahead) <= MOST_BYTES && ahead.lock().streams.len() <= MOST_STREAMS);
    }

    #[test]
    fn a_failure_is_returned_once_and_then_fetched_again() {
        let ahead = Ahead::default();
        read(&ahead, 0..MIB);
        let plan = ahead.plan(MIB..2 * MIB, LEN);
        assert!(plan.is_ahead && !plan.fetch.is_empty());
        for piece in &plan.fetch {
            ahead.arrived(
                piece,
                Err(StoreError::NotImplemented { operation: String::new(), implementer: String::new() }),
            );
        }
        let mut buffer = vec![0; MIB as usize];
        assert!(matches!(ahead.take(MIB, &mut buffer), Taken::Failed(_)));
        assert!(matches!(ahead.take(MIB, &mut buffer), Taken::Gone));
        assert!(!ahead.plan(MIB..2 * MIB, LEN).is_ahead);
        // One that is too short is fetched again by its reader, which gets the error.
        let plan = ahead.plan(20 * MIB..21 * MIB, LEN);
        for piece in &plan.fetch {
            ahead.arrived(piece, Ok(Bytes::from_static(b"short")));
        }
        assert!(plan.fetch.is_empty() || matches!(ahead.take(20 * MIB, &mut buffer), Taken::Gone));
    }
}
