//! The model of a run: checkpoints as the test made and damaged them, and retention implemented a
//! second time, independently of the store's.

use crate::store::{CheckpointId, Keep, Mode};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The metric of the checkpoints.
pub(super) const LOSS: &str = "loss";

/// A checkpoint as it was made, and its state since.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The value of its tensor.
    pub tag: u32,
    /// Whether every byte is as it was written.
    pub whole: bool,
    pub loss: Option<f64>,
    pub epoch: u64,
    pub saved_at: u64,
    pub resumed_from: Option<CheckpointId>,
}

/// The checkpoints of a tier.
pub(super) type Shelf = BTreeMap<CheckpointId, Known>;

/// A retention policy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Policy {
    All,
    Last(usize),
    Best(usize, Mode, usize),
    EverySteps(u64),
    EveryEpochs(u64),
    Young(u64),
    /// Ranks by a metric that no checkpoint has.
    Misspelt,
}

impl Policy {
    pub fn decode(byte: u8) -> Self {
        match byte % 12 {
            0 => Self::All,
            1 => Self::Last(1),
            2 => Self::Last(2),
            3 | 4 => Self::Last(3),
            5 | 6 => Self::Best(1, Mode::Min, 1),
            7 => Self::Best(2, Mode::Max, 2),
            8 => Self::EverySteps(8),
            9 => Self::EveryEpochs(2),
            10 => Self::Young(100),
            _ => Self::Misspelt,
        }
    }

    pub fn keep(self) -> Keep {
        match self {
            Self::All => Keep::all(),
            Self::Last(count) => Keep::last(count),
            Self::Best(last, mode, count) => Keep::last(last).or(Keep::best(LOSS, mode, count)),
            Self::EverySteps(steps) => Keep::last(1).or(Keep::every_steps(steps)),
            Self::EveryEpochs(epochs) => Keep::last(1).or(Keep::every_epochs(epochs)),
            Self::Young(seconds) => Keep::last(1).or(Keep::younger_than(Duration::from_secs(seconds))),
            Self::Misspelt => Keep::last(2).or(Keep::best("accuracy", Mode::Max, 1)),
        }
    }

    /// Whether more checkpoints can only take protection away from one, and never give it.
    pub fn is_monotone(self) -> bool {
        !matches!(self, Self::EverySteps(_) | Self::EveryEpochs(_))
    }

    /// The checkpoints that this policy protects, if all are readable.
    pub fn protects(self, shelf: &Shelf, now: u64) -> BTreeSet<CheckpointId> {
        let newest =
            |count: usize| shelf.keys().rev().take(count).copied().collect::<BTreeSet<CheckpointId>>();
        let mut kept = newest(1);
        match self {
            Self::All => kept.extend(shelf.keys()),
            Self::Last(count) => kept.extend(newest(count)),
            Self::Best(last, mode, count) => {
                kept.extend(newest(last));
                kept.extend(best(shelf, mode, count));
            }
            Self::EverySteps(steps) => kept.extend(firsts(shelf, |id, _| id.step / steps)),
            Self::EveryEpochs(epochs) => kept.extend(firsts(shelf, |_, known| known.epoch / epochs)),
            Self::Young(seconds) => {
                let young = |known: &Known| now.saturating_sub(known.saved_at) < seconds;
                kept.extend(shelf.iter().filter(|(_, known)| young(known)).map(|(id, _)| *id));
            }
            Self::Misspelt => kept.extend(newest(2)),
        }
        kept
    }
}

/// The best by the loss; among equals, the newest.
fn best(shelf: &Shelf, mode: Mode, count: usize) -> BTreeSet<CheckpointId> {
    let mut left: Vec<(CheckpointId, f64)> =
        shelf.iter().filter_map(|(id, known)| Some((*id, known.loss?))).collect();
    let mut kept = BTreeSet::new();
    for _ in 0..count {
        let mut first: Option<(CheckpointId, f64)> = None;
        for &(id, loss) in &left {
            let beats = |best: f64| if mode == Mode::Min { loss <= best } else { loss >= best };
            if first.is_none_or(|(_, best)| beats(best)) {
                first = Some((id, loss));
            }
        }
        let Some((id, _)) = first else { break };
        kept.insert(id);
        left.retain(|(other, _)| *other != id);
    }
    kept
}

/// The first of each bucket but bucket 0, of those that led to the newest.
fn firsts(shelf: &Shelf, bucket: impl Fn(CheckpointId, &Known) -> u64) -> BTreeSet<CheckpointId> {
    let mut first: BTreeMap<u64, CheckpointId> = BTreeMap::new();
    for id in way(shelf) {
        first.entry(bucket(id, &shelf[&id])).or_insert(id);
    }
    first.remove(&0);
    first.into_values().collect()
}

/// The checkpoints that led to the newest one, oldest first. An attempt without any checkpoint left
/// does not reveal where it began.
fn way(shelf: &Shelf) -> Vec<CheckpointId> {
    let mut way = Vec::new();
    let (mut attempt, mut step) = (u32::MAX, u64::MAX);
    while let Some(newest) = shelf.keys().rev().find(|id| id.attempt <= attempt) {
        let of_attempt = || shelf.keys().filter(|id| id.attempt == newest.attempt);
        way.extend(of_attempt().filter(|id| id.step <= step));
        let Some(start) = of_attempt().next().and_then(|first| shelf[first].resumed_from) else { break };
        step = step.min(start.step);
        // An attempt that resumed from its own checkpoint began before that.
        let Some(before) = newest.attempt.checked_sub(1) else { break };
        attempt = start.attempt.min(before);
    }
    way.sort_unstable();
    way
}
