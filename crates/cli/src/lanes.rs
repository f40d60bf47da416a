//! The inner loops of `stats` and `diff`: a block of numbers, or two side by side, in lanes that
//! the compiler makes vector instructions of. pulp compiles each loop twice, for every x86-64 and
//! for AVX2 with fused multiplication, and takes the one that the processor has.
//!
//! Owns the arithmetic and its precision. Numbers are widened to f64 before anything is summed, so
//! a sum is as exact as a plain loop in f64 that adds in another order. Squares are summed about
//! zero, which is the fewest instructions, and the deviations' follow from them. Where little would
//! be left of their digits, the block is summed again about a number of its own: then the deviation
//! of that number is in the sum, and what cancels is at most as many ulps as the block has numbers.
#![expect(
    clippy::needless_range_loop,
    reason = "lanes of several arrays side by side, by one number that is a constant"
)]

use pulp::{Arch, NullaryFnOnce};
use std::hint::black_box;

/// Numbers in a row.
pub const LANES: usize = 16;
/// Counters of a row.
const COUNTS: usize = LANES / 2;
/// Two rows side by side have six sums a lane, and all of them stay in registers.
const PAIR: usize = 4;

/// f32 or f64.
pub trait Number: Copy + Default + PartialOrd + Into<f64> + std::ops::Sub<Output = Self> {
    /// Whether it is neither NaN nor infinite: `x - x` is 0 for those only.
    #[expect(clippy::eq_op, reason = "NaN and infinities are what it tells apart")]
    #[inline(always)]
    fn is_finite(self) -> bool {
        self - self == Self::default()
    }
}

impl Number for f32 {}
impl Number for f64 {}

/// What there is to say of a block's finite numbers; all 0 where there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block {
    pub finite: u64,
    pub zeros: u64,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    /// Squared deviations from the mean.
    pub squares: f64,
}

impl Block {
    /// The sum of squares: about zero, not about the mean.
    pub fn energy(&self) -> f64 {
        self.squares + self.finite as f64 * self.mean * self.mean
    }
}

/// One block.
pub fn block<N: Number>(numbers: &[N]) -> Block {
    let Some(&first) = numbers.first() else { return Block::default() };
    let found = sums::<N, false>(numbers, first);
    if found.squares.is_finite() && found.squares * MOST_CANCELLED >= found.energy() {
        return found;
    }
    // Something is not finite, a sum of squares is beyond f64, or the numbers are so close to each
    // other that of their squares' digits too few are left.
    let finite = numbers.iter().copied().find(|number| number.is_finite());
    finite.map_or_else(Block::default, |finite| sums::<N, true>(numbers, finite))
}

/// Squares about zero may be so many times those about the mean: three digits of sixteen, of which
/// the sums of a block cost two.
const MOST_CANCELLED: f64 = 1024.0;

/// `first` is one of the numbers, and finite if `CAREFUL`.
fn sums<N: Number, const CAREFUL: bool>(numbers: &[N], first: N) -> Block {
    let (rows, rest) = numbers.as_chunks::<LANES>();
    // The last row is filled up with the first number, which is taken out of the sums again.
    let mut row = [first; LANES];
    row[..rest.len()].copy_from_slice(rest);
    let padding = if rest.is_empty() { 0 } else { LANES - rest.len() };
    let wide = |lanes: &[u32; COUNTS]| lanes.iter().map(|&lane| u64::from(lane)).sum::<u64>();
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut bad, mut zeros, mut sum, mut squares) = (0, 0, 0.0, 0.0);
    for rows in [rows, &[row][..usize::from(padding > 0)]].into_iter().filter(|rows| !rows.is_empty()) {
        // Hides the use of the lanes from the compiler, which would shuffle rows as it loads them.
        let lanes = black_box(run(Sums::<N, CAREFUL> { rows, first }));
        let (least, most) = (lanes.min.map(Into::into), lanes.max.map(Into::into));
        (bad, zeros) = (bad + wide(&lanes.bad), zeros + wide(&lanes.zeros));
        min = min.min(folded(least, |a, b| if a < b { a } else { b }));
        max = max.max(folded(most, |a, b| if a > b { a } else { b }));
        sum += folded(lanes.sum, |a, b| a + b);
        squares += folded(lanes.squares, |a, b| a + b);
    }
    let center = if CAREFUL { first.into() } else { 0.0 };
    let (padded, deviation) = (padding as f64, first.into() - center);
    (sum, squares) = (sum - padded * deviation, squares - padded * deviation * deviation);
    if first == N::default() {
        zeros -= padding as u64;
    }
    let finite = numbers.len() as u64 - bad;
    let shift = sum / finite as f64;
    let squares = about_mean(squares, sum * shift);
    Block { finite, zeros, min, max, mean: center + shift, squares }
}

