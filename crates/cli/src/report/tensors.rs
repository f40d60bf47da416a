//! All tensors of one checkpoint or file as columns, for the tree, the treemap and the tables.

use super::pack;
use crate::budget::Budget;
use crate::numbers::Kind;
use crate::opened::{Meta, Opened};
use crate::output::clean;
use crate::stats::{self, Stats};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensorkeep::Result;

/// Tensors that have a histogram in the page.
const SPARKS: usize = 2_000;

/// Tensors with their numbers, by name.
pub struct Tensors {
    pub all: Vec<(Meta, Option<Stats>)>,
    /// Index by name.
    pub index: BTreeMap<String, usize>,
}

impl Tensors {
    /// Reads all tensors of a checkpoint. Without numbers where they are too many bytes to be
    /// summed for a page, or where nothing is to be read.
    ///
    /// # Errors
    /// Errors of reading that do not concern a single tensor.
    pub fn of(opened: &Opened, with_numbers: bool) -> Result<Self> {
        let mut metas = opened.tensors();
        metas.sort_by(|a, b| crate::names::natural(&a.name, &b.name));
        let readable = with_numbers && Budget::default().check(opened, &metas).is_ok();
        // A tensor with aliases is read once, by its own name.
        let own: Vec<usize> = (0..metas.len()).filter(|&i| metas[i].alias_of.is_none()).collect();
        let mut numbers: Vec<Option<Stats>> = metas.iter().map(|_| None).collect();
        if readable {
            let read: Vec<Meta> = own.iter().map(|&i| metas[i].clone()).collect();
            for (i, stats) in own.into_iter().zip(stats::of(opened, &read)?) {
                numbers[i] = stats.ok().flatten();
            }
        }
        let index = metas.iter().enumerate().map(|(i, meta)| (meta.name.clone(), i)).collect();
        Ok(Self { all: metas.into_iter().zip(numbers).collect(), index })
    }

    /// Names of tensors with NaN, and how many there are.
    pub fn nans(&self) -> impl Iterator<Item = (&Meta, &Stats)> {
        self.all
            .iter()
            .filter_map(|(meta, stats)| Some((meta, stats.as_ref()?)))
            .filter(|(_, stats)| stats.nans > 0)
    }

    /// Elements of all that are not aliases.
    pub fn parameters(&self) -> u64 {
        self.all.iter().filter(|(meta, _)| meta.alias_of.is_none()).map(|(meta, _)| meta.count()).sum()
    }

    /// Elements of the model: of the tensors under `model`, if there are any.
    pub fn model_parameters(&self) -> u64 {
        let model = model_of(self.all.iter().map(|(meta, _)| meta));
        model.iter().filter(|meta| meta.alias_of.is_none()).map(|meta| meta.count()).sum()
    }

    /// The columns.
    pub fn columns(&self, of: &str) -> Json {
        let names: Vec<String> = self.all.iter().map(|(meta, _)| clean(&meta.name)).collect();
        let (mut keep, mut rest, mut before) = (vec![], vec![], "");
        for name in &names {
            let common = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
            let common = (0..=common).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
            // The scripts count UTF-16 units.
            keep.push(name[..common].encode_utf16().count());
            rest.push(&name[common..]);
            before = name;
        }
        let (dtypes, dtype) = dictionary(self.all.iter().map(|(meta, _)| meta.dtype_text()));
        let (shapes, shape) = dictionary(self.all.iter().map(|(meta, _)| meta.shape_text()));
        let of_stats = |number: fn(&Stats) -> f64| {
            let some = |stats: &&Stats| stats.finite > 0;
            let number = move |stats: &Option<Stats>| stats.as_ref().filter(some).map_or(f64::NAN, number);
            pack::f32s(self.all.iter().map(|(_, stats)| number(stats)))
        };
        let own = |at: usize| self.all[at].1.as_ref();
        let nan: Vec<(usize, u64)> = (0..names.len())
            .filter_map(|at| Some((at, own(at)?.bad())).filter(|(_, bad)| *bad > 0))
            .collect();
        let aliases: Vec<(usize, String)> = self
            .all
            .iter()
            .enumerate()
            .filter_map(|(at, (meta, _))| Some((at, clean(meta.alias_of.as_ref()?))))
            .collect();
        let sparks: Vec<u8> = self.all.iter().take(SPARKS).flat_map(|(_, stats)| bars(stats)).collect();
        json!({
            "of": of, "count": names.len(), "keep": keep, "rest": rest,
            "dtypes": dtypes, "dtype": dtype, "shapes": shapes, "shape": shape,
            "values": self.all.iter().map(|(meta, _)| meta.count()).collect::<Vec<_>>(),
            "bytes": self.all.iter().map(|(meta, _)| meta.byte_len).collect::<Vec<_>>(),
            "mean": of_stats(|stats| stats.mean), "std": of_stats(Stats::std), "norm": of_stats(Stats::norm),
            "zeros": of_stats(|stats| stats.zeros as f64 / stats.count.max(1) as f64),
            "min": of_stats(|stats| stats.min), "max": of_stats(|stats| stats.max),
            "nan": nan, "ties": aliases, "bars": stats::BARS, "spark": pack::base64(&sparks),
        })
    }
}

/// Each different text once, and which one each is.
pub fn dictionary(texts: impl Iterator<Item = String>) -> (Vec<String>, Vec<usize>) {
    let (mut all, mut known, mut which) = (Vec::new(), BTreeMap::new(), Vec::new());
    for text in texts {
        let next = all.len();
        let at = *known.entry(text.clone()).or_insert(next);
        if at == next {
            all.push(text);
        }
        which.push(at);
    }
    (all, which)
}

/// A histogram's bars against the highest.
fn bars(stats: &Option<Stats>) -> [u8; stats::BARS] {
    let counts = stats.as_ref().map_or([0; stats::BARS], Stats::histogram);
    let most = f64::from(counts.iter().copied().max().unwrap_or(0).max(1));
    counts.map(|count| (f64::from(count) / most * 255.0).round() as u8)
}

/// The tensors of the model: those under `model` where there are some, else all but the
/// optimizer's. Numbers only.
pub fn model_of<'m>(metas: impl Iterator<Item = &'m Meta>) -> Vec<&'m Meta> {
    const NO_MODEL: [&str; 6] = ["optimizer", "optim", "opt", "rng", "scheduler", "data_order"];
    let all: Vec<&Meta> = metas.collect();
    let first = |meta: &Meta| meta.name.split(['/', '.']).next().unwrap_or_default().to_owned();
    let has_model = all.iter().any(|meta| meta.name.starts_with("model/") || meta.name.starts_with("model."));
    let is_model = |meta: &&Meta| {
        if has_model { first(meta) == "model" } else { !NO_MODEL.contains(&first(meta).as_str()) }
    };
    let is_number = |meta: &&Meta| meta.dtype.ok().and_then(Kind::of).is_some() && meta.byte_len > 0;
    all.into_iter().filter(is_model).filter(is_number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_keeps_the_order_of_first_appearance() {
        let (all, which) = dictionary(["f32", "bf16", "f32"].map(str::to_owned).into_iter());
        assert_eq!((all, which), (vec!["f32".to_owned(), "bf16".to_owned()], vec![0, 1, 0]));
    }
}
