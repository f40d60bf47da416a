//! The run's story: its attempts and how each ended, its metrics over steps, and the time of
//! each step. It comes from the history that checkpoints carry, and where they carry none (version
//! 0.1) from the metadata of each kept checkpoint.

use super::pack;
use crate::output;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::history::{History, LifeEnd, Point, Series};
use tensorkeep::store::AttemptInfo;
use tensorkeep::{CheckpointInfo, Keep};

/// Points of all metrics together: about 260 KB of page.
const POINTS: usize = 32_000;
/// The most of one metric.
const MOST: usize = 4_096;
/// Knots of the clock, of all attempts together.
const KNOTS: usize = 4_000;

/// How an attempt ended, as the page says it.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Killed,
    Stopped,
    Closed,
    Running,
    Unknown,
}

impl End {
    pub fn key(&self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::Closed => "closed",
            Self::Running => "running",
            Self::Unknown => "unknown",
        }
    }
}

/// One attempt to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub number: u32,
    pub host: String,
    /// The step that it went on from.
    pub first: u64,
    /// The newest step that is known of it.
    pub last: u64,
    /// Whether anything says where it was. If not, `first` and `last` are where the one before
    /// ended, to be drawn there.
    pub is_placed: bool,
    pub start: Option<u64>,
    pub stop: Option<u64>,
    pub end: End,
    pub resumed_from: Option<u64>,
    /// Steps that the next attempt did again.
    pub lost: Option<u64>,
    pub saves: Option<u64>,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub attempts: Vec<Attempt>,
    pub metrics: BTreeMap<String, Series>,
    /// Whether the checkpoints carry a history.
    pub has_history: bool,
    /// Further metrics that were logged, and older attempts, that the history has no room for.
    pub left_out: (u64, u64),
    /// Steps of an epoch, where epochs are counted.
    pub per_epoch: Option<f64>,
}

impl Story {
    /// From a history, completed by the metadata of the kept checkpoints. `has_history` is false if
    /// no checkpoint carried it, and it was put together from the metadata of each.
    pub fn new(
        history: History,
        has_history: bool,
        attempts: &[AttemptInfo],
        infos: &[CheckpointInfo],
        keep: Option<&Keep>,
    ) -> Self {
        let mut metrics = history.metrics.clone();
        declare(&mut metrics, keep);
        let per_epoch = per_epoch(&metrics, infos);
        let attempts = lives(&history, attempts, infos);
        let left_out = (history.metrics_left_out, history.lives_left_out);
        Self { attempts, metrics, has_history, left_out, per_epoch }
    }

    /// The newest step that is known of.
    pub fn reached(&self) -> u64 {
        let logged = self.metrics.values().filter_map(|series| series.steps.last().copied());
        self.attempts.iter().map(|attempt| attempt.last).chain(logged).max().unwrap_or(0)
    }

    /// Which step was when, attempt by attempt: (step, milliseconds since the first start).
    pub fn clock(&self) -> Json {
        let started = self.attempts.iter().filter_map(|attempt| attempt.start).min().unwrap_or(0);
        let points = self.metrics.values().max_by_key(|series| series.len());
        let points: Vec<Point> = points.map(|series| series.points().collect()).unwrap_or_default();
        let of_each = (KNOTS / self.attempts.len().max(1)).clamp(4, 120);
        let ms = |time: f64| ((time - started as f64) * 1e3).max(0.0) as u64;
        let (mut steps, mut times, mut back, mut before) = (vec![], vec![], false, 0);
        for (i, attempt) in self.attempts.iter().enumerate() {
            let until = self.attempts.get(i + 1).map_or(u64::MAX, |next| next.first);
            let own: Vec<&Point> =
                points.iter().filter(|point| point.step > attempt.first && point.step <= until).collect();
            let every = own.len().div_ceil(of_each).max(1);
            let begin = attempt.start.map(|start| (attempt.first, ms(start as f64)));
            let end = attempt.stop.map(|stop| (attempt.last, ms(stop as f64)));
            let thinned = own.iter().rev().step_by(every).rev().map(|point| (point.step, ms(point.time)));
            let mut knots: Vec<(u64, u64)> = begin.into_iter().chain(thinned).collect();
            // Lost steps lie behind the last one that counts.
            knots.extend(end.filter(|(step, _)| knots.last().is_none_or(|(last, _)| step > last)));
            back |= knots.windows(2).any(|two| two[1].1 < two[0].1);
            back |= attempt.start.is_some_and(|start| ms(start as f64) < before);
            before = knots.last().map_or(before, |(_, at)| *at);
            steps.push(pack::varint(knots.iter().map(|(step, _)| *step)));
            times.push(pack::varint(knots.iter().map(|(_, at)| *at)));
        }
        json!({ "t0": started, "s": steps, "t": times, "back": back })
    }

