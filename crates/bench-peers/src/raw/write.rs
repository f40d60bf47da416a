//! Writing a file durably: written under another name, fsync, rename, fsync of the folder. The
//! methods differ in how the bytes get to the disk.
#![expect(unsafe_code, reason = "sync_file_range and io_uring have no safe wrappers; see SAFETY")]

use super::{EXTENSION, PAGE, PIECE};
use crate::Outcome;
use crate::ops::{Call, Found, Op};
use crate::system::{System, Work, publish, unpublished};
use io_uring::{IoUring, opcode, types};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[derive(Clone, Copy)]
pub enum Way {
    /// Through the page cache, then fsync: the usual first version.
    Buffered,
    /// The same, but the kernel is asked to write each piece back at once.
    EarlyWriteback,
    /// Through the page cache and out of it again, since Linux 6.14.
    DontCache,
    /// Direct I/O, into reserved space, straight from the state's own pages.
    Direct { threads: usize },
    /// The same by io_uring: one thread, with several writes in flight.
    Ring,
}

/// Writes in flight, and bytes of each: the best figures of a prototype.
const RING_DEPTH: u32 = 4;
const RING_PIECE: usize = 4 << 20;

impl Way {
    pub const ALL: [Self; 6] = [
        Self::Direct { threads: 1 },
        Self::Direct { threads: 2 },
        Self::Ring,
        Self::Buffered,
        Self::EarlyWriteback,
        Self::DontCache,
    ];

    fn save(self, bytes: &[u8], path: &Path) -> Outcome<Found> {
        let written = unpublished(path);
        match self {
            Self::Buffered => {
                in_pieces(&File::create(&written)?, bytes, |file, at, piece| file.write_all_at(piece, at))?;
            }
            Self::EarlyWriteback => in_pieces(&File::create(&written)?, bytes, write_and_start)?,
            Self::DontCache => in_pieces(&File::create(&written)?, bytes, write_uncached)?,
            Self::Direct { threads } => {
                direct(&written, bytes, |file, whole| by_threads(file, whole, threads))?;
            }
            Self::Ring => direct(&written, bytes, by_ring)?,
        }
        publish(&written, path)?;
        Ok(Found::Nothing)
    }
}

fn in_pieces(
    file: &File,
    bytes: &[u8],
    mut write: impl FnMut(&File, u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut pieces = bytes.chunks(PIECE).enumerate();
    pieces.try_for_each(|(i, piece)| write(file, (i * PIECE) as u64, piece))
}

fn write_and_start(file: &File, at: u64, piece: &[u8]) -> io::Result<()> {
    file.write_all_at(piece, at)?;
    let (at, len) = (at as i64, piece.len() as i64);
    // SAFETY: a call on numbers only; the descriptor is open for as long as `file` is borrowed.
    let failed = unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn write_uncached(file: &File, mut at: u64, mut piece: &[u8]) -> io::Result<()> {
    // RWF_DONTCACHE, which has no name in rustix yet.
    let flags = ReadWriteFlags::from_bits_retain(0x80);
    while !piece.is_empty() {
        let written = pwritev2(file, &[IoSlice::new(piece)], at, flags)?;
        at += written as u64;
        piece = &piece[written..];
    }
    Ok(())
}

/// Whole pages by `write`, then the rest.
fn direct(path: &Path, bytes: &[u8], write: impl FnOnce(&File, &[u8]) -> Outcome<()>) -> Outcome<()> {
    let flags = OFlags::DIRECT.bits() as i32;
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes.len().next_multiple_of(PAGE) as u64)?;
    let (whole, rest) = bytes.split_at(bytes.len() / PAGE * PAGE);
    write(&file, whole)?;
    if !rest.is_empty() {
        // An anonymous mapping is a page that is aligned and zero.
        let mut page = memmap2::MmapMut::map_anon(PAGE)?;
        page[..rest.len()].copy_from_slice(rest);
        file.write_all_at(&page, whole.len() as u64)?;
    }
    // Truncated before the fsync: a later change of the length would need another one.
    Ok(file.set_len(bytes.len() as u64)?)
}

fn by_threads(file: &File, whole: &[u8], threads: usize) -> Outcome<()> {
    // The pieces are dealt to the threads in turn: all are busy until the end.
    let write = |thread: usize| {
        let mut own = whole.chunks(PIECE).enumerate().skip(thread).step_by(threads);
        own.try_for_each(|(i, piece)| file.write_all_at(piece, (i * PIECE) as u64))
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || write(thread))).collect();
        let own = write(0);
        others.into_iter().fold(own, |all, other| {
            all.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))
        })
    })?;
    Ok(())
}

fn by_ring(file: &File, whole: &[u8]) -> Outcome<()> {
    let mut ring = IoUring::new(RING_DEPTH)?;
    let mut pieces = whole.chunks(RING_PIECE).enumerate();
    let mut in_flight = 0;
    loop {
        while in_flight < RING_DEPTH
            && let Some((i, piece)) = pieces.next()
        {
            let write = opcode::Write::new(types::Fd(file.as_raw_fd()), piece.as_ptr(), piece.len() as u32);
            let write = write.offset((i * RING_PIECE) as u64).build().user_data(piece.len() as u64);
            // SAFETY: the kernel only reads these bytes. They are borrowed until this returns, and
            // it returns Ok when no write is left. Writes left in flight by an error were
            // submitted, and the kernel holds the file, and the pages of a direct write, by itself
            // from then on.
            unsafe { ring.submission().push(&write) }?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(());
        }
        ring.submit_and_wait(1)?;
        for done in ring.completion() {
            in_flight -= 1;
            match u64::try_from(done.result()) {
                Ok(written) if written == done.user_data() => {}
                Ok(written) => return Err(format!("{written} of {} bytes", done.user_data()).into()),
                Err(_) => return Err(io::Error::from_raw_os_error(-done.result()).into()),
            }
        }
    }
}

impl System for Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Buffered => "raw: write + fsync",
            Self::EarlyWriteback => "raw: write, early writeback",
            Self::DontCache => "raw: write, DONTCACHE",
            Self::Direct { threads: 1 } => "raw: O_DIRECT, 1 thread",
            Self::Direct { .. } => "raw: O_DIRECT, 2 threads",
            Self::Ring => "raw: O_DIRECT, io_uring",
        }
    }

    fn extension(&self) -> &'static str {
        EXTENSION
    }

    fn ops(&self) -> &'static [Op] {
        &[Op::SaveDurable]
    }

    fn call(&self, _: Op, work: &Work) -> Outcome<Call> {
        let (Work { state, file }, way) = (work.clone(), *self);
        Ok(Call::new(move || way.save(state.all(), &file)))
    }
}
