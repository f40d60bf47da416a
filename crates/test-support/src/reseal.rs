//! Altered containers with recomputed checksums: input to the parser behind the checksums when a
//! file lies on purpose. Takes a container apart, joins it, and seals it. It trusts none of the
//! bytes, and is written from the specification: it shares no code with the reader under test.

use std::ops::Range;

const HEADER_LEN: usize = 4096;
const FOOTER_LEN: usize = 128;
const FRAME_LEN: usize = 32;

/// A container in its pieces: everything that an edit may move.
#[derive(Clone, Debug)]
pub struct Pieces {
    pub header: Vec<u8>,
    /// Everything between header and index.
    pub data: Vec<u8>,
    /// Kind and payload of each section of the index.
    pub sections: Vec<(u32, Vec<u8>)>,
    pub footer: Vec<u8>,
}

impl Pieces {
    /// Takes a valid container apart.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let footer = bytes.len().checked_sub(FOOTER_LEN)?;
        let index = number(bytes, footer, 8)?..number(bytes, footer, 8)? + number(bytes, footer + 8, 8)?;
        let region = bytes.get(index.start as usize..index.end as usize)?;
        let sections = frames(region)
            .into_iter()
            .map(|(at, payload)| Some((kind(region, at)?, region[payload].to_vec())));
        Some(Self {
            header: bytes[..HEADER_LEN].to_vec(),
            data: bytes[HEADER_LEN..index.start as usize].to_vec(),
            sections: sections.collect::<Option<_>>()?,
            footer: bytes[footer..].to_vec(),
        })
    }

    /// Joins the pieces as the writer would, with index and mirror at their places, all checksums
    /// computed.
    pub fn join(&self) -> Vec<u8> {
        let mut region = vec![0; FRAME_LEN];
        for (kind, payload) in &self.sections {
            region.extend(kind.to_le_bytes());
            region.extend([0; 4]);
            region.extend((payload.len() as u64).to_le_bytes());
            region.extend([0; 16]);
            region.extend(payload);
            region.resize(region.len().next_multiple_of(8), 0);
        }
        region.resize(region.len().next_multiple_of(64), 0);
        region[..8].copy_from_slice(b"TKPINDEX");
        let region_len = region.len() as u64;
        put(&mut region, 8, 8, region_len);
        put(&mut region, 16, 4, self.sections.len() as u64);

        let mut bytes = [&self.header[..], &self.data].concat();
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        let index = bytes.len();
        bytes.extend(&region);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let mirror = bytes.len();
        bytes.extend(&region);
        let footer = bytes.len();
        bytes.extend(&self.footer);
        let len = bytes.len() as u64;
        for (field, value) in [(0, index as u64), (8, region_len), (24, mirror as u64), (32, len)] {
            put(&mut bytes, footer + field, 8, value);
        }
        reseal(&mut bytes);
        bytes
    }
}

/// Recomputes every checksum of a container over its current bytes: chunks, sections, preamble,
/// index, mirror, footer and header. Ranges outside the file are left alone.
pub fn reseal(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(FOOTER_LEN).filter(|&footer| footer >= HEADER_LEN) else {
        return;
    };
    if let Some(index) = region_of(bytes, footer) {
        for (at, payload) in frames(&bytes[index.clone()]) {
            let (at, payload) = (index.start + at, index.start + payload.start..index.start + payload.end);
            if is_table(bytes, at) {
                for chunk in chunks_of(bytes, payload.clone()) {
                    let crc = crc32fast::hash(&bytes[chunk.stored]);
                    put(bytes, chunk.crc_at, 4, crc.into());
                }
            }
            let crc = crc32fast::hash(&bytes[payload]);
            put(bytes, at + 16, 4, crc.into());
            seal(bytes, at..at + 28);
        }
        seal(bytes, index.start..index.start + 28);
        let mirror = number(bytes, footer + 24, 8).unwrap_or(0) as usize;
        if mirror >= index.end && mirror.checked_add(index.len()).is_some_and(|end| end <= footer) {
            bytes.copy_within(index.clone(), mirror);
        }
        let crc = crc32fast::hash(&bytes[index]);
        put(bytes, footer + 16, 4, crc.into());
    }
    seal(bytes, footer..footer + 116);
    seal(bytes, 0..HEADER_LEN - 4);
}

/// The index region according to the footer, if there is room for one.
fn region_of(bytes: &[u8], footer: usize) -> Option<Range<usize>> {
    let start = usize::try_from(number(bytes, footer, 8)?).ok()?;
    let end = start.checked_add(usize::try_from(number(bytes, footer + 8, 8)?).ok()?)?;
    (end <= footer && end - start >= FRAME_LEN).then_some(start..end)
}

/// Each section's header and payload within a region, as far as they make sense.
fn frames(region: &[u8]) -> Vec<(usize, Range<usize>)> {
    let (mut at, mut found) = (FRAME_LEN, Vec::new());
    for _ in 0..number(region, 16, 4).unwrap_or(0).min(256) {
        let len = number(region, at + 8, 8).and_then(|len| usize::try_from(len).ok());
        let start = at + FRAME_LEN;
        let Some(end) = len.and_then(|len| start.checked_add(len)).filter(|&end| end <= region.len()) else {
            break;
        };
        found.push((at, start..end));
        at = end.next_multiple_of(8);
    }
    found
}

