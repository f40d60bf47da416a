//! `merge`: the average of checkpoints or foreign files, summed in f64. One tensor of each goes
//! through memory at a time.

use super::derived;
use crate::answer::{Answer, Text};
use crate::args::Merge;
use crate::exit::Exit;
use crate::opened::{Meta, Opened};
use crate::target::Target;
use crate::told::Told;
use crate::{Done, numbers, output, progress};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tensorkeep::tensor::Buffer;
use tensorkeep::{Dtype, Error, ErrorKind, LazyTensor, Result, Snapshot, Tensor, WriteOptions};

/// How far from 1 the weights may be together.
const TOLERANCE: f64 = 1e-6;

/// The average, and what could not be averaged.
pub struct Merged {
    sources: Vec<String>,
    weights: Vec<f64>,
    output: String,
    tensors: usize,
    averaged: usize,
    /// Tensors that are not floats and differ between files.
    differing: BTreeSet<String>,
    /// How many NaNs and infinities an average has, by the tensor.
    not_finite: BTreeMap<String, u64>,
    told: Told,
    bytes: u64,
}

pub fn run(args: &Merge) -> Result<Merged> {
    let path = &args.output.output;
    derived::check_output(path, args.output.force)?;
    let weights = weights(args)?;
    let open = |target| Target::parse(target)?.look(args.budget.get());
    let mut files = args.targets.iter().map(open).collect::<Result<Vec<Opened>>>()?;
    files.iter_mut().try_for_each(Opened::keep_odd_bools)?;
    let metas = files[0].tensors();
    files[1..].iter().try_for_each(|file| check_alike(&files[0], &metas, file))?;
    files.iter().try_for_each(|file| args.budget.get().check(file, &metas))?;
    let reading = progress::reading("merging", output::total(files.iter().map(Opened::byte_len)));
    let merge =
        Plan { files: &files, weights: &weights, differing: Mutex::default(), not_finite: Mutex::default() };
    let written =
        merge.snapshot(args, &metas)?.save_with(path, &WriteOptions::new().codec(args.codec.into()))?;
    drop(reading);
    let differing = merge.differing.into_inner().unwrap_or_else(PoisonError::into_inner);
    let not_finite = merge.not_finite.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Merged {
        sources: files.iter().map(|file| file.name().to_owned()).collect(),
        output: path.display().to_string(),
        tensors: metas.len(),
        averaged: metas.iter().filter(|meta| is_averaged(meta)).count(),
        differing,
        not_finite,
        told: Told::of_files(&files),
        bytes: written.byte_len,
        weights,
    })
}

impl Answer for Merged {
    fn schema(&self) -> &'static str {
        "merge"
    }

    fn json(&self) -> Json {
        json!({
            "sources": self.sources, "weights": self.weights, "output": self.output, "tensors": self.tensors,
            "averaged": self.averaged, "differing": self.differing, "not_finite": self.not_finite,
            "notes": self.told.json(), "lost": self.told.lost(), "bytes": self.bytes,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let first = &self.sources[0];
        let differing = self
            .differing
            .iter()
            .map(|name| format!("{name}: no float, and not equal in all: it is that of {first}"));
        let (tensors, files) = (output::count(self.tensors, "tensor"), self.sources.len());
        let words = format!("{}: {tensors} of {files} files, {} averaged", self.output, self.averaged);
        let line = output::clean(&format!("{words}, {}", output::size(self.bytes)));
        let not_finite = self.not_finite.iter().map(|(name, count)| {
            format!("{name}: {} of the average NaN or infinite", output::count(*count as usize, "value"))
        });
        Ok(self.told.add_to(Text::default()).warnings(differing).warnings(not_finite).lines(line))
    }

    fn end(self: Box<Self>) -> Done {
        let is_whole = self.differing.is_empty() && self.not_finite.is_empty() && self.told.lost() == 0;
        Ok(if is_whole { Exit::Ok } else { Exit::No })
    }
}

/// The share of each file. With `--ema D` the oldest comes first, and each further one has 1 - D of
/// what is then: e = D e + (1 - D) x.
fn weights(args: &Merge) -> Result<Vec<f64>> {
    let count = args.targets.len();
    if count < 2 {
        return Err(Error::new(ErrorKind::Invalid, "one file is no average").expected("two files or more"));
    }
    if let Some(decay) = args.ema {
        let newer = |age: usize| (1.0 - decay) * decay.powi(age as i32);
        let first = decay.powi(count as i32 - 1);
        return Ok(std::iter::once(first).chain((0..count - 1).rev().map(newer)).collect());
    }
    if args.weights.is_empty() {
        return Ok(vec![1.0 / count as f64; count]);
    }
    let sum: f64 = args.weights.iter().sum();
    if args.weights.len() != count {
        let error = Error::new(ErrorKind::Invalid, "as many weights as files are wanted");
        return Err(error.expected(count).found(args.weights.len()));
    }
    let is_one = (sum - 1.0).abs() <= TOLERANCE;
    if !is_one {
        return Err(Error::new(ErrorKind::Invalid, "the weights are no average")
            .expected("numbers that add up to 1")
            .found(format!("a sum of {sum}")));
    }
    Ok(args.weights.clone())
}

/// That two files have the same tensors by name, dtype and shape.
fn check_alike(base: &Opened, metas: &[Meta], other: &Opened) -> Result<()> {
    let differs = |what: String| {
        Error::new(ErrorKind::Mismatch, what).in_object(other.name()).help(format!(
            "`tensorkeep diff {} {}` lists all that differs",
            base.name(),
            other.name()
        ))
    };
    let others = other.tensors();
    for meta in metas {
        let there = others.iter().find(|there| there.name == meta.name);
        let there = there.ok_or_else(|| differs(format!("has no tensor {:?}", meta.name)))?;
        if (there.dtype, &there.shape) != (meta.dtype, &meta.shape) {
            return Err(differs("the tensor is another".to_owned())
                .in_tensor(&meta.name)
                .expected(format!("{} {}", meta.dtype_text(), meta.shape_text()))
                .found(format!("{} {}", there.dtype_text(), there.shape_text())));
        }
    }
    match others.len() - metas.len() {
        0 => Ok(()),
        more => Err(differs(format!("has {} more", output::count(more, "tensor")))),
    }
}

fn is_averaged(meta: &Meta) -> bool {
    matches!(meta.dtype, Ok(Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64))
}

struct Plan<'o> {
    files: &'o [Opened],
    weights: &'o [f64],
    /// Tensors that are not floats and differ between files.
    differing: Mutex<BTreeSet<String>>,
    /// How many NaNs and infinities an average has, by the tensor.
    not_finite: Mutex<BTreeMap<String, u64>>,
}

