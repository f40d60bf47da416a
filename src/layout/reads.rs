//! Which ranges of stored pieces a wanted box is read from, and where their elements go.

use super::TensorBox;
use std::ops::Range;

/// Elements that follow each other both in a piece and in the wanted box, counted from the start of
/// each in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first one's number in the piece.
    pub source: u64,
    /// The first one's number in the wanted box.
    pub target: u64,
    /// How many.
    pub len: u64,
}

/// The runs of what a piece and a wanted box share, in the order of the piece.
#[derive(Clone, Debug)]
pub struct Runs {
    next: Option<Run>,
    /// Of each axis before those of a run: the steps to the next number, and how many there are.
    axes: Vec<Axis>,
}

#[derive(Clone, Debug)]
struct Axis {
    source: u64,
    target: u64,
    len: u64,
    at: u64,
}

/// The runs that a wanted box takes from a piece: none when they share nothing.
pub fn runs(piece: &TensorBox, wanted: &TensorBox) -> Runs {
    let Some(part) = piece.intersection(wanted) else { return Runs { next: None, axes: Vec::new() } };
    let (mut run, mut axes) = (Run { source: 0, target: 0, len: 1 }, Vec::new());
    let (mut source, mut target) = (1_u64, 1_u64);
    let mut is_run = true;
    for axis in (0..part.lens().len()).rev() {
        let (at, len) = (part.offsets()[axis], part.lens()[axis]);
        run.source += (at - piece.offsets()[axis]).saturating_mul(source);
        run.target += (at - wanted.offsets()[axis]).saturating_mul(target);
        if is_run {
            run.len = run.len.saturating_mul(len);
        } else if len > 1 {
            axes.push(Axis { source, target, len, at: 0 });
        }
        // The run ends at the first axis that is not whole on both sides.
        is_run &= len == piece.lens()[axis] && len == wanted.lens()[axis];
        source = source.saturating_mul(piece.lens()[axis]);
        target = target.saturating_mul(wanted.lens()[axis]);
    }
    Runs { next: Some(run), axes }
}

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let run = self.next?;
        let mut next = run;
        self.next = None;
        // The last axis first, as it was pushed.
        for axis in &mut self.axes {
            axis.at += 1;
            next.source += axis.source;
            next.target += axis.target;
            if axis.at < axis.len {
                self.next = Some(next);
                break;
            }
            next.source -= axis.source * axis.len;
            next.target -= axis.target * axis.len;
            axis.at = 0;
        }
        Some(run)
    }
}

/// One range of a piece, and the runs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Elements of the piece.
    pub source: Range<u64>,
    /// The runs, in order; what lies between them is not wanted.
    pub runs: Vec<Run>,
}

/// Which runs are read as one: those no further apart than `gap`, while the range has at most
/// `most` elements. One run alone may be longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Elements between two runs.
    pub gap: u64,
    /// Elements of one range.
    pub most: u64,
}

impl Joining {
    /// Only runs that touch, of any length: no element is read that is not wanted.
    pub const EXACT: Self = Self { gap: 0, most: u64::MAX };
}

/// The ranges of a piece that a wanted box is read from, in the order of the piece.
pub fn reads(piece: &TensorBox, wanted: &TensorBox, joining: Joining) -> impl Iterator<Item = Read> + use<> {
    let mut runs = runs(piece, wanted).peekable();
    std::iter::from_fn(move || {
        let first = runs.next()?;
        let mut read = Read { source: first.source..first.source + first.len, runs: vec![first] };
        while let Some(run) = runs.next_if(|run| {
            run.source - read.source.end <= joining.gap
                && run.source + run.len - read.source.start <= joining.most
        }) {
            read.source.end = run.source + run.len;
            read.runs.push(run);
        }
        Some(read)
    })
}
