//! The page's data as JSON, schema `tensorkeep.report.v2`; `page/data.d.ts` describes
//! each field.

use super::cost;
use super::damage;
use super::facts::Facts;
use super::run::Run;
use super::story::Attempt;
use super::tensors::{Tensors, dictionary};
use crate::metrics;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

/// Metrics that have a column in the table of checkpoints.
const METRICS: usize = 8;

/// Bits of a checkpoint's state.
const VERIFIED: u8 = 1;
const DAMAGED: u8 = 2;
const HAS_NAN: u8 = 4;
const LOOKED_FOR_NAN: u8 = 8;
const PINNED: u8 = 16;
const UNREADABLE: u8 = 32;

pub fn json(run: &Run, facts: &Facts) -> Json {
    let title = run.options.title.trim_end_matches('/');
    let name = title.rsplit('/').next().unwrap_or(title);
    let empty = Tensors { all: vec![], index: Default::default() };
    let tensors = run.tensors.as_ref().unwrap_or(&empty);
    let of = run.looked.resume.map_or_else(String::new, |id| format!("step {}", super::words::int(id.step)));
    let layers = run.layers.as_ref().map(|layers| layers.json(tensors, run.infos.len()));
    let (heat, ridge) = layers.unwrap_or((Json::Null, Json::Null));
    json!({
        "schema": "tensorkeep.report.v2",
        "kind": "run",
        "generated": crate::output::now(),
        "version": env!("CARGO_PKG_VERSION"),
        "live": run.options.live,
        "run": {
            "name": crate::output::clean(name), "path": crate::output::clean(title), "state": facts.now.key(),
            "step": facts.reached, "total": facts.total, "per_epoch": run.story.per_epoch,
            "has_history": run.story.has_history,
        },
        "attempts": run.story.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "clock": run.story.clock(),
        "metrics": run.story.metrics(),
        "saves": cost::json(run),
        "checkpoints": checkpoints(run),
        "tensors": tensors.columns(&of),
        "heat": heat,
        "ridge": ridge,
        "pairs": run.pairs,
        "damage": damage::json(run),
    })
}

fn attempt(attempt: &Attempt) -> Json {
    json!({
        "n": attempt.number, "host": attempt.host, "first": attempt.first, "last": attempt.last,
        "start": attempt.start, "stop": attempt.stop, "end": attempt.end.key(),
        "placed": attempt.is_placed, "resumed_from": attempt.resumed_from, "lost": attempt.lost, "saves": attempt.saves,
    })
}

fn checkpoints(run: &Run) -> Json {
    let infos = &run.infos;
    let why = infos.iter().map(|info| match run.kept.get(&info.id) {
        Some(why) => why.iter().map(|why| crate::output::clean(why)).collect::<Vec<_>>().join("\n"),
        None => String::new(),
    });
    let (reasons, why) = dictionary(why);
    let saved_at = |info: &tensorkeep::CheckpointInfo| info.state.as_ref().map_or(0, |state| state.saved_at);
    json!({
        "step": infos.iter().map(|info| info.id.step).collect::<Vec<_>>(),
        "attempt": infos.iter().map(|info| info.id.attempt).collect::<Vec<_>>(),
        "t": infos.iter().map(saved_at).collect::<Vec<_>>(),
        "size": infos.iter().map(|info| info.byte_len).collect::<Vec<_>>(),
        "flags": infos.iter().map(|info| flags(run, info)).collect::<Vec<_>>(),
        "why": why,
        "reasons": reasons,
        "m": metrics(run),
    })
}

fn flags(run: &Run, info: &tensorkeep::CheckpointInfo) -> u8 {
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    let nan = run.has_nan(info.id);
    bit(run.looked.verified.contains(&info.id), VERIFIED)
        | bit(run.looked.damaged.contains_key(&info.id), DAMAGED)
        | bit(nan == Some(true), HAS_NAN)
        | bit(nan.is_some(), LOOKED_FOR_NAN)
        | bit(info.pinned, PINNED)
        | bit(info.state.is_err(), UNREADABLE)
}

/// The metrics of each checkpoint: those with a direction first.
fn metrics(run: &Run) -> Json {
    let states = || run.infos.iter().map(|info| info.state.as_ref().ok());
    let saved: BTreeSet<&str> = states().flatten().flat_map(|state| metrics::of(state).into_keys()).collect();
    let mut names: Vec<&str> = saved.into_iter().collect();
    let has_mode = |name: &str| run.story.metrics.get(name).is_some_and(|series| series.mode.is_some());
    names.sort_by_key(|name| !has_mode(name));
    names.truncate(METRICS);
    let mut columns = Map::new();
    for name in names {
        let value = |value: f64| if value.is_finite() { super::pack::number(value) } else { "NaN".into() };
        let cell = |state: Option<&tensorkeep::store::CheckpointMeta>| {
            state.and_then(|state| metrics::one(state, name)).map_or(Json::Null, value)
        };
        columns.insert(crate::output::clean(name), states().map(cell).collect());
    }
    Json::Object(columns)
}
