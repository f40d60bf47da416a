//! Records as trees of paths: lines that show one, and the structural difference of two.

use crate::output::{self, clean};
use tensorkeep::Value;

/// Records that the library writes for itself.
pub const BOOKKEEPING: [&str; 3] = ["tensorkeep.history", "tensorkeep.python", "tensorkeep.save"];
/// Longest text of one leaf.
const LINE: usize = 100;

/// A record's lines: maps and lists of maps indented, everything else on one line.
pub fn lines(name: &str, value: &Value, depth: usize, into: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let name = clean(name);
    match value {
        Value::Map(map) if !map.is_empty() => {
            into.push(format!("{indent}{name}"));
            map.iter().for_each(|(key, value)| lines(key, value, depth + 1, into));
        }
        Value::List(list) if list.iter().any(|item| matches!(item, Value::Map(_))) => {
            into.push(format!("{indent}{name}"));
            for (number, item) in list.iter().enumerate() {
                lines(&number.to_string(), item, depth + 1, into);
            }
        }
        value => into.push(format!("{indent}{name}: {}", leaf(&name, value))),
    }
}

/// The value without the nulls where a nested state has its tensors, which are shown as tensors;
/// None where nothing is left. `path` is the name that a tensor here would have.
pub fn without_places(value: &Value, path: &str, is_tensor: &dyn Fn(&str) -> bool) -> Option<Value> {
    let under = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Null if is_tensor(path) => None,
        Value::Map(map) if !map.is_empty() => {
            let left = map.iter().filter_map(|(key, value)| {
                Some((key.clone(), without_places(value, &under(key), is_tensor)?))
            });
            Some(Value::Map(left.collect())).filter(|left| *left != Value::Map(Default::default()))
        }
        Value::List(list) if !list.is_empty() => {
            let mut items = list.iter().enumerate();
            let is_all =
                items.all(|(i, item)| without_places(item, &under(&i.to_string()), is_tensor).is_none());
            (!is_all).then(|| value.clone())
        }
        value => Some(value.clone()),
    }
}

/// The text of one leaf; times that the library records are dates.
fn leaf(key: &str, value: &Value) -> String {
    match value {
        Value::Int(seconds) if TIMES.contains(&key) && *seconds > 0 => output::ago(seconds.unsigned_abs()),
        value => shorten(&clean(&value.to_string())),
    }
}

/// Keys of times, in seconds since 1970, in the library's own records.
const TIMES: [&str; 2] = ["saved_at", "started_at"];

/// A line's worth.
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= LINE {
        return text.to_owned();
    }
    text.chars().take(LINE - 1).chain(['…']).collect()
}

/// One place at which two records differ; None where one has nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub path: String,
    pub left: Option<String>,
    pub right: Option<String>,
}

/// Every place at which two sets of records differ. Equal is bit for bit: NaN equals NaN.
pub fn changes(left: &[(String, Value)], right: &[(String, Value)]) -> Vec<Change> {
    let of = |records: &[(String, Value)]| Value::Map(records.iter().cloned().collect());
    let mut found = Vec::new();
    compare("", Some(&of(left)), Some(&of(right)), &mut found);
    found
}

fn compare(path: &str, left: Option<&Value>, right: Option<&Value>, found: &mut Vec<Change>) {
    let under = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (left, right) {
        (Some(Value::Map(a)), Some(Value::Map(b))) => {
            let mut keys: Vec<&String> =
                a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
            keys.sort();
            keys.into_iter().for_each(|key| compare(&under(key), a.get(key), b.get(key), found));
        }
        (Some(Value::List(a)), Some(Value::List(b))) => {
            for number in 0..a.len().max(b.len()) {
                compare(&under(&number.to_string()), a.get(number), b.get(number), found);
            }
        }
        (Some(Value::Float(a)), Some(Value::Float(b))) if a.to_bits() == b.to_bits() => {}
        (a, b) if a == b => {}
        (a, b) => {
            let key = path.rsplit('.').next().unwrap_or_default();
            let text = |value: Option<&Value>| value.map(|value| leaf(key, value));
            found.push(Change { path: clean(path), left: text(a), right: text(b) });
        }
    }
}

/// Places that go on with every step, by their names.
pub fn is_bookkeeping(path: &str) -> bool {
    const WORDS: [&str; 12] = [
        "step",
        "steps",
        "epoch",
        "rng",
        "random",
        "seen",
        "position",
        "cursor",
        "data_order",
        "order",
        "t",
        "history",
    ];
    let is_reserved = path.starts_with(tensorkeep::inspect::RESERVED_PREFIX);
    (is_reserved && !path.starts_with("tensorkeep.metadata"))
        || path.split(['.', '_']).any(|part| WORDS.contains(&part))
        || path.contains("rng")
        || path.contains("history")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn map(pairs: &[(&str, Value)]) -> Value {
        Value::Map(
            pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<BTreeMap<_, _>>(),
        )
    }

    #[test]
    fn places_of_tensors_are_left_out() {
        let state = map(&[
            ("w", Value::Null),
            ("none", Value::Null),
            ("inner", map(&[("a/b", Value::Null)])),
            ("list", Value::List(vec![Value::Null, Value::Null])),
            ("empty", map(&[])),
        ]);
        let tensors = ["s/w", "s/inner/a~1b", "s/list/0", "s/list/1"];
        let left = without_places(&state, "s", &|path| tensors.contains(&path));
        assert_eq!(left, Some(map(&[("none", Value::Null), ("empty", map(&[]))])));
        assert_eq!(without_places(&map(&[("w", Value::Null)]), "s", &|_| true), None);
    }

    #[test]
    fn changes_have_their_paths() {
        let left = map(&[
            ("lr", Value::Float(0.1)),
            ("betas", Value::List(vec![Value::Int(1)])),
            ("gone", Value::Null),
        ]);
        let right =
            map(&[("lr", Value::Float(0.2)), ("betas", Value::List(vec![Value::Int(1), Value::Int(2)]))]);
        let found = changes(&[("adam".to_owned(), left)], &[("adam".to_owned(), right)]);
        let paths: Vec<&str> = found.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["adam.betas.1", "adam.gone", "adam.lr"]);
        assert_eq!((found[0].left.as_deref(), found[2].right.as_deref()), (None, Some("0.2")));
        let nan = [("x".to_owned(), Value::Float(f64::NAN))];
        assert_eq!(changes(&nan, &nan), []);
    }

    #[test]
    fn what_every_step_changes_is_no_news() {
        for path in ["tensorkeep.save.saved_at", "trainer.rng.state.3", "optimizer.step", "loss_history.7"] {
            assert!(is_bookkeeping(path), "{path}");
        }
        for path in ["optimizer.lr", "config.batch", "trainer.best_loss"] {
            assert!(!is_bookkeeping(path), "{path}");
        }
    }

    #[test]
    fn times_of_the_library_are_shown_as_dates() {
        let mut found = Vec::new();
        lines(
            "tensorkeep.save",
            &map(&[("saved_at", Value::Int(951_782_400)), ("n", Value::Int(951_782_400))]),
            0,
            &mut found,
        );
        assert_eq!(found[1], "  n: 951782400");
        assert!(found[2].starts_with("  saved_at: 2000-02-29 00:00:00 UTC ("), "{found:?}");
    }

    #[test]
    fn nested_maps_are_indented_and_hostile_text_is_tamed() {
        let mut found = Vec::new();
        lines("r\x1b[31m", &map(&[("a", map(&[("b", Value::Int(1))]))]), 0, &mut found);
        assert_eq!(found, ["r\\u{1b}[31m", "  a", "    b: 1"]);
    }
}
