//! The index region: a preamble and sections, each with kind, length and checksums. Decoding it
//! gives an [`Index`], which is valid by construction.

use super::aliases::{self, Aliases};
use super::limits::Limits;
use super::pieces::Pieces;
use super::shard::Shard;
use super::table::{Kind, Table};
use super::{Flags, INDEX_ALIGN, INDEX_MAGIC, align_up, checksum_error, crc32, le};
use crate::error::{Error, Result};
use crate::pipeline;
use crc32fast::Hasher;
use preamble::Preamble;
use std::ops::Range;

/// The tensors' table.
pub const SECTION_TENSORS: u32 = 1;
/// The records' table.
pub const SECTION_RECORDS: u32 = 2;
/// The aliases of tensors.
pub const SECTION_ALIASES: u32 = 3;
/// Of a manifest: the tensors that lie in shards. Kind 4 is never assigned: the corpus tests that
/// readers skip it.
pub const SECTION_PIECES: u32 = 5;
/// Of a shard: which parts of which tensors it has.
pub const SECTION_SHARD: u32 = 6;

/// The layout of the preamble.
pub mod preamble {
    super::super::layout! { 32:
        REGION_MAGIC = 0..8;
        REGION_LENGTH = 8..16;
        SECTION_COUNT = 16..20;
        ZEROS = 20..28;
        PREAMBLE_CRC = 28..32;
    }

    pub(super) fn encode(region_len: u64, sections: u32) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        bytes[REGION_MAGIC].copy_from_slice(&super::INDEX_MAGIC);
        bytes[REGION_LENGTH].copy_from_slice(&region_len.to_le_bytes());
        bytes[SECTION_COUNT].copy_from_slice(&sections.to_le_bytes());
        super::seal(&mut bytes, PREAMBLE_CRC);
        bytes
    }

    pub(super) struct Preamble {
        pub region_len: u64,
        pub section_count: u32,
    }

    pub(super) fn decode(bytes: &[u8]) -> crate::Result<Preamble> {
        super::check_seal("preamble", bytes, PREAMBLE_CRC)?;
        if bytes[REGION_MAGIC] != super::INDEX_MAGIC || bytes[ZEROS].iter().any(|&byte| byte != 0) {
            return Err(crate::Error::damaged("preamble of the index"));
        }
        Ok(Preamble {
            region_len: super::le::u64(bytes, REGION_LENGTH),
            section_count: super::le::u32(bytes, SECTION_COUNT),
        })
    }
}

/// The layout of a section's header.
pub mod section {
    super::super::layout! { 32:
        KIND = 0..4;
        SECTION_FLAGS = 4..8;
        PAYLOAD_LENGTH = 8..16;
        PAYLOAD_CRC = 16..20;
        ZEROS = 20..28;
        SECTION_HEADER_CRC = 28..32;
    }

    pub(super) fn encode(kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        bytes[KIND].copy_from_slice(&kind.to_le_bytes());
        bytes[PAYLOAD_LENGTH].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes[PAYLOAD_CRC].copy_from_slice(&super::crc32(payload).to_le_bytes());
        super::seal(&mut bytes, SECTION_HEADER_CRC);
        bytes
    }

    pub(super) struct Header {
        pub kind: u32,
        pub payload_len: u64,
        pub payload_crc: u32,
    }

    pub(super) fn decode(bytes: &[u8]) -> crate::Result<Header> {
        super::check_seal("section header", bytes, SECTION_HEADER_CRC)?;
        if bytes[SECTION_FLAGS].iter().chain(&bytes[ZEROS]).any(|&byte| byte != 0) {
            return Err(crate::Error::damaged("reserved bytes of a section header"));
        }
        Ok(Header {
            kind: super::le::u32(bytes, KIND),
            payload_len: super::le::u64(bytes, PAYLOAD_LENGTH),
            payload_crc: super::le::u32(bytes, PAYLOAD_CRC),
        })
    }
}

/// Alignment of sections within the region.
pub const SECTION_ALIGN: u64 = 8;

fn seal(bytes: &mut [u8], crc: Range<usize>) {
    let sum = crc32(&bytes[..crc.start]);
    bytes[crc].copy_from_slice(&sum.to_le_bytes());
}

