//! Verifying a whole file: every chunk, every byte of padding, index and mirror, and every record
//! decoded. Together with header and footer, which opening verifies, that is every byte of the
//! file. Also carries the result over to a mapping of the same file.

use super::chunks::Scratch;
use super::regions::{MustBe, Region, Window};
use super::{Checkpoint, Inspect};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::DEFAULT_CHUNK_LOG2;
use crate::format::records;
use crate::format::table::{CODEC_RAW, Chunk, Kind};
use crate::layout::TensorBox;
use crate::pipeline;
use crate::sync;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Bytes that a thread draws at a time.
const BATCH: u64 = 4 << 20;

/// The result of verifying a whole file.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Tensors verified, aliases not counted.
    pub tensors: usize,
    /// Records verified.
    pub records: usize,
    /// Chunks verified.
    pub chunks: usize,
    /// Length of the file in bytes.
    pub byte_len: u64,
    /// The damage, in file order. If empty, every byte is as it was written.
    pub damage: Vec<Error>,
    /// Records stored by a codec that this version does not know: their bytes are as they were
    /// written, but their content was not checked.
    pub unsupported: Vec<Error>,
}

/// The results of all threads so far, each with its offset in the file.
#[derive(Default)]
struct Found {
    damage: Vec<(u64, Error)>,
    unsupported: Vec<(u64, Error)>,
    /// Records with a chunk that does not match its checksum.
    damaged_records: BTreeSet<usize>,
}

impl Found {
    /// Records the outcomes that belong in the report.
    ///
    /// # Errors
    /// Those that prevent a verdict.
    fn put(&mut self, at: u64, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        match error.kind() {
            ErrorKind::Damaged => self.damage.push((at, error)),
            ErrorKind::Unsupported => self.unsupported.push((at, error)),
            _ => return Err(error),
        }
        Ok(())
    }
}

/// A share of a manifest's shards.
#[derive(Clone, Copy)]
struct Share {
    of: usize,
    number: usize,
}

impl Share {
    fn has(self, shard: usize) -> bool {
        shard % self.of == self.number
    }
}

impl Inspect<'_> {
    /// Like [`Checkpoint::verify`], but collects all damage.
    ///
    /// # Errors
    /// `Io`.
    pub fn verify_all(&self) -> Result<VerifyReport> {
        self.verify_with_shards(Share { of: 1, number: 0 })
    }

    fn verify_with_shards(&self, share: Share) -> Result<VerifyReport> {
        let checkpoint = self.0;
        let found = Mutex::new(Found::default());
        let len = |region: &Region| region.range.end - region.range.start;
        let batches = pipeline::batches(checkpoint.regions(), BATCH, len);
        let memory = || (Window::default(), Scratch::default());
        pipeline::each(
            checkpoint.workers_for(checkpoint.footer.file_len),
            batches,
            memory,
            |(window, scratch), all| {
                window.ahead_to = all.last().map_or(0, |last| last.range.end);
                all.into_iter().try_for_each(|region| {
                    let outcome = checkpoint.verify_region(&region, window, scratch);
                    if outcome.is_ok() {
                        return Ok(());
                    }
                    let mut found = sync::lock(&found);
                    if let MustBe::Chunk { kind: Kind::Records, of, .. } = region.must_be {
                        found.damaged_records.insert(of);
                    }
                    found.put(region.range.start, outcome)
                })
            },
        )?;
        let mut found = sync::into_inner(found);
        checkpoint.decode_large_records(&mut found)?;
        let shards = checkpoint.verify_shards(share)?;
        let in_order = |mut errors: Vec<(u64, Error)>| {
            errors.sort_by_key(|(at, _)| *at);
            errors.into_iter().map(|(_, error)| error).collect()
        };
        let mut report = VerifyReport {
            tensors: checkpoint.index.tensors.len() + checkpoint.pieces().map_or(0, |pieces| pieces.len()),
            records: checkpoint.index.records.len() + shards.records,
            chunks: checkpoint.index.tensors.chunk_count()
                + checkpoint.index.records.chunk_count()
                + shards.chunks,
            byte_len: checkpoint.footer.file_len + shards.byte_len,
            damage: in_order(found.damage),
            unsupported: in_order(found.unsupported),
        };
        report.damage.extend(shards.damage);
        report.unsupported.extend(shards.unsupported);
        Ok(report)
    }

    /// Verifies and decodes one record, and discards it.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Unsupported` for a codec that this version does not know,
    /// `LimitExceeded`, `Io`.
    pub fn verify_record(&self, name: &str) -> Result<()> {
        let checked = records::check(&self.0.record_bytes(name)?);
        checked.map(drop).map_err(|error| error.in_record(name).in_object(self.0.name()))
    }
}

