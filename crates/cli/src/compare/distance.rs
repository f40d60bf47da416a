//! Two tensors of the same shape, compared: a [`Distance`] is filled block by block and merged. It
//! takes bytes and opens no file.

mod blocks;

use crate::numbers::{self, BLOCK, Kind};
use crate::opened::Meta;
use crate::scaled::Scaled;
use blocks::{Room, side_by_side, ulp};
use tensorkeep::Dtype;

/// What makes two numbers close: `|a - b| <= atol + rtol * |b|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
}

/// How far two tensors are apart.
#[derive(Clone, Debug, Default)]
pub struct Distance {
    /// Whether any byte differs, or any number where the dtypes do.
    pub differs: bool,
    /// Numbers farther apart than the tolerance, NaN beside a number included.
    pub far: u64,
    /// The largest difference; infinite for a NaN beside a number.
    largest: f64,
    /// The same of integers of 64 bits, exactly.
    pub whole: Option<u64>,
    /// The index of the first place of the largest difference.
    pub max_at: u64,
    /// Units in the last place, the most; 0 where none were counted.
    ulp: u64,
    /// Both dtypes, where they differ and numbers were widened.
    pub widened: Option<String>,
    /// Places with a NaN on one side only.
    nans: u64,
    /// Places with something infinite or a NaN that is not the same on both sides.
    unlike: u64,
    dd: Scaled,
    aa: Scaled,
    bb: Scaled,
    ab: Scaled,
}

impl Distance {
    /// Of two tensors that nothing was compared of.
    pub(super) fn between(left: &Meta, right: &Meta) -> Self {
        let widened =
            (left.dtype != right.dtype).then(|| format!("{} | {}", left.dtype_text(), right.dtype_text()));
        Self { widened, ..Self::default() }
    }

    /// The largest difference; NaN where a number stands beside a NaN, from which it has none.
    pub fn max(&self) -> f64 {
        if self.nans > 0 { f64::NAN } else { self.largest }
    }

    /// Units in the last place, the most. None where there is no such distance: of what is no float
    /// of 16 bits or more, and between two dtypes.
    pub fn ulps(&self) -> Option<u64> {
        let are_counted = self.ulp > 0 || self.largest == 0.0;
        (self.widened.is_none() && are_counted).then_some(self.ulp)
    }

    /// `|a - b| / |a|`, Euclidean; NaN where NaNs stand beside numbers.
    pub fn relative(&self) -> f64 {
        match () {
            () if self.nans > 0 => f64::NAN,
            () if self.unlike > 0 => f64::INFINITY,
            () if self.dd.is_zero() => 0.0,
            () => self.dd.sqrt_over(self.aa),
        }
    }

    /// Of the finite numbers; NaN where one side alone is not finite, and where one side alone is
    /// zero.
    pub fn cosine(&self) -> f64 {
        match () {
            () if self.unlike > 0 => f64::NAN,
            () if self.aa.is_zero() && self.bb.is_zero() => 1.0,
            () => self.ab.over_roots(self.aa, self.bb),
        }
    }

    /// Takes in some bytes of both sides, of which the first has the offset `offset` in the tensor.
    pub(super) fn take_in(
        &mut self,
        dtype: Result<Dtype, u16>,
        offset: u64,
        (ours, theirs): (&[u8], &[u8]),
        tolerance: Tolerance,
    ) {
        let differs = ours != theirs;
        self.differs |= differs;
        let Some((dtype, kind)) = dtype.ok().and_then(|dtype| Some((dtype, Kind::of(dtype)?))) else {
            return;
        };
        let (table, width) = (numbers::table(dtype), kind.width());
        let mut room = Room::default();
        for (i, (ours, theirs)) in ours.chunks(BLOCK * width).zip(theirs.chunks(BLOCK * width)).enumerate() {
            // Equal so far, or here: the norms are needed all the same, if another block differs.
            let twin = (differs && ours != theirs).then_some(theirs);
            let start = offset / width as u64 + (i * BLOCK) as u64;
            let mut block =
                room.block(kind, table.as_deref(), start, (ours, twin), (self.largest, tolerance));
            match (dtype, twin) {
                (Dtype::I64, Some(twin)) => block.exactly(start, (ours, twin), tolerance, |a, b| {
                    let (a, b) = (i64::from_le_bytes(a), i64::from_le_bytes(b));
                    (a.abs_diff(b), b as f64)
                }),
                (Dtype::U64, Some(twin)) => block.exactly(start, (ours, twin), tolerance, |a, b| {
                    let (a, b) = (u64::from_le_bytes(a), u64::from_le_bytes(b));
                    (a.abs_diff(b), b as f64)
                }),
                _ if block.largest > 0.0 => block.ulp = ulp(dtype, ours, theirs),
                _ => {}
            }
            self.merge(&block);
        }
    }