/// One number out of all lanes, half onto half: one after the other they would take as long as a
/// fifth of the block.
fn folded(mut lanes: [f64; LANES], fold: impl Fn(f64, f64) -> f64) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = fold(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Squared deviations about the mean of those about the center; infinite when they are beyond f64.
fn about_mean(squares: f64, correction: f64) -> f64 {
    if squares.is_finite() { (squares - correction).max(0.0) } else { f64::INFINITY }
}

/// Rows of one block. With `CAREFUL`, deviations are about the first number, as which stands what
/// is not finite, and that is counted.
struct Sums<'n, N, const CAREFUL: bool> {
    rows: &'n [[N; LANES]],
    first: N,
}

struct Lanes<N> {
    min: [N; LANES],
    max: [N; LANES],
    zeros: [u32; COUNTS],
    bad: [u32; COUNTS],
    sum: [f64; LANES],
    squares: [f64; LANES],
}

impl<N: Number, const CAREFUL: bool> Loop for Sums<'_, N, CAREFUL> {
    type Output = Lanes<N>;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> Lanes<N> {
        let first = self.first;
        let center = if CAREFUL { first.into() } else { 0.0 };
        let (min, max) = ([first; LANES], [first; LANES]);
        let (zeros, bad) = ([0; COUNTS], [0; COUNTS]);
        let (sum, squares) = ([0.0; LANES], [0.0; LANES]);
        let mut found = Lanes { min, max, zeros, bad, sum, squares };
        for row in self.rows {
            let mut row = *row;
            if CAREFUL {
                for lane in 0..LANES {
                    found.bad[lane % COUNTS] += u32::from(!row[lane].is_finite());
                    row[lane] = if row[lane].is_finite() { row[lane] } else { first };
                }
            }
            for lane in 0..LANES {
                found.min[lane] = if row[lane] < found.min[lane] { row[lane] } else { found.min[lane] };
            }
            for lane in 0..LANES {
                found.max[lane] = if row[lane] > found.max[lane] { row[lane] } else { found.max[lane] };
            }
            for lane in 0..COUNTS {
                let zero = |lane: usize| u32::from(row[lane] == N::default());
                found.zeros[lane] += zero(lane) + zero(lane + COUNTS);
            }
            for lane in 0..LANES {
                let deviation = row[lane].into() - center;
                found.sum[lane] += deviation;
                found.squares[lane] = fused::<FUSED>(deviation, deviation, found.squares[lane]);
            }
        }
        if CAREFUL && first == N::default() {
            // A stand-in for a non-finite value is not counted as a zero.
            for lane in 0..COUNTS {
                found.zeros[lane] -= found.bad[lane];
            }
        }
        found
    }
}

/// A loop that is compiled for several processors.
trait Loop: Sized {
    type Output;

    /// With `FUSED`, the processor multiplies and adds in one instruction.
    fn run<const FUSED: bool>(self) -> Self::Output;
}

/// Runs the loop that is compiled for this processor.
fn run<L: Loop>(of: L) -> L::Output {
    struct Compiled<L, const FUSED: bool>(L);

    impl<L: Loop, const FUSED: bool> NullaryFnOnce for Compiled<L, FUSED> {
        type Output = L::Output;

        #[inline(always)]
        fn call(self) -> L::Output {
            self.0.run::<FUSED>()
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return v3.vectorize(Compiled::<L, true>(of));
    }
    Arch::new().dispatch(Compiled::<L, false>(of))
}

/// `a * b + c`, by an instruction where there is one: in software it would be slow.
#[inline(always)]
fn fused<const FUSED: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// How far two blocks are apart; equal NaNs and infinities are no difference, a NaN beside a number
/// is an infinite one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Apart {
    /// Pairs farther apart than the tolerance.
    pub far: u64,
    /// The largest difference.
    pub max: f64,
    /// Sums of squared differences, of squares, and of products; the last three of pairs that are
    /// finite.
    pub dd: f64,
    pub aa: f64,
    pub bb: f64,
    pub ab: f64,
}

/// Two blocks of the same length. Far is `|a - b| > atol + rtol * |b|`.
pub fn apart<N: Number>(a: &[N], b: &[N], rtol: f64, atol: f64) -> Apart {
    let found = pairs::<N, false>(a, b, rtol, atol);
    // A NaN or an infinity on either side makes its square one; so does a sum of squares beyond
    // f64.
    if (found.aa + found.bb).is_finite() { found } else { pairs::<N, true>(a, b, rtol, atol) }
}

