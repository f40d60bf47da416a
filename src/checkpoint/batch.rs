//! A batch of chunks, of one entry or of several: fetched in one call, verified, and decoded into
//! their targets. Runs on the caller's thread.

use super::Checkpoint;
use super::chunks::Scratch;
use super::entry::Entry;
use crate::buffer::Buffer;
use crate::codec::Decoder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::DEFAULT_CHUNK_LOG2;
use crate::format::table::{CODEC_RAW, Chunk};
use tensorkeep_memcpy::copy;

/// A chunk of an entry, and the destination of the bytes wanted from it.
pub(super) struct Part<'c, 't> {
    pub entry: Entry<'c>,
    pub dtype: Dtype,
    /// Its number within the entry.
    pub number: usize,
    pub chunk: Chunk,
    /// Raw bytes of the chunk before the wanted ones.
    pub from: usize,
    pub target: &'t mut [u8],
}

impl<'c> Part<'c, '_> {
    fn name(&self) -> &'c str {
        self.entry.name()
    }

    fn is_whole(&self) -> bool {
        self.target.len() == self.chunk.raw_len as usize
    }

    /// Whether the stored bytes are the wanted bytes, so that they are fetched into the target.
    fn goes_straight(&self) -> bool {
        self.chunk.codec == CODEC_RAW && self.is_whole()
    }

    /// Stored bytes that are fetched into other memory.
    fn detour(&self) -> usize {
        if self.goes_straight() { 0 } else { self.chunk.stored_len as usize }
    }
}

/// The name of the entry that failed, and the error.
pub(super) type Failed<'c> = (&'c str, Error);

