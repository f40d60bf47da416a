//! A table of stored entries (tensors, or records), column by column. Owns: the columns, their validation, and reading
//! them in place. Knows nothing of where the table lies in the file, or of codecs beyond their ids.
//!
//! The columns are binary strings in a small MessagePack map. They are read where they lie: opening a million tensors
//! validates them and copies nothing.

use super::limits::Limits;
use super::{PAGE, PAGE_ALIGNED_FROM, extent_align, le};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Stored as it is.
pub const CODEC_RAW: u8 = 0;
/// One zstd frame.
pub const CODEC_ZSTD: u8 = 1;
/// One element, repeated.
pub const CODEC_FILL: u8 = 2;
/// The largest element: complex of two binary64.
const FILL_MAX: u64 = 16;

/// The columns as they stand in the file. All integers are little-endian and unaligned.
#[derive(Serialize, Deserialize)]
struct Columns<'a> {
    /// All names, one after the other, UTF-8, sorted by their bytes, each once.
    #[serde(borrow, with = "serde_bytes")]
    names: &'a [u8],
    /// u32: where each name ends in `names`.
    #[serde(borrow, with = "serde_bytes")]
    name_ends: &'a [u8],
    /// u16: dtype ids.
    #[serde(borrow, with = "serde_bytes")]
    dtypes: &'a [u8],
    /// u32: where each entry's axes end in `dims`.
    #[serde(borrow, with = "serde_bytes")]
    dim_ends: &'a [u8],
    /// u64: lengths of the axes.
    #[serde(borrow, with = "serde_bytes")]
    dims: &'a [u8],
    /// u64: raw length in bytes.
    #[serde(borrow, with = "serde_bytes")]
    byte_lens: &'a [u8],
    /// u64: absolute offset of the extent; 0 for an entry without bytes.
    #[serde(borrow, with = "serde_bytes")]
    offsets: &'a [u8],
    /// u8: raw bytes of a chunk, as a power of two.
    #[serde(borrow, with = "serde_bytes")]
    chunk_log2: &'a [u8],
    /// u32: where each entry's chunks end in the chunk columns.
    #[serde(borrow, with = "serde_bytes")]
    chunk_ends: &'a [u8],
    /// u32: checksum over each chunk's stored bytes.
    #[serde(borrow, with = "serde_bytes")]
    chunk_crcs: &'a [u8],
    /// u8 each, or empty when every chunk is raw.
    #[serde(borrow, with = "serde_bytes")]
    chunk_codecs: &'a [u8],
    /// u8 each, or empty when every chunk is raw.
    #[serde(borrow, with = "serde_bytes")]
    chunk_filters: &'a [u8],
    /// u32 each, stored length, or empty when every chunk is raw.
    #[serde(borrow, with = "serde_bytes")]
    chunk_stored: &'a [u8],
}

/// One chunk of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Absolute offset of the stored bytes.
    pub offset: u64,
    /// Stored length in bytes.
    pub stored_len: u32,
    /// Raw length in bytes.
    pub raw_len: u32,
    /// Codec id.
    pub codec: u8,
    /// Filter id.
    pub filter: u8,
    /// Checksum over the stored bytes.
    pub crc: u32,
}

/// A valid table over bytes that it holds.
#[derive(Debug)]
pub struct Table<B> {
    bytes: B,
    columns: Ranges,
    /// One past the last stored byte, padding aside.
    data_end: u64,
}

