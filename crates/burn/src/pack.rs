//! Tensors in burn's common currency, `burn_pack::Tensor`: out of it into a snapshot, lazily, and
//! into it out of a checkpoint, by way of memory that is filled and verified first.

use crate::dtype;
use burn_core::tensor::{Bytes, DType};
use std::sync::{Arc, Mutex, PoisonError};
use tensorkeep::{Dtype, Error, ErrorKind, IntoTensorSource, LazyTensor, Result, Tensor, TensorSource};

pub(crate) type PackTensor = burn_pack::Tensor;

/// Lengths of axes as burn has them.
pub(crate) fn axes(shape: &[u64]) -> Vec<usize> {
    // OK to saturate: no tensor is that long, so it fits no module.
    shape.iter().map(|&axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect()
}

/// A tensor to save, read back from its device when it is written.
pub(crate) fn source<'a>(tensor: PackTensor) -> Result<TensorSource<'a>> {
    let dtype = dtype::of_burn(tensor.dtype)?;
    let shape = tensor.shape.to_vec();
    let axes = shape.clone();
    let produce = move || {
        let bytes = tensor.to_bytes().map_err(|error| failed("reading a tensor from its device", error))?;
        Tensor::shared(dtype, &axes, Arc::new(Lent(bytes)))
    };
    LazyTensor::new(dtype, &shape, produce).into_source()
}

struct Lent(Bytes);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An error of burn.
pub(crate) fn failed(what: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Invalid, what).because(error)
}

/// Memory for one tensor, aligned for its elements, that burn takes over without a copy.
pub(crate) enum Memory {
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
    Eight(Vec<u64>),
}

impl Memory {
    /// Zeros for so many elements.
    ///
    /// # Errors
    /// `LimitExceeded` when the memory cannot be allocated.
    pub fn zeroed(dtype: Dtype, count: usize) -> Result<Self> {
        let made = match dtype.size() {
            1 => bytemuck::try_zeroed_vec(count).map(Self::One),
            2 => bytemuck::try_zeroed_vec(count).map(Self::Two),
            4 => bytemuck::try_zeroed_vec(count).map(Self::Four),
            _ => bytemuck::try_zeroed_vec(count).map(Self::Eight),
        };
        made.map_err(|()| {
            Error::new(ErrorKind::LimitExceeded, format!("no memory for {count} elements of {dtype}"))
        })
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Two(values) => bytemuck::cast_slice_mut(values),
            Self::Four(values) => bytemuck::cast_slice_mut(values),
            Self::Eight(values) => bytemuck::cast_slice_mut(values),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => Bytes::from_elems(bytes),
            Self::Two(values) => Bytes::from_elems(values),
            Self::Four(values) => Bytes::from_elems(values),
            Self::Eight(values) => Bytes::from_elems(values),
        }
    }
}

/// A tensor that was read, for burn.
pub(crate) struct Staged {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub id: Option<u64>,
    pub memory: Memory,
}

impl Staged {
    /// Memory for a tensor of this dtype and shape.
    ///
    /// # Errors
    /// `Unsupported` for a dtype that checkpoints do not have, `LimitExceeded`.
    pub fn new(name: String, dtype: Dtype, shape: Vec<usize>, id: Option<u64>) -> Result<Self> {
        let count = tensorkeep::tensor::element_count(&shape)?;
        let burns = dtype::in_burn(dtype).map_err(|error| error.in_tensor(&name))?;
        Ok(Self { dtype: burns, memory: Memory::zeroed(dtype, count)?, name, shape, id })
    }

    /// With its bytes at hand.
    pub fn resident(self) -> PackTensor {
        PackTensor::new(self.name, self.dtype, self.shape, self.id, self.memory.into_bytes())
    }

    /// With its bytes handed over once, to the parameter that takes them. burn clones tensors that
    /// are resident, bytes included, before it applies them.
    pub fn handed_over(self) -> PackTensor {
        let len = self.shape.iter().product::<usize>() * self.dtype.size();
        let bytes = Mutex::new(Some(self.memory.into_bytes()));
        let name = self.name.clone();
        PackTensor::deferred(self.name, self.dtype, self.shape, self.id, len, move || {
            let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
            bytes.ok_or_else(|| burn_pack::Error::ValidationError(format!("{name} was taken twice")))
        })
    }
}
