//! Tensors and record bytes out of an open checkpoint: borrowed where they lie, or read, verified and decoded.

use super::{Checkpoint, Verify};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{Chunk, Columns, Row};
use crate::format::{checksum_error, crc32};
use crate::tensor::Tensor;
use serde::{Serialize, Serializer};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the index says of one tensor, without touching its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo<'c> {
    /// Name.
    pub name: &'c str,
    /// Element type, or the id of one that this version does not know.
    pub dtype: Result<Dtype, u16>,
    /// Lengths of the axes.
    pub shape: Shape,
    /// Raw length in bytes.
    pub byte_len: u64,
    /// Stored length in bytes.
    pub stored_len: u64,
    /// Absolute offset of the first stored byte.
    pub offset: u64,
    /// Number of chunks.
    pub chunks: usize,
    /// Raw bytes of each chunk but the last, which may have fewer.
    pub chunk_len: u64,
    /// Whether it is stored as it is, in one piece that can be mapped.
    pub raw: bool,
    /// The tensor whose bytes these are, when this is a further name.
    pub alias_of: Option<&'c str>,
}

/// Lengths of the axes, as a slice. Up to 4 of them lie in place, so that listing 100,000 tensors allocates nothing.
#[derive(Clone)]
pub struct Shape(Lengths);

#[derive(Clone)]
enum Lengths {
    Few([u64; 4], u8),
    Many(Box<[u64]>),
}

impl<I: ExactSizeIterator<Item = u64>> From<I> for Shape {
    #[inline]
    fn from(dims: I) -> Self {
        let len = dims.len();
        if len > 4 {
            return Self(Lengths::Many(dims.collect()));
        }
        let mut few = [0; 4];
        few.iter_mut().zip(dims).for_each(|(place, dim)| *place = dim);
        Self(Lengths::Few(few, len as u8))
    }
}

impl Deref for Shape {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        match &self.0 {
            Lengths::Few(few, len) => &few[..usize::from(*len)],
            Lengths::Many(many) => many,
        }
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Shape {}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&**self)
    }
}

/// One entry of one table, and where its chunks are remembered as verified.
#[derive(Clone, Copy)]
pub(super) struct Entry<'c> {
    pub table: Columns<'c>,
    pub number: usize,
    pub first_bit: usize,
}

/// One chunk of an entry: its number within the entry, itself, raw bytes before it.
pub(super) type Numbered = (usize, Chunk, u64);

