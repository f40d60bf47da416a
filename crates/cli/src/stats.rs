//! Numbers of one tensor, streamed. Owns: [`Stats`], filled chunk by chunk and merged, and the histogram of a sample.
//!
//! A block is summed in f32 lanes, which the compiler makes vector instructions of; mean and squared deviations are per
//! block and merged in f64 (Chan, Golub, LeVeque 1983), so that neither length nor a large mean costs digits.
//! A block with a NaN, an infinity, or sums beyond f32 is done again, carefully.

use crate::numbers::{self, BLOCK, Kind};
use crate::opened::{Meta, Opened};
use crate::parallel;
use tensorkeep::{Dtype, Result};

const LANES: usize = 16;
/// Elements of the histogram's sample, about.
const SAMPLE: u64 = 65_536;
/// Bars of the histogram.
pub const BARS: usize = 16;

/// What there is to say of a tensor's numbers. Minimum, maximum, mean and squared deviations are of the finite ones.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub count: u64,
    pub finite: u64,
    pub zeros: u64,
    pub nans: u64,
    pub infs: u64,
    /// Index of the first NaN or infinity.
    pub first_bad: Option<u64>,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    squares: f64,
    sample: Vec<f32>,
}

impl Stats {
    pub fn std(&self) -> f64 {
        (self.squares / (self.finite as f64).max(1.0)).sqrt()
    }

    /// The Euclidean norm.
    pub fn norm(&self) -> f64 {
        (self.squares + self.finite as f64 * self.mean * self.mean).sqrt()
    }

    pub fn bad(&self) -> u64 {
        self.nans + self.infs
    }

    /// Finite numbers of a sample, by value, in equal bins from the smallest to the largest.
    pub fn histogram(&self) -> [u32; BARS] {
        let mut bins = [0; BARS];
        let width = (self.max - self.min) / BARS as f64;
        for &value in self.sample.iter().filter(|value| value.is_finite()) {
            let bin = if width > 0.0 { ((f64::from(value) - self.min) / width) as usize } else { 0 };
            bins[bin.min(BARS - 1)] += 1;
        }
        bins
    }

