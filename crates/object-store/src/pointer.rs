//! The commit object of a large object: its bytes, and how it is told from a plain object.
//!
//! An object of up to 1 MiB is stored at its key verbatim. A larger one is uploaded to a name of
//! its own under `objects/`, which is never listed; a *commit object* that names it is then created
//! at the key. It begins with text, padded with newlines to 1533 bytes, so that it can be
//! understood with nothing but `head`:
//!
//! ```text
//! tensorkeep commit object 1
//! target objects/0001-0000000100.tkeep/5b7711e09f1c02aa5b7711e09f1c02aa
//! nonce 0123456789abcdef0123456789abcdef
//! length 73400320
//! crc32 9f1c02aa
//! head 4096
//! tail 1048576
//! check 5b7711e0
//! ```
//!
//! Copies of the object's first bytes and of its tail follow, so that one read opens it, and zeros
//! up to a length that leaves [`HEADER`] when divided by 4096: a listing, which knows only lengths,
//! needs to read few other objects. `crc32` is of the whole object, `check` of the text before it
//! and both copies.

use crate::remote::DATA;
use bytes::Bytes;
use std::ops::Range;
use tensorkeep::engine::Nonce;
use tensorkeep::{Error, ErrorKind, Result};

/// Length of the text.
pub(crate) const HEADER: usize = 1533;
/// Commit objects are padded to a multiple of this, and [`HEADER`].
const GRAIN: u64 = 4096;
const MAGIC: &str = "tensorkeep commit object 1\n";
/// Copies are at most this long: they add to the cost of reading a commit object.
const LONGEST_COPY: u64 = 64 << 20;

/// A commit object's text, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The path of the object's bytes, relative to the run.
    pub target: String,
    pub nonce: Nonce,
    /// Length of the object.
    pub len: u64,
    /// Checksum of the object.
    pub crc: u32,
    /// Lengths of the copies of its first and last bytes.
    pub head: u64,
    pub tail: u64,
    check: u32,
}

/// Whether a length is one that commit objects have.
pub(crate) fn may_be_pointer(len: u64) -> bool {
    len >= HEADER as u64 && len % GRAIN == HEADER as u64 && len <= 3 * LONGEST_COPY
}

/// Whether an object that is no commit object could be mistaken for one.
pub(crate) fn looks_like_pointer(bytes: &[u8]) -> bool {
    may_be_pointer(bytes.len() as u64) && bytes.starts_with(MAGIC.as_bytes())
}

impl Pointer {
    /// The bytes of a commit object.
    pub(crate) fn encode(
        target: &str,
        nonce: Nonce,
        (len, crc): (u64, u32),
        head: &[u8],
        tail: &[u8],
    ) -> Vec<u8> {
        let mut text =
            format!("{MAGIC}target {target}\nnonce {}\nlength {len}\ncrc32 {crc:08x}\n", hex(nonce));
        text += &format!("head {}\ntail {}\n", head.len(), tail.len());
        let check = check(&text, head, tail);
        text += &format!("check {check:08x}\n");
        debug_assert!(text.len() <= HEADER, "keys have at most 803 bytes");
        let mut bytes = text.into_bytes();
        bytes.resize(HEADER, b'\n');
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(tail);
        let content = (bytes.len() - HEADER) as u64;
        bytes.resize(HEADER + content.next_multiple_of(GRAIN) as usize, 0);
        bytes
    }

    /// The text of a commit object; None for another object.
    ///
    /// # Errors
    /// `Damaged` for a commit object whose text is inconsistent.
    pub(crate) fn parse(header: &[u8]) -> Result<Option<Self>> {
        if !header.starts_with(MAGIC.as_bytes()) {
            return Ok(None);
        }
        let text = header.get(..HEADER).and_then(|text| std::str::from_utf8(text).ok());
        let pointer = text.and_then(Self::parse_text);
        pointer.map(Some).ok_or_else(|| damaged("the text of the commit object"))
    }