/// Where each column lies in the bytes.
#[derive(Debug)]
struct Ranges {
    names: Range<usize>,
    name_ends: Range<usize>,
    dtypes: Range<usize>,
    dim_ends: Range<usize>,
    dims: Range<usize>,
    byte_lens: Range<usize>,
    offsets: Range<usize>,
    chunk_log2: Range<usize>,
    chunk_ends: Range<usize>,
    chunk_crcs: Range<usize>,
    chunk_codecs: Range<usize>,
    chunk_filters: Range<usize>,
    chunk_stored: Range<usize>,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tensors of any dtype and shape.
    Tensors,
    /// Records: one axis of opaque bytes.
    Records,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Parses and validates the table that is `payload` within `bytes`. Its extents must lie one behind the other, with
    /// nothing but padding between, from `data_start` on and before `data_limit`.
    ///
    /// # Errors
    /// `Damaged`, with the entry's name where there is one.
    pub fn parse(
        bytes: B,
        payload: Range<usize>,
        kind: Kind,
        data_start: u64,
        data_limit: u64,
    ) -> Result<Self> {
        let base = bytes.as_ref().as_ptr() as usize;
        let columns: Columns<'_> = super::records::decode(&bytes.as_ref()[payload])?;
        // The columns are subslices of `bytes`: their places are the differences of their addresses.
        let range = |column: &[u8]| match column.len() {
            0 => 0..0,
            len => column.as_ptr() as usize - base..column.as_ptr() as usize - base + len,
        };
        let data_end = Validator { columns: &columns, kind, data_limit }.run(data_start)?;
        let columns = Ranges {
            names: range(columns.names),
            name_ends: range(columns.name_ends),
            dtypes: range(columns.dtypes),
            dim_ends: range(columns.dim_ends),
            dims: range(columns.dims),
            byte_lens: range(columns.byte_lens),
            offsets: range(columns.offsets),
            chunk_log2: range(columns.chunk_log2),
            chunk_ends: range(columns.chunk_ends),
            chunk_crcs: range(columns.chunk_crcs),
            chunk_codecs: range(columns.chunk_codecs),
            chunk_filters: range(columns.chunk_filters),
            chunk_stored: range(columns.chunk_stored),
        };
        Ok(Self { bytes, columns, data_end })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.columns.name_ends.len() / 4
    }

    /// Number of chunks of all entries.
    pub fn chunk_count(&self) -> usize {
        self.columns.chunk_crcs.len() / 4
    }

    /// One past the last stored byte, padding aside.
    pub fn data_end(&self) -> u64 {
        self.data_end
    }

    fn column(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes.as_ref()[range.clone()]
    }

    fn u32(&self, range: &Range<usize>, i: usize) -> u32 {
        le::u32(self.column(range), i * 4..i * 4 + 4)
    }

    fn u64(&self, range: &Range<usize>, i: usize) -> u64 {
        le::u64(self.column(range), i * 8..i * 8 + 8)
    }

    /// The `i`-th range of a column of ends.
    fn span(&self, ends: &Range<usize>, i: usize) -> Range<usize> {
        let start = if i == 0 { 0 } else { self.u32(ends, i - 1) };
        start as usize..self.u32(ends, i) as usize
    }

    fn name_bytes(&self, i: usize) -> &[u8] {
        &self.column(&self.columns.names)[self.span(&self.columns.name_ends, i)]
    }

    /// Name of the `i`-th entry.
    pub fn name(&self, i: usize) -> &str {
        // OK because the whole column was UTF-8 and every name a part of it between character boundaries. A mapped
        // file that changed in spite of the promise gives an empty name here, not a panic.
        std::str::from_utf8(self.name_bytes(i)).unwrap_or_default()
    }

    /// The entry of this name, by binary search.
    pub fn find(&self, name: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name_bytes(middle).cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// Dtype id of the `i`-th entry, `Err` with the id when this version does not know it.
    pub fn dtype(&self, i: usize) -> Result<Dtype, u16> {
        let id = le::u16(self.column(&self.columns.dtypes), i * 2..i * 2 + 2);
        Dtype::from_id(id).ok_or(id)
    }

    /// Lengths of the axes of the `i`-th entry.
    pub fn dims(&self, i: usize) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.span(&self.columns.dim_ends, i).map(|axis| self.u64(&self.columns.dims, axis))
    }

    /// Raw length of the `i`-th entry in bytes.
    pub fn byte_len(&self, i: usize) -> u64 {
        self.u64(&self.columns.byte_lens, i)
    }

    /// Absolute offset of the extent of the `i`-th entry.
    pub fn offset(&self, i: usize) -> u64 {
        self.u64(&self.columns.offsets, i)
    }

    /// Raw bytes of a full chunk of the `i`-th entry.
    pub fn chunk_len(&self, i: usize) -> u64 {
        1 << self.column(&self.columns.chunk_log2)[i]
    }

