//! Every rule of SPEC.md's section on tables, checked once, in one pass over the columns.

use super::super::limits::Limits;
use super::super::{PAGE, extent_align, le};
use super::{CODEC_FILL, CODEC_RAW, Columns, Kind, Row};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest element: complex of two binary64.
const FILL_MAX: u64 = 16;

/// Validates the columns of a table whose extents are in `data`. Returns one past the last stored
/// byte. A long table is checked on up to `workers` threads.
pub(super) fn validate(columns: &Columns<'_>, kind: Kind, data: Range<u64>, workers: usize) -> Result<u64> {
    Validator { columns, kind, data_limit: data.end }.run(data.start, workers)
}

/// From this many entries on, names are checked on a second thread: starting one takes as long as
/// checking a thousand.
const THREADS_FROM: usize = 1 << 16;

/// The two halves of the validation, which are independent.
enum Half {
    Names,
    Rows,
}

struct Validator<'a> {
    columns: &'a Columns<'a>,
    kind: Kind,
    data_limit: u64,
}

impl Validator<'_> {
    fn run(&self, data_start: u64, workers: usize) -> Result<u64> {
        self.check_lengths()?;
        let data_end = AtomicU64::new(data_start);
        let check = |(): &mut (), half: Half| match half {
            Half::Names => check_names(self.columns.names, self.columns.name_ends),
            Half::Rows => self.check_rows(data_start).map(|end| data_end.store(end, Ordering::Relaxed)),
        };
        let workers = if self.columns.len() < THREADS_FROM { 1 } else { workers };
        pipeline::each(workers, [Half::Names, Half::Rows].into_iter(), || (), check)?;
        Ok(data_end.into_inner())
    }

    fn check_rows(&self, data_start: u64) -> Result<u64> {
        let mut data_end = data_start;
        for (i, row) in self.columns.rows().enumerate() {
            data_end = self.check(&row, data_end).map_err(|broken| self.explain(broken, i, data_end))?;
        }
        Ok(data_end)
    }

    #[inline(always)] // once for each entry of millions
    fn check(&self, row: &Row, data_end: u64) -> Result<u64, Broken> {
        self.check_shape(row)?;
        let stored = self.check_chunks(row)?;
        self.check_extent(row, stored, data_end)
    }

    /// Every column has the length required by the number of entries, axes and chunks.
    fn check_lengths(&self) -> Result<()> {
        let columns = self.columns;
        let count = self.check_count()?;
        let last = |ends: &[u8]| match ends.len() {
            0..4 => 0,
            len => le::u32(ends, len - 4..len) as usize,
        };
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
        // The columns of ends are complete only after the loop above.
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

    /// The number of entries, within the limit.
    fn check_count(&self) -> Result<usize> {
        let count = self.columns.name_ends.len() / 4;
        let limit = match self.kind {
            Kind::Tensors => Limits::V1.tensors,
            Kind::Records => Limits::V1.records,
        };
        if count as u64 <= limit {
            return Ok(count);
        }
        Err(Error::damaged("number of entries").expected(format!("at most {limit}")).found(count))
    }

    /// The axes are in their column, and shape × dtype is the raw length.
    #[inline(always)]
    fn check_shape(&self, row: &Row) -> Result<(), Broken> {
        let rank = row.dims.end.wrapping_sub(row.dims.start) as u64;
        let dims = self.dims(row).ok_or(Broken::Axes)?;
        if rank > Limits::V1.rank {
            return Err(Broken::Axes);
        }
        if row.byte_len > Limits::V1.tensor_bytes {
            return Err(Broken::TooLong);
        }
        if self.kind == Kind::Records
            && (row.dtype != Dtype::Opaque.id() || rank != 1 || row.byte_len > Limits::V1.record_bytes)
        {
            return Err(Broken::RecordShape);
        }
        // The length of an unknown dtype cannot be checked; such a tensor is listed but cannot be
        // read.
        let Some(dtype) = Dtype::from_id(row.dtype) else { return Ok(()) };
        let bytes = raw_length(dtype, dims.iter().map(|dim| u64::from_le_bytes(*dim)));
        if bytes == Some(row.byte_len) { Ok(()) } else { Err(Broken::RawLength(dtype)) }
    }

    fn dims(&self, row: &Row) -> Option<&[[u8; 8]]> {
        self.columns.dims.as_chunks().0.get(row.dims.clone())
    }

    /// The raw length determines the number of chunks, each within its bounds. Returns the stored
    /// length.
    #[inline(always)]
    fn check_chunks(&self, row: &Row) -> Result<u64, Broken> {
        let log2 = u64::from(row.chunk_log2);
        if !(Limits::V1.chunk_log2_min..=Limits::V1.chunk_log2_max).contains(&log2) {
            return Err(Broken::ChunkSize);
        }
        let Range { start, end } = row.chunks;
        if end > self.chunk_total() || (end as u64).checked_sub(chunk_count(row)) != Some(start as u64) {
            return Err(Broken::ChunkCount);
        }
        if self.columns.chunk_codecs.is_empty() { Ok(row.byte_len) } else { self.check_coded(row) }
    }

    fn chunk_total(&self) -> usize {
        self.columns.chunk_crcs.len() / 4
    }

    fn check_coded(&self, row: &Row) -> Result<u64, Broken> {
        let element = Dtype::from_id(row.dtype).map(|dtype| dtype.size() as u64);
        let mut left = row.byte_len;
        let mut total = 0_u64;
        for number in row.chunks.clone() {
            let raw_len = left.min(1 << row.chunk_log2);
            let (stored, codec, filter) = self.coded(number);
            let valid = match codec {
                CODEC_RAW => stored == raw_len && filter == 0,
                CODEC_FILL => {
                    let is_element = element.map_or((1..=FILL_MAX).contains(&stored), |size| stored == size);
                    is_element && stored <= raw_len && filter == 0
                }
                // A chunk that does not shrink is stored raw. This also bounds the raw lengths of
                // unknown codecs.
                _ => stored >= 1 && stored < raw_len,
            };
            if !valid {
                return Err(Broken::StoredLength { number, raw_len });
            }
            left -= raw_len;
            total += stored;
        }
        Ok(total)
    }

    /// Stored length, codec and filter of a chunk.
    fn coded(&self, number: usize) -> (u64, u8, u8) {
        let columns = self.columns;
        let stored = le::u32(columns.chunk_stored, number * 4..number * 4 + 4);
        (u64::from(stored), columns.chunk_codecs[number], columns.chunk_filters[number])
    }

    /// The extent starts aligned after the previous one, and ends before the index. Returns its
    /// end.
    #[inline(always)]
    fn check_extent(&self, row: &Row, stored: u64, data_end: u64) -> Result<u64, Broken> {
        if row.byte_len == 0 {
            return if row.offset == 0 { Ok(data_end) } else { Err(Broken::OffsetOfNothing) };
        }
        let end = row.offset.checked_add(stored).filter(|&end| end <= self.data_limit);
        // A power of two: a mask is several times as fast as a division.
        let aligned = row.offset & (extent_align(row.byte_len) - 1) == 0;
        match end {
            Some(end) if row.offset >= data_end && row.offset - data_end < PAGE && aligned => Ok(end),
            _ => Err(Broken::Extent { stored }),
        }
    }

    /// The error of the `i`-th entry, which breaks a rule. Separate from the rules to keep the loop
    /// over them short.
    #[cold]
    fn explain(&self, broken: Broken, i: usize, data_end: u64) -> Error {
        let row = &self.columns.row(i);
        let error = match broken {
            Broken::Axes => Error::damaged("place of the axes")
                .expected(format!("at most {} axes", Limits::V1.rank))
                .found(format!("{:?}", row.dims)),
            Broken::TooLong => Error::damaged("raw length")
                .expected(format!("at most {}", Limits::V1.tensor_bytes))
                .found(row.byte_len),
            Broken::RecordShape => Error::damaged("shape of a record")
                .expected(format!("one axis of at most {} opaque bytes", Limits::V1.record_bytes)),
            Broken::RawLength(dtype) => {
                let dims = self.dims(row).unwrap_or_default().iter();
                let dims: Vec<_> = dims.map(|dim| u64::from_le_bytes(*dim)).collect();
                Error::damaged("raw length")
                    .expected(format!("{dtype} {dims:?}"))
                    .found(format!("{} bytes", row.byte_len))
            }
            Broken::ChunkSize => {
                Error::damaged("chunk size").expected("2^16 to 2^26").found(format!("2^{}", row.chunk_log2))
            }
            Broken::ChunkCount => Error::damaged("number of chunks")
                .expected(chunk_count(row))
                .found(format!("{:?} of {}", row.chunks, self.chunk_total())),
            Broken::StoredLength { number, raw_len } => {
                let (stored, codec, filter) = self.coded(number);
                Error::damaged(format!("stored length of chunk {}", number - row.chunks.start))
                    .found(format!("{stored} of {raw_len} raw bytes by codec {codec}, filter {filter}"))
            }
            Broken::OffsetOfNothing => {
                Error::damaged("offset of an entry without bytes").expected(0).found(row.offset)
            }
            Broken::Extent { stored } => Error::damaged("place of the extent")
                .expected(format!(
                    "a multiple of {} within a page after {}, ending by {}",
                    extent_align(row.byte_len),
                    data_end,
                    self.data_limit
                ))
                .found(format!("{}+{stored}", row.offset)),
        };
        // Another thread may still be checking the names: this one may be out of range.
        let name = String::from_utf8_lossy(self.columns.name_bytes(i));
        match self.kind {
            Kind::Tensors => error.in_tensor(name),
            Kind::Records => error.in_record(name),
        }
    }
}

