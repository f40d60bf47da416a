//! Rust's own numbers as tensors: slices, arrays and vectors, borrowed or moved in, of one axis or
//! with a shape; and scalars.

use super::{IntoTensorSource, TensorSource};
use crate::dtype::Element;
use crate::error::Result;
use crate::tensor::Tensor;
use std::sync::Arc;

/// One axis.
impl<'a, T: Element> IntoTensorSource<'a> for &'a [T] {
    fn into_source(self) -> Result<TensorSource<'a>> {
        Tensor::from_elements(&[self.len()], self)?.into_source()
    }
}

/// One axis.
impl<'a, T: Element, const N: usize> IntoTensorSource<'a> for &'a [T; N] {
    fn into_source(self) -> Result<TensorSource<'a>> {
        self.as_slice().into_source()
    }
}

/// One axis.
impl<'a, T: Element> IntoTensorSource<'a> for &'a Vec<T> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        self.as_slice().into_source()
    }
}

/// One axis, moved in: the snapshot keeps it alive.
impl<'a, T: Element + Send + Sync> IntoTensorSource<'a> for Vec<T> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        let shape = [self.len()];
        Tensor::shared(T::DTYPE, &shape, Arc::new(Moved(self)))?.into_source()
    }
}

struct Moved<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Moved<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A shape, as a slice, an array or a vector, and its elements in row-major order, as any source of
/// one axis.
impl<'a, S: AsRef<[usize]>, E: IntoTensorSource<'a>> IntoTensorSource<'a> for (S, E) {
    fn into_source(self) -> Result<TensorSource<'a>> {
        self.1.into_source()?.reshaped(self.0.as_ref())
    }
}

macro_rules! scalars {
    ($($scalar:ty),*) => {$(
        /// A tensor without axes.
        impl<'a> IntoTensorSource<'a> for $scalar {
            fn into_source(self) -> Result<TensorSource<'a>> {
                ([0; 0], vec![self]).into_source()
            }
        }
    )*};
}

scalars!(bool, u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn shape_of<'a>(source: impl IntoTensorSource<'a>) -> Vec<usize> {
        let tensor = source.into_source().unwrap().produce().unwrap();
        assert_eq!(tensor.bytes().len(), tensor.shape().iter().product::<usize>() * tensor.dtype().size());
        tensor.shape().to_vec()
    }

    #[test]
    fn elements_are_taken_as_people_write_them() {
        let vector = vec![1.0_f32; 6];
        assert_eq!(shape_of(&vector), [6]);
        assert_eq!(shape_of(&vector[1..]), [5]);
        assert_eq!(shape_of(&[1_u8, 2, 3]), [3]);
        assert_eq!(shape_of((&[2, 3], &vector)), [2, 3]);
        assert_eq!(shape_of(([2, 3], &vector[..])), [2, 3]);
        assert_eq!(shape_of((vec![3, 2], vector.clone())), [3, 2]);
        assert_eq!(shape_of((&vec![1, 6][..], vector)), [1, 6]);
        assert_eq!(shape_of(0.5_f64), [0; 0]);
        assert_eq!(shape_of(7_u64), [0; 0]);
    }

    #[test]
    fn a_shape_that_does_not_hold_the_elements_is_refused() {
        let error = ([2, 2], &[1.0_f32; 6]).into_source().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("[2, 2]"), "{error}");
    }
}
