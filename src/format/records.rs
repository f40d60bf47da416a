//! Records: MessagePack behind one guarded door. Owns: the structural check (depth, duplicate keys, trailing bytes,
//! lengths) that every MessagePack byte of a file passes before serde sees it.
//!
//! rmp-serde by itself recurses as deep as the bytes say, ignores trailing bytes, and lets the last of two equal keys win.

use super::limits::Limits;
use crate::error::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Encodes a record by field names, and refuses what [`decode`] would refuse.
///
/// # Errors
/// `Invalid` when serde refuses, `LimitExceeded` beyond [`Limits`].
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let bytes = rmp_serde::to_vec_named(value)
        .map_err(|error| Error::invalid("the value cannot be a record").because(error))?;
    let limit = Limits::V1.record_bytes;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::LimitExceeded, "length of the record")
            .expected(format!("at most {limit} bytes"))
            .found(bytes.len())
            .help("store large arrays as tensors"));
    }
    check(&bytes).map_err(|error| error.with_kind(ErrorKind::Invalid))?;
    Ok(bytes)
}

/// Encodes this crate's own structs of byte columns, which cannot fail.
pub(super) fn encode_trusted<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("a struct of byte strings is always MessagePack")
}

/// Decodes bytes from a file, after their checksum was verified.
///
/// # Errors
/// `Damaged` when the bytes are not one well-formed value within the limits; `Mismatch` when they are, but not a `T`.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    check(bytes)?;
    rmp_serde::from_slice(bytes).map_err(|error| {
        Error::new(ErrorKind::Mismatch, format!("the record is not a {}", short_type_name::<T>()))
            .because(error)
    })
}

/// As [`decode`], for types that borrow nothing.
///
/// # Errors
/// As [`decode`].
pub fn decode_owned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    decode(bytes)
}

/// Decodes a map of binary columns: the library's own structs. Columns that the struct does not have are ignored.
///
/// # Errors
/// `Damaged` when the bytes are anything else, or a column is missing.
pub(super) fn decode_columns<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    check(bytes)?;
    let mut walker = Walker { bytes, at: 0 };
    let Item::Map(pairs) = walker.item()? else { return Err(walker.wrong("no map of columns")) };
    for _ in 0..pairs {
        let (key, marker) = (walker.item()?, walker.bytes.get(walker.at));
        if !matches!((key, marker), (Item::Text(_), Some(0xC4..=0xC6))) {
            return Err(walker.wrong("a column that is not bytes under a name"));
        }
        walker.item()?;
    }
    rmp_serde::from_slice(bytes).map_err(|error| Error::damaged("a column is missing").because(error))
}

/// About how many bytes a record takes as a [`Value`](super::value::Value): 32 each, doubled for the growth of lists, and
/// what text and maps keep elsewhere.
///
/// # Errors
/// `Damaged` when the bytes are not one well-formed value within the limits.
pub fn size_as_value(bytes: &[u8]) -> Result<u64> {
    /// The node of a map, with room for 11 pairs.
    const MAP: u64 = 640;
    check(bytes)?;
    let mut walker = Walker { bytes, at: 0 };
    let mut size = 0;
    while walker.at < bytes.len() {
        let start = walker.at;
        let elsewhere = match walker.item()? {
            Item::Map(0) | Item::List(_) => 0,
            Item::Map(pairs) => MAP + 64 * pairs,
            Item::Scalar | Item::Text(_) => (walker.at - start) as u64,
        };
        size += 64 + elsewhere;
    }
    Ok(size)
}

fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let generic = name.find('<').unwrap_or(name.len());
    name[..generic].rfind("::").map_or(name, |at| &name[at + 2..])
}

