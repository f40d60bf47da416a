//! Every rule of SPEC.md's section on tables, checked once, in one pass over the columns.

use super::super::limits::Limits;
use super::super::{PAGE, extent_align, le};
use super::{CODEC_FILL, CODEC_RAW, Columns, Kind};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// The largest element: complex of two binary64.
const FILL_MAX: u64 = 16;

/// Validates the columns of a table whose extents lie from `data_start` on and before `data_limit`. Returns one past the
/// last stored byte.
pub(super) fn run(columns: &Columns<'_>, kind: Kind, data_start: u64, data_limit: u64) -> Result<u64> {
    Validator { columns, kind, data_limit }.run(data_start)
}

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
        // Whole words of columns whose lengths were checked: no look at a bound for each.
        let words = columns.dim_ends.as_chunks().0.iter().zip(columns.chunk_ends.as_chunks().0);
        let lengths = columns.byte_lens.as_chunks().0.iter().zip(columns.offsets.as_chunks().0);
        let small = columns.dtypes.as_chunks().0.iter().zip(columns.chunk_log2);
        for (i, ((ends, lengths), small)) in words.zip(lengths).zip(small).enumerate() {
            let dim_end = u32::from_le_bytes(*ends.0) as usize;
            let chunk_end = u32::from_le_bytes(*ends.1) as usize;
            let row = Row {
                dtype: u16::from_le_bytes(*small.0),
                byte_len: u64::from_le_bytes(*lengths.0),
                offset: u64::from_le_bytes(*lengths.1),
                chunk_log2: *small.1,
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
        // One look at all of them, in blocks without a way out so that it is vectorised, instead of one at each.
        let is_control = |found: bool, &byte: &u8| found | (byte < 0x20) | (byte == 0x7F);
        let plain = !self.columns.names.chunks(4096).any(|block| block.iter().fold(false, is_control));
        let limit = Limits::V1.name_bytes as usize;
        let mut start = 0;
        let mut previous = "";
        for end in self.columns.name_ends.as_chunks().0 {
            let end = u32::from_le_bytes(*end) as usize;
            let name = names.get(start..end).ok_or_else(|| {
                Error::damaged("place of a name")
                    .expected("ends in ascending order")
                    .found(format!("{start}..{end}"))
            })?;
            if !plain || name.is_empty() || name.len() > limit {
                check_name(name).map_err(|error| error.with_kind(ErrorKind::Damaged))?;
            }
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
        let dims = || dims.as_chunks().0.iter().map(|dim| u64::from_le_bytes(*dim));
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
        // An axis of no elements makes it none, however long the others are.
        let elements =
            dims().try_fold(1_u64, u64::checked_mul).or_else(|| dims().any(|dim| dim == 0).then_some(0));
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
        if !(Limits::V1.chunk_log2_min..=Limits::V1.chunk_log2_max).contains(&log2) {
            return Err(Error::damaged("chunk size").expected("2^16 to 2^26").found(format!("2^{log2}")));
        }
        let chunk_len = 1_u64 << log2;
        let chunk_total = self.columns.chunk_crcs.len() / 4;
        // As `div_ceil`, without the division.
        let count = (row.byte_len >> log2) + u64::from(row.byte_len & (chunk_len - 1) != 0);
        if end > chunk_total || end.checked_sub(start).is_none_or(|chunks| chunks as u64 != count) {
            return Err(Error::damaged("number of chunks")
                .expected(count)
                .found(format!("{start}..{end} of {chunk_total}")));
        }
        if self.columns.chunk_codecs.is_empty() {
            return Ok(row.byte_len);
        }
        let element = Dtype::from_id(row.dtype).map(|dtype| dtype.size() as u64);
        let mut left = row.byte_len;
        let mut total = 0_u64;
        for number in start..end {
            let raw_len = left.min(chunk_len);
            let stored = u64::from(le::u32(self.columns.chunk_stored, number * 4..number * 4 + 4));
            let (codec, filter) = (self.columns.chunk_codecs[number], self.columns.chunk_filters[number]);
            let valid = match codec {
                CODEC_RAW => stored == raw_len && filter == 0,
                CODEC_FILL => {
                    let is_element = element.map_or((1..=FILL_MAX).contains(&stored), |size| stored == size);
                    is_element && stored <= raw_len && filter == 0
                }
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
                    // A power of two: a mask is several times as fast as a division.
                    && row.offset & (align - 1) == 0 =>
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
    let is_control = |byte| byte < 0x20 || byte == 0x7F;
    // Without an early end the loop is vectorised, and almost every name passes.
    if !name.bytes().fold(false, |found, byte| found | is_control(byte)) {
        return Ok(());
    }
    match name.bytes().position(is_control) {
        None => Ok(()),
        Some(position) => Err(Error::invalid(format!("a control character in the name {name:?}"))
            .found(format!("byte {position}"))),
    }
}
