//! Bools that are neither 0 nor 1. Other programs read them as true; a checkpoint has no such
//! bytes.

use super::{Foreign, Note, export};
use crate::checkpoint::inspect::Scratch;
use crate::dtype::Dtype;
use crate::error::{ErrorKind, Result};

impl Foreign {
    /// Turns each tensor of bools of which a byte is neither 0 nor 1 into one of `u8` with the same
    /// bytes, and notes it as a loss: so that it does not keep the others from being converted.
    /// Reads every tensor of bools; one that cannot be read stays as it is.
    ///
    /// # Errors
    /// `Io`.
    pub fn keep_odd_bools(&mut self) -> Result<()> {
        let mut scratch = Scratch::default();
        for index in 0..self.tensors.len() {
            let tensor = &self.tensors[index];
            if tensor.dtype != Dtype::Bool {
                continue;
            }
            let is_odd = match tensor.alias_index {
                // Tensors before it are done.
                Some(first) => self.tensors[first].dtype == Dtype::U8,
                None => self.has_odd_bools(index, &mut scratch)?,
            };
            if is_odd {
                let tensor = &mut self.tensors[index];
                tensor.dtype = Dtype::U8;
                let what = "no longer said to be bool, but u8: a byte of it is neither 0 nor 1";
                self.notes.push(Note::lost(&tensor.name, what));
            }
        }
        Ok(())
    }

    fn has_odd_bools(&self, index: usize, scratch: &mut Scratch) -> Result<bool> {
        let tensor = &self.tensors[index];
        let mut is_odd = false;
        let read = self.visit_chunks_with(&tensor.name, 0..tensor.chunks(), scratch, |start, bytes| {
            is_odd |= export::check_bools(Dtype::Bool, start, bytes).is_err();
            Ok(())
        });
        match read {
            Err(error) if error.kind() == ErrorKind::Io => Err(error),
            // Damage is told when the tensor itself is read.
            read => Ok(is_odd && read.is_ok()),
        }
    }
}
