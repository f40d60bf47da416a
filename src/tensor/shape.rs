//! Lengths of a tensor's axes.

use serde::{Serialize, Serializer};
use std::fmt;
use std::ops::Deref;

/// Lengths of the axes, as a slice: of `u64` in a file, of `usize` in memory. Up to 4 are stored
/// inline, so that listing or adding 100,000 tensors allocates nothing for them.
#[derive(Clone)]
pub struct Shape<T = u64>(Lengths<T>);

#[derive(Clone)]
enum Lengths<T> {
    Few([T; 4], u8),
    Many(Box<[T]>),
}

impl<T: Copy + Default, I: ExactSizeIterator<Item = T>> From<I> for Shape<T> {
    #[inline]
    fn from(dims: I) -> Self {
        let len = dims.len();
        if len > 4 {
            return Self(Lengths::Many(dims.collect()));
        }
        let mut few = [T::default(); 4];
        for (place, dim) in few.iter_mut().zip(dims) {
            *place = dim;
        }
        Self(Lengths::Few(few, len as u8))
    }
}

impl<T> Deref for Shape<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Lengths::Few(few, len) => &few[..usize::from(*len)],
            Lengths::Many(many) => many,
        }
    }
}

impl<T: PartialEq> PartialEq for Shape<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Shape<T> {}

impl<T: fmt::Debug> fmt::Debug for Shape<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: Serialize> Serialize for Shape<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&**self)
    }
}
