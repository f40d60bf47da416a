//! The history of an open run: what was logged, and the lives so far. It is in memory until a save
//! takes it along, so logging touches no file.

use super::curve::Curve;
use super::record::{Lives, Record, SeriesRecord};
use super::{History, Life, LifeEnd, Point};
use crate::format::{records, table};
use crate::snapshot::Progress;
use crate::store::keep::Mode;
use crate::store::naming::CheckpointId;
use std::collections::BTreeMap;

/// A history may be so long whatever the checkpoint is.
const ALWAYS: u64 = 16 << 10;

/// Otherwise one byte in so many of the checkpoint.
const SHARE: u64 = 100;

/// What is logged and told, and where this attempt stands.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Log {
    curves: BTreeMap<String, Curve>,
    /// Of the metrics that a policy or a schedule ranks by.
    modes: BTreeMap<String, Mode>,
    /// Of earlier attempts, oldest first.
    lives: Vec<Life>,
    metrics_left_out: u64,
    lives_left_out: u64,
    /// This attempt's.
    own: Life,
    /// The longest history that was allowed so far: curves are thinned to it for good.
    longest: u64,
    /// Length of the newest checkpoint.
    newest_len: u64,
}

impl Log {
    pub(in crate::store) fn start(own: Life, modes: BTreeMap<String, Mode>) -> Self {
        Self { own, modes, ..Self::default() }
    }

    /// Goes on with what a checkpoint carries.
    pub(in crate::store) fn resume(
        &mut self,
        from: CheckpointId,
        progress: Progress,
        history: History,
        len: u64,
    ) {
        let History { metrics, lives, metrics_left_out, lives_left_out } = history;
        for (metric, mode) in metrics.iter().filter_map(|(metric, series)| Some((metric, series.mode?))) {
            self.modes.entry(metric.clone()).or_insert(mode);
        }
        self.curves = metrics
            .into_iter()
            .map(|(metric, series)| (metric, Curve::of(series.points(), series.logged)))
            .collect();
        (self.metrics_left_out, self.lives_left_out) = (metrics_left_out, lives_left_out);
        (self.lives, self.newest_len) = (lives, len);
        self.own.resumed_from = Some(from);
        (self.own.first_step, self.own.last_step) = (Some(progress.step), Some(progress.step));
    }

    /// Begins anew: what was logged before belongs to no checkpoint that will follow.
    pub(in crate::store) fn start_over(&mut self, lives: Vec<Life>) {
        self.curves.clear();
        self.lives = lives;
        (self.metrics_left_out, self.own.resumed_from) = (0, None);
        (self.own.first_step, self.own.last_step) = (None, None);
    }

    /// Adds a value; of a progress that has one already, it replaces it. `time` in seconds since
    /// 1970.
    pub(in crate::store) fn add(&mut self, progress: Progress, metric: &str, value: f64, time: f64) {
        let Progress { step, epoch } = progress;
        let point = Point { step, epoch, time, value };
        self.came_to(step);
        match self.curves.get_mut(metric) {
            Some(curve) => curve.log(point),
            None if table::check_name(metric).is_ok() => {
                let mut curve = Curve::default();
                curve.log(point);
                self.curves.insert(metric.to_owned(), curve);
            }
            None => {}
        }
    }

    /// The values that this attempt logged last, at exactly this progress, the finite ones first:
    /// what an earlier attempt logged there is not the state's, where a run goes through its steps
    /// again.
    pub(in crate::store) fn metrics_at(&self, progress: Progress) -> [BTreeMap<String, f64>; 2] {
        let is_of = |point: &Point| (point.step, point.epoch) == (progress.step, progress.epoch);
        let value = |curve: &Curve| curve.newest.filter(is_of).map(|point| point.value);
        let named = |(metric, curve): (&String, &Curve)| Some((metric.clone(), value(curve)?));
        let (finite, others) =
            self.curves.iter().filter_map(named).partition(|(_, value): &(String, f64)| value.is_finite());
        [finite, others]
    }

    fn came_to(&mut self, step: u64) {
        let first = *self.own.first_step.get_or_insert(0);
        self.own.last_step = self.own.last_step.max(Some(step.max(first)));
    }