    /// Numbers of the chunks of the `i`-th entry among all chunks of the table.
    pub fn chunk_numbers(&self, i: usize) -> Range<usize> {
        self.span(&self.columns.chunk_ends, i)
    }

    /// The chunks of the `i`-th entry, in order.
    pub fn chunks(&self, i: usize) -> impl Iterator<Item = Chunk> + '_ {
        let (mut offset, mut left) = (self.offset(i), self.byte_len(i));
        let chunk_len = self.chunk_len(i);
        let coded = !self.columns.chunk_codecs.is_empty();
        self.chunk_numbers(i).map(move |number| {
            let raw_len = left.min(chunk_len) as u32;
            let chunk = Chunk {
                offset,
                raw_len,
                stored_len: if coded { self.u32(&self.columns.chunk_stored, number) } else { raw_len },
                codec: if coded { self.column(&self.columns.chunk_codecs)[number] } else { CODEC_RAW },
                filter: if coded { self.column(&self.columns.chunk_filters)[number] } else { 0 },
                crc: self.u32(&self.columns.chunk_crcs, number),
            };
            left -= u64::from(raw_len);
            offset += u64::from(chunk.stored_len);
            chunk
        })
    }

    /// Whether the `i`-th entry is stored as it is: one contiguous extent that can be mapped.
    pub fn is_raw(&self, i: usize) -> bool {
        self.columns.chunk_codecs.is_empty()
            || self.column(&self.columns.chunk_codecs)[self.chunk_numbers(i)]
                .iter()
                .all(|&codec| codec == CODEC_RAW)
    }

    /// Stored bytes of the `i`-th entry.
    pub fn stored_len(&self, i: usize) -> u64 {
        if self.columns.chunk_codecs.is_empty() {
            return self.byte_len(i);
        }
        self.chunk_numbers(i).map(|number| u64::from(self.u32(&self.columns.chunk_stored, number))).sum()
    }
}

/// Checks every rule of SPEC.md's section on tables, once, in one pass over the columns.
struct Validator<'a> {
    columns: &'a Columns<'a>,
    kind: Kind,
    data_limit: u64,
}

