//! Bytes of candle's tensors: out of them into a save, and into them out of a checkpoint. candle
//! keeps a tensor's memory behind a lock, so it is copied under the lock and never borrowed.

use crate::dtype;
use crate::error::from_candle;
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor, Var, WithDType};
use std::ops::Range;
use tensorkeep::snapshot::Volatile;
use tensorkeep::tensor::Buffer;
use tensorkeep::{Dtype, Error, ErrorKind, IntoTensorSource, LazyTensor, Result, TensorMut, TensorSource};

/// Lengths of axes as candle has them.
pub(crate) fn axes(shape: &[u64]) -> Vec<usize> {
    // OK to saturate: no tensor is that long, so it fits no model.
    shape.iter().map(|&axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect()
}

/// A tensor to save. Its bytes are copied when they are written, a chunk at a time.
pub(crate) fn source<'a>(tensor: &Tensor) -> Result<TensorSource<'a>> {
    let dtype = dtype::of_candle(tensor.dtype())?;
    let shape = tensor.dims().to_vec();
    let tensor = tensor.clone();
    if tensor.device().is_cpu() && tensor.is_contiguous() {
        let fill = move |offset: usize, buffer: &mut [u8]| copy_out(&tensor, offset, buffer);
        return Volatile::new(dtype, &shape, fill).into_source();
    }
    let axes = shape.clone();
    let produce = move || {
        let here = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.contiguous());
        let here = here.map_err(|error| from_candle("copying a tensor to the CPU", error))?;
        let mut bytes = Buffer::zeroed(here.elem_count() * dtype.size())?;
        copy_out(&here, 0, &mut bytes)?;
        tensorkeep::Tensor::owned(dtype, &axes, bytes)
    };
    LazyTensor::new(dtype, &shape, produce).into_source()
}

/// Copies bytes of a contiguous tensor of the CPU, from byte `offset` of its first element on.
fn copy_out(tensor: &Tensor, offset: usize, buffer: &mut [u8]) -> Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::new(ErrorKind::Unsupported, "a tensor has moved to another device"));
    };
    let start = layout.start_offset() * storage_dtype(storage)?.size() + offset;
    let bytes = bytes_of(storage)?.get(start..start + buffer.len());
    buffer.copy_from_slice(bytes.ok_or_else(|| Error::new(ErrorKind::Invalid, "a tensor's layout"))?);
    Ok(())
}

/// A variable to overwrite, in place: every clone of it, and every layer that was built from it,
/// sees the new values.
pub(crate) fn target<'a>(var: &Var) -> Result<TensorMut<'a>> {
    let dtype = dtype::of_candle(var.dtype())?;
    if !var.is_contiguous() {
        return Err(Error::new(ErrorKind::Unsupported, "a variable that is not contiguous"));
    }
    let var = var.clone();
    let shape = var.dims().to_vec();
    Ok(TensorMut::written_by(dtype, &shape, move |bytes| {
        overwrite(&var, bytes).map_err(|error| from_candle("overwriting a variable", error))
    }))
}

fn overwrite(var: &Var, bytes: &[u8]) -> candle_core::Result<()> {
    if var.device().is_cpu() {
        return var.inplace_op1(&Overwrite(bytes));
    }
    let values = Tensor::zeros(var.shape(), var.dtype(), &Device::Cpu)?;
    values.inplace_op1(&Overwrite(bytes))?;
    var.set(&values.to_device(var.device())?)
}

/// All bytes of a contiguous tensor of the CPU.
struct Overwrite<'b>(&'b [u8]);

impl InplaceOp1 for Overwrite<'_> {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let size = dtype_size(storage)?;
        let start = layout.start_offset() * size;
        let range: Range<usize> = start..start + layout.shape().elem_count() * size;
        let target = bytes_mut_of(storage).and_then(|bytes| bytes.get_mut(range));
        match target.filter(|target| target.len() == self.0.len()) {
            Some(target) => target.copy_from_slice(self.0),
            None => candle_core::bail!("{} bytes for a tensor of shape {:?}", self.0.len(), layout.shape()),
        }
        Ok(())
    }
}

fn dtype_size(storage: &CpuStorage) -> candle_core::Result<usize> {
    storage_dtype(storage).map(Dtype::size).map_err(candle_core::Error::wrap)
}

