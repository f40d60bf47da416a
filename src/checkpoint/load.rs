//! Many bytes at once: filling memory that is there, loading and verifying on several threads. Owns: cutting the work into
//! pieces that threads draw. What becomes of a chunk is in `read.rs`.

use super::Checkpoint;
use super::chunks::Scratch;
use super::read::{Entry, Part, Piece};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use crate::tensor::Tensor;
use std::ops::Range;

/// Raw bytes that a thread draws at a time: enough that drawing costs nothing, few enough that no thread is left over.
const PIECE: u64 = 4 << 20;
/// From so many bytes on it is worth starting a thread.
const THREADS_FROM: u64 = 8 << 20;

/// Raw bytes of an entry, and where they go.
struct Wanted<'c, 't> {
    entry: Entry<'c>,
    dtype: Dtype,
    range: Range<u64>,
    target: &'t mut [u8],
}

impl Checkpoint {
    /// Fills `target` with a tensor's bytes, without memory in between where it is stored raw: the fastest way to load
    /// into arrays that are there already. On an error `target` holds a mixture; to load a whole model all or nothing,
    /// use [`load_state_dict`](Checkpoint::load_state_dict).
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Mismatch` when `target` is not the tensor's length in bytes.
    pub fn load_into(&self, name: &str, target: &mut [u8]) -> Result<()> {
        self.load_all_into([(name, target)])
    }

    /// As [`Checkpoint::load_into`], for several tensors at once.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`]. All names and lengths are checked before the first byte is read.
    pub fn load_all_into<'n, 't>(
        &self,
        targets: impl IntoIterator<Item = (&'n str, &'t mut [u8])>,
    ) -> Result<()> {
        let find = |(name, target): (&'n str, &'t mut [u8])| {
            let (entry, dtype, _) = self.find_tensor(name)?;
            let len = entry.table.byte_len(entry.number);
            if len == target.len() as u64 {
                return Ok(Wanted { entry, dtype, range: 0..len, target });
            }
            let error = Error::new(ErrorKind::Mismatch, "bytes to load into").expected(len);
            Err(error.found(target.len()).in_tensor(name).in_object(self.name()))
        };
        self.fill(targets.into_iter().map(find).collect::<Result<_>>()?)
    }

    /// Several tensors at once, in the order of their names here: each as [`Checkpoint::tensor`] gives it, read, verified
    /// and decoded on as many threads as [`OpenOptions::workers`](super::OpenOptions::workers) says.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn load<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Vec<Tensor<'_>>> {
        let mut found = Vec::new();
        for name in names {
            let (entry, dtype, shape) = self.find_tensor(name)?;
            let len = entry.table.byte_len(entry.number);
            let buffer = match self.raw_bytes(entry) {
                Some(_) => None,
                None => Some(self.at_place(name, || Buffer::zeroed(self.within_budget(len)?))?),
            };
            found.push((entry, dtype, shape, buffer));
        }
        self.verify_in_place(found.iter().filter(|found| found.3.is_none()).map(|found| found.0).collect())?;
        let wanted = found.iter_mut().filter_map(|(entry, dtype, _, buffer)| {
            let target = &mut **buffer.as_mut()?;
            Some(Wanted { entry: *entry, dtype: *dtype, range: 0..target.len() as u64, target })
        });
        self.fill(wanted.collect())?;
        let tensor = |(entry, dtype, shape, buffer): (_, _, Vec<usize>, _)| match buffer {
            Some(buffer) => Tensor::owned(dtype, &shape, buffer),
            None => Tensor::new(dtype, &shape, self.raw_bytes(entry).unwrap_or_default()),
        };
        found.into_iter().map(tensor).collect()
    }

    /// Fills `target` with `range` of an entry's raw bytes.
    pub(super) fn read_into(
        &self,
        entry: Entry<'_>,
        dtype: Dtype,
        range: Range<u64>,
        target: &mut [u8],
    ) -> Result<()> {
        let workers = self.workers_for(target.len() as u64);
        let pieces = self.pieces(Wanted { entry, dtype, range, target });
        pipeline::each(workers, pieces, Scratch::default, |scratch, piece| self.read_piece(scratch, piece))
    }

    /// Verifies the chunks of a raw entry in memory that overlap `range`.
    pub(super) fn verify_range(&self, entry: Entry<'_>, range: Range<u64>) -> Result<()> {
        let groups = groups(self.chunks_within(entry, range.clone()));
        let workers = self.workers_for(range.end - range.start);
        pipeline::each(workers, groups, || (), |(), group| self.verify_group(entry, group))
    }

    /// Threads for so many bytes.
    pub(crate) fn workers_for(&self, bytes: u64) -> usize {
        if bytes < THREADS_FROM { 1 } else { self.options.workers.unwrap_or_else(pipeline::cores) }
    }

    /// Verifies raw entries where they lie in memory.
    pub(super) fn verify_in_place(&self, entries: Vec<Entry<'_>>) -> Result<()> {
        let len = |entry: &Entry<'_>| entry.table.byte_len(entry.number);
        let workers = self.workers_for(entries.iter().map(len).sum());
        let groups = entries.iter().flat_map(|&entry| {
            groups(self.chunks_within(entry, 0..len(&entry))).map(move |group| (entry, group))
        });
        pipeline::each(
            workers,
            groups,
            || (),
            |(), (entry, group)| {
                self.at_place(entry.table.name(entry.number), || self.verify_group(entry, group))
            },
        )
    }

    fn verify_group(&self, entry: Entry<'_>, group: Vec<Part>) -> Result<()> {
        group.into_iter().try_for_each(|(number, chunk, _)| {
            let stored = self.stored_in_memory(&chunk).unwrap_or_default();
            self.check(entry, number, &chunk, stored)
        })
    }

    fn fill(&self, wanted: Vec<Wanted<'_, '_>>) -> Result<()> {
        let workers = self.workers_for(wanted.iter().map(|wanted| wanted.target.len() as u64).sum());
        let pieces = wanted.into_iter().flat_map(|wanted| self.pieces(wanted));
        pipeline::each(workers, pieces, Scratch::default, |scratch, piece| {
            let name = piece.entry.table.name(piece.entry.number);
            self.at_place(name, || self.read_piece(scratch, piece))
        })
    }

    fn pieces<'c, 't>(&self, wanted: Wanted<'c, 't>) -> impl Iterator<Item = Piece<'c, 't>> + use<'c, 't> {
        let Wanted { entry, dtype, range, target: mut rest } = wanted;
        groups(self.chunks_within(entry, range.clone())).map(move |chunks| {
            let end = chunks.last().map_or(0, |(_, chunk, start)| start + u64::from(chunk.raw_len));
            let from = chunks.first().map_or(0, |(_, _, start)| *start).max(range.start);
            let range = from..end.min(range.end);
            let (target, later) = std::mem::take(&mut rest).split_at_mut((range.end - range.start) as usize);
            rest = later;
            Piece { entry, dtype, range, chunks, target }
        })
    }
}

/// Groups of successive chunks.
fn groups(mut chunks: impl Iterator<Item = Part>) -> impl Iterator<Item = Vec<Part>> {
    std::iter::from_fn(move || {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE
            && let Some(part) = chunks.next()
        {
            bytes += u64::from(part.1.raw_len);
            group.push(part);
        }
        (!group.is_empty()).then_some(group)
    })
}
