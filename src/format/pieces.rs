//! The section of a manifest: tensors that lie in shards, which rank's shard has which box of each,
//! and what each shard is known by. [`Pieces`] is valid by construction.

mod build;
mod validate;

pub use build::PiecesBuilder;

use super::shard::shard_key;
use super::{find_name, le, span};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::layout::{Layout, TensorBox};
use std::ops::Range;

super::slices! {
    /// The columns of the section; SPEC.md says what each has.
    Columns Ranges:
    names, name_ends, dtypes, dim_ends, dims, byte_lens,
    layouts, copies, box_ends, boxes, owners,
    layout_counts, layout_firsts, layout_steps, member_ends, members,
    level_ends, level_axes, level_parts, level_strides,
    save, shard_ranks, shard_ids, shard_lens, shard_index_crcs,
}

/// In the column of layouts: explicit boxes.
const EXPLICIT: u32 = u32::MAX;

/// Valid columns of a manifest, over bytes that it holds.
#[derive(Debug)]
pub struct Pieces<B> {
    bytes: B,
    ranges: Ranges,
    layouts: Vec<Layout>,
    /// Where each tensor's boxes begin in their column, counted in numbers; empty without explicit
    /// boxes.
    box_starts: Vec<usize>,
}

/// A box of a tensor, and the number of the shard that it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredBox {
    /// The box.
    pub tensor_box: TensorBox,
    /// The shard's number in the manifest's table of shards.
    pub shard: usize,
}

/// What a shard is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRef {
    /// The rank that stored it.
    pub rank: u32,
    /// Its file id.
    pub file_id: [u8; 16],
    /// Its length in bytes.
    pub len: u64,
    /// The checksum of its index, which has the checksums of everything else.
    pub index_crc: u32,
}

impl<B: AsRef<[u8]>> Pieces<B> {
    /// Parses and validates the section at `payload` within `bytes`.
    ///
    /// # Errors
    /// `Damaged`, with the name of the tensor if one is at fault.
    pub fn parse(bytes: B, payload: Range<usize>) -> Result<Self> {
        let columns = Columns::decode(&bytes.as_ref()[payload])?;
        let (layouts, box_starts) = validate::validate(&columns)?;
        let ranges = Ranges::of(&columns, bytes.as_ref());
        Ok(Self { bytes, ranges, layouts, box_starts })
    }

    fn columns(&self) -> Columns<'_> {
        self.ranges.columns(self.bytes.as_ref())
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.ranges.name_ends.len() / 4
    }

    /// Name of the `i`-th tensor.
    pub fn name(&self, i: usize) -> &str {
        let Columns { names, name_ends, .. } = self.columns();
        std::str::from_utf8(names.get(span(name_ends, i)).unwrap_or_default()).unwrap_or_default()
    }

    /// The tensor of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let Columns { names, name_ends, .. } = self.columns();
        find_name(names, name_ends, name)
    }

    /// Dtype of the `i`-th tensor, `Err` with its id when this version does not know it.
    pub fn dtype(&self, i: usize) -> Result<Dtype, u16> {
        let id = le::u16_at(self.columns().dtypes, i);
        Dtype::from_id(id).ok_or(id)
    }

    /// Lengths of the axes of the `i`-th tensor.
    pub fn shape(&self, i: usize) -> Vec<u64> {
        self.columns().shape(i)
    }

    /// Raw length of the `i`-th tensor in bytes.
    pub fn byte_len(&self, i: usize) -> u64 {
        le::u64_at(self.columns().byte_lens, i)
    }

    /// Number of pieces of the `i`-th tensor.
    pub fn piece_count(&self, i: usize) -> usize {
        let columns = self.columns();
        match self.layouts.get(le::u32_at(columns.layouts, i) as usize) {
            Some(layout) => layout.piece_count(&columns.shape(i)) as usize,
            None => span(columns.box_ends, i).len(),
        }
    }

    /// The pieces of the `i`-th tensor that share elements with a box.
    pub fn pieces_within(&self, i: usize, wanted: &TensorBox) -> Vec<StoredBox> {
        let mut found = Vec::new();
        self.visit_pieces(i, wanted, &mut |stored| {
            found.push(stored);
            true
        });
        found
    }

    /// Calls `visit` with the same pieces, until it returns false: a tensor may have more of them
    /// than there is memory for.
    pub fn visit_pieces(&self, i: usize, wanted: &TensorBox, visit: &mut dyn FnMut(StoredBox) -> bool) {
        let columns = self.columns();
        // OK: every owner was found to have a shard.
        let stored = |tensor_box, rank| {
            let shard = columns.shard_of(rank).unwrap_or_default();
            StoredBox { tensor_box, shard }
        };
        if let Some(layout) = self.layouts.get(le::u32_at(columns.layouts, i) as usize) {
            let copy = le::u32_at(columns.copies, i);
            let to_copy = layout.to_copy(copy);
            let rank = |first| layout.positions().rank(first + to_copy);
            layout.try_pieces(&columns.shape(i), wanted, &mut |piece| {
                visit(stored(piece.tensor_box, rank(piece.position)))
            });
            return;
        }
        let start = self.box_starts.get(i).copied().unwrap_or_default();
        let mut meeting = columns
            .explicit_boxes(i, start)
            .filter(|(tensor_box, _)| tensor_box.intersection(wanted).is_some());
        meeting.all(|(tensor_box, rank)| visit(stored(tensor_box, rank)));
    }

    /// Number of shards.
    pub fn shard_count(&self) -> usize {
        self.ranges.shard_ranks.len() / 4
    }

    /// What the `i`-th shard is known by.
    pub fn shard(&self, i: usize) -> ShardRef {
        let columns = self.columns();
        ShardRef {
            rank: le::u32_at(columns.shard_ranks, i),
            file_id: columns.shard_ids.as_chunks().0.get(i).copied().unwrap_or_default(),
            len: le::u64_at(columns.shard_lens, i),
            index_crc: le::u32_at(columns.shard_index_crcs, i),
        }
    }

    /// What the names of the shards begin with.
    pub fn save(&self) -> &str {
        // OK: found to be plain ASCII.
        std::str::from_utf8(self.columns().save).unwrap_or_default()
    }

    /// The key of the `i`-th shard, in the manifest's folder.
    pub fn shard_key(&self, i: usize) -> String {
        shard_key(self.save(), self.shard(i).rank)
    }
}

impl Columns<'_> {
    fn shape(&self, i: usize) -> Vec<u64> {
        span(self.dim_ends, i).map(|axis| le::u64_at(self.dims, axis)).collect()
    }

    fn shard_of(&self, rank: u32) -> Option<usize> {
        let ranks = self.shard_ranks.as_chunks().0;
        ranks.binary_search_by_key(&rank, |bytes| u32::from_le_bytes(*bytes)).ok()
    }

    /// The explicit boxes of the `i`-th tensor, whose numbers begin at `start`, and their owners.
    fn explicit_boxes(&self, i: usize, start: usize) -> impl Iterator<Item = (TensorBox, u32)> + use<'_> {
        let axes = span(self.dim_ends, i).len();
        let (boxes, owners) = (self.boxes, self.owners);
        span(self.box_ends, i).enumerate().filter_map(move |(number, owner)| {
            let at = start + number * 2 * axes;
            let numbers =
                |from: usize| (from..from + axes).map(|at| le::u64_at(boxes, at)).collect::<Vec<_>>();
            let tensor_box = TensorBox::new(numbers(at), numbers(at + axes)).ok()?;
            Some((tensor_box, le::u32_at(owners, owner)))
        })
    }
}
