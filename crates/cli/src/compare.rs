//! Compares two files tensor by tensor: pairs their names, reads their chunks side by side, and
//! gives a verdict on each.

mod distance;
mod meanings;
mod side_by_side;

pub use distance::{Distance, Tolerance};

use crate::numbers::Kind;
use crate::opened::{Meta, Opened, is_of_one_tensor};
use crate::parallel::{self, Task};
use meanings::Meanings;
use side_by_side::Pair;
use std::collections::BTreeMap;
use tensorkeep::{Dtype, Error, Result, inspect::Scratch};

/// What became of one name.
#[derive(Debug)]
pub enum Verdict {
    Equal,
    Close(Distance),
    Differ(Distance),
    /// Bytes whose meaning is unknown, and which differ.
    OtherBytes,
    /// Shapes differ, or dtypes that are not compared with each other, or what opaque bytes mean.
    Incompatible(String),
    OnlyLeft,
    OnlyRight,
    /// One side's bytes are damaged, or not supported.
    Unreadable(Error),
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
            Self::Unreadable(error) => error.kind().as_str(),
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

    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Unreadable(error) => Some(error),
            _ => None,
        }
    }

    fn of(pair: &Pair, found: Result<Distance>) -> Self {
        let distance = match found {
            Ok(distance) => distance,
            Err(error) => return Self::Unreadable(error),
        };
        let known = pair.left.dtype.ok().and_then(Kind::of).is_some();
        match distance {
            distance if !distance.differs && distance.widened.is_none() => Self::Equal,
            _ if !known => Self::OtherBytes,
            distance if distance.far == 0 => Self::Close(distance),
            distance => Self::Differ(distance),
        }
    }
}

/// Whether numbers of two dtypes can be compared: of the same one, and of two floats, of which both
/// are widened.
fn are_comparable(left: Result<Dtype, u16>, right: Result<Dtype, u16>) -> bool {
    let is_real = |dtype: Result<Dtype, u16>| {
        dtype.is_ok_and(|dtype| dtype.is_float() && !matches!(dtype, Dtype::C64 | Dtype::C128))
    };
    left == right || (is_real(left) && is_real(right))
}

/// Compares all tensors that `only` wants, by name.
///
/// # Errors
/// What reading says that is not about one tensor; `NotFound` when neither side has a tensor that
/// is wanted.
pub fn all(
    left: &Opened,
    right: &Opened,
    only: Option<&str>,
    tolerance: Tolerance,
) -> Result<BTreeMap<String, Verdict>> {
    let ours = left.wanted(only);
    let theirs = right.wanted(only);
    let (ours, theirs) = match (ours, theirs) {
        (Err(error), Err(_)) => return Err(error),
        (ours, theirs) => (ours.unwrap_or_default(), theirs.unwrap_or_default()),
    };
    between((left, ours), (right, theirs), tolerance)
}

/// Compares one tensor; None where neither side has it.
///
/// # Errors
/// What reading says that is not about this tensor.
pub fn one(left: &Opened, right: &Opened, name: &str, tolerance: Tolerance) -> Result<Option<Verdict>> {
    let metas = |side: &Opened| side.meta(name).into_iter().collect::<Vec<_>>();
    let verdicts = between((left, metas(left)), (right, metas(right)), tolerance)?;
    Ok(verdicts.into_values().next())
}

/// Compares these tensors of both sides, by name.
///
/// # Errors
/// What reading says that is not about one tensor.
pub fn between(
    (left, ours): (&Opened, Vec<Meta>),
    (right, theirs): (&Opened, Vec<Meta>),
    tolerance: Tolerance,
) -> Result<BTreeMap<String, Verdict>> {
    let mut others: BTreeMap<String, Meta> =
        theirs.into_iter().map(|meta| (meta.name.clone(), meta)).collect();
    let (mut verdicts, mut pairs) = (BTreeMap::new(), Vec::new());
    for meta in ours {
        match others.remove(&meta.name) {
            None => drop(verdicts.insert(meta.name, Verdict::OnlyLeft)),
            Some(other) if !are_comparable(meta.dtype, other.dtype) || meta.shape != other.shape => {
                let text = |meta: &Meta| format!("{} {}", meta.dtype_text(), meta.shape_text());
                let what = format!("{} | {}", text(&meta), text(&other));
                verdicts.insert(meta.name, Verdict::Incompatible(what));
            }
            Some(other) => pairs.push(Pair { left: meta, right: other }),
        }
    }
    verdicts.extend(others.into_keys().map(|name| (name, Verdict::OnlyRight)));
    if let Some(meanings) = Meanings::of(left, right, &pairs) {
        pairs.retain(|pair| match meanings.differ(pair) {
            Some(what) => {
                verdicts.insert(pair.left.name.clone(), Verdict::Incompatible(what));
                false
            }
            None => true,
        });
    }
    let distances = distances(left, right, &pairs, tolerance)?;
    for (pair, distance) in pairs.into_iter().zip(distances) {
        let verdict = Verdict::of(&pair, distance);
        verdicts.insert(pair.left.name, verdict);
    }
    Ok(verdicts)
}

