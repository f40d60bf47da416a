//! What the checkpoints cost: bytes, bytes per hour, when the disk is full, and how long training
//! stood still for them.

use super::data::Run;
use super::{Options, escape, section};
use crate::output;
use std::time::Duration;
use tensorkeep::store::SaveCost;

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
    let costs: Vec<&SaveCost> = run.states().filter_map(|(_, state)| state.previous.as_ref()).collect();
    facts.extend(times(&costs));
    let facts: String = facts
        .iter()
        .map(|(what, value)| {
            format!("<div class=\"fact\"><span class=\"dim\">{what}</span><b>{}</b></div>", escape(value))
        })
        .collect();
    let note = if costs.is_empty() {
        "<p class=\"dim\">How long training stood still is known from an attempt's second save on.</p>"
            .to_owned()
    } else {
        let saves = output::count(costs.len(), "save");
        format!(
            "<p class=\"dim\">Times are those of {saves}: each checkpoint tells of the save before it.</p>"
        )
    };
    section("cost", "Cost", &format!("<div class=\"facts\">{facts}</div>{note}"))
}

/// How long the saves took and how long training stood still for them, as the checkpoints after
/// them tell.
fn times(costs: &[&SaveCost]) -> Vec<(&'static str, String)> {
    let Some(worst) = costs.iter().max_by_key(|cost| cost.stall) else { return vec![] };
    let median = |time: fn(&SaveCost) -> Duration| {
        let mut times: Vec<Duration> = costs.iter().map(|cost| time(cost)).collect();
        times.sort_unstable();
        output::duration(times[times.len() / 2])
    };
    vec![
        ("training stands still for a save, median", median(|cost| cost.stall)),
        ("at worst", format!("{}, for step {}", output::duration(worst.stall), worst.step)),
        ("a save takes until it is durable, median", median(|cost| cost.took)),
    ]
}

/// Bytes per hour of the newest attempt that saved more than once: its saves, those deleted since
/// included, are at least as far apart as its remaining ones suggest.
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
