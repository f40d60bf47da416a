//! `ls RUN`: its checkpoints, oldest first, why each is kept, and which one a resume would look at
//! first. Only indexes are read: what verifies is `verify`'s to say, and `why`'s. Of a folder that
//! holds runs, it lists those.

mod runs;

use crate::answer::{Answer, Text};
use crate::args::Ls;
use crate::exit::Exit;
use crate::kept::{self, Kept};
use crate::output::{self, Cell};
use crate::place::{Place, runs_in};
use crate::{Done, metrics};
use runs::Runs;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use tensorkeep::{
    CheckpointId, CheckpointInfo, Error, ErrorKind, Keep, Result, store::CheckpointMeta, store::SaveCost,
};

/// Lists a run, or the runs in a folder.
///
/// # Errors
/// `NotFound` when there is no such folder, when it is no run and holds none, and when there is
/// nothing at the URL.
pub fn run(args: &Ls) -> Result<Box<dyn Answer + '_>> {
    let place = Place::new(&args.run);
    let reader = place.reader()?;
    let infos = reader.list()?;
    if infos.is_empty()
        && let Err(error) = place.check_exists(&reader)
    {
        return match place.folder().map(runs_in) {
            Some(runs) if !runs.is_empty() => Ok(Box::new(Runs::of(place, &runs, args)?)),
            _ => Err(error),
        };
    }
    let (keep, kept) = kept::kept(&reader, &infos)?;
    let first = infos.iter().rev().find(|info| info.state.is_ok()).map(|info| info.id);
    let set_aside = reader.set_aside()?;
    let metrics = columns(infos.iter().filter_map(|info| info.state.as_ref().ok()), &args.metrics)?;
    Ok(Box::new(Listing { args, place, infos, metrics, keep, kept, first, set_aside }))
}

/// A run's checkpoints.
struct Listing<'a> {
    args: &'a Ls,
    place: Place,
    infos: Vec<CheckpointInfo>,
    /// The metrics that are shown.
    metrics: Vec<String>,
    keep: Option<Keep>,
    kept: Kept,
    /// The checkpoint that a resume tries first.
    first: Option<CheckpointId>,
    set_aside: Vec<String>,
}

impl Listing<'_> {
    /// The checkpoints that are asked for.
    fn shown(&self) -> &[CheckpointInfo] {
        let others = self.infos.len().saturating_sub(self.args.newest.unwrap_or(usize::MAX));
        &self.infos[others..]
    }
}

