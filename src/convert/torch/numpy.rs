//! NumPy's arrays, scalars and dtypes in a pickle, by the module names of NumPy 1 and 2. Arrays
//! become tensors, also those of generators' states; scalars become numbers.

use super::Reader;
use super::calls::complex;
use crate::buffer::Buffer;
use crate::convert::pickle::{Call, Id, Node};
use crate::convert::tensor::Place;
use crate::convert::{ForeignTensor, Note, lie, npy, strided};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::value::Value;
use crate::tensor::{byte_len, element_count};
use half::f16;
use std::borrow::Cow;
use std::sync::Arc;

/// A dtype of NumPy.
#[derive(Clone, Debug, PartialEq)]
struct ArrayType {
    /// Kind and width, `f4`.
    code: String,
    /// None where there is no counterpart.
    dtype: Option<Dtype>,
    width: usize,
    is_big_endian: bool,
}

/// The names of NumPy's and ml_dtypes' scalar types that dtypes are made of.
const BY_NAME: &[(&str, &str, Dtype)] = &[
    ("ml_dtypes.bfloat16", "V2", Dtype::Bf16),
    ("ml_dtypes.float8_e4m3fn", "V1", Dtype::F8E4M3Fn),
    ("ml_dtypes.float8_e4m3fnuz", "V1", Dtype::F8E4M3FnUz),
    ("ml_dtypes.float8_e5m2", "V1", Dtype::F8E5M2),
    ("ml_dtypes.float8_e5m2fnuz", "V1", Dtype::F8E5M2FnUz),
    ("ml_dtypes.float8_e8m0fnu", "V1", Dtype::F8E8M0Fnu),
];

impl Reader<'_, '_> {
    pub fn take_numpy(&mut self, id: Id, call: &Call, name: &str) -> Result<Option<Value>> {
        let args = self.graph.args(call);
        // NumPy 2 calls its modules `numpy._core`.
        match (name.replace("numpy._core.", "numpy.core.").as_str(), args) {
            ("numpy.core.multiarray.scalar", [dtype, value]) => {
                let bytes = self.bytes_of(*value).map(Cow::into_owned);
                match (self.array_type(*dtype), bytes) {
                    (Some(array_type), Some(bytes)) => match number(&array_type, &bytes) {
                        Some(value) => Ok(Some(value)),
                        None => self.lost(&format!("a NumPy scalar of type {}", array_type.code)),
                    },
                    (_, None) => self.take(*value),
                    (None, _) => self.take_unknown(id, call),
                }
            }
            ("numpy.core.multiarray._reconstruct", _) => {
                match call.state.and_then(|state| self.graph.sequence(state)) {
                    Some(&[_, shape, dtype, is_column_major, data]) => {
                        let is_column_major = self.graph.node(is_column_major) == &Node::Bool(true);
                        self.array(id, shape, dtype, is_column_major, data)
                    }
                    _ => self.lost("a NumPy array that is not as NumPy writes it"),
                }
            }
            ("numpy.core.numeric._frombuffer", [data, dtype, shape, order]) => {
                let is_column_major = self.graph.text(*order).is_some_and(|order| order == "F");
                self.array(id, *shape, *dtype, is_column_major, *data)
            }
            ("numpy.dtype", _) => match self.array_type(id) {
                Some(array_type) => {
                    let order = if array_type.is_big_endian { ">" } else { "" };
                    Ok(Some(Value::Text(format!("numpy.{order}{}", array_type.code))))
                }
                None => self.take_unknown(id, call),
            },
            _ => self.take_unknown(id, call),
        }
    }

    fn array_type(&self, id: Id) -> Option<ArrayType> {
        let call = self.graph.call(id, "numpy", "dtype")?;
        let args = self.graph.args(call);
        let order = call.state.and_then(|state| self.graph.sequence(state)?.get(1).copied());
        let is_big_endian = order.and_then(|order| self.graph.text(order)).is_some_and(|order| order == ">");
        let has_fields = call.state.and_then(|state| self.graph.sequence(state)?.get(3).copied());
        let has_fields = has_fields.is_some_and(|names| self.graph.node(names) != &Node::None);
        let first = *args.first()?;
        if let Some(name) = self.graph.global(first) {
            let &(_, code, dtype) = BY_NAME.iter().find(|(known, ..)| *known == name)?;
            return Some(ArrayType {
                code: code.to_owned(),
                dtype: Some(dtype),
                width: dtype.size(),
                is_big_endian,
            });
        }
        let code = self.graph.text(first)?.into_owned();
        let width: usize = code.get(1..)?.parse().ok().or((code == "O").then_some(0))?;
        // NumPy counts the characters of text, four bytes each.
        let width = if code.starts_with('U') { width.checked_mul(4)? } else { width };
        let dtype =
            npy::DTYPES.iter().find(|(known, _)| *known == code && !has_fields).map(|&(_, dtype)| dtype);
        Some(ArrayType { code, dtype, width, is_big_endian })
    }

