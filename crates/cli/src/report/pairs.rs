//! Checkpoints side by side. Owns: which ones can be compared on the page, and the picker of two of
//! them. The page computes nothing: every two of the few are compared here, and the page shows the
//! pair that is picked.

use super::{Cell, Options, escape, section, table};
use crate::budget::Budget;
use crate::compare::{self, Tolerance, Verdict};
use crate::opened::Opened;
use crate::output;
use crate::records::{self, Change};
use crate::verbs::ls::Kept;
use std::collections::BTreeMap;
use tensorkeep::{CheckpointId, CheckpointInfo, Reader, Result};

/// Checkpoints to pick from: 15 pairs.
const MOST: usize = 6;
/// Bytes read for it, about: a few seconds. Two are compared whatever their size.
const READ_UP_TO: u64 = 8 << 30;
/// Rows of all pairs together: the page stays below 1 MB.
const ROWS: usize = 750;

/// Two checkpoints, compared.
pub struct Pair {
    pub left: CheckpointId,
    pub right: CheckpointId,
    verdicts: BTreeMap<String, Verdict>,
    changes: Vec<Change>,
}

/// Every two of the checkpoints that are worth it; first the two that were asked for, else the
/// oldest and the newest.
pub fn compare(
    reader: &Reader,
    intact: &[&CheckpointInfo],
    kept: &Kept,
    options: &Options,
) -> Result<Vec<Pair>> {
    let asked = match options.diff {
        Some((left, right)) => Some((reader.find(left)?, reader.find(right)?)),
        None => None,
    };
    let names = choose(intact, kept, asked);
    let older = |i: usize, j: usize| (names[i].min(names[j]), names[i].max(names[j]));
    let all = (0..names.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    let mut pairs = Vec::new();
    for (i, j) in all {
        let is_asked = asked.is_some() && (i, j) == (0, 1);
        let (left, right) = if is_asked { (names[0], names[1]) } else { older(i, j) };
        match pair(reader, left, right) {
            Ok(pair) => pairs.push(pair),
            Err(error) if is_asked => return Err(error),
            // Not the page's end: the damage is shown, and the pair is not.
            Err(_) => {}
        }
    }
    Ok(pairs)
}

/// Those that were asked for, the oldest and the newest, those that are kept for a reason of their
/// own, and newer ones first.
fn choose(
    intact: &[&CheckpointInfo],
    kept: &Kept,
    asked: Option<(CheckpointId, CheckpointId)>,
) -> Vec<CheckpointId> {
    let readable = || intact.iter().map(|info| info.name);
    let special = |name: &CheckpointId| {
        kept.get(name)
            .is_some_and(|why| why.iter().any(|why| why.starts_with("best") || why.starts_with("resumed")))
    };
    let order = asked.into_iter().flat_map(|(left, right)| [left, right]);
    let order = order.chain(readable().next()).chain(readable().next_back());
    let order = order.chain(readable().rev().filter(special)).chain(readable().rev());
    let mut chosen: Vec<CheckpointId> = Vec::new();
    let len = |name: &CheckpointId| intact.iter().find(|info| info.name == *name).map_or(0, |info| info.len);
    for name in order {
        if chosen.contains(&name) {
            continue;
        }
        let sum: u64 = chosen.iter().chain([&name]).map(len).sum();
        if chosen.len() >= 2 && (chosen.len() == MOST || sum.saturating_mul(chosen.len() as u64) > READ_UP_TO)
        {
            break;
        }
        chosen.push(name);
    }
    chosen
}

fn pair(reader: &Reader, left: CheckpointId, right: CheckpointId) -> Result<Pair> {
    let (a, b) = (Opened::Own(reader.checkpoint_by_id(left)?), Opened::Own(reader.checkpoint_by_id(right)?));
    for side in [&a, &b] {
        Budget::default().check(side, &side.tensors())?;
    }
    let verdicts = compare::all(&a, &b, None, Tolerance { rtol: 1e-5, atol: 1e-8 })?;
    let readable = |side: &Opened| -> Vec<_> {
        side.records().into_iter().filter_map(|(name, value)| Some((name, value.ok()?))).collect()
    };
    let changes = records::changes(&readable(&a), &readable(&b));
    Ok(Pair { left, right, verdicts, changes })
}

/// The names that can be picked, oldest first.
pub fn names(pairs: &[Pair]) -> Vec<CheckpointId> {
    let mut names: Vec<CheckpointId> = pairs.iter().flat_map(|pair| [pair.left, pair.right]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub fn diff(pairs: &[Pair]) -> String {
    let Some(first) = pairs.first() else { return String::new() };
    let names = names(pairs);
    let picker = |label: &str, picked: CheckpointId| {
        let options: String = names
            .iter()
            .map(|name| {
                let selected = if *name == picked { " selected=\"\"" } else { "" };
                let text = format!("step {}, attempt {}", name.step, name.attempt);
                format!("<option value=\"{name}\"{selected}>{text}</option>")
            })
            .collect();
        format!("<label>{label} <select>{options}</select></label> ")
    };
    let mut body = format!("<p class=\"pick\">{}{}", picker("from", first.left), picker("to", first.right));
    if names.len() > 2 {
        body.push_str("<span class=\"dim\">or click two ringed checkpoints above</span>");
    }
    body.push_str("</p><p class=\"same dim\" hidden=\"\">Pick two that are not the same.</p>");
    let rows = ROWS / pairs.len();
    pairs.iter().enumerate().for_each(|(number, pair)| body.push_str(&block(pair, rows, number > 0)));
    section("diff", "Two checkpoints side by side", &body)
}

fn block(pair: &Pair, rows: usize, hidden: bool) -> String {
    let Pair { left, right, verdicts, changes } = pair;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    verdicts.values().for_each(|verdict| *counts.entry(verdict.word()).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let hidden = if hidden { " hidden=\"\"" } else { "" };
    format!(
        "<div class=\"pair\" data-pair=\"{left} {right}\"{hidden}><h3>From {left} to {right}: {}</h3>{}<h3>records</h3>{}</div>",
        escape(&counts.join(", ")),
        tensors(verdicts, rows),
        changed(changes, rows.clamp(20, 200)),
    )
}

/// Those that differ most first.
fn tensors(verdicts: &BTreeMap<String, Verdict>, rows: usize) -> String {
    let mut differing: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict.word() != "equal").collect();
    let relative = |verdict: &Verdict| verdict.distance().map_or(f64::MAX, compare::Distance::relative);
    differing.sort_by(|(_, a), (_, b)| relative(b).total_cmp(&relative(a)));
    if differing.is_empty() {
        return String::new();
    }
    let left_out = differing.len().saturating_sub(rows);
    let row = |(name, verdict): &(&String, &Verdict)| {
        let what = match verdict {
            Verdict::Incompatible(what) => format!("incompatible: {what}"),
            verdict => verdict.word().to_owned(),
        };
        let mut row = vec![Cell::text(name), Cell::text(&what)];
        if let Some(distance) = verdict.distance() {
            let numbers = [distance.max(), distance.relative(), distance.cosine()];
            row.extend(numbers.map(|value| Cell::number(&output::number(value), value)));
            row.push(Cell::number(&distance.ulp.to_string(), distance.ulp as f64));
        }
        row
    };
    let cells: Vec<Vec<Cell>> = differing.iter().take(rows).map(row).collect();
    let mut html = table(&["tensor", "verdict", "max |d|", "relative L2", "cosine", "ulp"], &cells);
    if left_out > 0 {
        html.push_str(&format!(
            "<p class=\"dim\">{left_out} that differ less are not listed; <code>tensorkeep diff</code> lists all.</p>"
        ));
    }
    html
}

/// Places at which records differ.
pub fn changed(changes: &[Change], rows: usize) -> String {
    if changes.is_empty() {
        return "<p class=\"dim\">No record differs.</p>".to_owned();
    }
    let side = |side: &Option<String>| Cell::text(side.as_deref().unwrap_or("–"));
    let row = |change: &Change| vec![Cell::text(&change.path), side(&change.left), side(&change.right)];
    table(&["place", "before", "after"], &changes.iter().take(rows).map(row).collect::<Vec<_>>())
}
