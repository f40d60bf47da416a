//! Ranges of one foreign tensor's bytes: read in place, or from a buffer that is made once.

use super::tensor::Place;
use super::{Foreign, ForeignTensor};
use crate::buffer::Buffer;
use crate::checkpoint::inspect::Scratch;
use crate::error::{Error, Result};

/// One tensor, read in parts.
pub struct Ranges<'f> {
    foreign: &'f Foreign,
    tensor: &'f ForeignTensor,
    made: Option<Buffer>,
}

impl Foreign {
    /// Opens a tensor for reading in parts.
    ///
    /// # Errors
    /// `NotFound` with the nearest name.
    pub(super) fn ranges(&self, name: &str) -> Result<Ranges<'_>> {
        Ok(Ranges { foreign: self, tensor: self.find(name)?, made: None })
    }
}

impl Ranges<'_> {
    pub fn len(&self) -> u64 {
        self.tensor.byte_len as u64
    }

    /// `len` bytes from `start` on.
    ///
    /// # Errors
    /// `Invalid` beyond the tensor's end, and errors of reading.
    pub fn read<'s>(&'s mut self, start: u64, len: usize, scratch: &'s mut Scratch) -> Result<&'s [u8]> {
        let place = |error: Error| error.in_tensor(&self.tensor.name).in_object(&self.foreign.name);
        let beyond = || Error::invalid("bytes beyond the tensor's end");
        let from = usize::try_from(start).ok();
        let range = from.and_then(|from| Some(from..from.checked_add(len)?)).ok_or_else(beyond)?;
        if range.end > self.tensor.byte_len {
            return Err(place(beyond()));
        }
        if let Place::At(blob, offset) = &self.tensor.place {
            let part = scratch.stored.room(len).map_err(place)?;
            blob.read_at(offset + start, part).map_err(place)?;
            return Ok(part);
        }
        if self.made.is_none() {
            self.made = Some(self.tensor.load().map_err(place)?);
        }
        self.made.as_deref().and_then(|bytes| bytes.get(range)).ok_or_else(beyond)
    }
}
