//! `history RUN`: metrics, and one tensor's numbers, from checkpoint to checkpoint. What cannot be
//! read in one checkpoint is said in its line.

use crate::answer::{Answer, Text};
use crate::args::History;
use crate::compare::{self, Tolerance, Verdict};
use crate::exit::Exit;
use crate::opened::{Opened, is_of_one};
use crate::output::Cell;
use crate::place::Place;
use crate::stats::Stats;
use crate::{Done, output, stats};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::store::Presence;
use tensorkeep::{CheckpointId, CheckpointInfo, Error, ErrorKind, Reader, Result};

/// A tensor in one checkpoint.
struct Point {
    /// None for bytes whose meaning is unknown.
    stats: Option<Stats>,
    /// Compared with the checkpoint before that has it.
    change: Option<Verdict>,
}

/// Points by checkpoint, or why there is none.
type Points = BTreeMap<CheckpointId, Result<Point>>;

/// A run's metrics, and a tensor's numbers, in each of its checkpoints.
pub struct Course<'a> {
    args: &'a History,
    place: Place,
    infos: Vec<CheckpointInfo>,
    metrics: BTreeSet<String>,
    points: Points,
}

pub fn run(args: &History) -> Result<Course<'_>> {
    let place = Place::new(&args.run);
    let reader = place.reader_within(args.budget.get())?;
    let infos = reader.list()?;
    if infos.is_empty() {
        place.check_exists(&reader)?;
    }
    let metrics = metrics(&infos, args.metric.as_ref()).map_err(|error| error.in_object(&place))?;
    let points = match &args.tensor {
        Some(tensor) => points(&reader, &infos, tensor, args)?,
        None => BTreeMap::new(),
    };
    Ok(Course { args, place, infos, metrics, points })
}

/// The names of all metrics, or the only one that is wanted.
fn metrics(infos: &[CheckpointInfo], only: Option<&String>) -> Result<BTreeSet<String>> {
    let states = infos.iter().filter_map(|info| info.state.as_ref().ok());
    let metrics: BTreeSet<String> = states.flat_map(|state| state.metrics.keys().cloned()).collect();
    match only {
        None => Ok(metrics),
        Some(only) if metrics.contains(only) => Ok(BTreeSet::from([only.clone()])),
        Some(only) => {
            let known: Vec<String> = metrics.into_iter().collect();
            let error = Error::new(ErrorKind::NotFound, format!("no checkpoint has the metric {only:?}"));
            Err(error.expected(format!("one of {known:?}")))
        }
    }
}

impl Course<'_> {
    /// The errors of a tensor's points. Without a tensor nothing was read that could fail.
    fn errors(&self) -> impl Iterator<Item = &Error> {
        let infos = self.infos.iter().filter(|_| self.args.tensor.is_some());
        let bad = infos.filter_map(|info| info.state.as_ref().err().map(|error| &**error));
        bad.chain(self.points.values().filter_map(|point| point.as_ref().err()))
    }

    fn row(&self, info: &CheckpointInfo) -> Vec<Cell> {
        let state = info.state.as_ref().ok();
        let mut row: Vec<Cell> =
            [info.id.step.to_string(), info.id.attempt.to_string()].map(Cell::from).into();
        row.extend(self.metrics.iter().map(
            |metric| match state.and_then(|state| state.metrics.get(metric)) {
                Some(value) => Cell::from(output::number(*value)),
                None => "-".into(),
            },
        ));
        row.extend(self.points.get(&info.id).into_iter().flat_map(point_as_row));
        row
    }

    fn values(&self, metric: &str) -> Vec<Option<f64>> {
        let value = |info: &CheckpointInfo| info.state.as_ref().ok()?.metrics.get(metric).copied();
        self.infos.iter().map(value).collect()
    }
}

impl Answer for Course<'_> {
    fn schema(&self) -> &'static str {
        "history"
    }

    fn json(&self) -> Json {
        let one = |info: &CheckpointInfo| {
            let wanted = |(name, _): &(&String, &f64)| self.metrics.contains(*name);
            let values: Option<BTreeMap<_, _>> =
                info.state.as_ref().ok().map(|state| state.metrics.iter().filter(wanted).collect());
            json!({
                "name": info.id.to_string(), "step": info.id.step, "attempt": info.id.attempt,
                "metrics": values, "tensor": self.points.get(&info.id).map(point_as_json),
            })
        };
        let checkpoints: Vec<_> = self.infos.iter().map(one).collect();
        json!({ "run": self.place.to_string(), "tensor": self.args.tensor, "checkpoints": checkpoints })
    }

    fn text(&self) -> Result<Text<'_>> {
        let mut header = vec!["step", "attempt"];
        header.extend(self.metrics.iter().map(String::as_str));
        header.extend(self.args.tensor.iter().flat_map(|_| ["mean", "std", "norm", "NaN/Inf", "change"]));
        let right: Vec<usize> = (0..header.len()).collect();
        let mut text = output::table(&header, &right, self.infos.iter().map(|info| self.row(info)));
        for metric in &self.metrics {
            text.push('\n');
            text.push_str(&curve(metric, &self.values(metric)));
        }
        Ok(Text::of(text).warnings(self.errors()))
    }

    fn end(self: Box<Self>) -> Done {
        Ok(Exit::worst(self.errors().map(Exit::from)).unwrap_or(Exit::Ok))
    }
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

fn points(reader: &Reader, infos: &[CheckpointInfo], tensor: &str, args: &History) -> Result<Points> {
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

fn point_as_json(point: &Result<Point>) -> Json {
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
