//! A table of stored entries (tensors, or records), column by column: [`Table`] is a validated
//! table over bytes that it holds. columns.rs reads the columns, validate.rs checks them, and
//! build.rs makes them.
//!
//! The columns are read in place: opening a million tensors validates them without copying.

mod build;
mod columns;
mod validate;

pub use build::{NewRow, TableBuilder};
pub use columns::{Chunk, Columns, Row};
use validate::validate;
pub use validate::{check_name, check_names, raw_length};

use crate::error::Result;
use std::ops::Range;

/// Uncompressed.
pub const CODEC_RAW: u8 = 0;
/// One zstd frame.
pub const CODEC_ZSTD: u8 = 1;
/// One element, repeated.
pub const CODEC_FILL: u8 = 2;
/// Byte planes of rotated words, each coded separately. Id 3 is never assigned: the corpus tests
/// that readers do not know it.
pub const CODEC_FLOATS: u8 = 4;

/// A valid table over bytes that it holds.
#[derive(Debug)]
pub struct Table<B> {
    bytes: B,
    columns: Ranges,
    /// One past the last stored byte, padding aside.
    data_end: u64,
}

/// The range of each column in the bytes.
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

/// The kind of a table's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tensors of any dtype and shape.
    Tensors,
    /// Records: one axis of opaque bytes.
    Records,
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Parses and validates the table at `payload` within `bytes`. Its extents must follow each
    /// other in `data`, with only padding between. A long table is checked on up to `workers`
    /// threads.
    ///
    /// # Errors
    /// `Damaged`, with the name of the entry if one is at fault.
    pub fn parse(
        bytes: B,
        payload: Range<usize>,
        kind: Kind,
        data: Range<u64>,
        workers: usize,
    ) -> Result<Self> {
        let base = bytes.as_ref().as_ptr() as usize;
        let columns = Columns::decode(&bytes.as_ref()[payload])?;
        // The columns are subslices of `bytes`, so differences of addresses give their ranges.
        let range = |column: &[u8]| match column.len() {
            0 => 0..0,
            len => column.as_ptr() as usize - base..column.as_ptr() as usize - base + len,
        };
        let data_end = validate(&columns, kind, data, workers)?;
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

    /// All bytes that the table holds, also those around it.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
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

    /// The columns in place. Resolve them once, then read many times.
    pub fn columns(&self) -> Columns<'_> {
        let bytes = self.bytes.as_ref();
        // A mapped file that was truncated despite the promise has fewer bytes than when it was
        // validated.
        let column = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let at = &self.columns;
        Columns {
            names: column(&at.names),
            name_ends: column(&at.name_ends),
            dtypes: column(&at.dtypes),
            dim_ends: column(&at.dim_ends),
            dims: column(&at.dims),
            byte_lens: column(&at.byte_lens),
            offsets: column(&at.offsets),
            chunk_log2: column(&at.chunk_log2),
            chunk_ends: column(&at.chunk_ends),
            chunk_crcs: column(&at.chunk_crcs),
            chunk_codecs: column(&at.chunk_codecs),
            chunk_filters: column(&at.chunk_filters),
            chunk_stored: column(&at.chunk_stored),
        }
    }

    /// Name of the `i`-th entry.
    pub fn name(&self, i: usize) -> &str {
        self.columns().name(i)
    }

    /// The entry of this name, by binary search.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.columns().find(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::error::ErrorKind;

    fn row<'a>(name: &'a str, dtype: Dtype, shape: &'a [usize], offset: u64) -> NewRow<'a> {
        let byte_len = (shape.iter().product::<usize>() * dtype.size()) as u64;
        NewRow { name, dtype, shape, byte_len, offset, chunk_log2: 20 }
    }

    fn two() -> TableBuilder {
        let mut builder = TableBuilder::default();
        builder.push(row("a", Dtype::F32, &[2, 3], 4096));
        builder.push_chunk(CODEC_RAW, 0, 24, 0xAAAA);
        builder.push(row("b", Dtype::U8, &[0], 0));
        builder.push(row("c", Dtype::F64, &[], 4120));
        builder.push_chunk(CODEC_RAW, 0, 8, 0xCCCC);
        builder
    }

    fn parse(builder: &TableBuilder) -> Result<Table<Vec<u8>>> {
        let bytes = builder.encode();
        let len = bytes.len();
        Table::parse(bytes, 0..len, Kind::Tensors, 4096..8192, 1)
    }

    #[test]
    fn a_table_reads_back_what_was_pushed() {
        let table = parse(&two()).unwrap();
        assert_eq!(table.len(), 3);
        assert_eq!(table.find("c"), Some(2));
        assert_eq!(table.find("d"), None);
        assert_eq!(table.name(0), "a");
        assert_eq!(table.columns().dims(0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(table.columns().dims(2).len(), 0);
        assert_eq!(table.columns().chunks(1).count(), 0);
        let chunk = Chunk { offset: 4120, stored_len: 8, raw_len: 8, codec: 0, filter: 0, crc: 0xCCCC };
        assert_eq!(table.columns().chunks(2).collect::<Vec<_>>(), [chunk]);
        assert_eq!(table.data_end(), 4128);
        assert!(table.columns().is_raw(0));
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
    fn a_long_table_is_checked_the_same_on_any_number_of_threads() {
        let long = |broken: Option<usize>| {
            let mut table = TableBuilder::default();
            for i in 0..70_000 {
                let name = format!("{:05}", if broken == Some(i) { 3 } else { i });
                table.push(row(&name, Dtype::F32, &[2], 4096 + i as u64 * 8));
                table.push_chunk(CODEC_RAW, 0, 8, 0);
            }
            table
        };
        let parse = |table: &TableBuilder, workers| {
            let bytes = table.encode();
            let len = bytes.len();
            Table::parse(bytes, 0..len, Kind::Tensors, 4096..u64::MAX, workers).map(|table| table.data_end())
        };
        let (good, unsorted, mut both, mut row) = (long(None), long(Some(60_000)), long(Some(9)), long(None));
        // A row named by a name outside the column.
        let mut astray = long(None);
        astray.name_ends[0..4].fill(0xFF);
        for table in [&mut both, &mut row, &mut astray] {
            table.byte_lens[0] = 9;
        }
        for workers in [1, 2, 5] {
            assert_eq!(parse(&good, workers).unwrap(), 4096 + 70_000 * 8);
            let failed = |table| parse(table, workers).unwrap_err().to_string();
            assert!(failed(&unsorted).contains("names are not sorted"));
            assert!(failed(&both).contains("names are not sorted"), "names come first");
            assert!(failed(&row).contains("raw length"));
            assert!(failed(&astray).contains("place of a name"));
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
        assert_eq!(table.columns().dtype(0), Err(999));
        assert!(!table.columns().is_raw(0));
        let columns = table.columns();
        assert_eq!(columns.stored_len(&columns.row(0)), 20);
    }
}
