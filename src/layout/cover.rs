//! Whether boxes tile a shape: every element in exactly one of them. And if not, where.

use super::TensorBox;
use crate::error::Error;

/// Axes at most that the boxes of one tensor may cut; SPEC.md has the same number. Checking that
/// they tile takes time that doubles with each.
pub const CUT_AXES: usize = 8;

/// Most boxes for which two that meet, or a hole between them, are looked for one by one.
const LOOKED_AT: usize = 4096;

/// Why boxes do not tile a shape. Boxes are given by their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has another number of axes, or leaves the shape.
    Outside(usize),
    /// It has no elements.
    Empty(usize),
    /// Two boxes share elements.
    Overlap(usize, usize),
    /// Elements that are in no box.
    Hole(TensorBox),
    /// More axes are cut than [`CUT_AXES`]: their number.
    CutAxes(usize),
    /// So many boxes that the place was not looked for.
    Somewhere,
}

impl Fault {
    /// The fault as an `Invalid` error: which ranks, which boxes, what was expected and found.
    pub fn explain(&self, shape: &[u64], boxes: &[TensorBox], rank: impl Fn(usize) -> u32) -> Error {
        let stored = |number: &usize| format!("{} of rank {}", boxes[*number], rank(*number));
        match self {
            Self::Outside(number) => Error::invalid("a box that leaves its tensor")
                .expected(format!("within {}", TensorBox::whole(shape)))
                .found(stored(number)),
            Self::Empty(number) => Error::invalid("a box without elements").found(stored(number)),
            Self::Overlap(first, second) => Error::invalid("boxes that overlap")
                .expected("every element in one box")
                .found(format!("{} and {}", stored(first), stored(second))),
            Self::Hole(hole) => Error::invalid("boxes that leave a hole")
                .expected("every element in one box")
                .found(format!("{hole} in none")),
            Self::CutAxes(axes) => Error::invalid("boxes that cut too many axes")
                .expected(format!("at most {CUT_AXES}"))
                .found(axes)
                .help("a layout has no such limit"),
            Self::Somewhere => Error::invalid("boxes that do not tile their tensor")
                .expected("every element in one box")
                .found(format!("{} boxes of {shape:?} that overlap or leave a hole", boxes.len())),
        }
    }
}

/// Checks that boxes tile a shape, exactly, in time of the boxes times their logarithm, and of 2 to
/// the power of the axes that are cut.
///
/// # Errors
/// The first fault.
pub fn tiling(shape: &[u64], boxes: &[TensorBox]) -> Result<(), Fault> {
    for (number, tensor_box) in boxes.iter().enumerate() {
        if !tensor_box.is_within(shape) {
            return Err(Fault::Outside(number));
        }
        if tensor_box.is_empty() {
            return Err(Fault::Empty(number));
        }
    }
    let is_cut = |axis: &usize| boxes.iter().any(|tensor_box| tensor_box.lens()[*axis] != shape[*axis]);
    let cut: Vec<usize> = (0..shape.len()).filter(is_cut).collect();
    if cut.len() > CUT_AXES {
        return Err(Fault::CutAxes(cut.len()));
    }
    let whole = TensorBox::whole(shape);
    let mut signed: Vec<Signed<'_>> = boxes.iter().map(|tensor_box| Signed { tensor_box, sign: 1 }).collect();
    if !whole.is_empty() {
        signed.push(Signed { tensor_box: &whole, sign: -1 });
    }
    if is_zero(signed, &cut) { Ok(()) } else { Err(fault(&whole, boxes)) }
}

/// A term of a sum of boxes, each a function that is 1 in its box and 0 elsewhere.
#[derive(Clone, Copy)]
struct Signed<'b> {
    tensor_box: &'b TensorBox,
    sign: i64,
}

/// Whether a sum of boxes is 0 everywhere, looking at these axes alone.
///
/// Along an axis, the sum changes only where a box begins or ends, and is 0 before the first. So it
/// is 0 everywhere if, at each such place, what begins less what ends is: a sum over one axis less.
fn is_zero(terms: Vec<Signed<'_>>, axes: &[usize]) -> bool {
    let terms = collected(terms, axes);
    let Some((&axis, axes)) = axes.split_first() else { return terms.is_empty() };
    let mut changes: Vec<(u64, Signed<'_>)> = Vec::with_capacity(2 * terms.len());
    for term in terms {
        let range = term.tensor_box.range(axis);
        changes.push((range.start, term));
        changes.push((range.end, Signed { sign: -term.sign, ..term }));
    }
    changes.sort_by_key(|(place, _)| *place);
    changes
        .chunk_by(|(here, _), (there, _)| here == there)
        .all(|group| is_zero(group.iter().map(|(_, term)| *term).collect(), axes))
}

/// Equal boxes as one term, and none of those that cancel out: of a grid, nearly all do.
fn collected<'b>(mut terms: Vec<Signed<'b>>, axes: &[usize]) -> Vec<Signed<'b>> {
    let key =
        |term: &Signed<'b>| axes.iter().map(|&axis| term.tensor_box.range(axis)).map(|at| (at.start, at.end));
    terms.sort_by(|a, b| key(a).cmp(key(b)));
    let mut kept: Vec<Signed<'b>> = Vec::with_capacity(terms.len());
    for term in terms {
        match kept.last_mut() {
            Some(last) if key(last).eq(key(&term)) => last.sign += term.sign,
            _ => kept.push(term),
        }
    }
    kept.retain(|term| term.sign != 0);
    kept
}

/// Where boxes that do not tile a shape overlap or leave a hole.
fn fault(whole: &TensorBox, boxes: &[TensorBox]) -> Fault {
    if boxes.len() > LOOKED_AT {
        return Fault::Somewhere;
    }
    for (second, tensor_box) in boxes.iter().enumerate() {
        let meets = |other: &TensorBox| other.intersection(tensor_box).is_some();
        if let Some(first) = boxes[..second].iter().position(meets) {
            return Fault::Overlap(first, second);
        }
    }
    let mut rest = vec![whole.clone()];
    for tensor_box in boxes {
        rest = rest.iter().flat_map(|left| left.without(tensor_box)).collect();
        if rest.len() > LOOKED_AT {
            return Fault::Somewhere;
        }
    }
    rest.into_iter().min().map_or(Fault::Somewhere, Fault::Hole)
}
