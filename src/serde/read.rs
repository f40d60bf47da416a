//! Reads the record of a state: MessagePack like other records, with tensors in place of large
//! arrays.

mod compound;

use super::elements::Rows;
use super::exact;
use super::fault::Fault;
use super::item::{self, Item};
use super::{extension, tensor_name};
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Tensor;
use compound::{Items, Pairs, Variant};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use std::collections::BTreeSet;

/// A reader of a checked record. `'c` is the lifetime of the checkpoint, `'b` that of the bytes.
pub(super) struct Reader<'b, 'c> {
    checkpoint: &'c Checkpoint,
    /// The record's name.
    name: &'b str,
    rest: &'b [u8],
    whole: &'b [u8],
    /// The same bytes in place, if the file is mapped.
    lent: Option<&'c [u8]>,
    /// The reader's position in the value. After an error, the position of the error.
    path: String,
    /// Paths of the tensors that were read.
    taken: BTreeSet<&'b [u8]>,
}

type Read<T> = std::result::Result<T, Fault>;

impl<'b, 'c> Reader<'b, 'c> {
    /// Deserializes a value from checked bytes.
    ///
    /// # Errors
    /// `Mismatch` when they are not a `T`, with the path; errors of reading a tensor.
    pub fn read<T: Deserialize<'c>>(
        checkpoint: &'c Checkpoint,
        name: &'b str,
        bytes: &'b [u8],
        lent: Option<&'c [u8]>,
    ) -> Result<T> {
        let (path, taken) = (String::new(), BTreeSet::new());
        let mut reader = Self { checkpoint, name, rest: bytes, whole: bytes, lent, path, taken };
        T::deserialize(&mut reader).map_err(|fault| fault.at(&reader.path, ErrorKind::Mismatch))
    }

    fn item(&mut self) -> Read<Item<'b>> {
        Ok(item::take(&mut self.rest)?)
    }

    /// The 16 bytes of a 128-bit integer, if they come next.
    fn wide(&mut self) -> Read<Option<[u8; 16]>> {
        let start = self.rest;
        let bytes = match self.item()? {
            Item::Bin(bytes) => bytes.try_into().ok(),
            _ => None,
        };
        if bytes.is_none() {
            self.rest = start;
        }
        Ok(bytes)
    }

    /// Steps down from the path of length `outer`.
    fn enter(&mut self, outer: usize, part: impl std::fmt::Display) {
        use std::fmt::Write;
        // A caller that ignored an error may have left the path too long.
        self.path.truncate(outer);
        let dot = if outer == 0 { "" } else { "." };
        // OK: writing to a String cannot fail.
        let _ = write!(self.path, "{dot}{part}");
    }

    /// The same part of the record in the mapped file, if there is one.
    fn lent(&self, part: &'b [u8]) -> Option<&'c [u8]> {
        // OK to wrap: `part` lies within `whole`; any other address is out of range of `lent`.
        let start = part.as_ptr().addr().wrapping_sub(self.whole.as_ptr().addr());
        self.lent?.get(start..start.checked_add(part.len())?)
    }

    fn text<V: Visitor<'c>>(&self, text: &'b str, visitor: V) -> Read<V::Value> {
        match self.lent(text.as_bytes()).and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            Some(text) => visitor.visit_borrowed_str(text),
            None => visitor.visit_str(text),
        }
    }

    fn bytes<V: Visitor<'c>>(&self, bytes: &'b [u8], visitor: V) -> Read<V::Value> {
        match self.lent(bytes) {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes),
            None => visitor.visit_bytes(bytes),
        }
    }

    /// The tensor in place of an array.
    fn tensor(&mut self, kind: i8, path: &'b [u8]) -> Read<Tensor<'c>> {
        let is_first = self.taken.insert(path);
        let path = match std::str::from_utf8(path) {
            Ok(path) if kind == extension::LIST || kind == extension::BYTES => path,
            _ => return Err(Fault::Said(format!("extension {kind} is no part of a state"))),
        };
        let name = tensor_name(self.name, path);
        // Each would be a copy: five bytes of a record could stand for gigabytes of memory.
        if !is_first {
            return Err(Error::damaged("the record of a state names a tensor twice")
                .in_tensor(name)
                .in_object(self.checkpoint.name())
                .into());
        }
        let tensor = self.checkpoint.tensor(&name)?;
        let rows = tensor.shape().first().copied();
        let dtype = tensor.dtype();
        // Rows without elements cost nothing on disk, and there may be 2^64 of them.
        let has_elements = !tensor.is_empty() || rows == Some(0);
        let is_bytes = dtype == Dtype::U8 && tensor.shape().len() == 1;
        if rows.is_none() || !has_elements || (kind == extension::BYTES && !is_bytes) {
            return Err(Error::damaged("the tensor does not fit the record of its state")
                .expected(if kind == extension::BYTES { "u8 with one axis" } else { "axes with elements" })
                .found(format!("{dtype} {:?}", tensor.shape()))
                .in_tensor(name)
                .in_object(self.checkpoint.name())
                .into());
        }
        Ok(tensor)
    }

    fn tensor_list<V: Visitor<'c>>(&mut self, kind: i8, path: &'b [u8], visitor: V) -> Read<V::Value> {
        let tensor = self.tensor(kind, path)?;
        Rows::of(&tensor)?.visit(visitor)
    }

    fn tensor_bytes<V: Visitor<'c>>(&mut self, kind: i8, path: &'b [u8], visitor: V) -> Read<V::Value> {
        let tensor = self.tensor(kind, path)?;
        if tensor.dtype() != Dtype::U8 || tensor.shape().len() != 1 {
            return Rows::of(&tensor)?.visit(visitor);
        }
        match tensor.borrowed() {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes),
            None => visitor.visit_bytes(tensor.bytes()),
        }
    }

    /// A list of small integers as bytes, for a type that expects bytes.
    fn list_as_bytes(&mut self, count: usize) -> Read<Option<Vec<u8>>> {
        let mut rest = self.rest;
        let mut bytes = Vec::new();
        for _ in 0..count {
            match item::take(&mut rest)? {
                Item::U64(byte) if byte <= 0xFF => bytes.push(byte as u8),
                _ => return Ok(None),
            }
        }
        self.rest = rest;
        Ok(Some(bytes))
    }
}

