//! Slices of a tensor, an axis each, and reading what is within them, run by run, from the chunks
//! that hold it.

use super::axis::{Cut, Span};
use crate::opened::{Meta, Opened};
use std::ops::Range;
use tensorkeep::{Error, ErrorKind, Result, inspect::Scratch, tensor::Buffer};

/// A part of a tensor of this shape.
#[derive(Debug)]
pub struct Cuts {
    shape: Vec<u64>,
    cuts: Vec<Cut>,
}

impl Cuts {
    pub fn all(shape: &[u64]) -> Self {
        Self { shape: shape.to_vec(), cuts: shape.iter().map(|&len| Cut::Span(Span::whole(len))).collect() }
    }

    /// Reads one slice an axis, by commas; `...` stands for the axes that are left.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn parse(text: &str, shape: &[u64]) -> Result<Self> {
        let wrong = |what: String| {
            let example = "as 3, 0:10, ::2 or ... by commas";
            Error::new(ErrorKind::Invalid, what).expected(format!("within {shape:?}, {example}"))
        };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let dots = parts.iter().position(|part| *part == "...").unwrap_or(parts.len());
        let (first, last) = (&parts[..dots], parts.get(dots + 1..).unwrap_or_default());
        let Some(left) = shape.len().checked_sub(first.len() + last.len()) else {
            return Err(wrong(format!("{} axes are cut", first.len() + last.len())));
        };
        let (of_first, rest) = shape.split_at(first.len());
        let (whole, of_last) = rest.split_at(left);
        let parse = |(part, len): (&&str, &u64)| Cut::parse(part, *len).map_err(wrong);
        let mut cuts: Vec<Cut> = first.iter().zip(of_first).map(parse).collect::<Result<_>>()?;
        cuts.extend(whole.iter().map(|&len| Cut::Span(Span::whole(len))));
        cuts.extend(last.iter().zip(of_last).map(parse).collect::<Result<Vec<Cut>>>()?);
        Ok(Self { shape: shape.to_vec(), cuts })
    }

    /// The lengths of the axes that are left.
    pub fn shape(&self) -> Vec<u64> {
        let left = |cut: &Cut| match cut {
            Cut::Span(span) => Some(span.len),
            Cut::Index(_) => None,
        };
        self.cuts.iter().filter_map(left).collect()
    }

    /// Elements in it.
    pub fn count(&self) -> u64 {
        let shape = self.shape();
        // A zero anywhere makes it 0, however large the others are.
        if shape.contains(&0) { 0 } else { shape.into_iter().fold(1, u64::saturating_mul) }
    }

    /// The bytes of its first `count` elements, in their order.
    ///
    /// # Errors
    /// What reading says.
    pub fn read(&self, opened: &Opened, meta: &Meta, count: u64) -> Result<Buffer> {
        let too_large = |_| Error::new(ErrorKind::LimitExceeded, "bytes to load").found(count);
        let len = usize::try_from(count.saturating_mul(meta.width())).map_err(too_large)?;
        let mut buffer = Buffer::zeroed(len)?;
        self.fill(&mut Source::new(opened, meta), &mut buffer)?;
        Ok(buffer)
    }

    /// Fills the buffer with the bytes of the first elements.
    fn fill(&self, source: &mut Source<'_>, buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() || source.meta.byte_len == 0 {
            return Ok(());
        }
        let width = source.meta.width();
        // OK to cast: a run is no longer than what the buffer was made for, or is cut to it.
        let run = (self.run() * width).min(buffer.len() as u64) as usize;
        let mut outer = self.outer();
        for part in buffer.chunks_mut(run) {
            source.fill(outer.element() * width, part)?;
            outer.next();
        }
        Ok(())
    }

    /// Elements in its corners.
    pub fn corner_count(&self) -> u64 {
        self.shape().into_iter().map(|len| len.min(2 * EDGE)).fold(1, u64::saturating_mul)
    }

    /// What is shown of many values: the first and last few along each axis that is left.
    ///
    /// # Errors
    /// What reading says.
    pub fn corners(&self, opened: &Opened, meta: &Meta) -> Result<Corners> {
        let axes: Vec<Vec<Range<u64>>> = self.shape().into_iter().map(ends).collect();
        let is_cut = axes.iter().map(|ends| ends.len() > 1).collect();
        let shape: Vec<u64> =
            axes.iter().map(|ends| ends.iter().map(|range| range.end - range.start).sum()).collect();
        let count = shape.iter().product::<u64>() * meta.width();
        let mut bytes = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        self.collect(&axes, &mut Source::new(opened, meta), &mut bytes)?;
        Ok(Corners { shape, is_cut, bytes })
    }

    /// Appends the bytes of the elements that `axes` select, in their order.
    fn collect(&self, axes: &[Vec<Range<u64>>], source: &mut Source<'_>, into: &mut Vec<u8>) -> Result<()> {
        let Some((ends, inner)) = axes.split_first() else { return self.append(source, into) };
        for range in ends.iter().cloned() {
            if inner.is_empty() {
                self.narrowed(|span| {
                    Cut::Span(Span { start: span.place(range.start), len: range.end - range.start, ..span })
                })
                .append(source, into)?;
                continue;
            }
            for index in range {
                self.narrowed(|span| Cut::Index(span.place(index))).collect(inner, source, into)?;
            }
        }
        Ok(())
    }

    /// The first axis that is left, cut further.
    fn narrowed(&self, cut_further: impl FnOnce(Span) -> Cut) -> Self {
        let mut cuts = self.cuts.clone();
        if let Some(cut) = cuts.iter_mut().find(|cut| matches!(cut, Cut::Span(_))) {
            *cut = cut_further(cut.span());
        }
        Self { shape: self.shape.clone(), cuts }
    }

    fn append(&self, source: &mut Source<'_>, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        // OK to cast: a few elements.
        into.resize(start + (self.count() * source.meta.width()) as usize, 0);
        self.fill(source, &mut into[start..])
    }

    /// Axes, counted from the last, of which everything is wanted.
    fn whole_axes(&self) -> usize {
        let is_whole = |(cut, &len): (&Cut, &u64)| *cut == Cut::Span(Span::whole(len));
        self.cuts.iter().zip(&self.shape).rev().take_while(|pair| is_whole(*pair)).count()
    }

    /// The axis before those, whose places are in the run, too, where they lie beside each other.
    fn last_in_run(&self) -> Option<Span> {
        let axis = self.cuts.len().checked_sub(self.whole_axes() + 1)?;
        Some(self.cuts[axis].span()).filter(|span| span.step == 1)
    }

    /// Elements that lie beside each other. Only asked where there are any, so that no product is
    /// beyond the tensor's.
    fn run(&self) -> u64 {
        let inner: u64 = self.shape[self.shape.len() - self.whole_axes()..].iter().product();
        inner * self.last_in_run().map_or(1, |span| span.len)
    }

    fn outer(&self) -> Outer {
        let axes = self.cuts.len().saturating_sub(self.whole_axes());
        let mut stride = self.shape[axes..].iter().product();
        let mut outer = Outer { spans: Vec::new(), strides: Vec::new(), at: vec![0; axes], first: 0 };
        for axis in (0..axes).rev() {
            outer.strides.push(stride);
            outer.spans.push(self.cuts[axis].span());
            stride *= self.shape[axis];
        }
        outer.first = usize::from(self.last_in_run().is_some());
        outer
    }
}

