//! The marker and scalar content of one MessagePack value, from a record that was checked as a
//! whole. A truncated value is an error here, too: nothing relies on that check.

use crate::error::Error;

/// A scalar, or the header of a list or map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'b> {
    Nil,
    Bool(bool),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Text(&'b str),
    Bin(&'b [u8]),
    List(usize),
    Map(usize),
    Ext(i8, &'b [u8]),
}

/// Takes the next item off the front.
pub(super) fn take<'b>(bytes: &mut &'b [u8]) -> Result<Item<'b>, Error> {
    let [marker] = array(bytes)?;
    Ok(match marker {
        0x00..=0x7F => Item::U64(u64::from(marker)),
        // OK to cast: these are negative numbers in two's complement.
        0xE0..=0xFF => Item::I64(i64::from(marker as i8)),
        0x80..=0x8F => Item::Map(usize::from(marker & 15)),
        0x90..=0x9F => Item::List(usize::from(marker & 15)),
        0xA0..=0xBF => text(bytes, usize::from(marker & 31))?,
        0xC0 => Item::Nil,
        0xC1 => return Err(Error::damaged("the unused marker c1 in a record")),
        0xC2 | 0xC3 => Item::Bool(marker == 0xC3),
        0xC4..=0xC6 => {
            let len = count(bytes, marker - 0xC4)?;
            Item::Bin(slice(bytes, len)?)
        }
        0xC7..=0xC9 => {
            let len = count(bytes, marker - 0xC7)?;
            extension(bytes, len)?
        }
        0xCA => Item::F32(f32::from_be_bytes(array(bytes)?)),
        0xCB => Item::F64(f64::from_be_bytes(array(bytes)?)),
        0xCC => Item::U64(u8::from_be_bytes(array(bytes)?).into()),
        0xCD => Item::U64(u16::from_be_bytes(array(bytes)?).into()),
        0xCE => Item::U64(u32::from_be_bytes(array(bytes)?).into()),
        0xCF => Item::U64(u64::from_be_bytes(array(bytes)?)),
        0xD0 => Item::I64(i8::from_be_bytes(array(bytes)?).into()),
        0xD1 => Item::I64(i16::from_be_bytes(array(bytes)?).into()),
        0xD2 => Item::I64(i32::from_be_bytes(array(bytes)?).into()),
        0xD3 => Item::I64(i64::from_be_bytes(array(bytes)?)),
        0xD4..=0xD8 => extension(bytes, 1 << (marker - 0xD4))?,
        0xD9..=0xDB => {
            let len = count(bytes, marker - 0xD9)?;
            text(bytes, len)?
        }
        0xDC | 0xDD => Item::List(count(bytes, marker - 0xDC + 1)?),
        0xDE | 0xDF => Item::Map(count(bytes, marker - 0xDE + 1)?),
    })
}

/// Takes a whole value off the front, nested values included.
pub(super) fn skip(bytes: &mut &[u8]) -> Result<(), Error> {
    let mut left = 1_usize;
    while left > 0 {
        let items = match take(bytes)? {
            Item::List(count) => count,
            Item::Map(pairs) => pairs.saturating_mul(2),
            _ => 0,
        };
        left = (left - 1).saturating_add(items);
    }
    Ok(())
}

/// A key as a part of a path, if it is text or a number.
pub(super) fn key_text(mut bytes: &[u8]) -> Option<String> {
    match take(&mut bytes).ok()? {
        Item::Text(text) => Some(text.to_owned()),
        Item::U64(number) => Some(number.to_string()),
        Item::I64(number) => Some(number.to_string()),
        Item::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn slice<'b>(bytes: &mut &'b [u8], len: usize) -> Result<&'b [u8], Error> {
    let cut = || Error::damaged("a value longer than the bytes left in a record");
    let (taken, rest) = bytes.split_at_checked(len).ok_or_else(cut)?;
    *bytes = rest;
    Ok(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    // OK to default: a slice of this length becomes an array of it.
    Ok(slice(bytes, N)?.try_into().unwrap_or([0; N]))
}

/// A count of 1, 2 or 4 bytes.
fn count(bytes: &mut &[u8], log2: u8) -> Result<usize, Error> {
    let digits = slice(bytes, 1 << log2)?;
    Ok(digits.iter().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

fn text<'b>(bytes: &mut &'b [u8], len: usize) -> Result<Item<'b>, Error> {
    let text = std::str::from_utf8(slice(bytes, len)?);
    text.map(Item::Text).map_err(|error| Error::damaged("text that is not UTF-8 in a record").because(error))
}

fn extension<'b>(bytes: &mut &'b [u8], len: usize) -> Result<Item<'b>, Error> {
    let [kind] = array(bytes)?;
    // OK to cast: the type of an extension is two's complement.
    Ok(Item::Ext(kind as i8, slice(bytes, len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_value_is_an_error() {
        let whole = rmp_serde::to_vec(&("text", 300_u16, -70_000_i64, 0.5_f64, vec![1_u8; 20])).unwrap();
        let mut all = &whole[..];
        skip(&mut all).unwrap();
        assert!(all.is_empty());
        for len in 0..whole.len() {
            assert!(skip(&mut &whole[..len]).is_err(), "{len}");
        }
    }
}
