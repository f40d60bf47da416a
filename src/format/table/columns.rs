//! The columns of a table, read in place: each a binary string in a small MessagePack map.
//! validate.rs checks their consistency.

use super::CODEC_RAW;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::le::{u32_at, u64_at};
use crate::format::{find_name, span};
use serde::Serialize;
use std::ops::Range;

/// The columns as stored in the file. All integers are little-endian and unaligned.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Columns<'a> {
    /// All names, concatenated, UTF-8, sorted by their bytes, without duplicates.
    #[serde(with = "serde_bytes")]
    pub(super) names: &'a [u8],
    /// u32: end of each name in `names`.
    #[serde(with = "serde_bytes")]
    pub(super) name_ends: &'a [u8],
    /// u16: dtype ids.
    #[serde(with = "serde_bytes")]
    pub(super) dtypes: &'a [u8],
    /// u32: end of each entry's axes in `dims`.
    #[serde(with = "serde_bytes")]
    pub(super) dim_ends: &'a [u8],
    /// u64: lengths of the axes.
    #[serde(with = "serde_bytes")]
    pub(super) dims: &'a [u8],
    /// u64: raw length in bytes.
    #[serde(with = "serde_bytes")]
    pub(super) byte_lens: &'a [u8],
    /// u64: absolute offset of the extent; 0 for an entry without bytes.
    #[serde(with = "serde_bytes")]
    pub(super) offsets: &'a [u8],
    /// u8: raw bytes of a chunk, as a power of two.
    #[serde(with = "serde_bytes")]
    pub(super) chunk_log2: &'a [u8],
    /// u32: end of each entry's chunks in the chunk columns.
    #[serde(with = "serde_bytes")]
    pub(super) chunk_ends: &'a [u8],
    /// u32: checksum over each chunk's stored bytes.
    #[serde(with = "serde_bytes")]
    pub(super) chunk_crcs: &'a [u8],
    /// u8 each, or empty when every chunk is raw.
    #[serde(with = "serde_bytes")]
    pub(super) chunk_codecs: &'a [u8],
    /// u8 each, or empty when every chunk is raw.
    #[serde(with = "serde_bytes")]
    pub(super) chunk_filters: &'a [u8],
    /// u32 each, stored length, or empty when every chunk is raw.
    #[serde(with = "serde_bytes")]
    pub(super) chunk_stored: &'a [u8],
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

/// One entry: its fixed-width fields, and the ranges of its variable ones.
pub struct Row {
    /// In the column of names.
    pub name: Range<usize>,
    /// In the column of axes.
    pub dims: Range<usize>,
    /// Numbers of its chunks among all chunks of the table.
    pub chunks: Range<usize>,
    /// Raw length in bytes.
    pub byte_len: u64,
    /// Absolute offset of the extent.
    pub offset: u64,
    /// Dtype id.
    pub dtype: u16,
    /// Raw bytes of a full chunk, as a power of two.
    pub chunk_log2: u8,
}

/// Entries in order. The end of one is the start of the next, and columns iterated side by side
/// need no bounds checks: several times as fast as [`Columns::row`].
pub struct Rows<I> {
    fields: I,
    name: usize,
    dim: usize,
    chunk: usize,
}

/// The columns of a row, nested as `zip` nests them.
type Ends<'a> = ((&'a [u8; 4], &'a [u8; 4]), &'a [u8; 4]);
type Fields<'a> = (Ends<'a>, ((&'a [u8; 8], &'a [u8; 8]), (&'a [u8; 2], &'a u8)));

impl<'a, I: Iterator<Item = Fields<'a>>> Iterator for Rows<I> {
    type Item = Row;

    #[inline(always)] // a caller's unused fields are then never read
    fn next(&mut self) -> Option<Row> {
        let (((name, dim), chunk), ((byte_len, offset), (dtype, chunk_log2))) = self.fields.next()?;
        let up_to = |start: &mut usize, end: &[u8; 4]| {
            let end = u32::from_le_bytes(*end) as usize;
            std::mem::replace(start, end)..end
        };
        Some(Row {
            name: up_to(&mut self.name, name),
            dims: up_to(&mut self.dim, dim),
            chunks: up_to(&mut self.chunk, chunk),
            byte_len: u64::from_le_bytes(*byte_len),
            offset: u64::from_le_bytes(*offset),
            dtype: u16::from_le_bytes(*dtype),
            chunk_log2: *chunk_log2,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

// Small, and called from iterators that are compiled in the caller's crate: inlining them there
// makes a listing twice as fast.
impl<'a> Columns<'a> {
    /// The columns of a table's payload, not yet validated.
    ///
    /// # Errors
    /// `Damaged` when a column is missing or not binary, or the payload is not a map that keeps the
    /// rules of records.
    pub fn decode(payload: &'a [u8]) -> Result<Self> {
        macro_rules! read {
            ($($column:ident),* $(,)?) => {{
                let names = [$(stringify!($column)),*];
                let [$($column),*] = crate::format::records::columns(payload, names)?;
                Ok(Self { $($column),* })
            }};
        }
        read!(
            names,
            name_ends,
            dtypes,
            dim_ends,
            dims,
            byte_lens,
            offsets,
            chunk_log2,
            chunk_ends,
            chunk_crcs,
            chunk_codecs,
            chunk_filters,
            chunk_stored,
        )
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.name_ends.len() / 4
    }

    #[inline]
    pub(super) fn name_bytes(&self, i: usize) -> &'a [u8] {
        self.names.get(span(self.name_ends, i)).unwrap_or_default()
    }

    /// All entries, in order.
    #[inline]
    pub fn rows(self) -> Rows<impl Iterator<Item = Fields<'a>>> {
        let ends = self.name_ends.as_chunks().0.iter().zip(self.dim_ends.as_chunks().0);
        let ends = ends.zip(self.chunk_ends.as_chunks().0);
        let lengths = self.byte_lens.as_chunks().0.iter().zip(self.offsets.as_chunks().0);
        let small = self.dtypes.as_chunks().0.iter().zip(self.chunk_log2);
        Rows { fields: ends.zip(lengths.zip(small)), name: 0, dim: 0, chunk: 0 }
    }

    /// The `i`-th entry.
    #[inline]
    pub fn row(&self, i: usize) -> Row {
        Row {
            name: span(self.name_ends, i),
            dims: span(self.dim_ends, i),
            chunks: self.chunk_numbers(i),
            byte_len: self.byte_len(i),
            offset: self.offset(i),
            dtype: self.dtypes.as_chunks().0.get(i).map_or(0, |id| u16::from_le_bytes(*id)),
            chunk_log2: u8_at(self.chunk_log2, i),
        }
    }

    /// All names, concatenated: checked once for all instead of once each.
    #[inline]
    pub fn joined_names(&self) -> &'a str {
        std::str::from_utf8(self.names).unwrap_or_default()
    }

    /// Names of all entries, in order.
    #[inline]
    pub fn names(self) -> impl ExactSizeIterator<Item = &'a str> {
        let names = self.joined_names();
        (0..self.len()).map(move |i| names.get(span(self.name_ends, i)).unwrap_or_default())
    }

