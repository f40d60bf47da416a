//! The part of each tensor that a rank of a job holds: [`Layout`], boxes, flat ranges, and the byte
//! ranges that a box is read from. Pure arithmetic: no bytes, no files, no ranks at work.
//!
//! ```
//! use tensorkeep::layout::{Layout, Placement, TensorBox};
//!
//! // FSDP over 2 nodes of 4: rows over all 8 ranks. torch: `[Shard(0), Shard(0)]` on a (2, 4) mesh.
//! let rows = Layout::mesh(&[(2, Placement::Shard(0)), (4, Placement::Shard(0))])?;
//! assert_eq!(rows.box_of(&[10, 6], 1), Some(TensorBox::new([2, 0], [2, 6])?));
//! // Columns over the 4 ranks of a node, the same on both nodes.
//! let columns = Layout::mesh(&[(2, Placement::Replicate), (4, Placement::Shard(1))])?;
//! assert_eq!(columns.box_of(&[10, 6], 5), Some(TensorBox::new([0, 2], [10, 2])?));
//! # Ok::<(), tensorkeep::Error>(())
//! ```

mod assign;
mod boxes;
mod cover;
mod flat;
mod positions;
mod reads;
#[cfg(test)]
mod tests;

pub use assign::{Assigned, Held, assign};
pub(crate) use assign::{Assignment, assign_among_few};
pub use boxes::TensorBox;
pub use cover::{CUT_AXES, Fault, tiling};
pub use flat::flat_boxes;
pub use positions::{Positions, RANKS};
pub use reads::{Joining, Read, Run, Runs, reads, runs};

use crate::error::{Error, Result};

/// One cut: an axis into `parts` blocks of `ceil(length / parts)`, of which position `p` has block
/// `p / stride mod parts`. Blocks at the end may be shorter, or empty: `torch.chunk`'s rule, which
/// is DTensor's, FSDP2's and GSPMD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// The axis of the tensor.
    pub axis: u8,
    /// The number of blocks, at least 2.
    pub parts: u32,
    /// The number of positions from one block to the next, at least 1.
    pub stride: u32,
}

/// What one axis of a mesh of ranks does to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// All ranks along it hold the same.
    Replicate,
    /// They hold blocks of this axis of the tensor.
    Shard(u8),
}

/// Which box of a tensor each rank holds, for any shape: levels of cuts over positions.
///
/// By their strides, the levels are digits of the position: sorted, each stride is a multiple of
/// stride × parts of the one before, and the number of positions is one of the last. So every
/// combination of blocks has equally many positions, and the boxes of any shape tile it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    positions: Positions,
    levels: Vec<Level>,
}

/// A box that is held, and the first position that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The box, not empty.
    pub tensor_box: TensorBox,
    /// The first position.
    pub position: u32,
}

impl Layout {
    /// Levels over positions, the first level cutting first.
    ///
    /// # Errors
    /// `Invalid` when the levels are no digits of the positions.
    pub fn new(positions: Positions, levels: Vec<Level>) -> Result<Self> {
        let layout = Self { positions, levels };
        layout.check()?;
        Ok(layout)
    }

    /// Every rank of `0..world` holds the whole tensor.
    ///
    /// # Errors
    /// `Invalid` for a world of 0 or beyond the limit.
    pub fn replicated(world: u32) -> Result<Self> {
        Self::new(Positions::first(world)?, Vec::new())
    }

    /// The ranks `0..world` hold blocks of one axis.
    ///
    /// # Errors
    /// `Invalid` for a world of 0 or beyond the limit.
    pub fn sharded(axis: u8, world: u32) -> Result<Self> {
        Self::mesh(&[(world, Placement::Shard(axis))])
    }

    /// A mesh of ranks as DTensor has it: sizes and placements of its axes, the last one fastest.
    /// Placements cut in the order of the mesh. `_StridedShard` is another order of levels: give
    /// them to [`Layout::new`].
    ///
    /// # Errors
    /// `Invalid` for a mesh of no ranks or of more than the limit.
    pub fn mesh(axes: &[(u32, Placement)]) -> Result<Self> {
        let world = axes.iter().try_fold(1_u32, |world, (size, _)| world.checked_mul(*size));
        let positions = Positions::first(world.unwrap_or(u32::MAX))?;
        let mut stride = positions.count();
        let mut levels = Vec::new();
        for &(size, placement) in axes {
            // OK to divide: a size of 0 makes a world of 0, which was refused.
            stride /= size;
            match placement {
                Placement::Shard(axis) if size > 1 => levels.push(Level { axis, parts: size, stride }),
                _ => {}
            }
        }
        Self::new(positions, levels)
    }

