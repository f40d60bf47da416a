//! Loading and verifying many bytes at once, into existing memory and on several threads. The work
//! is cut into batches that threads draw here; `batch.rs` handles the chunks of a batch.

use super::Checkpoint;
use super::arena::Arena;
use super::batch::{Failed, Part};
use super::boxes::WantedBox;
use super::chunks::Scratch;
use super::entry::{Entry, EntryChunk, FoundTensor, Tensors};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::TensorBox;
use crate::pipeline;
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// Raw bytes that a thread draws at a time for reading: enough that drawing costs nothing, and few
/// enough to stay in a core's cache between reading and verifying.
const READ_BATCH: u64 = 1 << 20;
/// The same for verifying in memory: two of the huge pages that the kernel reads at a page fault of
/// a mapping. Threads that fault on the same page wait for each other.
const VERIFY_BATCH: u64 = 4 << 20;
/// From this many bytes on, starting threads pays.
const THREADS_FROM: u64 = 8 << 20;

/// Raw bytes of an entry, and their destination.
struct Wanted<'c, 't> {
    entry: Entry<'c>,
    dtype: Dtype,
    range: Range<u64>,
    target: &'t mut [u8],
}

/// A tensor to load, borrowed in place or read.
struct Planned<'c> {
    tensor: FoundTensor<'c>,
    in_place: Option<&'c [u8]>,
}

impl Checkpoint {
    /// Fills each target with the bytes of the tensor of that name, without an intermediate buffer
    /// if it is stored raw: the fastest way to load into existing arrays. After an error
    /// the targets hold a mixture; to load a whole model all or nothing, use
    /// [`load_state_dict`](Checkpoint::load_state_dict). The targets' memory is the caller's:
    /// [`Inspect::check_budget`](super::Inspect::check_budget) compares it with the budget.
    ///
    /// ```
    /// # use tensorkeep::{Checkpoint, Snapshot, WriteOptions};
    /// # let snapshot = Snapshot::new().tensor("pixels", &[1_u8, 2, 3])?;
    /// # let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)?;
    /// let mut pixels = [0; 3];
    /// checkpoint.load_into([("pixels", &mut pixels[..])])?;
    /// assert_eq!(pixels, [1, 2, 3]);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Mismatch` when a target is not its tensor's length in bytes.
    /// All names and lengths are checked before the first byte is read.
    pub fn load_into<'n, 't>(
        &self,
        targets: impl IntoIterator<Item = (&'n str, &'t mut [u8])>,
    ) -> Result<()> {
        let (mut wanted, mut boxes) = (Vec::new(), Vec::new());
        for (name, target) in targets {
            let place = self.locate(name)?;
            let dtype = self.with_context(name, || self.dtype_of(place))?;
            let len = self.byte_len_of(place);
            if len != target.len() as u64 {
                let error = Error::new(ErrorKind::Mismatch, "bytes to load into").expected(len);
                return Err(error.found(target.len()).in_tensor(name).in_object(self.name()));
            }
            if place.table == Tensors::InShards {
                let tensor_box = TensorBox::whole(&self.shape_of(place));
                boxes.push((name, WantedBox { place, dtype, tensor_box, target }));
                continue;
            }
            let entry = self.tensor_entry(place.number);
            wanted.push(Wanted { entry, dtype, range: 0..len, target });
        }
        self.fill(wanted)?;
        self.fill_boxes(boxes)
    }

