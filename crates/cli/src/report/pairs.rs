//! Any two of a few kept checkpoints, side by side. The page computes nothing: every two of the few
//! are compared here. The cost of reading and the page's size bound how many they are.

use super::layers::evenly;
use super::looked::Looked;
use super::pack;
use super::tensors::Tensors;
use super::{EACH_TENSOR, Options, READ_UP_TO};
use crate::budget::Budget;
use crate::compare::{self, Tolerance, Verdict};
use crate::kept::Kept;
use crate::opened::Opened;
use crate::output::clean;
use crate::records::{self, Change, is_bookkeeping};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::inspect::RESERVED_PREFIX;
use tensorkeep::{CheckpointId, CheckpointInfo, Reader, Result};

/// Checkpoints to pick from: 28 pairs.
const MOST: usize = 8;
/// Numbers of all pairs together.
const NUMBERS: usize = 24_000;
/// Differences in words, where no number describes them, of one pair.
const ODD: usize = 100;
/// Places of records, of one pair and kind.
const PLACES: usize = 40;

/// Checkpoints worth comparing, and why.
pub struct Picks {
    pub best: Option<CheckpointId>,
    pub last_finite: Option<CheckpointId>,
}

/// The pairs for the page; null where there are no two to compare.
///
/// # Errors
/// `NotFound` for requested steps that do not exist; errors of reading them.
pub fn compare(
    reader: &Reader,
    infos: &[CheckpointInfo],
    looked: &Looked,
    kept: &Kept,
    picks: &Picks,
    newest: &Tensors,
    options: &Options,
) -> Result<Json> {
    let asked = match options.diff {
        Some((left, right)) => vec![reader.find(left)?, reader.find(right)?],
        None => vec![],
    };
    let chosen = choose(infos, looked, kept, picks, newest, &asked);
    let mut opened: Vec<(usize, CheckpointId, Opened)> = Vec::new();
    for (at, id) in chosen {
        let side = reader.checkpoint_by_id(id).map(Opened::Own);
        let side = side.and_then(|side| Budget::default().check(&side, &side.tensors()).map(|()| side));
        match side {
            Ok(side) => opened.push((at, id, side)),
            Err(error) if asked.contains(&id) => return Err(error),
            // Not the page's end: it is not offered.
            Err(_) => {}
        }
    }
    if opened.len() < 2 {
        return Ok(Json::Null);
    }
    let mut pairs = Pairs::new(newest);
    for i in 0..opened.len() {
        for j in i + 1..opened.len() {
            pairs.add(&opened[i].2, &opened[j].2)?;
        }
    }
    let label = |id: CheckpointId| match id {
        id if Some(id) == picks.best => "best",
        id if Some(id) == picks.last_finite => "last finite",
        id if looked.resume == Some(id) => "newest",
        _ => "",
    };
    let index = |id: &CheckpointId| opened.iter().position(|(_, other, _)| other == id);
    let first = match asked.as_slice() {
        [left, right] => index(left).zip(index(right)),
        _ => None,
    };
    let picked: Vec<usize> = opened.iter().map(|(at, ..)| *at).collect();
    let labels: Vec<&str> = opened.iter().map(|(_, id, _)| label(*id)).collect();
    Ok(pairs.json(&picked, &labels, first))
}

/// The requested ones, the first and the newest, the best, the last finite, the pinned, and of the
/// others some, evenly.
fn choose(
    infos: &[CheckpointInfo],
    looked: &Looked,
    kept: &Kept,
    picks: &Picks,
    newest: &Tensors,
    asked: &[CheckpointId],
) -> Vec<(usize, CheckpointId)> {
    let sound: Vec<&CheckpointInfo> =
        infos.iter().filter(|info| info.state.is_ok() && !looked.damaged.contains_key(&info.id)).collect();
    let tensors = newest.all.len().max(1);
    let is_special = |info: &&&CheckpointInfo| {
        info.pinned || kept.get(&info.id).is_some_and(|why| why.iter().any(|why| why.starts_with("best")))
    };
    let order = asked.iter().copied();
    let order = order.chain(sound.first().map(|info| info.id)).chain(sound.last().map(|info| info.id));
    let order = order.chain(picks.best).chain(picks.last_finite);
    let order = order.chain(sound.iter().rev().filter(is_special).take(2).map(|info| info.id));
    let order = order.chain(evenly(sound.len(), MOST).into_iter().map(|at| sound[at].id));
    let len = |id: &CheckpointId| {
        let bytes = infos.iter().find(|info| info.id == *id).map_or(0, |info| info.byte_len);
        bytes + tensors as u64 * EACH_TENSOR
    };
    let mut chosen: Vec<CheckpointId> = Vec::new();
    for id in order {
        if chosen.contains(&id) || !sound.iter().any(|info| info.id == id) {
            continue;
        }
        let cost: u64 = chosen.iter().chain([&id]).map(len).fold(0, u64::saturating_add);
        let count = chosen.len() + 1;
        let pairs = count * (count - 1) / 2;
        let is_too_much = cost.saturating_mul(count as u64 - 1) > READ_UP_TO || pairs * tensors > NUMBERS;
        if count > 2 && (count > MOST || is_too_much) {
            break;
        }
        chosen.push(id);
    }
    chosen.sort_by_key(|id| (id.step, id.attempt));
    let at = |id: CheckpointId| infos.iter().position(|info| info.id == id);
    chosen.into_iter().filter_map(|id| Some((at(id)?, id))).collect()
}