impl Validator<'_> {
    fn run(&self, data_start: u64) -> Result<u64> {
        self.check_lengths()?;
        self.check_names()?;
        let columns = self.columns;
        let (mut dims_start, mut chunk_start, mut data_end) = (0, 0, data_start);
        let rows = columns.dim_ends.chunks_exact(4).zip(columns.chunk_ends.chunks_exact(4)).enumerate();
        for (i, (dim_end, chunk_end)) in rows {
            let dim_end = le::u32(dim_end, 0..4) as usize;
            let chunk_end = le::u32(chunk_end, 0..4) as usize;
            let row = Row {
                dtype: le::u16(columns.dtypes, i * 2..i * 2 + 2),
                byte_len: le::u64(columns.byte_lens, i * 8..i * 8 + 8),
                offset: le::u64(columns.offsets, i * 8..i * 8 + 8),
                chunk_log2: columns.chunk_log2[i],
            };
            let checked = self
                .check_shape(&row, dims_start, dim_end)
                .and_then(|()| self.check_chunks(&row, chunk_start, chunk_end))
                .and_then(|stored| self.check_extent(&row, stored, data_end));
            data_end = checked.map_err(|error| self.name_entry(error, i))?;
            (dims_start, chunk_start) = (dim_end, chunk_end);
        }
        Ok(data_end)
    }

    /// Every column has the length that the number of entries, axes and chunks asks for.
    fn check_lengths(&self) -> Result<()> {
        let columns = self.columns;
        let count = columns.name_ends.len() / 4;
        let last = |ends: &[u8]| match ends.len() {
            0..4 => 0,
            len => le::u32(ends, len - 4..len) as usize,
        };
        let limit = match self.kind {
            Kind::Tensors => Limits::V1.tensors,
            Kind::Records => Limits::V1.records,
        };
        if count as u64 > limit {
            return Err(Error::damaged("number of entries")
                .expected(format!("at most {limit}"))
                .found(count));
        }
        let chunks = columns.chunk_crcs.len() / 4;
        let coded = if columns.chunk_codecs.is_empty() { 0 } else { chunks };
        for (name, column, length) in [
            ("names", columns.names, last(columns.name_ends)),
            ("name_ends", columns.name_ends, count * 4),
            ("dtypes", columns.dtypes, count * 2),
            ("dim_ends", columns.dim_ends, count * 4),
            ("byte_lens", columns.byte_lens, count * 8),
            ("offsets", columns.offsets, count * 8),
            ("chunk_log2", columns.chunk_log2, count),
            ("chunk_ends", columns.chunk_ends, count * 4),
            ("chunk_crcs", columns.chunk_crcs, chunks * 4),
            ("chunk_codecs", columns.chunk_codecs, coded),
            ("chunk_filters", columns.chunk_filters, coded),
            ("chunk_stored", columns.chunk_stored, coded * 4),
        ] {
            if column.len() != length {
                return Err(column_length(name, length, column.len()));
            }
        }
        // Only now are the columns of ends known to be whole.
        for (name, column, length) in [
            ("dims", columns.dims, last(columns.dim_ends).checked_mul(8)),
            ("chunk_crcs", columns.chunk_crcs, last(columns.chunk_ends).checked_mul(4)),
        ] {
            if Some(column.len()) != length {
                return Err(column_length(name, length.unwrap_or(usize::MAX), column.len()));
            }
        }
        Ok(())
    }

    /// UTF-8, without control characters, within the limit, sorted, each once.
    fn check_names(&self) -> Result<()> {
        let names = std::str::from_utf8(self.columns.names)
            .map_err(|error| Error::damaged("names that are not UTF-8").because(error))?;
        let mut start = 0;
        let mut previous = "";
        for end in self.columns.name_ends.chunks_exact(4) {
            let end = le::u32(end, 0..4) as usize;
            let name = names.get(start..end).ok_or_else(|| {
                Error::damaged("place of a name")
                    .expected("ends in ascending order")
                    .found(format!("{start}..{end}"))
            })?;
            check_name(name).map_err(|error| error.with_kind(ErrorKind::Damaged))?;
            // An empty name was refused, so the first one is greater than "".
            if name <= previous {
                return Err(Error::damaged("names are not sorted, or one stands twice")
                    .expected(format!("a name after {previous:?}"))
                    .found(format!("{name:?}")));
            }
            (start, previous) = (end, name);
        }
        Ok(())
    }

    fn name_entry(&self, error: Error, i: usize) -> Error {
        let ends = self.columns.name_ends;
        let start = if i == 0 { 0 } else { le::u32(ends, i * 4 - 4..i * 4) as usize };
        let name =
            String::from_utf8_lossy(&self.columns.names[start..le::u32(ends, i * 4..i * 4 + 4) as usize]);
        match self.kind {
            Kind::Tensors => error.in_tensor(name),
            Kind::Records => error.in_record(name),
        }
    }

    /// Axes in their column, and shape × dtype is the raw length.
    fn check_shape(&self, row: &Row, start: usize, end: usize) -> Result<()> {
        let dims = end
            .checked_sub(start)
            .filter(|&rank| rank as u64 <= Limits::V1.rank)
            .and_then(|_| self.columns.dims.get(start * 8..end * 8))
            .ok_or_else(|| {
                Error::damaged("place of the axes")
                    .expected(format!("at most {} axes", Limits::V1.rank))
                    .found(format!("{start}..{end}"))
            })?;
        let dims = || dims.chunks_exact(8).map(|dim| le::u64(dim, 0..8));
        if row.byte_len > Limits::V1.tensor_bytes {
            return Err(Error::damaged("raw length")
                .expected(format!("at most {}", Limits::V1.tensor_bytes))
                .found(row.byte_len));
        }
        if self.kind == Kind::Records
            && (row.dtype != Dtype::Opaque.id() || end - start != 1 || row.byte_len > Limits::V1.record_bytes)
        {
            return Err(Error::damaged("shape of a record")
                .expected(format!("one axis of at most {} opaque bytes", Limits::V1.record_bytes)));
        }
        // The length of an unknown dtype cannot be checked; such a tensor is listed and cannot be read.
        let Some(dtype) = Dtype::from_id(row.dtype) else { return Ok(()) };
        let elements =
            if dims().any(|dim| dim == 0) { Some(0) } else { dims().try_fold(1_u64, u64::checked_mul) };
        let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size() as u64));
        if bytes == Some(row.byte_len) {
            return Ok(());
        }
        Err(Error::damaged("raw length")
            .expected(format!("{dtype} {:?}", dims().collect::<Vec<_>>()))
            .found(format!("{} bytes", row.byte_len)))
    }

    /// As many chunks as the raw length asks for, each within its bounds. Returns the stored length.
    fn check_chunks(&self, row: &Row, start: usize, end: usize) -> Result<u64> {
        let log2 = u64::from(row.chunk_log2);
        if log2 < Limits::V1.chunk_log2_min || log2 > Limits::V1.chunk_log2_max {
            return Err(Error::damaged("chunk size").expected("2^16 to 2^26").found(format!("2^{log2}")));
        }
        let chunk_len = 1_u64 << log2;
        let chunk_total = self.columns.chunk_crcs.len() / 4;
        let count = row.byte_len.div_ceil(chunk_len);
        if end > chunk_total || end.checked_sub(start).is_none_or(|chunks| chunks as u64 != count) {
            return Err(Error::damaged("number of chunks")
                .expected(count)
                .found(format!("{start}..{end} of {chunk_total}")));
        }
        if self.columns.chunk_codecs.is_empty() {
            return Ok(row.byte_len);
        }
        let element = Dtype::from_id(row.dtype).map_or(FILL_MAX, |dtype| dtype.size() as u64);
        let mut left = row.byte_len;
        let mut total = 0_u64;
        for number in start..end {
            let raw_len = left.min(chunk_len);
            let stored = u64::from(le::u32(self.columns.chunk_stored, number * 4..number * 4 + 4));
            let (codec, filter) = (self.columns.chunk_codecs[number], self.columns.chunk_filters[number]);
            let valid = match codec {
                CODEC_RAW => stored == raw_len && filter == 0,
                CODEC_FILL => stored == element && stored <= raw_len && filter == 0,
                // A chunk that does not shrink is stored raw. This also bounds what unknown codecs may claim.
                _ => stored >= 1 && stored < raw_len,
            };
            if !valid {
                return Err(Error::damaged(format!("stored length of chunk {}", number - start))
                    .found(format!("{stored} of {raw_len} raw bytes by codec {codec}, filter {filter}")));
            }
            left -= raw_len;
            total += stored;
        }
        Ok(total)
    }

    /// The extent begins where its alignment says after the one before, and ends before the index. Returns its end.
    fn check_extent(&self, row: &Row, stored: u64, data_end: u64) -> Result<u64> {
        if row.byte_len == 0 {
            return match row.offset {
                0 => Ok(data_end),
                offset => Err(Error::damaged("offset of an entry without bytes").expected(0).found(offset)),
            };
        }
        let align = extent_align(row.byte_len);
        let end = row.offset.checked_add(stored).filter(|&end| end <= self.data_limit);
        match end {
            Some(end)
                if row.offset >= data_end
                    && row.offset - data_end < PAGE
                    && row.offset.is_multiple_of(align) =>
            {
                Ok(end)
            }
            _ => Err(Error::damaged("place of the extent")
                .expected(format!(
                    "a multiple of {align} within a page after {data_end}, ending by {}",
                    self.data_limit
                ))
                .found(format!("{}+{stored}", row.offset))),
        }
    }
}