fn check_seal(what: &str, bytes: &[u8], crc: Range<usize>) -> Result<()> {
    let (expected, found) = (le::u32(bytes, crc.clone()), crc32(&bytes[..crc.start]));
    if expected == found {
        Ok(())
    } else {
        Err(checksum_error(format!("checksum of an index {what}"), expected, found))
    }
}

/// Frames sections into an index region whose length is a multiple of [`INDEX_ALIGN`].
pub fn encode(sections: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut region = vec![0; preamble::LEN];
    for (kind, payload) in sections {
        region.extend_from_slice(&section::encode(*kind, payload));
        region.extend_from_slice(payload);
        region.resize(align_up(region.len() as u64, SECTION_ALIGN) as usize, 0);
    }
    region.resize(align_up(region.len() as u64, INDEX_ALIGN) as usize, 0);
    let preamble = preamble::encode(region.len() as u64, sections.len() as u32);
    region[..preamble::LEN].copy_from_slice(&preamble);
    region
}

/// A valid index over the bytes of its region.
#[derive(Debug)]
pub struct Index<B> {
    /// Tensors.
    pub tensors: Table<B>,
    /// Records.
    pub records: Table<B>,
    /// Aliases of tensors, of these and of those in pieces: by their number, these first.
    pub aliases: Aliases,
    /// Of a manifest: the tensors that lie in shards.
    pub pieces: Option<Pieces<B>>,
    /// Of a shard: the parts that its tensors are.
    pub shard: Option<Shard>,
}

impl<B: AsRef<[u8]> + Clone> Index<B> {
    /// Decodes and validates a region with the footer's checksum `crc`. The file's extents must
    /// fill `data`, except for padding. A long region is validated on up to `workers` threads.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(region: B, crc: u32, data: Range<u64>, workers: usize) -> Result<Self> {
        let sections = verified_sections(region.as_ref(), crc, workers)?;
        let find = |kind: u32| {
            sections.iter().find(|section| section.kind == kind).map(|section| section.payload.clone())
        };
        let required = |kind: u32, what: &'static str| {
            find(kind).ok_or_else(|| {
                Error::damaged(format!("the index has no section of {what}")).expected(format!("kind {kind}"))
            })
        };
        let tensors = required(SECTION_TENSORS, "tensors")?;
        let tensors = Table::parse(region.clone(), tensors, Kind::Tensors, data.clone(), workers)?;
        let records = required(SECTION_RECORDS, "records")?;
        let records_data = tensors.data_end()..data.end;
        let records = Table::parse(region.clone(), records, Kind::Records, records_data, workers)?;
        let pieces =
            find(SECTION_PIECES).map(|payload| Pieces::parse(region.clone(), payload)).transpose()?;
        let pieces = pieces.map(|pieces| check_names_of_pieces(pieces, &tensors)).transpose()?;
        let shard = find(SECTION_SHARD).map(|payload| Shard::decode(&region.as_ref()[payload], &tensors));
        let shard = shard.transpose()?;
        let aliases = match find(SECTION_ALIASES) {
            Some(payload) => {
                let in_pieces =
                    |name: &str| pieces.as_ref().is_some_and(|pieces| pieces.find(name).is_some());
                let count = tensors.len() + pieces.as_ref().map_or(0, Pieces::len);
                aliases::decode(&region.as_ref()[payload], count, |name| {
                    tensors.find(name).is_some() || in_pieces(name)
                })?
            }
            None => Aliases::new(),
        };
        let slack = data.end - records.data_end();
        if slack >= super::INDEX_ALIGN {
            return Err(Error::damaged("bytes between the last extent and the index")
                .at_byte(records.data_end())
                .expected("only padding")
                .found(format!("{slack} bytes")));
        }
        Ok(Self { tensors, records, aliases, pieces, shard })
    }
}

/// A name is in one of the tables alone.
fn check_names_of_pieces<B: AsRef<[u8]>>(pieces: Pieces<B>, tensors: &Table<B>) -> Result<Pieces<B>> {
    let twice = (0..pieces.len()).map(|i| pieces.name(i)).find(|name| tensors.find(name).is_some());
    match twice {
        Some(name) => Err(Error::damaged("a tensor in the file and in pieces").in_tensor(name)),
        None => Ok(pieces),
    }
}