fn distances(
    left: &Opened,
    right: &Opened,
    pairs: &[Pair],
    tolerance: Tolerance,
) -> Result<Vec<Result<Distance>>> {
    let mut all: Vec<Result<Distance>> =
        pairs.iter().map(|pair| Ok(Distance::between(&pair.left, &pair.right))).collect();
    let mut same = Vec::new();
    // Chunks of both sides side by side, where both are cut alike. Otherwise the tensor is one
    // piece.
    let cut = |pair: &Pair| (pair.left.byte_len, if pair.is_cut_alike() { pair.left.chunks } else { 1 });
    let tasks = parallel::tasks(pairs.iter().map(cut));
    let work = |task: &Task, scratch: &mut [Scratch; 2]| {
        let pair = &pairs[task.number];
        let found = if pair.is_cut_alike() {
            pair.by_chunks(left, right, task, scratch, tolerance)
        } else {
            pair.by_pieces(left, right, scratch, tolerance).map(|distance| (distance, Vec::new()))
        };
        is_of_one_tensor(found)
    };
    parallel::run("comparing", &tasks, work, |task, found| match found {
        Ok((distance, equal)) => {
            put(&mut all[task.number], Ok(distance));
            same.extend(equal);
        }
        Err(error) => put(&mut all[task.number], Err(error)),
    })?;
    // What differs somewhere is measured against all of it.
    same.retain(|task: &Task| all[task.number].as_ref().is_ok_and(|distance| distance.differs));
    let norms = |task: &Task, scratch: &mut Scratch| {
        let (meta, mut found) = (&pairs[task.number].left, Distance::default());
        let read = left.visit(meta, task.chunks.clone(), scratch, |offset, bytes| {
            found.take_in(meta.dtype, offset, (bytes, bytes), tolerance);
            Ok(())
        });
        is_of_one_tensor(read.map(|()| found))
    };
    parallel::run("measuring", &same, norms, |task, found| put(&mut all[task.number], found))?;
    Ok(all)
}

/// A part of a tensor beside the parts before; the first error stays.
fn put(all: &mut Result<Distance>, found: Result<Distance>) {
    match (all, found) {
        (Ok(all), Ok(found)) => all.merge(&found),
        (all @ Ok(_), Err(error)) => *all = Err(error),
        (Err(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorkeep::{Checkpoint, Codec, Snapshot, Tensor, WriteOptions};

    fn saved(tensor: Tensor<'_>, chunk_log2: u8) -> Opened {
        let snapshot = Snapshot::new().tensor("t", tensor).unwrap();
        let options = WriteOptions::new().chunk_log2(chunk_log2).codec(Codec::Raw);
        Opened::Own(Checkpoint::from_bytes(&snapshot.to_bytes(&options).unwrap()).unwrap())
    }

    fn opened(values: &[f32]) -> Opened {
        saved(Tensor::from_elements(&[values.len()], values).unwrap(), 20)
    }

    const TOLERANCE: Tolerance = Tolerance { rtol: 1e-5, atol: 1e-8 };

    #[test]
    fn a_chunks_difference_is_measured_against_its_tensor() {
        let a: Vec<f32> = (0..800_000).map(|i| (i % 1013) as f32 * 1e-3).collect();
        let mut b = a.clone();
        b[500_000] += 3.0;
        let verdicts = all(&opened(&a), &opened(&b), None, TOLERANCE).unwrap();
        let Verdict::Differ(found) = &verdicts["t"] else { panic!("{verdicts:?}") };
        let sum =
            |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let (aa, bb, ab) = (sum(&a, &a), sum(&b, &b), sum(&a, &b));
        let d = f64::from(b[500_000]) - f64::from(a[500_000]);
        assert_eq!((found.far, found.max(), found.max_at), (1, d, 500_000));
        assert!((found.relative() - d / aa.sqrt()).abs() < 1e-12, "{found:?}");
        assert!((found.cosine() - ab / (aa * bb).sqrt()).abs() < 1e-12, "{found:?}");
        let verdicts = all(&opened(&a), &opened(&a), None, TOLERANCE).unwrap();
        assert!(matches!(verdicts["t"], Verdict::Equal), "{verdicts:?}");
    }

    #[test]
    fn tensors_that_are_cut_differently_are_compared_piece_by_piece() {
        let a: Vec<f32> = (0..200_000).map(|i| i as f32).collect();
        let mut b = a.clone();
        b[123_456] += 100.0;
        let of = |values: &[f32], log2| saved(Tensor::from_elements(&[200_000], values).unwrap(), log2);
        for (left, right) in [(16, 20), (20, 16), (17, 18)] {
            let verdicts = all(&of(&a, left), &of(&b, right), None, TOLERANCE).unwrap();
            let Verdict::Differ(found) = &verdicts["t"] else { panic!("{verdicts:?}") };
            assert_eq!((found.far, found.max(), found.max_at), (1, 100.0, 123_456));
            let verdicts = all(&of(&a, left), &of(&a, right), None, TOLERANCE).unwrap();
            assert!(matches!(verdicts["t"], Verdict::Equal), "{verdicts:?}");
        }
    }

    #[test]
    fn floats_of_other_widths_are_compared_after_widening() {
        let a: Vec<f32> = (0..100_000).map(|i| 1.0 + i as f32 * 1e-3).collect();
        let b: Vec<half::bf16> = a.iter().map(|&a| half::bf16::from_f32(a)).collect();
        let bf16 = saved(Tensor::from_elements(&[100_000], &b).unwrap(), 16);
        let (mut most, mut at) = (0.0, 0);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let d = f64::from((a - b.to_f32()).abs());
            (most, at) = if d > most { (d, i as u64) } else { (most, at) };
        }
        let verdicts = all(&opened(&a), &bf16, None, TOLERANCE).unwrap();
        let Verdict::Differ(found) = &verdicts["t"] else { panic!("{verdicts:?}") };
        assert_eq!((found.max(), found.max_at, found.widened.as_deref()), (most, at, Some("f32 | bf16")));
        let loose = Tolerance { rtol: 1e-2, atol: 0.0 };
        assert!(matches!(all(&opened(&a), &bf16, None, loose).unwrap()["t"], Verdict::Close(_)));
        let verdicts = all(&bf16, &bf16, None, TOLERANCE).unwrap();
        assert!(matches!(verdicts["t"], Verdict::Equal), "{verdicts:?}");
    }
}
