//! The numbers of one tensor: [`Stats`] are filled block by block and merged. Their histogram is
//! that of a sample.
//!
//! Counts, extremes (of 64-bit integers in `exact`) and the first NaN or infinity are exact. Mean,
//! deviation and norm are summed in f64 per block (see [`lanes`]) and merged pairwise (Chan, Golub,
//! LeVeque 1983), so that neither length nor a large mean costs digits: they are within 1e-9 of the
//! exact value, relative to the largest magnitude, which may be any f64's. Integers beyond 2^53 are
//! rounded first.

mod reading;

pub use reading::of;

use crate::lanes;
use crate::numbers::BLOCK;
use crate::scaled::{self, Scaled, exponent_of, times_power_of_2};

/// Bars of the histogram.
pub const BARS: usize = 16;

/// The numbers that describe a tensor. Minimum, maximum, mean and squared deviations are of its
/// finite elements.
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
    /// Minimum and maximum of 64-bit integers, which f64 would round.
    pub exact: Option<[i128; 2]>,
    pub mean: f64,
    squares: Scaled,
    sample: Vec<f64>,
}

impl Stats {
    pub fn std(&self) -> f64 {
        self.squares.times(1.0 / (self.finite as f64).max(1.0)).sqrt()
    }

    /// The Euclidean norm.
    pub fn norm(&self) -> f64 {
        self.squares.plus(Scaled::square(self.mean).times(self.finite as f64)).sqrt()
    }

    pub fn bad(&self) -> u64 {
        self.nans + self.infs
    }

    /// Finite numbers of a sample, by value, in equal bins from the smallest to the largest.
    pub fn histogram(&self) -> [u32; BARS] {
        let mut bins = [0; BARS];
        // Halves, because the span of the largest numbers is beyond f64.
        let (low, span) = (self.min / 2.0, self.max / 2.0 - self.min / 2.0);
        for &value in self.sample.iter().filter(|value| value.is_finite()) {
            let share = if span > 0.0 { (value / 2.0 - low) / span } else { 0.0 };
            bins[((share * BARS as f64) as usize).min(BARS - 1)] += 1;
        }
        bins
    }

    /// Some thousand of the numbers, evenly spread.
    pub fn sample(&self) -> &[f64] {
        &self.sample
    }

    pub fn merge(&mut self, other: &Self) {
        self.sample.extend(&other.sample);
        self.count += other.count;
        self.zeros += other.zeros;
        self.nans += other.nans;
        self.infs += other.infs;
        self.first_bad = [self.first_bad, other.first_bad].into_iter().flatten().min();
        self.exact = match (self.exact, other.exact) {
            (Some([min, max]), Some([low, high])) => Some([min.min(low), max.max(high)]),
            (ours, theirs) => ours.or(theirs),
        };
        if other.finite == 0 {
            return;
        }
        if self.finite == 0 {
            (self.min, self.max) = (other.min, other.max);
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        let (n, m) = (self.finite as f64, other.finite as f64);
        // Halves, because the difference of the largest means is beyond f64.
        let half = other.mean / 2.0 - self.mean / 2.0;
        self.mean += half * (m / (n + m)) * 2.0;
        let between = Scaled::square(half).times(4.0 * n * (m / (n + m)));
        self.squares = self.squares.plus(other.squares).plus(between);
        self.finite += other.finite;
    }

    /// One block, whose first element has the index `start`.
    fn block<N: lanes::Number>(&mut self, start: u64, numbers: &[N]) {
        let lanes::Block { finite, zeros, min, max, mean, squares } = lanes::block(numbers);
        let (count, most) = (numbers.len() as u64, min.abs().max(max.abs()));
        let (mean, squares) = if scaled::is_plain(most) {
            (mean, Scaled::plain(squares))
        } else {
            near_1(numbers, exponent_of(most))
        };
        let mut block = Self { count, finite, zeros, min, max, mean, squares, ..Self::default() };
        if finite < count {
            let nan = |number: &&N| number.partial_cmp(number).is_none();
            block.nans = numbers.iter().filter(nan).count() as u64;
            block.infs = count - finite - block.nans;
            block.first_bad =
                numbers.iter().position(|number| !number.is_finite()).map(|at| start + at as u64);
        }
        self.merge(&block);
    }
}

/// The mean and the squared deviations of a block of which the largest number has this exponent:
/// summed near 1, where squares are neither infinite nor nothing.
fn near_1<N: lanes::Number>(numbers: &[N], exponent: i32) -> (f64, Scaled) {
    let mut room = [0_f64; BLOCK];
    let room = &mut room[..numbers.len().min(BLOCK)];
    room.iter_mut().zip(numbers).for_each(|(near, &x)| *near = times_power_of_2(x.into(), -exponent));
    let lanes::Block { mean, squares, .. } = lanes::block(room);
    (times_power_of_2(mean, exponent), Scaled::new(squares, exponent))
}

#[cfg(test)]
mod tests {
    use super::reading::{sample, take};
    use super::*;
    use crate::numbers::{self, Kind};
    use tensorkeep::Dtype;

