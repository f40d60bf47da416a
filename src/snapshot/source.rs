//! How a tensor comes into a snapshot: borrowed, shared, moved, produced or copied when it is
//! written.

use super::volatile::{Fill, Volatile};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::tensor::{SharedBytes, Tensor, byte_len, check_len};
use std::sync::Arc;

/// A tensor on its way into a checkpoint: there already, or produced or copied when it is written.
#[derive(Clone)]
pub struct TensorSource<'a>(Payload<'a>);

#[derive(Clone)]
enum Payload<'a> {
    Ready(Tensor<'a>),
    Lazy { dtype: Dtype, shape: Box<[usize]>, len: usize, produce: Produce<'a> },
    Volatile { dtype: Dtype, shape: Box<[usize]>, len: usize, fill: Arc<Fill<'a>> },
}

/// A tensor when it is its turn.
pub(crate) enum Drawn<'s, 'a> {
    /// Bytes that are there.
    Tensor(Tensor<'a>),
    /// Bytes that may change, to be copied once.
    Volatile(&'s Fill<'a>),
}

/// Whether it is copied, where its bytes or its copying lie, and what they are.
pub(super) type Identity<'s> = (bool, usize, Dtype, &'s [usize]);

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
                let (shape, inner) = (Box::<[usize]>::from(shape), shape.to_vec());
                let produce = Arc::new(move || produce().map(|tensor| tensor.reshaped(&inner)));
                Payload::Lazy { dtype, shape, len, produce }
            }
        }))
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
            // OK because the tensor's constructor computed it. Its bytes may be shared, and
            // anybody's to count.
            Payload::Ready(tensor) => byte_len(tensor.dtype(), tensor.shape()).unwrap_or_default(),
            Payload::Lazy { len, .. } | Payload::Volatile { len, .. } => *len,
        }
    }

    /// The bytes of a tensor that is there and borrowed.
    pub(crate) fn borrowed(&self) -> Option<&'a [u8]> {
        match &self.0 {
            Payload::Ready(tensor) => tensor.borrowed(),
            Payload::Lazy { .. } | Payload::Volatile { .. } => None,
        }
    }

    /// Memory, dtype and shape of a borrowed tensor with bytes, or how and what a volatile one
    /// copies: equal ones are tied.
    pub(super) fn identity(&self) -> Option<Identity<'_>> {
        if let Payload::Volatile { fill, .. } = &self.0 {
            return Some((true, Arc::as_ptr(fill).addr(), self.dtype(), self.shape()));
        }
        let bytes = self.borrowed().filter(|bytes| !bytes.is_empty())?;
        Some((false, bytes.as_ptr().addr(), self.dtype(), self.shape()))
    }

    /// The tensor, produced now if it was deferred, unless its bytes may change.
    ///
    /// # Errors
    /// As [`TensorSource::produce`].
    pub(crate) fn draw(&self) -> Result<Drawn<'_, 'a>> {
        match &self.0 {
            Payload::Volatile { fill, .. } => Ok(Drawn::Volatile(&**fill)),
            _ => self.produce().map(Drawn::Tensor),
        }
    }

    /// The tensor, produced now if it was deferred, copied now if it may change.
    ///
    /// # Errors
    /// Whatever producing or copying it says; `Invalid` when what was produced is not what was
    /// announced.
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

/// A tensor produced only when it is written, one at a time, so that a model larger than memory can
/// be saved.
///
/// The closure may run more than once (a save that failed to sync starts again) and must give the
/// same tensor each time.
pub struct LazyTensor<'a> {
    dtype: Dtype,
    shape: Box<[usize]>,
    produce: Produce<'a>,
}

impl<'a> LazyTensor<'a> {
    /// Announces dtype and shape of what `produce` will give.
    pub fn new(
        dtype: Dtype,
        shape: &[usize],
        produce: impl Fn() -> Result<Tensor<'a>> + Send + Sync + 'a,
    ) -> Self {
        Self { dtype, shape: shape.into(), produce: Arc::new(produce) }
    }
}

/// What can become a tensor of a checkpoint.
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

/// dtype, shape and bytes that are shared with the trainer.
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
