//! `#[serde(with = "tensorkeep::serde::tensor")]`: stores the field's arrays of numbers as tensors,
//! even short ones.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct Scheduler {
//!     #[serde(with = "tensorkeep::serde::tensor")]
//!     milestones: Vec<u64>, // a tensor also with three elements
//!     gamma: f64,
//! }
//! ```
//!
//! Elsewhere, in JSON or in [`Snapshot::record`](crate::Snapshot::record), the attribute has no
//! effect.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// The name of the newtype by which this module signals a state's serializer. Other serializers
/// treat a newtype as its content.
pub(super) const NAME: &str = "tensorkeep::serde::tensor";

/// Called by serde.
///
/// # Errors
/// The serializer's.
pub fn serialize<T: Serialize + ?Sized, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(NAME, value)
}

/// Called by serde.
///
/// # Errors
/// The deserializer's.
pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_newtype_struct(NAME, Content(PhantomData))
}

struct Content<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Content<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with arrays of numbers")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}
