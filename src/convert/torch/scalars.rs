//! The numbers of a pickle as values of a record; integers may be of any length.

use crate::convert::pickle::Node;
use crate::format::value::Value;

/// Numbers, bools and None.
pub fn scalar(node: &Node<'_>) -> Option<Value> {
    Some(match node {
        Node::None => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(value) => Value::Int(*value),
        Node::Float(value) => Value::Float(*value),
        Node::BigInt(bytes) => big(bytes),
        _ => return None,
    })
}

/// An integer beyond `i64`, of little-endian two's complement bytes.
fn big(bytes: &[u8]) -> Value {
    let beyond = bytes.get(8..).unwrap_or_default();
    if let Some(low) = bytes.first_chunk()
        && beyond.iter().all(|&byte| byte == 0)
    {
        return Value::UInt(u64::from_le_bytes(*low));
    }
    Value::Map([("int".to_owned(), Value::Text(hexadecimal(bytes)))].into())
}

/// Hexadecimal, because it takes linear time and Python's `int(text, 0)` can read it.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut carry = is_negative;
    let magnitude = bytes.iter().map(|&byte| {
        if !is_negative {
            return byte;
        }
        let (byte, over) = (!byte).overflowing_add(u8::from(carry));
        carry = over;
        byte
    });
    let magnitude: Vec<u8> = magnitude.collect();
    let digits: String = magnitude.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    let digits = digits.trim_start_matches('0');
    let sign = if is_negative { "-" } else { "" };
    format!("{sign}0x{}", if digits.is_empty() { "0" } else { digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_integers_are_written_in_hexadecimal() {
        assert_eq!(hexadecimal(&(1_i128 << 100).to_le_bytes()), format!("{:#x}", 1_i128 << 100));
        assert_eq!(hexadecimal(&(-(1_i128 << 100)).to_le_bytes()), format!("-{:#x}", 1_i128 << 100));
        assert_eq!(big(&(1_i128 << 63).to_le_bytes()), Value::UInt(1 << 63));
        assert_eq!(
            big(&u64::MAX.to_le_bytes().iter().chain(&[0]).copied().collect::<Vec<_>>()),
            Value::UInt(u64::MAX)
        );
        let negative = Value::Map([("int".to_owned(), Value::Text("-0x8000000000000001".to_owned()))].into());
        assert_eq!(big(&(i128::from(i64::MIN) - 1).to_le_bytes()), negative);
    }
}
