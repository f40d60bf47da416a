//! Memory filled with an entry's raw bytes: read, verified and decoded chunk by chunk, each straight to its place. Owns:
//! which part of which chunk goes where, and when other cores help. Knows what [`read`](super::read) knows.

use super::Checkpoint;
use super::read::Entry;
use crate::codec::Decoder;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::DEFAULT_CHUNK_LOG2;
use crate::format::table::{CODEC_RAW, Chunk};
use crate::pipeline;
use std::ops::Range;

impl Checkpoint {
    /// Fills `target` with `range` of an entry's raw bytes. What is compressed and large is decoded on all cores.
    pub(super) fn read_into(
        &self,
        entry: Entry<'_>,
        dtype: Dtype,
        range: Range<u64>,
        target: &mut [u8],
    ) -> Result<()> {
        let workers = self.decoding_workers(entry, target.len());
        let mut rest = target;
        let parts = self.chunks_within(entry, range.clone()).map(|(number, chunk, start)| {
            // The part of this chunk that is wanted, relative to the chunk.
            let from = range.start.saturating_sub(start) as usize;
            let to = (range.end - start).min(u64::from(chunk.raw_len)) as usize;
            let target = rest.split_off_mut(..to - from).unwrap_or_default();
            Part { number, chunk, from, target }
        });
        if workers == 1 {
            let mut scratch = Scratch::default();
            return parts.into_iter().try_for_each(|part| self.read_part(entry, dtype, &mut scratch, part));
        }
        pipeline::unordered(workers, parts, |scratch, part| self.read_part(entry, dtype, scratch, part))
    }

    /// Threads that decode so many bytes of an entry: as many as there are cores, when there is decoding to share, and
    /// no more than have room for two chunks each within the budget.
    fn decoding_workers(&self, entry: Entry<'_>, len: usize) -> usize {
        if len < PARALLEL_FROM || entry.table.is_raw(entry.number) {
            return 1;
        }
        let chunk_len = entry.table.chunk_len(entry.number);
        let affordable = usize::try_from(self.options.budget / (2 * chunk_len)).unwrap_or(usize::MAX);
        pipeline::cores().min(len.div_ceil(chunk_len as usize)).min(affordable).max(1)
    }

    /// Fills a part's target.
    fn read_part(&self, entry: Entry<'_>, dtype: Dtype, scratch: &mut Scratch, part: Part<'_>) -> Result<()> {
        let Part { number, chunk, from, target } = part;
        let whole = target.len() == chunk.raw_len as usize;
        if chunk.codec == CODEC_RAW && whole && !self.is_mapped() {
            self.blob.read_at(chunk.offset, target)?;
            return self.check(entry, number, &chunk, target);
        }
        if !whole && chunk.raw_len > 1 << DEFAULT_CHUNK_LOG2 {
            self.within_budget(u64::from(chunk.raw_len))?;
        }
        let Scratch { decoder, stored, decoded } = scratch;
        let bytes = match self.stored_in_memory(&chunk) {
            Some(bytes) => bytes,
            None => {
                stored.resize(chunk.stored_len as usize, 0);
                self.blob.read_at(chunk.offset, stored)?;
                stored
            }
        };
        self.check(entry, number, &chunk, bytes)?;
        let mut decode = |to: &mut [u8]| {
            let decoded = decoder.decode(chunk.codec, chunk.filter, bytes, to, dtype);
            decoded.map_err(|error| error.at_byte(chunk.offset))
        };
        if whole {
            return decode(target);
        }
        decoded.resize(chunk.raw_len as usize, 0);
        decode(decoded)?;
        target.copy_from_slice(&decoded[from..from + target.len()]);
        Ok(())
    }
}

/// Compressed bytes from which on a second thread pays: below, starting it costs more than it saves.
const PARALLEL_FROM: usize = 4 << 20;

/// What is wanted of one chunk, from its byte `from` on, and where it goes.
struct Part<'t> {
    number: usize,
    chunk: Chunk,
    from: usize,
    target: &'t mut [u8],
}

/// What a thread that reads chunks uses again and again.
#[derive(Default)]
struct Scratch {
    decoder: Decoder,
    stored: Vec<u8>,
    decoded: Vec<u8>,
}
