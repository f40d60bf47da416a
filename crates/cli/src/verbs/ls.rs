//! `ls RUN`: its checkpoints, oldest first, why each is kept, and which one a resume would try first.

use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::{Cost, Info, Keep, Name, Reader, Result, State};

/// Lists a run.
///
/// # Errors
/// `NotFound` when there is no such folder, and nothing at the URL.
pub fn run(run: &str, json: bool) -> Done {
    let place = Place::new(run);
    let reader = place.reader()?;
    let infos = reader.list()?;
    if infos.is_empty() {
        place.check_exists(&reader)?;
    }
    let (keep, kept) = kept(&reader, &infos)?;
    let resumes = infos.iter().rev().find(|info| info.state.is_ok()).map(|info| info.name);
    if json {
        let checkpoints: Vec<_> = infos.iter().map(|info| as_json(info, kept.get(&info.name))).collect();
        let document = json!({
            "run": run,
            "checkpoints": checkpoints,
            "policy": keep.map(|keep| keep.to_string()),
            "resumes_from": resumes.map(|name| name.to_string()),
            "set_aside": reader.set_aside()?,
        });
        output::print_json("ls", document)?;
        return Ok(Exit::Ok);
    }
    if infos.is_empty() {
        output::print(format!("{run}: {}", none(&reader.set_aside()?)))?;
        return Ok(Exit::Ok);
    }
    let now = output::now();
    let rows = infos.iter().map(|info| {
        let mut row = row(info, now, kept.get(&info.name));
        if Some(info.name) == resumes {
            row[0] = format!("→ {}", row[0]);
        }
        row
    });
    // What matters most comes first: a narrow terminal cuts the ends of lines.
    let header =
        ["step", "state", "age", "size", "attempt", "epoch", "metrics", "kept because", "saved because"];
    output::print(output::table(&header, &[0, 2, 3, 4, 5], rows))?;
    for info in &infos {
        if let Err(error) = &info.state {
            output::warn(error);
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

/// Why each checkpoint is kept: by the policy that the newest checkpoint's writer had, where it says so.
pub type Kept = BTreeMap<Name, BTreeSet<String>>;

/// The run's own policy, and what it keeps. Checkpoints of earlier versions do not say their policy: then only what
/// holds whatever the policy is known (newest, pinned, resumed from).
///
/// # Errors
/// What listing says.
pub fn kept(reader: &Reader, infos: &[Info]) -> Result<(Option<Keep>, Kept)> {
    let newest = infos.iter().rev().find_map(|info| info.state.as_ref().ok());
    let keep = newest.and_then(|state| state.keep.clone());
    let kept = reader.kept(keep.as_ref().unwrap_or(&Keep::default()), output::now())?;
    Ok((keep, kept))
}

fn row(info: &Info, now: u64, kept: Option<&BTreeSet<String>>) -> Vec<String> {
    let unknown = || ("?".to_owned(), "?".to_owned(), String::new(), String::new());
    let (age, epoch, metrics, why) = info.state.as_ref().map_or_else(
        |_| unknown(),
        |state| {
            let age = output::age(state.saved_at, now);
            (age, state.progress.epoch.to_string(), metrics(state), output::clean(&state.why))
        },
    );
    let state = match &info.state {
        Ok(_) if info.pinned => "pinned".to_owned(),
        Ok(_) => "ok".to_owned(),
        Err(error) => output::red(error.kind().as_str()),
    };
    let kept = kept.map(|why| why.iter().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
    let (step, attempt) = (info.name.step.to_string(), info.name.attempt.to_string());
    vec![step, state, age, output::size(info.len), attempt, epoch, metrics, output::clean(&kept), why]
}

pub fn metrics(state: &State) -> String {
    let one = |(name, value): (&String, &f64)| format!("{} {value:.5}", output::clean(name));
    state.metrics.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn cost_as_json(cost: &Cost) -> serde_json::Value {
    json!({
        "step": cost.step,
        "took_us": cost.took.as_micros() as u64,
        "stall_us": cost.stall.as_micros() as u64,
    })
}

pub fn as_json(info: &Info, kept: Option<&BTreeSet<String>>) -> serde_json::Value {
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
        Err(error) => json!({ "state": error.kind().as_str(), "error": error.to_string() }),
    };
    if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}