    fn stats(values: &[f32]) -> Stats {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut stats = Stats::default();
        let kind = Kind::of(Dtype::F32).unwrap();
        take(&mut stats, kind, None, 0, &bytes);
        sample(&mut stats.sample, kind, None, 1, &bytes);
        stats
    }

    /// What the definition says, one number at a time in f64, with a second pass for the
    /// deviations.
    fn plain(values: &[f64]) -> (u64, f64, f64, f64) {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let count = finite().count() as f64;
        let mean = finite().sum::<f64>() / count.max(1.0);
        let squares = finite().map(|value| (value - mean).powi(2)).sum::<f64>();
        let zeros = values.iter().filter(|&&value| value == 0.0).count() as u64;
        (
            zeros,
            mean,
            (squares / count.max(1.0)).sqrt(),
            finite().map(|value| value * value).sum::<f64>().sqrt(),
        )
    }

    fn of_bytes(dtype: Dtype, bytes: &[u8]) -> Stats {
        let mut found = Stats::default();
        let kind = Kind::of(dtype).unwrap();
        take(&mut found, kind, numbers::table(dtype).as_deref(), 0, bytes);
        found
    }

    fn agrees(what: &str, found: &Stats, values: &[f64]) {
        let (zeros, mean, std, norm) = plain(values);
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let nans = values.iter().filter(|value| value.is_nan()).count() as u64;
        let bad = values.iter().position(|value| !value.is_finite()).map(|at| at as u64);
        let counts = (found.count, found.finite, found.zeros, found.nans, found.first_bad);
        assert_eq!(counts, (values.len() as u64, finite.len() as u64, zeros, nans, bad), "{what}");
        assert_eq!(found.infs, values.len() as u64 - finite.len() as u64 - nans, "{what}");
        if finite.is_empty() {
            return;
        }
        let least = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let most = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!((found.min, found.max), (least, most), "{what}");
        let size = least.abs().max(most.abs());
        let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-9 * size;
        assert!(close(found.mean, mean, size), "{what}: mean {} {mean}", found.mean);
        assert!(close(found.std(), std, size), "{what}: std {} {std}", found.std());
        assert!(close(found.norm(), norm, norm), "{what}: norm {} {norm}", found.norm());
    }

    /// Values that break sums: every sort, in an order and number that fills rows, blocks and
    /// rests.
    fn awkward(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let value = |draw: u32, more: u32| match draw % 97 {
            0 => 0.0,
            1 => -0.0,
            2 => f32::from_bits(more % 0x0080_0000),
            3 => f32::NAN,
            4 => f32::INFINITY,
            5 => f32::NEG_INFINITY,
            6 => f32::MAX * (more as f32 / u32::MAX as f32),
            7 => f32::from_bits(0xFFC0_0001),
            _ => more as f32 / u32::MAX as f32 - 0.25,
        };
        (0..count).map(|_| value(next(), next())).collect()
    }

    const COUNTS: [usize; 14] =
        [0, 1, 7, 15, 16, 17, 255, 1023, 2048, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 904];

    #[test]
    fn sums_are_those_of_a_plain_loop_in_f64() {
        for count in COUNTS {
            for seed in 0..20 {
                let mut values = awkward(count, seed);
                if seed % 2 == 0 {
                    values.iter_mut().for_each(|value| *value = if value.is_finite() { *value } else { 1.0 });
                }
                let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
                agrees(&format!("{count} of seed {seed}"), &stats(&values), &wide);
                let bytes: Vec<u8> = wide.iter().flat_map(|value| value.to_le_bytes()).collect();
                agrees(&format!("{count} f64 of seed {seed}"), &of_bytes(Dtype::F64, &bytes), &wide);
                // Off the alignment of f32.
                let mut bytes = vec![0];
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                agrees(&format!("{count} unaligned"), &of_bytes(Dtype::F32, &bytes[1..]), &wide);
                agrees(&format!("{count} as c64"), &of_bytes(Dtype::C64, &bytes[1..]), &wide);
            }
        }
    }

    #[test]
    fn a_mean_far_from_zero_costs_the_deviation_nothing() {
        for far in [1e4_f64, -3e6, 1e8] {
            let wide: Vec<f64> = (0..9000).map(|i| far + f64::from((i * 37) % 101) * 1e-4).collect();
            let bytes: Vec<u8> = wide.iter().flat_map(|value| value.to_le_bytes()).collect();
            // The plain loop loses the deviation in the mean's rounding: it is given the distances
            // from `far`.
            let near: Vec<f64> = wide.iter().map(|value| value - far).collect();
            let (found, (_, _, std, _)) = (of_bytes(Dtype::F64, &bytes), plain(&near));
            assert!((found.std() - std).abs() <= 1e-9 * std, "{far}: {} {std}", found.std());
            // As f32 they are few values, or one: its deviation is none at all.
            let narrow: Vec<f32> = wide.iter().map(|&value| value as f32).collect();
            let near: Vec<f64> = narrow.iter().map(|&value| f64::from(value) - far).collect();
            let (found, (_, _, std, _)) = (stats(&narrow), plain(&near));
            assert!((found.std() - std).abs() <= 1e-9 * std, "{far}: {} {std}", found.std());
        }
    }