    /// The metrics for the page: known directions first, then by name; thinned to the room on it.
    pub fn metrics(&self) -> Vec<Json> {
        let most = (POINTS / self.metrics.len().max(1)).clamp(64, MOST);
        let mut names: Vec<&String> = self.metrics.keys().collect();
        names.sort_by_key(|name| (self.metrics[*name].mode.is_none(), (*name).clone()));
        names.iter().map(|name| metric(name, &self.metrics[*name], most)).collect()
    }
}

/// One metric's curve. NaN and infinities are ranges of steps, not points.
fn metric(name: &str, series: &Series, most: usize) -> Json {
    let (mut finite, mut bad): (Vec<Point>, Vec<(u64, u64, u64)>) = (vec![], vec![]);
    let mut in_range = false;
    for point in series.points() {
        match (point.value.is_finite(), in_range, bad.last_mut()) {
            (true, ..) => finite.push(point),
            (false, true, Some(range)) => (range.1, range.2) = (point.step, range.2 + 1),
            (false, ..) => bad.push((point.step, point.step, 1)),
        }
        in_range = !point.value.is_finite();
    }
    bad.truncate(100);
    let finite = thin(&finite, most);
    json!({
        "name": crate::output::clean(name),
        "dir": output::direction(series.mode),
        "why": if series.mode.is_some() { "declared by the keep policy or the program" } else { "" },
        "logged": series.logged.max(series.len() as u64),
        "steps": pack::varint(finite.iter().map(|point| point.step)),
        "v": pack::f32s(finite.iter().map(|point| point.value)),
        "nonfinite": bad,
    })
}

/// At most so many points: of each stretch the lowest and the highest, so that no peak is lost.
pub fn thin(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil((most / 2).max(1));
    let of = |part: &[Point]| {
        let by = |a: &&Point, b: &&Point| a.value.total_cmp(&b.value);
        let ends = [part.iter().min_by(by), part.iter().max_by(by)];
        let mut two: Vec<Point> = ends.into_iter().flatten().copied().collect();
        two.sort_by_key(|point| point.step);
        two.dedup_by_key(|point| point.step);
        two
    };
    points.chunks(stretch).flat_map(of).collect()
}

/// Directions that the keep policy knows, where the history does not.
fn declare(metrics: &mut BTreeMap<String, Series>, keep: Option<&Keep>) {
    for (metric, mode) in keep.into_iter().flat_map(Keep::ranked) {
        if let Some(series) = metrics.get_mut(metric) {
            series.mode.get_or_insert(mode);
        }
    }
}

/// Steps of an epoch: the smallest quotient of a step and the epochs completed at it.
fn per_epoch(metrics: &BTreeMap<String, Series>, infos: &[CheckpointInfo]) -> Option<f64> {
    let logged = metrics.values().flat_map(|series| series.steps.iter().zip(&series.epochs));
    let logged = logged.map(|(&step, &epoch)| (step, epoch));
    let states = infos.iter().filter_map(|info| info.state.as_ref().ok());
    let kept = states.map(|state| (state.progress.step, state.progress.epoch));
    let counted = logged.chain(kept).filter(|(_, epoch)| *epoch > 0);
    counted.map(|(step, epoch)| step as f64 / epoch as f64).reduce(f64::min).filter(|steps| *steps > 0.0)
}

