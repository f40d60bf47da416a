//! Columns of numbers as short text, for the page's JSON: base64 of deltas, of f32, and of a log
//! scale in 16 bits. The page's scripts decode it.

use serde_json::{Value as Json, json};

/// Base64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

/// Numbers that do not go down, as LEB128 of their differences, the first from 0. One that does go
/// down counts as the one before it.
pub fn varint(numbers: impl IntoIterator<Item = u64>) -> String {
    let (mut bytes, mut before) = (Vec::new(), 0_u64);
    for number in numbers {
        let mut delta = number.saturating_sub(before);
        before = before.max(number);
        while delta >= 128 {
            bytes.push(delta as u8 & 127 | 128);
            delta >>= 7;
        }
        bytes.push(delta as u8);
    }
    base64(&bytes)
}

/// Little-endian f32.
pub fn f32s(numbers: impl IntoIterator<Item = f64>) -> String {
    let bytes: Vec<u8> = numbers.into_iter().flat_map(|number| (number as f32).to_le_bytes()).collect();
    base64(&bytes)
}

/// Non-negative numbers in 16 bits on a log scale between the smallest and the largest: 0 is zero,
/// 65535 stands for NaN and infinities. The error is at most a 130,000th of the log of the span.
pub fn log_scale(numbers: &[f64]) -> Json {
    let logs = || numbers.iter().filter(|x| x.is_finite() && **x > 0.0).map(|x| x.ln());
    let lo = logs().fold(f64::INFINITY, f64::min);
    let hi = logs().fold(f64::NEG_INFINITY, f64::max);
    let (lo, hi) = if lo <= hi { (lo, hi) } else { (0.0, 0.0) };
    let span = (hi - lo).max(f64::MIN_POSITIVE);
    let code = |x: &f64| match x {
        x if !x.is_finite() => 65535,
        x if *x <= 0.0 => 0_u16,
        x => 1 + ((x.ln() - lo) / span * 65533.0).round() as u16,
    };
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| code(x).to_le_bytes()).collect();
    json!({ "lo": lo, "hi": hi, "q": base64(&bytes) })
}

/// A number of a few digits; null where it is not finite.
pub fn number(value: f64) -> Json {
    let short: Option<f64> = format!("{value:.5e}").parse().ok();
    short.filter(|short| short.is_finite()).map_or(Json::Null, Json::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_the_base64_of_the_rfc() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn deltas_are_short_and_never_negative() {
        assert_eq!(varint([1, 3, 300]), base64(&[1, 2, 0xa9, 2]));
        assert_eq!(varint([5, 4, 6]), base64(&[5, 0, 1]), "a clock that went back stands still");
    }

    #[test]
    fn a_log_scale_keeps_zero_and_what_is_not_finite_apart() {
        let scale = log_scale(&[0.0, 1e-6, 1e3, f64::NAN, f64::INFINITY]);
        let codes: Vec<u8> = [0_u16, 1, 65534, 65535, 65535].iter().flat_map(|c| c.to_le_bytes()).collect();
        assert_eq!(scale["q"], base64(&codes));
        assert_eq!(log_scale(&[2.0, 2.0])["q"], base64(&[1, 0, 1, 0]));
    }
}
