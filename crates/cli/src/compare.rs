//! Two tensors of the same dtype and shape, compared. Owns: [`Distance`], filled block by block and merged.

use crate::numbers::{self, BLOCK, Kind};
use crate::opened::{Meta, Opened};
use crate::parallel::{self, Task};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tensorkeep::{Dtype, Result};

const LANES: usize = 8;

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

    fn merge(&mut self, other: &Self) {
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

/// What became of one name.
#[derive(Clone, Debug)]
pub enum Verdict {
    Equal,
    Close(Distance),
    Differ(Distance),
    /// Bytes whose meaning is unknown, and which differ.
    OtherBytes,
    /// Dtype or shape differ.
    Incompatible(String),
    OnlyLeft,
    OnlyRight,
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Close(_) => "close",
            Self::Differ(_) | Self::OtherBytes => "differ",
            Self::Incompatible(_) => "incompatible",
            Self::OnlyLeft => "only left",
            Self::OnlyRight => "only right",
        }
    }

    pub fn distance(&self) -> Option<&Distance> {
        match self {
            Self::Close(distance) | Self::Differ(distance) => Some(distance),
            _ => None,
        }
    }

    pub fn is_same(&self) -> bool {
        matches!(self, Self::Equal | Self::Close(_))
    }
}

/// Compares all tensors that `only` wants, by name.
///
/// # Errors
/// What reading says.
pub fn all(
    left: &Opened,
    right: &Opened,
    only: Option<&str>,
    tolerance: Tolerance,
) -> Result<BTreeMap<String, Verdict>> {
    let mut others: BTreeMap<String, Meta> =
        right.tensors(only).into_iter().map(|meta| (meta.name.clone(), meta)).collect();
    let (mut verdicts, mut pairs) = (BTreeMap::new(), Vec::new());
    for meta in left.tensors(only) {
        match others.remove(&meta.name) {
            None => drop(verdicts.insert(meta.name, Verdict::OnlyLeft)),
            Some(other) if meta.dtype != other.dtype || meta.shape != other.shape => {
                let text = |meta: &Meta| format!("{} {}", meta.dtype_text(), meta.shape_text());
                let what = format!("{} | {}", text(&meta), text(&other));
                verdicts.insert(meta.name, Verdict::Incompatible(what));
            }
            Some(other) => pairs.push((meta, other)),
        }
    }
    verdicts.extend(others.into_keys().map(|name| (name, Verdict::OnlyRight)));
    let distances = distances(left, right, &pairs, tolerance)?;
    for ((meta, _), distance) in pairs.into_iter().zip(distances) {
        let known = meta.dtype.ok().and_then(Kind::of).is_some();
        let verdict = match distance {
            distance if !distance.differs => Verdict::Equal,
            _ if !known => Verdict::OtherBytes,
            distance if distance.far == 0 => Verdict::Close(distance),
            distance => Verdict::Differ(distance),
        };
        verdicts.insert(meta.name, verdict);
    }
    Ok(verdicts)
}

fn distances(
    left: &Opened,
    right: &Opened,
    pairs: &[(Meta, Meta)],
    tolerance: Tolerance,
) -> Result<Vec<Distance>> {
    let mut all = vec![Distance::default(); pairs.len()];
    // Chunks of both sides side by side, where both are cut alike. Otherwise the tensor is one piece.
    let alike = |(a, b): &(Meta, Meta)| a.chunks == b.chunks;
    let cut = |pair: &(Meta, Meta)| (pair.0.byte_len, if alike(pair) { pair.0.chunks } else { 1 });
    let tasks = parallel::tasks(pairs.iter().map(cut));
    let work = |task: &Task| {
        let pair = &pairs[task.number];
        if alike(pair) {
            by_chunks(left, right, &pair.0, task, tolerance)
        } else {
            whole(left, right, &pair.0, tolerance)
        }
    };
    parallel::run("comparing", &tasks, work, |task, distance| all[task.number].merge(&distance))?;
    Ok(all)
}

/// Pairs of chunks held at a time: a chunk is left in the processor's cache until its twin is read.
fn by_chunks(
    left: &Opened,
    right: &Opened,
    meta: &Meta,
    task: &Task,
    tolerance: Tolerance,
) -> Result<Distance> {
    let mut found = Distance::default();
    let mut number = task.chunks.start;
    left.visit(&meta.name, task.chunks.clone(), |offset, ours| {
        right.visit(&meta.name, number..number + 1, |_, theirs| {
            compare(&mut found, meta.dtype, offset, ours, theirs, tolerance);
            Ok(())
        })?;
        number += 1;
        Ok(())
    })?;
    Ok(found)
}