/// The attempts: the history's lives, and those that only the listing or a checkpoint names.
fn lives(history: &History, attempts: &[AttemptInfo], infos: &[CheckpointInfo]) -> Vec<Attempt> {
    let numbers: BTreeSet<u32> = (history.lives.iter().map(|life| life.attempt))
        .chain(attempts.iter().map(|attempt| attempt.number))
        .chain(infos.iter().map(|info| info.id.attempt))
        .collect();
    let mut found: Vec<Attempt> =
        numbers.iter().map(|&number| attempt(number, history, attempts, infos)).collect();
    // An attempt whose steps are unknown is drawn where the one before ended.
    for i in 1..found.len() {
        if !found[i].is_placed {
            let at = found[i - 1].last;
            (found[i].first, found[i].last) = (at, at);
        }
    }
    for i in 0..found.len().saturating_sub(1) {
        let next = found[i + 1].first;
        // How far a killed attempt came behind its last save is in no checkpoint.
        let both = found[i].is_placed && found[i + 1].is_placed;
        let lost = found[i].last.checked_sub(next).filter(|_| both);
        let is_planned = matches!(found[i].end, End::Closed | End::Stopped);
        found[i].lost = lost.filter(|lost| *lost > 0 || is_planned);
        if found[i].end == End::Running {
            found[i].end = End::Unknown;
        }
    }
    found
}

fn attempt(number: u32, history: &History, attempts: &[AttemptInfo], infos: &[CheckpointInfo]) -> Attempt {
    let life = history.life(number);
    let object = attempts.iter().find(|attempt| attempt.number == number);
    let states = || {
        infos
            .iter()
            .filter(move |info| info.id.attempt == number)
            .filter_map(|info| Some((info.id, info.state.as_ref().ok()?)))
    };
    let origin = || states().find_map(|(_, state)| state.resumed_from.as_ref()?.parse().ok());
    let origin = life.and_then(|life| life.resumed_from).or_else(origin);
    let resumed_from = origin.map(|id: tensorkeep::CheckpointId| id.step);
    let first = life.and_then(|life| life.first_step).or(resumed_from);
    // By its name, which damage leaves.
    let listed_last =
        infos.iter().map(|info| info.id).filter(|id| id.attempt == number).map(|id| id.step).max();
    let last = life.and_then(|life| life.last_step).max(listed_last);
    let is_placed = first.is_some() || last.is_some();
    let first = first.unwrap_or(0);
    let last = last.unwrap_or(first).max(first);
    let known = |time: u64| (time > 0).then_some(time);
    let start = life.and_then(|life| known(life.started)).or(object.and_then(|it| known(it.started_at)));
    let saved_last = states().map(|(_, state)| state.saved_at).max();
    let stop = life.and_then(|life| known(life.last_seen)).max(saved_last.and_then(known)).or(start);
    let host = life.map(|life| life.host.clone()).or(object.map(|it| it.host.clone())).unwrap_or_default();
    let end = match life.map(|life| &life.end) {
        Some(LifeEnd::Closed) => End::Closed,
        Some(LifeEnd::Stopped(_)) => End::Stopped,
        Some(LifeEnd::Died) => End::Killed,
        Some(LifeEnd::Running) => End::Running,
        _ => End::Unknown,
    };
    let saves = life.and_then(crate::lives::saves);
    Attempt {
        number,
        host: crate::output::clean(&host),
        first,
        last,
        is_placed,
        start: start.or(stop),
        stop,
        end,
        resumed_from,
        lost: None,
        saves,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, value: f64) -> Point {
        Point { step, epoch: step / 10, time: 1e9 + step as f64, value }
    }

    fn series(points: impl IntoIterator<Item = Point>) -> Series {
        let mut series = Series::default();
        points.into_iter().for_each(|point| series.push(point));
        series
    }

    #[test]
    fn thinning_keeps_every_peak() {
        let points: Vec<Point> =
            (0..10_000).map(|i| point(i, if i == 7_777 { 99.0 } else { (i % 7) as f64 })).collect();
        let thinned = thin(&points, 400);
        assert!(thinned.len() <= 402 && thinned.iter().any(|point| point.value == 99.0));
        assert!(thinned.windows(2).all(|two| two[0].step < two[1].step));
    }

    #[test]
    fn what_is_not_finite_is_told_as_ranges() {
        let values = [1.0, f64::NAN, f64::INFINITY, 2.0, f64::NAN];
        let series = series(values.iter().enumerate().map(|(i, &v)| point(i as u64, v)));
        assert_eq!(metric("loss", &series, 10)["nonfinite"], json!([[1, 2, 2], [4, 4, 1]]));
    }

    #[test]
    fn an_epochs_steps_are_found_where_epochs_are_counted() {
        let metrics = BTreeMap::from([("loss".to_owned(), series((1..=35).map(|i| point(i, 0.0))))]);
        assert_eq!(per_epoch(&metrics, &[]), Some(10.0));
        assert_eq!(per_epoch(&BTreeMap::new(), &[]), None);
    }
}
