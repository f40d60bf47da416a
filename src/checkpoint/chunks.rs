//! A checkpoint's chunks, for tools that inspect a file: the place of each, and a walk over a
//! tensor's raw bytes chunk by chunk in reused memory.

use super::entry::{Entry, FoundTensor, Place, Tensors};
use super::{Checkpoint, Inspect};
use crate::buffer::Buffer;
use crate::codec::Decoder;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::table::{CODEC_FILL, CODEC_FLOATS, CODEC_RAW, CODEC_ZSTD};
use std::ops::Range;

/// The place of one chunk of a tensor or record, and how it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkInfo {
    /// Absolute offset of the stored bytes.
    pub offset: u64,
    /// Stored length in bytes.
    pub stored_len: u32,
    /// Raw length in bytes.
    pub raw_len: u32,
    /// The codec's name; `unknown` if this version does not know the codec or its filter.
    pub codec: &'static str,
    /// The stored bytes' checksum by the index.
    pub crc32: u32,
}

/// Memory of [`Inspect::visit_chunks_with`], reused from call to call: fresh memory costs more than
/// reading into it.
#[derive(Default)]
pub struct Scratch {
    pub(super) decoder: Decoder,
    pub(crate) stored: Buffer,
    pub(super) decoded: Vec<u8>,
}

impl Scratch {
    /// For loading so many raw bytes.
    pub(super) fn for_total(bytes: u64) -> Self {
        Self { decoder: Decoder::for_total(bytes), ..Self::default() }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} bytes)", self.stored.len() + self.decoded.len())
    }
}

impl Inspect<'_> {
    /// The chunks of a tensor, in the order of its bytes; none of a tensor that lies in shards.
    /// Touches no tensor bytes.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn chunks(&self, name: &str) -> Result<Vec<ChunkInfo>> {
        let Place { table: Tensors::InFile, number } = self.0.locate(name)? else { return Ok(Vec::new()) };
        let entry = self.0.tensor_entry(number);
        Ok(entry.table.chunks(entry.number).map(describe).collect())
    }

    /// Calls `visit` with each of the tensor's chunks (in pieces, its windows) that are numbered in
    /// `chunks`: the offset within the tensor and the raw bytes, verified and decoded, valid only
    /// during the call and of any alignment. Needs the memory of one chunk, however long the tensor
    /// is; mapped raw chunks need none.
    ///
    /// Every chunk holds the same whole number of elements, except the last, which may hold fewer.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and any error of `visit`.
    pub fn visit_chunks(
        &self,
        name: &str,
        chunks: Range<usize>,
        visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.visit_chunks_with(name, chunks, &mut Scratch::default(), visit)
    }

    /// Like [`Inspect::visit_chunks`], in the caller's scratch memory.
    ///
    /// # Errors
    /// As [`Inspect::visit_chunks`].
    pub fn visit_chunks_with(
        &self,
        name: &str,
        chunks: Range<usize>,
        scratch: &mut Scratch,
        mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let place = self.0.locate(name)?;
        if place.table == Tensors::InShards {
            return self.0.with_context(name, || self.0.walk_windows(place, chunks, &mut visit));
        }
        let FoundTensor { entry, dtype, .. } = self.0.find_tensor(name)?;
        self.0.with_context(name, || self.0.walk(entry, dtype, chunks, scratch, &mut visit))
    }
}

impl Checkpoint {
    fn walk(
        &self,
        entry: Entry<'_>,
        dtype: Dtype,
        wanted: Range<usize>,
        Scratch { decoder, stored, decoded }: &mut Scratch,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let chunk_len = entry.table.chunk_len(entry.number);
        let chunks = entry.table.chunks(entry.number).enumerate();
        for (number, chunk) in chunks.skip(wanted.start).take(wanted.len()) {
            let bytes = match self.stored_in_memory(&chunk) {
                Some(bytes) => bytes,
                None => {
                    let stored = stored.room(chunk.stored_len as usize)?;
                    self.blob.read_at(chunk.offset, stored)?;
                    &*stored
                }
            };
            self.check(entry, number, &chunk, bytes)?;
            let start = number as u64 * chunk_len;
            if chunk.codec == CODEC_RAW {
                visit(start, bytes)?;
                continue;
            }
            // OK to cast: the index was checked, and a chunk is at most 64 MiB raw.
            decoded.resize(chunk.raw_len as usize, 0);
            decoder
                .decode(chunk.codec, chunk.filter, bytes, decoded, dtype)
                .map_err(|error| error.at_byte(chunk.offset))?;
            visit(start, decoded)?;
        }
        Ok(())
    }
}

fn describe(chunk: crate::format::table::Chunk) -> ChunkInfo {
    let codec = match chunk.codec {
        CODEC_RAW => "raw",
        CODEC_ZSTD if crate::codec::is_filter(chunk.filter) => "zstd",
        CODEC_FILL => "fill",
        CODEC_FLOATS => "float-planes",
        _ => "unknown",
    };
    let crate::format::table::Chunk { offset, stored_len, raw_len, crc, .. } = chunk;
    ChunkInfo { offset, stored_len, raw_len, codec, crc32: crc }
}
