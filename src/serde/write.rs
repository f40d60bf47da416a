//! Writes the record of a state, MessagePack like other records, and stores large arrays of numbers
//! as tensors instead.

mod compound;

use super::fault::Fault;
use super::numbers::{Number, Numbers, each};
use super::{TENSOR_FROM, extension, tensor, tensor_name};
use crate::error::{ErrorKind, Result};
use crate::format::table::check_name;
use compound::{List, Map};
use rmp::encode;
use serde::ser::{Serialize, Serializer};
use std::collections::BTreeSet;

/// A state, ready to be added to a snapshot.
pub(super) struct State {
    /// MessagePack.
    pub record: Vec<u8>,
    pub tensors: Vec<StateTensor>,
}

/// An array that became a tensor.
pub(super) struct StateTensor {
    /// With the record's name.
    pub name: String,
    pub numbers: Numbers,
    pub shape: Vec<usize>,
}

pub(super) struct Writer<'n> {
    /// The record's name.
    name: &'n str,
    out: Vec<u8>,
    tensors: Vec<StateTensor>,
    taken: BTreeSet<String>,
    /// The writer's position in the value. After an error, the position of the error.
    path: String,
    /// Least bytes for an array to become a tensor at this position.
    tensor_from: usize,
}

type Written<T = ()> = std::result::Result<T, Fault>;

impl<'n> Writer<'n> {
    /// Serializes a value.
    ///
    /// # Errors
    /// `Invalid` when serde refuses, with the path.
    pub fn write<T: Serialize + ?Sized>(name: &'n str, value: &T) -> Result<State> {
        let mut writer = Self {
            name,
            out: Vec::new(),
            tensors: Vec::new(),
            taken: BTreeSet::new(),
            path: String::new(),
            tensor_from: TENSOR_FROM,
        };
        match value.serialize(&mut writer) {
            Ok(()) => Ok(State { record: writer.out, tensors: writer.tensors }),
            Err(fault) => Err(fault.at(&writer.path, ErrorKind::Invalid).in_record(name)),
        }
    }

    /// Steps down one level. Returns the previous length of the path, for [`Writer::leave`].
    fn enter(&mut self, part: impl std::fmt::Display) -> usize {
        use std::fmt::Write;
        let length = self.path.len();
        let dot = if length == 0 { "" } else { "." };
        // OK: writing to a String cannot fail.
        let _ = write!(self.path, "{dot}{part}");
        length
    }

    fn leave(&mut self, length: usize) {
        self.path.truncate(length);
    }

    /// An array of numbers: a tensor if it is large enough, else a list.
    fn array(&mut self, numbers: Numbers, shape: Vec<usize>) -> Written {
        if numbers.as_ref().len() >= self.tensor_from {
            return self.take(numbers, shape, extension::LIST);
        }
        self.list(&numbers, 0, &shape)
    }

    /// Writes the elements from `from` on as nested lists.
    fn list(&mut self, numbers: &Numbers, from: usize, shape: &[usize]) -> Written {
        let Some((&count, inner)) = shape.split_first() else { return self.number(numbers, from) };
        list_header(&mut self.out, count)?;
        let each: usize = inner.iter().product();
        (0..count).try_for_each(|i| self.list(numbers, from + i * each, inner))
    }

    fn number(&mut self, numbers: &Numbers, at: usize) -> Written {
        each!(numbers, list => list.get(at).map_or(Ok(()), |number| number.serialize(&mut *self)), Ok(()))
    }

    /// Stores the numbers as a tensor, and its name in the record.
    fn take(&mut self, numbers: Numbers, shape: Vec<usize>, kind: i8) -> Written {
        let path = self.free_path();
        // OK to cast: a name has at most 1024 bytes.
        encode::write_ext_meta(&mut self.out, path.len() as u32, kind)?;
        self.out.extend_from_slice(path.as_bytes());
        let name = tensor_name(self.name, &path);
        self.taken.insert(name.clone());
        self.tensors.push(StateTensor { name, numbers, shape });
        Ok(())
    }

    /// The current path, or a number if the path is not a valid name or is another tensor's: map
    /// keys may be anything.
    fn free_path(&self) -> String {
        let is_free = |path: &str| {
            let name = tensor_name(self.name, path);
            check_name(&name).is_ok() && !self.taken.contains(&name)
        };
        if is_free(&self.path) {
            return self.path.clone();
        }
        let mut numbered = (self.tensors.len()..).map(|number| format!("#{number}"));
        // If the record's name is too long, no path is free; adding the tensor reports that.
        let tries = self.tensors.len() + 1;
        numbered.by_ref().take(tries).find(|path| is_free(path)).unwrap_or_else(|| self.path.clone())
    }