fn pairs<N: Number, const CAREFUL: bool>(a: &[N], b: &[N], rtol: f64, atol: f64) -> Apart {
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<PAIR>(), b.as_chunks::<PAIR>());
    // Zeros beside zeros add nothing.
    let filled = |rest: &[N]| {
        let mut row = [N::default(); PAIR];
        row[..rest.len()].copy_from_slice(rest);
        [row]
    };
    let (last_a, last_b) = (filled(rest_a), filled(rest_b));
    let mut found = Apart::default();
    let sum = |lanes: &[f64; PAIR]| lanes.iter().sum::<f64>();
    for (a, b) in [(a, b), (&last_a[..], &last_b[..])] {
        let lanes = black_box(run(Pairs::<N, CAREFUL> { a, b, rtol, atol }));
        found.far += lanes.far.iter().sum::<u64>();
        found.max = lanes.max.into_iter().fold(found.max, f64::max);
        found.dd += sum(&lanes.dd);
        found.aa += sum(&lanes.aa);
        found.bb += sum(&lanes.bb);
        found.ab += sum(&lanes.ab);
    }
    found
}

/// Rows of two blocks. With `CAREFUL`, pairs that are not finite are told apart, and count in no
/// sum of squares or products.
struct Pairs<'n, N, const CAREFUL: bool> {
    a: &'n [[N; PAIR]],
    b: &'n [[N; PAIR]],
    rtol: f64,
    atol: f64,
}

#[derive(Default)]
struct PairLanes {
    far: [u64; PAIR],
    max: [f64; PAIR],
    dd: [f64; PAIR],
    aa: [f64; PAIR],
    bb: [f64; PAIR],
    ab: [f64; PAIR],
}

impl<N: Number, const CAREFUL: bool> Loop for Pairs<'_, N, CAREFUL> {
    type Output = PairLanes;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> PairLanes {
        let mut found = PairLanes::default();
        for (a, b) in self.a.iter().zip(self.b) {
            for lane in 0..PAIR {
                let (x, y): (f64, f64) = (a[lane].into(), b[lane].into());
                let mut d = (x - y).abs();
                if CAREFUL {
                    let same = x == y || (x.is_nan() && y.is_nan());
                    d = if same { 0.0 } else { d };
                    d = if d.is_nan() { f64::INFINITY } else { d };
                }
                let beyond = d > self.atol + self.rtol * y.abs() || (CAREFUL && d == f64::INFINITY);
                found.far[lane] += u64::from(beyond);
                found.max[lane] = if d > found.max[lane] { d } else { found.max[lane] };
                found.dd[lane] = fused::<FUSED>(d, d, found.dd[lane]);
                let counts = !CAREFUL || (a[lane].is_finite() && b[lane].is_finite());
                let (x, y) = if counts { (x, y) } else { (0.0, 0.0) };
                found.aa[lane] = fused::<FUSED>(x, x, found.aa[lane]);
                found.bb[lane] = fused::<FUSED>(y, y, found.bb[lane]);
                found.ab[lane] = fused::<FUSED>(x, y, found.ab[lane]);
            }
        }
        found
    }
}

/// The most units in the last place between two blocks of floats, as `apart` counts them for each
/// pair.
pub fn most_ulps<const N: usize, P: Into<u64> + Ord + Copy>(
    a: &[u8],
    b: &[u8],
    apart: impl Fn([u8; N], [u8; N]) -> P,
    none: P,
) -> u64 {
    let (a, b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
    run(Ulps { a, b, apart, none }).into()
}

struct Ulps<'n, F, P, const N: usize> {
    a: &'n [[u8; N]],
    b: &'n [[u8; N]],
    apart: F,
    none: P,
}

impl<F: Fn([u8; N], [u8; N]) -> P, P: Ord + Copy, const N: usize> Loop for Ulps<'_, F, P, N> {
    type Output = P;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> P {
        self.a.iter().zip(self.b).fold(self.none, |most, (a, b)| most.max((self.apart)(*a, *b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_finds_the_same_whatever_processor_it_is_compiled_for() {
        // Their products are exact, so that fusing or not is no difference.
        let numbers =
            |salt: usize| (0..256).map(|i| ((i * 37 + salt) % 101) as f32 / 8.0 - 6.0).collect::<Vec<_>>();
        let (a, b) = (numbers(0), numbers(5));
        let of = || Sums::<f32, false> { rows: a.as_chunks().0, first: a[0] };
        let (any, this) = (of().run::<false>(), run(of()));
        assert_eq!((any.min, any.max, any.zeros, any.bad), (this.min, this.max, this.zeros, this.bad));
        assert_eq!((any.sum, any.squares), (this.sum, this.squares));
        let of = || Pairs::<f32, false> { a: a.as_chunks().0, b: b.as_chunks().0, rtol: 0.5, atol: 0.125 };
        let (any, this) = (of().run::<false>(), run(of()));
        assert_eq!((any.far, any.max, any.dd), (this.far, this.max, this.dd));
        assert_eq!((any.aa, any.bb, any.ab), (this.aa, this.bb, this.ab));
    }
}
