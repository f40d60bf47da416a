//! Carries a checkpoint's records and metadata through a format that has only text by key, such as
//! safetensors' metadata: records as JSON, each under its own key, the library's own records
//! (progress, metrics, model, save) like the user's. Reading the same keys restores them.

use super::{Note, unique};
use crate::budget::Budget;
use crate::error::Result;
use crate::format::value::Value;
use crate::format::{records, table};
use crate::snapshot::{METADATA, METRICS, PROGRESS, Progress, RESERVED_PREFIX, Snapshot};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Prefix of a record's name in its key.
const RECORD_KEY: &str = "tensorkeep.record.";

/// A checkpoint's metadata and records.
#[derive(Default)]
pub struct Carried {
    pub metadata: BTreeMap<String, String>,
    pub records: BTreeMap<String, Value>,
}

/// Metadata and records as text by key; notes records that JSON cannot hold as losses. The user's
/// metadata under keys that look like a record's go into a record themselves, so that they come
/// back as metadata.
pub fn pack(
    metadata: BTreeMap<String, String>,
    records: impl IntoIterator<Item = (String, Value)>,
    notes: &mut Vec<Note>,
) -> BTreeMap<String, String> {
    let (alike, mut all): (BTreeMap<_, _>, BTreeMap<_, _>) =
        metadata.into_iter().partition(|(key, _)| key.starts_with(RECORD_KEY));
    if !alike.is_empty() {
        let alike = alike.into_iter().map(|(key, text)| (key, Value::Text(text))).collect();
        all.extend(as_json(&Value::Map(alike)).map(|text| (format!("{RECORD_KEY}{METADATA}"), text)));
    }
    for (name, value) in records {
        match as_json(&value) {
            Some(text) => {
                all.insert(format!("{RECORD_KEY}{name}"), text);
            }
            None => {
                notes.push(Note::lost(name, "record dropped: JSON cannot hold its bytes, keys or numbers"))
            }
        }
    }
    all
}

/// A value as JSON, if reading the JSON gives the same value.
fn as_json(value: &Value) -> Option<String> {
    let text = serde_json::to_string(value).ok()?;
    serde_json::from_str::<Value>(&text).is_ok_and(|again| again == *value).then_some(text)
}

/// Undoes [`pack`]. Text under a record's key stays text unless a checkpoint can hold it as a
/// record.
///
/// # Errors
/// `LimitExceeded` when records would take more memory than the budget.
pub fn unpack(all: BTreeMap<String, String>, budget: &Budget) -> Result<Carried> {
    let mut carried = Carried::default();
    for (key, text) in all {
        let record = key.strip_prefix(RECORD_KEY);
        if record.is_some() {
            unique::charge(text.as_bytes(), budget)?;
        }
        if record == Some(METADATA)
            && let Ok(alike) = serde_json::from_str::<BTreeMap<String, String>>(&text)
        {
            for (key, text) in alike {
                carried.metadata.entry(key).or_insert(text);
            }
            continue;
        }
        let value = record.and_then(|name| {
            let value = serde_json::from_str(&text).ok()?;
            is_record(name, &value).then_some((name.to_owned(), value))
        });
        match value {
            Some((name, value)) => {
                carried.records.insert(name, value);
            }
            None => {
                carried.metadata.insert(key, text);
            }
        }
    }
    Ok(carried)
}

/// Whether a checkpoint can hold this value as a record of this name.
fn is_record(name: &str, value: &Value) -> bool {
    let is_finite = |metrics: &BTreeMap<String, f64>| {
        metrics.iter().all(|(name, value)| table::check_name(name).is_ok() && value.is_finite())
    };
    match name {
        METADATA => false,
        PROGRESS => is_progress(value),
        METRICS => read_as(value).is_ok_and(|metrics| is_finite(&metrics)),
        _ if name.starts_with(RESERVED_PREFIX) => {
            matches!(value, Value::Map(_)) && records::encode(value).is_ok()
        }
        _ => table::check_name(name).is_ok() && records::encode(value).is_ok(),
    }
}

/// Whether it is progress and nothing more: what progress has no place for would be dropped.
fn is_progress(value: &Value) -> bool {
    let again = stored(PROGRESS, value);
    match (value, again) {
        (Value::Map(map), Ok(Value::Map(again))) => map.keys().all(|key| again.contains_key(key)),
        (_, again) => again.is_ok(),
    }
}

/// Adds a record to a snapshot; the library's own records become progress and metrics again.
///
/// # Errors
/// `Invalid` for a record that a checkpoint cannot hold.
pub fn put(snapshot: &mut Snapshot<'_>, name: &str, value: &Value) -> Result<()> {
    match name {
        PROGRESS => snapshot.set_progress(read_as(value)?),
        METRICS => {
            for (metric, value) in read_as::<BTreeMap<String, f64>>(value)? {
                snapshot.add_metric(metric, value)?;
            }
        }
        _ => snapshot.insert_record(name.to_owned(), value)?,
    }
    Ok(())
}

/// A record as a checkpoint would return it.
///
/// # Errors
/// `Invalid` for a record that a checkpoint cannot hold.
pub fn stored(name: &str, value: &Value) -> Result<Value> {
    let bytes = match name {
        PROGRESS => records::encode(&read_as::<Progress>(value)?),
        METRICS => records::encode(&read_as::<BTreeMap<String, f64>>(value)?),
        _ => records::encode(value),
    };
    records::decode_owned(&bytes?)
}

/// Whether a key made by [`pack`] holds a record.
pub fn is_record_key(key: &str) -> bool {
    key.starts_with(RECORD_KEY)
}

fn read_as<T: DeserializeOwned>(value: &Value) -> Result<T> {
    records::decode_owned(&records::encode(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
        Value::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    }

    #[test]
    fn metadata_that_looks_like_a_record_comes_back_as_metadata() {
        let metadata = BTreeMap::from(
            [("note", "x"), ("tensorkeep.step", "hello"), ("tensorkeep.record.r", "[1]")]
                .map(|(key, text)| (key.to_owned(), text.to_owned())),
        );
        let records = BTreeMap::from([
            ("r".to_owned(), Value::Int(7)),
            (PROGRESS.to_owned(), map([("step", Value::Int(7)), ("epoch", Value::Int(1))])),
        ]);
        let mut notes = Vec::new();
        let all = pack(metadata.clone(), records.clone(), &mut notes);
        assert_eq!((all["tensorkeep.step"].as_str(), notes.len()), ("hello", 0));
        let back = unpack(all, &Budget::new(1 << 20)).unwrap();
        assert_eq!((back.metadata, back.records), (metadata, records));
    }

    #[test]
    fn what_no_checkpoint_can_hold_stays_text() {
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        for (name, text) in [
            ("deep", deep.as_str()),
            ("", "1"),
            (PROGRESS, "\"soon\""),
            (METRICS, r#"{"loss": "low"}"#),
            ("tensorkeep.save", "[1]"),
            (METADATA, r#"{"a": 1}"#),
            ("json", "{"),
        ] {
            let key = format!("{RECORD_KEY}{name}");
            let all = BTreeMap::from([(key.clone(), text.to_owned())]);
            let back = unpack(all, &Budget::new(1 << 20)).unwrap();
            assert_eq!(
                (back.metadata.get(&key).map(String::as_str), back.records.len()),
                (Some(text), 0),
                "{name}"
            );
        }
    }
}
