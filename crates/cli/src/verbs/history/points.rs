//! One tensor's numbers in each checkpoint of a run. What cannot be read in one of them is its
//! point, and the rest is shown.

use crate::args::History;
use crate::compare::{self, Tolerance, Verdict};
use crate::opened::{Opened, is_of_one};
use crate::output::Cell;
use crate::stats::Stats;
use crate::{output, stats};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensorkeep::store::Presence;
use tensorkeep::{CheckpointId, CheckpointInfo, ErrorKind, Reader, Result};

/// A tensor in one checkpoint.
pub struct Point {
    /// None for bytes whose meaning is unknown.
    stats: Option<Stats>,
    /// Compared with the checkpoint before that has it.
    change: Option<Verdict>,
}

/// Points by checkpoint, or why there is none.
pub type Points = BTreeMap<CheckpointId, Result<Point>>;

/// The titles of [`as_row`].
pub const TITLES: [&str; 5] = ["mean", "std", "norm", "NaN/Inf", "change"];

pub fn points(reader: &Reader, infos: &[CheckpointInfo], tensor: &str, args: &History) -> Result<Points> {
    let (mut points, mut before): (Points, Option<Opened>) = (BTreeMap::new(), None);
    let mut missing = None;
    for id in infos.iter().filter(|info| info.state.is_ok()).map(|info| info.id) {
        let opened = match reader.ask_listed(id, || reader.checkpoint_by_id(id).map(Opened::Own)) {
            Ok(Presence::There(opened)) => opened,
            Ok(Presence::Deleted) => continue,
            Ok(Presence::Absent(error)) => {
                points.insert(id, Err(error));
                continue;
            }
            Err(error) if is_of_one(&error) => {
                points.insert(id, Err(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        match point(&opened, before.as_ref(), tensor, args) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing = Some(error);
                continue;
            }
            Err(error) if !is_of_one(&error) => return Err(error),
            Ok(point) => {
                points.insert(id, Ok(point));
                before = Some(opened);
            }
            Err(error) => drop(points.insert(id, Err(error))),
        }
    }
    match missing.filter(|_| points.is_empty()) {
        Some(error) => Err(error),
        None => Ok(points),
    }
}

fn point(opened: &Opened, before: Option<&Opened>, tensor: &str, args: &History) -> Result<Point> {
    let meta = opened.meta(tensor)?;
    args.budget.get().check_bytes(opened, meta.byte_len)?;
    let stats = stats::of(opened, std::slice::from_ref(&meta))?.pop().transpose()?.flatten();
    let exact = Tolerance { rtol: 0.0, atol: 0.0 };
    let change = before.map(|before| compare::one(before, opened, tensor, exact)).transpose()?.flatten();
    Ok(Point { stats, change })
}

/// The relative change; 0 only where every byte is the same, and a word where there is no number.
fn change_as_text(change: Option<&Verdict>) -> String {
    match change {
        None | Some(Verdict::OnlyRight | Verdict::OnlyLeft) => "-".to_owned(),
        Some(Verdict::Equal) => "0".to_owned(),
        Some(Verdict::Incompatible(what)) => what.replace(" | ", " → "),
        Some(verdict) => verdict
            .distance()
            .map_or_else(|| verdict.word().to_owned(), |distance| output::number(distance.relative())),
    }
}

pub fn as_row(point: &Result<Point>) -> Vec<Cell> {
    let point = match point {
        Ok(point) => point,
        Err(error) => return vec![Cell::red(error.kind().as_str())],
    };
    let mut row: Vec<Cell> = match &point.stats {
        Some(stats) if stats.count > 0 => {
            let some = |value: f64| if stats.finite > 0 { output::number(value) } else { "-".to_owned() };
            let mut row: Vec<Cell> = [stats.mean, stats.std(), stats.norm()].map(some).map(Cell::from).into();
            row.push(if stats.bad() > 0 { Cell::red(stats.bad().to_string()) } else { "0".into() });
            row
        }
        _ => vec!["-".into(); 4],
    };
    row.push(change_as_text(point.change.as_ref()).into());
    row
}

pub fn as_json(point: &Result<Point>) -> Json {
    let Point { stats, change } = match point {
        Ok(point) => point,
        Err(error) => return json!({ "error": output::error_in_json(error) }),
    };
    let some = |value: fn(&Stats) -> f64| {
        stats.as_ref().filter(|stats| stats.finite > 0).map(|stats| output::json_number(value(stats)))
    };
    let relative = match change {
        Some(Verdict::Equal) => Some(0.0),
        change => change.as_ref().and_then(Verdict::distance).map(compare::Distance::relative),
    };
    json!({
        "mean": some(|stats| stats.mean),
        "std": some(Stats::std),
        "norm": some(Stats::norm),
        "bad": stats.as_ref().map(Stats::bad),
        "change": relative.map(output::json_number),
        "verdict": change.as_ref().map(Verdict::word),
    })
}