fn whole(left: &Opened, right: &Opened, meta: &Meta, tolerance: Tolerance) -> Result<Distance> {
    let found = Mutex::new(Distance::default());
    let theirs = right.tensor(&meta.name)?;
    left.visit(&meta.name, 0..usize::MAX, |offset, ours| {
        let start = offset as usize;
        let theirs = theirs.bytes().get(start..start + ours.len()).unwrap_or_default();
        compare(
            &mut found.lock().unwrap_or_else(PoisonError::into_inner),
            meta.dtype,
            offset,
            ours,
            theirs,
            tolerance,
        );
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn compare(
    into: &mut Distance,
    dtype: Result<Dtype, u16>,
    offset: u64,
    ours: &[u8],
    theirs: &[u8],
    tolerance: Tolerance,
) {
    let differs = ours != theirs;
    into.differs |= differs;
    if !differs {
        // Equal so far: the norms are needed only if another chunk differs, and are summed by the quick way.
        return norms(into, dtype, ours);
    }
    let Some((dtype, kind)) = dtype.ok().and_then(|dtype| Some((dtype, Kind::of(dtype)?))) else { return };
    let table = numbers::table(dtype);
    let (mut a, mut b) = ([0_f32; BLOCK], [0_f32; BLOCK]);
    let (mut wide_a, mut wide_b) = ([0_f64; BLOCK], [0_f64; BLOCK]);
    let width = kind.width();
    for (i, (ours, theirs)) in ours.chunks(BLOCK * width).zip(theirs.chunks(BLOCK * width)).enumerate() {
        let start = offset / width as u64 + (i * BLOCK) as u64;
        let count = ours.len() / width;
        let mut block = match kind {
            Kind::Single(dtype) => {
                numbers::singles(dtype, table.as_deref(), ours, &mut a[..count]);
                numbers::singles(dtype, table.as_deref(), theirs, &mut b[..count]);
                // What is less than a row of lanes is done one by one.
                let rows = count - count % LANES;
                let fast = singles(&a[..rows], &b[..rows], tolerance);
                let mut block = fast.unwrap_or_else(|| careful(start, &a[..rows], &b[..rows], tolerance));
                let rest = careful(start + rows as u64, &a[rows..count], &b[rows..count], tolerance);
                if block.max == 0.0 {
                    block.max_at = start;
                }
                block.merge(&rest);
                block
            }
            Kind::Double(dtype) => {
                numbers::doubles(dtype, ours, &mut wide_a[..count]);
                numbers::doubles(dtype, theirs, &mut wide_b[..count]);
                careful(start, &wide_a[..count], &wide_b[..count], tolerance)
            }
        };
        if block.max > into.max && block.max_at == u64::MAX {
            let place =
                a[..count].iter().zip(&b[..count]).position(|(a, b)| f64::from((a - b).abs()) == block.max);
            block.max_at = start + place.unwrap_or(0) as u64;
        }
        if differs && block.max > 0.0 {
            block.ulp = ulp(dtype, ours, theirs);
        }
        into.merge(&block);
    }
}

/// The sums of a chunk that is equal on both sides.
fn norms(into: &mut Distance, dtype: Result<Dtype, u16>, bytes: &[u8]) {
    let Some((dtype, kind)) = dtype.ok().and_then(|dtype| Some((dtype, Kind::of(dtype)?))) else { return };
    let table = numbers::table(dtype);
    let (mut single, mut double) = ([0_f32; BLOCK], [0_f64; BLOCK]);
    for bytes in bytes.chunks(BLOCK * kind.width()) {
        let count = bytes.len() / kind.width();
        let sum: f64 = match kind {
            Kind::Single(dtype) => {
                numbers::singles(dtype, table.as_deref(), bytes, &mut single[..count]);
                let fast = crate::stats::square_sum(&single[..count]);
                if fast.is_finite() {
                    fast
                } else {
                    finite_squares(single[..count].iter().map(|&x| f64::from(x)))
                }
            }
            Kind::Double(dtype) => {
                numbers::doubles(dtype, bytes, &mut double[..count]);
                finite_squares(double[..count].iter().copied())
            }
        };
        (into.aa, into.bb, into.ab) = (into.aa + sum, into.bb + sum, into.ab + sum);
    }
}

fn finite_squares(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).map(|value| value * value).sum()
}

/// A block in lanes; None when anything is not finite. Where the largest difference lies is left open.
fn singles(a: &[f32], b: &[f32], tolerance: Tolerance) -> Option<Distance> {
    let (rtol, atol) = (tolerance.rtol as f32, tolerance.atol as f32);
    let mut max = [0_f32; LANES];
    let (mut dd, mut aa, mut bb, mut ab) = ([0_f32; LANES], [0_f32; LANES], [0_f32; LANES], [0_f32; LANES]);
    let mut far = [0_u32; LANES];
    for (x, y) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        // Lanes are indexed by constants only: one index that varies, and the sums would live in memory.
        for lane in 0..LANES {
            let (x, y) = (x[lane], y[lane]);
            let d = (x - y).abs();
            max[lane] = if d > max[lane] { d } else { max[lane] };
            far[lane] += u32::from(d > atol + rtol * y.abs());
            dd[lane] += d * d;
            aa[lane] += x * x;
            bb[lane] += y * y;
            ab[lane] += x * y;
        }
    }
    // The sums over lanes must not decide how rows are loaded; see `stats`.
    let (max, far, dd, aa, bb, ab) = std::hint::black_box((max, far, dd, aa, bb, ab));
    let sum = |lanes: [f32; LANES]| lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
    let (dd, aa, bb, ab) = (sum(dd), sum(aa), sum(bb), sum(ab));
    (dd + aa + bb).is_finite().then(|| Distance {
        max: max.iter().map(|&lane| f64::from(lane)).fold(0.0, f64::max),
        max_at: u64::MAX,
        far: far.iter().map(|&lane| u64::from(lane)).sum(),
        dd,
        aa,
        bb,
        ab,
        ..Distance::default()
    })
}

/// One number at a time: equal NaNs and infinities are no difference, a NaN beside a number is an infinite one.
fn careful<N: Copy + Into<f64>>(start: u64, a: &[N], b: &[N], tolerance: Tolerance) -> Distance {
    let mut found = Distance { max_at: start, ..Distance::default() };
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        let (a, b): (f64, f64) = (a.into(), b.into());
        if a == b || (a.is_nan() && b.is_nan()) {
            if a.is_finite() {
                (found.aa, found.bb, found.ab) = (found.aa + a * a, found.bb + b * b, found.ab + a * b);
            }
            continue;
        }
        let distance = (a - b).abs();
        let distance = if distance.is_nan() { f64::INFINITY } else { distance };
        found.far +=
            u64::from(distance > tolerance.atol + tolerance.rtol * b.abs() || distance.is_infinite());
        if distance > found.max {
            (found.max, found.max_at) = (distance, start + i as u64);
        }
        found.dd += distance * distance;
        if a.is_finite() && b.is_finite() {
            (found.aa, found.bb, found.ab) = (found.aa + a * a, found.bb + b * b, found.ab + a * b);
        }
    }
    found
}

