//! Verifying a whole file: every chunk, every byte of padding, the mirror. With header, footer and index, which opening
//! verifies, no byte of the file is left out. And passing it on as it lies, verified on the way.

use super::read::{Entry, check_crc};
use super::{Checkpoint, footer, header};
use crate::engine::{Blob, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::format::footer::Footer;
use crate::format::table::Chunk;
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
        let mut report = Report {
            tensors: self.index.tensors.len(),
            records: self.index.records.len(),
            bytes: self.len_bytes(),
            ..Report::default()
        };
        let mut window = Window::default();
        self.walk_stretches(&mut |stretch| {
            let checked = self.bytes(stretch.range.clone(), &mut window);
            let checked = checked.and_then(|bytes| self.check_stretch(&stretch, bytes));
            report.chunks += usize::from(matches!(stretch.must_be, MustBe::Chunk { .. }));
            match checked.map_err(|error| self.placed(&stretch, error)) {
                Err(error) if error.kind() == ErrorKind::Damaged => report.damage.push(error),
                other => return other,
            }
            Ok(())
        })?;
        Ok(report)
    }

    /// Appends the whole file as it lies to an upload, each byte verified before it is passed on. Memory is a few MiB, or
    /// one chunk where that is more. `moved` hears of each piece's length. The upload is to be dropped when this fails.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`, and what `upload` says.
    pub fn copy_into(&self, upload: &mut dyn Upload, mut moved: impl FnMut(u64)) -> Result<()> {
        let mut window = Window::default();
        let damaged = |error: Error| error.in_object(self.name());
        let header = self.bytes(0..header::LEN as u64, &mut window).map_err(damaged)?;
        if header::Header::decode(header).map_err(damaged)? != self.header {
            return Err(damaged(changed("header")));
        }
        upload.append(header)?;
        self.walk_stretches(&mut |stretch| {
            let checked = self.bytes(stretch.range.clone(), &mut window);
            let checked = checked.and_then(|bytes| self.check_stretch(&stretch, bytes).map(|()| bytes));
            let bytes = checked.map_err(|error| self.placed(&stretch, error))?;
            if matches!(stretch.must_be, MustBe::Index(_)) && stretch.range.start == self.footer.index_offset
            {
                upload.begin_tail();
            }
            moved(bytes.len() as u64);
            match stretch.must_be {
                MustBe::Chunk { chunk, .. } => upload.append_with_crc(bytes, chunk.crc),
                _ => upload.append(bytes),
            }
        })?;
        let end = self.len_bytes();
        let bytes = self.bytes(end - footer::LEN as u64..end, &mut window).map_err(damaged)?;
        if bytes != self.footer.encode() {
            return Err(damaged(changed("footer")));
        }
        upload.append(bytes)
    }

    /// Whether both are the same bytes: the footers have the checksum of the index, and the index has all others.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        self.header == other.header && self.footer == other.footer
    }

    /// Every stretch of the file between header and footer, in the order of the file and without a gap.
    fn walk_stretches<'c>(&'c self, visit: &mut dyn FnMut(Stretch<'c>) -> Result<()>) -> Result<()> {
        let mut end = header::LEN as u64;
        let tensors = (0..self.index.tensors.len()).map(|i| (self.tensor_entry(i), true));
        let records = (0..self.index.records.len()).map(|i| (self.record_entry(i), false));
        for (entry, is_tensor) in tensors.chain(records) {
            if entry.table.byte_len(entry.number) == 0 {
                continue;
            }
            visit(Stretch { range: end..entry.table.offset(entry.number), must_be: MustBe::Zeros })?;
            for (number, chunk) in entry.table.chunks(entry.number).enumerate() {
                end = chunk.offset + u64::from(chunk.stored_len);
                let must_be = MustBe::Chunk { entry, is_tensor, number, chunk };
                visit(Stretch { range: chunk.offset..end, must_be })?;
            }
        }
        let Footer { index_offset, index_len, mirror_offset, .. } = self.footer;
        visit(Stretch { range: end..index_offset, must_be: MustBe::Zeros })?;
        let index =
            |start: u64, what| Stretch { range: start..start + index_len, must_be: MustBe::Index(what) };
        visit(index(index_offset, "checksum of the index"))?;
        visit(Stretch { range: self.footer.padding(), must_be: MustBe::Zeros })?;
        mirror_offset.map_or(Ok(()), |mirror| visit(index(mirror, "checksum of the index's mirror")))
    }

    fn check_stretch(&self, stretch: &Stretch<'_>, bytes: &[u8]) -> Result<()> {
        let start = stretch.range.start;
        match stretch.must_be {
            MustBe::Chunk { number, chunk, .. } => check_crc(number, &chunk, bytes),
            MustBe::Zeros => match bytes.iter().position(|&byte| byte != 0) {
                None => Ok(()),
                Some(at) => Err(Error::damaged("padding")
                    .at_byte(start + at as u64)
                    .expected(0)
                    .found(bytes[at])
                    .help("no tensor is affected")),
            },
            MustBe::Index(what) => {
                let (expected, found) = (self.footer.index_crc, crc32(bytes));
                if found == expected {
                    return Ok(());
                }
                Err(checksum_error(what, expected, found)
                    .at_byte(start)
                    .help("its other copy is intact and no tensor is affected; save the checkpoint again"))
            }
        }
    }

    /// An error with the name of what it is in.
    fn placed(&self, stretch: &Stretch<'_>, error: Error) -> Error {
        let error = match stretch.must_be {
            MustBe::Chunk { entry, is_tensor: true, .. } => error.in_tensor(entry.table.name(entry.number)),
            MustBe::Chunk { entry, is_tensor: false, .. } => error.in_record(entry.table.name(entry.number)),
            _ => error,
        };
        error.in_object(self.name())
    }

    fn bytes<'s>(&'s self, range: Range<u64>, window: &'s mut Window) -> Result<&'s [u8]> {
        // OK to cast: chunks are at most 64 MiB, padding less than a page, a mirrored index at most 1 MiB.
        if let Some(all) = self.blob.as_bytes() {
            let bytes = all.get(range.start as usize..range.end as usize);
            return bytes.ok_or_else(|| crate::engine::ends_early(range.start, 0, all.len() as u64));
        }
        window.get(&*self.blob, range)
    }
}

