//! Names of tensors: shell patterns, and the order people expect: `layer.2` before `layer.10`.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

/// Whether a name fits a pattern in which `*` is any text and `?` any one character.
pub fn matches(pattern: &str, name: &str) -> bool {
    // Greedy with one point to come back to: linear in memory, quadratic in time at worst, whatever the pattern.
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Whether a name is wanted: all are, without a pattern.
pub fn wanted(only: Option<&str>, name: &str) -> bool {
    only.is_none_or(|pattern| matches(pattern, name))
}

/// Numbers within names by value, everything else by character.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.chars().peekable(), b.chars().peekable());
    loop {
        let (Some(&x), Some(&y)) = (left.peek(), right.peek()) else {
            return left.peek().is_some().cmp(&right.peek().is_some()).then_with(|| a.cmp(b));
        };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            digits(&mut left).cmp(&digits(&mut right))
        } else {
            left.next();
            right.next();
            x.cmp(&y)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// A run of digits as (how many, which), without leading zeros: numbers of any length in the order of their values.
fn digits(chars: &mut Peekable<Chars<'_>>) -> (usize, String) {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        if !(digits.is_empty() && digit == '0') {
            digits.push(digit);
        }
    }
    (digits.len(), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.weight", "conv1.weight", true),
            ("*.weight", "conv1.bias", false),
            ("conv?.*", "conv1.bias", true),
            ("conv?", "conv10", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("fc", "fc", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let hard = format!("{}b", "a*".repeat(40));
        assert!(!matches(&hard, &"a".repeat(2000)));
    }

    #[test]
    fn numbers_in_names_are_sorted_by_value() {
        let mut names = vec!["layer.10.w", "layer.2.w", "layer.02.w", "layer.2.b", "layer", "m9", "m10"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["layer", "layer.2.b", "layer.02.w", "layer.2.w", "layer.10.w", "m9", "m10"]);
    }
}
