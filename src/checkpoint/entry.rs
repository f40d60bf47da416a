//! One entry of the table of tensors or of records: finding it, its bytes in memory, its chunks and
//! their checksums.

use super::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{Chunk, Columns};
use crate::format::{DEFAULT_CHUNK_LOG2, checksum_error, crc32};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Raw bytes of a window of a tensor that lies in pieces.
pub(super) const WINDOW: u64 = 1 << DEFAULT_CHUNK_LOG2;

/// One entry of one table, and the index of its first bit in `Checkpoint::verified`.
#[derive(Clone, Copy)]
pub(super) struct Entry<'c> {
    pub table: Columns<'c>,
    pub number: usize,
    pub first_bit: usize,
}

impl<'c> Entry<'c> {
    pub(super) fn name(&self) -> &'c str {
        self.table.name(self.number)
    }

    /// Raw length in bytes.
    pub(super) fn byte_len(&self) -> u64 {
        self.table.byte_len(self.number)
    }
}

/// A tensor's entry, with a dtype that this version knows and a shape that fits memory.
pub(super) struct FoundTensor<'c> {
    pub entry: Entry<'c>,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// A tensor's number, in the file's own table or in that of tensors in shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub table: Tensors,
    pub number: usize,
}

/// The two tables of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tensors {
    InFile,
    InShards,
}

/// One chunk of an entry.
pub(super) struct EntryChunk<'c> {
    pub entry: Entry<'c>,
    /// Its number within the entry.
    pub number: usize,
    pub chunk: Chunk,
    /// Raw bytes of the entry before it.
    pub start: u64,
}

