//! Memory for tensors that are read: a large tensor has its own buffer, small ones share. Fresh
//! memory costs more than reading into it, and least in large pieces, which the kernel backs by
//! huge pages.

use crate::buffer::{ALIGN, Buffer};
use crate::error::Result;
use crate::tensor::{SharedBytes, part_of};
use std::ops::Range;
use std::sync::Arc;

/// From this size on, a tensor has its own buffer, which is a mapping anyway.
const ALONE_FROM: usize = 1 << 20;
/// Upper bound of a shared buffer, hence on the memory that one surviving tensor keeps alive.
const SHARED: usize = 4 << 20;

/// Memory for several tensors.
pub(super) struct Arena {
    buffers: Vec<Buffer>,
    /// One for each tensor.
    places: Vec<Place>,
}

/// A tensor's range in the buffer with this index.
struct Place {
    buffer: usize,
    range: Range<usize>,
}

impl Arena {
    /// Allocates memory for tensors of these lengths in bytes.
    ///
    /// # Errors
    /// As [`Buffer::zeroed`].
    pub(super) fn new(lens: &[usize]) -> Result<Self> {
        let mut sizes: Vec<usize> = Vec::new();
        let mut shared: Option<usize> = None;
        let mut places = Vec::with_capacity(lens.len());
        for &len in lens {
            if len >= ALONE_FROM {
                places.push(Place { buffer: sizes.len(), range: 0..len });
                sizes.push(len);
                continue;
            }
            let buffer = match shared {
                Some(buffer) if sizes[buffer] + len <= SHARED => buffer,
                _ => {
                    sizes.push(0);
                    sizes.len() - 1
                }
            };
            shared = Some(buffer);
            let end = sizes[buffer] + len;
            places.push(Place { buffer, range: sizes[buffer]..end });
            sizes[buffer] = end.next_multiple_of(ALIGN);
        }
        let buffers = sizes.into_iter().map(Buffer::zeroed).collect::<Result<_>>()?;
        Ok(Self { buffers, places })
    }

    /// Each tensor's bytes, to fill.
    pub(super) fn targets(&mut self) -> Vec<&mut [u8]> {
        let mut rests: Vec<(usize, &mut [u8])> =
            self.buffers.iter_mut().map(|buffer| (0, &mut **buffer)).collect();
        let mut targets = Vec::with_capacity(self.places.len());
        for Place { buffer, range } in &self.places {
            let (start, rest) = &mut rests[*buffer];
            let (before, later) = std::mem::take(rest).split_at_mut(range.end - *start);
            targets.push(&mut before[range.start - *start..]);
            (*start, *rest) = (range.end, later);
        }
        targets
    }

    /// Each tensor's bytes, to keep.
    pub(super) fn into_bytes(self) -> impl Iterator<Item = SharedBytes> {
        let buffers: Vec<SharedBytes> =
            self.buffers.into_iter().map(|buffer| Arc::new(buffer) as SharedBytes).collect();
        self.places.into_iter().map(move |Place { buffer, range }| part_of(&buffers[buffer], range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_small_ones_share_buffers() {
        let lens = [5, 0, ALONE_FROM, 64, ALONE_FROM - 1, ALONE_FROM + 1, 1, SHARED, 100];
        let mut arena = Arena::new(&lens).unwrap();
        for (i, target) in arena.targets().into_iter().enumerate() {
            assert_eq!(target.len(), lens[i]);
            assert!(target.iter().all(|&byte| byte == 0));
            target.fill(i as u8 + 1);
        }
        assert_eq!(arena.buffers.len(), 4);
        for (i, bytes) in arena.into_bytes().enumerate() {
            let bytes = (*bytes).as_ref();
            assert_eq!(bytes.len(), lens[i]);
            assert!(bytes.iter().all(|&byte| byte == i as u8 + 1), "tensor {i}");
            assert_eq!(bytes.as_ptr().addr() % ALIGN, 0);
        }
    }

    #[test]
    fn buffers_that_are_shared_are_bounded() {
        let arena = Arena::new(&vec![ALONE_FROM / 3; 100]).unwrap();
        assert!(arena.buffers.iter().all(|buffer| buffer.len() <= SHARED));
        assert_eq!(arena.buffers.len(), 10, "eleven in each");
        assert!(Arena::new(&[]).unwrap().targets().is_empty());
        assert!(Arena::new(&[5, usize::MAX, 5]).is_err(), "what a file claims");
    }
}
