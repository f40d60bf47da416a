//! Text in pickle opcodes: decimal numbers, strings with escapes.

use super::Node;
use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;

/// Python's own limit for decimals: reading one takes quadratic time.
const MOST_DIGITS: usize = 4300;

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

/// A line of digits; protocol 0 writes bools as `00` and `01`.
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
    let (is_negative, magnitude) = match digits.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    if magnitude.is_empty() || !magnitude.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad("an integer that is none"));
    }
    if magnitude.len() > MOST_DIGITS {
        return Err(Error::new(ErrorKind::LimitExceeded, "a decimal integer in the pickle")
            .expected(format!("at most {MOST_DIGITS} digits, as in Python"))
            .found(magnitude.len())
            .help("save it with pickle protocol 2 or later, which torch uses by default"));
    }
    Ok(Node::BigInt(Cow::Owned(twos_complement(magnitude, is_negative))))
}

/// The fewest little-endian bytes that hold a decimal, as protocol 2 writes them.
fn twos_complement(magnitude: &str, is_negative: bool) -> Vec<u8> {
    // In units of 32 bits, the lowest first.
    let mut units: Vec<u32> = Vec::new();
    for digits in magnitude.as_bytes().chunks(9) {
        let (mut carry, mut scale) = (0, 1);
        for digit in digits {
            (carry, scale) = (carry * 10 + u64::from(digit - b'0'), scale * 10);
        }
        for unit in &mut units {
            let product = u64::from(*unit) * scale + carry;
            // OK to cast: the lower half.
            (*unit, carry) = (product as u32, product >> 32);
        }
        units.extend((carry > 0).then_some(carry as u32));
    }
    let mut bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).chain([0]).collect();
    if is_negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let sign = if is_negative { 0xFF } else { 0 };
    while let [.., before, last] = bytes[..]
        && last == sign
        && (before ^ sign) & 0x80 == 0
    {
        bytes.pop();
    }
    bytes
}

/// `\uXXXX` and `\UXXXXXXXX` in text that is otherwise Latin-1.
pub fn raw_unicode(line: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let digits = match rest {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => 0,
        };
        let code = if digits > 0 { rest.get(2..2 + digits).and_then(hexadecimal) } else { None };
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
            // From as few bytes as hold it, as Python writes it, up to 8.
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

    #[test]
    fn decimals_of_any_length_are_as_protocol_2_has_them() {
        let bytes = |bytes: &[u8]| Node::BigInt(Cow::Owned(bytes.to_vec()));
        let power = "1606938044258990275541962092341162602522202993782792835301376";
        let mut of_200 = vec![0; 25];
        of_200.push(1);
        assert_eq!(decimal(&format!("{power}L")).unwrap(), bytes(&of_200));
        of_200[25] = 0xFF;
        assert_eq!(decimal(&format!("-{power}L")).unwrap(), bytes(&of_200));
        let below = i128::from(i64::MIN) - 1;
        assert_eq!(decimal(&below.to_string()).unwrap(), bytes(&below.to_le_bytes()[..9]));
        for value in [i128::MIN, i128::MAX, -(1 << 100), 1 << 71, (1 << 71) - 1, -(1 << 71)] {
            let Node::BigInt(found) = decimal(&value.to_string()).unwrap() else { panic!("{value}") };
            let sign = if value < 0 { 0xFF } else { 0 };
            let mut full = [sign; 16];
            full[..found.len()].copy_from_slice(&found);
            assert_eq!(i128::from_le_bytes(full), value);
        }
        for line in ["", "-", "+-5", "1_0", "0x5", "5LL", "99999999999999999999x"] {
            assert!(decimal(line).is_err(), "{line}");
        }
        assert!(decimal(&"9".repeat(MOST_DIGITS)).is_ok());
        assert_eq!(decimal(&"9".repeat(MOST_DIGITS + 1)).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
