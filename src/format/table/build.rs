//! Making a table: rows in the order of their names, then the encoded columns.

use super::{CODEC_RAW, Columns};
use crate::dtype::Dtype;

/// An entry to add to a table.
#[derive(Clone, Copy)]
pub struct NewRow<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    /// Raw length in bytes.
    pub byte_len: u64,
    /// Absolute offset of the extent; 0 for an entry without bytes.
    pub offset: u64,
    /// Raw bytes of a full chunk, as a power of two.
    pub chunk_log2: u8,
}

/// Collects the rows of a table in the order of their names, and encodes them.
#[derive(Default)]
pub struct TableBuilder {
    pub(super) names: Vec<u8>,
    pub(super) name_ends: Vec<u8>,
    pub(super) dtypes: Vec<u8>,
    pub(super) dim_ends: Vec<u8>,
    pub(super) dims: Vec<u8>,
    pub(super) byte_lens: Vec<u8>,
    pub(super) offsets: Vec<u8>,
    pub(super) chunk_log2: Vec<u8>,
    pub(super) chunk_ends: Vec<u8>,
    pub(super) chunk_crcs: Vec<u8>,
    pub(super) chunk_codecs: Vec<u8>,
    pub(super) chunk_filters: Vec<u8>,
    pub(super) chunk_stored: Vec<u8>,
}

impl TableBuilder {
    /// Adds an entry. Names must come sorted; its chunks follow by [`TableBuilder::push_chunk`].
    pub fn push(&mut self, row: NewRow<'_>) {
        let NewRow { name, dtype, shape, byte_len, offset, chunk_log2 } = row;
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
        let unless_raw = |column: &Vec<u8>| if all_raw { Vec::new() } else { column.clone() };
        let codecs = unless_raw(&self.chunk_codecs);
        let filters = unless_raw(&self.chunk_filters);
        let stored = unless_raw(&self.chunk_stored);
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
        crate::format::records::encode_trusted(&columns)
    }
}
