//! One tensor: dtype, shape and bytes, with checked shape arithmetic and typed views of the bytes.

mod shape;

pub use crate::buffer::Buffer;
pub use shape::Shape;

use crate::dtype::{Dtype, Element};
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that tensors may share: an `Arc` of a holder that returns the same bytes every time. For
/// memory that is written meanwhile, use [`Volatile`](crate::snapshot::Volatile).
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of shared bytes, which keeps all of them alive. Empty if the range is beyond them.
pub(crate) fn part_of(whole: &SharedBytes, range: Range<usize>) -> SharedBytes {
    Arc::new(Part { whole: Arc::clone(whole), range })
}

struct Part {
    whole: SharedBytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        (*self.whole).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

/// Number of elements of a tensor of this shape; 1 for rank 0.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the product overflows. A zero anywhere makes the product 0, even if
/// the others overflow.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1_usize, |count, &dim| count.checked_mul(dim))
        .ok_or_else(|| Error::invalid(format!("shape {shape:?} overflows")).expected("at most 2^64 elements"))
}

/// Length in bytes of a tensor of this dtype and shape.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the product overflows.
pub fn byte_len(dtype: Dtype, shape: &[usize]) -> Result<usize> {
    element_count(shape)?
        .checked_mul(dtype.size())
        .filter(|&len| len <= isize::MAX as usize)
        .ok_or_else(|| Error::invalid(format!("shape {shape:?} of {dtype} overflows")))
}

/// A tensor: dtype, shape and little-endian bytes in row-major (C) order, borrowed where possible.
///
/// `bytes().len()` is always `shape × dtype`: the constructors check it.
///
/// ```
/// use tensorkeep::{Dtype, ErrorKind, Tensor};
///
/// let elements = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let tensor = Tensor::from_elements(&[2, 3], &elements)?;
/// assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &[2, 3][..]));
/// assert_eq!(tensor.elements::<f32>()?[3], 4.0);
/// assert_eq!(tensor.view::<f32>()?[[1, 0]], 4.0); // an ndarray view
///
/// // Nothing is cast silently.
/// assert_eq!(tensor.elements::<f64>().unwrap_err().kind(), ErrorKind::Mismatch);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor<'a> {
    dtype: Dtype,
    shape: Shape<usize>,
    data: Data<'a>,
}

#[derive(Clone)]
enum Data<'a> {
    Borrowed(&'a [u8]),
    Shared(SharedBytes),
}

impl<'a> Tensor<'a> {
    /// A tensor over borrowed bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when shape × dtype is not the number of bytes.
    pub fn new(dtype: Dtype, shape: &[usize], bytes: &'a [u8]) -> Result<Self> {
        check_len(dtype, shape, bytes.len())?;
        Ok(Self { dtype, shape: shape.iter().copied().into(), data: Data::Borrowed(bytes) })
    }

    /// A tensor over shared bytes, which it keeps alive.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn shared(dtype: Dtype, shape: &[usize], bytes: SharedBytes) -> Result<Self> {
        check_len(dtype, shape, (*bytes).as_ref().len())?;
        Ok(Self { dtype, shape: shape.iter().copied().into(), data: Data::Shared(bytes) })
    }

    /// A tensor that owns its bytes.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn owned(dtype: Dtype, shape: &[usize], bytes: Buffer) -> Result<Self> {
        Self::shared(dtype, shape, Arc::new(bytes))
    }

    /// A tensor over borrowed elements.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the shape does not hold that many elements.
    pub fn from_elements<T: Element>(shape: &[usize], elements: &'a [T]) -> Result<Self> {
        Self::new(T::DTYPE, shape, bytemuck::cast_slice(elements))
    }

    /// The same bytes in another shape; the caller has checked the length.
    pub(crate) fn reshaped(self, shape: &[usize]) -> Self {
        Self { shape: shape.iter().copied().into(), ..self }
    }

    /// A stretch of the bytes as a tensor of this shape, which shares them.
    ///
    /// # Errors
    /// `Invalid` when the bytes end before.
    pub(crate) fn stretch(&self, from: usize, shape: &[usize]) -> Result<Self> {
        let range = from..from.saturating_add(byte_len(self.dtype, shape)?);
        match &self.data {
            Data::Borrowed(bytes) => Self::new(self.dtype, shape, bytes.get(range).unwrap_or_default()),
            Data::Shared(bytes) => Self::shared(self.dtype, shape, part_of(bytes, range)),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The lengths of the axes; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes().len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Length in bytes, as it was checked when the tensor was made. Shared bytes are not asked for
    /// their length, which their owner may change.
    pub(crate) fn byte_len(&self) -> usize {
        match self.data {
            Data::Borrowed(bytes) => bytes.len(),
            // OK: the constructor computed the same.
            Data::Shared(_) => byte_len(self.dtype, &self.shape).unwrap_or_default(),
        }
    }

    /// The bytes, little-endian, row-major.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Borrowed(bytes) => bytes,
            Data::Shared(bytes) => (**bytes).as_ref(),
        }
    }

    /// The bytes with the lifetime of the borrow, if they are borrowed.
    pub fn borrowed(&self) -> Option<&'a [u8]> {
        match self.data {
            Data::Borrowed(bytes) => Some(bytes),
            Data::Shared(_) => None,
        }
    }

    /// A copy of the elements, in row-major order.
    ///
    /// # Errors
    /// As [`Tensor::elements`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        Ok(self.elements()?.to_vec())
    }

    /// The elements as a slice in row-major order.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when `T` is not this dtype's Rust type; nothing is cast.
    /// [`ErrorKind::Damaged`] when a `bool` is neither 0 nor 1.
    /// [`ErrorKind::Unsupported`] when user-given bytes are not aligned for `T`.
    pub fn elements<T: Element>(&self) -> Result<&[T]> {
        cast(self.dtype, self.bytes())
    }

    /// Like [`Tensor::elements`], with the lifetime of the borrow, such as that of a mapped
    /// checkpoint.
    ///
    /// # Errors
    /// As [`Tensor::elements`], and [`ErrorKind::Unsupported`] when the bytes are owned by this
    /// tensor.
    pub fn borrowed_elements<T: Element>(&self) -> Result<&'a [T]> {
        let bytes = self.borrowed().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the tensor owns its bytes, so they cannot outlive it")
                .help("map the checkpoint, or copy the elements")
        })?;
        cast(self.dtype, bytes)
    }

    /// The element of a tensor with one element.
    ///
    /// # Errors
    /// As [`Tensor::elements`], and [`ErrorKind::Mismatch`] unless there is exactly one.
    pub fn scalar<T: Element>(&self) -> Result<T> {
        match self.elements::<T>()? {
            [element] => Ok(*element),
            elements => {
                Err(Error::new(ErrorKind::Mismatch, "number of elements").expected(1).found(elements.len()))
            }
        }
    }
}

