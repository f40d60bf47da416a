//! Lengths of a tensor's axes, as an index lists them.

use serde::{Serialize, Serializer};
use std::fmt;
use std::ops::Deref;

/// Lengths of the axes, as a slice. Up to 4 of them lie in place, so that listing 100,000 tensors
/// allocates nothing.
#[derive(Clone)]
pub struct Shape(Lengths);

#[derive(Clone)]
enum Lengths {
    Few([u64; 4], u8),
    Many(Box<[u64]>),
}

impl<I: ExactSizeIterator<Item = u64>> From<I> for Shape {
    #[inline]
    fn from(dims: I) -> Self {
        let len = dims.len();
        if len > 4 {
            return Self(Lengths::Many(dims.collect()));
        }
        let mut few = [0; 4];
        few.iter_mut().zip(dims).for_each(|(place, dim)| *place = dim);
        Self(Lengths::Few(few, len as u8))
    }
}

impl Deref for Shape {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        match &self.0 {
            Lengths::Few(few, len) => &few[..usize::from(*len)],
            Lengths::Many(many) => many,
        }
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Shape {}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&**self)
    }
}