/// The number of options around a `None`.
fn around(kind: i8, content: &[u8]) -> Option<u8> {
    match content {
        &[around] if kind == extension::NOTHING && around > 0 => Some(around),
        _ => None,
    }
}

impl<'c> Deserializer<'c> for &mut Reader<'_, 'c> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        match self.item()? {
            Item::Nil => visitor.visit_unit(),
            Item::Bool(value) => visitor.visit_bool(value),
            Item::U64(value) => visitor.visit_u64(value),
            Item::I64(value) => visitor.visit_i64(value),
            Item::F32(value) => visitor.visit_f32(value),
            Item::F64(value) => visitor.visit_f64(value),
            Item::Text(text) => self.text(text, visitor),
            Item::Bin(bytes) => self.bytes(bytes, visitor),
            Item::List(count) => Items::visit(self, count, visitor),
            Item::Map(count) => Pairs::visit(self, count, visitor),
            Item::Ext(kind, content) => match around(kind, content) {
                Some(around) => Nothing(around).deserialize_any(visitor),
                None if kind == extension::BYTES => self.tensor_bytes(kind, content, visitor),
                None => self.tensor_list(kind, content, visitor),
            },
        }
    }

    fn deserialize_option<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        let start = self.rest;
        let around = match self.item()? {
            Item::Nil => Some(0),
            Item::Ext(kind, content) => around(kind, content),
            _ => None,
        };
        if let Some(around) = around {
            return Nothing(around).deserialize_option(visitor);
        }
        self.rest = start;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'c>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'c>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        match self.item()? {
            Item::Nil | Item::List(0) => visitor.visit_unit(),
            _ => Err(Fault::Said("expected a unit struct".to_owned())),
        }
    }

    fn deserialize_f32<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        let start = self.rest;
        match self.item()? {
            Item::F64(value) => visitor.visit_f32(exact::f32_of_f64(value)?),
            Item::U64(value) => visitor.visit_f32(exact::f32_of_integer(value)?),
            Item::I64(value) => visitor.visit_f32(exact::f32_of_integer(value)?),
            _ => {
                self.rest = start;
                self.deserialize_any(visitor)
            }
        }
    }

    fn deserialize_f64<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        let start = self.rest;
        match self.item()? {
            Item::U64(value) => visitor.visit_f64(exact::f64_of_integer(value)?),
            Item::I64(value) => visitor.visit_f64(exact::f64_of_integer(value)?),
            _ => {
                self.rest = start;
                self.deserialize_any(visitor)
            }
        }
    }

    fn deserialize_i128<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        match self.wide()? {
            Some(bytes) => visitor.visit_i128(i128::from_be_bytes(bytes)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        match self.wide()? {
            Some(bytes) => visitor.visit_u128(u128::from_be_bytes(bytes)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        match self.item()? {
            Item::Bin(bytes) => self.bytes(bytes, visitor),
            Item::Text(text) => self.text(text, visitor),
            Item::Ext(kind, content) => self.tensor_bytes(kind, content, visitor),
            Item::List(count) => match self.list_as_bytes(count)? {
                Some(bytes) => visitor.visit_byte_buf(bytes),
                None => Items::visit(self, count, visitor),
            },
            _ => Err(Fault::Said("expected bytes".to_owned())),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        let start = self.rest;
        match self.item()? {
            Item::Bin(bytes) => Rows::of(&Tensor::new(Dtype::U8, &[bytes.len()], bytes)?)?.visit(visitor),
            Item::Ext(kind, content) if around(kind, content).is_none() => {
                self.tensor_list(kind, content, visitor)
            }
            _ => {
                self.rest = start;
                self.deserialize_any(visitor)
            }
        }
    }

    fn deserialize_tuple<V: Visitor<'c>>(self, _: usize, visitor: V) -> Read<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'c>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Read<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'c>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        match self.item()? {
            Item::Text(variant) => visitor.visit_enum(variant.into_deserializer()),
            Item::Map(1) => visitor.visit_enum(Variant::new(self)),
            Item::Map(count) => Err(Fault::Said(format!("expected a variant, found a map of {count}"))),
            _ => Err(Fault::Said("expected a variant".to_owned())),
        }
    }

    /// Tensors within ignored values are not loaded.
    fn deserialize_ignored_any<V: Visitor<'c>>(self, visitor: V) -> Read<V::Value> {
        item::skip(&mut self.rest)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'c>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 char str string unit map struct identifier
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A `None` within this many options.
struct Nothing(u8);

impl<'de> Deserializer<'de> for Nothing {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.0.checked_sub(1) {
            Some(inner) => visitor.visit_some(Self(inner)),
            None => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.0.checked_sub(1) {
            Some(inner) => visitor.visit_some(Self(inner)),
            None => visitor.visit_none(),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Read<V::Value> {
        Err(serde::de::Error::invalid_type(Unexpected::Option, &"a variant"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
