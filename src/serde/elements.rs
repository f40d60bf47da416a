//! A tensor as the nested lists of numbers that it was made from.

use super::exact;
use super::fault::Fault;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind};
use crate::tensor::Tensor;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Elements of a dtype that serde's data model has.
#[derive(Clone, Copy)]
enum Elements<'t> {
    Bool(&'t [bool]),
    U8(&'t [u8]),
    I8(&'t [i8]),
    U16(&'t [u16]),
    I16(&'t [i16]),
    U32(&'t [u32]),
    I32(&'t [i32]),
    U64(&'t [u64]),
    I64(&'t [i64]),
    F32(&'t [f32]),
    F64(&'t [f64]),
}

/// A list of rows, or of numbers if there is one axis.
pub(super) struct Rows<'t> {
    elements: Elements<'t>,
    shape: &'t [usize],
    /// The first element of the next row, and the number of rows left.
    at: usize,
    left: usize,
}

impl<'t> Rows<'t> {
    /// All of a tensor.
    ///
    /// # Errors
    /// `Unsupported` for a dtype that no state has; `Damaged` for an invalid bool.
    pub fn of(tensor: &'t Tensor<'_>) -> Result<Self, Fault> {
        let elements = match tensor.dtype() {
            Dtype::Bool => Elements::Bool(tensor.elements()?),
            Dtype::U8 => Elements::U8(tensor.elements()?),
            Dtype::I8 => Elements::I8(tensor.elements()?),
            Dtype::U16 => Elements::U16(tensor.elements()?),
            Dtype::I16 => Elements::I16(tensor.elements()?),
            Dtype::U32 => Elements::U32(tensor.elements()?),
            Dtype::I32 => Elements::I32(tensor.elements()?),
            Dtype::U64 => Elements::U64(tensor.elements()?),
            Dtype::I64 => Elements::I64(tensor.elements()?),
            Dtype::F32 => Elements::F32(tensor.elements()?),
            Dtype::F64 => Elements::F64(tensor.elements()?),
            other => {
                return Err(Error::new(ErrorKind::Unsupported, format!("{other} has no type in serde"))
                    .help("read it by Checkpoint::tensor")
                    .into());
            }
        };
        let left = tensor.shape().first().copied().unwrap_or(0);
        Ok(Self { elements, shape: tensor.shape(), at: 0, left })
    }

    /// Passes all rows to the visitor; an error if the type takes fewer.
    pub fn visit<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        let value = visitor.visit_seq(&mut self)?;
        if self.left > 0 {
            let all = self.shape.first().copied().unwrap_or(0);
            let taken = all - self.left;
            return Err(Fault::Said(format!("an array of {all} elements, of which the type takes {taken}")));
        }
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for &mut Rows<'_> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let at = self.at;
        match self.shape {
            [] | [_] => {
                self.at += 1;
                seed.deserialize(Number { elements: self.elements, at }).map(Some)
            }
            [_, inner @ ..] => {
                self.at += inner.iter().product::<usize>();
                let left = inner.first().copied().unwrap_or(0);
                seed.deserialize(Row(Rows { elements: self.elements, shape: inner, at, left })).map(Some)
            }
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// Every call gets the actual value, independent of the type asked for.
macro_rules! as_any {
    () => {
        fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.visit_some(self)
        }

        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            visitor: V,
        ) -> Result<V::Value, Fault> {
            visitor.visit_newtype_struct(self)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct seq
            tuple tuple_struct map struct enum identifier ignored_any
        }

        fn is_human_readable(&self) -> bool {
            false
        }
    };
}

/// One number.
struct Number<'t> {
    elements: Elements<'t>,
    at: usize,
}

/// OK to default: the shape matches the number of elements.
fn get<T: Copy + Default>(elements: &[T], at: usize) -> T {
    elements.get(at).copied().unwrap_or_default()
}

impl<'de> Deserializer<'de> for Number<'_> {
    type Error = Fault;

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let exact = match self.elements {
            Elements::F64(elements) => exact::f32_of_f64(get(elements, self.at)),
            Elements::U64(elements) => exact::f32_of_integer(get(elements, self.at)),
            Elements::I64(elements) => exact::f32_of_integer(get(elements, self.at)),
            Elements::U32(elements) => exact::f32_of_integer(get(elements, self.at)),
            Elements::I32(elements) => exact::f32_of_integer(get(elements, self.at)),
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_f32(exact?)
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let exact = match self.elements {
            Elements::U64(elements) => exact::f64_of_integer(get(elements, self.at)),
            Elements::I64(elements) => exact::f64_of_integer(get(elements, self.at)),
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_f64(exact?)
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.elements {
            Elements::Bool(elements) => visitor.visit_bool(get(elements, self.at)),
            Elements::U8(elements) => visitor.visit_u8(get(elements, self.at)),
            Elements::I8(elements) => visitor.visit_i8(get(elements, self.at)),
            Elements::U16(elements) => visitor.visit_u16(get(elements, self.at)),
            Elements::I16(elements) => visitor.visit_i16(get(elements, self.at)),
            Elements::U32(elements) => visitor.visit_u32(get(elements, self.at)),
            Elements::I32(elements) => visitor.visit_i32(get(elements, self.at)),
            Elements::U64(elements) => visitor.visit_u64(get(elements, self.at)),
            Elements::I64(elements) => visitor.visit_i64(get(elements, self.at)),
            Elements::F32(elements) => visitor.visit_f32(get(elements, self.at)),
            Elements::F64(elements) => visitor.visit_f64(get(elements, self.at)),
        }
    }

    as_any!();
}

/// A list within the list.
struct Row<'t>(Rows<'t>);

impl<'de> Deserializer<'de> for Row<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.0.visit(visitor)
    }

    forward_to_deserialize_any! { f32 f64 }

    as_any!();
}