/// The fixed-width fields of one entry.
struct Row {
    dtype: u16,
    byte_len: u64,
    offset: u64,
    chunk_log2: u8,
}

fn column_length(name: &str, expected: usize, found: usize) -> Error {
    Error::damaged(format!("length of column {name}")).expected(expected).found(found)
}

/// A name that a table may hold: not empty, within the limit, no control characters.
pub fn check_name(name: &str) -> Result<()> {
    let limit = Limits::V1.name_bytes;
    if name.is_empty() {
        return Err(Error::invalid("an empty name").expected(format!("1 to {limit} bytes")));
    }
    if name.len() as u64 > limit {
        let start: String = name.chars().take(40).collect();
        return Err(Error::invalid(format!("a name that is too long, {start}…"))
            .expected(format!("at most {limit} bytes"))
            .found(name.len()));
    }
    match name.bytes().position(|byte| byte < 0x20 || byte == 0x7F) {
        None => Ok(()),
        Some(position) => Err(Error::invalid(format!("a control character in the name {name:?}"))
            .found(format!("byte {position}"))),
    }
}

/// Collects the rows of a table in the order of their names, and encodes them.
#[derive(Default)]
pub struct TableBuilder {
    names: Vec<u8>,
    name_ends: Vec<u8>,
    dtypes: Vec<u8>,
    dim_ends: Vec<u8>,
    dims: Vec<u8>,
    byte_lens: Vec<u8>,
    offsets: Vec<u8>,
    chunk_log2: Vec<u8>,
    chunk_ends: Vec<u8>,
    chunk_crcs: Vec<u8>,
    chunk_codecs: Vec<u8>,
    chunk_filters: Vec<u8>,
    chunk_stored: Vec<u8>,
}

