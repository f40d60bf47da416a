//! Records as Python's objects and back, in the order of the file, without a tree in between. Only
//! values that MessagePack has: what else Python knows is `tensorkeep/_state.py`'s to translate.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// None, bool, int of 64 bits, float, str, bytes, list and dict: exactly these types.
pub struct Plain<'a, 'py>(pub &'a Bound<'py, PyAny>);

impl Serialize for Plain<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0;
        let refused = |error: PyErr| S::Error::custom(error);
        if value.is_none() {
            return serializer.serialize_unit();
        }
        if let Ok(text) = value.cast_exact::<PyString>() {
            return serializer.serialize_str(&text.to_cow().map_err(refused)?);
        }
        if let Ok(float) = value.cast_exact::<PyFloat>() {
            return serializer.serialize_f64(float.value());
        }
        if let Ok(bool) = value.cast_exact::<PyBool>() {
            return serializer.serialize_bool(bool.is_true());
        }
        if value.cast_exact::<PyInt>().is_ok() {
            return match value.extract::<i64>() {
                Ok(int) => serializer.serialize_i64(int),
                Err(_) => serializer.serialize_u64(value.extract::<u64>().map_err(refused)?),
            };
        }
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            return serializer.serialize_bytes(bytes.as_bytes());
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            let mut sequence = serializer.serialize_seq(Some(list.len()))?;
            for item in list {
                sequence.serialize_element(&Plain(&item))?;
            }
            return sequence.end();
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            let mut map = serializer.serialize_map(Some(dict.len()))?;
            for (key, value) in dict {
                map.serialize_entry(&Plain(&key), &Plain(&value))?;
            }
            return map.end();
        }
        Err(S::Error::custom(format!("a {} is no plain value", value.get_type().name().map_err(refused)?)))
    }
}

/// A Python object out of a record. Decoding attaches to the interpreter.
pub struct Object(pub Py<PyAny>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Python::attach(|py| Seed(py).deserialize(deserializer).map(|value| Self(value.unbind())))
    }
}

#[derive(Clone, Copy)]
struct Seed<'py>(Python<'py>);

impl<'py> Seed<'py> {
    fn int<T: IntoPyObject<'py, Target = PyInt, Output = Bound<'py, PyInt>>, E: serde::de::Error>(
        self,
        value: T,
    ) -> Result<Bound<'py, PyAny>, E> {
        let int = value.into_pyobject(self.0).map_err(|error| E::custom(error.into()))?;
        Ok(int.into_any())
    }
}

impl<'de, 'py> DeserializeSeed<'de> for Seed<'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'py> Visitor<'de> for Seed<'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(self.0.None().into_bound(self.0))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(PyBool::new(self.0, value).to_owned().into_any())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.int(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.int(value)
    }

    fn visit_f32<E>(self, value: f32) -> Result<Self::Value, E> {
        Ok(PyFloat::new(self.0, value.into()).into_any())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(PyFloat::new(self.0, value).into_any())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(PyString::new(self.0, value).into_any())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Self::Value, E> {
        Ok(PyBytes::new(self.0, value).into_any())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let list = PyList::empty(self.0);
        while let Some(item) = items.next_element_seed(self)? {
            list.append(item).map_err(A::Error::custom)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let dict = PyDict::new(self.0);
        while let Some((key, value)) = pairs.next_entry_seed(self, self)? {
            dict.set_item(key, value).map_err(A::Error::custom)?;
        }
        Ok(dict.into_any())
    }
}
