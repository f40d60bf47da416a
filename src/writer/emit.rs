//! The order of bytes in a container: header, extents with their padding, index, mirror, footer.
//! Owns: where each chunk lands, and the tables that say so.

use super::chunks::Job;
use super::timings::{Stopwatch, Timings};
use crate::engine::Upload;
use crate::error::{Error, Result};
use crate::format::footer::Footer;
use crate::format::header::Header;
use crate::format::table::TableBuilder;
use crate::format::{self, Flags, INDEX_ALIGN, MIRROR_ALIGN, MIRROR_UP_TO, align_up, crc32, extent_align};
use std::time::Duration;

/// How a chunk was stored.
pub(super) struct Stored {
    pub codec: u8,
    pub filter: u8,
    pub crc: u32,
    pub encode: Duration,
    pub checksum: Duration,
}

/// What a file holds: entries of each table, and the bytes that the last one lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub tensors: usize,
    pub records: usize,
    pub missing: u64,
}

/// The bytes so far.
struct Out<'u> {
    upload: &'u mut dyn Upload,
    position: u64,
}

impl Out<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.upload.append(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, align: u64) -> Result<()> {
        const ZEROS: [u8; format::PAGE as usize] = [0; format::PAGE as usize];
        let padding = align_up(self.position, align) - self.position;
        // OK because no alignment is larger than a page.
        self.append(&ZEROS[..padding as usize])
    }

    /// Index, mirror while it is small, footer.
    fn write_tail(&mut self, region: &[u8], file_id: [u8; 16]) -> Result<()> {
        self.pad_to(INDEX_ALIGN)?;
        self.upload.begin_tail();
        let index_offset = self.position;
        self.append(region)?;
        let mirror_offset = if region.len() as u64 <= MIRROR_UP_TO {
            self.pad_to(MIRROR_ALIGN)?;
            let offset = self.position;
            self.append(region)?;
            Some(offset)
        } else {
            None
        };
        let footer = Footer {
            index_offset,
            index_len: region.len() as u64,
            index_crc: crc32(region),
            mirror_offset,
            file_len: self.position + format::footer::LEN as u64,
            flags: Flags::default(),
            file_id,
        };
        self.append(&footer.encode())
    }
}

/// Appends encoded chunks in order and keeps the tables.
pub(super) struct Emitter<'u> {
    out: Out<'u>,
    tables: [TableBuilder; 2],
    /// Raw bytes of the current entry still to come.
    left: u64,
    timings: Timings,
}

impl<'u> Emitter<'u> {
    /// Writes the header.
    pub(super) fn begin(upload: &'u mut dyn Upload, file_id: [u8; 16]) -> Result<Self> {
        let mut out = Out { upload, position: 0 };
        out.append(&Header::new(file_id).encode())?;
        let (tables, timings) = Default::default();
        Ok(Self { out, tables, left: 0, timings })
    }

    /// What was stored so far.
    pub(super) fn stored(&self) -> Contents {
        Contents { tensors: self.tables[0].len(), records: self.tables[1].len(), missing: self.left }
    }

    /// The encoded tables: tensors, records.
    pub(super) fn tables(&mut self) -> [Vec<u8>; 2] {
        std::mem::take(&mut self.tables).map(|table| table.encode())
    }

    /// Writes everything behind the extents; returns the file's length in bytes.
    pub(super) fn finish(mut self, region: &[u8], file_id: [u8; 16]) -> Result<(u64, Timings)> {
        self.out.write_tail(region, file_id)?;
        Ok((self.out.position, self.timings))
    }

    /// Appends the next chunk.
    pub(super) fn emit(
        &mut self,
        job: &Job<'_, '_>,
        chunk_log2: u8,
        stored: Stored,
        bytes: &[u8],
    ) -> Result<()> {
        if let Some(start) = &job.start {
            if self.left != 0 {
                return Err(Error::invalid(format!(
                    "{} bytes of the tensor before were not stored",
                    self.left
                ))
                .in_tensor(job.name));
            }
            let mut offset = 0;
            if start.byte_len > 0 {
                self.out.pad_to(extent_align(start.byte_len))?;
                offset = self.out.position;
            }
            self.tables[start.table].push(
                job.name,
                job.dtype,
                &start.shape,
                start.byte_len,
                offset,
                chunk_log2,
            );
            self.left = start.byte_len;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // Records follow all tensors, so the table in use is the last one that has rows.
        let table = usize::from(self.tables[1].len() > 0);
        self.tables[table].push_chunk(stored.codec, stored.filter, bytes.len() as u32, stored.crc);
        self.left = self.left.saturating_sub(job.piece.len() as u64);
        let mut stopwatch = Stopwatch::start(bytes.len());
        self.out.upload.append_with_crc(bytes, stored.crc)?;
        self.out.position += bytes.len() as u64;
        self.timings.encode += stored.encode;
        self.timings.checksum += stored.checksum;
        self.timings.write += stopwatch.lap();
        Ok(())
    }
}