pub(crate) fn check_len(dtype: Dtype, shape: &[usize], len: usize) -> Result<()> {
    let expected = byte_len(dtype, shape)?;
    if expected == len {
        return Ok(());
    }
    Err(Error::invalid(format!("bytes of a tensor of {dtype} {shape:?}")).expected(expected).found(len))
}

fn cast<T: Element>(dtype: Dtype, bytes: &[u8]) -> Result<&[T]> {
    if dtype != T::DTYPE {
        return Err(Error::new(ErrorKind::Mismatch, "dtype")
            .expected(T::DTYPE)
            .found(dtype)
            .help("read it as its own dtype and convert the elements"));
    }
    bytemuck::checked::try_cast_slice(bytes).map_err(|error| match error {
        bytemuck::checked::CheckedCastError::InvalidBitPattern => {
            Error::damaged(format!("a byte that is no {dtype}")).expected("0 or 1")
        }
        error => Error::new(ErrorKind::Unsupported, format!("bytes cannot be viewed as {dtype}: {error}"))
            .help("copy them into an aligned buffer first"),
    })
}

#[cfg(feature = "ndarray")]
impl<'a> Tensor<'a> {
    /// The tensor as an array view.
    ///
    /// # Errors
    /// As [`Tensor::elements`].
    pub fn view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'_, T>> {
        as_view(&self.shape, self.elements()?)
    }

    /// Like [`Tensor::view`], with the lifetime of the borrow.
    ///
    /// # Errors
    /// As [`Tensor::borrowed_elements`].
    pub fn borrowed_view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'a, T>> {
        as_view(&self.shape, self.borrowed_elements()?)
    }

    /// A copy as an owned array, with the number of axes of the caller's type.
    ///
    /// ```
    /// # use tensorkeep::Tensor;
    /// use ndarray::{Array2, ArrayD};
    ///
    /// let tensor = Tensor::from_elements(&[2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let matrix: Array2<f32> = tensor.to_array()?;
    /// let any: ArrayD<f32> = tensor.to_array()?;
    /// assert_eq!((matrix[[1, 0]], any.ndim()), (4.0, 2));
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::elements`]; [`ErrorKind::Mismatch`] for another number of axes.
    pub fn to_array<T: Element, D: ndarray::Dimension>(&self) -> Result<ndarray::Array<T, D>> {
        self.view::<T>()?.to_owned().into_dimensionality().map_err(|_| {
            Error::new(ErrorKind::Mismatch, "number of axes")
                .expected(D::NDIM.map_or_else(|| "any".to_owned(), |axes| axes.to_string()))
                .found(format!("shape {:?}", self.shape))
        })
    }
}

#[cfg(feature = "ndarray")]
fn as_view<'s, T>(shape: &[usize], elements: &'s [T]) -> Result<ndarray::ArrayViewD<'s, T>> {
    ndarray::ArrayViewD::from_shape(ndarray::IxDyn(shape), elements)
        .map_err(|error| Error::invalid(format!("shape {shape:?} is not possible in ndarray")).because(error))
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_times_dtype_must_be_the_number_of_bytes() {
        let bytes = [0; 24];
        assert!(Tensor::new(Dtype::F32, &[2, 3], &bytes).is_ok());
        let error = Tensor::new(Dtype::F32, &[2, 4], &bytes).unwrap_err();
        assert_eq!(error.to_string(), "bytes of a tensor of f32 [2, 4]: expected 32, found 24");
    }

    #[test]
    fn overflowing_shapes_are_errors_and_zero_wins_over_overflow() {
        assert!(byte_len(Dtype::F32, &[usize::MAX, 2]).is_err());
        assert!(byte_len(Dtype::C128, &[usize::MAX / 2]).is_err());
        assert_eq!(byte_len(Dtype::F32, &[usize::MAX, 0, usize::MAX]).unwrap(), 0);
        assert_eq!(byte_len(Dtype::F32, &[]).unwrap(), 4);
    }

    #[test]
    fn elements_are_never_cast_silently() {
        let tensor = Tensor::from_elements(&[2], &[1.0_f32, 2.0]).unwrap();
        assert_eq!(tensor.elements::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(tensor.elements::<u32>().unwrap_err().kind(), ErrorKind::Mismatch);
        assert!(tensor.scalar::<f32>().is_err());
    }

    #[test]
    fn a_bool_that_is_neither_zero_nor_one_is_damage() {
        let tensor = Tensor::new(Dtype::Bool, &[2], &[1, 2]).unwrap();
        assert_eq!(tensor.elements::<bool>().unwrap_err().kind(), ErrorKind::Damaged);
    }
}
