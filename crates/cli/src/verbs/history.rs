//! `history RUN`: what was logged along the whole run, also before checkpoints that rotation has
//! deleted, and its attempts. With `--tensor`, that tensor's numbers from checkpoint to checkpoint.

mod points;

use crate::answer::{Answer, Text};
use crate::args::History;
use crate::exit::Exit;
use crate::output::Cell;
use crate::place::Place;
use crate::{Done, output};
use crate::{lives, metrics};
use points::Points;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensorkeep::history::{self, Life, Series};
use tensorkeep::{CheckpointId, CheckpointInfo, Error, ErrorKind, Result};

/// What was logged in a run, its attempts, and a tensor's numbers in each of its checkpoints.
pub struct Course<'a> {
    args: &'a History,
    place: Place,
    infos: Vec<CheckpointInfo>,
    history: history::History,
    points: Points,
}

pub fn run(args: &History) -> Result<Course<'_>> {
    let place = Place::new(&args.run);
    let reader = place.reader_with(args.budget.get().options())?;
    let infos = reader.list()?;
    if infos.is_empty() {
        place.check_exists(&reader)?;
    }
    let mut history = reader.history()?;
    narrow(&mut history, args.metric.as_ref()).map_err(|error| error.in_object(&place))?;
    let points = match &args.tensor {
        Some(tensor) => points::points(&reader, &infos, tensor, args)?,
        None => BTreeMap::new(),
    };
    Ok(Course { args, place, infos, history, points })
}

/// Leaves the only metric that is wanted.
fn narrow(history: &mut history::History, only: Option<&String>) -> Result<()> {
    let Some(only) = only else { return Ok(()) };
    let Some(series) = history.metrics.remove(only) else {
        let known: Vec<&String> = history.metrics.keys().collect();
        let error = Error::new(ErrorKind::NotFound, format!("the metric {only:?} was never logged"));
        return Err(error.expected(format!("one of {known:?}")));
    };
    history.metrics = BTreeMap::from([(only.clone(), series)]);
    Ok(())
}

impl Course<'_> {
    /// The errors of a tensor's points, and of the checkpoints that the history would have been
    /// read from: each that is newer than the first that can be read.
    fn errors(&self) -> impl Iterator<Item = &Error> {
        let newest = self.infos.iter().rposition(|info| info.state.is_ok());
        let begin = newest.filter(|_| self.args.tensor.is_none()).map_or(0, |newest| newest + 1);
        let bad = self.infos[begin..].iter();
        let bad = bad.filter_map(|info| info.state.as_ref().err().map(|error| &**error));
        bad.chain(self.points.values().filter_map(|point| point.as_ref().err()))
    }

    /// What is missing in it, if something is.
    fn gap(&self) -> String {
        let newest = self.infos.iter().rev().find(|info| info.state.is_ok());
        match newest.map(|newest| newest.id) {
            None if self.infos.is_empty() => String::new(),
            None => "; no checkpoint can be read, so what was logged is not known".to_owned(),
            Some(id) if self.infos.last().is_some_and(|last| last.id != id) => {
                format!("; as {id} has it, the newest that can be read")
            }
            Some(_) => String::new(),
        }
    }

    /// The tensor's numbers, beside the metrics of each checkpoint.
    fn checkpoints(&self) -> String {
        let mut header = vec!["step", "attempt"];
        header.extend(self.history.metrics.keys().map(String::as_str));
        header.extend(points::TITLES);
        let (right, numbers): (Vec<usize>, usize) =
            ((0..header.len()).collect(), header.len() - points::TITLES.len());
        // Not the first of the numbers: there stands what is wrong with a checkpoint.
        let least: Vec<usize> =
            [1].into_iter().chain((2..numbers).rev()).chain([numbers + 1, numbers + 2]).collect();
        output::table_by_worth(&header, &right, &least, self.infos.iter().map(|info| self.row(info)))
    }

    fn row(&self, info: &CheckpointInfo) -> Vec<Cell> {
        let state = info.state.as_ref().ok();
        let value = |metric: &String| metrics::one(state?, metric);
        let metrics =
            self.history.metrics.keys().map(|metric| value(metric).map_or("-".to_owned(), output::number));
        let mut row: Vec<Cell> =
            [info.id.step.to_string(), info.id.attempt.to_string()].map(Cell::from).into();
        row.extend(metrics.map(Cell::from));
        match &info.state {
            Err(error) => row.push(Cell::red(error.kind().as_str())),
            Ok(_) => row.extend(self.points.get(&info.id).into_iter().flat_map(points::as_row)),
        }
        row
    }

    fn attempts(&self) -> String {
        let header = ["attempt", "started", "host", "steps", "saves", "resumed from", "end"];
        output::table_by_worth(&header, &[0, 4], &[2, 4, 1, 5], self.history.lives.iter().map(attempt))
    }

    /// Every point of the wanted metric.
    fn logged(&self) -> Option<String> {
        let (metric, series) =
            self.history.metrics.first_key_value().filter(|_| self.args.metric.is_some())?;
        let rows = series.points().map(|point| {
            // OK to cast: a time before 1970 is shown as unknown.
            let date = output::date(point.time as u64);
            vec![point.step.to_string(), point.epoch.to_string(), date, output::number(point.value)]
        });
        Some(output::table_by_worth(&["step", "epoch", "logged", metric], &[0, 1, 3], &[1, 2], rows))
    }

    fn summary(&self) -> String {
        let points = self.history.metrics.values().map(|series| series.logged as usize).max().unwrap_or(0);
        let reached = self.history.metrics.values().filter_map(|series| series.steps.last()).max();
        let reached = reached.map_or_else(String::new, |step| format!(", up to step {step}"));
        let end =
            self.history.lives.last().map_or_else(String::new, |life| format!("; the newest: {}", life.end));
        let attempts = (self.history.lives_left_out as usize).saturating_add(self.history.lives.len());
        let attempts = output::count(attempts, "attempt");
        // None are known to be logged, and not 0.
        let is_known = self.infos.is_empty() || self.infos.iter().any(|info| info.state.is_ok());
        let logged = format!("{} logged{reached}, in ", output::count(points, "point"));
        format!("{}{attempts}{end}{}", if is_known { &*logged } else { "" }, self.gap())
    }
}

