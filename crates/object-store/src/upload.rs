//! One upload: cutting it into parts, the data kept for the commit object, and the commit. Memory:
//! at most `PARTS_IN_FLIGHT` parts in flight, one being filled and one kept for its end; no
//! temporary file.

use crate::commit::Outcome;
use crate::error::explain;
use crate::parts::{MOST_PARTS, PART, Parts};
use crate::pointer::{Pointer, looks_like_pointer};
use crate::remote::Remote;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tensorkeep::engine::{CommitError, Nonce, Upload};
use tensorkeep::{Error, ErrorKind, Result};

/// Larger objects are stored apart, with a commit object: opening reads everything at a key.
pub(crate) const LARGEST_PLAIN: usize = 1 << 20;
/// Copies of the object's ends in a commit object: of the beginning, and of the end when the caller
/// does not say where the tail begins that readers need first.
const HEAD_COPY: usize = 4096;
const SHORT_TAIL: usize = 64 << 10;
/// A longer tail, the index of a million tensors, is not copied, and only the end of it is.
const LONGEST_TAIL: usize = 64 << 20;
/// From this length on, a known checksum is combined and not computed again.
const COMBINE_FROM: usize = 64 << 10;

/// An object being uploaded.
pub(crate) struct ObjectUpload {
    remote: Arc<Remote>,
    key: String,
    part_len: usize,
    /// The part being filled.
    buffer: BytesMut,
    crc: crc32fast::Hasher,
    len: u64,
    head: Vec<u8>,
    /// The part sent last: a short tail may begin in it.
    last_part: Bytes,
    /// The bytes since the tail began.
    tail: Option<Vec<u8>>,
    parts: Option<Parts>,
    failed: bool,
}

/// The part length of an object of `size` bytes: as few parts as stores accept, and one to spare.
fn part_len(size: u64) -> usize {
    let needed = size.div_ceil(MOST_PARTS - 1);
    usize::try_from(needed).unwrap_or(usize::MAX).max(PART)
}

/// The part length of objects that are `total` bytes in all. A store takes 3,500 writes a second
/// under one prefix: so many parts take it some 20 seconds.
fn part_len_of_all(total: u64) -> usize {
    const MOST_PARTS_OF_ALL: u64 = 70_000;
    const LARGEST: usize = 128 << 20;
    usize::try_from(total.div_ceil(MOST_PARTS_OF_ALL)).unwrap_or(LARGEST).clamp(PART, LARGEST)
}

impl ObjectUpload {
    /// `total` is the length of all objects that are uploaded at once, by many processes.
    pub(crate) fn start(remote: Arc<Remote>, key: &str, size_hint: Option<u64>, total: u64) -> Self {
        let part_len = part_len(size_hint.unwrap_or(0)).max(part_len_of_all(total));
        let first = usize::try_from(size_hint.unwrap_or(0)).unwrap_or(usize::MAX).min(part_len);
        Self {
            remote,
            key: key.to_owned(),
            part_len,
            buffer: BytesMut::with_capacity(first),
            crc: crc32fast::Hasher::new(),
            len: 0,
            head: Vec::new(),
            last_part: Bytes::new(),
            tail: None,
            parts: None,
            failed: false,
        }
    }

