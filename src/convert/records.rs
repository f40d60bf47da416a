//! Records for a checkpoint, made of a foreign file's values other than tensors.

use super::naming::valid_name;
use super::{Foreign, Note};
use crate::format::limits::Limits;
use crate::format::value::Value;
use crate::snapshot::RESERVED_PREFIX;

impl Foreign {
    /// Keeps a value as a record, under its name or a valid one derived from it, which is returned.
    /// A value that no record can hold is noted as lost.
    pub(super) fn keep_record(&mut self, name: &str, value: Value) -> Option<String> {
        let limits = Limits::V1;
        let size = Size::of(&value);
        if size.depth > limits.record_depth
            || size.bytes > limits.record_bytes
            || self.records.len() as u64 >= limits.records / 2
        {
            let what = format!(
                "record dropped: {} bytes, {} deep, and at most {} bytes, {} deep and {} records are possible",
                size.bytes,
                size.depth,
                limits.record_bytes,
                limits.record_depth,
                limits.records / 2
            );
            self.notes.push(Note::lost(name, what));
            return None;
        }
        let mut valid = valid_name(name);
        if valid.starts_with(RESERVED_PREFIX) {
            valid = valid_name(&format!("_{valid}"));
        }
        let free = self.record_names.free(&valid);
        if free != name {
            self.notes.push(Note::kept(&free, format!("record renamed from {name:?}: not a name, or taken")));
        }
        self.records.insert(free.clone(), value);
        Some(free)
    }
}

/// Levels of lists and maps in a value.
pub(super) fn depth(value: &Value) -> u64 {
    Size::of(value).depth
}

/// Upper bound of a value's size as MessagePack.
struct Size {
    bytes: u64,
    depth: u64,
}

impl Size {
    fn of(value: &Value) -> Self {
        let leaf = |bytes: usize| Self { bytes: bytes as u64, depth: 0 };
        match value {
            Value::Null | Value::Bool(_) => leaf(1),
            Value::Int(_) | Value::UInt(_) | Value::Float(_) => leaf(9),
            Value::Text(text) => leaf(5 + text.len()),
            Value::Bytes(bytes) => leaf(5 + bytes.len()),
            Value::List(values) => Self::around(values.iter().map(Self::of)),
            Value::Map(map) => Self::around(map.iter().map(|(key, value)| {
                let value = Self::of(value);
                Self { bytes: value.bytes + 5 + key.len() as u64, ..value }
            })),
            Value::Pairs(pairs) => {
                Self::around(pairs.iter().flat_map(|(key, value)| [Self::of(key), Self::of(value)]))
            }
        }
    }

    fn around(inner: impl Iterator<Item = Self>) -> Self {
        let start = Self { bytes: 5, depth: 0 };
        let all = inner
            .fold(start, |all, one| Self { bytes: all.bytes + one.bytes, depth: all.depth.max(one.depth) });
        Self { depth: all.depth + 1, ..all }
    }
}
