//! The metadata of a checkpoint, besides its tensors: the store's own record, which holds when, why
//! and in which attempt it was saved, and [`CheckpointMeta`], a reader's view of it.

use super::cost::SaveCost;
use super::keep::Keep;
use super::naming::CheckpointId;
use super::run_id::RunId;
use super::schedule::{AutoInterval, Begun};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::format::pieces::ShardRef;
use crate::format::shard::shard_key;
use crate::snapshot::Progress;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// The retention policy in force, so that tools can show what would be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// The policy of the remote tier, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_remote: Option<Keep>,
    /// The cost of the save before this one, if this attempt made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<SaveCost>,
    /// The interval that decides itself, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoInterval>,
    /// Metrics that are NaN or infinite. Not in the record of metrics: version 0.1 ranks a NaN
    /// there, and before every number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_finite: BTreeMap<String, f64>,
    /// The number of ranks of its job, if there was more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world: Option<u32>,
}

impl SaveRecord {
    /// The name that it was saved under.
    pub(super) fn id(&self) -> CheckpointId {
        CheckpointId { attempt: self.attempt, step: self.step }
    }
}

/// The metadata that a checkpoint records about itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CheckpointMeta {
    /// Completed steps and epochs.
    pub progress: Progress,
    /// Metrics by name, all finite: checkpoints are ranked by them.
    pub metrics: BTreeMap<String, f64>,
    /// Metrics that were NaN or infinite at this progress.
    pub not_finite: BTreeMap<String, f64>,
    /// When it was saved, in seconds since 1970, by the writer's clock.
    pub saved_at: u64,
    /// Under which name it was saved, where its file has another one now.
    pub saved_as: Option<CheckpointId>,
    /// Why it was saved.
    pub why: String,
    /// The checkpoint that its attempt had resumed from.
    pub resumed_from: Option<String>,
    /// The run that it belongs to; None in checkpoints of version 0.1.
    pub run: Option<RunId>,
    /// The retention policy of its writer, if recorded: it decides what the next save of the same
    /// program deletes.
    pub keep: Option<Keep>,
    /// The policy of the remote tier, in a run of two tiers.
    pub keep_remote: Option<Keep>,
    /// The cost of the save before this one, if the same attempt made one: a save does not know its
    /// own cost yet.
    pub previous: Option<SaveCost>,
    /// The interval of [`Every::auto`](super::Every::auto) at that time and its terms, where the
    /// program saves by it and a save was measured.
    pub auto: Option<AutoInterval>,
    /// Number of tensors, aliases included.
    pub tensors: usize,
    /// The number of ranks of the job that saved it, if there was more than one.
    pub world: Option<u32>,
    /// Bytes of the shards beside it, of a checkpoint of many files.
    pub shard_bytes: u64,
    /// The names of these shards.
    pub(super) shards: Option<Arc<Shards>>,
}

/// The shards of a checkpoint, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shards {
    pub save: String,
    pub ranks: Vec<u32>,
}

impl Shards {
    pub(super) fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.ranks.iter().map(|&rank| shard_key(&self.save, rank))
    }
}

impl CheckpointMeta {
    /// Reads the metadata of the checkpoint with this id.
    pub(super) fn of(checkpoint: &Checkpoint, id: CheckpointId) -> Result<Self> {
        let save: Option<SaveRecord> = checkpoint.optional_record(SAVE)?;
        let saved_as = save.as_ref().map(SaveRecord::id).filter(|saved| saved.attempt > 0 && *saved != id);
        let progress = checkpoint.progress()?.unwrap_or(Progress::new(id.step));
        let (save, tensors) = (save.unwrap_or_default(), checkpoint.names().count());
        let meta = Self { saved_as, ..Self::new(save, progress, checkpoint.metrics()?, tensors) };
        Ok(match checkpoint.shard_refs() {
            None => meta,
            Some((save, refs)) => meta.with_shards(save, &refs),
        })
    }

    /// With these shards beside it.
    pub(super) fn with_shards(self, save: &str, shards: &[ShardRef]) -> Self {
        let ranks = shards.iter().map(|shard| shard.rank).collect();
        let shard_bytes = shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.len));
        Self { shard_bytes, shards: Some(Arc::new(Shards { save: save.to_owned(), ranks })), ..self }
    }

    /// The metadata of a checkpoint that was just saved, without reading it.
    pub(super) fn of_saved(save: SaveRecord, begun: &Begun, tensors: usize) -> Self {
        Self::new(save, begun.progress, begun.metrics.clone(), tensors)
    }

    fn new(save: SaveRecord, progress: Progress, metrics: BTreeMap<String, f64>, tensors: usize) -> Self {
        Self {
            progress,
            metrics,
            not_finite: save.not_finite,
            saved_at: save.saved_at,
            saved_as: None,
            why: save.why,
            resumed_from: save.resumed_from,
            run: save.run,
            keep: save.keep,
            keep_remote: save.keep_remote,
            previous: save.previous,
            auto: save.auto,
            tensors,
            world: save.world,
            shard_bytes: 0,
            shards: None,
        }
    }
}
