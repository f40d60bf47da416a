//! The JSON header of a safetensors file: entries by name, and metadata.

use super::METADATA_KEY;
use crate::convert::unique::Unique;
use crate::format::value::Value;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// The header's entry for one tensor.
pub struct Entry {
    pub dtype: String,
    pub shape: Vec<u64>,
    pub data_offsets: (u64, u64),
    /// Other keys. The reference ignores them, but some writers need them.
    pub extra: BTreeMap<String, Value>,
}

#[derive(Default)]
pub struct Header {
    pub metadata: BTreeMap<String, String>,
    pub entries: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} stands twice")));
            }
            if key == METADATA_KEY {
                // The reference reads null as none.
                let metadata: Option<Unique<String>> = map.next_value()?;
                header.metadata = metadata.map_or_else(BTreeMap::new, |unique| unique.0);
            } else {
                header.entries.push((key.clone(), map.next_value()?));
            }
            seen.insert(key);
        }
        Ok(header)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut dtype = None;
        let mut shape = None;
        let mut data_offsets = None;
        let mut extra = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "dtype" => dtype.replace(map.next_value()?).is_some(),
                "shape" => shape.replace(map.next_value()?).is_some(),
                "data_offsets" => data_offsets.replace(map.next_value()?).is_some(),
                _ => extra.insert(key.clone(), map.next_value()?).is_some(),
            };
            if twice {
                return Err(A::Error::custom(format_args!("key {key:?} stands twice")));
            }
        }
        let missing = A::Error::missing_field;
        Ok(Entry {
            dtype: dtype.ok_or_else(|| missing("dtype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            data_offsets: data_offsets.ok_or_else(|| missing("data_offsets"))?,
            extra,
        })
    }
}