/// One well-formed value and nothing behind it.
pub fn check(bytes: &[u8]) -> Result<()> {
    let mut walker = Walker { bytes, at: 0 };
    walker.value()?;
    if walker.at == bytes.len() {
        return Ok(());
    }
    Err(Error::damaged("bytes after the end of the value").expected(walker.at).found(bytes.len()))
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A list or map whose items are still to come.
struct Open<'a> {
    left: u64,
    keys: Option<HashSet<(bool, &'a [u8])>>,
    key_next: bool,
}

/// What one MessagePack marker announces.
enum Item<'a> {
    Scalar,
    Text(&'a [u8]),
    List(u64),
    Map(u64),
}

impl<'a> Walker<'a> {
    /// Walks one value without recursion: the depth is a number here, not a stack.
    fn value(&mut self) -> Result<()> {
        let mut open: Vec<Open<'a>> = Vec::new();
        loop {
            let start = self.at;
            let item = self.item()?;
            if let Some(parent) = open.last_mut() {
                parent.left -= 1;
                if let Some(keys) = parent.keys.as_mut().filter(|_| parent.key_next) {
                    let key = match item {
                        Item::Text(text) => (true, text),
                        Item::Scalar => (false, &self.bytes[start..self.at]),
                        _ => return Err(self.wrong("a list or map as a key")),
                    };
                    if !keys.insert(key) {
                        return Err(Error::damaged(format!(
                            "key {:?} stands twice, again in byte {start} of the value",
                            String::from_utf8_lossy(key.1)
                        )));
                    }
                }
                parent.key_next = !parent.key_next;
            }
            match item {
                Item::List(0) | Item::Map(0) | Item::Scalar | Item::Text(_) => {}
                Item::List(left) => open.push(Open { left, keys: None, key_next: false }),
                Item::Map(pairs) => {
                    open.push(Open { left: pairs * 2, keys: Some(HashSet::new()), key_next: true })
                }
            }
            if open.len() as u64 > Limits::V1.record_depth {
                return Err(
                    Error::damaged("nesting").expected(format!("at most {} deep", Limits::V1.record_depth))
                );
            }
            while open.last().is_some_and(|top| top.left == 0) {
                open.pop();
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    fn item(&mut self) -> Result<Item<'a>> {
        let marker = self.take(1)?[0];
        let item = match marker {
            0x00..=0x7F | 0xE0..=0xFF | 0xC0 | 0xC2 | 0xC3 => Item::Scalar,
            0x80..=0x8F => Item::Map(u64::from(marker & 15)),
            0x90..=0x9F => Item::List(u64::from(marker & 15)),
            0xA0..=0xBF => self.text(u64::from(marker & 31))?,
            0xC1 => return Err(self.wrong("the unused marker c1")),
            0xC4..=0xC6 => self.skip_counted(1 << (marker - 0xC4), 0)?,
            0xC7..=0xC9 => self.skip_counted(1 << (marker - 0xC7), 1)?,
            0xCA => self.skip(4)?,
            0xCB => self.skip(8)?,
            0xCC..=0xCF => self.skip(1 << (marker - 0xCC))?,
            0xD0..=0xD3 => self.skip(1 << (marker - 0xD0))?,
            0xD4..=0xD8 => self.skip(1 + (1 << (marker - 0xD4)))?,
            0xD9..=0xDB => {
                let len = self.number(1 << (marker - 0xD9))?;
                self.text(len)?
            }
            0xDC | 0xDD => Item::List(self.number(2 << (marker - 0xDC))?),
            0xDE | 0xDF => Item::Map(self.number(2 << (marker - 0xDE))?),
        };
        // Every item takes at least a byte (two for a pair): a count beyond what is left is a lie, told early.
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

    fn text(&mut self, len: u64) -> Result<Item<'a>> {
        let text = self.take(len)?;
        match std::str::from_utf8(text) {
            Ok(_) => Ok(Item::Text(text)),
            Err(error) => Err(self.wrong("text that is not UTF-8").because(error)),
        }
    }

    fn skip(&mut self, len: u64) -> Result<Item<'a>> {
        self.take(len).map(|_| Item::Scalar)
    }

    fn skip_counted(&mut self, width: u64, extra: u64) -> Result<Item<'a>> {
        let len = self.number(width)?;
        self.skip(len + extra)
    }

    /// A big-endian count, as MessagePack has them.
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

    fn wrong(&self, what: &str) -> Error {
        Error::damaged(format!("not MessagePack: {what}, in byte {} of the value", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Adam {
        lr: f64,
        betas: (f32, f32),
        history: Vec<f32>,
        name: Option<String>,
    }

    #[test]
    fn a_record_survives_the_round_trip_bit_for_bit() {
        let adam =
            Adam { lr: 0.1 + 0.2, betas: (0.9, 0.999), history: vec![f32::MIN_POSITIVE, -0.0], name: None };
        let bytes = encode(&adam).unwrap();
        assert_eq!(decode::<Adam>(&bytes).unwrap(), adam);
        let error = decode::<BTreeMap<String, u8>>(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    }

    #[test]
    fn nesting_trailing_bytes_and_duplicate_keys_are_refused() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0x01]].concat();
        assert!(check(&nested(32)).is_ok());
        assert!(check(&nested(33)).unwrap_err().to_string().contains("nesting"));
        assert!(check(&nested(100_000)).is_err());
        assert!(check(&[0x01, 0x01]).unwrap_err().to_string().contains("after the end"));
        // {"a": 1, "a": 2}, the second time with the long form of the key
        let twice = [0x82, 0xA1, b'a', 1, 0xD9, 1, b'a', 2];
        assert!(check(&twice).unwrap_err().to_string().contains("twice"));
        assert!(check(&[0x82, 0xA1, b'a', 1, 0xA1, b'b', 2]).is_ok());
    }

    #[test]
    fn lying_counts_and_cut_values_are_refused_before_anything_is_allocated() {
        for bytes in [
            &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF][..],
            &[0xDF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xC6, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xDB, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xC9, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xCB, 0, 0],
            &[0xC1],
            &[0xA1, 0xFF],
            &[0x81, 0x90, 0x01],
            &[],
        ] {
            assert_eq!(check(bytes).unwrap_err().kind(), ErrorKind::Damaged, "{bytes:x?}");
        }
    }
}