impl<B: AsRef<[u8]>> Index<B> {
    /// The file's flags say whether it is a manifest, and whether it is a shard.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn check_flags(&self, flags: Flags) -> Result<()> {
        for (what, section, flag) in [
            ("the flag of a manifest", self.pieces.is_some(), flags.incompat & Flags::PIECES != 0),
            ("the flag of a shard", self.shard.is_some(), flags.ro_compat & Flags::SHARD != 0),
        ] {
            if section != flag {
                let in_words = |is: bool| if is { "there" } else { "not there" };
                let error = Error::damaged(format!("{what} and its section"));
                return Err(error.expected(in_words(flag)).found(in_words(section)));
            }
        }
        Ok(())
    }

    /// The bytes of the region that this index was decoded from.
    pub fn region(&self) -> &[u8] {
        self.tensors.bytes()
    }
}

/// A section of a region.
#[derive(Debug)]
struct Section {
    kind: u32,
    /// Its range in the region.
    payload: Range<usize>,
}

/// The sections of a region that has the checksum `crc`.
fn verified_sections(region: &[u8], crc: u32, workers: usize) -> Result<Vec<Section>> {
    let mismatch = |found| checksum_error("checksum of the index", crc, found);
    match sections(region, workers) {
        Ok((sections, found)) if found == crc => Ok(sections),
        Ok((_, found)) => Err(mismatch(found)),
        // If the region's checksum is wrong, that is the error: its contents mean nothing.
        Err(error) => {
            let found = crc32(region);
            Err(if found == crc { error } else { mismatch(found) })
        }
    }
}

/// The sections of a region, and its checksum. Sections of unknown kinds are checked and kept.
fn sections(region: &[u8], workers: usize) -> Result<(Vec<Section>, u32)> {
    let preamble = region.get(..preamble::LEN).ok_or_else(|| ends_early(region))?;
    let Preamble { region_len, section_count } = preamble::decode(preamble)?;
    if region_len != region.len() as u64 || u64::from(section_count) > Limits::V1.sections {
        return Err(Error::damaged("length of the index region").expected(region_len).found(region.len()));
    }
    let mut at = preamble::LEN;
    let mut sections: Vec<Section> = Vec::new();
    // Every byte is hashed once: the payloads' checksums are combined into the region's.
    let mut whole = Hasher::new();
    let mut hashed = 0;
    for _ in 0..section_count {
        let header = region.get(at..at + section::LEN).ok_or_else(|| ends_early(region))?;
        let section::Header { kind, payload_len, payload_crc } = section::decode(header)?;
        let start = at + section::LEN;
        let end = usize::try_from(payload_len).ok().and_then(|len| start.checked_add(len));
        let payload = end.and_then(|end| region.get(start..end)).ok_or_else(|| ends_early(region))?;
        let hasher = checksum(payload, workers)?;
        whole.update(&region[hashed..start]);
        whole.combine(&hasher);
        hashed = start + payload.len();
        let found = hasher.finalize();
        if found != payload_crc {
            let what = format!("checksum of the index section of kind {kind}");
            return Err(checksum_error(what, payload_crc, found));
        }
        if sections.iter().any(|earlier| earlier.kind == kind) {
            return Err(Error::damaged(format!("two index sections of kind {kind}")));
        }
        let end = start + payload.len();
        sections.push(Section { kind, payload: start..end });
        at = (align_up(end as u64, SECTION_ALIGN) as usize).min(region.len());
        check_zeros(&region[end..at])?;
    }
    if region.len() - at >= INDEX_ALIGN as usize {
        return Err(Error::damaged("bytes after the last section of the index"));
    }
    check_zeros(&region[at..])?;
    whole.update(&region[hashed..]);
    Ok((sections, whole.finalize()))
}

/// Bytes that a thread checksums at a time: enough to pay for starting a thread.
const PART: usize = 2 << 20;

fn checksum(bytes: &[u8], workers: usize) -> Result<Hasher> {
    let mut parts: Vec<_> = bytes.chunks(PART).map(|part| (Hasher::new(), part)).collect();
    let workers = workers.min(parts.len());
    pipeline::each(
        workers,
        parts.iter_mut(),
        || (),
        |(), (hasher, part)| {
            hasher.update(part);
            Ok(())
        },
    )?;
    let mut whole = Hasher::new();
    for (hasher, _) in &parts {
        whole.combine(hasher);
    }
    Ok(whole)
}

fn check_zeros(padding: &[u8]) -> Result<()> {
    if padding.iter().all(|&byte| byte == 0) {
        Ok(())
    } else {
        Err(Error::damaged("padding of the index").expected("zeros"))
    }
}