impl Checkpoint {
    /// All tensors sorted by name, then further names of tied ones.
    #[inline]
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        let columns = self.index.tensors.columns();
        let own = Own { columns, names: columns.joined_names(), rows: columns.rows() };
        own.chain(self.index.aliases.iter().map(move |(name, &target)| {
            let i = target as usize;
            describe(columns, name, columns.row(i), Some(columns.name(i)))
        }))
    }

    /// Names of all tensors, further names of tied ones last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.index.tensors.columns().names();
        own.chain(self.index.aliases.keys().map(String::as_str))
    }

    /// What the index says of a tensor.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn info(&self, name: &str) -> Result<TensorInfo<'_>> {
        let i = self.find(name)?;
        let own = self.index.tensors.name(i);
        let (name, alias_of) = match self.index.aliases.get_key_value(name) {
            Some((alias, _)) => (alias.as_str(), Some(own)),
            None => (own, None),
        };
        let columns = self.index.tensors.columns();
        Ok(describe(columns, name, columns.row(i), alias_of))
    }

    /// A tensor: borrowed when the file is mapped and it is stored raw, else read or decoded into its own memory.
    /// Every byte given out was verified before, unless the checkpoint was opened with [`Verify::Never`].
    ///
    /// # Errors
    /// `NotFound` with the nearest name, `Damaged`, `Unsupported` for a dtype or codec this version does not know,
    /// `LimitExceeded` beyond the budget, `Io`.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let (entry, dtype, shape) = self.find_tensor(name)?;
        self.at_place(name, || match self.in_place(entry)? {
            Some(bytes) => Tensor::new(dtype, &shape, bytes),
            None => {
                let len = self.within_budget(entry.table.byte_len(entry.number))?;
                let mut buffer = Buffer::zeroed(len)?;
                self.read_into(entry, dtype, 0..len as u64, &mut buffer)?;
                Tensor::owned(dtype, &shape, buffer)
            }
        })
    }

    /// A tensor that is borrowed from the mapped file, or an error that says why it cannot be.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Unsupported` when the file was opened for reading or the tensor is compressed.
    pub fn require_mapped(&self, name: &str) -> Result<Tensor<'_>> {
        let (entry, ..) = self.find_tensor(name)?;
        let refused = |what: &'static str, help: &'static str| {
            Err(Error::new(ErrorKind::Unsupported, what).help(help).in_tensor(name).in_object(&self.name))
        };
        if !self.is_mapped() {
            return refused("the checkpoint is opened for reading, not mapped", "open it by Checkpoint::map");
        }
        if !entry.table.is_raw(entry.number) {
            return refused(
                "the tensor is stored compressed",
                "save it with Codec::Raw, or load a decoded copy",
            );
        }
        self.tensor(name)
    }

    /// Rows `rows` of the leading axis, reading and verifying only the chunks that hold them.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Invalid` when there are no such rows.
    pub fn slice(&self, name: &str, rows: Range<usize>) -> Result<Tensor<'_>> {
        let (entry, dtype, mut shape) = self.find_tensor(name)?;
        self.at_place(name, || {
            let count = *shape.first().ok_or_else(|| Error::invalid("a scalar has no rows"))?;
            if rows.start > rows.end || rows.end > count {
                return Err(Error::invalid("rows")
                    .expected(format!("within 0..{count}"))
                    .found(format!("{rows:?}")));
            }
            // OK to multiply and divide: the whole tensor's length was checked, and a part is no longer.
            let row_len = entry.table.byte_len(entry.number) / (count as u64).max(1);
            let bytes = rows.start as u64 * row_len..rows.end as u64 * row_len;
            shape[0] = rows.len();
            if let Some(all) = self.raw_bytes(entry) {
                self.verify_range(entry, bytes.clone())?;
                return Tensor::new(dtype, &shape, &all[bytes.start as usize..bytes.end as usize]);
            }
            let mut buffer = Buffer::zeroed(self.within_budget(bytes.end - bytes.start)?)?;
            self.read_into(entry, dtype, bytes, &mut buffer)?;
            Tensor::owned(dtype, &shape, buffer)
        })
    }

    /// The length of a record in bytes, by the index, without touching it.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn record_len(&self, name: &str) -> Result<u64> {
        Ok(self.index.records.columns().byte_len(self.find_record(name)?))
    }

    fn find_record(&self, name: &str) -> Result<usize> {
        self.index.records.find(name).ok_or_else(|| {
            let nearest = crate::names::nearest(name, self.records());
            crate::names::not_found("record", name, nearest).in_object(&self.name)
        })
    }

    /// The bytes of a record, verified.
    pub(crate) fn record_bytes(&self, name: &str) -> Result<Buffer> {
        let number = self.find_record(name)?;
        let within = self.within_budget(self.index.records.columns().byte_len(number));
        let read = within.and_then(|_| self.record_buffer(number));
        read.map_err(|error: Error| error.in_record(name).in_object(&self.name))
    }

    /// The bytes of the record of this number, verified, whatever the budget: at most 64 MiB.
    pub(super) fn record_buffer(&self, number: usize) -> Result<Buffer> {
        let entry = self.record_entry(number);
        // OK to cast: a record's length was compared with the limit.
        let len = entry.table.byte_len(number);
        let mut buffer = Buffer::zeroed(len as usize)?;
        self.read_into(entry, Dtype::Opaque, 0..len, &mut buffer)?;
        Ok(buffer)
    }

    pub(super) fn tensor_entry(&self, number: usize) -> Entry<'_> {
        Entry { table: self.index.tensors.columns(), number, first_bit: 0 }
    }

    pub(super) fn record_entry(&self, number: usize) -> Entry<'_> {
        Entry { table: self.index.records.columns(), number, first_bit: self.index.tensors.chunk_count() }
    }

    pub(super) fn find(&self, name: &str) -> Result<usize> {
        let alias = || self.index.aliases.get(name).map(|&target| target as usize);
        self.index.tensors.find(name).or_else(alias).ok_or_else(|| {
            let nearest = crate::names::nearest(name, self.names());
            crate::names::not_found("tensor", name, nearest).in_object(&self.name)
        })
    }

    pub(super) fn find_tensor(&self, name: &str) -> Result<(Entry<'_>, Dtype, Vec<usize>)> {
        let number = self.find(name)?;
        let table = self.index.tensors.columns();
        self.at_place(name, || {
            let dtype = table.dtype(number).map_err(|id| {
                Error::new(ErrorKind::Unsupported, "a dtype that this version does not know")
                    .found(format!("id {id}"))
                    .help("update tensorkeep; the file's other tensors are readable")
            })?;
            let too_large =
                |_| Error::new(ErrorKind::LimitExceeded, "the tensor does not fit this machine's memory");
            let shape =
                table.dims(number).map(usize::try_from).collect::<Result<Vec<_>, _>>().map_err(too_large)?;
            Ok((self.tensor_entry(number), dtype, shape))
        })
    }

    pub(super) fn at_place<T>(&self, name: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
        read().map_err(|error| error.in_tensor(name).in_object(&self.name))
    }

    pub(super) fn within_budget(&self, len: u64) -> Result<usize> {
        usize::try_from(len).ok().filter(|_| len <= self.options.budget).ok_or_else(|| {
            Error::new(ErrorKind::LimitExceeded, "bytes to load")
                .expected(format!("at most the budget of {}", self.options.budget))
                .found(len)
                .help("load it by slices, or raise the budget")
        })
    }

    /// The bytes of a raw entry where they lie, not verified.
    pub(super) fn raw_bytes(&self, entry: Entry<'_>) -> Option<&[u8]> {
        let start = Some(entry.table.offset(entry.number)).filter(|_| entry.table.is_raw(entry.number))?;
        self.in_memory(start..start + entry.table.byte_len(entry.number))
    }

    /// The bytes of a raw entry where they lie, verified.
    fn in_place(&self, entry: Entry<'_>) -> Result<Option<&[u8]>> {
        let Some(bytes) = self.raw_bytes(entry) else { return Ok(None) };
        self.verify_range(entry, 0..bytes.len() as u64)?;
        Ok(Some(bytes))
    }

    /// Chunks that overlap `range` of raw bytes: number within the entry, chunk, raw bytes before it.
    pub(super) fn chunks_within<'c>(
        &self,
        entry: Entry<'c>,
        range: Range<u64>,
    ) -> impl Iterator<Item = Numbered> + use<'c> {
        let chunk_len = entry.table.chunk_len(entry.number);
        entry
            .table
            .chunks(entry.number)
            .enumerate()
            .map(move |(i, chunk)| (i, chunk, i as u64 * chunk_len))
            .filter(move |(_, chunk, start)| {
                !range.is_empty() && *start < range.end && start + u64::from(chunk.raw_len) > range.start
            })
    }

    /// The stored bytes of a chunk where they lie.
    pub(super) fn stored_in_memory(&self, chunk: &Chunk) -> Option<&[u8]> {
        self.in_memory(chunk.offset..chunk.offset + u64::from(chunk.stored_len))
    }

    /// Bytes of the file where they lie.
    pub(super) fn in_memory(&self, range: Range<u64>) -> Option<&[u8]> {
        let bytes = self.blob.as_bytes()?;
        // OK to cast: what is not within the bytes is not found in them.
        bytes.get(range.start as usize..range.end as usize)
    }

    /// Verifies one chunk's stored bytes unless that was done before, or is not wanted.
    pub(super) fn check(&self, entry: Entry<'_>, number: usize, chunk: &Chunk, stored: &[u8]) -> Result<()> {
        if self.options.verify == Verify::Never {
            return Ok(());
        }
        let (word, mask) = self.memory_of(entry, number);
        if word.is_some_and(|word| word.load(Ordering::Relaxed) & mask != 0) {
            return Ok(());
        }
        self.check_again(entry, number, chunk, stored)
    }

    /// Verifies one chunk's stored bytes, whatever was verified before.
    pub(super) fn check_again(
        &self,
        entry: Entry<'_>,
        number: usize,
        chunk: &Chunk,
        stored: &[u8],
    ) -> Result<()> {
        check_crc(number, chunk, stored)?;
        if let (Some(word), mask) = self.memory_of(entry, number) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The bit that remembers a chunk as verified, where bytes are in memory.
    fn memory_of(&self, entry: Entry<'_>, number: usize) -> (Option<&AtomicU64>, u64) {
        let bit = entry.first_bit + entry.table.chunk_numbers(entry.number).start + number;
        (self.verified.get(bit / 64), 1 << (bit % 64))
    }
}