impl Answer for Course<'_> {
    fn schema(&self) -> &'static str {
        "history"
    }

    fn json(&self) -> Json {
        let one = |info: &CheckpointInfo| {
            let is_wanted = |name: &str| self.history.metrics.contains_key(name);
            let values = info.state.as_ref().ok().map(|state| metrics::in_json(state, is_wanted));
            json!({
                "name": info.id.to_string(), "step": info.id.step, "attempt": info.id.attempt,
                "metrics": values, "tensor": self.points.get(&info.id).map(points::as_json),
            })
        };
        let checkpoints: Vec<_> = self.infos.iter().map(one).collect();
        let metrics: BTreeMap<_, _> =
            self.history.metrics.iter().map(|(name, series)| (name, series_as_json(series))).collect();
        let attempts: Vec<_> = self.history.lives.iter().map(attempt_as_json).collect();
        json!({
            "run": self.place.to_string(), "tensor": self.args.tensor, "metrics": metrics,
            "metrics_left_out": self.history.metrics_left_out, "attempts": attempts,
            "attempts_left_out": self.history.lives_left_out, "checkpoints": checkpoints,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let first = match (self.logged(), &self.args.tensor) {
            (_, Some(_)) => self.checkpoints(),
            (Some(logged), None) => logged,
            (None, None) => self.attempts(),
        };
        let curves = self.history.metrics.iter().map(|(metric, series)| curve(metric, series));
        let text = Text::of(first).warnings(self.errors());
        Ok(curves.fold(text, Text::lines).summary(self.summary()))
    }

    fn end(self: Box<Self>) -> Done {
        Ok(Exit::worst(self.errors().map(Exit::from)).unwrap_or(Exit::Ok))
    }
}

fn attempt(life: &Life) -> Vec<Cell> {
    let known = |known: Option<String>| known.unwrap_or_else(|| "-".to_owned());
    let started = (life.started > 0).then(|| output::date(life.started));
    let steps = life.first_step.map(|first| match life.last_step {
        Some(last) => format!("{first} → {last}"),
        None => format!("{first} →"),
    });
    vec![
        life.attempt.to_string().into(),
        known(started).into(),
        life.host.clone().into(),
        known(steps).into(),
        known(lives::saves(life).map(|saves| saves.to_string())).into(),
        known(life.resumed_from.as_ref().map(CheckpointId::to_string)).into(),
        if life.end == history::LifeEnd::Died { Cell::red("died") } else { life.end.to_string().into() },
    ]
}

fn attempt_as_json(life: &Life) -> Json {
    json!({
        "attempt": life.attempt, "host": life.host, "pid": life.pid, "started": life.started,
        "last_seen": life.last_seen, "first_step": life.first_step, "last_step": life.last_step,
        "saves": lives::saves(life), "resumed_from": life.resumed_from.map(|id| id.to_string()),
        "end": life.end.to_string(),
    })
}

fn series_as_json(series: &Series) -> Json {
    let values: Vec<Json> = series.values.iter().map(|value| output::json_number(*value)).collect();
    json!({
        "steps": series.steps, "epochs": series.epochs, "times": series.times, "values": values,
        "logged": series.logged, "better": output::direction(series.mode),
    })
}

/// A metric's name, its curve, between which values that is drawn, and its last value.
fn curve(metric: &str, series: &Series) -> String {
    let finite = || series.values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let last = series.last().map_or(f64::NAN, |point| point.value);
    let ends = if low <= high {
        format!("{} to {}, last {}", output::number(low), output::number(high), output::number(last))
    } else {
        format!("never finite, last {}", output::number(last))
    };
    let metric = output::clean(metric);
    let taken = metric.chars().count() + ends.chars().count() + 2;
    let room = output::columns().unwrap_or(WIDTH).saturating_sub(taken).clamp(8, WIDTH);
    format!("{metric} {} {ends}", output::sparkline_of(&resampled(&series.values, room)))
}

/// Bars of a curve on a wide terminal, and where there is none.
const WIDTH: usize = 80;

/// At most so many values: of neighbours that share a bar the last finite one, and none only where
/// none of them is finite.
fn resampled(values: &[f64], most: usize) -> Vec<Option<f64>> {
    let most = values.len().min(most);
    let share = |i: usize| &values[i * values.len() / most..(i + 1) * values.len() / most];
    (0..most).map(|i| share(i).iter().rev().copied().find(|value| value.is_finite())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_all_points_in_the_room_there_is() {
        let values: Vec<f64> = (0..100).map(|i| if i == 50 { f64::NAN } else { f64::from(i) }).collect();
        let few = resampled(&values, 10);
        assert_eq!(few.len(), 10);
        assert_eq!((few[0], few[9]), (Some(9.0), Some(99.0)));
        assert!(few.iter().all(Option::is_some), "one gap among ten is no gap");
        let all = resampled(&values, 200);
        assert_eq!((all.len(), all[50], all[51]), (100, None, Some(51.0)));
        assert!(resampled(&[], 10).is_empty());
    }
}
