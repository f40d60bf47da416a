//! ndarrays as tensors of a snapshot: borrowed in any memory order, moved in, or shared. Elements
//! that are not contiguous are gathered when they are written.

use super::{IntoTensorSource, LazyTensor, TensorSource};
use crate::dtype::Element;
use crate::error::Result;
use crate::tensor::{Tensor, byte_len};
use ndarray::{ArcArray, Array, ArrayBase, ArrayView, Data, Dimension};
use std::sync::Arc;

/// Borrowed, in any memory order: if not contiguous in C order, it is gathered when it is written.
impl<'a, S, T, D> IntoTensorSource<'a> for &'a ArrayBase<S, D>
where
    S: Data<Elem = T>,
    T: Element,
    D: Dimension,
{
    fn into_source(self) -> Result<TensorSource<'a>> {
        self.view().into_source()
    }
}

impl<'a, T: Element, D: Dimension> IntoTensorSource<'a> for ArrayView<'a, T, D> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        let view = self.into_dyn();
        match view.to_slice() {
            Some(elements) => Tensor::from_elements(view.shape(), elements)?.into_source(),
            None => {
                let shape = view.shape().to_vec();
                LazyTensor::new(T::DTYPE, &shape, move || gather(&view)).into_source()
            }
        }
    }
}

fn gather<T: Element>(view: &ndarray::ArrayViewD<'_, T>) -> Result<Tensor<'static>> {
    let mut buffer = crate::tensor::Buffer::zeroed(byte_len(T::DTYPE, view.shape())?)?;
    let width = size_of::<T>();
    for (out, element) in buffer.chunks_exact_mut(width).zip(view) {
        out.copy_from_slice(bytemuck::bytes_of(element));
    }
    Tensor::owned(T::DTYPE, view.shape(), buffer)
}

/// Moved in: the snapshot keeps it alive.
impl<'a, T: Element, D: Dimension> IntoTensorSource<'a> for Array<T, D> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        self.into_shared().into_source()
    }
}

/// Shared with the trainer, not copied.
impl<'a, T: Element, D: Dimension> IntoTensorSource<'a> for ArcArray<T, D> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        let array = self.into_dyn();
        if array.as_slice().is_none() {
            return gather(&array.view())?.into_source();
        }
        let shape = array.shape().to_vec();
        Tensor::shared(T::DTYPE, &shape, Arc::new(Contiguous(array)))?.into_source()
    }
}

/// A shared array that is contiguous in C order.
struct Contiguous<T>(ArcArray<T, ndarray::IxDyn>);

impl<T: Element> AsRef<[u8]> for Contiguous<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.as_slice().unwrap_or_default())
    }
}
