//! How a tensor comes into a snapshot: borrowed, shared, moved, or produced when it is written. Owns: [`Source`] and what
//! can become one. Knows nothing of snapshots.

use crate::dtype::{Dtype, Element};
use crate::error::{Error, Result};
use crate::tensor::{SharedBytes, Tensor, byte_len};
use std::sync::Arc;

/// A tensor on its way into a checkpoint: there already, or produced when it is written.
#[derive(Clone)]
pub struct Source<'a>(Payload<'a>);

#[derive(Clone)]
enum Payload<'a> {
    Ready(Tensor<'a>),
    Deferred { dtype: Dtype, shape: Box<[usize]>, len: usize, produce: Produce<'a> },
}

type Produce<'a> = Arc<dyn Fn() -> Result<Tensor<'a>> + Send + Sync + 'a>;

impl<'a> Source<'a> {
    /// Element type.
    pub fn dtype(&self) -> Dtype {
        match &self.0 {
            Payload::Ready(tensor) => tensor.dtype(),
            Payload::Deferred { dtype, .. } => *dtype,
        }
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        match &self.0 {
            Payload::Ready(tensor) => tensor.shape(),
            Payload::Deferred { shape, .. } => shape,
        }
    }

    /// Length in bytes.
    pub fn byte_len(&self) -> usize {
        match &self.0 {
            Payload::Ready(tensor) => tensor.bytes().len(),
            Payload::Deferred { len, .. } => *len,
        }
    }

    /// The bytes of a tensor that is there and borrowed.
    pub(crate) fn borrowed(&self) -> Option<&'a [u8]> {
        match &self.0 {
            Payload::Ready(tensor) => tensor.borrowed(),
            Payload::Deferred { .. } => None,
        }
    }

    /// Memory, dtype and shape of a borrowed tensor with bytes: equal ones are tied.
    pub(super) fn identity(&self) -> Option<(usize, Dtype, &[usize])> {
        let bytes = self.borrowed().filter(|bytes| !bytes.is_empty())?;
        Some((bytes.as_ptr() as usize, self.dtype(), self.shape()))
    }

    /// The tensor, produced now if it was deferred.
    ///
    /// # Errors
    /// Whatever producing it says; `Invalid` when what was produced is not what was announced.
    pub fn produce(&self) -> Result<Tensor<'a>> {
        let produce = match &self.0 {
            Payload::Ready(tensor) => return Ok(tensor.clone()),
            Payload::Deferred { produce, .. } => produce,
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

/// A tensor produced only when it is written, one at a time, so that a model larger than memory can be saved.
///
/// The closure may run more than once (a save that failed to sync starts again) and must give the same tensor each time.
pub struct Deferred<'a> {
    dtype: Dtype,
    shape: Box<[usize]>,
    produce: Produce<'a>,
}

impl<'a> Deferred<'a> {
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
pub trait IntoSource<'a> {
    /// The tensor, or how to produce it.
    ///
    /// # Errors
    /// `Invalid` when shape × dtype overflows or is not the number of bytes.
    fn into_source(self) -> Result<Source<'a>>;
}

impl<'a> IntoSource<'a> for Source<'a> {
    fn into_source(self) -> Result<Source<'a>> {
        Ok(self)
    }
}

impl<'a> IntoSource<'a> for Tensor<'a> {
    fn into_source(self) -> Result<Source<'a>> {
        Ok(Source(Payload::Ready(self)))
    }
}

impl<'a> IntoSource<'a> for Deferred<'a> {
    fn into_source(self) -> Result<Source<'a>> {
        let Deferred { dtype, shape, produce } = self;
        let len = byte_len(dtype, &shape)?;
        Ok(Source(Payload::Deferred { dtype, shape, len, produce }))
    }
}

/// A shape and its elements.
impl<'a, T: Element> IntoSource<'a> for (&[usize], &'a [T]) {
    fn into_source(self) -> Result<Source<'a>> {
        Tensor::from_elements(self.0, self.1)?.into_source()
    }
}

/// One axis.
impl<'a, T: Element> IntoSource<'a> for &'a [T] {
    fn into_source(self) -> Result<Source<'a>> {
        Tensor::from_elements(&[self.len()], self)?.into_source()
    }
}

/// One axis.
impl<'a, T: Element> IntoSource<'a> for &'a Vec<T> {
    fn into_source(self) -> Result<Source<'a>> {
        self.as_slice().into_source()
    }
}

/// dtype, shape and bytes that are shared with the trainer.
impl<'a> IntoSource<'a> for (Dtype, &[usize], SharedBytes) {
    fn into_source(self) -> Result<Source<'a>> {
        Tensor::shared(self.0, self.1, self.2)?.into_source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deferred_tensor_must_be_what_it_announced() {
        let wrong = Deferred::new(Dtype::F32, &[2], || Tensor::from_elements(&[1], &[1.0_f32]));
        let error = wrong.into_source().unwrap().produce().unwrap_err();
        assert!(error.to_string().contains("expected f32 [2], found f32 [1]"), "{error}");
        assert!(Deferred::new(Dtype::F32, &[usize::MAX, 2], || unreachable!()).into_source().is_err());
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn views_in_any_memory_order_give_their_elements_in_row_major_order() {
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
