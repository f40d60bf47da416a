//! Two files compared, tensor by tensor. Owns: which names belong together, how their chunks are read side by side, and
//! the verdict on each.

mod distance;

pub use distance::{Distance, Tolerance};

use crate::numbers::Kind;
use crate::opened::{Meta, Opened};
use crate::parallel::{self, Task};
use std::collections::BTreeMap;
use tensorkeep::{Result, Scratch};

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
    let mut same = Vec::new();
    // Chunks of both sides side by side, where both are cut alike. Otherwise the tensor is one piece.
    let alike = |(a, b): &(Meta, Meta)| a.chunks == b.chunks;
    let cut = |pair: &(Meta, Meta)| (pair.0.byte_len, if alike(pair) { pair.0.chunks } else { 1 });
    let tasks = parallel::tasks(pairs.iter().map(cut));
    let work = |task: &Task, scratch: &mut [Scratch; 2]| {
        let pair = &pairs[task.number];
        if alike(pair) {
            by_chunks(left, right, &pair.0, task, scratch, tolerance)
        } else {
            Ok((whole(left, right, &pair.0, &mut scratch[0], tolerance)?, Vec::new()))
        }
    };
    parallel::run("comparing", &tasks, work, |task, (distance, equal)| {
        all[task.number].merge(&distance);
        same.extend(equal);
    })?;
    // What differs somewhere is measured against all of it.
    same.retain(|task: &Task| all[task.number].differs);
    let norms = |task: &Task, scratch: &mut Scratch| {
        let (meta, mut found) = (&pairs[task.number].0, Distance::default());
        left.visit(&meta.name, task.chunks.clone(), scratch, |offset, bytes| {
            found.take_in(meta.dtype, offset, (bytes, bytes), tolerance);
            Ok(())
        })?;
        Ok(found)
    };
    parallel::run("measuring", &same, norms, |task, norms| all[task.number].merge(&norms))?;
    Ok(all)
}

/// Chunks whose bytes differ are compared; those that do not are named, for most often nothing else of their tensor
/// differs either, and then nobody asks for their numbers. A chunk is left in the processor's cache until its twin is read.
fn by_chunks(
    left: &Opened,
    right: &Opened,
    meta: &Meta,
    task: &Task,
    [ours, theirs]: &mut [Scratch; 2],
    tolerance: Tolerance,
) -> Result<(Distance, Vec<Task>)> {
    let (mut found, mut equal) = (Distance::default(), Vec::new());
    let mut number = task.chunks.start;
    left.visit(&meta.name, task.chunks.clone(), ours, |offset, ours| {
        right.visit(&meta.name, number..number + 1, theirs, |_, theirs| {
            if ours == theirs {
                equal.push(Task {
                    number: task.number,
                    chunks: number..number + 1,
                    bytes: ours.len() as u64,
                });
            } else {
                found.take_in(meta.dtype, offset, (ours, theirs), tolerance);
            }
            Ok(())
        })?;
        number += 1;
        Ok(())
    })?;
    Ok((found, equal))
}

fn whole(
    left: &Opened,
    right: &Opened,
    meta: &Meta,
    scratch: &mut Scratch,
    tolerance: Tolerance,
) -> Result<Distance> {
    let mut found = Distance::default();
    let theirs = right.tensor(&meta.name)?;
    left.visit(&meta.name, 0..usize::MAX, scratch, |offset, ours| {
        let start = offset as usize;
        let theirs = theirs.bytes().get(start..start + ours.len()).unwrap_or_default();
        found.take_in(meta.dtype, offset, (ours, theirs), tolerance);
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorkeep::{Checkpoint, Snapshot};

    fn opened(values: &[f32]) -> Opened {
        let mut snapshot = Snapshot::new();
        snapshot.tensor("t", values).unwrap();
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let path = std::env::temp_dir().join(format!("tensorkeep-compare-{nonce:032x}.tkeep"));
        snapshot.save(&path).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        Opened::Own(checkpoint)
    }

    #[test]
    fn a_difference_in_one_chunk_is_measured_against_the_whole_tensor() {
        let a: Vec<f32> = (0..800_000).map(|i| (i % 1013) as f32 * 1e-3).collect();
        let mut b = a.clone();
        b[500_000] += 3.0;
        let tolerance = Tolerance { rtol: 1e-5, atol: 1e-8 };
        let verdicts = all(&opened(&a), &opened(&b), None, tolerance).unwrap();
        let Verdict::Differ(found) = &verdicts["t"] else { panic!("{verdicts:?}") };
        let sum =
            |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let (aa, bb, ab) = (sum(&a, &a), sum(&b, &b), sum(&a, &b));
        let d = f64::from(b[500_000]) - f64::from(a[500_000]);
        assert_eq!((found.far, found.max, found.max_at), (1, d, 500_000));
        assert!((found.relative() - d / aa.sqrt()).abs() < 1e-12, "{found:?}");
        assert!((found.cosine() - ab / (aa * bb).sqrt()).abs() < 1e-12, "{found:?}");
        let verdicts = all(&opened(&a), &opened(&a), None, tolerance).unwrap();
        assert!(matches!(verdicts["t"], Verdict::Equal), "{verdicts:?}");
    }
}
