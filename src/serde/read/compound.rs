//! Lists, maps and variants of a record, item by item. It is an error if a type stops before the
//! last item, because the rest would be read as the next value.

use super::{Item, Read, Reader};
use crate::serde::fault::Fault;
use crate::serde::item::key_text;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

pub(super) struct Items<'r, 'b, 'c> {
    reader: &'r mut Reader<'b, 'c>,
    count: usize,
    next: usize,
    outer: usize,
}

impl<'r, 'b, 'c> Items<'r, 'b, 'c> {
    pub fn visit<V: Visitor<'c>>(reader: &'r mut Reader<'b, 'c>, count: usize, visitor: V) -> Read<V::Value> {
        let outer = reader.path.len();
        let mut items = Self { reader, count, next: 0, outer };
        let value = visitor.visit_seq(&mut items)?;
        items.reader.path.truncate(outer);
        if items.next < count {
            return Err(Fault::Said(format!(
                "a list of {count} items, of which the type takes {}",
                items.next
            )));
        }
        Ok(value)
    }
}

impl<'c> SeqAccess<'c> for &mut Items<'_, '_, 'c> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'c>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        if self.next == self.count {
            return Ok(None);
        }
        self.reader.enter(self.outer, self.next);
        self.next += 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

pub(super) struct Pairs<'r, 'b, 'c> {
    reader: &'r mut Reader<'b, 'c>,
    count: usize,
    next: usize,
    outer: usize,
}

impl<'r, 'b, 'c> Pairs<'r, 'b, 'c> {
    pub fn visit<V: Visitor<'c>>(reader: &'r mut Reader<'b, 'c>, count: usize, visitor: V) -> Read<V::Value> {
        let outer = reader.path.len();
        let mut pairs = Self { reader, count, next: 0, outer };
        let value = visitor.visit_map(&mut pairs)?;
        pairs.reader.path.truncate(outer);
        if pairs.next < count {
            return Err(Fault::Said(format!(
                "a map of {count} pairs, of which the type takes {}",
                pairs.next
            )));
        }
        Ok(value)
    }
}

impl<'c> MapAccess<'c> for &mut Pairs<'_, '_, 'c> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'c>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        if self.next == self.count {
            return Ok(None);
        }
        let key = key_text(self.reader.rest);
        self.reader.enter(self.outer, key.unwrap_or_else(|| self.next.to_string()));
        self.next += 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'c>>(&mut self, seed: V) -> Read<V::Value> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

/// A variant with content: the only pair of a map.
pub(super) struct Variant<'r, 'b, 'c> {
    reader: &'r mut Reader<'b, 'c>,
    outer: usize,
}

impl<'r, 'b, 'c> Variant<'r, 'b, 'c> {
    pub fn new(reader: &'r mut Reader<'b, 'c>) -> Self {
        let outer = reader.path.len();
        Self { reader, outer }
    }

    /// Reads the content, and removes the variant from the path.
    fn content<T>(self, read: impl FnOnce(&mut Reader<'b, 'c>) -> Read<T>) -> Read<T> {
        let value = read(&mut *self.reader)?;
        self.reader.path.truncate(self.outer);
        Ok(value)
    }
}

impl<'c> EnumAccess<'c> for Variant<'_, '_, 'c> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'c>>(self, seed: V) -> Read<(V::Value, Self)> {
        if let Some(variant) = key_text(self.reader.rest) {
            self.reader.enter(self.outer, variant);
        }
        let variant = seed.deserialize(&mut *self.reader)?;
        Ok((variant, self))
    }
}

impl<'c> VariantAccess<'c> for Variant<'_, '_, 'c> {
    type Error = Fault;

    fn unit_variant(self) -> Read<()> {
        self.content(|reader| match reader.item()? {
            Item::Nil => Ok(()),
            _ => Err(Fault::custom("expected a variant without content")),
        })
    }

    fn newtype_variant_seed<T: DeserializeSeed<'c>>(self, seed: T) -> Read<T::Value> {
        self.content(|reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'c>>(self, _: usize, visitor: V) -> Read<V::Value> {
        self.content(|reader| reader.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'c>>(self, _: &'static [&'static str], visitor: V) -> Read<V::Value> {
        self.content(|reader| reader.deserialize_any(visitor))
    }
}