    /// As [`Distance::take_in`], of two floats of different dtypes, of which the first is the
    /// tensor's element `start`.
    pub(super) fn take_in_widened(
        &mut self,
        dtypes: (Result<Dtype, u16>, Result<Dtype, u16>),
        start: u64,
        (ours, theirs): (&[u8], &[u8]),
        tolerance: Tolerance,
    ) {
        let (Ok(left), Ok(right)) = dtypes else { return };
        let tables = [numbers::table(left), numbers::table(right)];
        let mut room = Room::default();
        let blocks = ours.chunks(BLOCK * left.size()).zip(theirs.chunks(BLOCK * right.size()));
        for (i, (ours, theirs)) in blocks.enumerate() {
            let [a, b] = &mut room.doubles;
            let a = numbers::widened_block(left, tables[0].as_deref(), ours, a);
            let b = numbers::widened_block(right, tables[1].as_deref(), theirs, b);
            let start = start + (i * BLOCK) as u64;
            let mut block = side_by_side(start, a, Some(b), (self.largest, tolerance));
            block.differs = block.largest > 0.0;
            self.merge(&block);
        }
    }

    /// What f64 would round: how far integers of 64 bits are apart, and which are beyond the
    /// tolerance. `apart` gives that distance, and the second number, about.
    fn exactly(
        &mut self,
        start: u64,
        (ours, theirs): (&[u8], &[u8]),
        tolerance: Tolerance,
        apart: impl Fn([u8; 8], [u8; 8]) -> (u64, f64),
    ) {
        let (mut far, mut most, mut most_at, mut dd) = (0, 0, u64::MAX, 0.0);
        for (i, (ours, theirs)) in ours.as_chunks::<8>().0.iter().zip(theirs.as_chunks::<8>().0).enumerate() {
            let (d, b) = apart(*ours, *theirs);
            let allowed = tolerance.atol + tolerance.rtol * b.abs();
            // An integer is beyond a number if it is beyond its whole part; the cast ends at the
            // largest integer.
            far += u64::from(d > allowed as u64);
            if d > most {
                (most, most_at) = (d, start + i as u64);
            }
            dd += d as f64 * d as f64;
        }
        (self.far, self.whole, self.largest, self.max_at) = (far, Some(most), most as f64, most_at);
        self.dd = Scaled::plain(dd);
    }

    pub fn merge(&mut self, other: &Self) {
        self.differs |= other.differs;
        self.far += other.far;
        self.ulp = self.ulp.max(other.ulp);
        let size = |distance: &Self| (distance.whole, distance.largest);
        if size(other) > size(self) || (size(other) == size(self) && other.max_at < self.max_at) {
            (self.whole, self.largest, self.max_at) = (other.whole, other.largest, other.max_at);
        }
        (self.nans, self.unlike) = (self.nans + other.nans, self.unlike + other.unlike);
        self.dd = self.dd.plus(other.dd);
        self.aa = self.aa.plus(other.aa);
        self.bb = self.bb.plus(other.bb);
        self.ab = self.ab.plus(other.ab);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: &[f32], b: &[f32]) -> Distance {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let mut found = Distance::default();
        let tolerance = Tolerance { rtol: 1e-5, atol: 1e-8 };
        found.take_in(Ok(Dtype::F32), 0, (&bytes(a), &bytes(b)), tolerance);
        found
    }

    #[test]
    fn the_largest_difference_is_found_with_its_place() {
        let a: Vec<f32> = (0..9000).map(|i| i as f32).collect();
        let mut b = a.clone();
        (b[BLOCK], b[8999]) = (BLOCK as f32 + 1.5, 9000.0);
        let found = distance(&a, &b);
        assert_eq!((found.max(), found.max_at, found.far), (1.5, BLOCK as u64, 2));
        assert!(found.cosine() > 0.999 && found.relative() < 1e-3);
        assert!(!distance(&a, &a).differs);
    }