impl Checkpoint {
    /// Fills the targets of all parts. After an error, some are filled.
    pub(super) fn read_batch<'c>(
        &self,
        Scratch { decoder, stored, decoded }: &mut Scratch,
        mut parts: Vec<Part<'c, '_>>,
    ) -> Result<(), Failed<'c>> {
        for part in &parts {
            self.check_part(part).map_err(|error| (part.name(), error))?;
        }
        if !self.is_mapped() {
            self.fetch(stored, &mut parts)?;
        }
        let mut fetched = &**stored;
        for part in parts {
            let elsewhere = match self.stored_in_memory(&part.chunk) {
                None if part.goes_straight() => None,
                None => Some(fetched.split_off(..part.detour()).unwrap_or_default()),
                in_memory => in_memory,
            };
            let name = part.name();
            self.finish(decoder, decoded, part, elsewhere).map_err(|error| (name, error))?;
        }
        Ok(())
    }

    /// A chunk that is wanted in part is held whole; up to the default size, that is always
    /// allowed.
    fn check_part(&self, part: &Part<'_, '_>) -> Result<()> {
        if part.is_whole() || part.chunk.raw_len <= 1 << DEFAULT_CHUNK_LOG2 {
            return Ok(());
        }
        self.within_budget(u64::from(part.chunk.raw_len)).map(drop)
    }

    /// Fetches the stored bytes of all parts in one call: into their targets, or consecutively into
    /// `stored`.
    fn fetch<'c>(&self, stored: &mut Buffer, parts: &mut [Part<'c, '_>]) -> Result<(), Failed<'c>> {
        let names: Vec<&str> = parts.iter().map(Part::name).collect();
        let Some(first) = names.first() else { return Ok(()) };
        let mut room = stored.room(parts.iter().map(Part::detour).sum()).map_err(|error| (*first, error))?;
        let mut ranges: Vec<(u64, &mut [u8])> = Vec::with_capacity(parts.len());
        for part in parts {
            let target = match part.detour() {
                0 => &mut *part.target,
                detour => room.split_off_mut(..detour).unwrap_or_default(),
            };
            ranges.push((part.chunk.offset, target));
        }
        if self.blob.read_ranges(&mut ranges).is_ok() {
            return Ok(());
        }
        // One at a time, to find the entry with the unreadable range; it may be none of these.
        for (name, (offset, target)) in names.into_iter().zip(ranges) {
            self.blob.read_at(offset, target).map_err(|error| (name, error))?;
        }
        Ok(())
    }

    /// Verifies a part's stored bytes. If they are `elsewhere` than in the target, they are decoded
    /// and the wanted ones are copied into it.
    fn finish(
        &self,
        decoder: &mut Decoder,
        decoded: &mut Vec<u8>,
        part: Part<'_, '_>,
        elsewhere: Option<&[u8]>,
    ) -> Result<()> {
        let whole = part.is_whole();
        let Part { entry, dtype, number, chunk, from, target } = part;
        let Some(stored) = elsewhere else { return self.check(entry, number, &chunk, target) };
        self.check(entry, number, &chunk, stored)?;
        let at_chunk = |error: Error| error.at_byte(chunk.offset);
        if whole {
            return decoder.decode(chunk.codec, chunk.filter, stored, target, dtype).map_err(at_chunk);
        }
        decoded.resize(chunk.raw_len as usize, 0);
        decoder.decode(chunk.codec, chunk.filter, stored, decoded, dtype).map_err(at_chunk)?;
        copy(&decoded[from..from + target.len()], target);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::Blob;
    use crate::{Checkpoint, Codec, Error, ErrorKind, OpenOptions, Result, Snapshot, WriteOptions};
    use std::ops::Range;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes with an unreadable range.
    #[derive(Debug)]
    struct BadSector {
        bytes: Vec<u8>,
        bad: Range<u64>,
        calls: AtomicUsize,
    }

    impl Blob for BadSector {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.read_ranges(&mut [(offset, buffer)])
        }

        fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            for (offset, buffer) in ranges {
                let end = *offset + buffer.len() as u64;
                if *offset < self.bad.end && end > self.bad.start {
                    return Err(Error::io("reading", std::io::Error::other("bad sector")));
                }
                buffer.copy_from_slice(&self.bytes[*offset as usize..end as usize]);
            }
            Ok(())
        }
    }

    fn opened(codec: Codec, bad: impl FnOnce(&Checkpoint) -> Range<u64>) -> (Arc<BadSector>, Checkpoint) {
        let numbers: Vec<f32> = (0..2_200_000).map(|i| (i as f32 * 0.37).sin() * 0.02).collect();
        let mut snapshot = Snapshot::new();
        for i in 0..200_usize {
            // Mostly of a few bytes, some of tens of kilobytes, one of hundreds.
            let len = if i == 77 { 200_000 } else { 1 + i % 7 + 9000 * usize::from(i % 9 == 0) };
            // Each in its own memory: the same memory would be one tensor with several names.
            snapshot =
                snapshot.tensor(format!("t{i:03}"), (&[len][..], &numbers[i * 10_000..][..len])).unwrap();
        }
        let bytes = snapshot.to_bytes(&WriteOptions::new().codec(codec)).unwrap();
        let bad = bad(&Checkpoint::from_bytes(&bytes).unwrap());
        let blob = Arc::new(BadSector { bytes, bad, calls: AtomicUsize::new(0) });
        let checkpoint = OpenOptions::new().open_blob(Arc::clone(&blob) as _, "bad").unwrap();
        blob.calls.store(0, Ordering::Relaxed);
        (blob, checkpoint)
    }

    #[test]
    fn many_small_tensors_are_fetched_in_few_calls() {
        for codec in [Codec::Raw, Codec::Balanced] {
            let (blob, checkpoint) = opened(codec, |_| 0..0);
            let whole = Checkpoint::from_bytes(&blob.bytes).unwrap();
            let loaded = checkpoint.load(checkpoint.names()).unwrap();
            assert!(blob.calls.load(Ordering::Relaxed) < 10, "{:?}", blob.calls);
            for (name, loaded) in checkpoint.names().zip(&loaded) {
                assert_eq!(loaded.bytes(), whole.tensor(name).unwrap().bytes(), "{name}, {codec:?}");
            }
        }
    }

    #[test]
    fn an_unreadable_sector_costs_its_own_tensor_only() {
        for codec in [Codec::Raw, Codec::Balanced] {
            let mut place = 0..0;
            let (_, checkpoint) = opened(codec, |whole| {
                let info = whole.info("t100").unwrap();
                place = info.offset..info.offset + info.stored_len;
                place.clone()
            });
            let failed = checkpoint.load(checkpoint.names()).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Io);
            assert!(failed.to_string().contains("t100"), "{failed}");
            let others = checkpoint.names().filter(|&name| name != "t100");
            assert_eq!(checkpoint.load(others).unwrap().len(), 199);
        }
    }

    #[test]
    fn damage_among_many_is_the_damaged_tensors() {
        let (blob, whole) = opened(Codec::Raw, |_| 0..0);
        let mut bytes = blob.bytes.clone();
        bytes[whole.info("t150").unwrap().offset as usize] ^= 1;
        let blob = BadSector { bytes, bad: 0..0, calls: AtomicUsize::new(0) };
        let checkpoint = OpenOptions::new().open_blob(Arc::new(blob), "damaged").unwrap();
        let failed = checkpoint.load(checkpoint.names()).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Damaged);
        assert!(failed.to_string().contains("t150"), "{failed}");
    }
}