/// The most units in the last place between floats; 0 for other dtypes.
fn ulp(dtype: Dtype, ours: &[u8], theirs: &[u8]) -> u64 {
    // Sign and magnitude to a line of integers, on which neighbours are 1 apart.
    match dtype {
        Dtype::F32 | Dtype::C64 => {
            let place = |bytes: &[u8; 4]| {
                let bits = i32::from_le_bytes(*bytes);
                if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
            };
            let (a, b) = (ours.as_chunks::<4>().0, theirs.as_chunks::<4>().0);
            a.iter().zip(b).fold(0, |most, (a, b)| most.max(place(a).abs_diff(place(b)))).into()
        }
        Dtype::F64 | Dtype::C128 => {
            let place = |bytes: &[u8; 8]| {
                let bits = i64::from_le_bytes(*bytes);
                if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits }
            };
            let (a, b) = (ours.as_chunks::<8>().0, theirs.as_chunks::<8>().0);
            a.iter().zip(b).map(|(a, b)| place(a).abs_diff(place(b))).max().unwrap_or(0)
        }
        Dtype::F16 | Dtype::Bf16 => {
            let place = |bytes: &[u8; 2]| {
                let bits = i16::from_le_bytes(*bytes);
                if bits < 0 { i16::MIN.wrapping_sub(bits) } else { bits }
            };
            let (a, b) = (ours.as_chunks::<2>().0, theirs.as_chunks::<2>().0);
            a.iter().zip(b).fold(0, |most, (a, b)| most.max(place(a).abs_diff(place(b)))).into()
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
        compare(&mut found, Ok(Dtype::F32), 0, &bytes(a), &bytes(b), tolerance);
        found
    }

    #[test]
    fn the_largest_difference_is_found_with_its_place() {
        let a: Vec<f32> = (0..3000).map(|i| i as f32).collect();
        let mut b = a.clone();
        (b[2047], b[2999]) = (2048.5, 3000.0);
        let found = distance(&a, &b);
        assert_eq!((found.max, found.max_at, found.far), (1.5, 2047, 2));
        assert!(found.cosine() > 0.999 && found.relative() < 1e-3);
        assert!(!distance(&a, &a).differs);
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
