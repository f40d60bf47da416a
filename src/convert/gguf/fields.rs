//! The consecutive fields of a GGUF file: integers, text, values, and descriptions of tensors. A
//! count is bounded by the bytes left, and memory is charged to a budget.

use crate::budget::Budget;
use crate::convert::ForeignTensor;
use crate::convert::blob::Cursor;
use crate::engine::Blob;
use crate::error::{Error, Result};
use crate::format::value::Value;
use std::io::{BufReader, Read};
use std::sync::Arc;

/// The deepest nesting of arrays. The format allows any; files in use have one level.
const DEEPEST: usize = 8;
/// ggml's own limit.
const MOST_AXES: u32 = 4;

pub struct Fields<'b> {
    input: BufReader<Cursor>,
    pub at: u64,
    len: u64,
    budget: &'b Budget,
}

/// The description of a tensor.
pub struct Described {
    pub name: Vec<u8>,
    /// Lengths of the axes, the fastest first.
    pub dims: Vec<u64>,
    pub ggml_type: u32,
    /// From the start of the data.
    pub offset: u64,
}

impl<'b> Fields<'b> {
    pub fn new(blob: &Arc<dyn Blob>, budget: &'b Budget) -> Self {
        let input = BufReader::with_capacity(64 << 10, Cursor::new(blob));
        Self { input, at: 0, len: blob.len(), budget }
    }

    pub fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
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

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// Checks that a count of items of at least `least` bytes each fits the bytes left.
    pub fn plausible(&self, count: u64, least: u64) -> Result<u64> {
        let most = self.len.saturating_sub(self.at) / least;
        if count <= most {
            return Ok(count);
        }
        Err(Error::damaged("a count")
            .at_byte(self.at)
            .expected(format!("at most {most}, by the bytes left"))
            .found(count))
    }

    pub fn text(&mut self) -> Result<Vec<u8>> {
        let len = self.u64()?;
        let len = self.plausible(len, 1)?;
        self.budget.spend(len, "text")?;
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
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
            // Tokens of a vocabulary may not be UTF-8; these are kept as bytes.
            8 => match String::from_utf8(self.text()?) {
                Ok(text) => Value::Text(text),
                Err(error) => Value::Bytes(error.into_bytes()),
            },
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
        // Nothing is reserved: a false count of single bytes would take memory out of proportion.
        let mut values = Vec::new();
        for _ in 0..self.plausible(count, 1)? {
            values.push(self.value(kind, depth + 1)?);
        }
        Ok(Value::List(values))
    }

    pub fn tensor(&mut self) -> Result<Described> {
        self.budget.spend_values::<ForeignTensor>(1, "the list of tensors")?;
        let name = self.text()?;
        let axes = self.u32()?;
        if axes > MOST_AXES {
            return Err(Error::damaged("axes")
                .in_tensor(String::from_utf8_lossy(&name))
                .at_byte(self.at)
                .expected(format!("at most {MOST_AXES}"))
                .found(axes));
        }
        let dims = (0..axes).map(|_| self.u64()).collect::<Result<_>>()?;
        Ok(Described { name, dims, ggml_type: self.u32()?, offset: self.u64()? })
    }
}
