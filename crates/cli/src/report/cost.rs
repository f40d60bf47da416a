//! What the checkpoints cost: bytes, bytes per hour, and when the disk is full.

use super::data::Run;
use super::{Options, escape, section};
use crate::output;

pub fn cost(run: &Run, options: &Options) -> String {
    let total: u64 = run.infos.iter().map(|info| info.len).sum();
    let mut facts = vec![
        ("checkpoints", run.infos.len().to_string()),
        ("together", output::size(total)),
        ("each, on average", output::size(total / (run.infos.len() as u64).max(1))),
    ];
    let rate = rate(run);
    facts.extend(rate.map(|rate| ("written per hour, while training", output::size(rate as u64))));
    if let Some(free) = options.free_bytes {
        facts.push(("free", output::size(free)));
        facts.push(("the disk is full", full(run, rate, free)));
    }
    let facts: String = facts
        .iter()
        .map(|(what, value)| {
            format!("<div class=\"fact\"><span class=\"dim\">{what}</span><b>{}</b></div>", escape(value))
        })
        .collect();
    let stall =
        "<p class=\"dim\">How long each save held training up is not recorded in the checkpoints.</p>";
    section("cost", "Cost", &format!("<div class=\"facts\">{facts}</div>{stall}"))
}

/// Bytes per hour of the newest attempt that saved more than once: its saves, those deleted since included, are at
/// least as far apart as its remaining ones suggest.
fn rate(run: &Run) -> Option<f64> {
    let attempt = run.infos.last()?.name.attempt;
    let saves: Vec<(u64, u64)> = run
        .infos
        .iter()
        .filter(|info| info.name.attempt == attempt)
        .filter_map(|info| Some((info.state.as_ref().ok()?.saved_at, info.len)))
        .collect();
    let hours = saves.last()?.0.checked_sub(saves.first()?.0)? as f64 / 3600.0;
    let bytes: u64 = saves.iter().skip(1).map(|(_, len)| len).sum();
    (hours > 0.0).then(|| bytes as f64 / hours)
}

fn full(run: &Run, rate: Option<f64>, free: u64) -> String {
    let keeps_all = run.keep.as_ref().is_none_or(|keep| keep.to_string().contains("all"));
    match rate {
        _ if !keeps_all => "not by this run: old ones are deleted".to_owned(),
        Some(rate) => match free as f64 / rate.max(1.0) {
            hours if hours < 48.0 => format!("in {hours:.1} hours of training"),
            hours => format!("in {:.0} days of training", hours / 24.0),
        },
        None => "not known yet".to_owned(),
    }
}