/// How many values are shown at each end of an axis that is cut.
pub const EDGE: u64 = 3;

/// The parts of an axis that are shown.
fn ends(len: u64) -> Vec<Range<u64>> {
    if len > 2 * EDGE { vec![0..EDGE, len - EDGE..len] } else { std::iter::once(0..len).collect() }
}

/// The values at the ends of all axes.
#[derive(Clone, Debug)]
pub struct Corners {
    pub shape: Vec<u64>,
    /// Whether the middle of each axis is left out.
    pub is_cut: Vec<bool>,
    pub bytes: Vec<u8>,
}

/// Counts through the axes in front of a run, the last one first.
struct Outer {
    spans: Vec<Span>,
    strides: Vec<u64>,
    /// Which of its places, of each axis.
    at: Vec<u64>,
    /// 1 where all of the first of them is in the run.
    first: usize,
}

impl Outer {
    /// Where the run begins.
    fn element(&self) -> u64 {
        let places = self.spans.iter().zip(&self.at).map(|(span, at)| span.place(*at));
        places.zip(&self.strides).map(|(place, stride)| place * stride).sum()
    }

    fn next(&mut self) {
        for axis in self.first..self.at.len() {
            self.at[axis] += 1;
            if self.at[axis] < self.spans[axis].len {
                return;
            }
            self.at[axis] = 0;
        }
    }
}

