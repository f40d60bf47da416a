//! Making the section of a manifest: tensors in the order of their names, then the shards.

use super::{Columns, EXPLICIT, ShardRef};
use crate::dtype::Dtype;
use crate::layout::{Assigned, Layout, TensorBox};
use std::collections::HashMap;

/// Collects the columns of a manifest, and encodes them.
#[derive(Default)]
pub struct PiecesBuilder {
    columns: Growing,
    layouts: HashMap<Layout, u32>,
}

#[derive(Default)]
struct Growing {
    names: Vec<u8>,
    name_ends: Vec<u8>,
    dtypes: Vec<u8>,
    dim_ends: Vec<u8>,
    dims: Vec<u8>,
    byte_lens: Vec<u8>,
    layouts: Vec<u8>,
    copies: Vec<u8>,
    box_ends: Vec<u8>,
    boxes: Vec<u8>,
    owners: Vec<u8>,
    layout_counts: Vec<u8>,
    layout_firsts: Vec<u8>,
    layout_steps: Vec<u8>,
    member_ends: Vec<u8>,
    members: Vec<u8>,
    level_ends: Vec<u8>,
    level_axes: Vec<u8>,
    level_parts: Vec<u8>,
    level_strides: Vec<u8>,
    shard_ranks: Vec<u8>,
    shard_ids: Vec<u8>,
    shard_lens: Vec<u8>,
    shard_index_crcs: Vec<u8>,
}

fn put32(column: &mut Vec<u8>, number: u32) {
    column.extend_from_slice(&number.to_le_bytes());
}

/// Appends where a column of elements of this width ends now.
fn put_end(ends: &mut Vec<u8>, column: &[u8], width: usize) {
    put32(ends, (column.len() / width) as u32);
}

fn put64s(column: &mut Vec<u8>, numbers: &[u64]) {
    column.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

impl PiecesBuilder {
    /// Adds a tensor whose pieces follow from a layout. Tensors come in the order of their names.
    pub fn push_layout(&mut self, name: &str, dtype: Dtype, shape: &[u64], stored: &Assigned) {
        let layout = self.layout(&stored.layout);
        self.push(name, dtype, shape, layout, stored.copy);
    }

    /// Adds a tensor of explicit boxes, ascending by their offsets, each with its owner.
    pub fn push_boxes(&mut self, name: &str, dtype: Dtype, shape: &[u64], boxes: &[(TensorBox, u32)]) {
        for (tensor_box, owner) in boxes {
            put64s(&mut self.columns.boxes, tensor_box.offsets());
            put64s(&mut self.columns.boxes, tensor_box.lens());
            put32(&mut self.columns.owners, *owner);
        }
        self.push(name, dtype, shape, EXPLICIT, 0);
    }

    fn push(&mut self, name: &str, dtype: Dtype, shape: &[u64], layout: u32, copy: u32) {
        let columns = &mut self.columns;
        columns.names.extend_from_slice(name.as_bytes());
        put_end(&mut columns.name_ends, &columns.names, 1);
        columns.dtypes.extend_from_slice(&dtype.id().to_le_bytes());
        put64s(&mut columns.dims, shape);
        put_end(&mut columns.dim_ends, &columns.dims, 8);
        let len = super::super::table::raw_length(dtype, shape.iter().copied()).unwrap_or(u64::MAX);
        put64s(&mut columns.byte_lens, &[len]);
        put32(&mut columns.layouts, layout);
        put32(&mut columns.copies, copy);
        put_end(&mut columns.box_ends, &columns.owners, 4);
    }

    /// The number of a layout, which is added when it is new.
    fn layout(&mut self, layout: &Layout) -> u32 {
        let next = self.layouts.len() as u32;
        let number = *self.layouts.entry(layout.clone()).or_insert(next);
        if number < next {
            return number;
        }
        let (columns, positions) = (&mut self.columns, layout.positions());
        let (first, step) = positions.as_progression().unwrap_or((0, 0));
        put32(&mut columns.layout_counts, positions.count());
        put32(&mut columns.layout_firsts, first);
        put32(&mut columns.layout_steps, step);
        if positions.as_progression().is_none() {
            columns.members.extend(positions.ranks().flat_map(u32::to_le_bytes));
        }
        put_end(&mut columns.member_ends, &columns.members, 4);
        for level in layout.levels() {
            columns.level_axes.push(level.axis);
            put32(&mut columns.level_parts, level.parts);
            put32(&mut columns.level_strides, level.stride);
        }
        put_end(&mut columns.level_ends, &columns.level_axes, 1);
        number
    }

    /// Adds a shard. They come in the order of their ranks.
    pub fn push_shard(&mut self, shard: ShardRef) {
        let columns = &mut self.columns;
        put32(&mut columns.shard_ranks, shard.rank);
        columns.shard_ids.extend_from_slice(&shard.file_id);
        put64s(&mut columns.shard_lens, &[shard.len]);
        put32(&mut columns.shard_index_crcs, shard.index_crc);
    }

    /// The payload of the section; `save` is what the shards' names begin with.
    pub fn encode(&self, save: &str) -> Vec<u8> {
        macro_rules! all {
            ($($column:ident),* $(,)?) => {
                Columns { save: save.as_bytes(), $($column: &self.columns.$column,)* }
            };
        }
        super::super::records::encode_trusted(&all!(
            names,
            name_ends,
            dtypes,
            dim_ends,
            dims,
            byte_lens,
            layouts,
            copies,
            box_ends,
            boxes,
            owners,
            layout_counts,
            layout_firsts,
            layout_steps,
            member_ends,
            members,
            level_ends,
            level_axes,
            level_parts,
            level_strides,
            shard_ranks,
            shard_ids,
            shard_lens,
            shard_index_crcs,
        ))
    }
}
