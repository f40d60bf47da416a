//! Walks MessagePack without recursion and without serde: the structural check (depth, duplicate
//! keys, trailing bytes, lengths), and an upper bound of a value's size as a tree, before anything
//! is allocated for it.
//!
//! By itself, rmp-serde recurses as deep as the input nests, ignores trailing bytes, and lets the
//! last of two equal keys win.

use crate::error::{Error, Result};
use crate::format::limits::Limits;

/// Unfolded size of each value, and of each key in addition; SPEC.md has the same numbers.
const VALUE: u64 = 64;
/// Additional size of a map that is not empty: a search tree's node, with room for 11 pairs.
const MAP: u64 = 640;

/// Checks that the bytes are one well-formed value and nothing else. Returns its unfolded size, an
/// approximate upper bound of its bytes as a [`Value`](crate::format::value::Value). The check
/// itself needs 4 bytes for each key of the open maps.
///
/// # Errors
/// `Damaged`.
pub fn check(bytes: &[u8]) -> Result<u64> {
    // Keys are remembered by their positions, as u32.
    if u32::try_from(bytes.len()).is_err() {
        return Err(Error::damaged("length of the value").expected("below 4 GiB").found(bytes.len()));
    }
    let mut walker = Walker::new(bytes);
    let unfolded = walker.value()?;
    if walker.at == bytes.len() {
        return Ok(unfolded + bytes.len() as u64);
    }
    Err(Error::damaged("bytes after the end of the value").expected(walker.at).found(bytes.len()))
}

fn check_depth(depth: usize) -> Result<()> {
    let limit = Limits::V1.record_depth;
    if depth as u64 <= limit {
        return Ok(());
    }
    Err(Error::damaged("nesting").expected(format!("at most {limit} deep")))
}

pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

/// A list or map with items to come.
struct Open {
    left: u64,
    /// For a map: index of its first key among the remembered ones.
    keys: Option<usize>,
    key_next: bool,
}