    fn array(
        &mut self,
        id: Id,
        shape: Id,
        dtype: Id,
        is_column_major: bool,
        data: Id,
    ) -> Result<Option<Value>> {
        let graph = self.graph;
        let (Some(array_type), Some(shape)) = (self.array_type(dtype), graph.sizes(shape)) else {
            return self.lost("a NumPy array of a dtype that is not known");
        };
        // Arrays of objects are lists of them.
        if let Node::List(items) = graph.node(data) {
            self.note(Note::kept(&self.path, format!("a NumPy array of objects {shape:?}, kept as a list")))?;
            return self.take_list(items);
        }
        let Some(bytes) = self.bytes_of(data) else {
            return self.lost("a NumPy array without bytes");
        };
        let count = element_count(&shape).map_err(lie)?;
        if count.checked_mul(array_type.width) != Some(bytes.len()) {
            return self.lost("a NumPy array whose bytes are not as many as its shape says");
        }
        let Some(dtype) = array_type.dtype else {
            return self.array_of_others(id, &array_type, &shape, is_column_major);
        };
        self.budget.spend(bytes.len() as u64, "NumPy's arrays")?;
        let mut bytes = Buffer::copy_of(&bytes)?;
        if is_column_major {
            bytes = strided::gather(&bytes, array_type.width, &shape, &strided::column_major(&shape))?;
        }
        if array_type.is_big_endian {
            let is_complex = matches!(dtype, Dtype::C64 | Dtype::C128);
            strided::swap(&mut bytes, if is_complex { array_type.width / 2 } else { array_type.width });
        }
        self.take_object(id, |reader| made(reader.path.clone(), dtype, shape, bytes))?;
        Ok(None)
    }

    /// Text becomes a list; what has no counterpart becomes opaque bytes with a description.
    fn array_of_others(
        &mut self,
        id: Id,
        array_type: &ArrayType,
        shape: &[usize],
        is_column_major: bool,
    ) -> Result<Option<Value>> {
        let Node::Call(call) = self.graph.node(id) else { return Ok(None) };
        let data = call.state.and_then(|state| self.graph.sequence(state)?.last().copied());
        let data = data.or(self.graph.args(call).first().copied());
        let bytes = data.and_then(|data| self.bytes_of(data)).unwrap_or_default();
        self.budget.spend(bytes.len() as u64, "NumPy's arrays")?;
        let bytes = Buffer::copy_of(&bytes)?;
        let order = if is_column_major { ", column-major" } else { "" };
        let what = format!("NumPy's {} {shape:?}{order} kept as opaque bytes", array_type.code);
        self.note(Note::kept(&self.path, what))?;
        let len = bytes.len();
        self.take_object(id, |reader| made(reader.path.clone(), Dtype::Opaque, vec![len], bytes))?;
        let shape = shape.iter().map(|&len| Value::Int(len as i64)).collect();
        let description = [
            ("dtype".to_owned(), Value::Text(format!("numpy.{}", array_type.code))),
            ("shape".to_owned(), Value::List(shape)),
        ];
        Ok(Some(Value::Map(description.into())))
    }
}

/// A tensor whose bytes are in memory already.
fn made(name: String, dtype: Dtype, shape: Vec<usize>, bytes: Buffer) -> Result<ForeignTensor> {
    let len = byte_len(dtype, &shape).map_err(lie)?;
    debug_assert_eq!(len, bytes.len(), "checked by the caller");
    let bytes = Arc::new(bytes);
    ForeignTensor::new(name, dtype, shape, Place::Made(Arc::new(move || Buffer::copy_of(&bytes))))
}

/// A scalar as a number; None for kinds that are no numbers, and for lengths that do not fit.
fn number(array_type: &ArrayType, bytes: &[u8]) -> Option<Value> {
    let mut bytes = bytes.to_vec();
    let dtype = array_type.dtype?;
    if bytes.len() != dtype.size() {
        return None;
    }
    let part = if matches!(dtype, Dtype::C64 | Dtype::C128) { bytes.len() / 2 } else { bytes.len() };
    if array_type.is_big_endian {
        strided::swap(&mut bytes, part);
    }
    let mut wide = [0; 8];
    wide[..part].copy_from_slice(&bytes[..part]);
    let unsigned = u64::from_le_bytes(wide);
    // Moved up and down again, the upper bit becomes the sign.
    let unused = 64 - 8 * part as u32;
    let signed = ((unsigned << unused) as i64) >> unused;
    Some(match dtype {
        Dtype::Bool => Value::Bool(unsigned != 0),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Value::Int(signed),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
            i64::try_from(unsigned).map_or(Value::UInt(unsigned), Value::Int)
        }
        Dtype::F16 | Dtype::F32 | Dtype::F64 => Value::Float(float(&bytes)?),
        Dtype::C64 | Dtype::C128 => complex(float(&bytes[..part])?, float(&bytes[part..])?),
        _ => return None,
    })
}

fn float(bytes: &[u8]) -> Option<f64> {
    Some(match bytes.len() {
        2 => f16::from_le_bytes(*bytes.first_chunk()?).to_f64(),
        4 => f64::from(f32::from_le_bytes(*bytes.first_chunk()?)),
        8 => f64::from_le_bytes(*bytes.first_chunk()?),
        _ => return None,
    })
}
