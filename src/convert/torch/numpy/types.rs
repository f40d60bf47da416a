//! NumPy's dtypes in a pickle: those with a counterpart, and the description of the others, the
//! same text as in the header of a `.npy` file.

use super::Reader;
use crate::convert::npy;
use crate::convert::pickle::{Call, Id, Node};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::tensor::element_count;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

/// A NumPy dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrayType {
    /// Kind and width, `f4`.
    pub code: String,
    /// None if there is no counterpart.
    pub dtype: Option<Dtype>,
    /// Bytes of one element.
    pub width: usize,
    pub is_big_endian: bool,
}

/// The names of NumPy's and ml_dtypes' scalar types from which dtypes are made.
const BY_NAME: &[(&str, &str, Dtype)] = &[
    ("ml_dtypes.bfloat16", "V2", Dtype::Bf16),
    ("ml_dtypes.float8_e4m3fn", "V1", Dtype::F8E4M3Fn),
    ("ml_dtypes.float8_e4m3fnuz", "V1", Dtype::F8E4M3FnUz),
    ("ml_dtypes.float8_e5m2", "V1", Dtype::F8E5M2),
    ("ml_dtypes.float8_e5m2fnuz", "V1", Dtype::F8E5M2FnUz),
    ("ml_dtypes.float8_e8m0fnu", "V1", Dtype::F8E8M0Fnu),
];

/// Places in the state of a dtype: `(version, order, subdtype, names, fields, …, metadata)`.
const ORDER: usize = 1;
const ARRAY_OF: usize = 2;
const NAMES: usize = 3;
const FIELDS: usize = 4;
const METADATA: usize = 8;

/// A letter, and the digits of a length.
const LONGEST_CODE: usize = 21;
/// The units of dates and durations.
const UNITS: [&str; 13] = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"];
/// Deepest nesting of records within records, as in `.npy` headers. Bounds the recursion.
const DEEPEST: usize = 15;

impl Reader<'_, '_> {
    pub fn array_type(&self, id: Id) -> Option<ArrayType> {
        let call = self.graph.call(id, "numpy", "dtype")?;
        let order = self.part(call, ORDER).and_then(|order| self.graph.text(order));
        let is_big_endian = order.is_some_and(|order| order == ">");
        let first = *self.graph.args(call).first()?;
        if let Some(name) = self.graph.global(first) {
            let &(_, code, dtype) = BY_NAME.iter().find(|(known, ..)| *known == name)?;
            return Some(ArrayType {
                code: code.to_owned(),
                dtype: Some(dtype),
                width: dtype.size(),
                is_big_endian,
            });
        }
        let code = self.graph.text(first).filter(|code| code.len() <= LONGEST_CODE)?.into_owned();
        let digits = code.get(1..).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
        let width: usize = digits.parse().ok().or((code == "O").then_some(0))?;
        // NumPy counts the characters of text, which have four bytes each.
        let width = if code.starts_with('U') { width.checked_mul(4)? } else { width };
        let has_fields = self.part(call, NAMES).is_some();
        let dtype =
            npy::DTYPES.iter().find(|(known, _)| *known == code && !has_fields).map(|&(_, dtype)| dtype);
        Some(ArrayType { code, dtype, width, is_big_endian })
    }

    /// A part of a dtype's state, unless it is None.
    fn part(&self, call: &Call, place: usize) -> Option<Id> {
        let part = *self.graph.sequence(call.state?)?.get(place)?;
        (self.graph.node(part) != &Node::None).then_some(part)
    }

    /// A dtype's name in records: `numpy.f4`, `numpy.>U2`, `numpy.M8[s]`, or all fields of records.
    pub fn dtype_name(&self, id: Id, array_type: &ArrayType) -> Result<String> {
        let first = self.graph.call(id, "numpy", "dtype").and_then(|call| self.graph.args(call).first());
        if let Some(name) = first.and_then(|&first| self.graph.global(first)) {
            return Ok(name);
        }
        let described = if array_type.dtype.is_none() { self.descr(id) } else { None };
        let name = match &described {
            Some(descr) => descr.trim_matches('\'').trim_start_matches(['<', '|']).to_owned(),
            None if array_type.is_big_endian => format!(">{}", array_type.code),
            None => array_type.code.clone(),
        };
        self.budget.spend(name.len() as u64, "NumPy's dtypes")?;
        Ok(format!("numpy.{name}"))
    }

    /// NumPy's own description of elements that are no numbers. None for a dtype that has none or a
    /// very long one, and beyond the budget.
    pub fn descr(&self, id: Id) -> Option<String> {
        let mut text = String::new();
        let width = self.describe(id, 0, &mut text)?;
        let is_short = text.len() <= npy::LONGEST_HEADER;
        let is_whole = is_short && npy::opaque_len(&text) == Some(width);
        (is_whole && self.budget.spend(text.len() as u64, "NumPy's dtypes").is_ok()).then_some(text)
    }

