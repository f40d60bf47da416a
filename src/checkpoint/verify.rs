//! Verifying a whole file: every chunk, every byte of padding, the mirror. With header, footer and index, which opening
//! verifies, no byte of the file is left out.

use super::read::Entry;
use super::{Checkpoint, header};
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::Chunk;
use crate::format::{checksum_error, crc32};
use crate::pipeline;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes and number of checks that a thread draws at a time.
const BATCH: (u64, usize) = (4 << 20, 1024);

/// Something of the file to verify.
enum Check<'c> {
    Padding(Range<u64>),
    Chunk { entry: Entry<'c>, is_tensor: bool, number: usize, chunk: Chunk },
}

/// What verifying a whole file found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Tensors looked at, ties counted once.
    pub tensors: usize,
    /// Records looked at.
    pub records: usize,
    /// Chunks verified.
    pub chunks: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is damaged, in the order of the file. Empty means: every byte is as it was written.
    pub damage: Vec<Error>,
}

impl Checkpoint {
    /// Verifies every byte of the file, whatever was verified before.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`.
    pub fn verify(&self) -> Result<Report> {
        let mut report = self.report()?;
        if report.damage.is_empty() { Ok(report) } else { Err(report.damage.swap_remove(0)) }
    }

    /// As [`Checkpoint::verify`], but damage is collected, all of it.
    ///
    /// # Errors
    /// `Io`.
    pub fn report(&self) -> Result<Report> {
        let damage = Mutex::new(Vec::new());
        let batches = batches(self.checks()).enumerate();
        pipeline::each(self.workers_for(self.len_bytes()), batches, Vec::new, |scratch, (batch, checks)| {
            checks.into_iter().try_for_each(|check| {
                let Some(error) = self.damage_of(self.check_one(check, scratch))? else { return Ok(()) };
                damage.lock().unwrap_or_else(PoisonError::into_inner).push((batch, error));
                Ok(())
            })
        })?;
        let mut damage = damage.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Stable: within a batch one thread went through the file in order.
        damage.sort_by_key(|(batch, _)| *batch);
        let mut damage: Vec<Error> = damage.into_iter().map(|(_, error)| error).collect();
        damage.extend(self.damage_of(self.check_index_and_mirror(&mut Vec::new()))?);
        Ok(Report {
            tensors: self.index.tensors.len(),
            records: self.index.records.len(),
            chunks: self.index.tensors.chunk_count() + self.index.records.chunk_count(),
            bytes: self.len_bytes(),
            damage,
        })
    }

    /// Every chunk, and the padding before each extent and behind the last, in the order of the file.
    fn checks(&self) -> impl Iterator<Item = Check<'_>> {
        let tensors = (0..self.index.tensors.len()).map(|i| (self.tensor_entry(i), true));
        let records = (0..self.index.records.len()).map(|i| (self.record_entry(i), false));
        let mut padding_start = header::LEN as u64;
        let entries = tensors.chain(records).flat_map(move |(entry, is_tensor)| {
            let start = entry.table.offset(entry.number);
            let padding = (entry.table.byte_len(entry.number) > 0).then(|| {
                let end = start + entry.table.stored_len(entry.number);
                Check::Padding(std::mem::replace(&mut padding_start, end)..start)
            });
            let chunks = entry.table.chunks(entry.number).enumerate();
            let chunks = chunks.map(move |(number, chunk)| Check::Chunk { entry, is_tensor, number, chunk });
            padding.into_iter().chain(chunks)
        });
        let last = self.index.records.data_end()..self.footer.index_offset;
        entries.chain(std::iter::once(Check::Padding(last)))
    }

    fn check_one(&self, check: Check<'_>, scratch: &mut Vec<u8>) -> Result<()> {
        match check {
            Check::Padding(range) => self.check_zeros(range, scratch),
            Check::Chunk { entry, is_tensor, number, chunk } => {
                let range = chunk.offset..chunk.offset + u64::from(chunk.stored_len);
                let checked = self
                    .bytes(range, scratch)
                    .and_then(|stored| self.check_again(entry, number, &chunk, stored));
                let name = entry.table.name(entry.number);
                checked.map_err(|error| if is_tensor { error.in_tensor(name) } else { error.in_record(name) })
            }
        }
    }

    /// Damage as a value, any other error as an error.
    fn damage_of(&self, checked: Result<()>) -> Result<Option<Error>> {
        match checked.map_err(|error| error.in_object(self.name())) {
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Some(error)),
            other => other.map(|()| None),
        }
    }

    fn bytes<'s>(&'s self, range: Range<u64>, scratch: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        // OK to cast: chunks are at most 64 MiB, padding less than a page, a mirrored index at most 1 MiB.
        if let Some(all) = self.blob.as_bytes() {
            let bytes = all.get(range.start as usize..range.end as usize);
            return bytes.ok_or_else(|| crate::engine::ends_early(range.start, 0, all.len() as u64));
        }
        scratch.resize((range.end - range.start) as usize, 0);
        self.blob.read_at(range.start, scratch)?;
        Ok(scratch)
    }

    fn check_zeros(&self, range: Range<u64>, scratch: &mut Vec<u8>) -> Result<()> {
        let bytes = self.bytes(range.clone(), scratch)?;
        match bytes.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(at) => Err(Error::damaged("padding")
                .at_byte(range.start + at as u64)
                .expected(0)
                .found(bytes[at])
                .help("no tensor is affected")),
        }
    }

    fn check_index_and_mirror(&self, scratch: &mut Vec<u8>) -> Result<()> {
        let copies = [Some(self.footer.index_offset), self.footer.mirror_offset];
        for (offset, what) in
            copies.into_iter().zip(["checksum of the index", "checksum of the index's mirror"])
        {
            let Some(offset) = offset else { continue };
            let found = crc32(self.bytes(offset..offset + self.footer.index_len, scratch)?);
            if found != self.footer.index_crc {
                return Err(checksum_error(what, self.footer.index_crc, found)
                    .at_byte(offset)
                    .help("its other copy is intact and no tensor is affected; save the checkpoint again"));
            }
        }
        self.check_zeros(self.footer.padding(), scratch)
    }
}

/// Successive checks, some at a time.
fn batches<'c>(mut checks: impl Iterator<Item = Check<'c>>) -> impl Iterator<Item = Vec<Check<'c>>> {
    std::iter::from_fn(move || {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH.0
            && batch.len() < BATCH.1
            && let Some(check) = checks.next()
        {
            bytes += match &check {
                Check::Padding(range) => range.end - range.start,
                Check::Chunk { chunk, .. } => u64::from(chunk.stored_len),
            };
            batch.push(check);
        }
        (!batch.is_empty()).then_some(batch)
    })
}
