//! Many bytes at once: filling memory that is there, loading and verifying on several threads.
//! Owns: cutting the work into batches that threads draw. What becomes of a chunk is in `batch.rs`.

use super::Checkpoint;
use super::arena::Rooms;
use super::batch::{Failed, Part};
use super::chunks::Scratch;
use super::entry::{Entry, Numbered};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Raw bytes that a thread draws at a time to read them: enough that drawing costs nothing, and
/// what still fits a core's cache between reading and verifying.
const READ_BATCH: u64 = 1 << 20;
/// The same to verify them in memory: two of the huge pages that the kernel reads at a fault of a
/// mapping. Threads that meet in one wait for each other.
const VERIFY_BATCH: u64 = 4 << 20;
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
    /// Fills `target` with a tensor's bytes, without memory in between where it is stored raw: the
    /// fastest way to load into arrays that are there already. On an error `target` holds a
    /// mixture; to load a whole model all or nothing, use
    /// [`load_state_dict`](Checkpoint::load_state_dict).
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Mismatch` when `target` is not the tensor's length in bytes.
    pub fn load_into(&self, name: &str, target: &mut [u8]) -> Result<()> {
        self.load_all_into([(name, target)])
    }

    /// As [`Checkpoint::load_into`], for several tensors at once.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`]. All names and lengths are checked before the first byte is
    /// read.
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

    /// Several tensors at once, in the order of their names here: each as [`Checkpoint::tensor`]
    /// gives it, read, verified and decoded on as many threads as
    /// [`OpenOptions::workers`](super::OpenOptions::workers) says. Tensors of less than 1 MiB that
    /// are read share memory: of it up to 4 MiB stays while one of them does.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn load<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Vec<Tensor<'_>>> {
        let (mut found, mut mapped, mut read, mut lens) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let (entry, dtype, shape) = self.find_tensor(name)?;
            let in_place = self.raw_bytes(entry);
            if in_place.is_some() {
                mapped.push(entry);
            } else {
                read.push((entry, dtype));
                lens.push(self.at_place(name, || self.within_budget(entry.table.byte_len(entry.number)))?);
            }
            found.push((dtype, shape, in_place));
        }
        self.verify_in_place(mapped)?;
        let mut rooms = Rooms::new(&lens).map_err(|error| error.in_object(self.name()))?;
        let wanted = read.into_iter().zip(rooms.targets()).map(|((entry, dtype), target)| Wanted {
            entry,
            dtype,
            range: 0..target.len() as u64,
            target,
        });
        self.fill(wanted.collect())?;
        let mut rooms = rooms.into_bytes();
        let tensor = |(dtype, shape, in_place): (_, Vec<usize>, _)| match in_place {
            Some(bytes) => Tensor::new(dtype, &shape, bytes),
            None => Tensor::shared(dtype, &shape, rooms.next().unwrap_or_else(|| Arc::new([]))),
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
        let total = target.len() as u64;
        let parts = self.parts(Wanted { entry, dtype, range, target });
        self.read_parts(total, parts, |(_, error)| error)
    }

    /// Verifies the chunks of a raw entry in memory that overlap `range`.
    pub(super) fn verify_range(&self, entry: Entry<'_>, range: Range<u64>) -> Result<()> {
        let workers = self.workers_for(range.end - range.start);
        let chunks = self.chunks_within(entry, range).map(|chunk| (entry, chunk));
        self.verify_chunks(workers, chunks, |(_, error)| error)
    }

    /// Threads for so many bytes.
    pub(crate) fn workers_for(&self, bytes: u64) -> usize {
        if bytes < THREADS_FROM { 1 } else { self.options.workers.unwrap_or_else(pipeline::cores) }
    }

    /// Verifies raw entries where they lie in memory.
    pub(super) fn verify_in_place(&self, entries: Vec<Entry<'_>>) -> Result<()> {
        let len = |entry: &Entry<'_>| entry.table.byte_len(entry.number);
        let workers = self.workers_for(entries.iter().map(len).sum());
        let chunks = |&entry| self.chunks_within(entry, 0..len(&entry)).map(move |chunk| (entry, chunk));
        self.verify_chunks(workers, entries.iter().flat_map(chunks), |failed| self.named(failed))
    }

    fn verify_chunks<'c>(
        &self,
        workers: usize,
        chunks: impl Iterator<Item = (Entry<'c>, Numbered)> + Send,
        named: impl Fn(Failed<'c>) -> Error + Sync,
    ) -> Result<()> {
        let batches = pipeline::batches(chunks, VERIFY_BATCH, |(_, (_, chunk, _))| u64::from(chunk.raw_len));
        let verify = |(entry, (number, chunk, _)): (Entry<'c>, Numbered)| {
            let stored = self.stored_in_memory(&chunk).unwrap_or_default();
            let checked = self.check(entry, number, &chunk, stored);
            checked.map_err(|error| named((entry.table.name(entry.number), error)))
        };
        pipeline::each(workers, batches, || (), |(), batch| batch.into_iter().try_for_each(verify))
    }

    fn fill(&self, wanted: Vec<Wanted<'_, '_>>) -> Result<()> {
        let total = wanted.iter().map(|wanted| wanted.target.len() as u64).sum();
        let parts = wanted.into_iter().flat_map(|wanted| self.parts(wanted));
        self.read_parts(total, parts, |failed| self.named(failed))
    }

    fn read_parts<'c, 't>(
        &self,
        total: u64,
        parts: impl Iterator<Item = Part<'c, 't>> + Send,
        named: impl Fn(Failed<'c>) -> Error + Sync,
    ) -> Result<()> {
        let batches = pipeline::batches(parts, READ_BATCH, |part| part.target.len() as u64);
        let scratch = || Scratch::for_total(total);
        pipeline::each(self.workers_for(total), batches, scratch, |scratch, batch| {
            self.read_batch(scratch, batch).map_err(&named)
        })
    }

    fn named(&self, (name, error): Failed<'_>) -> Error {
        error.in_tensor(name).in_object(self.name())
    }

    fn parts<'c, 't>(&self, wanted: Wanted<'c, 't>) -> impl Iterator<Item = Part<'c, 't>> + use<'c, 't> {
        let Wanted { entry, dtype, range, target: mut rest } = wanted;
        self.chunks_within(entry, range.clone()).map(move |(number, chunk, start)| {
            // OK to cast: within a chunk.
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end - start).min(u64::from(chunk.raw_len)) as usize;
            let (target, later) = std::mem::take(&mut rest).split_at_mut(to - from);
            rest = later;
            Part { entry, dtype, number, chunk, from, target }
        })
    }
}
