//! The page's plain parts: can it be resumed, what differs, what is damaged, what changed, the
//! list.

use super::data::{Damaged, Run, Tensors};
use super::pairs::changed;
use super::{Cell, escape, section, table};
use crate::output;
use crate::verbs::ls;

pub fn resume(run: &Run) -> String {
    let damaged = run.damaged.iter().filter(|damaged| !damaged.name.starts_with("damaged/")).count();
    let verdict = match (&run.newest, run.infos.len()) {
        (_, 0) => "<p class=\"verdict warn\">No checkpoints yet: a start begins from nothing.</p>".to_owned(),
        (None, _) => "<p class=\"verdict wrong\">No: none of the checkpoints verifies.</p>".to_owned(),
        (Some((name, tensors)), _) if damaged == 0 => {
            let class = if bad(tensors).is_empty() { "good" } else { "warn" };
            format!(
                "<p class=\"verdict {class}\">Yes, from step {}.</p><p>{name} is the newest, and every byte of it verifies.</p>{}",
                name.step,
                bad(tensors)
            )
        }
        (Some((name, tensors)), _) => format!(
            "<p class=\"verdict warn\">Yes, from step {}, with a loss.</p><p>{damaged} newer than {name} cannot be used and will be set aside; {name} verifies.</p>{}",
            name.step,
            bad(tensors)
        ),
    };
    let policy = match &run.keep {
        Some(keep) => format!("<p class=\"dim\">Kept: {}</p>", escape(&keep.to_string())),
        None => "<p class=\"dim\">The run does not say its retention policy.</p>".to_owned(),
    };
    section("resume", "Can it be resumed?", &format!("{verdict}{policy}"))
}

/// What verifies and is no number to go on with.
fn bad(tensors: &Tensors) -> String {
    let bad = tensors.iter().filter(|(_, stats)| stats.as_ref().is_some_and(|stats| stats.bad() > 0));
    let names: Vec<&str> = bad.map(|(meta, _)| meta.name.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        [first, ..] => format!(
            "<p class=\"wrong\">{} with NaN or Inf, {} among them: training goes on from these.</p>",
            output::count(names.len(), "tensor"),
            escape(first)
        ),
    }
}

/// Cells of a chunk map.
const CELLS: usize = 440;

pub fn damage(run: &Run) -> String {
    if run.damaged.is_empty() {
        return section("damage", "Damage", &format!("<p class=\"good\">None found.</p>{}", verified(run)));
    }
    let body: String = run.damaged.iter().take(20).map(damaged).collect();
    section("damage", "Damage", &format!("{body}{}", verified(run)))
}

/// What the absence of damage on this page rests on.
fn verified(run: &Run) -> String {
    let newer = run.infos.iter().filter(|info| run.is_damaged(info)).count();
    let read = newer + usize::from(run.newest.is_some());
    let text = match run.infos.len().saturating_sub(read) {
        0 => "Every checkpoint was verified.".to_owned(),
        rest => format!("From the newest back, {read} were verified; {rest} older ones were not."),
    };
    format!("<p class=\"dim\">{text}</p>")
}

/// What is known of a checkpoint. Of most only the index was read.
fn state_of(run: &Run, info: &tensorkeep::CheckpointInfo) -> &'static str {
    let is_newest = run.newest.as_ref().is_some_and(|(name, _)| *name == info.name);
    match (run.is_damaged(info), is_newest, info.pinned) {
        (true, ..) => "damaged",
        (_, true, true) => "verified, pinned",
        (_, true, _) => "verified",
        (.., true) => "not verified, pinned",
        _ => "not verified",
    }
}

fn damaged(damaged: &Damaged) -> String {
    let mut html = format!("<h3>{}</h3>", escape(&damaged.name));
    if damaged.len > 0 {
        html.push_str(&map(damaged));
    }
    let errors: String = damaged
        .errors
        .iter()
        .take(20)
        .map(|error| format!("<li>{}</li>", escape(&error.to_string())))
        .collect();
    html.push_str(&format!("<ul class=\"wrong\">{errors}</ul>"));
    html
}

/// The file as a row of cells: damaged ones red. A cell is a share of the file.
fn map(damaged: &Damaged) -> String {
    let cell_of = |byte: u64| (byte as u128 * CELLS as u128 / u128::from(damaged.len.max(1))) as usize;
    let (mut data, mut bad) = (vec![false; CELLS + 1], vec![false; CELLS + 1]);
    for &(offset, len) in &damaged.chunks {
        let cells = cell_of(offset)..=cell_of(offset + u64::from(len)).min(CELLS);
        let is_bad = damaged.errors.iter().any(|error| error.byte() == Some(offset));
        for cell in cells {
            data[cell] = true;
            bad[cell] |= is_bad;
        }
    }
    damaged
        .errors
        .iter()
        .filter_map(tensorkeep::Error::byte)
        .for_each(|byte| bad[cell_of(byte).min(CELLS)] = true);
    let path = |wanted: &dyn Fn(usize) -> bool| -> String {
        (0..CELLS)
            .filter(|&cell| wanted(cell))
            .map(|cell| format!("M{} 0h2v22h-2z", cell as f64 * 2.5))
            .collect()
    };
    format!(
        "<svg viewBox=\"0 0 1100 22\" width=\"100%\"><path fill=\"var(--line)\" d=\"{}\"/><path fill=\"var(--accent)\" d=\"{}\"/><path fill=\"var(--bad)\" d=\"{}\"/></svg>",
        path(&|cell| !data[cell] && !bad[cell]),
        path(&|cell| data[cell] && !bad[cell]),
        path(&|cell| bad[cell])
    )
}

pub fn records(run: &Run) -> String {
    let body: String = run
        .changes
        .iter()
        .rev()
        .take(10)
        .map(|(before, after, list)| format!("<h3>attempt {before} → {after}</h3>{}", changed(list, 200)))
        .collect();
    match body.is_empty() {
        true => String::new(),
        false => section("records", "What changed between attempts", &body),
    }
}

/// Checkpoints listed, newest first.
const LISTED: usize = 500;

pub fn checkpoints(run: &Run) -> String {
    let now = output::now();
    let rows: Vec<Vec<Cell>> = run
        .infos
        .iter()
        .rev()
        .take(LISTED)
        .map(|info| {
            let kept = run.kept.get(&info.name).map(|why| why.iter().cloned().collect::<Vec<_>>().join(", "));
            let (age, metrics, why, state) = match &info.state {
                Ok(state) => (state.saved_at, ls::metrics(state), state.why.clone(), state_of(run, info)),
                Err(error) => (0, String::new(), String::new(), error.kind().as_str()),
            };
            vec![
                Cell::number(&info.name.step.to_string(), info.name.step as f64),
                Cell::number(&info.name.attempt.to_string(), f64::from(info.name.attempt)),
                Cell::number(&output::age(age, now), now.saturating_sub(age) as f64),
                Cell::number(&output::size(info.len), info.len as f64),
                Cell::text(&metrics),
                Cell::text(&why),
                Cell::text(&kept.unwrap_or_else(|| "goes with the next save".to_owned())),
                Cell::text(state).bad(info.state.is_err() || run.is_damaged(info)),
            ]
        })
        .collect();
    let header = ["step", "attempt", "age", "size", "metrics", "saved because", "kept because", "state"];
    section("checkpoints", "Checkpoints", &table(&header, &rows))
}
