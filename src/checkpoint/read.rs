//! Reading tensors and record bytes from an open checkpoint: borrowed in place, or read, verified
//! and decoded.

use super::Checkpoint;
use super::entry::{FoundTensor, Tensors};
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::layout::TensorBox;
use crate::tensor::Tensor;
use std::ops::Range;

impl Checkpoint {
    /// A tensor: borrowed if the file is mapped and the tensor is stored raw, else read or decoded
    /// into its own memory. Every byte is verified before it is returned, unless the checkpoint was
    /// opened with [`Verify::Never`](super::Verify::Never).
    ///
    /// # Errors
    /// `NotFound` with the nearest name, `Damaged`, `Unsupported` for a dtype or codec this version
    /// does not know, `LimitExceeded` beyond the budget, `Io`.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let place = self.locate(name)?;
        if place.table == Tensors::InShards {
            return self.read_box(name, &TensorBox::whole(&self.shape_of(place)));
        }
        let FoundTensor { entry, dtype, shape } = self.find_tensor(name)?;
        self.with_context(name, || match self.in_place(entry)? {
            Some(bytes) => Tensor::new(dtype, &shape, bytes),
            None => {
                let len = self.within_budget(entry.byte_len())?;
                let mut buffer = Buffer::zeroed(len)?;
                self.read_into(entry, dtype, 0..len as u64, &mut buffer)?;
                Tensor::owned(dtype, &shape, buffer)
            }
        })
    }

    /// Rows `rows` of the leading axis, reading and verifying only the chunks that hold them.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Invalid` when there are no such rows.
    pub fn slice(&self, name: &str, rows: Range<usize>) -> Result<Tensor<'_>> {
        let place = self.locate(name)?;
        let rows_of = |shape: &[usize]| {
            let count = *shape.first().ok_or_else(|| Error::invalid("a scalar has no rows"))?;
            if rows.start > rows.end || rows.end > count {
                return Err(Error::invalid("rows")
                    .expected(format!("within 0..{count}"))
                    .found(format!("{rows:?}")));
            }
            Ok(count)
        };
        if place.table == Tensors::InShards {
            let tensor_box = self.with_context(name, || {
                rows_of(&self.described(place)?.1)?;
                let mut lens = self.shape_of(place);
                let mut offsets = vec![0; lens.len()];
                (offsets[0], lens[0]) = (rows.start as u64, rows.len() as u64);
                TensorBox::new(offsets, lens)
            })?;
            return self.read_box(name, &tensor_box);
        }
        let FoundTensor { entry, dtype, mut shape } = self.find_tensor(name)?;
        self.with_context(name, || {
            let count = rows_of(&shape)?;
            // OK to multiply and divide: the length of the whole tensor was checked, and a part is
            // shorter.
            let row_len = entry.byte_len() / (count as u64).max(1);
            let bytes = rows.start as u64 * row_len..rows.end as u64 * row_len;
            shape[0] = rows.len();
            if let Some(all) = self.raw_bytes(entry) {
                self.verify_range(entry, bytes.clone())?;
                return Tensor::new(dtype, &shape, &all[bytes.start as usize..bytes.end as usize]);
            }
            let mut buffer = Buffer::zeroed(self.within_budget(bytes.end - bytes.start)?)?;
            self.read_into(entry, dtype, bytes, &mut buffer)?;
            Tensor::owned(dtype, &shape, buffer)
        })
    }

    pub(super) fn find_record(&self, name: &str) -> Result<usize> {
        self.index.records.find(name).ok_or_else(|| {
            let nearest = crate::names::nearest(name, self.records());
            crate::names::not_found("record", name, nearest).in_object(&self.name)
        })
    }

    /// The bytes of a record in place, verified; None if the file is not in memory or the record is
    /// compressed.
    pub(crate) fn record_in_place(&self, name: &str) -> Result<Option<&[u8]>> {
        let entry = self.record_entry(self.find_record(name)?);
        self.in_place(entry).map_err(|error| error.in_record(name).in_object(&self.name))
    }

    /// The bytes of a record, verified.
    pub(crate) fn record_bytes(&self, name: &str) -> Result<Buffer> {
        let number = self.find_record(name)?;
        let within = self.within_budget(self.record_entry(number).byte_len());
        let read = within.and_then(|_| self.record_buffer(number));
        read.map_err(|error: Error| error.in_record(name).in_object(&self.name))
    }

    /// The bytes of the record with this number, verified, regardless of the budget: at most 64
    /// MiB.
    pub(super) fn record_buffer(&self, number: usize) -> Result<Buffer> {
        let entry = self.record_entry(number);
        // OK to cast: a record's length was checked against the limit.
        let len = entry.byte_len();
        let mut buffer = Buffer::zeroed(len as usize)?;
        self.read_into(entry, Dtype::Opaque, 0..len, &mut buffer)?;
        Ok(buffer)
    }
}
