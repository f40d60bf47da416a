//! Every rule of SPEC.md's section on pieces, checked once.

use super::{Columns, EXPLICIT};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::limits::Limits;
use crate::format::shard::check_save;
use crate::format::table::{check_names, raw_length};
use crate::format::{check_column, check_ends, le, span};
use crate::layout::{self, Fault, Layout, Level, Positions, TensorBox};
use std::collections::HashMap;

/// Validates the columns. Returns the layouts, and where each tensor's explicit boxes begin.
pub(super) fn validate(columns: &Columns<'_>) -> Result<(Vec<Layout>, Vec<usize>)> {
    check_lengths(columns)?;
    check_names(columns.names, columns.name_ends)?;
    check_shards(columns)?;
    let layouts = layouts(columns)?;
    let mut tensors = Tensors { columns, layouts: &layouts, complete: HashMap::new(), box_start: 0 };
    let count = columns.name_ends.len() / 4;
    let mut box_starts = Vec::new();
    for i in 0..count {
        if !columns.boxes.is_empty() {
            box_starts.push(tensors.box_start);
        }
        tensors.check(i).map_err(|error| error.in_tensor(name(columns, i)))?;
    }
    check_column("boxes", columns.boxes.len(), tensors.box_start * 8)?;
    Ok((layouts, box_starts))
}

fn name(columns: &Columns<'_>, i: usize) -> String {
    String::from_utf8_lossy(&columns.names[span(columns.name_ends, i)]).into_owned()
}

/// Every column has the length that the numbers of tensors, axes, layouts and shards give it.
fn check_lengths(columns: &Columns<'_>) -> Result<()> {
    let tensors = columns.name_ends.len() / 4;
    let layouts = columns.layout_counts.len() / 4;
    let shards = columns.shard_ranks.len() / 4;
    let (axes, boxes) = (columns.dims.len() / 8, columns.owners.len() / 4);
    let (members, levels) = (columns.members.len() / 4, columns.level_axes.len());
    for (what, found, limit) in [
        ("tensors", tensors, Limits::V1.tensors),
        ("layouts", layouts, Limits::V1.layouts),
        ("boxes", boxes, Limits::V1.boxes),
        ("shards", shards, Limits::V1.ranks),
    ] {
        if found as u64 > limit {
            return Err(Error::damaged(format!("number of {what}"))
                .expected(format!("at most {limit}"))
                .found(found));
        }
    }
    for (name, column, expected) in [
        ("name_ends", columns.name_ends, tensors * 4),
        ("dtypes", columns.dtypes, tensors * 2),
        ("dim_ends", columns.dim_ends, tensors * 4),
        ("dims", columns.dims, axes * 8),
        ("byte_lens", columns.byte_lens, tensors * 8),
        ("layouts", columns.layouts, tensors * 4),
        ("copies", columns.copies, tensors * 4),
        ("box_ends", columns.box_ends, tensors * 4),
        ("owners", columns.owners, boxes * 4),
        ("layout_counts", columns.layout_counts, layouts * 4),
        ("layout_firsts", columns.layout_firsts, layouts * 4),
        ("layout_steps", columns.layout_steps, layouts * 4),
        ("member_ends", columns.member_ends, layouts * 4),
        ("members", columns.members, members * 4),
        ("level_ends", columns.level_ends, layouts * 4),
        ("level_parts", columns.level_parts, levels * 4),
        ("level_strides", columns.level_strides, levels * 4),
        ("shard_ranks", columns.shard_ranks, shards * 4),
        ("shard_ids", columns.shard_ids, shards * 16),
        ("shard_lens", columns.shard_lens, shards * 8),
        ("shard_index_crcs", columns.shard_index_crcs, shards * 4),
    ] {
        check_column(name, column.len(), expected)?;
    }
    for (name, ends, length) in [
        ("name_ends", columns.name_ends, columns.names.len()),
        ("dim_ends", columns.dim_ends, axes),
        ("box_ends", columns.box_ends, boxes),
        ("member_ends", columns.member_ends, members),
        ("level_ends", columns.level_ends, levels),
    ] {
        check_ends(name, ends, length)?;
    }
    Ok(())
}

/// The save's name, and ranks that ascend.
fn check_shards(columns: &Columns<'_>) -> Result<()> {
    let save = std::str::from_utf8(columns.save).unwrap_or_default();
    check_save(save).map_err(|error| error.with_kind(ErrorKind::Damaged))?;
    let mut next = 0_u64;
    for rank in columns.shard_ranks.as_chunks().0 {
        let rank = u64::from(u32::from_le_bytes(*rank));
        if rank < next || rank >= Limits::V1.ranks {
            return Err(Error::damaged("rank of a shard")
                .expected(format!("ascending, below {}", Limits::V1.ranks))
                .found(rank));
        }
        next = rank + 1;
    }
    Ok(())
}

fn layouts(columns: &Columns<'_>) -> Result<Vec<Layout>> {
    let layout = |number: usize| {
        let damaged = |error: Error| error.with_kind(ErrorKind::Damaged);
        layout(columns, number).map_err(damaged)
    };
    (0..columns.layout_counts.len() / 4).map(layout).collect()
}

