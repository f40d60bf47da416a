//! Which rank stores what several ranks hold: a pure function of names, sizes and layouts, so that
//! every rank computes the same without a message. The result is written down, so readers do not
//! depend on it.

use super::boxes::product;
use super::{Layout, Level};
use crate::error::Result;
use std::cmp::Reverse;
use std::collections::HashMap;

/// A tensor that ranks hold.
#[derive(Clone, Copy, Debug)]
pub struct Held<'h> {
    /// Its name, which decides between equal sizes.
    pub name: &'h str,
    /// The tensor's whole shape.
    pub shape: &'h [u64],
    /// Bytes of one element.
    pub element_bytes: u64,
    /// Who holds which box.
    pub layout: &'h Layout,
}

/// How a tensor is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// The layout of its pieces: the one that is held, or that with one cut more.
    pub layout: Layout,
    /// Which of the positions that hold a piece stores it, for [`Layout::holder`].
    pub copy: u32,
}

impl Held<'_> {
    pub(super) fn byte_len(&self) -> u64 {
        product(self.shape).saturating_mul(self.element_bytes)
    }
}

/// Pieces of at most this many bytes are not cut: so they can be mapped whole.
const CUT_FROM: u64 = 64 << 20;
/// Cutting leaves pieces of at least this many bytes.
const LEAST_CUT: u64 = 4 << 20;

/// How each tensor is stored, in their order. Those of the largest pieces are placed first, equal
/// ones by name; each by the copy whose most loaded rank has least to store so far. What several
/// ranks hold and is above half a rank's share is cut along its first axis among them, unless `cut`
/// is false.
///
/// # Errors
/// None for layouts that hold.
pub fn assign(tensors: &[Held<'_>], cut: bool) -> Result<Vec<Assigned>> {
    Ok(assign_among_few(tensors, cut, 0)?.assigned)
}

/// How tensors are stored, and the bytes that each rank stores of them.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub assigned: Vec<Assigned>,
    pub loads: HashMap<u32, u64>,
}

/// As [`assign`], but of equal copies only so many store anything that each of their ranks gets
/// about `least` bytes: small states make few shards.
pub(crate) fn assign_among_few(tensors: &[Held<'_>], cut: bool, least: u64) -> Result<Assignment> {
    let mut loads: HashMap<u32, u64> = HashMap::new();
    for held in tensors {
        loads.extend(held.layout.positions().ranks().map(|rank| (rank, 0)));
    }
    let total = tensors.iter().fold(0_u64, |total, held| total.saturating_add(held.byte_len()));
    let share = total / (loads.len() as u64).max(1);
    let mut assigned = Vec::with_capacity(tensors.len());
    for held in tensors {
        let layout = if cut { with_a_cut(held, share)? } else { held.layout.clone() };
        assigned.push(Assigned { layout, copy: 0 });
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    let piece = |number: usize| {
        let first = assigned[number].layout.box_at(tensors[number].shape, 0);
        first.elements().saturating_mul(tensors[number].element_bytes)
    };
    order.sort_by_cached_key(|&number| (Reverse(piece(number)), tensors[number].name));
    let most_writers = total.checked_div(least).map_or(u64::MAX, |writers| writers.max(1));
    for number in order {
        let Assigned { layout, copy } = &mut assigned[number];
        let writers_of_a_copy = u64::from(layout.positions().count() / layout.copies());
        let copies = (most_writers / writers_of_a_copy).clamp(1, u64::from(layout.copies()));
        // OK to cast: at most the number of copies.
        *copy = least_loaded(&tensors[number], layout, copies as u32, &mut loads);
    }
    Ok(Assignment { assigned, loads })
}

/// Of the first `copies`, the one whose most loaded rank would have least, to whose ranks the
/// pieces are added.
fn least_loaded(held: &Held<'_>, layout: &Layout, copies: u32, loads: &mut HashMap<u32, u64>) -> u32 {
    let pieces: Vec<(u32, u64)> = layout
        .pieces(held.shape)
        .into_iter()
        .map(|piece| (piece.position, piece.tensor_box.elements().saturating_mul(held.element_bytes)))
        .collect();
    let rank = |first: u32, to_copy: u32| layout.positions().rank(first + to_copy);
    let peak = |copy: u32| {
        let to_copy = layout.to_copy(copy);
        let after = |(first, bytes): &(u32, u64)| {
            loads.get(&rank(*first, to_copy)).copied().unwrap_or_default().saturating_add(*bytes)
        };
        pieces.iter().map(after).max().unwrap_or_default()
    };
    let copy = (0..copies).min_by_key(|&copy| peak(copy)).unwrap_or_default();
    let to_copy = layout.to_copy(copy);
    for (first, bytes) in pieces {
        let load = loads.entry(rank(first, to_copy)).or_default();
        *load = load.saturating_add(bytes);
    }
    copy
}

/// The layout of the stored pieces: where a piece is too large for one of its holders, each of them
/// stores a block of its rows.
fn with_a_cut(held: &Held<'_>, share: u64) -> Result<Layout> {
    let layout = held.layout;
    let pieces = u64::from(layout.positions().count() / layout.copies());
    let piece = held.byte_len() / pieces;
    let Some((stride, values)) = layout.free_digits().into_iter().max_by_key(|(_, values)| *values) else {
        return Ok(layout.clone());
    };
    let rows = held.shape.first().copied().unwrap_or_default();
    if piece <= CUT_FROM || piece <= share / 2 {
        return Ok(layout.clone());
    }
    let wanted = piece.div_ceil((share / 8).max(LEAST_CUT)).min(rows);
    // The parts must divide the holders: as many as wanted or the next above, but no small ones.
    let most = (piece / LEAST_CUT).min(rows);
    let divisors = || (2..=values).filter(|parts| values.is_multiple_of(*parts) && u64::from(*parts) <= most);
    let Some(parts) = divisors().find(|&parts| u64::from(parts) >= wanted).or_else(|| divisors().next_back())
    else {
        return Ok(layout.clone());
    };
    let mut levels = layout.levels().to_vec();
    levels.push(Level { axis: 0, parts, stride });
    Layout::new(layout.positions().clone(), levels)
}