    /// A checkpoint of this length is durable.
    pub(in crate::store) fn saved(&mut self, progress: Progress, len: u64) {
        self.came_to(progress.step);
        self.own.saves += 1;
        self.newest_len = len;
    }

    /// This attempt's life, as it ends.
    pub(in crate::store) fn own(&self, end: LifeEnd, now: u64) -> Life {
        Life { last_seen: now, end, ..self.own.clone() }
    }

    /// The lives, this attempt's among them, for its schedule.
    pub(in crate::store) fn lives(&self, now: u64) -> Vec<Life> {
        let own = self.own(LifeEnd::Running, now);
        self.lives.iter().cloned().chain([own]).collect()
    }

    /// The record of a checkpoint at this progress: no longer than 16 KiB or one byte in 100 of the
    /// state, which has `state_len` bytes.
    pub(in crate::store) fn encode(&mut self, progress: Progress, now: u64, state_len: u64) -> Vec<u8> {
        // A stored checkpoint may be much shorter than the state: the one before tells.
        let limit = (state_len.min(self.newest_len) / SHARE).max(ALWAYS);
        if limit < self.longest {
            return self.clone().encode_within(limit, progress, now);
        }
        self.longest = limit;
        self.encode_within(limit, progress, now)
    }

    fn encode_within(&mut self, limit: u64, progress: Progress, now: u64) -> Vec<u8> {
        let own = Life {
            first_step: Some(self.own.first_step.unwrap_or(0)),
            last_step: Some(progress.step),
            saves: self.own.saves + 1,
            ..self.own(LifeEnd::Running, now)
        };
        let (lives, left_out) = lives_within(limit / 2, &self.lives, &own);
        let mut record = Record {
            lives,
            lives_left_out: self.lives_left_out.saturating_add(left_out),
            ..Record::default()
        };
        let mut shown = self.by_worth();
        loop {
            record.metrics = shown.iter().map(|metric| self.series(metric, progress)).collect();
            record.metrics_left_out = self.metrics_left_out.max((self.curves.len() - shown.len()) as u64);
            let bytes = records::encode_trusted(&record);
            // A little less than allowed, so that not every save has to begin again.
            let share = 0.9 * limit as f64 / bytes.len() as f64;
            if bytes.len() as u64 <= limit || shown.is_empty() {
                return bytes;
            }
            if !self.thin(share) {
                shown.truncate((shown.len() as f64 * share) as usize);
            }
        }
    }

    /// Names of the metrics, those that are ranked by first.
    fn by_worth(&self) -> Vec<String> {
        let mut names: Vec<String> = self.curves.keys().cloned().collect();
        names.sort_by_key(|name| !self.modes.contains_key(name));
        names
    }

    fn series(&self, metric: &str, progress: Progress) -> (String, SeriesRecord) {
        let curve = &self.curves[metric];
        let points = curve.until(progress.step, progress.epoch);
        let logged = curve.logged_until(progress.step, progress.epoch);
        (metric.to_owned(), SeriesRecord::of(points, logged, self.modes.get(metric).copied()))
    }

    /// Thins the longest curves until this share of all points is left. False when nothing can be
    /// thinned.
    fn thin(&mut self, share: f64) -> bool {
        let all = |curves: &BTreeMap<String, Curve>| {
            curves.values().map(|curve| curve.points().len()).sum::<usize>()
        };
        let before = all(&self.curves);
        while all(&self.curves) as f64 > before as f64 * share {
            let Some(longest) = self.curves.values_mut().max_by_key(|curve| curve.points().len()) else {
                break;
            };
            let len = longest.points().len();
            longest.thin_to(len - 1);
            if longest.points().len() == len {
                break;
            }
        }
        all(&self.curves) < before
    }
}

/// The newest lives that fit, and how many do not.
fn lives_within(limit: u64, earlier: &[Life], own: &Life) -> (Lives, u64) {
    let mut from = 0;
    loop {
        let lives = Lives::of(earlier[from..].iter().chain([own]));
        let len = records::encode_trusted(&lives).len() as u64;
        if len <= limit || from == earlier.len() {
            return (lives, from as u64);
        }
        from += (earlier.len() - from).div_ceil(4);
    }
}
