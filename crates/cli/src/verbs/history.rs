//! `history RUN`: metrics, and one tensor's numbers, from checkpoint to checkpoint. What cannot be
//! read in one checkpoint is said in its line.

use crate::args::History;
use crate::compare::{self, Tolerance, Verdict};
use crate::exit::Exit;
use crate::opened::{Opened, is_of_one};
use crate::output::Cell;
use crate::place::Place;
use crate::stats::Stats;
use crate::{Done, output, stats};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::{CheckpointId, Error, ErrorKind, Reader, Result, store::CheckpointMeta};

/// A tensor in one checkpoint.
struct Point {
    /// None for bytes whose meaning is unknown.
    stats: Option<Stats>,
    /// Compared with the checkpoint before that has it.
    change: Option<Verdict>,
}

/// Points by checkpoint, or why there is none.
type Points = BTreeMap<CheckpointId, Result<Point>>;

pub fn run(args: &History, json: bool) -> Done {
    let place = Place::new(&args.run);
    let reader = place.reader_within(args.budget.get())?;
    let infos = reader.list()?;
    if infos.is_empty() {
        place.check_exists(&reader)?;
    }
    let states: Vec<(CheckpointId, Option<&CheckpointMeta>)> =
        infos.iter().map(|info| (info.name, info.state.as_ref().ok())).collect();
    let known = states.iter().filter_map(|(_, state)| *state);
    let mut metrics: BTreeSet<&str> =
        known.flat_map(|state| state.metrics.keys().map(String::as_str)).collect();
    if let Some(only) = &args.metric {
        if !metrics.contains(only.as_str()) {
            let known: Vec<&str> = metrics.into_iter().collect();
            let error = Error::new(ErrorKind::NotFound, format!("no checkpoint has the metric {only:?}"));
            return Err(error.in_object(place).expected(format!("one of {known:?}")));
        }
        metrics.retain(|metric| metric == only);
    }
    let points = match &args.tensor {
        Some(tensor) => points(&reader, &states, tensor, args)?,
        None => BTreeMap::new(),
    };
    let bad = infos.iter().filter_map(|info| info.state.as_ref().err().map(|error| &**error));
    let errors = bad.chain(points.values().filter_map(|point| point.as_ref().err()));
    let exit = Exit::worst(errors.filter(|_| args.tensor.is_some()).map(Exit::from)).unwrap_or(Exit::Ok);
    if json {
        let one = |(name, state): &(CheckpointId, Option<&CheckpointMeta>)| {
            let values: Option<BTreeMap<_, _>> = state.map(|state| {
                state.metrics.iter().filter(|(name, _)| metrics.contains(name.as_str())).collect()
            });
            json!({
                "name": name.to_string(), "step": name.step, "attempt": name.attempt, "metrics": values,
                "tensor": points.get(name).map(point_as_json),
            })
        };
        let checkpoints: Vec<_> = states.iter().map(one).collect();
        let document = json!({ "run": place.to_string(), "tensor": args.tensor, "checkpoints": checkpoints });
        output::print_json("history", document)?;
        return Ok(exit);
    }
    let mut header = vec!["step", "attempt"];
    header.extend(&metrics);
    header.extend(args.tensor.iter().flat_map(|_| ["mean", "std", "norm", "NaN/Inf", "change"]));
    let rows = states.iter().map(|(name, state)| {
        let mut row: Vec<Cell> = vec![name.step.to_string().into(), name.attempt.to_string().into()];
        let value = |metric: &&str| state.and_then(|state| state.metrics.get(*metric));
        row.extend(
            metrics
                .iter()
                .map(|metric| value(metric).map_or("-".into(), |value| Cell::from(output::number(*value)))),
        );
        row.extend(points.get(name).into_iter().flat_map(point_as_row));
        row
    });
    let right: Vec<usize> = (0..header.len()).collect();
    let mut text = output::table(&header, &right, rows);
    for metric in &metrics {
        let values: Vec<Option<f64>> = states
            .iter()
            .map(|(_, state)| state.and_then(|state| state.metrics.get(*metric).copied()))
            .collect();
        text.push('\n');
        text.push_str(&curve(metric, &values));
    }
    output::print(text)?;
    for info in infos.iter().filter(|_| args.tensor.is_some()) {
        info.state.as_ref().err().into_iter().for_each(output::warn);
    }
    points.values().filter_map(|point| point.as_ref().err()).for_each(output::warn);
    Ok(exit)
}

/// A metric's name, its curve over all checkpoints, and between which values that is drawn.
fn curve(metric: &str, values: &[Option<f64>]) -> String {
    let finite = || values.iter().copied().flatten().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let ends = format!("{} to {}", output::number(low), output::number(high));
    let metric = output::clean(metric);
    let taken = metric.chars().count() + ends.chars().count() + 2;
    let room = output::columns().unwrap_or(WIDTH).saturating_sub(taken).clamp(8, WIDTH);
    format!("{metric} {} {ends}", output::sparkline_of(&resampled(values, room)))
}

/// Bars of a curve on a wide terminal, and where there is none.
const WIDTH: usize = 80;

/// At most so many values: of neighbours that share a bar the last, and none only where none of
/// them has one.
fn resampled(values: &[Option<f64>], most: usize) -> Vec<Option<f64>> {
    if values.len() <= most {
        return values.to_vec();
    }
    let share = |i: usize| &values[i * values.len() / most..(i + 1) * values.len() / most];
    (0..most).map(|i| share(i).iter().rev().find_map(|value| *value)).collect()
}

fn points(
    reader: &Reader,
    states: &[(CheckpointId, Option<&CheckpointMeta>)],
    tensor: &str,
    args: &History,
) -> Result<Points> {
    let (mut points, mut before): (Points, Option<Opened>) = (BTreeMap::new(), None);
    let mut missing = None;
    for &(name, state) in states {
        if state.is_none() {
            continue;
        }
        let opened = match reader.checkpoint_by_id(name).map(Opened::Own) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if is_of_one(&error) => {
                points.insert(name, Err(error));
                continue;
            }
            opened => opened?,
        };
        match point(&opened, before.as_ref(), tensor, args) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing = Some(error);
                continue;
            }
            Err(error) if !is_of_one(&error) => return Err(error),
            Ok(point) => {
                points.insert(name, Ok(point));
                before = Some(opened);
            }
            Err(error) => drop(points.insert(name, Err(error))),
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

fn point_as_row(point: &Result<Point>) -> Vec<Cell> {
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

fn point_as_json(point: &Result<Point>) -> serde_json::Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_all_checkpoints_in_the_room_there_is() {
        let values: Vec<Option<f64>> = (0..100).map(|i| (i != 50).then_some(f64::from(i))).collect();
        let few = resampled(&values, 10);
        assert_eq!(few.len(), 10);
        assert_eq!((few[0], few[9]), (Some(9.0), Some(99.0)));
        assert!(few.iter().all(Option::is_some), "one gap among ten is no gap");
        assert_eq!(resampled(&values, 200), values);
    }
}
