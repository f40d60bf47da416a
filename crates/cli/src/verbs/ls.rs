//! `ls RUN`: its checkpoints, oldest first, why each is kept, and which one a resume would look at
//! first. Only indexes are read: what verifies is `verify`'s to say, and `why`'s. Of a folder that
//! holds runs, it lists those.

use crate::exit::Exit;
use crate::output::Cell;
use crate::place::{Place, runs_in};
use crate::{Done, output};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use tensorkeep::{
    CheckpointId, CheckpointInfo, Keep, Reader, Result, store::CheckpointMeta, store::SaveCost,
};

/// Lists a run, or the runs in a folder.
///
/// # Errors
/// `NotFound` when there is no such folder, when it is no run and holds none, and when there is
/// nothing at the URL.
pub fn run(run: &OsStr, json: bool) -> Done {
    let place = Place::new(run);
    let reader = place.reader()?;
    let infos = reader.list()?;
    if infos.is_empty()
        && let Err(error) = place.check_exists(&reader)
    {
        return match place.folder().map(runs_in) {
            Some(runs) if !runs.is_empty() => list_runs(&place, &runs, json),
            _ => Err(error),
        };
    }
    let (keep, kept) = kept(&reader, &infos)?;
    let first = infos.iter().rev().find(|info| info.state.is_ok()).map(|info| info.name);
    if json {
        let checkpoints: Vec<_> = infos.iter().map(|info| as_json(info, kept.get(&info.name))).collect();
        let document = json!({
            "run": place.to_string(),
            "checkpoints": checkpoints,
            "policy": keep.map(|keep| keep.to_string()),
            "resume_tries_first": first.map(|name| name.to_string()),
            "verified": false,
            "set_aside": reader.set_aside()?,
        });
        output::print_json("ls", document)?;
        return Ok(Exit::Ok);
    }
    if infos.is_empty() {
        output::print(output::clean(&format!("{place}: {}", none(&reader.set_aside()?))))?;
        return Ok(Exit::Ok);
    }
    let now = output::now();
    let rows = infos.iter().map(|info| {
        let mark = if Some(info.name) == first { "→ " } else { "" };
        row(info, mark, now, kept.get(&info.name))
    });
    // What matters most comes first: a narrow terminal cuts the ends of lines.
    let header =
        ["step", "state", "age", "size", "attempt", "epoch", "metrics", "kept because", "saved because"];
    output::print(output::table(&header, &[0, 2, 3, 4, 5], rows))?;
    if first.is_some() {
        output::tell(
            "→ a resume looks at it first; only its index was read here: `tensorkeep why` verifies it",
        );
    }
    for info in &infos {
        if let Err(error) = &info.state {
            output::warn(error);
        }
    }
    Ok(Exit::Ok)
}

fn list_runs(place: &Place, runs: &[(String, Reader)], json: bool) -> Done {
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for (name, reader) in runs {
        let infos = reader.list()?;
        let bytes: u64 = infos.iter().map(|info| info.len).sum();
        let newest = infos.iter().rev().find_map(|info| Some((info.name, info.state.as_ref().ok()?)));
        let saved_at = newest.map(|(_, state)| state.saved_at);
        documents.push(json!({
            "name": name, "checkpoints": infos.len(), "bytes": bytes, "saved_at": saved_at,
            "newest": newest.map(|(name, _)| name.to_string()),
            "metrics": newest.map(|(_, state)| &state.metrics),
        }));
        rows.push(vec![
            name.clone(),
            infos.len().to_string(),
            newest.map_or_else(|| "-".to_owned(), |(name, _)| name.step.to_string()),
            saved_at.map_or_else(|| "-".to_owned(), |saved_at| output::age(saved_at, output::now())),
            output::size(bytes),
            newest.map_or_else(String::new, |(_, state)| metrics(state)),
        ]);
    }
    match json {
        true => output::print_json("runs", json!({ "folder": place.to_string(), "runs": documents }))?,
        false => {
            let header = ["run", "checkpoints", "newest step", "age", "size", "metrics"];
            output::print(output::table(&header, &[1, 2, 3, 4], rows))?;
        }
    }
    Ok(Exit::Ok)
}

/// What is said of a run that lists no checkpoint.
fn none(set_aside: &[String]) -> String {
    match set_aside.len() {
        0 => "no checkpoints yet".to_owned(),
        many => format!("no checkpoint, and {many} that a resume found damaged and set aside under damaged/"),
    }
}

/// Why each checkpoint is kept: by the policy that the newest checkpoint's writer had, where it
/// says so.
pub type Kept = BTreeMap<CheckpointId, BTreeSet<String>>;

/// The run's own policy, and what it keeps. Checkpoints of earlier versions do not say their
/// policy: then only what holds whatever the policy is known (newest, pinned, resumed from).
///
/// # Errors
/// What listing says.
pub fn kept(reader: &Reader, infos: &[CheckpointInfo]) -> Result<(Option<Keep>, Kept)> {
    let newest = infos.iter().rev().find_map(|info| info.state.as_ref().ok());
    let keep = newest.and_then(|state| state.keep.clone());
    let kept = reader.kept(keep.as_ref().unwrap_or(&Keep::default()), output::now())?;
    Ok((keep, kept))
}

fn row(info: &CheckpointInfo, mark: &str, now: u64, kept: Option<&BTreeSet<String>>) -> Vec<Cell> {
    let (step, attempt) = (format!("{mark}{}", info.name.step), info.name.attempt.to_string());
    let kept = kept.map(|why| why.iter().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
    let word = match &info.state {
        Ok(_) if info.pinned => "pinned".into(),
        Ok(_) => "ok".into(),
        Err(error) => Cell::red(error.kind().as_str()),
    };
    let (age, epoch, metrics, why) = match &info.state {
        Ok(state) => {
            let age = output::age(state.saved_at, now);
            (age, state.progress.epoch.to_string(), metrics(state), state.why.clone())
        }
        Err(_) => ("?".to_owned(), "?".to_owned(), String::new(), String::new()),
    };
    let mut row = vec![step.into(), word];
    row.extend([age, output::size(info.len), attempt, epoch, metrics, kept, why].map(Cell::from));
    row
}

pub fn metrics(state: &CheckpointMeta) -> String {
    let one = |(name, value): (&String, &f64)| format!("{name} {value:.5}");
    state.metrics.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn cost_as_json(cost: &SaveCost) -> serde_json::Value {
    json!({
        "step": cost.step,
        "took_us": cost.took.as_micros() as u64,
        "stall_us": cost.stall.as_micros() as u64,
    })
}

pub fn as_json(info: &CheckpointInfo, kept: Option<&BTreeSet<String>>) -> serde_json::Value {
    let mut object = json!({
        "name": info.name.to_string(),
        "attempt": info.name.attempt,
        "step": info.name.step,
        "bytes": info.len,
        "pinned": info.pinned,
        "kept_because": kept,
    });
    let more = match &info.state {
        Ok(state) => json!({
            "state": "ok",
            "epoch": state.progress.epoch,
            "metrics": state.metrics,
            "saved_at": state.saved_at,
            "why": state.why,
            "resumed_from": state.resumed_from,
            "tensors": state.tensors,
            "previous": state.previous.as_ref().map(cost_as_json),
        }),
        Err(error) => json!({ "state": error.kind().as_str(), "error": output::error_in_json(error) }),
    };
    if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}
