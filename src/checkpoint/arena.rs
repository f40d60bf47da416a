//! Memory for tensors that are read: a large one has a buffer of its own, small ones share. Owns:
//! where each begins. Memory that is fresh costs more than reading into it, least in large pieces,
//! which the kernel makes of huge pages.

use crate::buffer::{ALIGN, Buffer};
use crate::error::Result;
use crate::tensor::{SharedBytes, part_of};
use std::ops::Range;
use std::sync::Arc;

/// From this size on a tensor is alone: its buffer is a mapping anyway.
const ALONE_FROM: usize = 1 << 20;
/// Buffers that are shared hold no more: so much is kept at most when but one of their tensors is.
const SHARED: usize = 4 << 20;

/// Memory for several tensors.
pub(super) struct Rooms {
    buffers: Vec<Buffer>,
    /// For each tensor its buffer, and where in it.
    places: Vec<(usize, Range<usize>)>,
}

impl Rooms {
    /// Room for tensors of so many bytes each.
    ///
    /// # Errors
    /// As [`Buffer::zeroed`].
    pub(super) fn new(lens: &[usize]) -> Result<Self> {
        let (mut sizes, mut shared, mut places) = (Vec::new(), None, Vec::with_capacity(lens.len()));
        for &len in lens {
            if len >= ALONE_FROM {
                places.push((sizes.len(), 0..len));
                sizes.push(len);
                continue;
            }
            let buffer = shared.filter(|&i: &usize| sizes[i] + len <= SHARED).unwrap_or_else(|| {
                sizes.push(0);
                sizes.len() - 1
            });
            shared = Some(buffer);
            let end = sizes[buffer] + len;
            places.push((buffer, sizes[buffer]..end));
            sizes[buffer] = end.next_multiple_of(ALIGN);
        }
        let buffers = sizes.into_iter().map(Buffer::zeroed).collect::<Result<_>>()?;
        Ok(Self { buffers, places })
    }

    /// Each tensor's bytes, to be filled.
    pub(super) fn targets(&mut self) -> Vec<&mut [u8]> {
        let mut rests: Vec<(usize, &mut [u8])> =
            self.buffers.iter_mut().map(|buffer| (0, &mut **buffer)).collect();
        let target = |(buffer, range): &(usize, Range<usize>)| {
            let (start, rest) = &mut rests[*buffer];
            let (before, later) = std::mem::take(rest).split_at_mut(range.end - *start);
            let target = &mut before[range.start - *start..];
            (*start, *rest) = (range.end, later);
            target
        };
        self.places.iter().map(target).collect()
    }

    /// Each tensor's bytes, to be kept.
    pub(super) fn into_bytes(self) -> impl Iterator<Item = SharedBytes> {
        let shared = |buffer| Arc::new(buffer) as SharedBytes;
        let buffers: Vec<SharedBytes> = self.buffers.into_iter().map(shared).collect();
        self.places.into_iter().map(move |(buffer, range)| part_of(&buffers[buffer], range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_small_ones_share_buffers() {
        let lens = [5, 0, ALONE_FROM, 64, ALONE_FROM - 1, ALONE_FROM + 1, 1, SHARED, 100];
        let mut rooms = Rooms::new(&lens).unwrap();
        for (i, target) in rooms.targets().into_iter().enumerate() {
            assert_eq!(target.len(), lens[i]);
            assert!(target.iter().all(|&byte| byte == 0));
            target.fill(i as u8 + 1);
        }
        assert_eq!(rooms.buffers.len(), 4);
        for (i, bytes) in rooms.into_bytes().enumerate() {
            let bytes = (*bytes).as_ref();
            assert_eq!(bytes.len(), lens[i]);
            assert!(bytes.iter().all(|&byte| byte == i as u8 + 1), "tensor {i}");
            assert_eq!(bytes.as_ptr().addr() % ALIGN, 0);
        }
    }

    #[test]
    fn buffers_that_are_shared_are_bounded() {
        let rooms = Rooms::new(&vec![ALONE_FROM / 3; 100]).unwrap();
        assert!(rooms.buffers.iter().all(|buffer| buffer.len() <= SHARED));
        assert_eq!(rooms.buffers.len(), 10, "eleven in each");
        assert!(Rooms::new(&[]).unwrap().targets().is_empty());
        assert!(Rooms::new(&[5, usize::MAX, 5]).is_err(), "what a file claims");
    }
}