fn ends_early(region: &[u8]) -> Error {
    Error::damaged("the index ends inside a section").found(format!("{} bytes", region.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::format::table::{NewRow, TableBuilder};

    fn region() -> Vec<u8> {
        let mut tensors = TableBuilder::default();
        let row =
            NewRow { name: "w", dtype: Dtype::F32, shape: &[4], byte_len: 16, offset: 4096, chunk_log2: 20 };
        tensors.push(row);
        tensors.push_chunk(0, 0, 16, 1);
        let mut records = TableBuilder::default();
        records.push(NewRow {
            name: "r",
            dtype: Dtype::Opaque,
            shape: &[3],
            byte_len: 3,
            offset: 4112,
            ..row
        });
        records.push_chunk(0, 0, 3, 2);
        let aliases = aliases::encode(&Aliases::from([("v".to_owned(), 0)])).unwrap();
        encode(&[
            (SECTION_TENSORS, tensors.encode()),
            (SECTION_RECORDS, records.encode()),
            (SECTION_ALIASES, aliases),
            (999, b"from the future".to_vec()),
        ])
    }

    /// With the region's own checksum.
    fn decode(region: &[u8], data: Range<u64>) -> Result<Index<&[u8]>> {
        Index::decode(region, crc32(region), data, 1)
    }

    #[test]
    fn an_index_with_a_wrong_checksum_is_refused_for_that_first() {
        let region = region();
        let crc = crc32(&region);
        Index::decode(region.as_slice(), crc, 4096..4160, 1).unwrap();
        for bit in 0..region.len() * 8 {
            let mut region = region.clone();
            region[bit / 8] ^= 1 << (bit % 8);
            let error = Index::decode(region.as_slice(), crc, 4096..4160, 1).unwrap_err().to_string();
            assert!(error.contains("checksum of the index:"), "bit {bit}: {error}");
        }
        assert!(Index::decode(region.as_slice(), !crc, 4096..4160, 1).is_err());
    }

    #[test]
    fn checksums_do_not_depend_on_the_number_of_threads() {
        let long: Vec<u8> =
            (0..2 * PART as u32 + 100).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for bytes in [&long[..], &long[..PART], &long[..PART + 1], &[]] {
            for workers in [1, 2, 5] {
                assert_eq!(checksum(bytes, workers).unwrap().finalize(), crc32(bytes), "{}", bytes.len());
            }
        }
        let region = encode(&[(999, long)]);
        let crc = crc32(&region);
        for workers in [1, 2, 5] {
            assert!(verified_sections(&region, crc, workers).is_ok());
            // In each part, and in the bytes between them.
            for at in [0, 40, 100, PART, PART + 100, 2 * PART + 100, region.len() - 1] {
                let mut region = region.clone();
                region[at] ^= 1;
                let error = verified_sections(&region, crc, workers).unwrap_err().to_string();
                assert!(error.contains("checksum of the index:"), "byte {at}: {error}");
            }
        }
    }

    #[test]
    fn unknown_sections_of_an_index_are_skipped() {
        let region = region();
        assert!(region.len().is_multiple_of(64));
        let index = decode(&region, 4096..4160).unwrap();
        assert_eq!((index.tensors.len(), index.records.len(), index.aliases["v"]), (1, 1, 0));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let region = region();
        for bit in 0..region.len() * 8 {
            let mut region = region.clone();
            region[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&region, 4096..4160).is_err(), "bit {bit}");
        }
        for len in 0..region.len() {
            assert!(decode(&region[..len], 4096..4160).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn data_that_no_entry_claims_is_refused() {
        let region = region();
        assert!(decode(&region, 4096..4224).is_err());
        assert!(decode(&region, 4096..4112).is_err());
    }

    #[test]
    fn an_index_without_tables_or_with_a_table_twice_is_refused() {
        let empty = TableBuilder::default().encode();
        for sections in [
            vec![],
            vec![(SECTION_TENSORS, empty.clone())],
            vec![
                (SECTION_TENSORS, empty.clone()),
                (SECTION_TENSORS, empty.clone()),
                (SECTION_RECORDS, empty.clone()),
            ],
        ] {
            assert!(decode(&encode(&sections), 4096..4096).is_err());
        }
        let both = [(SECTION_TENSORS, empty.clone()), (SECTION_RECORDS, empty)];
        assert!(decode(&encode(&both), 4096..4096).is_ok());
    }
}
