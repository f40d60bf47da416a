//! Tensors to overwrite: contiguous bytes, elements in any memory order, or memory that only its
//! owner can write.

use crate::dtype::{Dtype, Element};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Tensor, byte_len};
use tensorkeep_memcpy::Copier;

/// A tensor to overwrite: its dtype and shape are fixed, its elements are not.
pub struct TensorMut<'a> {
    dtype: Dtype,
    shape: Box<[usize]>,
    target: Target<'a>,
}

enum Target<'a> {
    Contiguous(&'a mut [u8]),
    /// Overwritten by a call with all of the row-major bytes: elements that are not contiguous, and
    /// memory behind a lock.
    Called(Write<'a>),
}

type Write<'a> = Box<dyn FnMut(&[u8]) -> Result<()> + Send + 'a>;

impl<'a> TensorMut<'a> {
    /// A target of bytes in row-major order, whose length is `shape × dtype`.
    pub(crate) fn over(dtype: Dtype, shape: Box<[usize]>, bytes: &'a mut [u8]) -> Self {
        Self { dtype, shape, target: Target::Contiguous(bytes) }
    }

    /// A tensor of this dtype and shape that `write` overwrites: for memory that cannot be
    /// borrowed, such as another framework's tensor behind a lock. It gets all bytes at once,
    /// little-endian and row-major, on a thread of the load.
    ///
    /// A load calls `write` when nothing else can fail any more, so `write` must succeed. Its error
    /// is the load's error, and leaves the target partly old, partly new: it is for devices that
    /// fail.
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use tensorkeep::{Dtype, Tensor, TensorMut};
    ///
    /// let step = Mutex::new(0_u64);
    /// let mut target = TensorMut::written_by(Dtype::U64, &[], |bytes| {
    ///     *step.lock().unwrap() = bytes.try_into().map_or(0, u64::from_le_bytes);
    ///     Ok(())
    /// });
    /// target.assign(&Tensor::from_elements(&[], &[7_u64])?)?;
    /// drop(target);
    /// assert_eq!(step.into_inner().unwrap(), 7);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    pub fn written_by(
        dtype: Dtype,
        shape: &[usize],
        write: impl FnMut(&[u8]) -> Result<()> + Send + 'a,
    ) -> Self {
        Self { dtype, shape: shape.into(), target: Target::Called(Box::new(write)) }
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes, little-endian, row-major; None if they cannot be borrowed in that order (an
    /// ndarray in another memory order, [`TensorMut::written_by`]).
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.target {
            Target::Contiguous(bytes) => Some(bytes),
            Target::Called(_) => None,
        }
    }

    /// The elements, row-major, with the lifetime of the borrowed memory.
    ///
    /// # Errors
    /// `Mismatch` when the dtype is not `T`'s; `Unsupported` if the elements are not contiguous.
    pub fn into_elements<T: Element + bytemuck::AnyBitPattern>(self) -> Result<&'a mut [T]> {
        if self.dtype != T::DTYPE {
            return Err(Error::new(ErrorKind::Mismatch, "dtype").expected(T::DTYPE).found(self.dtype));
        }
        let refused = |what: &'static str| Error::new(ErrorKind::Unsupported, what);
        match self.target {
            Target::Contiguous(bytes) => bytemuck::try_cast_slice_mut(bytes)
                .map_err(|_| refused("the bytes are not aligned for their elements")),
            Target::Called(_) => Err(refused("the elements do not lie one behind the other")),
        }
    }

    /// A mutable ndarray view of the elements.
    ///
    /// # Errors
    /// As [`TensorMut::into_elements`].
    #[cfg(feature = "ndarray")]
    pub fn into_view<T: Element + bytemuck::AnyBitPattern>(self) -> Result<ndarray::ArrayViewMutD<'a, T>> {
        let shape = self.shape.to_vec();
        ndarray::ArrayViewMutD::from_shape(shape, self.into_elements()?)
            .map_err(|error| Error::invalid("shape").because(error))
    }

    /// Overwrites all elements.
    ///
    /// # Errors
    /// `Mismatch` when dtype or shape differ; then nothing was written. The error of
    /// [`TensorMut::written_by`]'s call.
    pub fn assign(&mut self, tensor: &Tensor<'_>) -> Result<()> {
        self.assign_by(Copier::default(), tensor)
    }

    /// Like [`TensorMut::assign`], copied in the way that suits the total of many tensors.
    pub(crate) fn assign_by(&mut self, copier: Copier, tensor: &Tensor<'_>) -> Result<()> {
        if tensor.dtype() != self.dtype || tensor.shape() != &*self.shape {
            return Err(Error::new(ErrorKind::Mismatch, "dtype or shape")
                .expected(format!("{} {:?}", self.dtype, self.shape))
                .found(format!("{} {:?}", tensor.dtype(), tensor.shape())));
        }
        match &mut self.target {
            Target::Contiguous(bytes) => {
                copier.copy(tensor.bytes(), bytes);
                Ok(())
            }
            Target::Called(write) => write(tensor.bytes()),
        }
    }
}