/// Compares one chunk's stored bytes with the index.
pub(super) fn check_crc(number: usize, chunk: &Chunk, stored: &[u8]) -> Result<()> {
    let found = crc32(stored);
    if found == chunk.crc {
        return Ok(());
    }
    Err(checksum_error(format!("checksum of chunk {number}"), chunk.crc, found)
        .at_byte(chunk.offset)
        .help("the bytes changed after they were written: resume from an older checkpoint"))
}

/// The tensors of a table. Not a closure in a `map`, because of which no compiler can be made to inline the loop: then the
/// fields that a caller does not look at are never read.
struct Own<'c, R> {
    columns: Columns<'c>,
    names: &'c str,
    rows: R,
}

impl<'c, R: Iterator<Item = Row>> Iterator for Own<'c, R> {
    type Item = TensorInfo<'c>;

    #[inline(always)]
    fn next(&mut self) -> Option<TensorInfo<'c>> {
        let row = self.rows.next()?;
        let name = self.names.get(row.name.clone()).unwrap_or_default();
        Some(describe(self.columns, name, row, None))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

#[inline(always)]
fn describe<'c>(table: Columns<'c>, name: &'c str, row: Row, alias_of: Option<&'c str>) -> TensorInfo<'c> {
    TensorInfo {
        name,
        dtype: Dtype::from_id(row.dtype).ok_or(row.dtype),
        byte_len: row.byte_len,
        stored_len: table.stored_len(&row),
        offset: row.offset,
        chunks: row.chunks.len(),
        // OK to shift: validating the index has bounded it.
        chunk_len: 1 << (row.chunk_log2 & 63),
        raw: table.are_raw(row.chunks),
        shape: table.axes(row.dims).into(),
        alias_of,
    }
}