    /// Appends a dtype's description; returns the bytes of one element.
    fn describe(&self, id: Id, depth: usize, text: &mut String) -> Option<usize> {
        let call = self.graph.call(id, "numpy", "dtype")?;
        let ArrayType { code, width, is_big_endian, .. } = self.array_type(id)?;
        // The dtypes of ml_dtypes are bytes without a meaning to NumPy.
        self.graph.text(*self.graph.args(call).first()?)?;
        self.budget.spend(64, "NumPy's dtypes").ok()?;
        let is_array = self.part(call, ARRAY_OF).is_some();
        if is_array || depth > DEEPEST || text.len() > npy::LONGEST_HEADER {
            return None;
        }
        if let Some(names) = self.part(call, NAMES) {
            self.describe_record(call, names, width, depth, text)?;
            return Some(width);
        }
        let order = self.part(call, ORDER).and_then(|order| self.graph.text(order));
        let order = match order.as_deref() {
            Some("|") => '|',
            _ if is_big_endian => '>',
            _ => '<',
        };
        let unit = if code.starts_with(['M', 'm']) { self.unit(call)? } else { String::new() };
        write!(text, "'{order}{code}{unit}'").ok()?;
        Some(width)
    }

    /// The unit of dates and durations, `[25s]`.
    fn unit(&self, call: &Call) -> Option<String> {
        let Some(metadata) = self.part(call, METADATA) else { return Some(String::new()) };
        let &[_, unit] = self.graph.sequence(metadata)? else { return None };
        let &[unit, count, divisor, _] = self.graph.sequence(unit)? else { return None };
        let unit = self.bytes_of(unit)?;
        if &*unit == b"generic" {
            return Some(String::new());
        }
        let unit = UNITS.into_iter().find(|known| known.as_bytes() == &*unit)?;
        match (self.graph.size(count)?, self.graph.size(divisor)?) {
            (1, 1) => Some(format!("[{unit}]")),
            (count, 1) => Some(format!("[{count}{unit}]")),
            _ => None,
        }
    }

    /// Appends the fields of a record, with the unused bytes between them. NumPy cannot describe
    /// fields that overlap or are not in the order of their bytes either.
    fn describe_record(
        &self,
        call: &Call,
        names: Id,
        width: usize,
        depth: usize,
        text: &mut String,
    ) -> Option<()> {
        let fields = self.graph.pairs(self.part(call, FIELDS)?)?;
        // A search for each name would take quadratic time.
        let mut by_name = HashMap::new();
        for &(name, field) in fields {
            by_name.insert(self.field_name(name)?, field);
        }
        let mut end = 0;
        text.push('[');
        for &id in self.graph.sequence(names)? {
            let name = self.field_name(id)?;
            let &[dtype, offset, ref title @ ..] = self.graph.sequence(*by_name.get(&name)?)? else {
                return None;
            };
            let offset = self.graph.size(offset)?;
            separate(text);
            skip(offset.checked_sub(end)?, text);
            text.push('(');
            match title {
                [] => quote(&name, text),
                &[title] => {
                    text.push('(');
                    quote(&self.field_name(title)?, text);
                    text.push_str(", ");
                    quote(&name, text);
                    text.push(')');
                }
                _ => return None,
            }
            text.push_str(", ");
            end = offset.checked_add(self.describe_field(dtype, depth + 1, text)?)?;
            text.push(')');
        }
        separate(text);
        skip(width.checked_sub(end)?, text);
        text.truncate(text.trim_end_matches(", ").len());
        text.push(']');
        Some(())
    }

    /// A name or title, charged to the budget: many records may have a long one.
    fn field_name(&self, id: Id) -> Option<Cow<'_, str>> {
        let name = self.graph.text(id)?;
        self.budget.spend((64 + name.len()) as u64, "NumPy's dtypes").ok()?;
        Some(name)
    }

    /// Appends the dtype of a field, and the shape of one that is an array; returns its bytes.
    fn describe_field(&self, id: Id, depth: usize, text: &mut String) -> Option<usize> {
        let Some(array) = self.part(self.graph.call(id, "numpy", "dtype")?, ARRAY_OF) else {
            return self.describe(id, depth, text);
        };
        let &[element, shape] = self.graph.sequence(array)? else { return None };
        let shape = self.graph.sizes(shape).or_else(|| Some(vec![self.graph.size(shape)?]))?;
        let width = self.describe(element, depth, text)?;
        let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
        let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
        write!(text, ", ({dims})").ok()?;
        element_count(&shape).ok()?.checked_mul(width)
    }
}

/// Separates a field from the one before.
fn separate(text: &mut String) {
    if text.ends_with(')') {
        text.push_str(", ");
    }
}

/// Appends bytes that no field uses.
fn skip(len: usize, text: &mut String) {
    if len > 0 {
        text.push_str(&format!("('', '|V{len}'), "));
    }
}

/// Appends text as a Python literal.
fn quote(name: &str, text: &mut String) {
    text.push('\'');
    for c in name.chars() {
        match c {
            '\\' | '\'' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('\'');
}