/// Bytes of a tensor by way of its chunks, the last one of which is kept.
struct Source<'o> {
    opened: &'o Opened,
    meta: &'o Meta,
    scratch: Scratch,
    start: u64,
    bytes: Vec<u8>,
}

impl<'o> Source<'o> {
    fn new(opened: &'o Opened, meta: &'o Meta) -> Self {
        Self { opened, meta, scratch: Scratch::default(), start: 0, bytes: Vec::new() }
    }

    fn fill(&mut self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let here = offset.checked_sub(self.start).filter(|&at| at < self.bytes.len() as u64);
            let Some(at) = here else {
                self.load(offset)?;
                continue;
            };
            // OK to cast: within the chunk.
            let found = &self.bytes[at as usize..];
            let taken = found.len().min(into.len());
            let (front, rest) = into.split_at_mut(taken);
            front.copy_from_slice(&found[..taken]);
            (offset, into) = (offset + taken as u64, rest);
        }
        Ok(())
    }

    /// The chunk that the byte at `offset` is in.
    fn load(&mut self, offset: u64) -> Result<()> {
        // OK to cast: a tensor has fewer chunks than bytes, and those were counted.
        let number = (offset / self.meta.chunk_len.max(1)) as usize;
        self.bytes.clear();
        self.opened.visit(self.meta, number..number + 1, &mut self.scratch, |start, bytes| {
            self.start = start;
            self.bytes.extend_from_slice(bytes);
            Ok(())
        })?;
        if (self.start..self.start + self.bytes.len() as u64).contains(&offset) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Damaged, "the tensor ends early")
            .at_byte(offset)
            .in_tensor(&self.meta.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorkeep::{Checkpoint, Snapshot, Tensor, WriteOptions};

    fn opened(shape: &[usize], values: &[f32]) -> Opened {
        let snapshot = Snapshot::new().tensor("t", Tensor::from_elements(shape, values).unwrap()).unwrap();
        let bytes = snapshot.to_bytes(&WriteOptions::new().chunk_log2(16)).unwrap();
        Opened::Own(Checkpoint::from_bytes(&bytes).unwrap())
    }

    fn cut(opened: &Opened, text: &str) -> (Vec<u64>, Vec<f32>) {
        let meta = opened.meta("t").unwrap();
        let cuts = Cuts::parse(text, &meta.shape).unwrap();
        let bytes = cuts.read(opened, &meta, cuts.count()).unwrap();
        (cuts.shape(), bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    #[test]
    fn slices_are_numpys() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let opened = opened(&[2, 3, 4], &values);
        let cut = |text: &str| cut(&opened, text);
        assert_eq!(cut("1,2,3"), (vec![], vec![23.0]));
        assert_eq!(cut("0,:,1:3"), (vec![3, 2], vec![1.0, 2.0, 5.0, 6.0, 9.0, 10.0]));
        assert_eq!(cut("-1,0"), (vec![4], vec![12.0, 13.0, 14.0, 15.0]));
        assert_eq!(cut("1:1"), (vec![0, 3, 4], vec![]));
        assert_eq!(cut(":,1:2,-1"), (vec![2, 1], vec![7.0, 19.0]));
        assert_eq!(cut(":").1, values);
        for wrong in ["2", "a", "", "0,0,0,0", "-3", "0:1:0", "::x", "0,...,0,0,0", "...,...", "1:2:3:4"] {
            assert!(Cuts::parse(wrong, &[2, 3, 4]).is_err(), "{wrong}");
        }
        let error = Cuts::parse("::-1", &[2, 3, 4]).unwrap_err();
        assert!(error.to_string().contains("a step backwards is not supported"), "{error}");
    }

    /// What NumPy 2 answers.
    #[test]
    fn ends_are_clamped_and_steps_and_dots_are_numpys() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let opened = opened(&[2, 3, 4], &values);
        let cut = |text: &str| cut(&opened, text);
        assert_eq!(cut("0:3"), (vec![2, 3, 4], values.clone()));
        assert_eq!(cut("1:0"), (vec![0, 3, 4], vec![]));
        assert_eq!(cut("-9:9,-1,2:99"), (vec![2, 2], vec![10.0, 11.0, 22.0, 23.0]));
        assert_eq!(cut("0,::2,1::2"), (vec![2, 2], vec![1.0, 3.0, 9.0, 11.0]));
        assert_eq!(cut("0,::2"), (vec![2, 4], vec![0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0]));
        assert_eq!(cut("::5,0,0"), (vec![1], vec![0.0]));
        assert_eq!(cut("...,1"), (vec![2, 3], vec![1.0, 5.0, 9.0, 13.0, 17.0, 21.0]));
        assert_eq!(cut("1,...,-1"), (vec![3], vec![15.0, 19.0, 23.0]));
        assert_eq!((cut("...").1, cut("0,0,0,...")), (values, (vec![], vec![0.0])));
        let huge = format!("{}:{}:{}", i64::MIN, u64::MAX, u64::MAX);
        assert_eq!(cut(&format!("{huge},0,0")), (vec![1], vec![0.0]));
    }

    #[test]
    fn slices_across_chunks_are_those_of_the_whole() {
        let values: Vec<f32> = (0..3 * 7001 * 5).map(|i| i as f32).collect();
        let opened = opened(&[3, 7001, 5], &values);
        let of = |i: usize, j: usize, k: usize| values[(i * 7001 + j) * 5 + k];
        let column: Vec<f32> =
            (0..3).flat_map(|i| (0..7001).map(move |j| (i, j))).map(|(i, j)| of(i, j, 3)).collect();
        assert_eq!(cut(&opened, ":,:,3"), (vec![3, 7001], column));
        let part: Vec<f32> = (1..3)
            .flat_map(|i| (10..6990).map(move |j| (i, j)))
            .flat_map(|(i, j)| (0..5).map(move |k| (i, j, k)))
            .map(|(i, j, k)| of(i, j, k))
            .collect();
        assert_eq!(cut(&opened, "1:3,10:6990").1, part);
    }

    #[test]
    fn corners_are_the_ends_of_every_axis() {
        let values: Vec<f32> = (0..3 * 7001 * 5).map(|i| i as f32).collect();
        let opened = opened(&[3, 7001, 5], &values);
        let meta = opened.meta("t").unwrap();
        let corners = Cuts::parse("1:,:,4", &meta.shape).unwrap().corners(&opened, &meta).unwrap();
        assert_eq!((corners.shape, corners.is_cut), (vec![2, 6], vec![false, true]));
        let shown: Vec<f32> =
            corners.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let of = |i: usize, j: usize| values[(i * 7001 + j) * 5 + 4];
        let wanted: Vec<f32> = (1..3)
            .flat_map(|i| [0, 1, 2, 6998, 6999, 7000].map(move |j| (i, j)))
            .map(|(i, j)| of(i, j))
            .collect();
        assert_eq!(shown, wanted);
        let corners = Cuts::parse("0,::2,0", &meta.shape).unwrap().corners(&opened, &meta).unwrap();
        let shown: Vec<f32> =
            corners.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let wanted = [0, 2, 4, 6996, 6998, 7000].map(|j| values[j * 5]);
        assert_eq!((corners.shape, &shown[..]), (vec![6], &wanted[..]));
    }

    #[test]
    fn what_is_empty_ends_at_once_however_large_its_axes_are() {
        let cuts = Cuts::parse(":,0", &[1 << 62, 2, 0]).unwrap();
        assert_eq!((cuts.shape(), cuts.count()), (vec![1 << 62, 0], 0));
    }
}
