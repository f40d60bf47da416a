//! A file between header and footer, stretch by stretch in order and without a gap: chunks,
//! padding, index and mirror. Owns: what the bytes of each must be. What verifying a file and
//! passing it on have in common.

use super::entry::Entry;
use super::{Checkpoint, header};
use crate::buffer::Buffer;
use crate::engine::{Blob, ends_early};
use crate::error::{Error, Result};
use crate::format::footer::Footer;
use crate::format::table::Chunk;
use crate::format::{checksum_error, crc32};
use std::ops::Range;

/// How much is read at a time: small neighbours together, and what still fits a core's cache.
const WINDOW: u64 = 1 << 20;

/// A stretch of the file, and what its bytes must be.
pub(super) struct Stretch {
    pub range: Range<u64>,
    pub must_be: MustBe,
}

pub(super) enum MustBe {
    Zeros,
    /// A chunk of the tensor or record of this number.
    Chunk {
        is_tensor: bool,
        of: usize,
        number: usize,
        chunk: Chunk,
    },
    Index,
    Mirror,
}

impl Checkpoint {
    /// Every stretch of the file, in order.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Stretch> + Send {
        let tensors = (0..self.index.tensors.len()).map(|i| (self.tensor_entry(i), true));
        let records = (0..self.index.records.len()).map(|i| (self.record_entry(i), false));
        let mut end = header::LEN as u64;
        let entries = tensors.chain(records).flat_map(move |(entry, is_tensor)| {
            let start = entry.table.offset(entry.number);
            let padding = (entry.table.byte_len(entry.number) > 0).then(|| {
                let range = end..start;
                end = start + entry.table.stored_len(&entry.table.row(entry.number));
                Stretch { range, must_be: MustBe::Zeros }
            });
            let chunks = entry.table.chunks(entry.number).enumerate();
            let chunks = chunks.map(move |(number, chunk)| Stretch {
                range: chunk.offset..chunk.offset + u64::from(chunk.stored_len),
                must_be: MustBe::Chunk { is_tensor, of: entry.number, number, chunk },
            });
            padding.into_iter().chain(chunks)
        });
        entries.chain(self.tail())
    }

    /// What lies behind the last extent.
    fn tail(&self) -> impl Iterator<Item = Stretch> {
        let Footer { index_offset, index_len, mirror_offset, .. } = self.footer;
        let last = self.index.records.data_end();
        let mirror = mirror_offset.map(|mirror| (mirror..mirror + index_len, MustBe::Mirror));
        let tail = [
            Some((last..index_offset, MustBe::Zeros)),
            Some((index_offset..index_offset + index_len, MustBe::Index)),
            Some((self.footer.padding(), MustBe::Zeros)),
            mirror,
        ];
        tail.into_iter().flatten().map(|(range, must_be)| Stretch { range, must_be })
    }

    /// A stretch's bytes, once they are what they must be.
    ///
    /// # Errors
    /// `Damaged`, `Io`, with the tensor or record that it is in.
    pub(super) fn verified_bytes<'s>(
        &'s self,
        stretch: &Stretch,
        window: &'s mut Window,
    ) -> Result<&'s [u8]> {
        let bytes = self.bytes_at(stretch.range.clone(), window);
        let checked = bytes.and_then(|bytes| self.check_stretch(stretch, bytes).map(|()| bytes));
        checked
            .map_err(|error| match stretch.must_be {
                MustBe::Chunk { is_tensor: true, of, .. } => {
                    error.in_tensor(self.index.tensors.columns().name(of))
                }
                MustBe::Chunk { is_tensor: false, of, .. } => {
                    error.in_record(self.index.records.columns().name(of))
                }
                _ => error,
            })
            .map_err(|error| error.in_object(self.name()))
    }

    fn entry(&self, is_tensor: bool, of: usize) -> Entry<'_> {
        if is_tensor { self.tensor_entry(of) } else { self.record_entry(of) }
    }

    fn check_stretch(&self, stretch: &Stretch, bytes: &[u8]) -> Result<()> {
        let start = stretch.range.start;
        match &stretch.must_be {
            MustBe::Chunk { is_tensor, of, number, chunk } => {
                self.check_again(self.entry(*is_tensor, *of), *number, chunk, bytes)
            }
            MustBe::Zeros => match bytes.iter().position(|&byte| byte != 0) {
                None => Ok(()),
                Some(at) => Err(Error::damaged("padding")
                    .at_byte(start + at as u64)
                    .expected(0)
                    .found(bytes[at])
                    .help("no tensor is affected")),
            },
            MustBe::Index => self.check_index("checksum of the index", start, bytes),
            MustBe::Mirror => self.check_index("checksum of the index's mirror", start, bytes),
        }
    }

    /// The region that was read when the file was opened is one of the two copies: the other one is
    /// the same, byte for byte. A checksum alone would let two copies differ that were made to have
    /// the same one.
    fn check_index(&self, what: &'static str, start: u64, bytes: &[u8]) -> Result<()> {
        let (expected, found) = (self.footer.index_crc, crc32(bytes));
        let help = "its other copy is intact and no tensor is affected; save the checkpoint again";
        if found != expected {
            return Err(checksum_error(what, expected, found).at_byte(start).help(help));
        }
        let used = self.index.region();
        if bytes == used {
            return Ok(());
        }
        let same = bytes.iter().zip(used).take_while(|(here, there)| here == there).count();
        Err(Error::damaged("the index and its mirror differ, with the same checksum")
            .at_byte(start + same as u64)
            .help(help))
    }

    /// Bytes of the file as they are.
    pub(super) fn bytes_at<'s>(&'s self, range: Range<u64>, window: &'s mut Window) -> Result<&'s [u8]> {
        // OK to cast: chunks are at most 64 MiB, padding less than a page, and an index was in
        // memory already.
        if self.is_mapped() {
            let bytes = self.in_memory(range.clone());
            return bytes.ok_or_else(|| ends_early(range.start, 0, self.blob.len()));
        }
        window.get(&*self.blob, range)
    }
}

/// Bytes of the file that are here, read in order and each once.
pub(super) struct Window {
    /// Nothing behind this is read ahead: it is somebody else's.
    pub ahead_to: u64,
    start: u64,
    /// As many of the buffer's bytes are of the file.
    len: usize,
    buffer: Buffer,
}

impl Default for Window {
    fn default() -> Self {
        Self { ahead_to: u64::MAX, start: 0, len: 0, buffer: Buffer::default() }
    }
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
            let to = blob.len().min(self.ahead_to).saturating_sub(self.start);
            let longer = to.min(self.len as u64 + WINDOW) as usize;
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
            let mut larger = Buffer::zeroed(len)?;
            larger[..self.len].copy_from_slice(&self.buffer[..self.len]);
            self.buffer = larger;
        }
        blob.read_at(self.start + self.len as u64, &mut self.buffer[self.len..len])?;
        self.len = len;
        Ok(())
    }
}
