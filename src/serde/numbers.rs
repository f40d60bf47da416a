//! Numbers of one type, gathered while a value is serialized: the elements of a tensor, or of a
//! short list.

use crate::dtype::{Dtype, Element};

/// Elements of one type, in order.
pub(super) enum Numbers {
    /// No element yet, hence no type.
    Empty,
    Bool(Vec<bool>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A number type of both serde's data model and tensors.
pub(super) trait Number: Element {
    /// The list, if it is of this type.
    fn list(numbers: &mut Numbers) -> Option<&mut Vec<Self>>;

    /// A list of this type.
    fn first(list: Vec<Self>) -> Numbers;
}

/// Evaluates the same expression on the list of any type.
macro_rules! each {
    ($numbers:expr, $list:ident => $then:expr, $empty:expr) => {
        match $numbers {
            Numbers::Empty => $empty,
            Numbers::Bool($list) => $then,
            Numbers::U8($list) => $then,
            Numbers::I8($list) => $then,
            Numbers::U16($list) => $then,
            Numbers::I16($list) => $then,
            Numbers::U32($list) => $then,
            Numbers::I32($list) => $then,
            Numbers::U64($list) => $then,
            Numbers::I64($list) => $then,
            Numbers::F32($list) => $then,
            Numbers::F64($list) => $then,
        }
    };
}

macro_rules! number {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl Number for $type {
            #[inline]
            fn list(numbers: &mut Numbers) -> Option<&mut Vec<Self>> {
                match numbers {
                    Numbers::$variant(list) => Some(list),
                    _ => None,
                }
            }

            fn first(list: Vec<Self>) -> Numbers {
                Numbers::$variant(list)
            }
        })*
    };
}

number! {
    bool => Bool, u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64,
}

impl Numbers {
    /// Adds a number, unless the previous ones are of another type.
    #[inline]
    pub fn push<T: Number>(&mut self, number: T) -> bool {
        if let Some(list) = T::list(self) {
            list.push(number);
            return true;
        }
        let is_first = matches!(self, Self::Empty);
        if is_first {
            *self = T::first(vec![number]);
        }
        is_first
    }

    /// Reserves memory for announced elements. An announcement is only a hint, so a failed
    /// allocation is no error yet.
    pub fn reserve(&mut self, more: usize) {
        each!(self, list => drop(list.try_reserve(more)), ());
    }

    pub fn len(&self) -> usize {
        each!(self, list => list.len(), 0)
    }

    /// Elements `from..to`, copied.
    pub fn part(&self, from: usize, to: usize) -> Self {
        fn part<T: Number>(list: &[T], from: usize, to: usize) -> Numbers {
            T::first(list.get(from..to).unwrap_or_default().to_vec())
        }
        each!(self, list => part(list, from, to), Self::Empty)
    }

    /// The element type; that of bytes if there is no element yet.
    pub fn dtype(&self) -> Dtype {
        fn of<T: Element>(_: &[T]) -> Dtype {
            T::DTYPE
        }
        each!(self, list => of(list), Dtype::U8)
    }
}

pub(super) use each;

impl AsRef<[u8]> for Numbers {
    fn as_ref(&self) -> &[u8] {
        each!(self, list => bytemuck::cast_slice(list), &[])
    }
}
