//! Reading a file's bytes into memory.

use super::{EXTENSION, PAGE, PIECE};
use crate::ops::{Call, Found, Op};
use crate::system::{System, Work, cold, into_existing};
use crate::workloads::{State, sum};
use crate::{Outcome, memory};
use memmap2::{Advice, MmapMut};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Copy)]
pub enum Way {
    /// Mapped, every byte read.
    Mapped,
    /// Mapped, and the kernel told to read ahead.
    WillNeed,
    /// Mapped, and the kernel told to use huge pages, which makes it read more at a time.
    HugePages,
    /// `read` into a fresh `Vec`: the usual first version.
    FreshVec,
    /// `pread` into existing memory.
    Existing,
    /// Direct I/O by two threads, into fresh huge pages.
    Direct,
}

impl Way {
    pub const ALL: [Self; 6] =
        [Self::Mapped, Self::WillNeed, Self::HugePages, Self::FreshVec, Self::Existing, Self::Direct];

    fn load(self, state: &State, path: &Path) -> Outcome<Found> {
        match self {
            Self::Mapped => touch(state, path, None),
            Self::WillNeed => touch(state, path, Some(Advice::WillNeed)),
            Self::HugePages => touch(state, path, Some(Advice::HugePage)),
            Self::FreshVec | Self::Existing => {
                Found::loaded(|| Ok(fs::read(path)?), |bytes| sum(parts(state, bytes)))
            }
            Self::Direct => Found::loaded(|| direct(path), |bytes| sum(parts(state, bytes))),
        }
    }
}

/// The tensors' ranges are known, so that every system sums the same.
fn parts<'a>(state: &'a State, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    state.tensors.iter().map(|entry| &bytes[entry.offset..entry.offset + entry.len])
}

fn touch(state: &State, path: &Path, advice: Option<Advice>) -> Outcome<Found> {
    let map = memory::map(path)?;
    if let Some(advice) = advice {
        map.advise(advice)?;
    }
    Ok(Found::Sum(sum(parts(state, &map))))
}

fn into(state: &State, path: &Path, existing: &mut [Vec<u8>]) -> Outcome<()> {
    let file = File::open(path)?;
    for (entry, target) in state.tensors.iter().zip(existing) {
        file.read_exact_at(target, entry.offset as u64)?;
    }
    Ok(())
}

fn direct(path: &Path) -> Outcome<MmapMut> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path)?;
    let len = file.metadata()?.len() as usize;
    let mut memory = MmapMut::map_anon(len.next_multiple_of(PAGE))?;
    memory.advise(Advice::HugePage)?;
    let half = (memory.len() / 2).next_multiple_of(PIECE).min(memory.len());
    let (first, second) = memory.split_at_mut(half);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| fill(&file, second, half));
        let own = fill(&file, first, 0);
        own.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))
    })?;
    Ok(memory)
}

/// Up to the end of the file, which the last page need not fill.
fn fill(file: &File, target: &mut [u8], start: usize) -> io::Result<()> {
    for (i, piece) in target.chunks_mut(PIECE).enumerate() {
        let at = start + i * PIECE;
        let mut filled = 0;
        while filled < piece.len() {
            match file.read_at(&mut piece[filled..], (at + filled) as u64)? {
                0 => return Ok(()),
                // A short direct read that ends in the middle of a page is the end of the file.
                read if read % PAGE != 0 => return Ok(()),
                read => filled += read,
            }
        }
    }
    Ok(())
}

impl System for Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Mapped => "raw: mmap",
            Self::WillNeed => "raw: mmap, WILLNEED",
            Self::HugePages => "raw: mmap, huge pages",
            Self::FreshVec => "raw: read, fresh Vec",
            Self::Existing => "raw: pread, existing",
            Self::Direct => "raw: O_DIRECT read",
        }
    }

    fn extension(&self) -> &'static str {
        EXTENSION
    }

    fn ops(&self) -> &'static [Op] {
        match self {
            Self::Mapped => &[Op::TouchAll, Op::TouchOnce, Op::LoadCold],
            Self::WillNeed | Self::HugePages | Self::Direct => &[Op::LoadCold],
            Self::FreshVec => &[Op::LoadFresh, Op::LoadCold],
            Self::Existing => &[Op::LoadInto],
        }
    }

    fn call(&self, op: Op, work: &Work) -> Outcome<Call> {
        let (Work { state, file }, way) = (work.clone(), *self);
        Ok(match op {
            Op::LoadInto => {
                let state = Arc::clone(&state);
                into_existing(work, move |existing| into(&state, &file, existing))
            }
            Op::LoadCold => cold(work, Call::new(move || way.load(&state, &file))),
            _ => Call::new(move || way.load(&state, &file)),
        })
    }
}