/// Every two, in the order of the page: first with second, first with third, ...
struct Pairs<'t> {
    newest: &'t Tensors,
    tensors: Vec<usize>,
    relative: Vec<f64>,
    angle: Vec<f64>,
    odd: Vec<(usize, usize, String)>,
    changes: Vec<Vec<Change>>,
}

impl<'t> Pairs<'t> {
    fn new(newest: &'t Tensors) -> Self {
        let own = |at: &usize| newest.all[*at].0.alias_of.is_none();
        let tensors = (0..newest.all.len()).filter(own).collect();
        Self {
            newest,
            tensors,
            relative: Vec::new(),
            angle: Vec::new(),
            odd: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn add(&mut self, left: &Opened, right: &Opened) -> Result<()> {
        let verdicts = compare::all(left, right, None, Tolerance { rtol: 1e-5, atol: 1e-8 })?;
        let (pair, mut odd) = (self.changes.len(), 0);
        for (row, &at) in self.tensors.iter().enumerate() {
            let verdict = verdicts.get(&self.newest.all[at].0.name);
            let (relative, angle, words) = numbers(verdict);
            self.relative.push(relative);
            self.angle.push(angle);
            if let Some(words) = words.filter(|_| odd < ODD) {
                self.odd.push((pair, row, words));
                odd += 1;
            }
        }
        let readable = |side: &Opened| -> Vec<_> {
            side.records().into_iter().filter_map(|(name, value)| Some((name, value.ok()?))).collect()
        };
        self.changes.push(records::changes(&readable(left), &readable(right)));
        Ok(())
    }

    fn json(&self, picked: &[usize], labels: &[&str], first: Option<(usize, usize)>) -> Json {
        let always = self.always();
        let records: Vec<Json> = self.changes.iter().map(|changes| sorted(changes, &always)).collect();
        json!({
            "pick": picked, "labels": labels, "first": first, "tensors": self.tensors,
            "rel": pack::log_scale(&self.relative), "angle": pack::log_scale(&self.angle),
            "odd": self.odd, "records": records,
        })
    }

    /// Places of records that differ in all pairs, or nearly, because every step changes them.
    fn always(&self) -> BTreeSet<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for change in self.changes.iter().flatten() {
            *counts.entry(&change.path).or_default() += 1;
        }
        let most = self.changes.len();
        let nearly = |count: &usize| most >= 3 && count * 10 >= most * 9;
        counts.iter().filter(|(_, count)| nearly(count)).map(|(path, _)| (*path).to_owned()).collect()
    }
}

/// Relative L2, the angle in degrees, and words where numbers do not say it.
fn numbers(verdict: Option<&Verdict>) -> (f64, f64, Option<String>) {
    match verdict {
        Some(Verdict::Equal) => (0.0, 0.0, None),
        Some(verdict) => match verdict.distance() {
            Some(distance) => {
                let angle = distance.cosine().clamp(-1.0, 1.0).acos().to_degrees();
                (distance.relative(), angle, None)
            }
            None => {
                let words = match verdict {
                    Verdict::Incompatible(what) => format!("not comparable: {what}"),
                    Verdict::OnlyLeft => "only in the older".to_owned(),
                    Verdict::OnlyRight => "only in the newer".to_owned(),
                    Verdict::OtherBytes => "other bytes".to_owned(),
                    verdict => verdict.word().to_owned(),
                };
                (f64::NAN, f64::NAN, Some(clean(&words)))
            }
        },
        None => (f64::NAN, f64::NAN, Some("in neither".to_owned())),
    }
}

/// Changes of the configuration, other changes, and the number of those that every step makes.
fn sorted(changes: &[Change], always: &BTreeSet<String>) -> Json {
    let (mut settings, mut others, mut every) = (vec![], vec![], 0);
    for change in changes {
        let short = |side: &Option<String>| side.as_ref().map(|text| super::words::shorten(text, 80));
        let place = (change.path.clone(), short(&change.left), short(&change.right));
        let is_rate = change.path.rsplit('.').next().is_some_and(|key| key == "lr" || key == "learning_rate");
        match () {
            () if is_config(&change.path) => settings.push(place),
            // One that was logged is a curve.
            () if is_rate && !change.path.starts_with(RESERVED_PREFIX) => others.push(place),
            () if always.contains(&change.path) || is_bookkeeping(&change.path) => every += 1,
            () => others.push(place),
        }
    }
    settings.truncate(PLACES);
    others.truncate(PLACES);
    json!({ "config": settings, "changed": others, "every": every })
}

/// Places of settings: the metadata that the program gave, and records that are named for them.
fn is_config(path: &str) -> bool {
    const NAMES: [&str; 6] = ["config", "args", "hparams", "hyperparameters", "settings", "params"];
    path.starts_with("tensorkeep.metadata.")
        || path.split('.').next().is_some_and(|name| NAMES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_apart_from_what_every_step_changes() {
        let change = |path: &str| Change { path: path.to_owned(), left: None, right: Some("1".to_owned()) };
        let changes =
            ["optimizer.lr", "config.seed", "a.step", "x.noise", "tensorkeep.metrics.lr"].map(change);
        let always = BTreeSet::from(["x.noise".to_owned(), "optimizer.lr".to_owned()]);
        let found = sorted(&changes, &always);
        assert_eq!(found["config"][0][0], "config.seed");
        assert_eq!(found["changed"], json!([["optimizer.lr", null, "1"]]));
        assert_eq!(found["every"], 3);
    }
}
