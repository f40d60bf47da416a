//! Names of tensors: matching them against patterns, and finding the nearest for "did you mean";
//! and bytes as a part of a name.

use crate::error::{Error, ErrorKind};

/// Two lowercase hexadecimal digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a name fits a pattern in which `*` is any text, also none, and `?` any one character;
/// everything else stands for itself. Dots and slashes are characters like others. Allocates
/// nothing, and takes time of at most the product of both lengths.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // The pattern after the last star, and the text that it has not taken yet.
    let mut star = None;
    loop {
        let here = name.clone();
        match (pattern.next(), name.next()) {
            (Some('*'), _) => {
                star = Some((pattern.clone(), here.clone()));
                name = here;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
            (None, None) => return true,
            _ => {
                // The last star takes one character more, if there is one.
                let Some((behind, rest)) = &mut star else { return false };
                if rest.next().is_none() {
                    return false;
                }
                (pattern, name) = (behind.clone(), rest.clone());
            }
        }
    }
}

/// The name most like `wanted`, if any is similar: a name that differs only in case wins, then one
/// that ends with it after a dot or a slash; without a similar one, the first in which a part
/// begins with it. Compares at most 10,000 names, and fewer if names are long.
pub fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
    let folded = lower(wanted);
    let ends_with_it = |name: &str| {
        !wanted.is_empty() && name.strip_suffix(wanted).is_some_and(|before| before.ends_with(['.', '/']))
    };
    let mut steps = MOST_STEPS;
    let mut best: Option<(usize, &str)> = None;
    let mut within = None;
    for name in names.take(10_000) {
        within = within.or_else(|| has_a_part_with(wanted, name).then_some(name));
        let farthest = wanted.len().max(name.len()) / 3;
        let distance = match () {
            () if lower(name) == folded => 0,
            () if ends_with_it(name) => 1,
            // Each extra character is a difference, and a character is at most 4 bytes.
            () if wanted.len().abs_diff(name.len()) > 4 * farthest => continue,
            () => {
                steps = steps.saturating_sub(wanted.len() * name.len());
                if steps == 0 {
                    break;
                }
                strsim::damerau_levenshtein(wanted, name)
            }
        };
        let is_better = distance == 1 && ends_with_it(name) || distance <= farthest;
        if is_better && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name).or(within)
}

/// Whether a part of a name, between dots and slashes, begins with this text, and goes on.
fn has_a_part_with(text: &str, name: &str) -> bool {
    let begins_part = |at: usize| name[..at].is_empty() || name[..at].ends_with(['.', '/']);
    !text.is_empty() && name.match_indices(text).any(|(at, _)| begins_part(at))
}

/// Comparing two names takes the product of their lengths. This many steps take about a tenth of a
/// second.
const MOST_STEPS: usize = 30_000_000;

/// The error of a name that does not exist.
pub(crate) fn not_found(what: &str, name: &str, nearest: Option<&str>) -> Error {
    let error = Error::new(ErrorKind::NotFound, format!("no {what} {name:?}"));
    match nearest {
        Some(nearest) => error.help(format!("did you mean {nearest:?}?")),
        None => error.help("list the names with `tensorkeep show`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "any.thing/at all", true),
            ("*.weight", "conv1.weight", true),
            ("*.weight", "conv1.bias", false),
            ("*.weight", "a.weight.b.weight", true),
            ("conv?.*", "conv1.bias", true),
            ("conv?", "conv10", false),
            ("conv?", "conv", false),
            ("?", "é", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*é?", "caféx", true),
            ("fc", "fc", true),
            ("fc", "fc1", false),
            ("fc1", "fc", false),
            ("[a]", "a", false),
        ] {
            assert_eq!(name_matches(pattern, name), expected, "{pattern} {name}");
        }
        let hard = format!("{}b", "a*".repeat(40));
        assert!(!name_matches(&hard, &"a".repeat(2000)));
    }

    #[test]
    fn long_names_are_not_compared_for_longer_than_short_ones() {
        let names: Vec<String> = (0..10_000).map(|i| format!("{i:05}{}", "x".repeat(1019))).collect();
        let started = std::time::Instant::now();
        nearest(&"y".repeat(1020), names.iter().map(String::as_str));
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["conv1.weight", "conv1.bias", "fc.weight"];
        assert_eq!(nearest("conv1.wieght", names.into_iter()), Some("conv1.weight"));
        assert_eq!(nearest("embedding", names.into_iter()), None);
        let short = ["model/b", "model/w", "ä"];
        assert_eq!(nearest("model/W", short.into_iter()), Some("model/w"));
        assert_eq!(nearest("MODEL/W", short.into_iter()), Some("model/w"));
        assert_eq!(nearest("Ä", short.into_iter()), Some("ä"));
        assert_eq!(nearest("model/v", short.into_iter()), Some("model/b"));
        assert_eq!(
            nearest("fc1.weight", ["conv.weight", "model/fc1.weight"].into_iter()),
            Some("model/fc1.weight")
        );
        assert_eq!(nearest("fc1", ["a.fc", "model/fc1.weight"].into_iter()), Some("model/fc1.weight"));
        assert_eq!(nearest("norm", ["m/subnorm.w", "m/norm1.w", "m/norm2.w"].into_iter()), Some("m/norm1.w"));
        assert_eq!(nearest("", ["model/b"].into_iter()), None);
        assert!(not_found("tensor", "a", Some("b")).to_string().contains("did you mean \"b\"?"));
    }
}
