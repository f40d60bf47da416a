//! NumPy's arrays, scalars and dtypes in a pickle, by the module names of NumPy 1 and 2. Arrays
//! become tensors, also those in the states of random generators; scalars become numbers.

mod types;

use super::Reader;
use super::calls::complex;
use crate::buffer::Buffer;
use crate::convert::npy::DESCR_KEY;
use crate::convert::pickle::{Call, Id, Node};
use crate::convert::tensor::Place;
use crate::convert::{ForeignTensor, Note, lie, strided};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::limits::Limits;
use crate::format::value::Value;
use crate::tensor::{byte_len, element_count};
use half::f16;
use std::borrow::Cow;
use std::sync::Arc;
use types::ArrayType;

/// An array as a pickle describes it.
struct ArrayState {
    shape: Id,
    dtype: Id,
    order: Order,
    data: Id,
}

/// The order of an array's elements.
enum Order {
    RowMajor,
    ColumnMajor,
    /// Row-major before its axes were brought into this order.
    Axes(Id),
}

/// The loss of records whose fields overlap or are out of order, and of dtypes of other versions.
const NOT_DESCRIBED: &str = "the meaning of its bytes is dropped: its NumPy dtype has no description";

impl Reader<'_, '_> {
    pub fn take_numpy(&mut self, id: Id, call: &Call, name: &str) -> Result<Option<Value>> {
        let args = self.graph.args(call);
        // In NumPy 2 the modules are named `numpy._core`.
        match (name.replace("numpy._core.", "numpy.core.").as_str(), args) {
            ("numpy.core.multiarray.scalar", [dtype, value]) => {
                let bytes = self.bytes_of(*value).map(Cow::into_owned);
                self.budget.spend(bytes.as_ref().map_or(0, Vec::len) as u64, "NumPy's scalars")?;
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
                        let order = if is_column_major { Order::ColumnMajor } else { Order::RowMajor };
                        self.array(id, ArrayState { shape, dtype, order, data })
                    }
                    _ => self.lost("a NumPy array that is not as NumPy writes it"),
                }
            }
            ("numpy.core.numeric._frombuffer", &[data, dtype, shape, order]) => {
                let is_column_major = self.graph.text(order).is_some_and(|order| order == "F");
                let order = if is_column_major { Order::ColumnMajor } else { Order::RowMajor };
                self.array(id, ArrayState { shape, dtype, order, data })
            }
            // Since NumPy 2.
            ("numpy.core.numeric._frombuffer", &[data, dtype, shape, order, axes])
                if self.graph.text(order).is_some_and(|order| order == "K") =>
            {
                self.array(id, ArrayState { shape, dtype, order: Order::Axes(axes), data })
            }
            ("numpy.dtype", _) => match self.array_type(id) {
                Some(array_type) => {
                    if array_type.dtype.is_none() && self.descr(id).is_none() {
                        self.note(Note::lost(&self.path, NOT_DESCRIBED))?;
                    }
                    Ok(Some(Value::Text(self.dtype_name(id, &array_type)?)))
                }
                None => self.take_unknown(id, call),
            },
            _ => self.take_unknown(id, call),
        }
    }

    fn array(&mut self, id: Id, state: ArrayState) -> Result<Option<Value>> {
        let ArrayState { shape, dtype: type_id, order, data } = state;
        let graph = self.graph;
        let (Some(array_type), Some(shape)) = (self.array_type(type_id), graph.sizes(shape)) else {
            return self.lost("a NumPy array of a dtype that is not known");
        };
        if shape.len() as u64 > Limits::V1.rank {
            return self.lost("a NumPy array with more axes than a tensor may have");
        }
        // An array of objects holds a list of them.
        if let Node::List(items) = graph.node(data) {
            self.note(Note::kept(&self.path, format!("a NumPy array of objects {shape:?}, kept as a list")))?;
            return self.take_list(items);
        }
        let Some(bytes) = self.bytes_of(data) else {
            return self.lost("a NumPy array without bytes");
        };
        self.budget.spend(bytes.len() as u64, "NumPy's arrays")?;
        let count = element_count(&shape).map_err(lie)?;
        if count.checked_mul(array_type.width) != Some(bytes.len()) {
            return self.lost("a NumPy array whose bytes are not as many as its shape says");
        }
        let mut bytes = Buffer::copy_of(&bytes)?;
        let (shape, strides) = match order {
            Order::RowMajor => (shape, None),
            Order::ColumnMajor => {
                let strides = strided::column_major(&shape);
                (shape, Some(strides))
            }
            Order::Axes(axes) => match graph.sizes(axes).and_then(|axes| transposed(&shape, &axes)) {
                Some((shape, strides)) => (shape, Some(strides)),
                None => return self.lost("a NumPy array whose axes are not in an order"),
            },
        };
        if let Some(strides) = strides.filter(|_| !bytes.is_empty()) {
            bytes = strided::gather(&bytes, array_type.width, &shape, &strides)?;
        }
        let Some(dtype) = array_type.dtype else {
            return self.array_of_others(id, type_id, &array_type, &shape, bytes);
        };
        if array_type.is_big_endian {
            let is_complex = matches!(dtype, Dtype::C64 | Dtype::C128);
            strided::swap(&mut bytes, if is_complex { array_type.width / 2 } else { array_type.width });
        }
        self.take_object(id, |reader| made(reader.path.clone(), dtype, shape, bytes))?;
        Ok(None)
    }

    /// An array of a dtype without a counterpart becomes opaque bytes with a description, as from a
    /// `.npy` file: the bytes of an element are the last axis.
    fn array_of_others(
        &mut self,
        id: Id,
        type_id: Id,
        array_type: &ArrayType,
        shape: &[usize],
        bytes: Buffer,
    ) -> Result<Option<Value>> {
        let name = self.dtype_name(type_id, array_type)?;
        self.note(Note::kept(&self.path, format!("{name} {shape:?} kept as opaque bytes")))?;
        let descr = self.descr(type_id);
        if descr.is_none() {
            self.note(Note::lost(&self.path, NOT_DESCRIBED))?;
        }
        let descr = descr.filter(|_| (shape.len() as u64) < Limits::V1.rank);
        let axes = match descr {
            Some(_) => [shape, &[array_type.width]].concat(),
            None => vec![bytes.len()],
        };
        self.take_object(id, |reader| {
            let tensor = made(reader.path.clone(), Dtype::Opaque, axes, bytes)?;
            Ok(match descr {
                Some(descr) => tensor.meaning(DESCR_KEY, descr),
                None => tensor,
            })
        })?;
        let shape = shape.iter().map(|&len| Value::Int(len as i64)).collect();
        let description = [("dtype".to_owned(), Value::Text(name)), ("shape".to_owned(), Value::List(shape))];
        Ok(Some(Value::Map(description.into())))
    }
}

/// The shape of a row-major array with its axes in another order, and its strides. None where it is
/// no order of them.
fn transposed(shape: &[usize], axes: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..shape.len()) {
        return None;
    }
    let mut strides = vec![1_usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    // OK to index: each is the number of an axis.
    Some(axes.iter().map(|&axis| (shape[axis], strides[axis])).unzip())
}

/// A tensor whose bytes are in memory.
fn made(name: String, dtype: Dtype, shape: Vec<usize>, bytes: Buffer) -> Result<ForeignTensor> {
    let len = byte_len(dtype, &shape).map_err(lie)?;
    debug_assert_eq!(len, bytes.len(), "checked by the caller");
    let bytes = Arc::new(bytes);
    ForeignTensor::new(name, dtype, shape, Place::Made(Arc::new(move || Buffer::copy_of(&bytes))))
}

/// A scalar as a number; None for other kinds, and for lengths that do not match.
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
    // Shifting up and down again extends the sign.
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
