//! Lists and maps while they are serialized: a list is gathered as numbers until an item is
//! something else, and then written item by item.

use super::{Writer, Written, length, list_header};
use crate::serde::item::key_text;
use crate::serde::numbers::Numbers;
use crate::serde::probe::{Probe, Shape};
use rmp::encode;
use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};

pub(in crate::serde) struct List<'w, 'n> {
    writer: &'w mut Writer<'n>,
    announced: Option<usize>,
    count: usize,
    items: Items,
    /// Length of the path to restore at the end.
    outer: usize,
}

enum Items {
    /// Nothing is written: all items so far are numbers, or arrays of numbers of this shape.
    Gathered(Numbers, Shape),
    /// The header, announcing `len` items, is written at this offset.
    Written { header: usize, len: usize },
}

impl<'w, 'n> List<'w, 'n> {
    pub fn new(writer: &'w mut Writer<'n>, announced: Option<usize>) -> Self {
        let outer = writer.path.len();
        Self { writer, announced, count: 0, items: Items::Gathered(Numbers::Empty, None), outer }
    }

    /// Sets the path to restore at the end, for a list within a variant.
    pub fn leaving(self, outer: usize) -> Self {
        Self { outer, ..self }
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        if let Items::Gathered(numbers, element) = &mut self.items {
            match value.serialize(Probe(numbers)) {
                Ok(shape) if self.count > 0 && shape == *element => {
                    self.count += 1;
                    return Ok(());
                }
                Ok(shape) if self.count == 0 => {
                    let rest = self.announced.unwrap_or(0).saturating_sub(1);
                    numbers.reserve(rest.saturating_mul(numbers.len()));
                    (*element, self.count) = (shape, 1);
                    return Ok(());
                }
                _ => self.scatter()?,
            }
        }
        let outer = self.writer.enter(self.count);
        value.serialize(&mut *self.writer)?;
        self.writer.leave(outer);
        self.count += 1;
        Ok(())
    }

    /// Writes the gathered numbers item by item.
    fn scatter(&mut self) -> Written {
        let len = self.announced.unwrap_or(0);
        let header = self.writer.out.len();
        list_header(&mut self.writer.out, len)?;
        let before = std::mem::replace(&mut self.items, Items::Written { header, len });
        let Items::Gathered(numbers, element) = before else { return Ok(()) };
        let Some(element) = element else {
            return (0..self.count).try_for_each(|i| self.writer.number(&numbers, i));
        };
        let each: usize = element.iter().product();
        for i in 0..self.count {
            let outer = self.writer.enter(i);
            self.writer.array(numbers.part(i * each, (i + 1) * each), element.to_vec())?;
            self.writer.leave(outer);
        }
        Ok(())
    }

    fn finish(self) -> Written {
        let Self { writer, count, items, outer, .. } = self;
        match items {
            Items::Gathered(numbers, element) if count > 0 => {
                let inner = element.as_deref().unwrap_or_default();
                writer.array(numbers, [&[count], inner].concat())?;
            }
            Items::Gathered(..) => list_header(&mut writer.out, 0)?,
            Items::Written { header, len } if len != count => {
                let mut right = Vec::new();
                list_header(&mut right, count)?;
                replace_header(&mut writer.out, header, right);
            }
            Items::Written { .. } => {}
        }
        writer.leave(outer);
        Ok(())
    }
}

/// Replaces the header of the announced length by the right one.
fn replace_header(out: &mut Vec<u8>, at: usize, right: Vec<u8>) {
    let len = match out.get(at) {
        Some(0xDC | 0xDE) => 3,
        Some(0xDD | 0xDF) => 5,
        _ => 1,
    };
    out.splice(at..at + len, right);
}

macro_rules! lists {
    ($($trait:ident $method:ident),*) => {
        $(impl $trait for List<'_, '_> {
            type Ok = ();
            type Error = super::Fault;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                self.item(value)
            }

            fn end(self) -> Written {
                self.finish()
            }
        })*
    };
}

lists!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

pub(in crate::serde) struct Map<'w, 'n> {
    writer: &'w mut Writer<'n>,
    announced: usize,
    count: usize,
    header: usize,
    /// Length of the map's own path, and of the one to restore at the end.
    own: usize,
    outer: usize,
}

impl<'w, 'n> Map<'w, 'n> {
    pub fn new(writer: &'w mut Writer<'n>, announced: usize, outer: usize) -> Written<Self> {
        let (header, own) = (writer.out.len(), writer.path.len());
        encode::write_map_len(&mut writer.out, length(announced)?)?;
        Ok(Self { writer, announced, count: 0, header, own, outer })
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Written {
        encode::write_str(&mut self.writer.out, name)?;
        self.writer.enter(name);
        self.value(value)
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        let start = self.writer.out.len();
        // Keys are compared in the record's bytes, so no part of a key may become a tensor.
        self.writer.with_tensors_from(usize::MAX, key)?;
        let text = key_text(self.writer.out.get(start..).unwrap_or_default());
        self.writer.enter(text.unwrap_or_else(|| self.count.to_string()));
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(&mut *self.writer)?;
        self.writer.leave(self.own);
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Written {
        if self.announced != self.count {
            let mut right = Vec::new();
            encode::write_map_len(&mut right, length(self.count)?)?;
            replace_header(&mut self.writer.out, self.header, right);
        }
        self.writer.leave(self.outer);
        Ok(())
    }
}

impl SerializeMap for Map<'_, '_> {
    type Ok = ();
    type Error = super::Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.value(value)
    }

    fn end(self) -> Written {
        self.finish()
    }
}

macro_rules! structs {
    ($($trait:ident),*) => {
        $(impl $trait for Map<'_, '_> {
            type Ok = ();
            type Error = super::Fault;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
                self.field(name, value)
            }

            fn end(self) -> Written {
                self.finish()
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);
