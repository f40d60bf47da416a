//! Names of tensors: which fit a pattern, and "did you mean", the nearest of many.

use crate::error::{Error, ErrorKind};

/// Whether a name fits a pattern in which `*` is any text, also none, and `?` any one character; everything else stands
/// for itself. Dots and slashes are characters like others. Allocates nothing, and takes time of at most the product of
/// both lengths.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // What stands behind the last star, and the text that it has not taken yet.
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

/// The name most like `wanted`, if any is like it at all: one that differs in case alone before all others. Looks at no
/// more than 10,000.
pub(crate) fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
    let folded = lower(wanted);
    names
        .take(10_000)
        .map(|name| {
            let differs = lower(name) != folded;
            (if differs { strsim::damerau_levenshtein(wanted, name) } else { 0 }, name)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= wanted.len().max(name.len()) / 3)
        .map(|(_, name)| name)
}

/// The error of a name that is not there.
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
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["conv1.weight", "conv1.bias", "fc.weight"];
        assert_eq!(nearest("conv1.wieght", names.into_iter()), Some("conv1.weight"));
        assert_eq!(nearest("embedding", names.into_iter()), None);
        let short = ["model/b", "model/w", "ä"];
        assert_eq!(nearest("model/W", short.into_iter()), Some("model/w"));
        assert_eq!(nearest("MODEL/W", short.into_iter()), Some("model/w"));
        assert_eq!(nearest("Ä", short.into_iter()), Some("ä"));
        assert_eq!(nearest("model/v", short.into_iter()), Some("model/b"));
        assert!(not_found("tensor", "a", Some("b")).to_string().contains("did you mean \"b\"?"));
    }
}
