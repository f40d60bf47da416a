//! Conversions between float widths, only when asked.

use crate::buffer::Buffer;
use crate::dtype::{Dtype, Element};
use crate::error::Result;
use crate::tensor::Tensor;
use half::{bf16, f16};

/// Whether a dtype can be converted into another one here.
pub(super) fn is_possible(from: Dtype, to: Dtype) -> bool {
    let real = |dtype| matches!(dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64);
    real(from) && real(to)
}

/// The tensor in another float width, or itself when the dtype is the same.
pub(super) fn to(dtype: Dtype, tensor: Tensor<'_>) -> Result<Tensor<'_>> {
    if tensor.dtype() == dtype {
        return Ok(tensor);
    }
    match tensor.dtype() {
        Dtype::F16 => narrow(&tensor, dtype, |value: f16| value.to_f64()),
        Dtype::Bf16 => narrow(&tensor, dtype, |value: bf16| value.to_f64()),
        Dtype::F32 => narrow(&tensor, dtype, |value: f32| f64::from(value)),
        _ => narrow(&tensor, dtype, |value: f64| value),
    }
}

fn narrow<T: Element>(
    tensor: &Tensor<'_>,
    dtype: Dtype,
    widen: impl Fn(T) -> f64,
) -> Result<Tensor<'static>> {
    match dtype {
        Dtype::F16 => convert(tensor, widen, f16::from_f64),
        Dtype::Bf16 => convert(tensor, widen, bf16::from_f64),
        Dtype::F32 => convert(tensor, widen, |value| value as f32),
        _ => convert(tensor, widen, |value| value),
    }
}

fn convert<T: Element, U: Element>(
    tensor: &Tensor<'_>,
    widen: impl Fn(T) -> f64,
    narrow: impl Fn(f64) -> U,
) -> Result<Tensor<'static>> {
    let elements = tensor.elements::<T>()?;
    let mut buffer = Buffer::zeroed(size_of_val(elements) / size_of::<T>() * size_of::<U>())?;
    for (out, &element) in buffer.chunks_exact_mut(size_of::<U>()).zip(elements) {
        out.copy_from_slice(bytemuck::bytes_of(&narrow(widen(element))));
    }
    Tensor::owned(U::DTYPE, tensor.shape(), buffer)
}
