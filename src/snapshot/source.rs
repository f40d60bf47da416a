//! How a tensor enters a snapshot: borrowed, shared or moved in, or produced or copied when it is
//! written.

use super::volatile::{Fill, Volatile};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::tensor::{SharedBytes, Tensor, byte_len, check_len};
use std::sync::Arc;

/// A tensor of a snapshot: ready, or produced or copied when it is written.
#[derive(Clone)]
pub struct TensorSource<'a>(Payload<'a>);

#[derive(Clone)]
enum Payload<'a> {
    Ready(Tensor<'a>),
    Lazy { dtype: Dtype, shape: Box<[usize]>, len: usize, produce: Produce<'a> },
    Volatile { dtype: Dtype, shape: Box<[usize]>, len: usize, fill: Arc<Fill<'a>> },
}

/// A tensor when it is written.
pub(crate) enum Drawn<'s, 'a> {
    /// Bytes in memory.
    Tensor(Tensor<'a>),
    /// Bytes that may change, to be copied once.
    Volatile(&'s Fill<'a>),
}

/// Tensors with equal identities are stored once.
#[derive(PartialEq, Eq)]
pub(super) struct Identity<'s> {
    is_volatile: bool,
    /// Of the bytes, or of a volatile tensor's `fill`.
    pub address: usize,
    dtype: Dtype,
    shape: &'s [usize],
}

type Produce<'a> = Arc<dyn Fn() -> Result<Tensor<'a>> + Send + Sync + 'a>;

impl<'a> TensorSource<'a> {
    pub(super) fn volatile(volatile: Volatile<'a>) -> Result<Self> {
        let Volatile { dtype, shape, fill } = volatile;
        let len = byte_len(dtype, &shape)?;
        Ok(Self(Payload::Volatile { dtype, shape, len, fill }))
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// `Invalid` when the shape does not hold as many bytes.
    pub(super) fn reshaped(self, shape: &[usize]) -> Result<Self> {
        check_len(self.dtype(), shape, self.byte_len())?;
        Ok(Self(match self.0 {
            Payload::Ready(tensor) => Payload::Ready(tensor.reshaped(shape)),
            Payload::Volatile { dtype, len, fill, .. } => {
                Payload::Volatile { dtype, shape: shape.into(), len, fill }
            }
            Payload::Lazy { dtype, len, produce, .. } => {
                let new_shape = shape.to_vec();
                let produce = Arc::new(move || produce().map(|tensor| tensor.reshaped(&new_shape)));
                Payload::Lazy { dtype, shape: shape.into(), len, produce }
            }
        }))
    }

    /// A stretch of the bytes, from this one on, as a tensor of this shape.
    ///
    /// # Errors
    /// `Invalid` when the bytes end before.
    pub(crate) fn stretch(&self, from: usize, shape: &[usize]) -> Result<Self> {
        if let Payload::Ready(tensor) = &self.0 {
            return Ok(Self(Payload::Ready(tensor.stretch(from, shape)?)));
        }
        let (whole, own) = (self.clone(), shape.to_vec());
        let produce = move || whole.produce()?.stretch(from, &own);
        LazyTensor::new(self.dtype(), shape, produce).into_source()
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        match &self.0 {
            Payload::Ready(tensor) => tensor.dtype(),
            Payload::Lazy { dtype, .. } | Payload::Volatile { dtype, .. } => *dtype,
        }
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        match &self.0 {
            Payload::Ready(tensor) => tensor.shape(),
            Payload::Lazy { shape, .. } | Payload::Volatile { shape, .. } => shape,
        }
    }

    /// Length in bytes.
    pub fn byte_len(&self) -> usize {
        match &self.0 {
            Payload::Ready(tensor) => tensor.byte_len(),
            Payload::Lazy { len, .. } | Payload::Volatile { len, .. } => *len,
        }
    }

    /// The bytes of a tensor that is ready and borrowed.
    pub(crate) fn borrowed(&self) -> Option<&'a [u8]> {
        match &self.0 {
            Payload::Ready(tensor) => tensor.borrowed(),
            Payload::Lazy { .. } | Payload::Volatile { .. } => None,
        }
    }

    /// Memory, dtype and shape of a borrowed tensor with bytes, or `fill`, dtype and shape of a
    /// volatile one: tensors with equal ones are stored once.
    pub(super) fn identity(&self) -> Option<Identity<'_>> {
        let (is_volatile, address) = match &self.0 {
            Payload::Volatile { fill, .. } => (true, Arc::as_ptr(fill).addr()),
            _ => (false, self.borrowed().filter(|bytes| !bytes.is_empty())?.as_ptr().addr()),
        };
        Some(Identity { is_volatile, address, dtype: self.dtype(), shape: self.shape() })
    }

    /// The tensor, produced now if it is lazy, unless its bytes may change.
    ///
    /// # Errors
    /// As [`TensorSource::produce`].
    pub(crate) fn draw(&self) -> Result<Drawn<'_, 'a>> {
        match &self.0 {
            Payload::Volatile { fill, .. } => Ok(Drawn::Volatile(&**fill)),
            _ => self.produce().map(Drawn::Tensor),
        }
    }

    /// The tensor, produced now if it is lazy, copied now if it may change.
    ///
    /// # Errors
    /// Errors of producing or copying it; `Invalid` when the produced tensor is not as announced.
    pub fn produce(&self) -> Result<Tensor<'a>> {
        let produce = match &self.0 {
            Payload::Ready(tensor) => return Ok(tensor.clone()),
            Payload::Lazy { produce, .. } => produce,
            Payload::Volatile { dtype, shape, len, fill } => {
                let mut buffer = Buffer::zeroed(*len)?;
                fill(0, &mut buffer)?;
                return Tensor::owned(*dtype, shape, buffer);
            }
        };
        let tensor = produce()?;
        if tensor.dtype() == self.dtype() && tensor.shape() == self.shape() {
            return Ok(tensor);
        }
        Err(Error::invalid("a deferred tensor is not what was announced")
            .expected(format!("{} {:?}", self.dtype(), self.shape()))
            .found(format!("{} {:?}", tensor.dtype(), tensor.shape())))
    }
}