    /// A value whose arrays become tensors from `least` bytes on.
    fn with_tensors_from<T: Serialize + ?Sized>(&mut self, least: usize, value: &T) -> Written {
        let before = std::mem::replace(&mut self.tensor_from, least);
        value.serialize(&mut *self)?;
        self.tensor_from = before;
        Ok(())
    }

    /// Starts a map of one pair: a variant's name and its content.
    fn variant(&mut self, name: &str) -> Written<usize> {
        encode::write_map_len(&mut self.out, 1)?;
        encode::write_str(&mut self.out, name)?;
        Ok(self.enter(name))
    }
}

/// The header of a list. Lengths in MessagePack have 32 bits.
fn list_header(out: &mut Vec<u8>, count: usize) -> Written {
    encode::write_array_len(out, length(count)?)?;
    Ok(())
}

fn length(count: usize) -> Written<u32> {
    u32::try_from(count).map_err(|_| Fault::Said(format!("{count} items are more than a record has")))
}

/// Numbers that one call serializes.
macro_rules! scalars {
    ($($method:ident $type:ty => $write:ident $as:ty),* $(,)?) => {
        $(#[inline]
        fn $method(self, value: $type) -> Written {
            encode::$write(&mut self.out, <$as>::from(value))?;
            Ok(())
        })*
    };
}

impl<'w, 'n> Serializer for &'w mut Writer<'n> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = List<'w, 'n>;
    type SerializeTuple = List<'w, 'n>;
    type SerializeTupleStruct = List<'w, 'n>;
    type SerializeTupleVariant = List<'w, 'n>;
    type SerializeMap = Map<'w, 'n>;
    type SerializeStruct = Map<'w, 'n>;
    type SerializeStructVariant = Map<'w, 'n>;

    scalars! {
        serialize_i8 i8 => write_sint i64, serialize_i16 i16 => write_sint i64,
        serialize_i32 i32 => write_sint i64, serialize_i64 i64 => write_sint i64,
        serialize_u8 u8 => write_uint u64, serialize_u16 u16 => write_uint u64,
        serialize_u32 u32 => write_uint u64, serialize_u64 u64 => write_uint u64,
        serialize_f32 f32 => write_f32 f32, serialize_f64 f64 => write_f64 f64,
    }

    fn serialize_bool(self, value: bool) -> Written {
        self.out.push(if value { 0xC3 } else { 0xC2 });
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Written {
        encode::write_bin(&mut self.out, &value.to_be_bytes())?;
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Written {
        encode::write_bin(&mut self.out, &value.to_be_bytes())?;
        Ok(())
    }

    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Written {
        length(value.len())?;
        encode::write_str(&mut self.out, value)?;
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Written {
        if value.len() >= self.tensor_from {
            return self.take(u8::first(value.to_vec()), vec![value.len()], extension::BYTES);
        }
        length(value.len())?;
        encode::write_bin(&mut self.out, value)?;
        Ok(())
    }

    fn serialize_none(self) -> Written {
        self.serialize_unit()
    }

    /// MessagePack has one nil. An option around a `None` is an extension that counts the options.
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        let start = self.out.len();
        value.serialize(&mut *self)?;
        let around = match self.out.get(start..) {
            Some([0xC0]) => 1,
            // fixext 1
            Some(&[0xD4, kind, around]) if kind == extension::NOTHING as u8 => match around.checked_add(1) {
                Some(around) => around,
                None => return Err(Fault::Said("more than 255 options around nothing".to_owned())),
            },
            _ => return Ok(()),
        };
        self.out.truncate(start);
        encode::write_ext_meta(&mut self.out, 1, extension::NOTHING)?;
        self.out.push(around);
        Ok(())
    }

    fn serialize_unit(self) -> Written {
        self.out.push(0xC0);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        list_header(&mut self.out, 0)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Written {
        // A key stays in the record, even if its type asks for tensors.
        let least = if name == tensor::NAME && self.tensor_from != usize::MAX { 1 } else { self.tensor_from };
        self.with_tensors_from(least, value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let outer = self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.leave(outer);
        Ok(())
    }

    fn serialize_seq(self, len: Option<usize>) -> Written<List<'w, 'n>> {
        Ok(List::new(self, len))
    }

    fn serialize_tuple(self, len: usize) -> Written<List<'w, 'n>> {
        Ok(List::new(self, Some(len)))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Written<List<'w, 'n>> {
        Ok(List::new(self, Some(len)))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Written<List<'w, 'n>> {
        let outer = self.variant(variant)?;
        Ok(List::new(self, Some(len)).leaving(outer))
    }

    fn serialize_map(self, len: Option<usize>) -> Written<Map<'w, 'n>> {
        let outer = self.path.len();
        Map::new(self, len.unwrap_or(0), outer)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Written<Map<'w, 'n>> {
        let outer = self.path.len();
        Map::new(self, len, outer)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Written<Map<'w, 'n>> {
        let outer = self.variant(variant)?;
        Map::new(self, len, outer)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