    /// The same levels over other positions.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn on(&self, positions: Positions) -> Result<Self> {
        Self::new(positions, self.levels.clone())
    }

    /// The levels, in the order in which they cut.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The ranks, by position.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Number of positions that hold each piece.
    pub fn copies(&self) -> u32 {
        // OK: the positions are a multiple of the product.
        self.levels.iter().fold(self.positions.count(), |left, level| left / level.parts)
    }

    /// Whether it can cut a tensor of so many axes.
    pub fn fits(&self, axes: usize) -> bool {
        self.levels.iter().all(|level| usize::from(level.axis) < axes)
    }

    /// Fails when it cannot cut a tensor of this shape.
    pub(crate) fn check_fits(&self, shape: &[u64]) -> Result<()> {
        if self.fits(shape.len()) {
            return Ok(());
        }
        Err(Error::invalid("a layout that cuts more axes than there are")
            .expected(format!("axes of {shape:?}"))
            .found(format!("{:?}", self.levels)))
    }

    fn check(&self) -> Result<()> {
        let mut unit = 1_u64;
        for level in self.by_stride() {
            let stride = u64::from(level.stride);
            if level.parts < 2 || stride == 0 || !stride.is_multiple_of(unit) {
                return Err(Error::invalid("a layout's level is no digit of the positions")
                    .expected(format!("at least 2 parts, and a stride that is a multiple of {unit}"))
                    .found(format!("{} parts, stride {stride}", level.parts)));
            }
            // OK to multiply: of two u32.
            unit = stride * u64::from(level.parts);
            if unit > u64::from(u32::MAX) {
                break;
            }
        }
        let count = self.positions.count();
        if u64::from(count).is_multiple_of(unit) {
            return Ok(());
        }
        Err(Error::invalid("a layout's positions").expected(format!("a multiple of {unit}")).found(count))
    }

    fn by_stride(&self) -> Vec<Level> {
        let mut levels = self.levels.clone();
        levels.sort_by_key(|level| level.stride);
        levels
    }

    /// The digits of a position that no level uses, as stride and number of values, lowest first:
    /// positions that differ in these alone hold the same box.
    pub(crate) fn free_digits(&self) -> Vec<(u32, u32)> {
        let mut free = Vec::new();
        let mut unit = 1;
        for level in self.by_stride() {
            free.push((unit, level.stride / unit));
            unit = level.stride * level.parts;
        }
        free.push((unit, self.positions.count() / unit));
        free.retain(|(_, values)| *values > 1);
        free
    }

    /// The `copy`-th position, from 0 on, that holds the piece of this first position.
    pub fn holder(&self, first: u32, copy: u32) -> u32 {
        first + self.to_copy(copy)
    }

    /// The first position that holds the same piece as this one.
    pub(crate) fn first_with(&self, position: u32) -> u32 {
        self.levels.iter().map(|level| position / level.stride % level.parts * level.stride).sum()
    }

    /// From the first position that holds a piece to the `copy`-th: the same for all pieces.
    pub(crate) fn to_copy(&self, copy: u32) -> u32 {
        let mut left = copy;
        self.free_digits().into_iter().fold(0, |distance, (stride, values)| {
            let digit = left % values;
            left /= values;
            distance + digit * stride
        })
    }

    /// The first position of every combination of blocks, also of those that are empty.
    pub(crate) fn combinations(&self) -> impl Iterator<Item = u32> + '_ {
        let count: u32 = self.levels.iter().map(|level| level.parts).product();
        (0..count).map(|number| {
            let mut left = number;
            let digit = |position: u32, level: &Level| {
                let block = left % level.parts;
                left /= level.parts;
                position + block * level.stride
            };
            self.levels.iter().fold(0, digit)
        })
    }

    /// The box of a position, which may be empty.
    pub fn box_at(&self, shape: &[u64], position: u32) -> TensorBox {
        let mut found = TensorBox::whole(shape);
        for level in &self.levels {
            let block = position / level.stride % level.parts;
            found = found.block(usize::from(level.axis), level.parts, block);
        }
        found
    }

    /// The box of a rank, which may be empty; None if the rank is in no position.
    pub fn box_of(&self, shape: &[u64], rank: u32) -> Option<TensorBox> {
        Some(self.box_at(shape, self.positions.of(rank)?))
    }

    /// The pieces of a shape: its different boxes that are not empty, in no particular order.
    pub fn pieces(&self, shape: &[u64]) -> Vec<Piece> {
        self.pieces_within(shape, &TensorBox::whole(shape))
    }

    /// The pieces that share elements with a box, without a look at the others.
    pub fn pieces_within(&self, shape: &[u64], wanted: &TensorBox) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.try_pieces(shape, wanted, &mut |piece| {
            pieces.push(piece);
            true
        });
        pieces
    }

    /// Number of pieces of a shape.
    pub fn piece_count(&self, shape: &[u64]) -> u64 {
        let of_axis = |(axis, &len): (usize, &u64)| {
            let parts = self.levels.iter().filter(|level| usize::from(level.axis) == axis);
            blocks(len, &parts.map(|level| u64::from(level.parts)).collect::<Vec<_>>())
        };
        shape.iter().enumerate().map(of_axis).product()
    }

    /// Calls `visit` with the pieces that share elements with a box, until it returns false;
    /// returns whether it never did.
    pub(crate) fn try_pieces(
        &self,
        shape: &[u64],
        wanted: &TensorBox,
        visit: &mut dyn FnMut(Piece) -> bool,
    ) -> bool {
        let whole = TensorBox::whole(shape);
        whole.intersection(wanted).is_none() || self.descend(&self.levels, whole, 0, wanted, visit)
    }

    fn descend(
        &self,
        levels: &[Level],
        held: TensorBox,
        position: u32,
        wanted: &TensorBox,
        visit: &mut dyn FnMut(Piece) -> bool,
    ) -> bool {
        let Some((level, later)) = levels.split_first() else {
            return visit(Piece { tensor_box: held, position });
        };
        let axis = usize::from(level.axis);
        held.blocks_that_meet(axis, level.parts, wanted).all(|block| {
            let cut = held.block(axis, level.parts, block);
            self.descend(later, cut, position + block * level.stride, wanted, visit)
        })
    }
}

/// Number of blocks that are not empty, of a length that is cut into so many parts, and each of
/// these into so many.
fn blocks(len: u64, parts: &[u64]) -> u64 {
    let Some((first, later)) = parts.split_first() else { return u64::from(len > 0) };
    if len == 0 {
        return 0;
    }
    let block = len.div_ceil(*first);
    len / block * blocks(block, later) + blocks(len % block, later)
}