fn kind(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at, 4).map(|kind| kind as u32)
}

/// A chunk listed in a table: its range, and the place of its checksum.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub codec: u64,
    pub stored: Range<usize>,
    crc_at: usize,
}

/// All chunks of a container that lie within it.
pub fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let footer = bytes.len().saturating_sub(FOOTER_LEN);
    let Some(index) = region_of(bytes, footer) else { return Vec::new() };
    let tables =
        frames(&bytes[index.clone()]).into_iter().filter(|(at, _)| is_table(bytes, index.start + at));
    tables
        .flat_map(|(_, range)| chunks_of(bytes, index.start + range.start..index.start + range.end))
        .collect()
}

fn is_table(bytes: &[u8], at: usize) -> bool {
    kind(bytes, at).is_some_and(|kind| kind == 1 || kind == 2)
}

/// The chunks of one table.
fn chunks_of(bytes: &[u8], payload: Range<usize>) -> Vec<Chunk> {
    let columns = columns(&bytes[payload.clone()]);
    let column = |name: &str| {
        let found = columns.iter().find(|(found, _)| found == name);
        found.map_or(0..0, |(_, range)| payload.start + range.start..payload.start + range.end)
    };
    let at = |name: &str, width: usize, i: usize| number(&bytes[column(name)], i * width, width);
    let crcs = column("chunk_crcs");
    let coded = !column("chunk_codecs").is_empty();
    let (mut number, mut found) = (0, Vec::new());
    for i in 0..column("offsets").len() / 8 {
        let field = |name, width| at(name, width, i).unwrap_or(0);
        let chunk_len = 1_u64.checked_shl(field("chunk_log2", 1) as u32).unwrap_or(0);
        let (mut offset, mut left) = (field("offsets", 8), field("byte_lens", 8));
        let end = field("chunk_ends", 4).min(crcs.len() as u64 / 4) as usize;
        for number in number..end {
            let raw = left.min(chunk_len);
            let len = if coded { at("chunk_stored", 4, number).unwrap_or(0) } else { raw };
            let stored = offset as usize..offset.saturating_add(len) as usize;
            if bytes.get(stored.clone()).is_some() {
                let codec = at("chunk_codecs", 1, number).unwrap_or(0);
                found.push(Chunk { codec, stored, crc_at: crcs.start + number * 4 });
            }
            (left, offset) = (left - raw, offset.saturating_add(len));
        }
        number = end;
    }
    found
}

/// The binary strings of a table's payload, by the name of their column.
pub fn columns(payload: &[u8]) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    // A map of more than 15 columns has its number behind the marker.
    let mut at = if payload.first() == Some(&0xDE) { 3 } else { 1 };
    while let Some(&marker) = payload.get(at) {
        let name = at + 1..at + 1 + usize::from(marker & 31);
        let (Some(text), Some(&bin)) = (payload.get(name.clone()), payload.get(name.end)) else { break };
        if marker & 0xE0 != 0xA0 || !(0xC4..=0xC6).contains(&bin) {
            break;
        }
        let width = 1 << (bin - 0xC4);
        let digits = payload.get(name.end + 1..name.end + 1 + width).unwrap_or_default();
        let len = digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit));
        let start = name.end + 1 + width;
        if payload.get(start..start + len).is_none() {
            break;
        }
        found.push((String::from_utf8_lossy(text).into_owned(), start..start + len));
        at = start + len;
    }
    found
}

/// A table's payload from its columns.
pub fn table(columns: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut payload = vec![0xDE, 0, columns.len() as u8];
    if columns.len() < 16 {
        payload = vec![0x80 | columns.len() as u8];
    }
    for (name, bytes) in columns {
        payload.push(0xA0 | name.len() as u8);
        payload.extend(name.as_bytes());
        payload.push(0xC6);
        payload.extend((bytes.len() as u32).to_be_bytes());
        payload.extend(bytes);
    }
    payload
}

/// A container whose one record is `record`, valid or not. `template` holds one record of one
/// chunk, and no tensors.
pub fn with_record(template: &Pieces, record: &[u8]) -> Vec<u8> {
    let mut pieces = template.clone();
    pieces.data = record.to_vec();
    for (_, payload) in pieces.sections.iter_mut().filter(|(kind, _)| *kind == 2) {
        for (name, range) in columns(payload) {
            match name.as_str() {
                "dims" | "byte_lens" => put(payload, range.start, 8, record.len() as u64),
                "offsets" => put(payload, range.start, 8, HEADER_LEN as u64),
                _ => {}
            }
        }
    }
    pieces.join()
}

/// The little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let digits = bytes.get(at..at.checked_add(width)?)?;
    Some(digits.iter().rev().fold(0, |value, &digit| value << 8 | u64::from(digit)))
}

/// Overwrites the number there, if there is room.
fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Writes the checksum of a range right after it.
fn seal(bytes: &mut [u8], range: Range<usize>) {
    let crc = crc32fast::hash(&bytes[range.clone()]);
    put(bytes, range.end, 4, crc.into());
}
