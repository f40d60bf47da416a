//! An interval that decides itself: from what saves cost, which is measured, and from how often the
//! run fails, which its history tells. Pure but for the clock's readings that it is handed.

use crate::snapshot::Progress;
use crate::store::cost::SaveCost;
use crate::store::cost::microseconds;
use crate::store::history::{Life, LifeEnd};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The share of training's time that saves may take, whatever would be lost without them.
const BUDGET: f64 = 0.035;

/// A save is on its way for as long as it takes to be durable, and the next one must find a place.
const SLACK: f64 = 1.1;

/// A target that is not further away is noise of the measurement.
const HYSTERESIS: f64 = 0.1;

/// Until something is measured.
const FIRST: Duration = Duration::from_secs(60);

/// The prior for a run that has not failed yet: one failure a day, with the weight of half a
/// failure.
const PRIOR: Duration = Duration::from_secs(24 * 3600);
const PRIOR_WEIGHT: f64 = 0.5;

/// What one life may add: a clock that jumped adds no more.
const LONGEST_LIFE: u64 = 90 * 24 * 3600;

/// The interval of [`Every::auto`](super::Every::auto), and what it was made of.
///
/// `interval` follows max(√(2·S·M), 1.1·P / in flight, S / 3.5 %), with S the stall, P the time
/// until a save is durable, and M the time between failures: the first term is the interval at
/// which as much time is lost by saving as by failures (J. W. Young, CACM 17, 1974); the second
/// leaves each save the time to end before the next; the third bounds what saving may cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AutoInterval {
    /// From one save to the next.
    #[serde(rename = "interval_us", with = "microseconds")]
    pub interval: Duration,
    /// How long a save holds training up, its slowing down beside the save included.
    #[serde(rename = "stall_us", with = "microseconds")]
    pub stall: Duration,
    /// How long a save takes until it is durable.
    #[serde(rename = "durable_us", with = "microseconds")]
    pub durable: Duration,
    /// The mean time between failures of the run.
    #[serde(rename = "between_failures_us", with = "microseconds")]
    pub between_failures: Duration,
    /// How many saves may be on their way at a time.
    pub in_flight: u64,
}

impl AutoInterval {
    /// The terms of the maximum in seconds, in the order of the formula.
    pub fn terms(&self) -> [f64; 3] {
        let [stall, durable, failures] =
            [self.stall, self.durable, self.between_failures].map(|time| time.as_secs_f64());
        let in_flight = self.in_flight.max(1) as f64;
        [(2.0 * stall * failures).sqrt(), SLACK * durable / in_flight, stall / BUDGET]
    }

    /// The share of all time that is expected to be lost: by stalls, and by training again what a
    /// failure takes, half an interval and what was not durable yet.
    pub fn expected_waste(&self) -> f64 {
        let interval = self.interval.as_secs_f64().max(1e-6);
        let lost = interval / 2.0 + self.durable.as_secs_f64();
        self.stall.as_secs_f64() / interval + lost / self.between_failures.as_secs_f64().max(1e-6)
    }

    /// Moves towards the target: at most twofold, and not at all where it is near.
    fn moved(mut self, from: Duration) -> Self {
        let target = self.terms().into_iter().fold(0.0, f64::max);
        let from = from.as_secs_f64().max(1e-3);
        let is_near = (target / from - 1.0).abs() < HYSTERESIS;
        let seconds = if is_near { from } else { target.clamp(from / 2.0, from * 2.0) };
        // Twice a time that was read from a file may be none.
        self.interval = Duration::try_from_secs_f64(seconds).unwrap_or(PRIOR);
        self
    }
}

/// The interval at work.
#[derive(Debug, Default)]
pub(super) struct Auto {
    pub now: Option<AutoInterval>,
    /// The save that was measured last.
    measured: Option<u64>,
    pace: Pace,
}

impl Auto {
    pub(super) fn interval(&self) -> Duration {
        self.now.as_ref().map_or(FIRST, |now| now.interval)
    }

    /// Goes on with the interval of the checkpoint that was resumed from.
    pub(super) fn resume(&mut self, interval: Option<AutoInterval>) {
        self.now = interval.filter(|interval| !interval.interval.is_zero()).or(self.now.take());
        self.pace = Pace::default();
    }

    /// Moves the interval by what a save cost, once for each.
    pub(super) fn learn(&mut self, cost: &SaveCost, between_failures: Duration, in_flight: usize) {
        if self.measured.replace(cost.step) == Some(cost.step) {
            return;
        }
        let stall = cost.stall + self.pace.slowed_down();
        let measured = AutoInterval {
            stall: smoothed(self.now.as_ref().map(|now| now.stall), stall),
            durable: smoothed(self.now.as_ref().map(|now| now.durable), cost.took),
            interval: Duration::ZERO,
            between_failures,
            in_flight: in_flight as u64,
        };
        self.now = Some(measured.moved(self.interval()));
    }

    /// Training has come so far, with or without a save beside it.
    pub(super) fn came_to(&mut self, progress: Progress, now: Instant, is_saving: bool) {
        self.pace.came_to(progress.step, now, is_saving);
    }

    /// A save is handed over: the time of that call is its own.
    pub(super) fn handed_over(&mut self) {
        self.pace.last = None;
    }
}

/// One slow save is not what saves cost: the mean of this one and what was believed.
fn smoothed(before: Option<Duration>, new: Duration) -> Duration {
    before.filter(|before| !before.is_zero()).map_or(new, |before| (before + new) / 2)
}

/// How fast training is, with and without a save beside it.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(u64, Instant)>,
    /// Seconds of a step without a save.
    step: Option<f64>,
    /// By how many seconds the steps beside the save were longer.
    slowed_down: f64,
}

impl Pace {
    fn came_to(&mut self, step: u64, now: Instant, is_saving: bool) {
        let before = self.last.replace((step, now));
        let Some((from, at)) = before.filter(|(from, _)| *from < step) else { return };
        let (seconds, steps) = (now.saturating_duration_since(at).as_secs_f64(), (step - from) as f64);
        match (is_saving, self.step) {
            (true, Some(usual)) => self.slowed_down += seconds - usual * steps,
            (true, None) => {}
            (false, usual) => {
                let each = seconds / steps;
                self.step = Some(usual.map_or(each, |usual| 0.9 * usual + 0.1 * each));
            }
        }
    }

    /// What it was since it was asked last.
    fn slowed_down(&mut self) -> Duration {
        Duration::try_from_secs_f64(std::mem::take(&mut self.slowed_down)).unwrap_or_default()
    }
}

/// The mean time between failures of these lives. An end that was planned is none.
pub(super) fn between_failures<'l>(lives: impl IntoIterator<Item = &'l Life>) -> Duration {
    let (mut failures, mut seconds) = (PRIOR_WEIGHT, PRIOR_WEIGHT * PRIOR.as_secs_f64());
    for life in lives.into_iter().filter(|life| life.started > 0) {
        failures += f64::from(u8::from(life.end == LifeEnd::Died));
        seconds += life.last_seen.saturating_sub(life.started).min(LONGEST_LIFE) as f64;
    }
    Duration::from_secs_f64(seconds / failures)
}

#[cfg(test)]
mod tests;
