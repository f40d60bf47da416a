//! Containers built byte by byte from SPEC.md, without the library: so that they can lie. Owns: a
//! second writer, slow and plain, whose every part can be bent before the checksums over it are
//! made.
#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::{Map, Value, json};

/// CRC-32/ISO-HDLC, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The binary columns of one section, in the order of the file.
#[derive(Clone)]
pub struct Columns(pub Vec<(&'static str, Vec<u8>)>);

impl Columns {
    pub fn table() -> Self {
        let names = [
            "names",
            "name_ends",
            "dtypes",
            "dim_ends",
            "dims",
            "byte_lens",
            "offsets",
            "chunk_log2",
            "chunk_ends",
            "chunk_crcs",
            "chunk_codecs",
            "chunk_filters",
            "chunk_stored",
        ];
        Self(names.map(|name| (name, Vec::new())).to_vec())
    }

    pub fn aliases(names: &[u8], ends: &[u32], targets: &[u32]) -> Self {
        let le = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self(vec![("names", names.to_vec()), ("name_ends", le(ends)), ("targets", le(targets))])
    }

    pub fn get(&mut self, name: &str) -> &mut Vec<u8> {
        let column = self.0.iter_mut().find(|(column, _)| *column == name);
        &mut column.expect("a column of the format").1
    }

    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        self.get(name).extend_from_slice(bytes);
    }

    /// Overwrites one u32 of a column.
    pub fn set32(&mut self, name: &str, at: usize, value: u32) {
        self.get(name)[at * 4..at * 4 + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Overwrites one u64 of a column.
    pub fn set64(&mut self, name: &str, at: usize, value: u64) {
        self.get(name)[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// A MessagePack map of bin.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0x80 | self.0.len() as u8];
        for (name, column) in &self.0 {
            bytes.push(0xA0 | name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend(bin(column));
        }
        bytes
    }
}

/// A MessagePack bin, in its shortest form.
pub fn bin(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    let mut coded = match len {
        0..0x100 => vec![0xC4, len as u8],
        0x100..0x1_0000 => [vec![0xC5], (len as u16).to_be_bytes().to_vec()].concat(),
        _ => [vec![0xC6], len.to_be_bytes().to_vec()].concat(),
    };
    coded.extend_from_slice(bytes);
    coded
}

/// How one chunk is stored.
#[derive(Clone)]
pub struct Stored {
    pub codec: u8,
    pub filter: u8,
    pub bytes: Vec<u8>,
}

/// The alignment of an extent.
pub fn alignment(byte_len: u64) -> u64 {
    match byte_len {
        0..=8 => 8,
        9..=16 => 16,
        17..=32 => 32,
        33..=65535 => 64,
        _ => 4096,
    }
}

/// `planes` of SPEC.md, section 8.
pub fn planes(raw: &[u8], size: usize) -> Vec<u8> {
    let count = raw.len() / size;
    let mut filtered = raw.to_vec();
    for element in 0..count {
        for byte in 0..size {
            filtered[byte * count + element] = raw[element * size + byte];
        }
    }
    filtered
}

/// Codec 4 of SPEC.md, section 22, for words of `word` bytes: each plane as it is, or the frame
/// that `code` gives for its number and its bytes.
pub fn float_planes(raw: &[u8], word: usize, code: impl Fn(usize, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let count = raw.len() / word;
    let rotated: Vec<u8> = raw[..count * word]
        .chunks(word)
        .flat_map(|bytes| {
            let value = bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
            let bits = 8 * word as u32;
            (value << 1 | value >> (bits - 1)).to_le_bytes()[..word].to_vec()
        })
        .collect();
    let planes = planes(&rotated, word);
    let (mut headers, mut stored) = (Vec::new(), Vec::new());
    for (number, plane) in planes.chunks(count).enumerate() {
        let frame = code(number, plane);
        let bytes = frame.as_deref().unwrap_or(plane);
        headers.push(u8::from(frame.is_some()));
        headers.extend((bytes.len() as u32).to_le_bytes());
        stored.extend_from_slice(bytes);
    }
    [&headers, &stored, &raw[count * word..]].concat()
}

/// Name, id and bytes per element, written down a second time.
pub const DTYPES: [(&str, u16, u64); 24] = [
    ("bool", 1, 1),
    ("u8", 2, 1),
    ("i8", 3, 1),
    ("u16", 4, 2),
    ("i16", 5, 2),
    ("u32", 6, 4),
    ("i32", 7, 4),
    ("u64", 8, 8),
    ("i64", 9, 8),
    ("f16", 10, 2),
    ("bf16", 11, 2),
    ("f32", 12, 4),
    ("f64", 13, 8),
    ("c64", 14, 8),
    ("c128", 15, 16),
    ("f8e4m3fn", 16, 1),
    ("f8e4m3fnuz", 17, 1),
    ("f8e5m2", 18, 1),
    ("f8e5m2fnuz", 19, 1),
    ("f8e8m0fnu", 20, 1),
    ("f8e4m3", 21, 1),
    ("f8e4m3b11fnuz", 22, 1),
    ("f8e3m4", 23, 1),
    ("opaque", 255, 1),
];

pub fn dtype_id(name: &str) -> u16 {
    DTYPES.iter().find(|dtype| dtype.0 == name).expect("a dtype of the format").1
}

/// The parts of a container, and what a reader must find in it.
#[derive(Clone)]
pub struct Container {
    pub file_id: [u8; 16],
    /// Everything from byte 0 up to the index region.
    pub front: Vec<u8>,
    pub tensors: Columns,
    pub records: Columns,
    pub aliases: Option<Columns>,
    /// Further sections, behind the others.
    pub sections: Vec<(u32, Vec<u8>)>,
    pub mirror: bool,
    pub expected_tensors: Map<String, Value>,
    pub expected_records: Map<String, Value>,
}

impl Container {
    pub fn new() -> Self {
        let file_id = *b"tensorkeep\0tests";
        Self {
            file_id,
            front: header(file_id),
            tensors: Columns::table(),
            records: Columns::table(),
            aliases: None,
            sections: Vec::new(),
            mirror: true,
            expected_tensors: Map::new(),
            expected_records: Map::new(),
        }
    }

    /// A raw tensor in chunks of 1 MiB. Tensors come sorted and before records.
    pub fn tensor(&mut self, name: &str, dtype: &str, shape: &[u64], raw: &[u8]) -> &mut Self {
        self.tensor_in(name, dtype, shape, raw, 20, |chunk| Stored {
            codec: 0,
            filter: 0,
            bytes: chunk.to_vec(),
        })
    }

    /// A tensor in chunks of 2^`log2` bytes, each stored as `store` says.
    pub fn tensor_in(
        &mut self,
        name: &str,
        dtype: &str,
        shape: &[u64],
        raw: &[u8],
        log2: u8,
        store: impl Fn(&[u8]) -> Stored,
    ) -> &mut Self {
        self.expected_tensors
            .insert(name.to_owned(), json!({ "dtype": dtype, "shape": shape, "crc32": hex32(crc32(raw)) }));
        let chunks: Vec<Stored> = raw.chunks(1 << log2).map(store).collect();
        entry(
            &mut self.front,
            &mut self.tensors,
            name,
            dtype_id(dtype),
            shape,
            raw.len() as u64,
            log2,
            &chunks,
        );
        self
    }

    /// A tensor that no reader of version 1 can read.
    pub fn unreadable(
        &mut self,
        name: &str,
        dtype: u16,
        shape: &[u64],
        byte_len: u64,
        chunks: &[Stored],
    ) -> &mut Self {
        self.expected_tensors.insert(name.to_owned(), json!({ "shape": shape, "error": "unsupported" }));
        entry(&mut self.front, &mut self.tensors, name, dtype, shape, byte_len, 20, chunks);
        self
    }

    /// A record of these MessagePack bytes.
    pub fn record(&mut self, name: &str, bytes: &[u8], value: Value) -> &mut Self {
        self.expected_records.insert(name.to_owned(), value);
        let chunks: Vec<Stored> = bytes
            .chunks(1 << 20)
            .map(|chunk| Stored { codec: 0, filter: 0, bytes: chunk.to_vec() })
            .collect();
        let len = bytes.len() as u64;
        entry(&mut self.front, &mut self.records, name, 255, &[len], len, 20, &chunks);
        self
    }

    /// Aliases, sorted, by the number of their tensor.
    pub fn aliases(&mut self, aliases: &[(&str, u32)]) -> &mut Self {
        let names: String = aliases.iter().map(|(name, _)| *name).collect();
        let mut ends = Vec::new();
        for (name, _) in aliases {
            ends.push(ends.last().unwrap_or(&0) + name.len() as u32);
        }
        let targets: Vec<u32> = aliases.iter().map(|(_, target)| *target).collect();
        self.aliases = Some(Columns::aliases(names.as_bytes(), &ends, &targets));
        let own: Vec<Value> = self.expected_tensors.values().cloned().collect();
        for (name, target) in aliases {
            if let Some(value) = own.get(*target as usize) {
                self.expected_tensors.insert((*name).to_owned(), value.clone());
            }
        }
        self
    }

    /// The sections, their coded columns left out where every chunk of a table is raw.
    pub fn payloads(&self) -> Vec<(u32, Vec<u8>)> {
        let mut all = vec![(1, unless_raw(&self.tensors).encode()), (2, unless_raw(&self.records).encode())];
        all.extend(self.aliases.iter().map(|aliases| (3, aliases.encode())));
        all.extend(self.sections.iter().cloned());
        all
    }

    pub fn region(&self) -> Vec<u8> {
        region(&self.payloads())
    }

    pub fn finish(&self) -> Vec<u8> {
        self.finish_with(&self.region())
    }

    /// The whole file around an index region that may be a lie.
    pub fn finish_with(&self, region: &[u8]) -> Vec<u8> {
        let mut bytes = self.front.clone();
        pad(&mut bytes, 64);
        let index_offset = bytes.len() as u64;
        bytes.extend_from_slice(region);
        let mut mirror_offset = 0;
        if self.mirror {
            pad(&mut bytes, 512);
            mirror_offset = bytes.len() as u64;
            bytes.extend_from_slice(region);
        }
        let footer = self.footer(region, index_offset, mirror_offset, bytes.len() as u64);
        bytes.extend_from_slice(&footer);
        bytes
    }

    /// The footer at byte `at`.
    pub fn footer(&self, region: &[u8], index_offset: u64, mirror_offset: u64, at: u64) -> Vec<u8> {
        let mut footer = vec![0; 128];
        footer[0..8].copy_from_slice(&index_offset.to_le_bytes());
        footer[8..16].copy_from_slice(&(region.len() as u64).to_le_bytes());
        footer[16..20].copy_from_slice(&crc32(region).to_le_bytes());
        footer[24..32].copy_from_slice(&mirror_offset.to_le_bytes());
        footer[32..40].copy_from_slice(&(at + 128).to_le_bytes());
        footer[64..80].copy_from_slice(&self.file_id);
        footer[120..].copy_from_slice(&[0x0A, 0x1A, 0x0A, 0x0D, 0x50, 0x4B, 0x54, 0x89]);
        seal_footer(&mut footer);
        footer
    }
}

#[expect(clippy::too_many_arguments, reason = "one row of a table has that many columns")]
fn entry(
    front: &mut Vec<u8>,
    table: &mut Columns,
    name: &str,
    dtype: u16,
    shape: &[u64],
    byte_len: u64,
    log2: u8,
    chunks: &[Stored],
) {
    let mut offset = 0;
    if byte_len > 0 {
        pad(front, alignment(byte_len));
        offset = front.len() as u64;
    }
    table.put("names", name.as_bytes());
    let end = table.get("names").len() as u32;
    table.put("name_ends", &end.to_le_bytes());
    table.put("dtypes", &dtype.to_le_bytes());
    shape.iter().for_each(|dim| table.put("dims", &dim.to_le_bytes()));
    let end = (table.get("dims").len() / 8) as u32;
    table.put("dim_ends", &end.to_le_bytes());
    table.put("byte_lens", &byte_len.to_le_bytes());
    table.put("offsets", &offset.to_le_bytes());
    table.put("chunk_log2", &[log2]);
    for chunk in chunks {
        front.extend_from_slice(&chunk.bytes);
        table.put("chunk_crcs", &crc32(&chunk.bytes).to_le_bytes());
        table.put("chunk_codecs", &[chunk.codec]);
        table.put("chunk_filters", &[chunk.filter]);
        table.put("chunk_stored", &(chunk.bytes.len() as u32).to_le_bytes());
    }
    let end = (table.get("chunk_crcs").len() / 4) as u32;
    table.put("chunk_ends", &end.to_le_bytes());
}

fn unless_raw(table: &Columns) -> Columns {
    let mut table = table.clone();
    if table.get("chunk_codecs").iter().all(|&codec| codec == 0) {
        for column in ["chunk_codecs", "chunk_filters", "chunk_stored"] {
            table.get(column).clear();
        }
    }
    table
}

pub fn header(file_id: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[0..8].copy_from_slice(&[0x89, 0x54, 0x4B, 0x50, 0x0D, 0x0A, 0x1A, 0x0A]);
    bytes[8..10].copy_from_slice(&1_u16.to_le_bytes());
    bytes[10..12].copy_from_slice(&1_u16.to_le_bytes());
    bytes[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[40..56].copy_from_slice(&file_id);
    bytes[56..60].copy_from_slice(&4096_u32.to_le_bytes());
    bytes[60] = 1;
    seal_header(&mut bytes);
    bytes
}

/// Frames sections.
pub fn region(sections: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    for (kind, payload) in sections {
        bytes.extend(section_header(*kind, payload));
        bytes.extend_from_slice(payload);
        pad(&mut bytes, 8);
    }
    pad(&mut bytes, 64);
    let len = bytes.len() as u64;
    bytes[0..8].copy_from_slice(b"TKPINDEX");
    bytes[8..16].copy_from_slice(&len.to_le_bytes());
    bytes[16..20].copy_from_slice(&(sections.len() as u32).to_le_bytes());
    seal(&mut bytes, 0, 28);
    bytes
}

pub fn section_header(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[0..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[16..20].copy_from_slice(&crc32(payload).to_le_bytes());
    seal(&mut bytes, 0, 28);
    bytes
}

pub fn pad(bytes: &mut Vec<u8>, align: u64) {
    bytes.resize(bytes.len().next_multiple_of(align as usize), 0);
}

/// Makes the checksum over `start..end` anew; it stands at `end`.
pub fn seal(bytes: &mut [u8], start: usize, end: usize) {
    let crc = crc32(&bytes[start..end]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

pub fn seal_header(bytes: &mut [u8]) {
    seal(bytes, 0, 4092);
}

pub fn seal_footer(bytes: &mut [u8]) {
    let start = bytes.len() - 128;
    seal(bytes, start, start + 116);
}

pub fn hex32(crc: u32) -> String {
    format!("{crc:08x}")
}
