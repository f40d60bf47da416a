//! Verifying a whole file: every chunk, every byte of padding, the mirror. With header, footer and index, which opening
//! verifies, no byte of the file is left out.

use super::read::{Entry, check_crc};
use super::{Checkpoint, header};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{checksum_error, crc32};
use std::ops::Range;

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
        let mut report = Report { bytes: self.len_bytes(), ..Report::default() };
        let mut scratch = Buffer::default();
        let mut padding_start = header::LEN as u64;
        let tensors = (0..self.index.tensors.len()).map(|i| (self.tensor_entry(i), true));
        let records = (0..self.index.records.len()).map(|i| (self.record_entry(i), false));
        for (entry, is_tensor) in tensors.chain(records) {
            let name = entry.table.name(entry.number);
            let placed = |error: Error| if is_tensor { error.in_tensor(name) } else { error.in_record(name) };
            *(if is_tensor { &mut report.tensors } else { &mut report.records }) += 1;
            if entry.table.byte_len(entry.number) > 0 {
                let start = entry.table.offset(entry.number);
                self.collect(&mut report, self.check_zeros(padding_start..start, &mut scratch))?;
                padding_start = start + entry.table.stored_len(entry.number);
            }
            self.check_entry(entry, &mut report, &mut scratch, placed)?;
        }
        self.collect(&mut report, self.check_zeros(padding_start..self.footer.index_offset, &mut scratch))?;
        self.collect(&mut report, self.check_index_and_mirror(&mut scratch))?;
        Ok(report)
    }

    fn check_entry(
        &self,
        entry: Entry<'_>,
        report: &mut Report,
        scratch: &mut Buffer,
        placed: impl Fn(Error) -> Error,
    ) -> Result<()> {
        for (number, chunk) in entry.table.chunks(entry.number).enumerate() {
            let range = chunk.offset..chunk.offset + u64::from(chunk.stored_len);
            let checked = self.bytes(range, scratch).and_then(|stored| check_crc(number, &chunk, stored));
            self.collect(report, checked.map_err(&placed))?;
            report.chunks += 1;
        }
        Ok(())
    }

    /// Keeps damage, returns any other error.
    fn collect(&self, report: &mut Report, checked: Result<()>) -> Result<()> {
        match checked.map_err(|error| error.in_object(self.name())) {
            Err(error) if error.kind() == ErrorKind::Damaged => report.damage.push(error),
            other => return other,
        }
        Ok(())
    }

    fn bytes<'s>(&'s self, range: Range<u64>, scratch: &'s mut Buffer) -> Result<&'s [u8]> {
        // OK to cast: chunks are at most 64 MiB, padding less than a page, a mirrored index at most 1 MiB.
        if let Some(all) = self.blob.as_bytes() {
            let bytes = all.get(range.start as usize..range.end as usize);
            return bytes.ok_or_else(|| crate::engine::ends_early(range.start, 0, all.len() as u64));
        }
        let scratch = scratch.room((range.end - range.start) as usize)?;
        self.blob.read_at(range.start, scratch)?;
        Ok(scratch)
    }

    fn check_zeros(&self, range: Range<u64>, scratch: &mut Buffer) -> Result<()> {
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

    fn check_index_and_mirror(&self, scratch: &mut Buffer) -> Result<()> {
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