impl TableBuilder {
    /// Adds an entry. Names must come sorted; its chunks follow by [`TableBuilder::push_chunk`].
    pub fn push(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        byte_len: u64,
        offset: u64,
        chunk_log2: u8,
    ) {
        self.names.extend_from_slice(name.as_bytes());
        self.name_ends.extend_from_slice(&(self.names.len() as u32).to_le_bytes());
        self.dtypes.extend_from_slice(&dtype.id().to_le_bytes());
        self.dims.extend(shape.iter().flat_map(|&dim| (dim as u64).to_le_bytes()));
        self.dim_ends.extend_from_slice(&((self.dims.len() / 8) as u32).to_le_bytes());
        self.byte_lens.extend_from_slice(&byte_len.to_le_bytes());
        self.offsets.extend_from_slice(&offset.to_le_bytes());
        self.chunk_log2.push(chunk_log2);
        self.chunk_ends.extend_from_slice(&((self.chunk_crcs.len() / 4) as u32).to_le_bytes());
    }

    /// Adds the next chunk of the entry pushed last.
    pub fn push_chunk(&mut self, codec: u8, filter: u8, stored_len: u32, crc: u32) {
        self.chunk_crcs.extend_from_slice(&crc.to_le_bytes());
        self.chunk_codecs.push(codec);
        self.chunk_filters.push(filter);
        self.chunk_stored.extend_from_slice(&stored_len.to_le_bytes());
        let chunks = (self.chunk_crcs.len() / 4) as u32;
        let last = self.chunk_ends.len() - 4;
        self.chunk_ends[last..].copy_from_slice(&chunks.to_le_bytes());
    }

    /// Number of entries so far.
    pub fn len(&self) -> usize {
        self.chunk_log2.len()
    }

    /// The MessagePack payload of the table's section.
    pub fn encode(&self) -> Vec<u8> {
        let all_raw = self.chunk_codecs.iter().all(|&codec| codec == CODEC_RAW);
        let unless_raw = |column: &'_ Vec<u8>| if all_raw { Vec::new() } else { column.clone() };
        let (codecs, filters, stored) =
            (unless_raw(&self.chunk_codecs), unless_raw(&self.chunk_filters), unless_raw(&self.chunk_stored));
        let columns = Columns {
            names: &self.names,
            name_ends: &self.name_ends,
            dtypes: &self.dtypes,
            dim_ends: &self.dim_ends,
            dims: &self.dims,
            byte_lens: &self.byte_lens,
            offsets: &self.offsets,
            chunk_log2: &self.chunk_log2,
            chunk_ends: &self.chunk_ends,
            chunk_crcs: &self.chunk_crcs,
            chunk_codecs: &codecs,
            chunk_filters: &filters,
            chunk_stored: &stored,
        };
        super::records::encode_trusted(&columns)
    }
}

