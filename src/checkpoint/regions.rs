//! A file between header and footer as consecutive regions without a gap: chunks, padding, index
//! and mirror, and the check that each region's bytes must pass. Used by verifying and by copying a
//! file.

use super::entry::Entry;
use super::{Checkpoint, header};
use crate::buffer::Buffer;
use crate::engine::{Blob, ends_early};
use crate::error::{Error, Result};
use crate::format::footer::Footer;
use crate::format::table::{Chunk, Kind};
use crate::format::{checksum_error, crc32};
use std::ops::Range;

/// Bytes read at a time: small neighbours together, and few enough to stay in a core's cache.
const WINDOW: u64 = 1 << 20;

/// A range of the file, and the content that it must have.
pub(super) struct Region {
    pub range: Range<u64>,
    pub must_be: MustBe,
}

pub(super) enum MustBe {
    Zeros,
    /// A chunk of the tensor or record with this number.
    Chunk {
        kind: Kind,
        of: usize,
        number: usize,
        chunk: Chunk,
    },
    Index,
    Mirror,
}

impl Checkpoint {
    /// All regions of the file, in order.
    pub(super) fn regions(&self) -> impl Iterator<Item = Region> + Send {
        let tensors = (0..self.index.tensors.len()).map(|i| (self.tensor_entry(i), Kind::Tensors));
        let records = (0..self.index.records.len()).map(|i| (self.record_entry(i), Kind::Records));
        let mut end = header::LEN as u64;
        let entries = tensors.chain(records).flat_map(move |(entry, kind)| {
            let start = entry.table.offset(entry.number);
            let padding = (entry.byte_len() > 0).then(|| {
                let range = end..start;
                end = start + entry.table.stored_len(&entry.table.row(entry.number));
                Region { range, must_be: MustBe::Zeros }
            });
            let chunks = entry.table.chunks(entry.number).enumerate();
            let chunks = chunks.map(move |(number, chunk)| Region {
                range: chunk.offset..chunk.offset + u64::from(chunk.stored_len),
                must_be: MustBe::Chunk { kind, of: entry.number, number, chunk },
            });
            padding.into_iter().chain(chunks)
        });
        entries.chain(self.tail())
    }

    /// The regions behind the last extent.
    fn tail(&self) -> impl Iterator<Item = Region> {
        let Footer { index_offset, index_len, mirror_offset, .. } = self.footer;
        let last = self.index.records.data_end();
        let mirror = mirror_offset.map(|mirror| (mirror..mirror + index_len, MustBe::Mirror));
        let tail = [
            Some((last..index_offset, MustBe::Zeros)),
            Some((index_offset..index_offset + index_len, MustBe::Index)),
            Some((self.footer.padding(), MustBe::Zeros)),
            mirror,
        ];
        tail.into_iter().flatten().map(|(range, must_be)| Region { range, must_be })
    }

    /// A region's bytes, verified.
    ///
    /// # Errors
    /// `Damaged`, `Io`, with the tensor or record that the region belongs to.
    pub(super) fn verified_bytes<'s>(&'s self, region: &Region, window: &'s mut Window) -> Result<&'s [u8]> {
        let bytes = self.bytes_at(region.range.clone(), window);
        let checked = bytes.and_then(|bytes| self.check_region(region, bytes).map(|()| bytes));
        checked
            .map_err(|error| match region.must_be {
                MustBe::Chunk { kind: Kind::Tensors, of, .. } => {
                    error.in_tensor(self.tensor_entry(of).name())
                }
                MustBe::Chunk { kind: Kind::Records, of, .. } => {
                    error.in_record(self.record_entry(of).name())
                }
                _ => error,
            })
            .map_err(|error| error.in_object(self.name()))
    }

    fn entry(&self, kind: Kind, number: usize) -> Entry<'_> {
        match kind {
            Kind::Tensors => self.tensor_entry(number),
            Kind::Records => self.record_entry(number),
        }
    }

    fn check_region(&self, region: &Region, bytes: &[u8]) -> Result<()> {
        let start = region.range.start;
        match &region.must_be {
            MustBe::Chunk { kind, of, number, chunk } => {
                self.check_again(self.entry(*kind, *of), *number, chunk, bytes)
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

    /// The copy that was read when the file was opened and this one must be the same, byte for
    /// byte. Comparing checksums alone would accept two different copies with a forged checksum.
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

    /// Bytes of the file, not verified.
    pub(super) fn bytes_at<'s>(&'s self, range: Range<u64>, window: &'s mut Window) -> Result<&'s [u8]> {
        // OK to cast: chunks are at most 64 MiB, padding is less than a page, and the index was in
        // memory before.
        if self.is_mapped() {
            let bytes = self.in_memory(range.clone());
            return bytes.ok_or_else(|| ends_early(range.start, 0, self.blob.len()));
        }
        window.get(&*self.blob, range)
    }
}

/// A window over the file, which is read in order and only once.
pub(super) struct Window {
    /// The window does not read ahead beyond this: the bytes there belong to another thread.
    pub ahead_to: u64,
    start: u64,
    /// Bytes of the buffer that are filled.
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
            // The part that is already buffered moves to the front.
            let kept = (end - range.start) as usize;
            self.buffer.copy_within(self.len - kept..self.len, 0);
            (self.start, self.len) = (range.start, kept);
        }
        if range.end > self.start + self.len as u64 {
            let to = blob.len().min(self.ahead_to).saturating_sub(self.start);
            let longer = to.min(self.len as u64 + WINDOW) as usize;
            // The bytes beyond may be the unreadable ones: retry with this range alone.
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