    #[test]
    fn every_dtype_has_the_numbers_that_its_values_have() {
        type Case = (Dtype, Vec<u8>, Vec<f64>);
        fn case<T: Copy, const N: usize>(
            dtype: Dtype,
            values: &[T],
            bytes: fn(T) -> [u8; N],
            wide: fn(T) -> f64,
        ) -> Case {
            let all = || values.iter().copied().cycle().take(9000);
            (dtype, all().flat_map(bytes).collect(), all().map(wide).collect())
        }
        use half::{bf16, f16};
        let halves = [f16::ZERO, f16::NEG_ZERO, f16::MAX, f16::from_bits(1), f16::from_f32(-1.5), f16::NAN];
        let brains =
            [bf16::ZERO, bf16::MIN, bf16::from_bits(1), bf16::from_f32(0.1), bf16::INFINITY, bf16::NAN];
        let cases = [
            case(Dtype::F16, &halves, |x| x.to_le_bytes(), f64::from),
            case(Dtype::Bf16, &brains, |x| x.to_le_bytes(), f64::from),
            case(Dtype::I8, &[i8::MIN, -1, 0, 5, i8::MAX], |x| x.to_le_bytes(), f64::from),
            case(Dtype::U8, &[0, 5, u8::MAX], |x| x.to_le_bytes(), f64::from),
            case(Dtype::Bool, &[0_u8, 1, 1], |x| [x], f64::from),
            case(Dtype::I16, &[i16::MIN, 0, 7, i16::MAX], |x| x.to_le_bytes(), f64::from),
            case(Dtype::U16, &[0, 7, u16::MAX], |x| x.to_le_bytes(), f64::from),
            case(Dtype::I32, &[i32::MIN, 0, 16_777_217, i32::MAX], |x| x.to_le_bytes(), f64::from),
            case(Dtype::U32, &[0, 16_777_217, u32::MAX], |x| x.to_le_bytes(), f64::from),
            case(Dtype::I64, &[-(1_i64 << 53), 0, 3, 1 << 53], |x| x.to_le_bytes(), |x| x as f64),
            case(Dtype::U64, &[0, 3, 1_u64 << 53], |x| x.to_le_bytes(), |x| x as f64),
            case(Dtype::C128, &[0.0, -2.5, 1e100, f64::NAN], f64::to_le_bytes, |x| x),
            case(
                Dtype::F8E5M2,
                &[0_u8, 0x3C, 0xBC, 0x7C],
                |x| [x],
                |x| match x {
                    0 => 0.0,
                    0x7C => f64::INFINITY,
                    _ => {
                        if x == 0x3C {
                            1.0
                        } else {
                            -1.0
                        }
                    }
                },
            ),
        ];
        for (dtype, bytes, wide) in cases {
            agrees(&dtype.to_string(), &of_bytes(dtype, &bytes), &wide);
        }
    }

    fn doubles(values: &[f64]) -> Stats {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        of_bytes(Dtype::F64, &bytes)
    }

    #[test]
    fn f64s_of_any_size_have_their_mean_deviation_and_norm() {
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
        for size in [1e-310, 1e-200, 1e-170, 1.0, 1e170, 1e200, 3e307] {
            let found = doubles(&[size, -size, 2.0 * size, 2.0 * size]);
            assert!(close(found.mean, size), "{size:e}: mean {:e}", found.mean);
            assert!(close(found.std(), size * 1.5_f64.sqrt()), "{size:e}: std {:e}", found.std());
            assert!(close(found.norm(), size * 10_f64.sqrt()), "{size:e}: norm {:e}", found.norm());
        }
        let found = doubles(&[1e308, 1e308]);
        assert_eq!((found.mean, found.std(), found.bad()), (1e308, 0.0, 0));
        // Blocks of opposite extremes, and a block of zeros behind one whose sum is beyond f64.
        let mut values = vec![f64::MAX; BLOCK];
        values.extend(vec![-f64::MAX; BLOCK]);
        let found = doubles(&values);
        assert!(
            found.mean.abs() < 1e294 && close(found.std(), f64::MAX),
            "{:e} {:e}",
            found.mean,
            found.std()
        );
        let mut values = vec![1e305; BLOCK];
        values.extend(vec![0.0; 2 * BLOCK]);
        let found = doubles(&values);
        assert!(close(found.mean, 1e305 / 3.0) && close(found.std(), 1e305 * 2_f64.sqrt() / 3.0));
        assert_eq!((found.zeros, found.min, found.max), (2 * BLOCK as u64, 0.0, 1e305));
    }

    #[test]
    fn nan_and_inf_are_counted_and_the_first_is_found() {
        let mut values = vec![1.0_f32; 9000];
        (values[5000], values[8500], values[7]) = (f32::NAN, f32::NEG_INFINITY, 0.0);
        let found = stats(&values);
        assert_eq!((found.nans, found.infs, found.first_bad, found.zeros), (1, 1, Some(5000), 1));
        assert_eq!((found.min, found.max, found.finite), (0.0, 1.0, 8998));
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
