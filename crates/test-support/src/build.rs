//! Containers built byte by byte from SPEC.md, without the library, so that they can lie: a second
//! writer, slow and plain, whose every part can be altered before its checksums are computed.

mod pieces;
mod ranks;

pub use pieces::{
    DTYPES, alignment, bin, crc32, dtype_id, float_planes, header, hex32, pad, planes, region, seal,
    seal_footer, seal_header, section_header,
};
pub use ranks::{Manifest, shard};
use serde_json::{Map, Value, json};

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
        let mut bytes = match self.0.len() as u8 {
            len @ 16.. => vec![0xDE, 0, len],
            len => vec![0x80 | len],
        };
        for (name, column) in &self.0 {
            bytes.push(0xA0 | name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend(bin(column));
        }
        bytes
    }
}

/// How one chunk is stored.
#[derive(Clone)]
pub struct Stored {
    pub codec: u8,
    pub filter: u8,
    pub bytes: Vec<u8>,
}

/// The parts of a container, and the contents that a reader must find.
#[derive(Clone)]
pub struct Container {
    pub file_id: [u8; 16],
    /// Everything from byte 0 up to the index region.
    pub front: Vec<u8>,
    pub tensors: Columns,
    pub records: Columns,
    pub aliases: Option<Columns>,
    /// Further sections, after the others.
    pub sections: Vec<(u32, Vec<u8>)>,
    pub mirror: bool,
    /// `compat`, `ro_compat`, `incompat`, as [`Container::set_flags`] sets them.
    pub flags: [u64; 3],
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
            flags: [0; 3],
            expected_tensors: Map::new(),
            expected_records: Map::new(),
        }
    }

    /// The flags of header and footer.
    pub fn set_flags(&mut self, flags: [u64; 3]) -> &mut Self {
        self.flags = flags;
        self.front[16..40].copy_from_slice(&flags.map(u64::to_le_bytes).concat());
        let header = &mut self.front[..4096];
        seal(header, 0, 4092);
        self
    }

    /// A raw tensor in chunks of 1 MiB. Tensors come sorted and before records.
    pub fn tensor(&mut self, name: &str, dtype: &str, shape: &[u64], raw: &[u8]) -> &mut Self {
        self.tensor_in(name, dtype, shape, raw, 20, |chunk| Stored {
            codec: 0,
            filter: 0,
            bytes: chunk.to_vec(),
        })
    }

    /// A tensor in chunks of 2^`log2` bytes, each stored as returned by `store`.
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
        let row = Row { name, dtype: dtype_id(dtype), shape, byte_len: raw.len() as u64, log2 };
        entry(&mut self.front, &mut self.tensors, row, &chunks);
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
        let row = Row { name, dtype, shape, byte_len, log2: 20 };
        entry(&mut self.front, &mut self.tensors, row, chunks);
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
        let row = Row { name, dtype: 255, shape: &[len], byte_len: len, log2: 20 };
        entry(&mut self.front, &mut self.records, row, &chunks);
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

    /// The whole file around an index region that may lie.
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
        footer[40..64].copy_from_slice(&self.flags.map(u64::to_le_bytes).concat());
        footer[64..80].copy_from_slice(&self.file_id);
        footer[120..].copy_from_slice(&[0x0A, 0x1A, 0x0A, 0x0D, 0x50, 0x4B, 0x54, 0x89]);
        seal_footer(&mut footer);
        footer
    }
}

/// The row of an entry, without its offset and chunks.
struct Row<'r> {
    name: &'r str,
    dtype: u16,
    shape: &'r [u64],
    byte_len: u64,
    log2: u8,
}

fn entry(front: &mut Vec<u8>, table: &mut Columns, row: Row<'_>, chunks: &[Stored]) {
    let Row { name, dtype, shape, byte_len, log2 } = row;
    let mut offset = 0;
    if byte_len > 0 {
        pad(front, alignment(byte_len));
        offset = front.len() as u64;
    }
    table.put("names", name.as_bytes());
    let end = table.get("names").len() as u32;
    table.put("name_ends", &end.to_le_bytes());
    table.put("dtypes", &dtype.to_le_bytes());
    for dim in shape {
        table.put("dims", &dim.to_le_bytes());
    }
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