impl Plan<'_> {
    /// Records, names and aliases are those of the first file.
    fn snapshot(&self, args: &Merge, metas: &[Meta]) -> Result<Snapshot<'_>> {
        let base = &self.files[0];
        let mut snapshot = base.snapshot()?;
        for meta in metas {
            let is_tied =
                |file: &Opened| file.meta(&meta.name).is_ok_and(|there| there.alias_of == meta.alias_of);
            if meta.alias_of.is_some() && self.files.iter().all(is_tied) {
                continue;
            }
            // OK to cast: what does not fit in memory is an error when it is read.
            let shape: Vec<usize> = meta.shape.iter().map(|&dim| dim as usize).collect();
            let Ok(dtype) = meta.dtype else { continue };
            let (name, is_averaged) = (meta.name.clone(), is_averaged(meta));
            let produce = move || if is_averaged { self.average(&name, dtype) } else { self.same(&name) };
            snapshot = snapshot.replace(&meta.name, LazyTensor::new(dtype, &shape, produce))?;
        }
        let share = |(file, weight): (&Opened, &f64)| format!("{} × {weight}", file.name());
        let from = self.files.iter().zip(self.weights).map(share).collect();
        let by = args.ema.map_or("merge".to_owned(), |decay| format!("merge --ema {decay}"));
        let metadata = derived::metadata(base, by, from)?;
        metadata.into_iter().try_fold(snapshot, |snapshot, (key, value)| snapshot.metadata(key, value))
    }

    /// The weighted sum, rounded once.
    fn average(&self, name: &str, dtype: Dtype) -> Result<Tensor<'static>> {
        let mut sum: Vec<f64> = Vec::new();
        let mut shape = Vec::new();
        for (file, weight) in self.files.iter().zip(self.weights) {
            let tensor = file.tensor(name)?.cast(Dtype::F64)?;
            let elements = tensor.elements::<f64>()?;
            if sum.is_empty() {
                sum = elements.iter().map(|element| weight * element).collect();
            } else {
                sum.iter_mut().zip(elements).for_each(|(sum, element)| *sum += weight * element);
            }
            shape = tensor.shape().to_vec();
        }
        let sum = Tensor::from_elements(&shape, &sum)?.cast(dtype)?;
        let bad = numbers::not_finite(dtype, sum.bytes());
        if bad > 0 {
            let mut not_finite = self.not_finite.lock().unwrap_or_else(PoisonError::into_inner);
            not_finite.insert(name.to_owned(), bad);
        }
        Tensor::owned(dtype, &shape, Buffer::copy_of(sum.bytes())?)
    }

    /// What cannot be averaged is that of the first file, and told where another one differs.
    fn same(&self, name: &str) -> Result<Tensor<'_>> {
        let first = self.files[0].tensor(name)?;
        for file in &self.files[1..] {
            if file.tensor(name)?.bytes() != first.bytes() {
                let mut differing = self.differing.lock().unwrap_or_else(PoisonError::into_inner);
                differing.insert(name.to_owned());
                break;
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(count: usize, weights: &[f64], ema: Option<f64>) -> Merge {
        use clap::Parser;
        let files = (0..count).map(|file| format!("{file}.tkeep"));
        let line = ["tensorkeep", "merge", "-o", "x.tkeep"].map(str::to_owned).into_iter().chain(files);
        let crate::args::Verb::Merge(mut merge) = crate::args::Args::parse_from(line).verb else {
            unreachable!("the verb is merge")
        };
        (merge.weights, merge.ema) = (weights.to_vec(), ema);
        merge
    }

    #[test]
    fn weights_are_shares_of_one() {
        assert_eq!(weights(&args(4, &[], None)).unwrap(), [0.25; 4]);
        assert_eq!(weights(&args(2, &[1.5, -0.5], None)).unwrap(), [1.5, -0.5]);
        // e = x0, then e = 0.5 e + 0.5 x1, then the same with x2.
        assert_eq!(weights(&args(3, &[], Some(0.5))).unwrap(), [0.25, 0.25, 0.5]);
        for (count, given) in [(1, &[][..]), (2, &[1.0]), (2, &[0.5, 0.6]), (2, &[f64::NAN, 1.0])] {
            assert_eq!(weights(&args(count, given, None)).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
