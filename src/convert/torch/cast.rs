//! Tensors that torch casts when it loads them: those of a device without the dtype, which were
//! saved in another one, such as bf16 as f32.

use super::Reader;
use super::elements::ElementType;
use crate::buffer::Buffer;
use crate::convert::pickle::Id;
use crate::convert::tensor::Place;
use crate::convert::{ForeignTensor, Note};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::value::Value;
use crate::tensor::Tensor;
use std::sync::Arc;

impl Reader<'_, '_> {
    /// Takes `data` in a dtype; `id` is the call that asks for it.
    pub fn take_cast(&mut self, id: Id, data: Id, dtype: Id) -> Result<Option<Value>> {
        if let Some(&first) = self.cast.get(&id) {
            self.alias(first)?;
            return Ok(None);
        }
        let before = self.foreign.tensors.len();
        let value = self.take(data)?;
        if self.foreign.tensors.len() != before + 1 {
            return Ok(value);
        }
        let tensor = &self.foreign.tensors[before];
        let from = tensor.dtype;
        match self.dtype(dtype) {
            Some(ElementType { dtype: to, .. }) if to == from => {}
            Some(ElementType { dtype: to, .. }) if is_possible(from, to) => {
                let tensor = cast(tensor.clone(), to)?;
                self.budget.spend(64, "the list of tensors")?;
                self.foreign.tensors[before] = tensor;
                self.cast.insert(id, before);
                self.is_cast.insert(before);
                self.note(Note::kept(&self.path, format!("{from} cast to {to}, as torch does")))?;
            }
            to => {
                let to = to.map_or("another dtype", |element| element.name);
                self.note(Note::lost(&self.path, format!("torch makes {to} of it: kept as {from}")))?;
            }
        }
        Ok(value)
    }
}

fn is_possible(from: Dtype, to: Dtype) -> bool {
    let empty = Buffer::zeroed(0).and_then(|bytes| Tensor::owned(from, &[0], bytes));
    empty.and_then(|empty| empty.cast(to)).is_ok()
}

fn cast(source: ForeignTensor, dtype: Dtype) -> Result<ForeignTensor> {
    let (name, shape) = (source.name.clone(), source.shape.clone());
    let place = Place::Made(Arc::new(move || {
        let cast = Tensor::owned(source.dtype, &source.shape, source.load()?)?.cast(dtype)?;
        Buffer::copy_of(cast.bytes())
    }));
    ForeignTensor::new(name, dtype, shape, place)
}
