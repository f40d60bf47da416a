//! Keys of Python's dicts: which of them are equal in Python, and how they appear in names and in
//! records.

use super::Reader;
use super::scalars::{hexadecimal, scalar};
use crate::convert::pickle::{Id, Node};
use crate::error::Result;
use crate::format::value::Value;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// Deepest nesting of tuples that are compared by value; deeper ones are compared by identity.
const DEEPEST: usize = 16;

/// A key of an item in an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Key {
    /// A key of a dict.
    Of(Id),
    /// An index in a list.
    Place(usize),
    /// A name chosen here.
    Word(&'static str),
    /// The name of an attribute whose object has an item of the same name.
    Attribute(Id),
}

/// What stands before the name of such an attribute: where Python keeps attributes.
const ATTRIBUTES: &str = "__dict__.";

impl Reader<'_, '_> {
    /// The pairs of a dict as in Python: a key that is set again keeps its position and gets the
    /// last value.
    pub fn unique(&self, pairs: &[(Key, Id)]) -> Result<Vec<(Key, Id)>> {
        let mut unique: Vec<(Key, Id)> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for &(key, value) in pairs {
            match places.entry(self.key_form(key)?) {
                Entry::Occupied(place) => unique[*place.get()].1 = value,
                Entry::Vacant(free) => {
                    free.insert(unique.len());
                    unique.push((key, value));
                }
            }
        }
        Ok(unique)
    }

    /// The first of all items that are equal in Python, as a set has them.
    pub fn distinct(&self, items: &[Id]) -> Result<Vec<Id>> {
        let mut seen = HashSet::new();
        let mut distinct = Vec::new();
        for &item in items {
            if seen.insert(self.key_form(Key::Of(item))?) {
                distinct.push(item);
            }
        }
        Ok(distinct)
    }

    /// Bytes that are equal for keys that are equal in Python, such as `1`, `1.0` and `True`.
    pub fn key_form(&self, key: Key) -> Result<Vec<u8>> {
        let mut form = Vec::new();
        match key {
            Key::Of(id) => self.form(id, &mut form, 0)?,
            Key::Place(number) => number_form(number as i64, &mut form),
            Key::Word(word) => text_form(b't', word.as_bytes(), &mut form),
            Key::Attribute(id) => {
                form.push(b'a');
                self.form(id, &mut form, 0)?;
            }
        }
        self.budget.spend((form.len() + 64) as u64, "keys")?;
        Ok(form)
    }

    fn form(&self, id: Id, form: &mut Vec<u8>, depth: usize) -> Result<()> {
        self.budget.spend(16, "keys")?;
        match self.graph.node(id) {
            Node::None => form.push(b'N'),
            Node::Bool(value) => number_form(i64::from(*value), form),
            Node::Int(value) => number_form(*value, form),
            // OK to cast: a whole number within 2^53.
            Node::Float(value) if value.fract() == 0.0 && value.abs() <= 9e15 => {
                number_form(*value as i64, form)
            }
            Node::Float(value) if !value.is_nan() => text_form(b'f', &value.to_bits().to_le_bytes(), form),
            Node::BigInt(bytes) => text_form(b'l', bytes, form),
            Node::Text(text) => text_form(b't', text, form),
            Node::Str(bytes) => {
                text_form(if std::str::from_utf8(bytes).is_ok() { b't' } else { b'b' }, bytes, form)
            }
            Node::Bytes(bytes) => text_form(b'b', bytes, form),
            Node::Global(global) => {
                text_form(b'g', global.module.as_bytes(), form);
                text_form(b'.', global.name.as_bytes(), form);
            }
            Node::Tuple(items) if depth < DEEPEST => {
                text_form(b'(', &(items.len() as u64).to_le_bytes(), form);
                for &item in items {
                    self.form(item, form, depth + 1)?;
                }
            }
            _ => match self.bytes_of(id) {
                Some(bytes) => text_form(b'b', &bytes, form),
                None => text_form(b'@', &id.to_le_bytes(), form),
            },
        }
        Ok(())
    }

    /// A key as part of a name: text unchanged, other keys as Python writes them.
    pub fn key_name(&self, key: Key) -> Result<String> {
        let mut name = String::new();
        match key {
            Key::Of(id) => self.push_name(id, &mut name)?,
            Key::Place(number) => name = number.to_string(),
            Key::Word(word) => name.push_str(word),
            Key::Attribute(id) => {
                name.push_str(ATTRIBUTES);
                self.push_name(id, &mut name)?;
            }
        }
        Ok(name)
    }

    fn push_name(&self, id: Id, name: &mut String) -> Result<()> {
        let Some(text) = self.graph.text(id) else { return self.write(id, name, 0) };
        self.budget.spend(text.len() as u64, "names")?;
        name.push_str(&text);
        Ok(())
    }

    /// An object as Python writes it, for objects that can be keys.
    fn write(&self, id: Id, name: &mut String, depth: usize) -> Result<()> {
        let before = name.len();
        match self.graph.node(id) {
            Node::None => name.push_str("None"),
            Node::Bool(value) => name.push_str(if *value { "True" } else { "False" }),
            Node::Int(value) => drop(write!(name, "{value}")),
            Node::Float(value) => drop(write!(name, "{value:?}")),
            Node::BigInt(bytes) => name.push_str(&hexadecimal(bytes)),
            Node::Tuple(items) if depth < DEEPEST => {
                name.push('(');
                for (number, &item) in items.iter().enumerate() {
                    name.push_str(if number > 0 { ", " } else { "" });
                    self.write(item, name, depth + 1)?;
                }
                name.push_str(if items.len() == 1 { ",)" } else { ")" });
            }
            Node::Global(global) => drop(write!(name, "{}.{}", global.module, global.name)),
            _ => match (self.graph.text(id), self.bytes_of(id)) {
                (Some(text), _) => drop(write!(name, "'{text}'")),
                (_, Some(bytes)) => drop(write!(name, "b'{}'", bytes.escape_ascii())),
                _ => drop(write!(name, "key-{id}")),
            },
        }
        self.budget.spend((name.len() - before + 16) as u64, "names")
    }

    /// A key in a record. A key without a MessagePack type, such as a tuple or a long integer, is
    /// text as Python writes it.
    pub fn key_value(&self, key: Key) -> Result<Value> {
        let id = match key {
            Key::Of(id) => id,
            Key::Place(number) => return Ok(Value::Int(number as i64)),
            Key::Word(word) => return Ok(Value::Text(word.to_owned())),
            Key::Attribute(_) => return self.key_name(key).map(Value::Text),
        };
        self.budget.spend_values::<Value>(1, "keys")?;
        if self.graph.text(id).is_none()
            && let Some(bytes) = self.bytes_of(id)
        {
            self.budget.spend(bytes.len() as u64, "keys")?;
            return Ok(Value::Bytes(bytes.into_owned()));
        }
        match scalar(self.graph.node(id)) {
            Some(Value::Map(_)) | None => Ok(Value::Text(self.key_name(key)?)),
            Some(value) => Ok(value),
        }
    }
}

fn number_form(value: i64, form: &mut Vec<u8>) {
    form.push(b'i');
    form.extend(value.to_le_bytes());
}

fn text_form(kind: u8, bytes: &[u8], form: &mut Vec<u8>) {
    form.push(kind);
    form.extend((bytes.len() as u64).to_le_bytes());
    form.extend(bytes);
}
