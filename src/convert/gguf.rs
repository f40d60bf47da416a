//! GGUF, in: llama.cpp's format, versions 2 and 3. Owns: its key-value pairs, which become a record, and its tensors;
//! quantised ones are kept as opaque bytes with their ggml type beside them.

use super::blob::Cursor;
use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

/// The deepest array within arrays. The format allows any; nobody writes more than one.
const DEEPEST: usize = 8;
/// ggml's own limit.
const MOST_AXES: u32 = 4;

/// ggml's types: id, name, elements in a block, bytes of a block, and the dtype where a block is one element.
/// From `ggml.h` and `ggml-common.h`.
const TYPES: &[(u32, &str, u64, u64, Option<Dtype>)] = &[
    (0, "F32", 1, 4, Some(Dtype::F32)),
    (1, "F16", 1, 2, Some(Dtype::F16)),
    (2, "Q4_0", 32, 18, None),
    (3, "Q4_1", 32, 20, None),
    (6, "Q5_0", 32, 22, None),
    (7, "Q5_1", 32, 24, None),
    (8, "Q8_0", 32, 34, None),
    (9, "Q8_1", 32, 36, None),
    (10, "Q2_K", 256, 84, None),
    (11, "Q3_K", 256, 110, None),
    (12, "Q4_K", 256, 144, None),
    (13, "Q5_K", 256, 176, None),
    (14, "Q6_K", 256, 210, None),
    (15, "Q8_K", 256, 292, None),
    (16, "IQ2_XXS", 256, 66, None),
    (17, "IQ2_XS", 256, 74, None),
    (18, "IQ3_XXS", 256, 98, None),
    (19, "IQ1_S", 256, 50, None),
    (20, "IQ4_NL", 32, 18, None),
    (21, "IQ3_S", 256, 110, None),
    (22, "IQ2_S", 256, 82, None),
    (23, "IQ4_XS", 256, 136, None),
    (24, "I8", 1, 1, Some(Dtype::I8)),
    (25, "I16", 1, 2, Some(Dtype::I16)),
    (26, "I32", 1, 4, Some(Dtype::I32)),
    (27, "I64", 1, 8, Some(Dtype::I64)),
    (28, "F64", 1, 8, Some(Dtype::F64)),
    (29, "IQ1_M", 256, 56, None),
    (30, "BF16", 1, 2, Some(Dtype::Bf16)),
    (34, "TQ1_0", 256, 54, None),
    (35, "TQ2_0", 256, 66, None),
    (39, "MXFP4", 32, 17, None),
];

struct Fields<'b> {
    input: BufReader<Cursor>,
    at: u64,
    len: u64,
    budget: &'b Budget,
}

struct Described {
    name: String,
    dims: Vec<u64>,
    ggml_type: u32,
    offset: u64,
}

pub fn open(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let input = BufReader::with_capacity(64 << 10, Cursor::new(blob));
    let mut fields = Fields { input, at: 0, len: blob.len(), budget };
    fields.take::<4>()?;
    let version = fields.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Error::new(ErrorKind::Unsupported, "GGUF version").expected("2 or 3").found(version));
    }
    let (tensors, pairs) = (fields.u64()?, fields.u64()?);
    let mut foreign = Foreign::empty(Format::Gguf, blob.len());
    let mut record = BTreeMap::new();
    for _ in 0..fields.plausible(pairs, 13)? {
        let key = fields.text()?;
        let kind = fields.u32()?;
        let value = fields.value(kind, 0).map_err(|error| error.at_byte(fields.at))?;
        if record.insert(key.clone(), value).is_some() {
            return Err(Error::damaged(format!("key {key:?} stands twice")));
        }
    }
    let mut described = Vec::new();
    for _ in 0..fields.plausible(tensors, 24)? {
        described.push(fields.tensor()?);
    }
    let alignment = match record.get("general.alignment") {
        Some(Value::Int(alignment)) if *alignment > 0 && *alignment <= 1 << 30 => *alignment as u64,
        None => 32,
        Some(other) => return Err(Error::damaged("general.alignment").found(other)),
    };
    let data_start = fields.at.next_multiple_of(alignment);
    for tensor in described {
        push(&mut foreign, blob, tensor, data_start)?;
    }
    foreign.records.insert("gguf".to_owned(), Value::Map(record));
    Ok(foreign)
}