impl Checkpoint {
    pub(super) fn tensor_entry(&self, number: usize) -> Entry<'_> {
        Entry { table: self.index.tensors.columns(), number, first_bit: 0 }
    }

    pub(super) fn record_entry(&self, number: usize) -> Entry<'_> {
        Entry { table: self.index.records.columns(), number, first_bit: self.index.tensors.chunk_count() }
    }

    /// The tensor of a name or an alias.
    pub(super) fn locate(&self, name: &str) -> Result<Place> {
        let in_file = |number| Place { table: Tensors::InFile, number };
        let in_shards = |number| Place { table: Tensors::InShards, number };
        let pieces = || self.pieces().and_then(|pieces| pieces.find(name)).map(in_shards);
        let alias = || self.index.aliases.get(name).map(|&target| self.by_number(target));
        self.index.tensors.find(name).map(in_file).or_else(pieces).or_else(alias).ok_or_else(|| {
            let nearest = crate::names::nearest(name, self.names());
            crate::names::not_found("tensor", name, nearest).in_object(&self.name)
        })
    }

    /// The tensor of an alias: those in the file are counted first.
    pub(super) fn by_number(&self, target: u32) -> Place {
        let number = target as usize;
        match number.checked_sub(self.index.tensors.len()) {
            Some(number) => Place { table: Tensors::InShards, number },
            None => Place { table: Tensors::InFile, number },
        }
    }

    pub(super) fn dtype_of(&self, Place { table, number }: Place) -> Result<Dtype> {
        let dtype = match (table, self.pieces()) {
            (Tensors::InShards, Some(pieces)) => pieces.dtype(number),
            _ => self.index.tensors.columns().dtype(number),
        };
        dtype.map_err(|id| {
            Error::new(ErrorKind::Unsupported, "a dtype that this version does not know")
                .found(format!("id {id}"))
                .help("update tensorkeep; the file's other tensors are readable")
        })
    }

    pub(super) fn shape_of(&self, Place { table, number }: Place) -> Vec<u64> {
        match (table, self.pieces()) {
            (Tensors::InShards, Some(pieces)) => pieces.shape(number),
            _ => self.index.tensors.columns().dims(number).collect(),
        }
    }

    /// Raw length in bytes.
    pub(super) fn byte_len_of(&self, Place { table, number }: Place) -> u64 {
        match (table, self.pieces()) {
            (Tensors::InShards, Some(pieces)) => pieces.byte_len(number),
            _ => self.index.tensors.columns().byte_len(number),
        }
    }

    /// Dtype, and a shape that fits memory.
    pub(super) fn described(&self, place: Place) -> Result<(Dtype, Vec<usize>)> {
        let dtype = self.dtype_of(place)?;
        let too_large =
            |_| Error::new(ErrorKind::LimitExceeded, "the tensor does not fit this machine's memory");
        let shape = self.shape_of(place).into_iter().map(usize::try_from).collect::<Result<_, _>>();
        Ok((dtype, shape.map_err(too_large)?))
    }

    /// A tensor that lies in this file.
    pub(super) fn find_tensor(&self, name: &str) -> Result<FoundTensor<'_>> {
        let place = self.locate(name)?;
        self.with_context(name, || {
            let (dtype, shape) = self.described(place)?;
            if place.table == Tensors::InFile {
                return Ok(FoundTensor { entry: self.tensor_entry(place.number), dtype, shape });
            }
            Err(Error::new(ErrorKind::Unsupported, "not for a tensor that lies in shards")
                .help("load it, or read a box of it"))
        })
    }

    /// Adds the names of the tensor and the file to an error of `read`.
    pub(super) fn with_context<T>(&self, name: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
        read().map_err(|error| error.in_tensor(name).in_object(&self.name))
    }

    pub(super) fn within_budget(&self, len: u64) -> Result<usize> {
        match usize::try_from(len) {
            Ok(fitting) if len <= self.options.budget => Ok(fitting),
            _ => Err(Error::new(ErrorKind::LimitExceeded, "bytes to load")
                .expected(format!("at most the budget of {}", self.options.budget))
                .found(len)
                .help("load it by slices, or raise the budget")),
        }
    }

    /// The bytes of a raw entry in place, not verified.
    pub(super) fn raw_bytes(&self, entry: Entry<'_>) -> Option<&[u8]> {
        if !entry.table.is_raw(entry.number) {
            return None;
        }
        let start = entry.table.offset(entry.number);
        self.in_memory(start..start + entry.byte_len())
    }

    /// The bytes of a raw entry in place, verified.
    pub(super) fn in_place(&self, entry: Entry<'_>) -> Result<Option<&[u8]>> {
        let Some(bytes) = self.raw_bytes(entry) else { return Ok(None) };
        self.verify_range(entry, 0..bytes.len() as u64)?;
        Ok(Some(bytes))
    }

    /// The chunks that overlap `range` of the raw bytes.
    pub(super) fn chunks_within<'c>(
        &self,
        entry: Entry<'c>,
        range: Range<u64>,
    ) -> impl Iterator<Item = EntryChunk<'c>> + use<'c> {
        let chunk_len = entry.table.chunk_len(entry.number);
        let chunks = entry.table.chunks(entry.number).enumerate();
        chunks
            .map(move |(number, chunk)| EntryChunk { entry, number, chunk, start: number as u64 * chunk_len })
            .filter(move |EntryChunk { chunk, start, .. }| {
                !range.is_empty() && *start < range.end && start + u64::from(chunk.raw_len) > range.start
            })
    }

    /// The stored bytes of a chunk in place.
    pub(super) fn stored_in_memory(&self, chunk: &Chunk) -> Option<&[u8]> {
        self.in_memory(chunk.offset..chunk.offset + u64::from(chunk.stored_len))
    }

    /// Bytes of the file in place, if the file is in memory.
    pub(super) fn in_memory(&self, range: Range<u64>) -> Option<&[u8]> {
        let bytes = self.blob.as_bytes()?;
        // OK to cast: a range beyond the bytes yields none.
        bytes.get(range.start as usize..range.end as usize)
    }

    /// Verifies one chunk's stored bytes, unless it was verified before or verification is off.
    pub(super) fn check(&self, entry: Entry<'_>, number: usize, chunk: &Chunk, stored: &[u8]) -> Result<()> {
        if self.options.verifies_nothing() {
            return Ok(());
        }
        let (word, mask) = self.verified_bit(entry, number);
        if word.is_some_and(|word| word.load(Ordering::Relaxed) & mask != 0) {
            return Ok(());
        }
        self.check_again(entry, number, chunk, stored)
    }

    /// Verifies one chunk's stored bytes, also if it was verified before.
    pub(super) fn check_again(
        &self,
        entry: Entry<'_>,
        number: usize,
        chunk: &Chunk,
        stored: &[u8],
    ) -> Result<()> {
        check_crc(number, chunk, stored)?;
        if let (Some(word), mask) = self.verified_bit(entry, number) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The bit that records a chunk as verified, if the bytes are in memory.
    fn verified_bit(&self, entry: Entry<'_>, number: usize) -> (Option<&AtomicU64>, u64) {
        let bit = entry.first_bit + entry.table.chunk_numbers(entry.number).start + number;
        (self.verified.get(bit / 64), 1 << (bit % 64))
    }
}

/// Compares the checksum of one chunk's stored bytes with the index.
pub(super) fn check_crc(number: usize, chunk: &Chunk, stored: &[u8]) -> Result<()> {
    let found = crc32(stored);
    if found == chunk.crc {
        return Ok(());
    }
    Err(checksum_error(format!("checksum of chunk {number}"), chunk.crc, found)
        .at_byte(chunk.offset)
        .help("the bytes changed after they were written: resume from an older checkpoint"))
}