    /// Appends bytes that the checksum includes already.
    fn append_summed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Io, "the upload has failed before"));
        }
        self.len += bytes.len() as u64;
        let appended = self.append_parts(bytes);
        self.failed = appended.is_err();
        // One byte beyond the limit shows that it is too long, and takes no more memory.
        if let Some(tail) = &mut self.tail {
            let room = (LONGEST_TAIL + 1).saturating_sub(tail.len());
            tail.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        appended
    }

    fn append_parts(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // Sent when more arrives and not when it is full: an object of exactly one part is a
            // plain one.
            if self.buffer.len() == self.part_len {
                self.send_part()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part_len - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn send_part(&mut self) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                self.head = self.buffer[..HEAD_COPY.min(self.buffer.len())].to_vec();
                self.parts.insert(Parts::start(&self.remote, &self.key, self.part_len)?)
            }
        };
        // Used memory is warm: the kernel clears every page of new memory first.
        let next = parts.free.take().unwrap_or_else(|| BytesMut::with_capacity(self.part_len));
        self.last_part = std::mem::replace(&mut self.buffer, next).freeze();
        parts.send(self.last_part.clone())
    }

    /// The object's last bytes, as many as opening it needs.
    fn tail(&mut self) -> Vec<u8> {
        let tail = self.tail.take().filter(|tail| tail.len() <= LONGEST_TAIL);
        tail.unwrap_or_else(|| self.last_bytes())
    }

    /// The last bytes so far: readers request the end of a file, and the records before the index,
    /// before they know where the index begins.
    fn last_bytes(&self) -> Vec<u8> {
        let from_buffer = self.buffer.len().min(SHORT_TAIL);
        let from_part = (SHORT_TAIL - from_buffer).min(self.last_part.len());
        let mut tail = self.last_part[self.last_part.len() - from_part..].to_vec();
        tail.extend_from_slice(&self.buffer[self.buffer.len() - from_buffer..]);
        tail
    }

    /// The bytes to create at the key: the object itself, or the commit object of one stored apart.
    fn finish(&mut self, nonce: Nonce) -> Result<Bytes> {
        if self.failed {
            return Err(Error::new(ErrorKind::Io, "the upload had failed before its commit"));
        }
        let small = self.parts.is_none() && self.buffer.len() <= LARGEST_PLAIN;
        if small && !looks_like_pointer(&self.buffer) {
            return Ok(std::mem::take(&mut self.buffer).freeze());
        }
        let tail = self.tail();
        let crc = std::mem::take(&mut self.crc).finalize();
        self.send_part()?;
        let Some(parts) = &mut self.parts else { return Ok(Bytes::new()) };
        parts.complete(self.len)?;
        Ok(Pointer::encode(&parts.target, nonce, (self.len, crc), &self.head, &tail).into())
    }
}

impl Upload for ObjectUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.append_summed(bytes)
    }

    fn append_with_crc(&mut self, bytes: &[u8], crc32: u32) -> Result<()> {
        // Combining costs as much as reading a few KiB.
        if bytes.len() < COMBINE_FROM {
            return self.append(bytes);
        }
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(crc32, bytes.len() as u64));
        self.append_summed(bytes)
    }

    fn begin_tail(&mut self) {
        self.tail = Some(self.last_bytes());
    }

    fn commit(mut self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        let bytes = self.finish(nonce).map_err(CommitError::NotCommitted)?;
        let outcome = self.remote.create(&self.key, bytes, nonce).map_err(CommitError::Unknown)?;
        let result = committed(&self.remote, &self.key, outcome);
        if result.is_ok() {
            self.remote.sweep_some();
        }
        if let Some(parts) = &mut self.parts {
            // An uncommitted object is named by no commit; one that may be committed must stay.
            parts.done = matches!(result, Ok(()) | Err(CommitError::Unknown(_)));
        }
        result
    }
}

/// The outcome of a commit to a key, as a result.
pub(crate) fn committed(remote: &Remote, key: &str, outcome: Outcome) -> Result<(), CommitError> {
    let explained = |error| explain("committing", &remote.describe(key), error);
    match outcome {
        Outcome::Committed => Ok(()),
        Outcome::Conflict => Err(CommitError::Conflict(already_there(&remote.describe(key)))),
        Outcome::NotCommitted(error) => Err(CommitError::NotCommitted(explained(error))),
        Outcome::Unknown(error) => Err(CommitError::Unknown(explained(error).help(
            "every try to read it back failed or found nothing yet: look again when the store answers",
        ))),
    }
}

pub(crate) fn already_there(object: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "is committed already and never written again").in_object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_every_size_suffice_and_are_small_while_they_can_be() {
        assert_eq!((part_len(0), part_len(80_000_000_000)), (PART, PART));
        for size in [1 << 36, 1 << 40, 5 << 40, u64::MAX] {
            let parts = size.div_ceil(part_len(size) as u64);
            assert!(parts <= MOST_PARTS, "{size} bytes are {parts} parts");
        }
    }

    #[test]
    fn the_parts_of_many_ranks_grow_with_what_they_save_together() {
        let parts = |total: u64| total.div_ceil(part_len_of_all(total) as u64);
        assert_eq!(part_len_of_all(112_000_000_000), PART);
        for total in [1 << 30, 1 << 38, 980_000_000_000, 5_670_000_000_000] {
            assert!(parts(total) <= 70_000, "{total} bytes are {} parts", parts(total));
        }
        // A trillion parameters with Adam: no more memory than this, and as few requests as it
        // allows.
        assert_eq!((part_len_of_all(14_000_000_000_000), parts(14_000_000_000_000)), (128 << 20, 104_309));
    }
}
