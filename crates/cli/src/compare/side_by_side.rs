//! Two tensors read side by side: chunk by chunk where both are cut alike, else piece by piece, in
//! memory of a chunk of each.

use super::distance::{Distance, Tolerance};
use crate::opened::{Meta, Opened};
use crate::parallel::Task;
use tensorkeep::{Result, inspect::Scratch};

/// Two tensors of one name and shape, whose numbers can be compared.
#[derive(Debug)]
pub struct Pair {
    pub left: Meta,
    pub right: Meta,
}

impl Pair {
    pub fn is_cut_alike(&self) -> bool {
        let cut = |meta: &Meta| (meta.dtype, meta.chunks, meta.chunk_len);
        cut(&self.left) == cut(&self.right)
    }

    /// Chunks whose bytes differ are compared; those that do not are named, for most often nothing
    /// else of their tensor differs either, and then nobody asks for their numbers. A chunk is left
    /// in the processor's cache until its twin is read.
    pub fn by_chunks(
        &self,
        left: &Opened,
        right: &Opened,
        task: &Task,
        [ours, theirs]: &mut [Scratch; 2],
        tolerance: Tolerance,
    ) -> Result<(Distance, Vec<Task>)> {
        let (mut found, mut equal) = (Distance::default(), Vec::new());
        let mut number = task.chunks.start;
        left.visit(&self.left, task.chunks.clone(), ours, |offset, ours| {
            right.visit(&self.right, number..number + 1, theirs, |_, theirs| {
                if ours == theirs {
                    equal.push(Task {
                        number: task.number,
                        chunks: number..number + 1,
                        bytes: ours.len() as u64,
                    });
                } else {
                    found.take_in(self.left.dtype, offset, (ours, theirs), tolerance);
                }
                Ok(())
            })?;
            number += 1;
            Ok(())
        })?;
        Ok((found, equal))
    }

    /// Of both sides what lies in one chunk of each.
    pub fn by_pieces(
        &self,
        left: &Opened,
        right: &Opened,
        [ours, theirs]: &mut [Scratch; 2],
        tolerance: Tolerance,
    ) -> Result<Distance> {
        let mut found = Distance::between(&self.left, &self.right);
        let widths = [self.left.width(), self.right.width()];
        let mut chunk = Chunk::default();
        left.visit(&self.left, 0..self.left.chunks, ours, |offset, mut ours| {
            let mut element = offset / widths[0];
            while !ours.is_empty() {
                let twin = chunk.from(element * widths[1], right, &self.right, theirs)?;
                let count = (ours.len() as u64 / widths[0]).min(twin.len() as u64 / widths[1]);
                if count == 0 {
                    break;
                }
                // OK to cast: within both slices.
                let (piece, rest) = ours.split_at((count * widths[0]) as usize);
                let twin = &twin[..(count * widths[1]) as usize];
                if self.left.dtype == self.right.dtype {
                    found.take_in(self.left.dtype, element * widths[0], (piece, twin), tolerance);
                } else {
                    found.take_in_widened(
                        (self.left.dtype, self.right.dtype),
                        element,
                        (piece, twin),
                        tolerance,
                    );
                }
                (ours, element) = (rest, element + count);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// A copy of one chunk of the right side.
#[derive(Default)]
struct Chunk {
    start: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    /// The bytes of the chunk from `offset` on; another chunk is read where it is not in this one.
    fn from(&mut self, offset: u64, right: &Opened, meta: &Meta, scratch: &mut Scratch) -> Result<&[u8]> {
        let is_here = |chunk: &Self| (chunk.start..chunk.start + chunk.bytes.len() as u64).contains(&offset);
        if !is_here(self) {
            // OK to cast: a tensor has fewer chunks than bytes, and those were counted.
            let number = (offset / meta.chunk_len.max(1)) as usize;
            right.visit(meta, number..number + 1, scratch, |start, bytes| {
                self.start = start;
                self.bytes.clear();
                self.bytes.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        Ok(from.and_then(|from| self.bytes.get(from..)).unwrap_or_default())
    }
}