/// Names are UTF-8, without control characters, within the limit, sorted, without duplicates.
///
/// # Errors
/// `Damaged`.
pub fn check_names(bytes: &[u8], name_ends: &[u8]) -> Result<()> {
    let names = std::str::from_utf8(bytes)
        .map_err(|error| Error::damaged("names that are not UTF-8").because(error))?;
    // One scan over all names, in blocks without an early exit so that it vectorises.
    let is_control = |found: bool, &byte: &u8| found | (byte < 0x20) | (byte == 0x7F);
    let plain = !bytes.chunks(4096).any(|block| block.iter().fold(false, is_control));
    let limit = Limits::V1.name_bytes as usize;
    let mut start = 0;
    let mut previous = "";
    for end in name_ends.as_chunks().0 {
        let end = u32::from_le_bytes(*end) as usize;
        let name = names.get(start..end).ok_or_else(|| place_of_a_name(start, end))?;
        if !plain || name.is_empty() || name.len() > limit {
            check_name(name).map_err(|error| error.with_kind(ErrorKind::Damaged))?;
        }
        // Empty names were refused, so the first name is greater than "".
        if name <= previous {
            return Err(not_sorted(previous, name));
        }
        (start, previous) = (end, name);
    }
    Ok(())
}

/// Bytes of a shape's elements; None when that overflows.
#[inline(always)]
pub fn raw_length(dtype: Dtype, mut dims: impl Iterator<Item = u64> + Clone) -> Option<u64> {
    let bytes = dims.clone().try_fold(dtype.size() as u64, u64::checked_mul);
    // An axis of length 0 makes the product 0, even if the others overflow.
    bytes.or_else(|| dims.any(|dim| dim == 0).then_some(0))
}