/// A MessagePack marker with its count or bytes.
pub(super) enum Item<'a> {
    Scalar,
    Text(&'a [u8]),
    Bin(&'a [u8]),
    List(u64),
    Map(u64),
}

impl<'a> Walker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Walks one value without recursion: the depth is a number, not a stack. Returns the unfolded
    /// size of its parts.
    fn value(&mut self) -> Result<u64> {
        let mut open: Vec<Open> = Vec::new();
        let mut keys: Vec<u32> = Vec::new();
        let mut unfolded = 0;
        loop {
            let start = self.at;
            let item = self.item()?;
            unfolded += VALUE;
            if let Some(parent) = open.last_mut() {
                parent.left -= 1;
                if parent.keys.is_some() && parent.key_next {
                    if matches!(item, Item::List(_) | Item::Map(_)) {
                        return Err(self.wrong("a list or map as a key"));
                    }
                    unfolded += VALUE;
                    // OK to cast: the bytes are less than 4 GiB.
                    keys.push(start as u32);
                }
                parent.key_next = !parent.key_next;
            }
            match item {
                Item::List(0) | Item::Map(0) | Item::Scalar | Item::Bin(_) => {}
                Item::Text(text) => self.check_text(text)?,
                Item::List(left) => open.push(Open { left, keys: None, key_next: false }),
                Item::Map(pairs) => {
                    unfolded += MAP;
                    open.push(Open { left: pairs * 2, keys: Some(keys.len()), key_next: true });
                }
            }
            check_depth(open.len())?;
            while let Some(done) = open.pop_if(|top| top.left == 0) {
                if let Some(first) = done.keys {
                    self.check_keys(&mut keys[first..])?;
                    keys.truncate(first);
                }
            }
            if open.is_empty() {
                return Ok(unfolded);
            }
        }
    }

    /// Skips one value that is known to be well formed.
    pub(super) fn skip_value(&mut self) -> Result<()> {
        let mut left = 1;
        while left > 0 {
            left -= 1;
            match self.item()? {
                Item::List(count) => left += count,
                Item::Map(pairs) => left += pairs * 2,
                _ => {}
            }
        }
        Ok(())
    }

    /// No key occurs twice in a map. Keys are sorted in place: a set of them would take 40 times
    /// the bytes of a record.
    fn check_keys(&self, keys: &mut [u32]) -> Result<()> {
        if keys.is_sorted_by(|a, b| self.key(*a) < self.key(*b)) {
            return Ok(());
        }
        keys.sort_unstable_by(|a, b| self.key(*a).cmp(&self.key(*b)));
        let Some(twice) = keys.windows(2).find(|pair| self.key(pair[0]) == self.key(pair[1])) else {
            return Ok(());
        };
        let again = twice[0].max(twice[1]);
        Err(Error::damaged(format!(
            "key {:?} stands twice, again in byte {again} of the value",
            String::from_utf8_lossy(self.key(again).1)
        )))
    }

    /// The comparison key of a walked key: text by its bytes, anything else by its encoding.
    fn key(&self, start: u32) -> (bool, &'a [u8]) {
        let mut walker = Self { bytes: self.bytes, at: start as usize };
        match walker.item() {
            Ok(Item::Text(text)) => (true, text),
            _ => (false, &self.bytes[start as usize..walker.at]),
        }
    }

    fn check_text(&self, text: &[u8]) -> Result<()> {
        let checked = std::str::from_utf8(text);
        checked.map(drop).map_err(|error| self.wrong("text that is not UTF-8").because(error))
    }

    pub(super) fn item(&mut self) -> Result<Item<'a>> {
        let marker = self.take(1)?[0];
        let item = match marker {
            0x00..=0x7F | 0xE0..=0xFF | 0xC0 | 0xC2 | 0xC3 => Item::Scalar,
            0x80..=0x8F => Item::Map(u64::from(marker & 15)),
            0x90..=0x9F => Item::List(u64::from(marker & 15)),
            0xA0..=0xBF => Item::Text(self.take(u64::from(marker & 31))?),
            0xC1 => return Err(self.wrong("the unused marker c1")),
            0xC4..=0xC6 => Item::Bin(self.counted(1 << (marker - 0xC4), 0)?),
            0xC7..=0xC9 => self.counted(1 << (marker - 0xC7), 1).map(|_| Item::Scalar)?,
            0xCA => self.skip(4)?,
            0xCB => self.skip(8)?,
            0xCC..=0xCF => self.skip(1 << (marker - 0xCC))?,
            0xD0..=0xD3 => self.skip(1 << (marker - 0xD0))?,
            0xD4..=0xD8 => self.skip(1 + (1 << (marker - 0xD4)))?,
            0xD9..=0xDB => Item::Text(self.counted(1 << (marker - 0xD9), 0)?),
            0xDC | 0xDD => Item::List(self.number(2 << (marker - 0xDC))?),
            0xDE | 0xDF => Item::Map(self.number(2 << (marker - 0xDE))?),
        };
        // Every item takes at least one byte, and every pair two: refuse a count beyond the bytes
        // left early.
        let least = match item {
            Item::List(count) => count,
            Item::Map(pairs) => pairs * 2,
            _ => 0,
        };
        if least > (self.bytes.len() - self.at) as u64 {
            return Err(self.wrong("a count larger than the bytes left"));
        }
        Ok(item)
    }

    fn skip(&mut self, len: u64) -> Result<Item<'a>> {
        self.take(len).map(|_| Item::Scalar)
    }

    /// The bytes after a count of `width` bytes: as many as it says, and `extra` ones.
    fn counted(&mut self, width: u64, extra: u64) -> Result<&'a [u8]> {
        let len = self.number(width)?;
        self.take(len + extra)
    }

    /// A big-endian count, as in MessagePack.
    fn number(&mut self, width: u64) -> Result<u64> {
        Ok(self.take(width)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or_else(|| self.wrong("a value longer than the bytes left"))?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::damaged(format!("not MessagePack: {what}, in byte {} of the value", self.at))
    }
}
