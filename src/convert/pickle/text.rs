//! What pickle's opcodes of text write: numbers in decimal, strings with escapes.

use super::Node;
use crate::error::{Error, Result};
use std::borrow::Cow;

pub fn bad(what: &'static str) -> Error {
    Error::damaged(format!("not a pickle: {what}"))
}

/// An integer of little-endian two's complement bytes.
pub fn integer(bytes: &[u8]) -> Node<'_> {
    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 };
    if bytes.get(8..).is_some_and(|rest| !rest.is_empty()) {
        let fits = bytes[8..].iter().all(|&byte| byte == sign) && (bytes[7] ^ sign) & 0x80 == 0;
        if !fits {
            return Node::BigInt(Cow::Borrowed(bytes));
        }
    }
    let mut full = [sign; 8];
    let len = bytes.len().min(8);
    full[..len].copy_from_slice(&bytes[..len]);
    Node::Int(i64::from_le_bytes(full))
}

/// A line of digits; `00` and `01` are how protocol 0 writes truth values.
pub fn decimal<'p>(line: &str) -> Result<Node<'p>> {
    let digits = line.strip_suffix('L').unwrap_or(line);
    match digits {
        "00" => return Ok(Node::Bool(false)),
        "01" => return Ok(Node::Bool(true)),
        _ => {}
    }
    if let Ok(value) = digits.parse() {
        return Ok(Node::Int(value));
    }
    // Beyond 128 bits nobody writes decimals: they are of protocols 0 and 1.
    let value: i128 = digits.parse().map_err(|_| bad("an integer that is none"))?;
    Ok(Node::BigInt(Cow::Owned(value.to_le_bytes().to_vec())))
}

/// `\uXXXX` and `\UXXXXXXXX` in text that is Latin-1 otherwise.
pub fn raw_unicode(line: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let digits = match rest {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => 0,
        };
        let code = rest.get(2..2 + digits).filter(|_| digits > 0).and_then(hexadecimal);
        match code {
            Some(code) => {
                text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = &rest[2 + digits..];
            }
            None => {
                text.push(char::from(*byte));
                rest = tail;
            }
        }
    }
    text
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The `repr` of a Python 2 string: quoted, with escapes.
pub fn quoted(line: &[u8]) -> Result<Vec<u8>> {
    let inner = match line {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
        _ => return Err(bad("a string without its quotes")),
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let [escaped, tail @ ..] = rest else { return Err(bad("a string that ends within an escape")) };
        rest = tail;
        bytes.push(match escaped {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'x' => {
                let code =
                    rest.get(..2).and_then(hexadecimal).ok_or_else(|| bad("an escape that is none"))?;
                rest = &rest[2..];
                // OK to cast: two digits.
                code as u8
            }
            other => *other,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integers_of_any_length_keep_their_sign() {
        for expected in [0, 127, -1, -128, -129, -(1 << 31) - 1, -(1 << 40), 1 << 39, i64::MIN, i64::MAX] {
            let full = expected.to_le_bytes();
            // As few bytes as hold it, as Python writes it, and more.
            let sign = if expected < 0 { 0xFF } else { 0 };
            let fewest = (0..8).find(|&len| {
                let signed = len == 0 || (full[len - 1] ^ sign) & 0x80 == 0;
                signed && (len > 0 || expected == 0) && full[len..].iter().all(|byte| *byte == sign)
            });
            for len in fewest.unwrap_or(8)..=8 {
                assert_eq!(integer(&full[..len]), Node::Int(expected), "{len} bytes");
            }
            let longer = [&full[..], &[sign; 3]].concat();
            assert_eq!(integer(&longer), Node::Int(expected), "longer than it need be");
        }
        let beyond = [0, 0, 0, 0, 0, 0, 0, 0x80, 0];
        assert_eq!(integer(&beyond), Node::BigInt(Cow::Borrowed(&beyond)));
    }

    #[test]
    fn text_of_the_old_protocols_is_read_with_its_escapes() {
        assert_eq!(raw_unicode(b"a\\u00df\xe4\\U0001f600\\x"), "aß\u{e4}\u{1f600}\\x");
        assert_eq!(quoted(br"'it\'s \x00\n\\'").unwrap(), b"it's \x00\n\\");
        assert!(quoted(b"'open").is_err() && quoted(b"'\\").is_err() && quoted(b"'\\x1'").is_err());
        assert_eq!(decimal("-5L").unwrap(), Node::Int(-5));
        assert_eq!(decimal("01").unwrap(), Node::Bool(true));
        assert!(matches!(decimal("18446744073709551615L").unwrap(), Node::BigInt(_)));
    }
}
