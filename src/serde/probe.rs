//! Detects whether a value is a number, or a regular array of numbers, by serializing it into a
//! list of numbers. The first other value ends the attempt; the caller discards the numbers
//! gathered until then.

use super::numbers::{Number, Numbers};
use serde::ser::{Impossible, SerializeSeq, SerializeTuple, SerializeTupleStruct, Serializer};
use serde::{Serialize, ser};
use std::fmt;

/// Levels of lists that make one tensor: the depth limit of records.
const AXES: usize = 32;

/// The value is neither a number nor a regular array of numbers.
#[derive(Debug)]
pub(super) struct NotNumbers;

impl fmt::Display for NotNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no regular array of numbers")
    }
}

impl std::error::Error for NotNumbers {}

impl ser::Error for NotNumbers {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Result<T> = std::result::Result<T, NotNumbers>;

/// Lengths of the axes; None for a number, so that its shape costs nothing to make, compare and
/// drop.
pub(super) type Shape = Option<Box<[usize]>>;

/// Serializes a value into `numbers` and returns its shape.
pub(super) struct Probe<'n>(pub &'n mut Numbers);

impl Probe<'_> {
    #[inline]
    fn number<T: Number>(self, number: T) -> Result<Shape> {
        if self.0.push(number) { Ok(None) } else { Err(NotNumbers) }
    }
}

/// A list whose elements all have the same shape.
pub(super) struct Row<'n> {
    numbers: &'n mut Numbers,
    announced: usize,
    count: usize,
    element: Shape,
}

impl<'n> Row<'n> {
    pub fn new(numbers: &'n mut Numbers, announced: Option<usize>) -> Self {
        Self { numbers, announced: announced.unwrap_or(0), count: 0, element: None }
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let before = if self.count == 0 { self.numbers.len() } else { 0 };
        let shape = value.serialize(Probe(self.numbers))?;
        if self.count == 0 {
            let each = self.numbers.len() - before;
            self.numbers.reserve(each.saturating_mul(self.announced.saturating_sub(1)));
            self.element = shape;
        } else if shape != self.element {
            return Err(NotNumbers);
        }
        self.count += 1;
        Ok(())
    }

    fn shape(self) -> Result<Shape> {
        let inner = self.element.as_deref().unwrap_or_default();
        if self.count == 0 || inner.len() >= AXES {
            return Err(NotNumbers);
        }
        Ok(Some([&[self.count], inner].concat().into()))
    }
}

macro_rules! rows {
    ($($trait:ident $method:ident),*) => {
        $(impl $trait for Row<'_> {
            type Ok = Shape;
            type Error = NotNumbers;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.element(value)
            }

            fn end(self) -> Result<Shape> {
                self.shape()
            }
        })*
    };
}

rows!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field);

macro_rules! numbers {
    ($($method:ident $type:ty),* $(,)?) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result<Shape> {
            self.number(value)
        })*
    };
}

type Never = Impossible<Shape, NotNumbers>;

impl<'n> Serializer for Probe<'n> {
    type Ok = Shape;
    type Error = NotNumbers;
    type SerializeSeq = Row<'n>;
    type SerializeTuple = Row<'n>;
    type SerializeTupleStruct = Row<'n>;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    numbers! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
        serialize_f32 f32, serialize_f64 f64,
    }

    fn serialize_char(self, _: char) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_str(self, _: &str) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_none(self) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Shape> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Shape> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Shape> {
        Err(NotNumbers)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Row<'n>> {
        Ok(Row::new(self.0, len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Row<'n>> {
        Ok(Row::new(self.0, Some(len)))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Row<'n>> {
        Ok(Row::new(self.0, Some(len)))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Never> {
        Err(NotNumbers)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Never> {
        Err(NotNumbers)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Never> {
        Err(NotNumbers)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Never> {
        Err(NotNumbers)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