impl Answer for Listing<'_> {
    fn schema(&self) -> &'static str {
        "ls"
    }

    fn json(&self) -> Json {
        let is_shown = |metric: &str| self.metrics.iter().any(|shown| shown == metric);
        let one = |info: &CheckpointInfo| as_json(info, self.kept.get(&info.id), is_shown);
        json!({
            "run": self.place.to_string(),
            "checkpoints": self.shown().iter().map(one).collect::<Vec<_>>(),
            "policy": self.keep.as_ref().map(Keep::to_string),
            "resume_tries_first": self.first.map(|id| id.to_string()),
            "verified": false,
            "set_aside": self.set_aside,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        if self.infos.is_empty() {
            return Ok(Text::of(output::clean(&format!("{}: {}", self.place, none(&self.set_aside)))));
        }
        let shown = self.shown();
        Ok(Text::of(table(shown, &self.metrics, self.first, &self.kept))
            .summary(summary(&self.infos, shown.len(), self.first))
            .warnings(shown.iter().filter_map(|info| info.state.as_ref().err()))
            .warnings(shown.iter().filter_map(renamed)))
    }

    fn end(self: Box<Self>) -> Done {
        let errors = self.shown().iter().filter_map(|info| info.state.as_ref().err());
        Ok(Exit::worst(errors.map(|error| Exit::from(&**error))).unwrap_or(Exit::Ok))
    }
}

/// That a file does not have the name that it was saved under.
fn renamed(info: &CheckpointInfo) -> Option<String> {
    let saved_as = info.state.as_ref().ok()?.saved_as?;
    Some(format!("{}: was saved as {saved_as}: its file was copied or renamed", info.id))
}

/// The metrics that have a column: those that were asked for, or all.
fn columns<'s>(
    states: impl Iterator<Item = &'s CheckpointMeta> + Clone,
    asked: &[String],
) -> Result<Vec<String>> {
    let known: BTreeSet<&str> = states.clone().flat_map(|state| metrics::of(state).into_keys()).collect();
    if asked.is_empty() || states.count() == 0 {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    let Some(unknown) = asked.iter().find(|name| !known.contains(name.as_str())) else {
        return Ok(asked.to_vec());
    };
    let names: Vec<&str> = known.into_iter().collect();
    let error = Error::new(ErrorKind::NotFound, format!("no checkpoint has the metric {unknown:?}"));
    Err(error.expected(format!("one of {names:?}")))
}

fn table(shown: &[CheckpointInfo], metrics: &[String], first: Option<CheckpointId>, kept: &Kept) -> String {
    let now = output::now();
    let rows = shown.iter().map(|info| {
        let mark = if Some(info.id) == first { "→ " } else { "" };
        row(info, mark, now, metrics, kept.get(&info.id))
    });
    let mut header = vec!["step", "state", "age", "size", "attempt", "epoch"];
    let before = header.len();
    header.extend(metrics.iter().map(String::as_str));
    header.extend(["kept because", "saved because"]);
    let (of_metrics, why) = (before..before + metrics.len(), before + metrics.len());
    let right: Vec<usize> = [0, 2, 3, 4, 5].into_iter().chain(of_metrics.clone()).collect();
    let least: Vec<usize> =
        [why + 1, 5, 4].into_iter().chain(of_metrics.skip(2).rev()).chain([why, 3]).collect();
    output::table_by_worth(&header, &right, &least, rows)
}

/// The last line: how many, and what the arrow means.
fn summary(infos: &[CheckpointInfo], shown: usize, first: Option<CheckpointId>) -> String {
    let bytes = output::total(infos.iter().map(|info| info.byte_len));
    let some = if shown < infos.len() { format!("{shown} of ") } else { String::new() };
    let bad = match infos.iter().filter(|info| info.state.is_err()).count() {
        0 => String::new(),
        bad => format!(", {bad} of which cannot be read"),
    };
    let all = format!("{some}{}, {}", output::count(infos.len(), "checkpoint"), output::size(bytes));
    match first {
        Some(first) => format!(
            "{all}{bad}; → a resume looks at {} first; only indexes were read here: `tensorkeep why` verifies",
            first.step
        ),
        None => format!("{all}; none can be read"),
    }
}

/// The line for a run that lists no checkpoint.
fn none(set_aside: &[String]) -> String {
    match set_aside.len() {
        0 => "no checkpoints yet".to_owned(),
        many => format!("no checkpoint, and {many} that a resume found damaged and set aside under damaged/"),
    }
}

fn row(
    info: &CheckpointInfo,
    mark: &str,
    now: u64,
    shown: &[String],
    kept: Option<&BTreeSet<String>>,
) -> Vec<Cell> {
    let (step, attempt) = (format!("{mark}{}", info.id.step), info.id.attempt.to_string());
    let kept = kept.map(|why| why.iter().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
    let word = match &info.state {
        Ok(state) if state.saved_as.is_some() => Cell::red("renamed"),
        Ok(_) if info.pinned => "pinned".into(),
        Ok(_) => "ok".into(),
        Err(error) => Cell::red(error.kind().as_str()),
    };
    let state = info.state.as_ref().ok();
    let (age, epoch, why) = match state {
        Some(state) => {
            (output::age(state.saved_at, now), state.progress.epoch.to_string(), state.why.clone())
        }
        None => ("?".to_owned(), "?".to_owned(), String::new()),
    };
    let value = |name: &String| metrics::one(state?, name);
    let mut row: Vec<Cell> = vec![step.into(), word];
    row.extend([age, output::size(info.byte_len), attempt, epoch].map(Cell::from));
    row.extend(shown.iter().map(|name| Cell::from(value(name).map_or(String::new(), output::number))));
    row.extend([kept, why].map(Cell::from));
    row
}

fn cost_as_json(cost: &SaveCost) -> Json {
    json!({
        "step": cost.step,
        "took_us": cost.took.as_micros() as u64,
        "stall_us": cost.stall.as_micros() as u64,
    })
}

/// A checkpoint with the metrics that are wanted.
pub fn as_json(
    info: &CheckpointInfo,
    kept: Option<&BTreeSet<String>>,
    is_wanted: impl Fn(&str) -> bool,
) -> Json {
    let mut object = json!({
        "name": info.id.to_string(),
        "attempt": info.id.attempt,
        "step": info.id.step,
        "bytes": info.byte_len,
        "pinned": info.pinned,
        "kept_because": kept,
    });
    let more = match &info.state {
        Ok(state) => json!({
            "state": "ok",
            "epoch": state.progress.epoch,
            "metrics": metrics::in_json(state, is_wanted),
            "saved_at": state.saved_at,
            "saved_as": state.saved_as.map(|id| id.to_string()),
            "why": state.why,
            "resumed_from": state.resumed_from,
            "tensors": state.tensors,
            "previous": state.previous.as_ref().map(cost_as_json),
        }),
        Err(error) => json!({ "state": error.kind().as_str(), "error": output::error_in_json(error) }),
    };
    if let (Some(object), Json::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}
