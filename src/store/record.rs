//! What a checkpoint says of itself, besides its tensors: the store's own record, which says when,
//! why and in which attempt it was saved, and what a reader makes of that.

use super::cost::SaveCost;
use super::keep::Keep;
use super::naming::CheckpointId;
use super::run_id::RunId;
use super::schedule::Begun;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::snapshot::Progress;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The store's own record in each of its checkpoints.
pub(super) const SAVE: &str = "tensorkeep.save";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SaveRecord {
    pub attempt: u32,
    pub step: u64,
    /// Seconds since 1970.
    pub saved_at: u64,
    pub why: String,
    pub resumed_from: Option<String>,
    /// The run that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The retention policy at work, so that tools can say what will go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// The same of the remote tier, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_remote: Option<Keep>,
    /// What the save before this one cost, if this attempt made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<SaveCost>,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CheckpointMeta {
    /// Completed steps and epochs.
    pub progress: Progress,
    /// Metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// When it was saved, in seconds since 1970, by the writer's clock.
    pub saved_at: u64,
    /// Why it was saved.
    pub why: String,
    /// The checkpoint that its attempt had resumed from.
    pub resumed_from: Option<String>,
    /// The run that it belongs to; None in checkpoints of version 0.1.
    pub run: Option<RunId>,
    /// The retention policy of its writer, if it says so: what the next save of the same program
    /// would delete.
    pub keep: Option<Keep>,
    /// The same of the remote tier, of a run in two tiers.
    pub keep_remote: Option<Keep>,
    /// What the save before this one cost, if the same attempt made one: a save does not know its
    /// own cost yet.
    pub previous: Option<SaveCost>,
    /// Tensors, ties counted each.
    pub tensors: usize,
}

impl CheckpointMeta {
    /// What the checkpoint of this name says of itself.
    pub(super) fn of(checkpoint: &Checkpoint, name: CheckpointId) -> Result<Self> {
        let save: SaveRecord = checkpoint.optional_record(SAVE)?.unwrap_or_default();
        let progress = checkpoint.progress()?.unwrap_or(Progress::new(name.step));
        Ok(Self::new(save, progress, checkpoint.metrics()?, checkpoint.names().count()))
    }

    /// The same of one that was just saved: it need not be read to be known.
    pub(super) fn of_saved(save: SaveRecord, begun: &Begun, tensors: usize) -> Self {
        Self::new(save, begun.progress, begun.metrics.clone(), tensors)
    }

    fn new(save: SaveRecord, progress: Progress, metrics: BTreeMap<String, f64>, tensors: usize) -> Self {
        Self {
            progress,
            metrics,
            saved_at: save.saved_at,
            why: save.why,
            resumed_from: save.resumed_from,
            run: save.run,
            keep: save.keep,
            keep_remote: save.keep_remote,
            previous: save.previous,
            tensors,
        }
    }
}
