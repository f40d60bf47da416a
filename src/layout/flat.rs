//! Flat ranges: what FSDP1's flat parameters and ZeRO's partitions leave of a tensor on a rank.

use super::TensorBox;
use super::boxes::product;
use std::ops::Range;

/// A range of a tensor's elements in row-major order as boxes, in that order: at most `2d - 1` for
/// `d` axes. A range beyond the tensor ends with it.
pub fn flat_boxes(shape: &[u64], range: Range<u64>) -> Vec<TensorBox> {
    let mut boxes = Vec::new();
    let range = range.start..range.end.min(product(shape));
    if !range.is_empty() {
        Flat { shape, boxes: &mut boxes }.add(&mut Vec::new(), range);
    }
    boxes
}

struct Flat<'f> {
    shape: &'f [u64],
    boxes: &'f mut Vec<TensorBox>,
}

impl Flat<'_> {
    /// Adds a range of the elements behind these numbers of the first axes.
    fn add(&mut self, fixed: &mut Vec<u64>, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Some((_, inner)) = self.shape[fixed.len()..].split_first() else {
            return self.push(fixed, None);
        };
        // OK to divide: the range is not empty, so no axis is.
        let row = product(inner);
        let (first, last) = (range.start.div_ceil(row), range.end / row);
        if first > last {
            // Within one row.
            return self.add_within(fixed, last, range.start - last * row..range.end - last * row);
        }
        if range.start < first * row {
            self.add_within(fixed, first - 1, range.start - (first - 1) * row..row);
        }
        if first < last {
            self.push(fixed, Some(first..last));
        }
        self.add_within(fixed, last, 0..range.end - last * row);
    }

    fn add_within(&mut self, fixed: &mut Vec<u64>, number: u64, range: Range<u64>) {
        fixed.push(number);
        self.add(fixed, range);
        fixed.pop();
    }

    /// Adds the box of these numbers, these rows of the next axis, and the axes behind it whole.
    fn push(&mut self, fixed: &[u64], rows: Option<Range<u64>>) {
        let mut offsets = fixed.to_vec();
        let mut lens = vec![1; fixed.len()];
        if let Some(rows) = rows {
            offsets.push(rows.start);
            lens.push(rows.end - rows.start);
        }
        lens.extend_from_slice(&self.shape[offsets.len()..]);
        offsets.resize(self.shape.len(), 0);
        self.boxes.extend(TensorBox::new(offsets, lens));
    }
}