impl Checkpoint {
    /// Verifies what falls to a rank of a job that verifies together: every `world`-th shard of a
    /// manifest, and on rank 0 the manifest.
    ///
    /// # Errors
    /// As [`Checkpoint::verify`].
    pub(crate) fn verify_share(&self, rank: u32, world: u32) -> Result<()> {
        let share = Share { of: world.max(1) as usize, number: rank as usize };
        let report =
            if rank == 0 { self.inspect().verify_with_shards(share) } else { self.verify_shards(share) };
        report?.damage.into_iter().next().map_or(Ok(()), Err)
    }

    /// Verifies a share of a manifest's shards, and that each has the pieces that the manifest
    /// says.
    fn verify_shards(&self, share: Share) -> Result<VerifyReport> {
        let mut all = VerifyReport::default();
        let Some(pieces) = self.pieces() else { return Ok(all) };
        let mut lost = BTreeSet::new();
        for number in (0..pieces.shard_count()).filter(|&number| share.has(number)) {
            let report = match self.shard(number).and_then(|shard| shard.inspect().verify_all()) {
                Ok(report) => report,
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    lost.insert(number);
                    let what = format!("tensors concerned: {}", self.tensors_in_shard(number));
                    all.damage.push(error.help(what));
                    continue;
                }
                Err(error) => return Err(error),
            };
            all.records += report.records;
            all.chunks += report.chunks;
            all.byte_len += report.byte_len;
            all.damage.extend(report.damage);
            all.unsupported.extend(report.unsupported);
        }
        for number in 0..pieces.len() {
            let whole = TensorBox::whole(&pieces.shape(number));
            for stored in pieces.pieces_within(number, &whole) {
                if lost.contains(&stored.shard) || !share.has(stored.shard) {
                    continue;
                }
                match self.source(number, stored) {
                    Err(error) if error.kind() == ErrorKind::Damaged => {
                        all.damage.push(error.in_tensor(pieces.name(number)));
                    }
                    found => drop(found?),
                }
            }
        }
        Ok(all)
    }

    /// Verifies every byte of the file, also those verified before: chunks by their checksums,
    /// padding, index and mirror, and that these two are the same; and decodes every record. Of a
    /// manifest, every byte of every shard, too.
    /// Tensors are not decoded. Needs a few MiB for each thread and one record, regardless of the
    /// budget.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`.
    pub fn verify(&self) -> Result<VerifyReport> {
        let mut report = self.inspect().verify_all()?;
        if report.damage.is_empty() { Ok(report) } else { Err(report.damage.swap_remove(0)) }
    }

    fn verify_region(&self, region: &Region, window: &mut Window, scratch: &mut Scratch) -> Result<()> {
        let bytes = self.verified_bytes(region, window)?;
        match &region.must_be {
            MustBe::Chunk { kind: Kind::Records, of, chunk, .. } if self.is_small_record(*of) => {
                self.named_record(*of, decode_small(chunk, bytes, scratch))
            }
            _ => Ok(()),
        }
    }

    /// Whether a record is decoded while its only chunk is verified, instead of being read again.
    fn is_small_record(&self, number: usize) -> bool {
        let table = self.index.records.columns();
        table.chunk_numbers(number).len() == 1 && table.byte_len(number) <= 1 << DEFAULT_CHUNK_LOG2
    }

    /// Decodes the records of several chunks, one at a time, and those of none.
    fn decode_large_records(&self, found: &mut Found) -> Result<()> {
        let table = self.index.records.columns();
        for number in 0..table.len() {
            if self.is_small_record(number) || found.damaged_records.contains(&number) {
                continue;
            }
            let decoded = self.record_buffer(number).and_then(|bytes| records::check(&bytes).map(drop));
            found.put(table.offset(number), self.named_record(number, decoded))?;
        }
        Ok(())
    }

    fn named_record(&self, record: usize, outcome: Result<()>) -> Result<()> {
        outcome.map_err(|error| {
            error.in_record(self.index.records.columns().name(record)).in_object(self.name())
        })
    }

    /// The same checkpoint with every chunk marked as verified, if `read` is the same file: same
    /// id, length and index. Used when a file is verified by reading before it is mapped, so that
    /// an unreadable sector is an error then instead of a signal later. The caller has verified all
    /// of `read` and opened both under one name. If the files differ, nothing is marked, and chunks
    /// are verified on touch.
    pub(crate) fn trusting(self, read: &Self) -> Self {
        if self.inspect().is_copy_of(read) {
            for chunks in &self.verified {
                chunks.store(u64::MAX, Ordering::Relaxed);
            }
        }
        self
    }
}