fn push(foreign: &mut Foreign, blob: &Arc<dyn Blob>, tensor: Described, data_start: u64) -> Result<()> {
    let Described { name, dims, ggml_type, offset } = tensor;
    let wrong = |what: &'static str| Error::damaged(what).in_tensor(&name);
    let at = data_start.checked_add(offset).ok_or_else(|| wrong("offset overflows"))?;
    let Some(&(_, type_name, block, block_bytes, dtype)) = TYPES.iter().find(|(id, ..)| *id == ggml_type)
    else {
        foreign.notes.push(Note::lost(&name, format!("dropped: unknown ggml type {ggml_type}")));
        return Ok(());
    };
    // ggml counts axes from the fastest, we from the slowest.
    let shape: Option<Vec<usize>> = dims.iter().rev().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| wrong("shape overflows"))?;
    let place = Place::At(Arc::clone(blob), at);
    if let Some(dtype) = dtype {
        foreign.tensors.push(ForeignTensor::new(name, dtype, shape, place)?);
        return Ok(());
    }
    let count = dims.iter().try_fold(1_u64, |count, &dim| count.checked_mul(dim));
    let count = count.ok_or_else(|| wrong("shape overflows"))?;
    if !dims.first().copied().unwrap_or(1).is_multiple_of(block) {
        return Err(wrong("rows are no whole number of blocks"));
    }
    let bytes = (count / block).checked_mul(block_bytes).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| wrong("length overflows"))?;
    let what = format!("{type_name} {shape:?}");
    foreign.notes.push(Note::kept(&name, format!("{what} kept as opaque blocks")));
    let key = format!("gguf.type.{name}");
    foreign.metadata.insert(super::valid_name(&key), what);
    foreign.tensors.push(ForeignTensor::new(name, Dtype::Opaque, vec![bytes], place)?);
    Ok(())
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.input.read_exact(bytes).map_err(|error| {
            Error::damaged("the file ends within its header").at_byte(self.at).because(error)
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// A count of things of at least `least` bytes each cannot be larger than the bytes left.
    fn plausible(&self, count: u64, least: u64) -> Result<u64> {
        let most = self.len.saturating_sub(self.at) / least;
        if count <= most {
            return Ok(count);
        }
        Err(Error::damaged("a count")
            .at_byte(self.at)
            .expected(format!("at most {most}, by the bytes left"))
            .found(count))
    }

    fn text(&mut self) -> Result<String> {
        let len = self.u64()?;
        let len = self.plausible(len, 1)?;
        self.budget.spend(len, "text")?;
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        // Tokens of a vocabulary need not be UTF-8.
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        self.budget.spend_values::<Value>(1, "key-value pairs")?;
        Ok(match kind {
            0 => Value::Int(i64::from(self.take::<1>()?[0])),
            1 => Value::Int(i64::from(i8::from_le_bytes(self.take()?))),
            2 => Value::Int(i64::from(u16::from_le_bytes(self.take()?))),
            3 => Value::Int(i64::from(i16::from_le_bytes(self.take()?))),
            4 => Value::Int(i64::from(self.u32()?)),
            5 => Value::Int(i64::from(i32::from_le_bytes(self.take()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.take()?))),
            7 => Value::Bool(self.take::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => self.list(depth)?,
            10 => {
                let value = self.u64()?;
                i64::try_from(value).map_or(Value::UInt(value), Value::Int)
            }
            11 => Value::Int(i64::from_le_bytes(self.take()?)),
            12 => Value::Float(f64::from_le_bytes(self.take()?)),
            kind => return Err(Error::damaged("type of a value").expected("0 to 12").found(kind)),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(Error::damaged("arrays within arrays").expected(format!("at most {DEEPEST} deep")));
        }
        let kind = self.u32()?;
        let count = self.u64()?;
        // Nothing is reserved: a lying count of single bytes would be memory out of proportion.
        let mut values = Vec::new();
        for _ in 0..self.plausible(count, 1)? {
            values.push(self.value(kind, depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn tensor(&mut self) -> Result<Described> {
        self.budget.spend_values::<ForeignTensor>(1, "the list of tensors")?;
        let name = self.text()?;
        let axes = self.u32()?;
        if axes > MOST_AXES {
            return Err(Error::damaged("axes")
                .in_tensor(name)
                .expected(format!("at most {MOST_AXES}"))
                .found(axes));
        }
        let dims = (0..axes).map(|_| self.u64()).collect::<Result<_>>()?;
        Ok(Described { name, dims, ggml_type: self.u32()?, offset: self.u64()? })
    }
}