    /// Whether it is the commit object of this key, and not a copy of another's, whose bytes are
    /// deleted with that one.
    pub(crate) fn is_of(&self, key: &str) -> bool {
        let rest = self.target.strip_prefix(DATA).and_then(|rest| rest.strip_prefix('/'));
        let name = rest.and_then(|rest| rest.strip_prefix(key)).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut lines = text.strip_prefix(MAGIC)?.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let pointer = Self {
            target: field("target")?.to_owned(),
            nonce: u128::from_str_radix(field("nonce")?, 16).ok()?.to_be_bytes(),
            len: field("length")?.parse().ok()?,
            crc: u32::from_str_radix(field("crc32")?, 16).ok()?,
            head: field("head")?.parse().ok()?,
            tail: field("tail")?.parse().ok()?,
            check: u32::from_str_radix(field("check")?, 16).ok()?,
        };
        let copies = pointer.len.min(LONGEST_COPY);
        let rest_is_empty = lines.all(str::is_empty);
        (rest_is_empty && pointer.head <= copies && pointer.tail <= copies).then_some(pointer)
    }

    /// The copies of the object's first and last bytes in the whole commit object.
    ///
    /// # Errors
    /// `Damaged` when their checksum differs.
    pub(crate) fn copies(&self, bytes: &Bytes) -> Result<(Bytes, Bytes)> {
        let (head, tail) = self.places();
        if (bytes.len() as u64) < tail.end {
            return Err(damaged("the commit object is cut short")
                .expected(format!("at least {} bytes", tail.end))
                .found(bytes.len()));
        }
        // OK to cast: the bytes are in memory.
        let part = |range: Range<u64>| bytes.slice(range.start as usize..range.end as usize);
        let (head, tail) = (part(head), part(tail));
        let text_end = bytes.windows(6).position(|six| six == b"check ").unwrap_or(0);
        let text = std::str::from_utf8(&bytes[..text_end]).unwrap_or_default();
        let found = check(text, &head, &tail);
        if found != self.check {
            return Err(damaged("checksum of the commit object")
                .expected(format!("{:08x}", self.check))
                .found(format!("{found:08x}")));
        }
        Ok((head, tail))
    }

    /// The ranges of the copies in the commit object.
    fn places(&self) -> (Range<u64>, Range<u64>) {
        let head = HEADER as u64..HEADER as u64 + self.head;
        let tail = head.end..head.end + self.tail;
        (head, tail)
    }
}

fn check(text: &str, head: &[u8], tail: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for bytes in [text.as_bytes(), head, tail] {
        hasher.update(bytes);
    }
    hasher.finalize()
}

fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Damaged, what).help("resume from an older checkpoint")
}

/// A nonce in metadata and names.
pub(crate) fn hex(nonce: Nonce) -> String {
    format!("{:032x}", u128::from_be_bytes(nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> Bytes {
        let target = "objects/0001-0000000100.tkeep/aa";
        Pointer::encode(target, [7; 16], (9_000_000, 0xabcd), &[1; 4096], &[2; 10_000]).into()
    }

    #[test]
    fn a_commit_object_decodes_to_its_parts() {
        let bytes = encoded();
        assert!(looks_like_pointer(&bytes));
        let pointer = Pointer::parse(&bytes).unwrap().unwrap();
        assert_eq!((pointer.len, pointer.crc, pointer.nonce), (9_000_000, 0xabcd, [7; 16]));
        let (head, tail) = pointer.copies(&bytes).unwrap();
        assert_eq!((&head[..], &tail[..]), (&[1; 4096][..], &[2; 10_000][..]));
    }

    #[test]
    fn other_objects_are_none() {
        assert_eq!(Pointer::parse(b"").unwrap(), None);
        assert_eq!(Pointer::parse(&[0; 5000]).unwrap(), None);
        assert!(!may_be_pointer(0) && !may_be_pointer(4096) && may_be_pointer(HEADER as u64));
    }

    #[test]
    fn every_flipped_bit_of_text_and_copies_is_found() {
        let bytes = encoded();
        for at in 0..HEADER + 14_096 {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            let flipped = Bytes::from(flipped);
            let read = Pointer::parse(&flipped).and_then(|pointer| match pointer {
                Some(pointer) => pointer.copies(&flipped).map(|_| pointer.len),
                None => Ok(0),
            });
            assert!(!matches!(read, Ok(len) if len != 0), "byte {at}: {read:?}");
        }
        assert!(Pointer::parse(&bytes).unwrap().unwrap().copies(&bytes.slice(..9000)).is_err());
    }
}
