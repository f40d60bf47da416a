//! What bytes mean besides their dtype and shape: opaque ones by the file's metadata, and quantised
//! integers and dtypes of torch's by the record under their name.

use super::side_by_side::Pair;
use crate::opened::{Meta, Opened};
use std::collections::BTreeMap;
use tensorkeep::convert::meaning_of;
use tensorkeep::{Dtype, Value};

/// What a record says of a tensor, so that other bytes, or the same ones, are other numbers.
const FIELDS: [&str; 6] = ["dtype", "shape", "qscheme", "scale", "zero_point", "axis"];

/// What two files say of their tensors.
pub struct Meanings([Said; 2]);

struct Said {
    metadata: BTreeMap<String, String>,
    records: BTreeMap<String, Value>,
}

impl Meanings {
    /// Reads the records of both files, if one of the pairs may have a meaning.
    pub fn of(left: &Opened, right: &Opened, pairs: &[Pair]) -> Option<Self> {
        let may_have =
            |meta: &Meta| matches!(meta.dtype, Ok(Dtype::Opaque | Dtype::U8 | Dtype::I8 | Dtype::I32));
        let any = pairs.iter().any(|pair| may_have(&pair.left) && may_have(&pair.right));
        any.then(|| Self([left, right].map(Said::of)))
    }

    /// Both meanings of a pair, in words, if they differ. Where one file says nothing, or in the
    /// terms of another format, nothing is known to differ.
    pub fn differ(&self, pair: &Pair) -> Option<String> {
        let Self([left, right]) = self;
        let words = [left.line(&pair.left.name), right.line(&pair.right.name)];
        if let [Some((ours, left)), Some((theirs, right))] = words
            && ours == theirs
            && left != right
        {
            return Some(format!("{left} | {right}"));
        }
        let [left, right] = [left.record(&pair.left.name)?, right.record(&pair.right.name)?];
        let both = |field: &'static str| Some((field, left.get(field)?, right.get(field)?));
        let (field, left, right) =
            FIELDS.into_iter().filter_map(both).find(|(_, left, right)| left != right)?;
        Some(format!("{field} {left} | {right}"))
    }
}

impl Said {
    fn of(opened: &Opened) -> Self {
        // A record that cannot be read is told where records are compared.
        let records = opened.records().into_iter().filter_map(|(name, record)| Some((name, record.ok()?)));
        Self { metadata: opened.metadata().unwrap_or_default(), records: records.collect() }
    }

    fn line(&self, name: &str) -> Option<(&'static str, &str)> {
        meaning_of(&self.metadata, name)
    }

    fn record(&self, name: &str) -> Option<&BTreeMap<String, Value>> {
        within(&self.records, name)
    }
}

/// The map under a tensor's path; a key may have dots in it.
fn within<'v>(map: &'v BTreeMap<String, Value>, path: &str) -> Option<&'v BTreeMap<String, Value>> {
    let of = |key: &str| match map.get(key) {
        Some(Value::Map(map)) => Some(map),
        _ => None,
    };
    let inner = |at: usize| within(of(&path[..at])?, &path[at + 1..]);
    of(path).or_else(|| path.match_indices('.').find_map(|(at, _)| inner(at)))
}
