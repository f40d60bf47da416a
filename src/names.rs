//! "Did you mean": the nearest of many names.

use crate::error::{Error, ErrorKind};

/// The name most like `wanted`, if any is like it at all. Looks at no more than 10,000.
pub(crate) fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .take(10_000)
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
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
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["conv1.weight", "conv1.bias", "fc.weight"];
        assert_eq!(nearest("conv1.wieght", names.into_iter()), Some("conv1.weight"));
        assert_eq!(nearest("embedding", names.into_iter()), None);
        assert!(not_found("tensor", "a", Some("b")).to_string().contains("did you mean \"b\"?"));
    }
}