/// A stretch of the file, and what its bytes must be.
struct Stretch<'c> {
    range: Range<u64>,
    must_be: MustBe<'c>,
}

enum MustBe<'c> {
    Zeros,
    Chunk {
        entry: Entry<'c>,
        is_tensor: bool,
        number: usize,
        chunk: Chunk,
    },
    /// The index or its mirror: which checksum it is.
    Index(&'static str),
}

/// How much is read at a time: small neighbours together, and what still fits a core's cache.
const WINDOW: u64 = 1 << 20;

/// Bytes of the file that are here, read in order and each once.
#[derive(Default)]
struct Window {
    start: u64,
    /// As many of the buffer's bytes are of the file.
    len: usize,
    buffer: Vec<u8>,
}

impl Window {
    fn get(&mut self, blob: &dyn Blob, range: Range<u64>) -> Result<&[u8]> {
        // OK to cast, here and below: within the buffer, or a chunk's length.
        let wanted = (range.end - range.start) as usize;
        let end = self.start + self.len as u64;
        if range.start < self.start || range.start > end {
            (self.start, self.len) = (range.start, 0);
        } else if range.end > end {
            // What is here of it moves to the front.
            let kept = (end - range.start) as usize;
            self.buffer.copy_within(self.len - kept..self.len, 0);
            (self.start, self.len) = (range.start, kept);
        }
        if range.end > self.start + self.len as u64 {
            let longer = (blob.len() - self.start).min(self.len as u64 + WINDOW) as usize;
            // What lies behind may be what cannot be read: then this range alone counts.
            if longer <= wanted || self.fill(blob, longer).is_err() {
                self.fill(blob, wanted)?;
            }
        }
        let from = (range.start - self.start) as usize;
        Ok(&self.buffer[from..from + wanted])
    }

    fn fill(&mut self, blob: &dyn Blob, len: usize) -> Result<()> {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        blob.read_at(self.start + self.len as u64, &mut self.buffer[self.len..len])?;
        self.len = len;
        Ok(())
    }
}

fn changed(what: &'static str) -> Error {
    Error::damaged(format!("the {what} is not what it was when the file was opened"))
        .help("somebody writes to this file: resume from an older checkpoint")
}