/// The number of chunks for the raw length: `div_ceil` without the division.
fn chunk_count(row: &Row) -> u64 {
    let partial = row.byte_len & ((1 << row.chunk_log2) - 1) != 0;
    (row.byte_len >> row.chunk_log2) + u64::from(partial)
}

/// The rule that an entry breaks.
enum Broken {
    Axes,
    TooLong,
    RecordShape,
    RawLength(Dtype),
    ChunkSize,
    ChunkCount,
    StoredLength { number: usize, raw_len: u64 },
    OffsetOfNothing,
    Extent { stored: u64 },
}

#[cold]
fn place_of_a_name(start: usize, end: usize) -> Error {
    Error::damaged("place of a name").expected("ends in ascending order").found(format!("{start}..{end}"))
}

#[cold]
fn not_sorted(previous: &str, name: &str) -> Error {
    Error::damaged("names are not sorted, or one stands twice")
        .expected(format!("a name after {previous:?}"))
        .found(format!("{name:?}"))
}

#[cold]
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
    let is_control = |byte| byte < 0x20 || byte == 0x7F;
    // Without an early exit the loop vectorises, and almost every name passes.
    if !name.bytes().fold(false, |found, byte| found | is_control(byte)) {
        return Ok(());
    }
    match name.bytes().position(is_control) {
        None => Ok(()),
        Some(position) => Err(Error::invalid(format!("a control character in the name {name:?}"))
            .found(format!("byte {position}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NewRow, TableBuilder};
    use super::*;

    /// The thread that checks names may be behind the one that checks rows.
    #[test]
    fn a_broken_row_is_explained_also_where_its_name_lies_nowhere() {
        // The second row's name ends past all names, begins there, or ends before it begins.
        for (end, at) in [(u32::MAX, 1), (u32::MAX, 0), (3, 0)] {
            let mut table = TableBuilder::default();
            for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
                let offset = 4096 + i as u64 * 8;
                let dtype = Dtype::F32;
                table.push(NewRow { name, dtype, shape: &[2], byte_len: 8, offset, chunk_log2: 20 });
                table.push_chunk(CODEC_RAW, 0, 8, 0);
            }
            table.byte_lens[8] = 9;
            table.name_ends[at * 4..][..4].copy_from_slice(&end.to_le_bytes());
            let bytes = table.encode();
            let columns = Columns::decode(&bytes).unwrap();
            let validator = Validator { columns: &columns, kind: Kind::Tensors, data_limit: u64::MAX };
            validator.check_lengths().unwrap();
            let error = validator.check_rows(4096).unwrap_err().to_string();
            assert!(error.contains("raw length") && error.contains("9 bytes"), "{error}");
            assert!(
                check_names(columns.names, columns.name_ends)
                    .unwrap_err()
                    .to_string()
                    .contains("place of a name")
            );
        }
    }
}
