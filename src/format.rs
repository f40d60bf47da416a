//! Container format version 1 (SPEC.md is normative): header, footer, index region and records, as
//! bytes and as structs. Sans-IO: `&[u8]` in, values out; no files, no threads.
//!
//! Every decoder here returns a value or an error for any input. It does not panic, and allocates
//! nothing in proportion to a number in the input: counts are bounded by the bytes present.
//! Decoding is validating: a value that exists was checked, and is not checked again.

pub mod aliases;
pub mod footer;
pub mod header;
pub mod index;
pub mod limits;
pub mod pieces;
pub mod records;
pub mod shard;
pub mod signatures;
pub mod table;
pub mod value;

use crate::error::{Error, ErrorKind, Result};

/// The oldest format version that a reader must support to read this writer's files.
pub const READ_VERSION: u16 = 1;
/// The version of the specification that this writer follows.
pub const WRITE_VERSION: u16 = 1;
/// First bytes of a container: a byte that no text has, the name, and line ends that a transfer in
/// text mode would change.
pub const MAGIC: [u8; 8] = [0x89, b'T', b'K', b'P', 0x0D, 0x0A, 0x1A, 0x0A];
/// Last bytes of a container: the magic reversed.
pub const CLOSING_MAGIC: [u8; 8] = [0x0A, 0x1A, 0x0A, 0x0D, b'P', b'K', b'T', 0x89];
/// First bytes of an index region, so that it can be found when the footer is lost.
pub const INDEX_MAGIC: [u8; 8] = *b"TKPINDEX";
/// The checksum algorithm of version 1: CRC-32/ISO-HDLC. 0 would mean none, and is refused.
pub const CHECKSUM_CRC32: u8 = 1;
/// Extents of this many bytes and more start on a page.
pub const PAGE_ALIGNED_FROM: u64 = 64 << 10;
/// The alignment of large extents, and of the header.
pub const PAGE: u64 = 4096;
/// Default size of a chunk, as a power of two of raw bytes.
pub const DEFAULT_CHUNK_LOG2: u8 = 20;
/// Alignment of the index region's start and length.
pub const INDEX_ALIGN: u64 = 64;
/// Alignment of the mirror's start: a sector of its own.
pub const MIRROR_ALIGN: u64 = 512;
/// An index region of at most this many bytes is mirrored.
pub const MIRROR_UP_TO: u64 = 1 << 20;

/// One field of a fixed layout, for the test that compares SPEC.md with the code.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Name, as in SPEC.md.
    pub name: &'static str,
}

/// A fixed layout, written down once: the ranges for encode and decode, and the list that a test
/// compares with SPEC.md.
macro_rules! layout {
    ($len:literal: $($name:ident = $start:literal .. $end:literal;)*) => {
        /// Length in bytes.
        pub const LEN: usize = $len;
        $(const $name: std::ops::Range<usize> = $start..$end;)*
        /// The layout, field by field.
        #[cfg(feature = "testing")]
        pub const FIELDS: &[crate::format::Field] = &[
            $(crate::format::Field { start: $start, end: $end, name: stringify!($name) },)*
        ];
    };
}
pub(crate) use layout;

/// The alignment of an extent of a tensor of `byte_len` raw bytes: a page from 64 KiB on, else the
/// next power of two in 8..=64.
pub fn extent_align(byte_len: u64) -> u64 {
    // By comparisons instead of arithmetic: this runs for each entry of an index of millions.
    match byte_len {
        PAGE_ALIGNED_FROM.. => PAGE,
        33.. => 64,
        17.. => 32,
        9.. => 16,
        _ => 8,
    }
}

/// The next multiple of a power of two; the largest representable one if that overflows.
pub fn align_up(offset: u64, align: u64) -> u64 {
    offset.saturating_add(align - 1) & !(align - 1)
}

/// Feature flags, with ext4's meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Unknown bits are harmless.
    pub compat: u64,
    /// Unknown bits forbid changing the file, not reading it.
    pub ro_compat: u64,
    /// Unknown bits forbid reading the file.
    pub incompat: u64,
}

impl Flags {
    /// Of `incompat`: the file is a manifest. Bit 0 is never assigned, so that the corpus can show
    /// what readers do with one that they do not know.
    pub const PIECES: u64 = 1 << 1;
    /// Of `ro_compat`: the file is a shard.
    pub const SHARD: u64 = 1;
    /// Bits of `incompat` that this version reads.
    pub const KNOWN_INCOMPAT: u64 = Self::PIECES;

    fn check(self) -> Result<()> {
        let unknown = self.incompat & !Self::KNOWN_INCOMPAT;
        if unknown == 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NewerVersion, "the file needs features this version does not know")
            .found(format!("incompat flags {unknown:#x}"))
            .help("update tensorkeep"))
    }
}

