//! Two tensors of the same dtype and shape, compared. Owns: [`Distance`], filled block by block and merged. Knows bytes and
//! no file.

use crate::lanes;
use crate::numbers::{self, BLOCK, Kind};
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
    /// Whether any byte differs.
    pub differs: bool,
    /// Numbers farther apart than the tolerance, NaN beside a number included.
    pub far: u64,
    /// The largest difference, and the index of its first place.
    pub max: f64,
    pub max_at: u64,
    /// Units in the last place, the most.
    pub ulp: u64,
    dd: f64,
    aa: f64,
    bb: f64,
    ab: f64,
}

impl Distance {
    /// `|a - b| / |a|`, Euclidean.
    pub fn relative(&self) -> f64 {
        if self.dd == 0.0 { 0.0 } else { (self.dd / self.aa).sqrt() }
    }

    pub fn cosine(&self) -> f64 {
        if self.aa == 0.0 && self.bb == 0.0 { 1.0 } else { self.ab / (self.aa * self.bb).sqrt() }
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
            let mut block = room.block(kind, table.as_deref(), start, (ours, twin), (self.max, tolerance));
            if block.max > 0.0 {
                block.ulp = ulp(dtype, ours, theirs);
            }
            self.merge(&block);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.differs |= other.differs;
        self.far += other.far;
        self.ulp = self.ulp.max(other.ulp);
        if other.max > self.max || (other.max == self.max && other.max_at < self.max_at) {
            (self.max, self.max_at) = (other.max, other.max_at);
        }
        self.dd += other.dd;
        self.aa += other.aa;
        self.bb += other.bb;
        self.ab += other.ab;
    }
}

/// Where elements become numbers.
struct Room {
    singles: [[f32; BLOCK]; 2],
    doubles: [[f64; BLOCK]; 2],
}

impl Default for Room {
    fn default() -> Self {
        Self { singles: [[0.0; BLOCK]; 2], doubles: [[0.0; BLOCK]; 2] }
    }
}

impl Room {
    /// One block, and its twin where that differs. The place of the largest difference is looked for only if that is
    /// more than what was `found` before.
    fn block(
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

fn side_by_side<N: lanes::Number>(
    start: u64,
    a: &[N],
    b: Option<&[N]>,
    (most, tolerance): (f64, Tolerance),
) -> Distance {
    let Some(b) = b else {
        let energy = lanes::block(a).energy();
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
    Distance { differs: true, far, max, max_at, dd, aa, bb, ab, ulp: 0 }
}

/// The most units in the last place between floats; 0 for other dtypes.
fn ulp(dtype: Dtype, ours: &[u8], theirs: &[u8]) -> u64 {
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
        assert_eq!((found.max, found.max_at, found.far), (1.5, BLOCK as u64, 2));
        assert!(found.cosine() > 0.999 && found.relative() < 1e-3);
        assert!(!distance(&a, &a).differs);
    }

    /// What the definition says, one pair at a time in f64.
    fn plain(a: &[f64], b: &[f64], tolerance: Tolerance) -> Distance {
        let mut found = Distance::default();
        for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
            let same = a == b || (a.is_nan() && b.is_nan());
            let distance = if same { 0.0 } else { (a - b).abs() };
            let distance = if distance.is_nan() { f64::INFINITY } else { distance };
            let far = distance > tolerance.atol + tolerance.rtol * b.abs() || distance.is_infinite();
            found.far += u64::from(far);
            if distance > found.max {
                (found.max, found.max_at) = (distance, i as u64);
            }
            found.dd += distance * distance;
            if a.is_finite() && b.is_finite() {
                (found.aa, found.bb, found.ab) = (found.aa + a * a, found.bb + b * b, found.ab + a * b);
            }
        }
        found
    }

    fn agrees(what: &str, found: &Distance, plain: &Distance) {
        assert_eq!(
            (found.far, found.max, found.max_at),
            (plain.far, plain.max, if plain.max > 0.0 { plain.max_at } else { found.max_at }),
            "{what}"
        );
        let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-12 * b.abs().max(plain.aa.max(plain.bb));
        for (a, b) in [(found.aa, plain.aa), (found.bb, plain.bb), (found.ab, plain.ab), (found.dd, plain.dd)]
        {
            assert!(close(a, b), "{what}: {found:?} {plain:?}");
        }
    }

    #[test]
    fn distances_are_those_of_a_plain_loop_in_f64_whatever_the_length_and_the_values() {
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
    fn parts_that_are_done_in_any_order_find_the_first_of_the_largest() {
        let far = distance(&[1.0, 9.0, 9.0], &[1.0, 1.0, 1.0]);
        let mut later = far.clone();
        later.max_at += 1000;
        let mut merged = later.clone();
        merged.merge(&far);
        assert_eq!((merged.max, merged.max_at), (8.0, 1));
        merged.merge(&later);
        assert_eq!(merged.max_at, 1);
    }

    #[test]
    fn neighbours_are_one_ulp_apart_also_across_zero() {
        assert_eq!(distance(&[1.0], &[1.0_f32.next_up()]).ulp, 1);
        assert_eq!(distance(&[f32::from_bits(1)], &[-f32::from_bits(1)]).ulp, 2);
        assert_eq!(distance(&[1.0], &[1.0_f32.next_up()]).far, 0);
    }

    #[test]
    fn a_nan_beside_a_number_is_far_and_beside_itself_equal() {
        let found = distance(&[f32::NAN, 1.0], &[2.0, 1.0]);
        assert_eq!((found.far, found.max, found.max_at), (1, f64::INFINITY, 0));
        let found = distance(&[f32::NAN, 1.0, f32::INFINITY], &[f32::NAN, 1.5, f32::INFINITY]);
        assert_eq!((found.far, found.max, found.max_at), (1, 0.5, 1));
    }
}