/// A value that can be overwritten by a tensor.
pub trait IntoTensorMut<'a> {
    /// The target.
    ///
    /// # Errors
    /// `Invalid` when the shape does not hold that many elements.
    fn into_tensor_mut(self) -> Result<TensorMut<'a>>;
}

impl<'a> IntoTensorMut<'a> for TensorMut<'a> {
    fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
        Ok(self)
    }
}

/// A dtype, a shape, and its bytes.
impl<'a> IntoTensorMut<'a> for (Dtype, &[usize], &'a mut [u8]) {
    fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
        let (dtype, shape, bytes) = self;
        let expected = byte_len(dtype, shape)?;
        if bytes.len() != expected {
            return Err(Error::invalid("bytes of the tensor to overwrite")
                .expected(expected)
                .found(bytes.len()));
        }
        Ok(TensorMut::over(dtype, shape.into(), bytes))
    }
}

/// Rust types for which all bytes are valid values: every element type except `bool`.
impl<'a, T: Element + bytemuck::AnyBitPattern> IntoTensorMut<'a> for (&[usize], &'a mut [T]) {
    fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
        let (shape, elements) = self;
        (T::DTYPE, shape, bytemuck::cast_slice_mut(elements)).into_tensor_mut()
    }
}

#[cfg(feature = "ndarray")]
mod from_ndarray {
    use super::*;
    use ndarray::{ArrayBase, ArrayViewMut, DataMut, Dimension};

    impl<'a, S, T, D> IntoTensorMut<'a> for &'a mut ArrayBase<S, D>
    where
        S: DataMut<Elem = T>,
        T: Element + bytemuck::AnyBitPattern,
        D: Dimension,
    {
        fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
            self.view_mut().into_tensor_mut()
        }
    }

    impl<'a, T: Element + bytemuck::AnyBitPattern, D: Dimension> IntoTensorMut<'a> for ArrayViewMut<'a, T, D> {
        fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
            let shape: Box<[usize]> = self.shape().into();
            let target = if self.is_standard_layout() {
                let elements = self.into_slice().unwrap_or_default();
                Target::Contiguous(bytemuck::cast_slice_mut(elements))
            } else {
                let mut view = self.into_dyn();
                Target::Called(Box::new(move |bytes| {
                    for (element, bytes) in view.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
                        *element = bytemuck::pod_read_unaligned(bytes);
                    }
                    Ok(())
                }))
            };
            Ok(TensorMut { dtype: T::DTYPE, shape, target })
        }
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;

    #[test]
    fn contiguous_and_scattered_targets_take_the_same_elements() {
        let source = Tensor::from_elements(&[2, 3], &[1_i32, 2, 3, 4, 5, 6]).unwrap();
        let mut plain = ndarray::Array2::<i32>::zeros((2, 3));
        (&mut plain).into_tensor_mut().unwrap().assign(&source).unwrap();
        let mut transposed = ndarray::Array2::<i32>::zeros((3, 2));
        transposed.view_mut().reversed_axes().into_tensor_mut().unwrap().assign(&source).unwrap();
        assert_eq!(plain, transposed.t());
        assert_eq!(plain[[1, 0]], 4);
    }

    #[test]
    fn a_called_target_is_checked_first_and_its_error_is_told() {
        let mut seen = Vec::new();
        let mut target = TensorMut::written_by(Dtype::U8, &[2], |bytes| {
            seen.extend_from_slice(bytes);
            Err(Error::new(ErrorKind::Io, "a device is gone"))
        });
        assert_eq!(
            target.assign(&Tensor::new(Dtype::U8, &[3], &[1, 2, 3]).unwrap()).unwrap_err().kind(),
            ErrorKind::Mismatch
        );
        assert_eq!(
            target.assign(&Tensor::new(Dtype::U8, &[2], &[4, 5]).unwrap()).unwrap_err().kind(),
            ErrorKind::Io
        );
        assert!(target.bytes_mut().is_none());
        drop(target);
        assert_eq!(seen, [4, 5]);
    }

    #[test]
    fn another_shape_or_dtype_is_refused_before_anything_is_written() {
        let mut target = [0.0_f32; 4];
        let mut target = (&[4][..], &mut target[..]).into_tensor_mut().unwrap();
        assert!(target.assign(&Tensor::from_elements(&[2, 2], &[1.0_f32; 4]).unwrap()).is_err());
        assert!(target.assign(&Tensor::from_elements(&[4], &[1_u32; 4]).unwrap()).is_err());
        assert!((&[3][..], &mut [0_u8; 4][..]).into_tensor_mut().is_err());
        assert!((Dtype::F32, &[2][..], &mut [0_u8; 4][..]).into_tensor_mut().is_err());
        assert!((Dtype::F32, &[1][..], &mut [0_u8; 4][..]).into_tensor_mut().is_ok());
    }
}