fn layout(columns: &Columns<'_>, number: usize) -> Result<Layout> {
    let count = le::u32_at(columns.layout_counts, number);
    let first = le::u32_at(columns.layout_firsts, number);
    let step = le::u32_at(columns.layout_steps, number);
    let members: Vec<u32> =
        span(columns.member_ends, number).map(|at| le::u32_at(columns.members, at)).collect();
    let positions = if members.is_empty() {
        Positions::progression(count, first, step)?
    } else if members.len() == count as usize && (first, step) == (0, 0) {
        Positions::members(&members)?
    } else {
        return Err(Error::damaged("a layout's members")
            .expected(format!("{count}, and no progression"))
            .found(format!("{}, and one from {first} in steps of {step}", members.len())));
    };
    let level = |at: usize| Level {
        axis: columns.level_axes[at],
        parts: le::u32_at(columns.level_parts, at),
        stride: le::u32_at(columns.level_strides, at),
    };
    Layout::new(positions, span(columns.level_ends, number).map(level).collect())
}

struct Tensors<'v> {
    columns: &'v Columns<'v>,
    layouts: &'v [Layout],
    /// By layout and copy: whether every rank that could own a piece has a shard.
    complete: HashMap<(u32, u32), bool>,
    /// Where the boxes of the next tensor begin, in numbers.
    box_start: usize,
}

impl Tensors<'_> {
    fn check(&mut self, i: usize) -> Result<()> {
        let shape = self.columns.shape(i);
        check_shape(self.columns, i, &shape)?;
        match le::u32_at(self.columns.layouts, i) {
            EXPLICIT => self.check_boxes(i, &shape),
            number => self.check_layout(i, number, &shape),
        }
    }

    fn check_layout(&mut self, i: usize, number: u32, shape: &[u64]) -> Result<()> {
        let found = self.layouts.get(number as usize);
        let layout = found.filter(|layout| layout.fits(shape.len())).ok_or_else(|| {
            Error::damaged("the layout of a tensor")
                .expected(format!("one of {}, for {} axes", self.layouts.len(), shape.len()))
                .found(number)
        })?;
        if !span(self.columns.box_ends, i).is_empty() {
            return Err(Error::damaged("explicit boxes of a tensor with a layout"));
        }
        let copy = le::u32_at(self.columns.copies, i);
        if copy >= layout.copies() {
            return Err(Error::damaged("which copy of a tensor is stored")
                .expected(format!("below {}", layout.copies()))
                .found(copy));
        }
        let columns = self.columns;
        let to_copy = layout.to_copy(copy);
        let has_shard = |first: u32| {
            let rank = layout.positions().rank(first + to_copy);
            columns.shard_of(rank).ok_or(rank)
        };
        // Whatever the shape, if every combination of blocks has an owner with a shard.
        let complete = *self.complete.entry((number, copy)).or_insert_with(|| {
            let blocks: Vec<u64> = layout.levels().iter().map(|level| u64::from(level.parts)).collect();
            let combinations = blocks.iter().product::<u64>();
            combinations <= columns.shard_ranks.len() as u64 / 4
                && layout.combinations().all(|first| has_shard(first).is_ok())
        });
        if complete {
            return Ok(());
        }
        let mut lost = None;
        layout.try_pieces(shape, &TensorBox::whole(shape), &mut |piece| {
            lost = has_shard(piece.position).err();
            lost.is_none()
        });
        lost.map_or(Ok(()), |rank| Err(no_shard(rank)))
    }

    fn check_boxes(&mut self, i: usize, shape: &[u64]) -> Result<()> {
        if le::u32_at(self.columns.copies, i) != 0 {
            return Err(Error::damaged("a copy of a tensor with explicit boxes").expected(0));
        }
        let count = span(self.columns.box_ends, i).len();
        let start = self.box_start;
        self.box_start = start.saturating_add(count * 2 * shape.len());
        if self.box_start > self.columns.boxes.len() / 8 {
            return Err(Error::damaged("length of column boxes").found(self.columns.boxes.len()));
        }
        let (boxes, owners): (Vec<TensorBox>, Vec<u32>) = self.columns.explicit_boxes(i, start).unzip();
        if boxes.len() != count {
            return Err(Error::damaged("a box beyond 2^64"));
        }
        if let Some(pair) = boxes.windows(2).find(|pair| pair[0].offsets() >= pair[1].offsets()) {
            return Err(Error::damaged("the order of boxes")
                .expected(format!("one behind {}", pair[0]))
                .found(&pair[1]));
        }
        layout::tiling(shape, &boxes).map_err(|fault| no_tiling(shape, &boxes, &owners, fault))?;
        let lost = owners.into_iter().find(|&rank| self.columns.shard_of(rank).is_none());
        lost.map_or(Ok(()), |rank| Err(no_shard(rank)))
    }
}

fn check_shape(columns: &Columns<'_>, i: usize, shape: &[u64]) -> Result<()> {
    if shape.len() as u64 > Limits::V1.rank {
        let error = Error::damaged("number of axes").expected(format!("at most {}", Limits::V1.rank));
        return Err(error.found(shape.len()));
    }
    let len = le::u64_at(columns.byte_lens, i);
    let known = Dtype::from_id(le::u16_at(columns.dtypes, i));
    let expected = known.map_or(Some(len), |dtype| raw_length(dtype, shape.iter().copied()));
    if expected == Some(len) && len <= Limits::V1.tensor_bytes {
        return Ok(());
    }
    Err(Error::damaged("raw length").expected(format!("that of {shape:?}")).found(format!("{len} bytes")))
}

fn no_shard(rank: u32) -> Error {
    Error::damaged("a piece without a shard").expected(format!("a shard of rank {rank}"))
}

fn no_tiling(shape: &[u64], boxes: &[TensorBox], owners: &[u32], fault: Fault) -> Error {
    fault.explain(shape, boxes, |number| owners[number]).with_kind(ErrorKind::Damaged)
}
