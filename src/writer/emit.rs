//! The order of bytes in a container: header, extents with their padding, index, mirror, footer.
//! Keeps the tables that record where each chunk is.

use super::chunks::{Job, Start};
use super::timings::{Stopwatch, Timings};
use crate::engine::Upload;
use crate::error::{Error, Result};
use crate::format::footer::Footer;
use crate::format::header::Header;
use crate::format::table::{Kind, NewRow, TableBuilder};
use crate::format::{self, INDEX_ALIGN, MIRROR_ALIGN, MIRROR_UP_TO, align_up, crc32, extent_align};
use std::time::Duration;

/// How a chunk was stored.
pub(super) struct Stored {
    pub codec: u8,
    pub filter: u8,
    pub crc: u32,
    pub encode: Duration,
    pub checksum: Duration,
}

/// The contents of a file: number of entries in each table, and bytes missing from the last entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub tensors: usize,
    pub records: usize,
    pub missing: u64,
}

/// The upload and its length so far.
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

    /// Writes the index, its mirror if it is small, and the footer.
    fn write_tail(&mut self, region: &[u8], Header { flags, file_id, .. }: Header) -> Result<()> {
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
            flags,
            file_id,
        };
        self.append(&footer.encode())
    }
}

/// Appends encoded chunks in order and keeps the tables.
pub(super) struct Emitter<'u> {
    out: Out<'u>,
    header: Header,
    tensors: TableBuilder,
    records: TableBuilder,
    /// Raw bytes of the current entry still to come.
    left: u64,
    timings: Timings,
}

impl<'u> Emitter<'u> {
    /// Writes the header.
    pub(super) fn begin(upload: &'u mut dyn Upload, header: Header) -> Result<Self> {
        let mut out = Out { upload, position: 0 };
        out.append(&header.encode())?;
        Ok(Self {
            out,
            header,
            tensors: TableBuilder::default(),
            records: TableBuilder::default(),
            left: 0,
            timings: Timings::default(),
        })
    }

    /// The contents so far.
    pub(super) fn stored(&self) -> Contents {
        Contents { tensors: self.tensors.len(), records: self.records.len(), missing: self.left }
    }

    /// The encoded tables: tensors, then records.
    pub(super) fn tables(&mut self) -> [Vec<u8>; 2] {
        [&mut self.tensors, &mut self.records].map(|table| std::mem::take(table).encode())
    }

    /// Writes everything after the extents; returns the file's length in bytes.
    pub(super) fn finish(mut self, region: &[u8]) -> Result<(u64, Timings)> {
        self.out.write_tail(region, self.header)?;
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
            self.begin_entry(job, start, chunk_log2)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        // Records follow all tensors, so the current table is the last one with rows.
        let table = if self.records.len() > 0 { &mut self.records } else { &mut self.tensors };
        table.push_chunk(stored.codec, stored.filter, bytes.len() as u32, stored.crc);
        self.left = self.left.saturating_sub(job.piece.len() as u64);
        let mut stopwatch = Stopwatch::start(bytes.len());
        self.out.upload.append_with_crc(bytes, stored.crc)?;
        self.out.position += bytes.len() as u64;
        self.timings.encode += stored.encode;
        self.timings.checksum += stored.checksum;
        self.timings.write += stopwatch.lap();
        Ok(())
    }

    /// Pads to the next entry's extent and adds its row.
    fn begin_entry(&mut self, job: &Job<'_, '_>, start: &Start<'_>, chunk_log2: u8) -> Result<()> {
        if self.left != 0 {
            let what = format!("{} bytes of the tensor before were not stored", self.left);
            return Err(Error::invalid(what).in_tensor(job.name));
        }
        let Start { kind, shape, byte_len } = start;
        let mut offset = 0;
        if *byte_len > 0 {
            self.out.pad_to(extent_align(*byte_len))?;
            offset = self.out.position;
        }
        let table = match kind {
            Kind::Tensors => &mut self.tensors,
            Kind::Records => &mut self.records,
        };
        let Job { name, dtype, .. } = *job;
        table.push(NewRow { name, dtype, shape, byte_len: *byte_len, offset, chunk_log2 });
        self.left = *byte_len;
        Ok(())
    }
}