    /// Name of the `i`-th entry.
    #[inline]
    pub fn name(&self, i: usize) -> &'a str {
        // OK: the whole column was UTF-8, and every name a part of it between character boundaries.
        // If a mapped file changed despite the promise, this gives an empty name, not a panic.
        std::str::from_utf8(self.name_bytes(i)).unwrap_or_default()
    }

    /// The entry of this name, by binary search.
    pub fn find(&self, name: &str) -> Option<usize> {
        find_name(self.names, self.name_ends, name)
    }

    /// Dtype id of the `i`-th entry, `Err` with the id when this version does not know it.
    #[inline]
    pub fn dtype(&self, i: usize) -> Result<Dtype, u16> {
        let id = self.row(i).dtype;
        Dtype::from_id(id).ok_or(id)
    }

    /// Lengths of the axes of the `i`-th entry.
    #[inline]
    pub fn dims(&self, i: usize) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.axes(span(self.dim_ends, i))
    }

    /// Lengths of these axes.
    #[inline]
    pub fn axes(&self, axes: Range<usize>) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let dims = self.dims;
        axes.map(move |axis| u64_at(dims, axis))
    }

    /// Raw length of the `i`-th entry in bytes.
    #[inline]
    pub fn byte_len(&self, i: usize) -> u64 {
        u64_at(self.byte_lens, i)
    }

    /// Absolute offset of the extent of the `i`-th entry.
    #[inline]
    pub fn offset(&self, i: usize) -> u64 {
        u64_at(self.offsets, i)
    }

    /// Raw bytes of a full chunk of the `i`-th entry.
    #[inline]
    pub fn chunk_len(&self, i: usize) -> u64 {
        1 << (u8_at(self.chunk_log2, i) & 63)
    }

    /// Numbers of the chunks of the `i`-th entry among all chunks of the table.
    #[inline]
    pub fn chunk_numbers(&self, i: usize) -> Range<usize> {
        span(self.chunk_ends, i)
    }

    /// The chunks of the `i`-th entry, in order.
    #[inline]
    pub fn chunks(self, i: usize) -> impl Iterator<Item = Chunk> + use<'a> {
        let (mut offset, mut left) = (self.offset(i), self.byte_len(i));
        let chunk_len = self.chunk_len(i);
        let coded = !self.chunk_codecs.is_empty();
        self.chunk_numbers(i).map(move |number| {
            let raw_len = left.min(chunk_len) as u32;
            let chunk = Chunk {
                offset,
                raw_len,
                stored_len: if coded { u32_at(self.chunk_stored, number) } else { raw_len },
                codec: if coded { u8_at(self.chunk_codecs, number) } else { CODEC_RAW },
                filter: if coded { u8_at(self.chunk_filters, number) } else { 0 },
                crc: u32_at(self.chunk_crcs, number),
            };
            left -= u64::from(raw_len);
            offset += u64::from(chunk.stored_len);
            chunk
        })
    }

    /// Whether the `i`-th entry is stored uncompressed: one contiguous extent that can be mapped.
    #[inline]
    pub fn is_raw(&self, i: usize) -> bool {
        self.are_raw(self.chunk_numbers(i))
    }

    /// Whether these chunks are stored uncompressed.
    #[inline]
    pub fn are_raw(&self, chunks: Range<usize>) -> bool {
        let codecs = self.chunk_codecs.get(chunks).unwrap_or_default();
        codecs.iter().all(|&codec| codec == CODEC_RAW)
    }

    /// Stored bytes of an entry.
    #[inline]
    pub fn stored_len(&self, row: &Row) -> u64 {
        if self.chunk_codecs.is_empty() {
            return row.byte_len;
        }
        row.chunks.clone().map(|number| u64::from(u32_at(self.chunk_stored, number))).sum()
    }
}

#[inline]
fn u8_at(column: &[u8], i: usize) -> u8 {
    column.get(i).copied().unwrap_or_default()
}
