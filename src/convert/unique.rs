//! JSON objects without duplicate keys: readers differ in which of two values they take.

use crate::budget::Budget;
use crate::error::Result;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

/// Charges an upper bound of the memory for JSON before it is parsed: each value of a list or an
/// object follows a comma or a brace, and every other byte is at most a byte of text.
///
/// # Errors
/// `LimitExceeded`.
pub fn charge(text: &[u8], budget: &Budget) -> Result<()> {
    // A value of an object is a tree node with its key; of most lists it is eight bytes.
    const PER_VALUE: u64 = 64;
    let values = text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() as u64;
    budget.spend(values.saturating_mul(PER_VALUE).saturating_add(text.len() as u64), "the values of JSON")
}

/// A map that refuses duplicate keys.
pub struct Unique<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData)).map(Self)
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = BTreeMap<String, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose keys are all different")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BTreeMap<String, V>, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            match all.entry(key) {
                Entry::Occupied(taken) => {
                    return Err(A::Error::custom(format_args!("key {:?} stands twice", taken.key())));
                }
                Entry::Vacant(free) => {
                    free.insert(map.next_value()?);
                }
            }
        }
        Ok(all)
    }
}
