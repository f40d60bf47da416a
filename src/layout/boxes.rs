//! A box of a tensor: offsets and lengths on all its axes.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;

/// A box of a tensor: where it begins and how long it is on each axis. A scalar's has no axes and
/// one element.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorBox {
    offsets: Vec<u64>,
    lens: Vec<u64>,
}

impl TensorBox {
    /// A box from its offsets and lengths.
    ///
    /// # Errors
    /// `Invalid` when they are not equally many, or their sum overflows.
    pub fn new(offsets: impl Into<Vec<u64>>, lens: impl Into<Vec<u64>>) -> Result<Self> {
        let (offsets, lens) = (offsets.into(), lens.into());
        let ends = || offsets.iter().zip(&lens).all(|(offset, len)| offset.checked_add(*len).is_some());
        if offsets.len() == lens.len() && ends() {
            return Ok(Self { offsets, lens });
        }
        Err(Error::invalid("a box of a tensor")
            .expected("an offset and a length for each axis")
            .found(format!("offsets {offsets:?}, lengths {lens:?}")))
    }

    /// The box of a whole tensor.
    pub fn whole(shape: &[u64]) -> Self {
        Self { offsets: vec![0; shape.len()], lens: shape.to_vec() }
    }

    /// Where it begins on each axis.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Its length on each axis.
    pub fn lens(&self) -> &[u64] {
        &self.lens
    }

    /// Its range on an axis.
    pub fn range(&self, axis: usize) -> Range<u64> {
        self.offsets[axis]..self.offsets[axis] + self.lens[axis]
    }

    /// Number of elements; `u64::MAX` if there are more.
    pub fn elements(&self) -> u64 {
        product(&self.lens)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.lens.contains(&0)
    }

    /// Whether it lies within a tensor of this shape.
    pub fn is_within(&self, shape: &[u64]) -> bool {
        self.lens.len() == shape.len() && (0..shape.len()).all(|axis| self.range(axis).end <= shape[axis])
    }

    /// What both have, unless that is empty. Both are of one tensor.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        for axis in 0..self.lens.len().min(other.lens.len()) {
            let (here, there) = (self.range(axis), other.range(axis));
            let (start, end) = (here.start.max(there.start), here.end.min(there.end));
            (both.offsets[axis], both.lens[axis]) = (start, end.saturating_sub(start));
        }
        (!both.is_empty()).then_some(both)
    }

    /// What of it lies outside another box, as boxes that do not meet.
    pub(super) fn without(&self, other: &Self) -> Vec<Self> {
        let Some(both) = self.intersection(other) else { return vec![self.clone()] };
        let mut rest = self.clone();
        let mut outside = Vec::new();
        for axis in 0..self.lens.len() {
            let (all, kept) = (rest.range(axis), both.range(axis));
            for side in [all.start..kept.start, kept.end..all.end] {
                if !side.is_empty() {
                    outside.push(rest.with_range(axis, side));
                }
            }
            rest = rest.with_range(axis, kept);
        }
        outside
    }

    fn with_range(&self, axis: usize, range: Range<u64>) -> Self {
        let mut changed = self.clone();
        (changed.offsets[axis], changed.lens[axis]) = (range.start, range.end - range.start);
        changed
    }

    /// Block `block` of `parts` of an axis.
    pub(super) fn block(&self, axis: usize, parts: u32, block: u32) -> Self {
        let Range { start, end } = self.range(axis);
        let len = (end - start).div_ceil(u64::from(parts));
        let from = end.min(start.saturating_add(len.saturating_mul(u64::from(block))));
        self.with_range(axis, from..end.min(from.saturating_add(len)))
    }

    /// The blocks of an axis that are not empty and share elements with a box.
    pub(super) fn blocks_that_meet(
        &self,
        axis: usize,
        parts: u32,
        wanted: &Self,
    ) -> impl Iterator<Item = u32> + use<> {
        let (own, wanted) = (self.range(axis), wanted.range(axis));
        let len = (own.end - own.start).div_ceil(u64::from(parts)).max(1);
        let from = wanted.start.clamp(own.start, own.end) - own.start;
        let to = wanted.end.clamp(own.start, own.end) - own.start;
        // OK to cast: at most `parts` blocks.
        (from / len) as u32..to.div_ceil(len) as u32
    }
}

/// The product of lengths, 0 if one is 0, and `u64::MAX` beyond it.
pub(super) fn product(lens: &[u64]) -> u64 {
    if lens.contains(&0) { 0 } else { lens.iter().fold(1, |all, len| all.saturating_mul(*len)) }
}

/// As in NumPy's slices: `[0:4, 12:16]`.
impl fmt::Display for TensorBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for axis in 0..self.lens.len() {
            let Range { start, end } = self.range(axis);
            write!(f, "{}{start}:{end}", if axis == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for TensorBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
