//! One block of elements compared with its twin: elements become numbers, and numbers the sums of a
//! [`Distance`].

use super::{Distance, Tolerance};
use crate::lanes;
use crate::numbers::{self, BLOCK, Kind};
use crate::scaled::{Scaled, exponent_of, times_power_of_2};
use tensorkeep::Dtype;

/// Where elements become numbers.
pub(super) struct Room {
    singles: [[f32; BLOCK]; 2],
    pub(super) doubles: [[f64; BLOCK]; 2],
}

impl Default for Room {
    fn default() -> Self {
        Self { singles: [[0.0; BLOCK]; 2], doubles: [[0.0; BLOCK]; 2] }
    }
}

impl Room {
    /// One block, and its twin where that differs. The place of the largest difference is looked
    /// for only if that is more than what was `found` before.
    pub(super) fn block(
        &mut self,
        kind: Kind,
        table: Option<&[f32; 256]>,
        start: u64,
        (ours, theirs): (&[u8], Option<&[u8]>),
        found: (f64, Tolerance),
    ) -> Distance {
        match kind {
            Kind::Single(dtype) => {
                let [a, b] = &mut self.singles;
                let ours = numbers::single_block(dtype, table, ours, a);
                let theirs = theirs.map(|theirs| numbers::single_block(dtype, table, theirs, b));
                side_by_side(start, ours, theirs, found)
            }
            Kind::Double(dtype) => {
                let [a, b] = &mut self.doubles;
                let ours = numbers::double_block(dtype, ours, a);
                let theirs = theirs.map(|theirs| numbers::double_block(dtype, theirs, b));
                side_by_side(start, ours, theirs, found)
            }
        }
    }
}

pub(super) fn side_by_side<N: lanes::Number>(
    start: u64,
    a: &[N],
    b: Option<&[N]>,
    (most, tolerance): (f64, Tolerance),
) -> Distance {
    let Some(b) = b else {
        let energy = energy(a);
        return Distance { max_at: u64::MAX, aa: energy, bb: energy, ab: energy, ..Distance::default() };
    };
    let lanes::Apart { far, max, dd, aa, bb, ab } = lanes::apart(a, b, tolerance.rtol, tolerance.atol);
    // Not the first place of it: that was found before.
    let mut max_at = u64::MAX;
    if max > most {
        let is_it = |(a, b): (&N, &N)| {
            let (a, b): (f64, f64) = ((*a).into(), (*b).into());
            // Infinite is the distance of what has none.
            let d = (a - b).abs();
            d == max || (max == f64::INFINITY && a != b && !d.is_finite() && !(a.is_nan() && b.is_nan()))
        };
        max_at = start + a.iter().zip(b).position(is_it).unwrap_or(0) as u64;
    }
    let [dd_sum, aa_sum, bb_sum, ab_sum] = [dd, aa, bb, ab].map(Scaled::plain);
    let plain = Distance {
        differs: true,
        far,
        largest: max,
        max_at,
        dd: dd_sum,
        aa: aa_sum,
        bb: bb_sum,
        ab: ab_sum,
        ..Distance::default()
    };
    // What sums of f32s cannot become says that something is infinite, or too large or too small to
    // be squared.
    let is_plain = |sum: f64| sum == 0.0 || (1e-240..1e300).contains(&sum);
    let vanished = aa == 0.0 || bb == 0.0 || (dd == 0.0 && max > 0.0);
    if [dd, aa, bb].into_iter().all(is_plain) && !(vanished && size_of::<N>() > 4) && max.is_finite() {
        return plain;
    }
    carefully(plain, a, b)
}

fn energy<N: lanes::Number>(block: &[N]) -> Scaled {
    let found = lanes::block(block);
    let most = found.min.abs().max(found.max.abs());
    if crate::scaled::is_plain(most) {
        return Scaled::plain(found.energy());
    }
    let exponent = exponent_of(most);
    let near_1 = block.iter().map(|&x| x.into()).filter(|x: &f64| x.is_finite());
    let sum = near_1.map(|x| times_power_of_2(x, -exponent)).map(|x| x * x).sum();
    Scaled::new(sum, exponent)
}

/// The sums of a block once more, scaled by its largest value, with non-finite values counted.
fn carefully<N: lanes::Number>(mut found: Distance, a: &[N], b: &[N]) -> Distance {
    let pairs = || a.iter().zip(b).map(|(&a, &b)| -> (f64, f64) { (a.into(), b.into()) });
    let is_same = |(a, b): &(f64, f64)| a == b || (a.is_nan() && b.is_nan());
    found.nans = pairs().filter(|(a, b)| a.is_nan() != b.is_nan()).count() as u64;
    let is_unlike = |pair: &(f64, f64)| !(is_same(pair) || pair.0.is_finite() && pair.1.is_finite());
    found.unlike = pairs().filter(is_unlike).count() as u64;
    let finite = || pairs().filter(|(a, b)| a.is_finite() && b.is_finite());
    let most = |of: fn((f64, f64)) -> f64| finite().map(of).fold(0.0, f64::max);
    let (a_exponent, b_exponent) = (exponent_of(most(|(a, _)| a.abs())), exponent_of(most(|(_, b)| b.abs())));
    // The difference of the largest numbers is beyond f64; that of their halves is not.
    let largest = most(|(a, b)| (a - b).abs());
    let (share, exponent) = if largest.is_finite() { (1.0, exponent_of(largest)) } else { (0.5, 1024) };
    let (mut dd, mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0, 0.0);
    for (a, b) in finite() {
        let d = times_power_of_2(a * share - b * share, if share < 1.0 { 1 - exponent } else { -exponent });
        let (a, b) = (times_power_of_2(a, -a_exponent), times_power_of_2(b, -b_exponent));
        (dd, aa, bb, ab) = (dd + d * d, aa + a * a, bb + b * b, ab + a * b);
    }
    found.dd = Scaled::new(dd, exponent);
    found.aa = Scaled::new(aa, a_exponent);
    found.bb = Scaled::new(bb, b_exponent);
    // A power of 4 is beside each sum: of an odd power of 2 one half is in the value.
    let both = a_exponent + b_exponent;
    found.ab = Scaled::new(if both % 2 == 0 { ab } else { ab * 2.0 }, (both - both.rem_euclid(2)) / 2);
    found
}

/// The most units in the last place between floats; 0 for other dtypes.
pub(super) fn ulp(dtype: Dtype, ours: &[u8], theirs: &[u8]) -> u64 {
    // Sign and magnitude to a line of integers, on which neighbours are 1 apart.
    match dtype {
        Dtype::F32 | Dtype::C64 => {
            let place = |bytes| {
                let bits = i32::from_le_bytes(bytes);
                if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
            };
            lanes::most_ulps(ours, theirs, |a, b| place(a).abs_diff(place(b)), 0_u32)
        }
        Dtype::F64 | Dtype::C128 => {
            let place = |bytes| {
                let bits = i64::from_le_bytes(bytes);
                if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits }
            };
            lanes::most_ulps(ours, theirs, |a, b| place(a).abs_diff(place(b)), 0_u64)
        }
        Dtype::F16 | Dtype::Bf16 => {
            let place = |bytes| {
                let bits = i16::from_le_bytes(bytes);
                if bits < 0 { i16::MIN.wrapping_sub(bits) } else { bits }
            };
            lanes::most_ulps(ours, theirs, |a, b| place(a).abs_diff(place(b)), 0_u16)
        }
        _ => 0,
    }
}