/// A tensor that is produced only when it is written, one at a time, so that a model larger than
/// memory can be saved.
///
/// The closure may run more than once (a save that failed to sync starts again) and must produce
/// the same tensor each time.
pub struct LazyTensor<'a> {
    dtype: Dtype,
    shape: Box<[usize]>,
    produce: Produce<'a>,
}

impl<'a> LazyTensor<'a> {
    /// Announces the dtype and shape of the tensor that `produce` will return.
    pub fn new(
        dtype: Dtype,
        shape: &[usize],
        produce: impl Fn() -> Result<Tensor<'a>> + Send + Sync + 'a,
    ) -> Self {
        Self { dtype, shape: shape.into(), produce: Arc::new(produce) }
    }
}

/// A type that can become a tensor of a checkpoint.
pub trait IntoTensorSource<'a> {
    /// The tensor, or how to produce it.
    ///
    /// # Errors
    /// `Invalid` when shape × dtype overflows or is not the number of bytes.
    fn into_source(self) -> Result<TensorSource<'a>>;
}

impl<'a> IntoTensorSource<'a> for TensorSource<'a> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        Ok(self)
    }
}

impl<'a> IntoTensorSource<'a> for Tensor<'a> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        Ok(TensorSource(Payload::Ready(self)))
    }
}

impl<'a> IntoTensorSource<'a> for LazyTensor<'a> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        let LazyTensor { dtype, shape, produce } = self;
        let len = byte_len(dtype, &shape)?;
        Ok(TensorSource(Payload::Lazy { dtype, shape, len, produce }))
    }
}

impl<'a> IntoTensorSource<'a> for Volatile<'a> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        TensorSource::volatile(self)
    }
}

/// A dtype, a shape, and bytes shared with the trainer.
impl<'a> IntoTensorSource<'a> for (Dtype, &[usize], SharedBytes) {
    fn into_source(self) -> Result<TensorSource<'a>> {
        Tensor::shared(self.0, self.1, self.2)?.into_source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deferred_tensor_must_be_what_it_announced() {
        let wrong = LazyTensor::new(Dtype::F32, &[2], || Tensor::from_elements(&[1], &[1.0_f32]));
        let error = wrong.into_source().unwrap().produce().unwrap_err();
        assert!(error.to_string().contains("expected f32 [2], found f32 [1]"), "{error}");
        assert!(LazyTensor::new(Dtype::F32, &[usize::MAX, 2], || unreachable!()).into_source().is_err());
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn views_in_any_memory_order_are_stored_in_row_major_order() {
        let array = ndarray::arr2(&[[1_i16, 2, 3], [4, 5, 6]]);
        let transposed = array.t().into_source().unwrap().produce().unwrap();
        assert_eq!(transposed.shape(), [3, 2]);
        assert_eq!(transposed.elements::<i16>().unwrap(), [1, 4, 2, 5, 3, 6]);
        let strided = array.slice(ndarray::s![.., ..;-2]).into_source().unwrap().produce().unwrap();
        assert_eq!(strided.elements::<i16>().unwrap(), [3, 1, 6, 4]);
        let scalar = ndarray::arr0(2.5_f64).into_source().unwrap().produce().unwrap();
        assert_eq!((scalar.shape(), scalar.scalar::<f64>().unwrap()), (&[][..], 2.5));
        let moved = array.into_source().unwrap().produce().unwrap();
        assert_eq!(moved.elements::<i16>().unwrap(), [1, 2, 3, 4, 5, 6]);
    }
}