fn decode_small(chunk: &Chunk, stored: &[u8], Scratch { decoder, decoded, .. }: &mut Scratch) -> Result<()> {
    if chunk.codec == CODEC_RAW {
        return records::check(stored).map(drop);
    }
    // OK to cast: within a chunk.
    decoded.resize(chunk.raw_len as usize, 0);
    decoder
        .decode(chunk.codec, chunk.filter, stored, decoded, Dtype::Opaque)
        .map_err(|error| error.at_byte(chunk.offset))?;
    records::check(decoded).map(drop)
}

#[cfg(test)]
mod tests {
    use crate::{Checkpoint, Codec, ErrorKind, Snapshot, WriteOptions};

    fn bytes(first: f32) -> Vec<u8> {
        let values: Vec<f32> = (0..50_000).map(|i| first + i as f32).collect();
        let snapshot = Snapshot::new().tensor("w", &values).unwrap().record("r", &[7; 20]).unwrap();
        snapshot.to_bytes(&WriteOptions::new().chunk_log2(16).codec(Codec::Raw)).unwrap()
    }

    #[test]
    fn a_mapping_of_a_file_that_was_verified_verifies_no_more() {
        let read = Checkpoint::from_bytes(&bytes(0.0)).unwrap();
        read.verify().unwrap();
        // Changed after the verification; only another verification can detect it.
        let mut changed = bytes(0.0);
        let at = read.info("w").unwrap().offset as usize;
        changed[at + 100_000] ^= 1;
        let untrusting = Checkpoint::from_bytes(&changed).unwrap();
        assert_eq!(untrusting.tensor("w").unwrap_err().kind(), ErrorKind::Damaged);
        let trusting = Checkpoint::from_bytes(&changed).unwrap().trusting(&read);
        assert!(trusting.tensor("w").unwrap().bytes() == &changed[at..at + 200_000]);
        assert_eq!(trusting.record::<[u8; 20]>("r").unwrap(), [7; 20]);
        assert_eq!(trusting.verify().unwrap_err().kind(), ErrorKind::Damaged, "asked for, it verifies");
        // If the file is another one, nothing is trusted.
        let other = Checkpoint::from_bytes(&bytes(1.0)).unwrap();
        let untrusting = Checkpoint::from_bytes(&changed).unwrap().trusting(&other);
        assert_eq!(untrusting.tensor("w").unwrap_err().kind(), ErrorKind::Damaged);
    }
}
