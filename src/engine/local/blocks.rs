//! Writes a large file fast: in aligned blocks, from reused buffers, several in flight, with direct
//! I/O. This file has the buffers, the threads and their errors; names and fsync are the caller's.
//!
//! Buffered writing copies every byte into the page cache, and the fsync then waits for all of it.
//! Written directly, the disk works while the next block is being filled, and the fsync has little
//! left to do.

use crate::buffer::Buffer;
use crate::engine::vfs::{VfsFile, write_all_at};
use crate::sync::lock;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tensorkeep_memcpy::copy;

/// Bytes of a block: large enough for the disk's full rate, small enough that a handful in flight
/// is little memory.
const BLOCK: usize = 4 << 20;
/// Blocks in flight: two keep a disk's queue filled; more gained nothing in measurements.
const THREADS: usize = 2;
/// One being filled, one in each thread's hands, one ready between them.
const BUFFERS: usize = THREADS + 2;
/// Alignment of offsets, lengths and addresses for direct I/O, enough for every disk of today.
const ALIGN: usize = 4096;

/// Buffers that outlive one file: fresh memory costs several times as much as a copy into warm
/// memory.
pub(super) type Spare = Arc<Mutex<Vec<Buffer>>>;

/// A file being written in blocks, from its start.
pub(super) struct BlockWriter {
    current: Buffer,
    filled: usize,
    /// Offset of the current block.
    offset: u64,
    /// None once all blocks are handed over.
    work: Option<SyncSender<Block>>,
    free: Receiver<Buffer>,
    threads: Vec<JoinHandle<()>>,
    failed: Arc<Mutex<Option<io::Error>>>,
    spare: Spare,
}

struct Block {
    offset: u64,
    buffer: Buffer,
    len: usize,
}

impl BlockWriter {
    pub(super) fn start(file: &Arc<dyn VfsFile>, spare: Spare) -> io::Result<Self> {
        // Refused by some file systems: then the same blocks go through the page cache.
        let _ = file.set_direct(true);
        let (work, blocks) = sync_channel(1);
        let blocks = Arc::new(Mutex::new(blocks));
        let (give_back, free) = channel();
        let failed = Arc::default();
        let threads = (0..THREADS).map(|_| {
            let (file, blocks, give_back, failed) =
                (Arc::clone(file), Arc::clone(&blocks), give_back.clone(), Arc::clone(&failed));
            let thread = std::thread::Builder::new().name("tensorkeep-write".to_owned());
            thread.spawn(move || write_blocks(&*file, &blocks, &give_back, &failed))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        let mut reused = std::mem::take(&mut *lock(&spare));
        reused.truncate(BUFFERS);
        while reused.len() < BUFFERS {
            reused.push(Buffer::zeroed(BLOCK).map_err(io::Error::other)?);
        }
        let current = reused.pop().unwrap_or_default();
        for buffer in reused {
            // The threads cannot all be gone: they wait for the first block.
            let _ = give_back.send(buffer);
        }
        Ok(Self { current, filled: 0, offset: 0, work: Some(work), free, threads, failed, spare })
    }

    /// Bytes appended so far.
    pub(super) fn len(&self) -> u64 {
        self.offset + self.filled as u64
    }

    /// # Errors
    /// The first error of any block, perhaps of an earlier call.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            copy(now, &mut self.current[self.filled..][..now.len()]);
            self.filled += now.len();
            bytes = later;
            if self.filled == BLOCK {
                self.hand_over(BLOCK)?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, len: usize) -> io::Result<()> {
        self.take_error()?;
        let next = self.free.recv().map_err(|_| threads_died())?;
        let buffer = std::mem::replace(&mut self.current, next);
        let block = Block { offset: self.offset, buffer, len };
        let work = self.work.as_ref().ok_or_else(threads_died)?;
        work.send(block).map_err(|_| threads_died())?;
        self.offset += len as u64;
        self.filled = 0;
        Ok(())
    }

    fn take_error(&self) -> io::Result<()> {
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    /// Writes the last block, padded with zeros to the alignment of direct I/O, and waits for all.
    /// The caller cuts the file to [`len`](Self::len).
    ///
    /// # Errors
    /// The first error of any block.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let len = self.len();
        if self.filled > 0 {
            let padded = self.filled.next_multiple_of(ALIGN);
            self.current[self.filled..padded].fill(0);
            self.hand_over(padded)?;
            self.offset = len;
        }
        self.join()?;
        self.take_error()
    }

    fn join(&mut self) -> io::Result<()> {
        drop(self.work.take());
        let mut joined = Ok(());
        for thread in self.threads.drain(..) {
            joined = joined.and(thread.join().map_err(|_| threads_died()));
        }
        joined
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        // An aborted upload must not write after its file is unlinked.
        let _ = self.join();
        let mut spare = lock(&self.spare);
        spare.extend(self.free.try_iter());
        spare.extend(Buffer::zeroed(0).map(|empty| std::mem::replace(&mut self.current, empty)));
        spare.truncate(BUFFERS);
    }
}

fn write_blocks(
    file: &dyn VfsFile,
    blocks: &Mutex<Receiver<Block>>,
    give_back: &Sender<Buffer>,
    failed: &Mutex<Option<io::Error>>,
) {
    loop {
        let next = lock(blocks).recv();
        let Ok(Block { offset, buffer, len }) = next else { return };
        if let Err(error) = write_block(file, offset, &buffer[..len]) {
            lock(failed).get_or_insert(error);
        }
        // There is no receiver once the writer is gone.
        let _ = give_back.send(buffer);
    }
}

/// Writes a whole block. A short direct write can end where the next one may not begin, and some
/// file systems refuse direct writes only when they are made: the rest then goes through the page
/// cache.
fn write_block(file: &dyn VfsFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let written = match file.write_at(offset, bytes) {
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::InvalidInput) => 0,
        written => written?,
    };
    let rest = bytes.get(written..).unwrap_or_default();
    if !rest.is_empty() {
        // Refused if writing was never direct: then there is nothing to change.
        let _ = file.set_direct(false);
    }
    write_all_at(file, offset + written as u64, rest)
}

fn threads_died() -> io::Error {
    io::Error::other("a writing thread died; look for its panic message")
}
