//! A line of limited speed that all connections of a server share, so that concurrent requests slow
//! each other down.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes sent at a time: few, so that connections take turns.
const PACKET: usize = 16 << 10;

#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Bytes a second; 0 is no limit.
    rate: AtomicU64,
    /// When the line is free again.
    free: Mutex<Option<Instant>>,
}

impl Line {
    pub(crate) fn limit(&self, rate: u64) {
        self.rate.store(rate, Ordering::SeqCst);
    }

    /// Waits for the time of the bytes, after all that were queued before them.
    fn pass(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::SeqCst);
        if rate == 0 {
            return;
        }
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let from = free.map_or(now, |free| free.max(now));
            let until = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free = Some(until);
            until
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    fn most(&self, len: usize) -> usize {
        if self.rate.load(Ordering::SeqCst) == 0 { len } else { len.min(PACKET) }
    }
}

/// A connection over the line.
pub(crate) struct Slow<'s> {
    pub connection: &'s TcpStream,
    pub line: &'s Line,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.line.most(buffer.len());
        let count = (&mut &*self.connection).read(&mut buffer[..most])?;
        self.line.pass(count);
        Ok(count)
    }
}

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.line.most(bytes.len());
        self.line.pass(most);
        (&mut &*self.connection).write(&bytes[..most])
    }

    fn flush(&mut self) -> io::Result<()> {
        (&mut &*self.connection).flush()
    }
}