/// Numbers that candle stores and that all bits are values of.
pub(crate) trait Number: WithDType + bytemuck::Pod {}

macro_rules! numbers {
    ($($variant:ident $type:ty),*) => {
        $(impl Number for $type {})*

        fn storage_dtype(storage: &CpuStorage) -> Result<Dtype> {
            match storage {
                $(CpuStorage::$variant(_) => dtype::of_candle(<$type as WithDType>::DTYPE),)*
                other => Err(Error::new(ErrorKind::Unsupported, "dtype of a candle tensor")
                    .found(candle_core::backend::BackendStorage::dtype(other).as_str())),
            }
        }

        fn bytes_of(storage: &CpuStorage) -> Result<&[u8]> {
            match storage {
                $(CpuStorage::$variant(values) => Ok(bytemuck::cast_slice(values)),)*
                _ => Err(Error::new(ErrorKind::Unsupported, "dtype of a candle tensor")),
            }
        }

        fn bytes_mut_of(storage: &mut CpuStorage) -> Option<&mut [u8]> {
            match storage {
                $(CpuStorage::$variant(values) => Some(bytemuck::cast_slice_mut(values)),)*
                _ => None,
            }
        }

        /// A tensor on the CPU whose zeros `fill` overwrites, made without a copy.
        pub(crate) fn filled(
            dtype: candle_core::DType,
            shape: &[usize],
            fill: impl FnOnce(&mut [u8]) -> Result<()>,
        ) -> Result<Tensor> {
            match dtype {
                $(candle_core::DType::$variant => filled_as::<$type>(shape, fill),)*
                other => Err(dtype::of_candle(other).err().unwrap_or_else(|| {
                    Error::new(ErrorKind::Unsupported, "dtype of a candle tensor").found(other.as_str())
                })),
            }
        }
    };
}

numbers! {
    U8 u8, I16 i16, U32 u32, I32 i32, I64 i64, F16 half::f16, BF16 half::bf16, F32 f32, F64 f64
}

fn filled_as<T: Number>(shape: &[usize], fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Tensor> {
    let count = tensorkeep::tensor::element_count(shape)?;
    // Zeros that the allocator has at hand: nothing is written twice.
    let mut values: Vec<T> = bytemuck::try_zeroed_vec(count).map_err(|()| {
        Error::new(
            ErrorKind::LimitExceeded,
            format!("no memory for {count} elements of {}", T::DTYPE.as_str()),
        )
    })?;
    fill(bytemuck::cast_slice_mut(&mut values))?;
    Tensor::from_vec(values, shape, &Device::Cpu).map_err(|error| from_candle("making a tensor", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other devices and other memory orders take: a copy on the CPU, made when it is written.
    #[test]
    fn tensors_that_are_not_contiguous_are_copied_in_order() {
        let tensor = Tensor::arange(0_u32, 6, &Device::Cpu).unwrap().reshape((2, 3)).unwrap().t().unwrap();
        assert!(!tensor.is_contiguous());
        let produced = source(&tensor).unwrap().produce().unwrap();
        assert_eq!(
            (produced.shape(), produced.elements::<u32>().unwrap()),
            (&[3, 2][..], &[0, 3, 1, 4, 2, 5][..])
        );
    }

    /// A part of a larger tensor: its bytes begin at an offset.
    #[test]
    fn a_part_is_read_and_a_variable_is_written_where_it_lies() {
        let all = Tensor::arange(0_u32, 12, &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let part = all.narrow(0, 1, 2).unwrap();
        assert!(part.is_contiguous());
        let produced = source(&part).unwrap().produce().unwrap();
        assert_eq!(produced.elements::<u32>().unwrap(), [3, 4, 5, 6, 7, 8]);

        let var = Var::from_tensor(&part).unwrap();
        let clone = var.as_tensor().clone();
        let values = tensorkeep::Tensor::from_elements(&[2, 3], &[9_u32; 6]).unwrap();
        target(&var).unwrap().assign(&values).unwrap();
        assert_eq!(clone.flatten_all().unwrap().to_vec1::<u32>().unwrap(), [9; 6]);
        assert_eq!(all.flatten_all().unwrap().to_vec1::<u32>().unwrap(), Vec::from_iter(0..12));
    }
}