    /// What the definition says, one pair at a time in f64.
    #[derive(Default)]
    struct Plain {
        far: u64,
        max: f64,
        max_at: u64,
        sums: [f64; 4],
    }

    fn plain(a: &[f64], b: &[f64], tolerance: Tolerance) -> Plain {
        let mut found = Plain::default();
        for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
            let same = a == b || (a.is_nan() && b.is_nan());
            let distance = if same { 0.0 } else { (a - b).abs() };
            let distance = if distance.is_nan() { f64::INFINITY } else { distance };
            let far = distance > tolerance.atol + tolerance.rtol * b.abs() || distance.is_infinite();
            found.far += u64::from(far);
            if distance > found.max {
                (found.max, found.max_at) = (distance, i as u64);
            }
            if a.is_finite() && b.is_finite() {
                let products = [distance * distance, a * a, b * b, a * b];
                found.sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
            }
        }
        found
    }

    fn agrees(what: &str, found: &Distance, plain: &Plain) {
        assert_eq!(
            (found.far, found.largest, found.max_at),
            (plain.far, plain.max, if plain.max > 0.0 { plain.max_at } else { found.max_at }),
            "{what}"
        );
        let [dd, aa, bb, ab] = plain.sums;
        let close = |a: f64, b: f64, scale: f64| a == b || (a - b).abs() <= 1e-12 * b.abs().max(scale);
        for (found, sum) in [(found.aa, aa), (found.bb, bb), (found.dd, dd)] {
            assert!(close(found.sqrt(), sum.sqrt(), aa.max(bb).sqrt()), "{what}: {found:?} {sum}");
        }
        if aa > 0.0 && bb > 0.0 {
            let cosine = ab / (aa.sqrt() * bb.sqrt());
            assert!(close(found.ab.over_roots(found.aa, found.bb), cosine, 1.0), "{what}: {found:?}");
        }
    }

    #[test]
    fn distances_are_those_of_a_plain_loop_in_f64() {
        let tolerance = Tolerance { rtol: 1e-5, atol: 1e-8 };
        let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-42, -1e-42, 1.0];
        for count in [1_usize, 3, 4, 5, 63, 1023, BLOCK, BLOCK + 1, 9000] {
            for seed in 0..24 {
                let value = |i: usize, salt: usize| {
                    let draw = (i * 7919 + seed * 104_729 + salt).wrapping_mul(2_654_435_761) >> 7;
                    let special = (seed % 3 == 0 && draw.is_multiple_of(31))
                        .then(|| special[draw / 31 % special.len()]);
                    special.unwrap_or((draw % 10_007) as f32 * 1e-3 - 2.0)
                };
                let a: Vec<f32> = (0..count).map(|i| value(i, 0)).collect();
                // Mostly the same, in places near, and in places another number.
                let b: Vec<f32> = (0..count)
                    .map(|i| match (i + seed) % 11 {
                        0 => value(i, 13),
                        1 => a[i] * (1.0 + 1e-7),
                        _ => a[i],
                    })
                    .collect();
                let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
                let plain = plain(&wide(&a), &wide(&b), tolerance);
                agrees(&format!("{count} of seed {seed}"), &distance(&a, &b), &plain);
                let bytes =
                    |values: &[f32]| wide(values).iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
                let mut found = Distance::default();
                found.take_in(Ok(Dtype::F64), 0, (&bytes(&a), &bytes(&b)), tolerance);
                agrees(&format!("{count} f64 of seed {seed}"), &found, &plain);
            }
        }
    }

    #[test]
    fn parts_in_any_order_find_the_first_of_the_largest() {
        let far = distance(&[1.0, 9.0, 9.0], &[1.0, 1.0, 1.0]);
        let mut later = far.clone();
        later.max_at += 1000;
        let mut merged = later.clone();
        merged.merge(&far);
        assert_eq!((merged.max(), merged.max_at), (8.0, 1));
        merged.merge(&later);
        assert_eq!(merged.max_at, 1);
    }

    #[test]
    fn neighbours_are_one_ulp_apart_also_across_zero() {
        assert_eq!(distance(&[1.0], &[1.0_f32.next_up()]).ulps(), Some(1));
        assert_eq!(distance(&[f32::from_bits(1)], &[-f32::from_bits(1)]).ulps(), Some(2));
        assert_eq!(distance(&[0.0], &[-0.0]).ulps(), Some(0));
        assert_eq!(distance(&[1.0], &[1.0_f32.next_up()]).far, 0);
    }

    #[test]
    fn a_nan_beside_a_number_is_far_and_beside_itself_equal() {
        let found = distance(&[f32::NAN, 1.0], &[2.0, 1.0]);
        assert_eq!((found.far, found.max_at), (1, 0));
        assert!(found.max().is_nan() && found.relative().is_nan() && found.cosine().is_nan(), "{found:?}");
        let found = distance(&[f32::NAN, 1.0, f32::INFINITY], &[f32::NAN, 1.5, f32::INFINITY]);
        assert_eq!((found.far, found.max(), found.max_at, found.cosine()), (1, 0.5, 1, 1.0));
        let found = distance(&[f32::INFINITY, 1.0], &[2.0, 1.0]);
        assert_eq!((found.far, found.max(), found.relative()), (1, f64::INFINITY, f64::INFINITY));
        assert!(found.cosine().is_nan());
        let all = distance(&[f32::NAN; 64], &[1.0; 64]);
        assert!(all.cosine().is_nan() && all.max().is_nan(), "{all:?}");
    }

    fn of<const N: usize, T>(dtype: Dtype, a: &[T], b: &[T], bytes: fn(&T) -> [u8; N]) -> Distance {
        let all = |values: &[T]| values.iter().flat_map(bytes).collect::<Vec<u8>>();
        let mut found = Distance::default();
        let exact = Tolerance { rtol: 0.0, atol: 0.0 };
        found.take_in(Ok(dtype), 0, (&all(a), &all(b)), exact);
        found
    }

    #[test]
    fn integers_that_f64_cannot_tell_apart_are_apart() {
        let (a, b) = ([1 << 53, 1_i64 << 62, i64::MIN], [(1 << 53) + 1, (1 << 62) + 255, i64::MIN]);
        let found = of(Dtype::I64, &a, &b, |x| x.to_le_bytes());
        assert_eq!((found.far, found.whole, found.max(), found.max_at), (2, Some(255), 255.0, 1));
        assert!(found.relative() > 0.0);
        let found = of(Dtype::U64, &[u64::MAX, 5], &[u64::MAX - 600, 4], |x| x.to_le_bytes());
        assert_eq!((found.far, found.whole, found.max_at), (2, Some(600), 0));
        let found = of(Dtype::I64, &[i64::MIN], &[i64::MAX], |x| x.to_le_bytes());
        assert_eq!((found.far, found.whole), (1, Some(u64::MAX)));
    }

    #[test]
    fn f64s_of_any_size_have_their_relative_distance_and_cosine() {
        for size in [1e-300_f64, 1e-170, 1e-90, 1.0, 1e80, 1e160, 1e307] {
            let found = of(Dtype::F64, &[size, size], &[size, 1.1 * size], |x| x.to_le_bytes());
            let (relative, cosine) = (0.1 / 2_f64.sqrt(), 2.1 / (2_f64.sqrt() * 2.21_f64.sqrt()));
            assert!((found.relative() / relative - 1.0).abs() < 1e-12, "{size:e}: {}", found.relative());
            assert!((found.cosine() - cosine).abs() < 1e-12, "{size:e}: {}", found.cosine());
        }
        // Tiny beside large, in one block and in two.
        for far in [1, BLOCK + 7] {
            let (mut a, mut b) = (vec![0.0; far + 1], vec![0.0; far + 1]);
            (a[0], b[0], a[far], b[far]) = (1.0, 1.0, 1e-200, 3e-200);
            let found = of(Dtype::F64, &a, &b, |x: &f64| x.to_le_bytes());
            assert!((found.relative() / 2e-200 - 1.0).abs() < 1e-12, "{}", found.relative());
            assert!((found.cosine() - 1.0).abs() < 1e-15);
        }
        let found = of(Dtype::F64, &[f64::MAX], &[-f64::MAX], |x| x.to_le_bytes());
        assert_eq!((found.far, found.max(), found.relative(), found.cosine()), (1, f64::INFINITY, 2.0, -1.0));
    }
}