/// Binary columns that are read in place: as slices of a payload, and, where a second name is
/// given, as ranges of the bytes that hold them.
macro_rules! slices {
    ($(#[$doc:meta])* $columns:ident $($ranges:ident)?: $($name:ident),* $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, serde::Serialize)]
        pub struct $columns<'a> {
            $(#[serde(with = "serde_bytes")] $name: &'a [u8],)*
        }

        impl<'a> $columns<'a> {
            fn decode(payload: &'a [u8]) -> crate::error::Result<Self> {
                let names = [$(stringify!($name)),*];
                let [$($name),*] = crate::format::records::columns(payload, names)?;
                Ok(Self { $($name),* })
            }
        }

        crate::format::slices!(@ranges [$($ranges)?] $columns: $($name),*);
    };
    (@ranges [] $columns:ident: $($name:ident),*) => {};
    (@ranges [$ranges:ident] $columns:ident: $($name:ident),*) => {
        /// Where each column lies.
        #[derive(Debug)]
        struct $ranges {
            $($name: std::ops::Range<usize>,)*
        }

        impl $ranges {
            fn of(columns: &$columns<'_>, bytes: &[u8]) -> Self {
                Self { $($name: crate::format::range_in(bytes, columns.$name),)* }
            }

            fn columns<'a>(&self, bytes: &'a [u8]) -> $columns<'a> {
                $columns { $($name: bytes.get(self.$name.clone()).unwrap_or_default(),)* }
            }
        }
    };
}
pub(crate) use slices;

/// The range of a subslice.
fn range_in(bytes: &[u8], part: &[u8]) -> std::ops::Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    if part.is_empty() { 0..0 } else { start..start + part.len() }
}

/// The `i`-th range of a column of ends that were checked.
#[inline]
fn span(ends: &[u8], i: usize) -> std::ops::Range<usize> {
    let start = if i == 0 { 0 } else { le::u32_at(ends, i - 1) };
    start as usize..le::u32_at(ends, i) as usize
}

/// Ends never descend, and the last one is the length of what they divide.
fn check_ends(name: &str, ends: &[u8], length: usize) -> Result<()> {
    let mut last = 0;
    for end in ends.as_chunks().0 {
        let end = u32::from_le_bytes(*end) as usize;
        if end < last {
            return Err(Error::damaged(format!("column {name}")).expected("ends that ascend").found(end));
        }
        last = end;
    }
    if last == length {
        return Ok(());
    }
    Err(Error::damaged(format!("the last of column {name}")).expected(length).found(last))
}

/// A column has its length in bytes.
fn check_column(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::damaged(format!("length of column {name}")).expected(expected).found(found))
}

/// The entry of this name in columns of names that were checked, by binary search.
#[inline]
fn find_name(names: &[u8], ends: &[u8], name: &str) -> Option<usize> {
    let (mut low, mut high) = (0, ends.len() / 4);
    while low < high {
        let middle = low + (high - low) / 2;
        match names.get(span(ends, middle)).unwrap_or_default().cmp(name.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}

/// CRC-32/ISO-HDLC.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The error for a checksum mismatch.
pub fn checksum_error(what: impl Into<std::borrow::Cow<'static, str>>, expected: u32, found: u32) -> Error {
    Error::damaged(what).expected(format!("{expected:08x}")).found(format!("{found:08x}"))
}

/// Little-endian integers at given bytes of a layout. The callers have checked the ranges: an
/// out-of-range read is a bug, not a property of the input.
pub(crate) mod le {
    use std::ops::Range;

    #[inline]
    pub fn u16(bytes: &[u8], range: Range<usize>) -> u16 {
        u16::from_le_bytes(array(bytes, range))
    }

    #[inline]
    pub fn u32(bytes: &[u8], range: Range<usize>) -> u32 {
        u32::from_le_bytes(array(bytes, range))
    }

    #[inline]
    pub fn u64(bytes: &[u8], range: Range<usize>) -> u64 {
        u64::from_le_bytes(array(bytes, range))
    }

    // These never panic, so that the compiler can drop reads of fields that a caller ignores.
    // Columns are validated to be complete; those of a mapped file that was truncated despite the
    // promise read as zeros.

    /// The `i`-th number of a column; 0 beyond it.
    #[inline]
    pub fn u16_at(column: &[u8], i: usize) -> u16 {
        column.as_chunks().0.get(i).map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    /// As [`u16_at`].
    #[inline]
    pub fn u32_at(column: &[u8], i: usize) -> u32 {
        column.as_chunks().0.get(i).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// As [`u16_at`].
    #[inline]
    pub fn u64_at(column: &[u8], i: usize) -> u64 {
        column.as_chunks().0.get(i).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    #[inline]
    pub fn array<const N: usize>(bytes: &[u8], range: Range<usize>) -> [u8; N] {
        bytes[range].try_into().expect("the layout's ranges have the width of their type")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_follows_the_size() {
        for (len, align) in [(1, 8), (8, 8), (9, 16), (33, 64), (65_535, 64), (65_536, 4096), (1 << 40, 4096)]
        {
            assert_eq!(extent_align(len), align, "{len}");
        }
        assert_eq!(align_up(4097, 4096), 8192);
        assert_eq!(align_up(u64::MAX, 64), !63);
    }
}
