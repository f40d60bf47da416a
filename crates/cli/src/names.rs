//! The order of names that people expect: `layer.2` before `layer.10`.

use std::cmp::Ordering;

/// The module that a tensor belongs to: the name up to its last number, `layers.4` of
/// `layers.4.mlp.weight`, or without its last part.
pub fn module(name: &str) -> &str {
    let mut end = 0;
    for (at, _) in name.match_indices(['.', '/']).chain([(name.len(), "")]) {
        let start = name[..at].rfind(['.', '/']).map_or(0, |mark| mark + 1);
        let part = &name[start..at];
        if start > 0 && at < name.len() && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            end = at;
        }
    }
    match end {
        0 => name.rfind(['.', '/']).map_or(name, |mark| &name[..mark]),
        end => &name[..end],
    }
}

/// Numbers within names by value, everything else by byte. Allocates nothing: it sorts hundreds of
/// thousands.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    // What both begin with says nothing, but for the number that goes on where they part. Eight
    // bytes at a time.
    let words = left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0).take_while(|(x, y)| x == y);
    let words = 8 * words.count();
    let rest = left[words..].iter().zip(&right[words..]);
    let common = words + rest.take_while(|(x, y)| x == y).count();
    let digits = left[..common].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    (left, right) = (&left[common - digits..], &right[common - digits..]);
    loop {
        let (Some(&x), Some(&y)) = (left.first(), right.first()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (mine, theirs) = (number(&mut left), number(&mut right));
            mine.len().cmp(&theirs.len()).then_with(|| mine.cmp(theirs))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            x.cmp(&y)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes a run of digits off the front, and gives it without leading zeros: then the longer is the
/// larger.
fn number<'t>(text: &mut &'t [u8]) -> &'t [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    &digits[digits.iter().position(|&digit| digit != b'0').unwrap_or(end)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_sorted_by_value() {
        let mut names = vec!["layer.10.w", "layer.2.w", "layer.02.w", "layer.2.b", "layer", "m9", "m10"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["layer", "layer.2.b", "layer.02.w", "layer.2.w", "layer.10.w", "m9", "m10"]);
        // Where names part within a number, the whole number counts.
        for (less, more) in [("a19.x", "a100.x"), ("a1", "a10"), ("a10b", "a10c"), ("a01", "a1"), ("1", "x")]
        {
            assert_eq!((natural(less, more), natural(more, less)), (Ordering::Less, Ordering::Greater));
        }
    }

    #[test]
    fn a_module_is_named_up_to_its_number() {
        for (name, of) in [
            ("model/layers.4.mlp.weight", "model/layers.4"),
            ("fc1.weight", "fc1"),
            ("embed", "embed"),
            ("a.1.b.2.c", "a.1.b.2"),
            ("moments.3", "moments"),
        ] {
            assert_eq!(module(name), of);
        }
    }
}