    /// Several tensors at once, in the order of `names`: each as [`Checkpoint::tensor`] returns it,
    /// read, verified and decoded on up to [`OpenOptions::workers`](super::OpenOptions::workers)
    /// threads. Tensors below 1 MiB that are read share memory: one of them keeps up to 4 MiB
    /// alive.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn load<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Vec<Tensor<'_>>> {
        if self.pieces().is_none() {
            return self.load_from_file(names);
        }
        let names: Vec<&str> = names.into_iter().collect();
        let mut places = Vec::with_capacity(names.len());
        for name in &names {
            places.push(self.locate(name)?);
        }
        let is_own = |number: &usize| places[*number].table == Tensors::InFile;
        let own = (0..names.len()).filter(is_own).map(|number| names[number]);
        let mut own = self.load_from_file(own)?.into_iter();
        let mut in_shards = self.load_from_shards(&names)?.into_iter();
        let next = |number: usize| if is_own(&number) { own.next() } else { in_shards.next() };
        Ok((0..names.len()).filter_map(next).collect())
    }

    /// Those of these tensors that lie in shards, in their order.
    fn load_from_shards(&self, names: &[&str]) -> Result<Vec<Tensor<'_>>> {
        let mut loaded: Vec<Option<Tensor<'_>>> = Vec::new();
        let mut read = Vec::new();
        for name in names {
            let place = self.locate(name)?;
            if place.table == Tensors::InFile {
                continue;
            }
            self.with_context(name, || {
                let (dtype, shape) = self.described(place)?;
                loaded.push(self.borrowed(place, dtype)?);
                if loaded.last().is_some_and(Option::is_none) {
                    let buffer = Buffer::zeroed(self.within_budget(self.byte_len_of(place))?)?;
                    read.push((*name, place, dtype, shape, buffer));
                }
                Ok(())
            })?;
        }
        let wanted = read.iter_mut().map(|(name, place, dtype, _, buffer)| {
            let tensor_box = TensorBox::whole(&self.shape_of(*place));
            (*name, WantedBox { place: *place, dtype: *dtype, tensor_box, target: buffer })
        });
        self.fill_boxes(wanted.collect())?;
        let mut read = read.into_iter();
        loaded
            .into_iter()
            .map(|borrowed| match borrowed {
                Some(tensor) => Ok(tensor),
                None => {
                    let (_, _, dtype, shape, buffer) =
                        read.next().ok_or_else(|| Error::invalid("fewer tensors than were planned"))?;
                    Tensor::owned(dtype, &shape, buffer)
                }
            })
            .collect()
    }

    fn load_from_file<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Vec<Tensor<'_>>> {
        let mut planned = Vec::new();
        let mut lens = Vec::new();
        for name in names {
            let tensor = self.find_tensor(name)?;
            let in_place = self.raw_bytes(tensor.entry);
            if in_place.is_none() {
                lens.push(self.with_context(name, || self.within_budget(tensor.entry.byte_len()))?);
            }
            planned.push(Planned { tensor, in_place });
        }
        let mapped = planned.iter().filter(|planned| planned.in_place.is_some());
        self.verify_in_place(mapped.map(|planned| planned.tensor.entry).collect())?;
        let mut arena = Arena::new(&lens).map_err(|error| error.in_object(self.name()))?;
        let read = planned.iter().filter(|planned| planned.in_place.is_none());
        let wanted = read.zip(arena.targets()).map(|(Planned { tensor, .. }, target)| Wanted {
            entry: tensor.entry,
            dtype: tensor.dtype,
            range: 0..target.len() as u64,
            target,
        });
        self.fill(wanted.collect())?;
        let mut read = arena.into_bytes();
        planned
            .into_iter()
            .map(|Planned { tensor: FoundTensor { dtype, shape, .. }, in_place }| match in_place {
                Some(bytes) => Tensor::new(dtype, &shape, bytes),
                None => Tensor::shared(dtype, &shape, read.next().unwrap_or_else(|| Arc::new([]))),
            })
            .collect()
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
        self.verify_chunks(workers, self.chunks_within(entry, range), |(_, error)| error)
    }

    /// Number of threads for so many bytes.
    pub(crate) fn workers_for(&self, bytes: u64) -> usize {
        if bytes < THREADS_FROM { 1 } else { self.options.workers.unwrap_or_else(pipeline::cores) }
    }

    /// Verifies raw entries in place.
    pub(super) fn verify_in_place(&self, entries: Vec<Entry<'_>>) -> Result<()> {
        let workers = self.workers_for(entries.iter().map(Entry::byte_len).sum());
        let chunks = entries.iter().flat_map(|&entry| self.chunks_within(entry, 0..entry.byte_len()));
        self.verify_chunks(workers, chunks, |failed| self.named(failed))
    }

    fn verify_chunks<'c>(
        &self,
        workers: usize,
        chunks: impl Iterator<Item = EntryChunk<'c>> + Send,
        named: impl Fn(Failed<'c>) -> Error + Sync,
    ) -> Result<()> {
        let raw_len = |chunk: &EntryChunk<'_>| u64::from(chunk.chunk.raw_len);
        let batches = pipeline::batches(chunks, VERIFY_BATCH, raw_len);
        let verify = |(): &mut (), batch: Vec<EntryChunk<'c>>| {
            for EntryChunk { entry, number, chunk, .. } in batch {
                let stored = self.stored_in_memory(&chunk).unwrap_or_default();
                let checked = self.check(entry, number, &chunk, stored);
                checked.map_err(|error| named((entry.name(), error)))?;
            }
            Ok(())
        };
        pipeline::each(workers, batches, || (), verify)
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
        self.chunks_within(entry, range.clone()).map(move |EntryChunk { number, chunk, start, .. }| {
            // OK to cast: within a chunk.
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end - start).min(u64::from(chunk.raw_len)) as usize;
            let (target, later) = std::mem::take(&mut rest).split_at_mut(to - from);
            rest = later;
            Part { entry, dtype, number, chunk, from, target }
        })
    }
}
