//! The slices of `get`: their grammar, which is NumPy's without steps, and reading what is within
//! them, run by run, from the chunks that hold it.

use crate::opened::{Meta, Opened};
use std::ops::Range;
use tensorkeep::{Error, ErrorKind, Result, inspect::Scratch, tensor::Buffer};

/// One axis: a range, or one index, which takes the axis away.
#[derive(Clone, Debug, PartialEq)]
enum Cut {
    Range(Range<u64>),
    Index(u64),
}

impl Cut {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Range(range) => range.clone(),
            Self::Index(index) => *index..index + 1,
        }
    }
}

/// A part of a tensor of this shape.
#[derive(Debug)]
pub struct Cuts {
    shape: Vec<u64>,
    cuts: Vec<Cut>,
}

impl Cuts {
    pub fn all(shape: &[u64]) -> Self {
        Self { shape: shape.to_vec(), cuts: shape.iter().map(|&len| Cut::Range(0..len)).collect() }
    }

    /// `3`, `-1`, `2:5`, `:`, by commas.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn parse(text: &str, shape: &[u64]) -> Result<Self> {
        let wrong = |what: String| {
            Error::new(ErrorKind::Invalid, what).expected(format!("within {shape:?}, as 3 or 0:10 by commas"))
        };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > shape.len() {
            return Err(wrong(format!("{} axes are cut", parts.len())));
        }
        let mut cuts = Vec::new();
        for (part, &len) in parts.into_iter().zip(shape) {
            let place = |text: &str, otherwise: u64| {
                let from_end = |text: &str| text.parse::<u64>().ok().and_then(|back| len.checked_sub(back));
                match (text, text.strip_prefix('-')) {
                    ("", _) => Some(otherwise),
                    (_, Some(back)) => from_end(back),
                    (text, None) => text.parse().ok(),
                }
            };
            let cut = match part.split_once(':') {
                Some((start, end)) => {
                    place(start, 0).zip(place(end, len)).map(|(start, end)| Cut::Range(start..end))
                }
                None => place(part, u64::MAX).map(Cut::Index),
            };
            let fits = |cut: &Cut| match cut {
                Cut::Range(range) => range.start <= range.end && range.end <= len,
                Cut::Index(index) => *index < len,
            };
            cuts.push(cut.filter(fits).ok_or_else(|| wrong(format!("slice {part:?} of an axis of {len}")))?);
        }
        cuts.extend(shape[cuts.len()..].iter().map(|&len| Cut::Range(0..len)));
        Ok(Self { shape: shape.to_vec(), cuts })
    }

    /// The lengths of the axes that are left.
    pub fn shape(&self) -> Vec<u64> {
        let left = |cut: &Cut| match cut {
            Cut::Range(range) => Some(range.end - range.start),
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
        let mut source = Source { opened, meta, scratch: Scratch::default(), start: 0, bytes: Vec::new() };
        let mut done = 0;
        if len > 0 && meta.byte_len > 0 {
            let run = self.run() * meta.width();
            let mut outer = self.outer();
            while done < len {
                // OK to cast: at most what is left of the buffer.
                let taken = run.min((len - done) as u64) as usize;
                source.fill(outer.first_element() * meta.width(), &mut buffer[done..done + taken])?;
                done += taken;
                outer.next();
            }
        }
        Ok(buffer)
    }

    /// Axes, counted from the last, of which everything is wanted; the one before them is in one
    /// run, too.
    fn whole_axes(&self) -> usize {
        let is_whole = |(cut, &len): (&Cut, &u64)| *cut == Cut::Range(0..len);
        self.cuts.iter().zip(&self.shape).rev().take_while(|pair| is_whole(*pair)).count()
    }

    /// Elements that lie beside each other. Only asked where there are any, so that no product is
    /// beyond the tensor's.
    fn run(&self) -> u64 {
        let whole = self.whole_axes();
        let inner: u64 = self.shape[self.shape.len() - whole..].iter().product();
        let before = self.cuts.len().checked_sub(whole + 1).map(|axis| self.cuts[axis].range());
        inner * before.map_or(1, |range| range.end - range.start)
    }

    fn outer(&self) -> Outer {
        let axes = self.cuts.len().saturating_sub(self.whole_axes());
        let mut stride = self.shape[axes..].iter().product();
        let mut outer = Outer { ranges: Vec::new(), strides: Vec::new(), at: Vec::new() };
        for axis in (0..axes).rev() {
            outer.strides.push(stride);
            outer.ranges.push(self.cuts[axis].range());
            stride *= self.shape[axis];
        }
        outer.at = outer.ranges.iter().map(|range| range.start).collect();
        outer
    }
}

/// Counts through the axes in front of a run, the last one first; of that one all is in the run.
struct Outer {
    ranges: Vec<Range<u64>>,
    strides: Vec<u64>,
    at: Vec<u64>,
}

impl Outer {
    fn first_element(&self) -> u64 {
        self.at.iter().zip(&self.strides).map(|(at, stride)| at * stride).sum()
    }

    fn next(&mut self) {
        for axis in 1..self.at.len() {
            self.at[axis] += 1;
            if self.at[axis] < self.ranges[axis].end {
                return;
            }
            self.at[axis] = self.ranges[axis].start;
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

impl Source<'_> {
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
        for wrong in ["2", "0:3", "a", "", "0,0,0,0", "-3", "1:0"] {
            assert!(Cuts::parse(wrong, &[2, 3, 4]).is_err(), "{wrong}");
        }
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
    fn what_is_empty_ends_at_once_however_large_its_axes_are() {
        let cuts = Cuts::parse(":,0", &[1 << 62, 2, 0]).unwrap();
        assert_eq!((cuts.shape(), cuts.count()), (vec![1 << 62, 0], 0));
    }
}
