//! `ls RUN`: its checkpoints, oldest first, and which one a resume would try first.

use crate::exit::Exit;
use crate::{Done, output};
use serde_json::json;
use std::time::SystemTime;
use tensorkeep::engine::Local;
use tensorkeep::{Info, Reader, State};

/// Lists a run.
///
/// # Errors
/// `NotFound` when there is no such folder.
pub fn run(run: &str, json: bool) -> Done {
    let infos = Reader::new(Local::open(run)?).list()?;
    let resumes = infos.iter().rev().find(|info| info.state.is_ok()).map(|info| info.name);
    if json {
        let checkpoints: Vec<_> = infos.iter().map(as_json).collect();
        let resumes = resumes.map(|name| name.to_string());
        output::print_json("ls", json!({ "run": run, "checkpoints": checkpoints, "resumes_from": resumes }))?;
        return Ok(Exit::Ok);
    }
    if infos.is_empty() {
        output::print(format!("{run}: no checkpoints yet"))?;
        return Ok(Exit::Ok);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let rows = infos.iter().map(|info| {
        let mut row = row(info, now);
        row[0] = if Some(info.name) == resumes {
            format!("→ {}", info.name.step)
        } else {
            info.name.step.to_string()
        };
        row
    });
    let header = ["step", "attempt", "epoch", "age", "size", "metrics", "saved because", "state"];
    output::print(output::table(&header, &[0, 1, 2, 3, 4], rows))?;
    for info in &infos {
        if let Err(error) = &info.state {
            eprintln!("warning: {error}");
        }
    }
    Ok(Exit::Ok)
}

fn row(info: &Info, now: u64) -> Vec<String> {
    let mut row = vec![info.name.step.to_string(), info.name.attempt.to_string()];
    let len = output::size(info.len);
    match &info.state {
        Ok(state) => row.extend([
            state.progress.epoch.to_string(),
            output::age(state.saved_at, now),
            len,
            metrics(state),
            state.why.clone(),
            if info.pinned { "pinned" } else { "ok" }.to_owned(),
        ]),
        Err(error) => row.extend(["?", "?"].map(str::to_owned).into_iter().chain([
            len,
            String::new(),
            String::new(),
            error.kind().as_str().to_owned(),
        ])),
    }
    row
}

fn metrics(state: &State) -> String {
    state.metrics.iter().map(|(name, value)| format!("{name} {value:.5}")).collect::<Vec<_>>().join(", ")
}

fn as_json(info: &Info) -> serde_json::Value {
    let mut object = json!({
        "name": info.name.to_string(),
        "attempt": info.name.attempt,
        "step": info.name.step,
        "bytes": info.len,
        "pinned": info.pinned,
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
        }),
        Err(error) => json!({ "state": error.kind().as_str(), "error": error.to_string() }),
    };
    if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}