/// Whether large extents start on a page: a property of the layout that `map` relies on.
const _: () = assert!(PAGE_ALIGNED_FROM >= PAGE);

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> TableBuilder {
        let mut builder = TableBuilder::default();
        builder.push("a", Dtype::F32, &[2, 3], 24, 4096, 20);
        builder.push_chunk(CODEC_RAW, 0, 24, 0xAAAA);
        builder.push("b", Dtype::U8, &[0], 0, 0, 20);
        builder.push("c", Dtype::F64, &[], 8, 4120, 20);
        builder.push_chunk(CODEC_RAW, 0, 8, 0xCCCC);
        builder
    }

    fn parse(builder: &TableBuilder) -> Result<Table<Vec<u8>>> {
        let bytes = builder.encode();
        let len = bytes.len();
        Table::parse(bytes, 0..len, Kind::Tensors, 4096, 8192)
    }

    #[test]
    fn a_table_reads_back_what_was_pushed() {
        let table = parse(&two()).unwrap();
        assert_eq!(table.len(), 3);
        assert_eq!(table.find("c"), Some(2));
        assert_eq!(table.find("d"), None);
        assert_eq!(table.name(0), "a");
        assert_eq!(table.dims(0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(table.dims(2).len(), 0);
        assert_eq!(table.chunks(1).count(), 0);
        let chunk = Chunk { offset: 4120, stored_len: 8, raw_len: 8, codec: 0, filter: 0, crc: 0xCCCC };
        assert_eq!(table.chunks(2).collect::<Vec<_>>(), [chunk]);
        assert_eq!(table.data_end(), 4128);
        assert!(table.is_raw(0));
    }

    #[test]
    fn each_rule_has_its_violation() {
        type Break = fn(&mut TableBuilder);
        let cases: &[(&str, Break)] = &[
            ("names are not sorted", |t| t.names[0] = b'z'),
            ("names are not sorted", |t| t.names[1] = b'a'),
            ("control character", |t| t.names[0] = 7),
            ("not UTF-8", |t| t.names[0] = 0xFF),
            ("place of a name", |t| t.name_ends[0] = 200),
            ("column dtypes", |t| t.dtypes.truncate(3)),
            ("column dims", |t| t.dims.truncate(8)),
            ("place of the axes", |t| t.dim_ends[0] = 9),
            ("raw length", |t| t.dims[0] = 4),
            ("raw length", |t| t.dims[7] = 0x80),
            ("raw length", |t| t.byte_lens[0] = 25),
            ("chunk size", |t| t.chunk_log2[0] = 15),
            ("chunk size", |t| t.chunk_log2[2] = 200),
            ("number of chunks", |t| t.chunk_ends[0] = 0),
            ("place of the extent", |t| t.offsets[0..8].fill(0xFF)),
            ("place of the extent", |t| t.offsets[0] = 4),
            ("place of the extent", |t| t.offsets[1] = 0x0F),
            ("place of the extent", |t| t.offsets[16..18].copy_from_slice(&4096_u16.to_le_bytes())),
            ("without bytes", |t| t.offsets[8] = 1),
            ("stored length", |t| t.chunk_codecs[0] = CODEC_ZSTD),
            ("stored length", |t| (t.chunk_codecs[0], t.chunk_stored[4]) = (CODEC_ZSTD, 7)),
            ("stored length", |t| (t.chunk_codecs[1], t.chunk_stored[4]) = (CODEC_FILL, 4)),
        ];
        for (expected, break_it) in cases {
            let mut table = two();
            break_it(&mut table);
            let error = parse(&table).map(|_| ()).expect_err(expected);
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn an_unknown_dtype_is_listed_and_an_unknown_codec_is_kept() {
        let mut table = two();
        table.dtypes[0..2].copy_from_slice(&999_u16.to_le_bytes());
        table.chunk_codecs[0] = 77;
        table.chunk_stored[0] = 20;
        table.offsets[16..18].copy_from_slice(&4120_u16.to_le_bytes());
        let table = parse(&table).unwrap();
        assert_eq!(table.dtype(0), Err(999));
        assert!(!table.is_raw(0));
        assert_eq!(table.stored_len(0), 20);
    }
}