    pub fn merge(&mut self, other: &Self) {
        self.sample.extend(&other.sample);
        self.count += other.count;
        self.zeros += other.zeros;
        self.nans += other.nans;
        self.infs += other.infs;
        self.first_bad = [self.first_bad, other.first_bad].into_iter().flatten().min();
        if other.finite == 0 {
            return;
        }
        if self.finite == 0 {
            (self.min, self.max) = (other.min, other.max);
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        let (n, m) = (self.finite as f64, other.finite as f64);
        let delta = other.mean - self.mean;
        self.mean += delta * m / (n + m);
        self.squares += other.squares + delta * delta * n * m / (n + m);
        self.finite += other.finite;
    }

    /// One block, whose first element has the index `start`.
    fn block<N: Number>(&mut self, start: u64, numbers: &[N]) {
        let (rows, rest) = numbers.as_chunks::<LANES>();
        let in_rows = numbers.len() - rest.len();
        self.merge(&fast(rows).unwrap_or_else(|| careful(start, &numbers[..in_rows])));
        self.merge(&careful(start + in_rows as u64, rest));
    }
}

/// f32 or f64, as blocks need them.
trait Number:
    Copy + PartialOrd + std::ops::Add<Output = Self> + std::ops::Sub<Output = Self> + std::ops::Mul<Output = Self>
{
    const ZERO: Self;
    fn wide(self) -> f64;
    fn narrow(value: f64) -> Self;
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn narrow(value: f64) -> Self {
        value as f32
    }
}

impl Number for f64 {
    const ZERO: Self = 0.0;
    fn wide(self) -> f64 {
        self
    }
    fn narrow(value: f64) -> Self {
        value
    }
}

/// A block in lanes; None when anything in it, or a sum of it, is not finite.
fn fast<N: Number>(rows: &[[N; LANES]]) -> Option<Stats> {
    let first = [rows.first()?[0]; LANES];
    let count = (rows.len() * LANES) as u64;
    let sum: f64 = reduce(rows, [N::ZERO; LANES], |sum, x| sum + x).map(N::wide).iter().sum();
    let low = reduce(rows, first, |low, x| if x < low { x } else { low }).map(N::wide);
    let high = reduce(rows, first, |high, x| if x > high { x } else { high }).map(N::wide);
    let zeros = reduce(rows, [0_u32; LANES], |zeros, x| zeros + u32::from(x == N::ZERO));
    let mean = sum / count as f64;
    let center = N::narrow(mean);
    let square = |squares, x: N| squares + (x - center) * (x - center);
    let squares: f64 = reduce(rows, [N::ZERO; LANES], square).map(N::wide).iter().sum();
    (sum.is_finite() && squares.is_finite()).then(|| Stats {
        count,
        finite: count,
        zeros: zeros.iter().map(|&lane| u64::from(lane)).sum(),
        min: low.into_iter().fold(f64::INFINITY, f64::min),
        max: high.into_iter().fold(f64::NEG_INFINITY, f64::max),
        mean,
        squares,
        ..Stats::default()
    })
}

/// The sum of squares of a block; not finite when anything in it, or the sum, is not.
pub fn square_sum(numbers: &[f32]) -> f64 {
    let (rows, rest) = numbers.as_chunks::<LANES>();
    let lanes = reduce(rows, [0.0; LANES], |sum, x: f32| sum + x * x).map(f64::from);
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

/// One accumulator in lanes over rows that are in the cache. One at a time, and not inlined: together with other
/// accumulators, or with what is done with the lanes afterwards, the compiler shuffles rows about (measured: 1.5 GB/s on
/// one core, against 8).
#[inline(never)]
fn reduce<N: Copy, A: Copy>(rows: &[[N; LANES]], start: [A; LANES], step: impl Fn(A, N) -> A) -> [A; LANES] {
    let mut lanes = start;
    for row in rows {
        for lane in 0..LANES {
            lanes[lane] = step(lanes[lane], row[lane]);
        }
    }
    lanes
}

fn careful<N: Number>(start: u64, numbers: &[N]) -> Stats {
    let mut stats = Stats::default();
    for (i, number) in numbers.iter().enumerate() {
        let value = number.wide();
        let mut one = Stats { count: 1, ..Stats::default() };
        if value.is_finite() {
            (one.finite, one.min, one.max, one.mean) = (1, value, value, value);
            one.zeros = u64::from(value == 0.0);
        } else {
            one.nans = u64::from(value.is_nan());
            one.infs = u64::from(value.is_infinite());
            one.first_bad = Some(start + i as u64);
        }
        stats.merge(&one);
    }
    stats
}

/// Takes in the bytes of some elements, of which the first has the index `start` (counted in numbers).
fn take(stats: &mut Stats, kind: Kind, table: Option<&[f32; 256]>, start: u64, bytes: &[u8]) {
    let (mut single, mut double) = ([0_f32; BLOCK], [0_f64; BLOCK]);
    for (i, bytes) in bytes.chunks(BLOCK * kind.width()).enumerate() {
        let start = start + (i * BLOCK) as u64;
        let count = bytes.len() / kind.width();
        match kind {
            Kind::Single(dtype) => {
                numbers::singles(dtype, table, bytes, &mut single[..count]);
                stats.block(start, &single[..count]);
            }
            Kind::Double(dtype) => {
                numbers::doubles(dtype, bytes, &mut double[..count]);
                stats.block(start, &double[..count]);
            }
        }
    }
}

/// Every `every`-th number.
fn sample(into: &mut Vec<f32>, kind: Kind, table: Option<&[f32; 256]>, every: usize, bytes: &[u8]) {
    let (mut single, mut double) = ([0_f32], [0_f64]);
    for bytes in bytes.chunks_exact(kind.width()).step_by(every) {
        match kind {
            Kind::Single(dtype) => numbers::singles(dtype, table, bytes, &mut single),
            Kind::Double(dtype) => {
                numbers::doubles(dtype, bytes, &mut double);
                single[0] = double[0] as f32;
            }
        }
        into.push(single[0]);
    }
}

/// The numbers of all of these tensors, in their order; None for bytes whose meaning is unknown. Ties are read once
/// each. Memory is a chunk per core.
///
/// # Errors
/// What reading says.
pub fn of(opened: &Opened, metas: &[Meta]) -> Result<Vec<Option<Stats>>> {
    let kinds: Vec<Option<Kind>> = metas.iter().map(|meta| meta.dtype.ok().and_then(Kind::of)).collect();
    let mut all: Vec<Option<Stats>> = kinds.iter().map(|kind| kind.map(|_| Stats::default())).collect();
    let sizes = metas.iter().zip(&kinds).map(|(meta, kind)| match kind {
        Some(_) => (meta.byte_len, meta.chunks),
        None => (0, 0),
    });
    let tasks = parallel::tasks(sizes);
    let work = |task: &parallel::Task| {
        let (meta, mut stats) = (&metas[task.number], Stats::default());
        let Some(kind) = kinds[task.number] else { return Ok(stats) };
        let table = meta.dtype.ok().and_then(|dtype: Dtype| numbers::table(dtype));
        let every = (meta.byte_len / kind.width() as u64 / SAMPLE).max(1) as usize;
        let mut taken = Vec::new();
        opened.visit(&meta.name, task.chunks.clone(), |offset, bytes| {
            take(&mut stats, kind, table.as_deref(), offset / kind.width() as u64, bytes);
            sample(&mut taken, kind, table.as_deref(), every, bytes);
            Ok(())
        })?;
        stats.sample = taken;
        Ok(stats)
    };
    parallel::run("reading", &tasks, work, |task, stats| {
        if let Some(all) = all[task.number].as_mut() {
            all.merge(&stats);
        }
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(values: &[f32]) -> Stats {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut stats = Stats::default();
        let kind = Kind::of(Dtype::F32).unwrap();
        take(&mut stats, kind, None, 0, &bytes);
        sample(&mut stats.sample, kind, None, 1, &bytes);
        stats
    }

    #[test]
    fn blocks_lanes_and_rests_give_the_sums_of_the_definition() {
        for count in [1, 15, 16, 17, 1023, 1024, 1025, 5000] {
            let values: Vec<f32> = (0..count).map(|i| ((i * 37) % 101) as f32 - 50.0 + 1e4).collect();
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
            let var = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count as f64;
            let norm = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let found = stats(&values);
            assert_eq!(found.count, count as u64);
            assert!((found.mean - mean).abs() < 1e-3, "{count}: {} {mean}", found.mean);
            assert!((found.std() - var.sqrt()).abs() < 1e-2, "{count}: {} {}", found.std(), var.sqrt());
            assert!((found.norm() - norm).abs() / norm < 1e-5);
            let max = values.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(found.max, f64::from(max));
        }
    }

    #[test]
    fn nan_and_inf_are_counted_and_the_first_is_found() {
        let mut values = vec![1.0_f32; 3000];
        (values[2000], values[2500], values[7]) = (f32::NAN, f32::NEG_INFINITY, 0.0);
        let found = stats(&values);
        assert_eq!((found.nans, found.infs, found.first_bad, found.zeros), (1, 1, Some(2000), 1));
        assert_eq!((found.min, found.max, found.finite), (0.0, 1.0, 2998));
    }

    #[test]
    fn sums_beyond_f32_are_no_infinities() {
        let found = stats(&[3e38, 3e38, -3e38]);
        assert_eq!((found.bad(), found.max), (0, f64::from(3e38_f32)));
        assert!(found.norm() > 5e38 && found.norm().is_finite());
    }

    #[test]
    fn a_histogram_has_the_extremes_in_its_ends() {
        let found = stats(&[0.0, 1.0, 2.0, 15.99]);
        let bins = found.histogram();
        assert_eq!((bins[0], bins[15], bins.iter().sum::<u32>()), (1, 1, 4));
        assert_eq!(stats(&[2.0; 10]).histogram()[0], 10);
    }
}
