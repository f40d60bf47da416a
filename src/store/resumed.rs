//! The outcome of a resume, as a value.

use super::naming::CheckpointId;
use super::tiers::Tier;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::snapshot::Progress;

/// Where training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The newest checkpoint that verifies; None when the run starts from nothing.
    pub checkpoint: Option<Checkpoint>,
    /// Its attempt and step.
    pub id: Option<CheckpointId>,
    /// The tier it was found in. A checkpoint of the remote tier is fetched to the local one if
    /// there is room.
    pub tier: Option<Tier>,
    /// Completed steps and epochs; zeros when the run starts from nothing.
    pub progress: Progress,
    /// Newer checkpoints that do not verify, newest first.
    pub skipped: Vec<SkippedCheckpoint>,
    /// Why the remote tier was not consulted, if there is one: it may have had a newer checkpoint.
    pub remote_error: Option<Error>,
}

impl Resumed {
    /// The number of the next step, counted from 0: as many as are completed.
    pub fn next_step(&self) -> u64 {
        self.progress.step
    }

    /// The number of the next epoch, counted from 0.
    pub fn next_epoch(&self) -> u64 {
        self.progress.epoch
    }
}

/// A checkpoint that a resume passed over.
#[derive(Debug)]
#[non_exhaustive]
pub struct SkippedCheckpoint {
    /// Attempt and step.
    pub id: CheckpointId,
    /// The tier it is in.
    pub tier: Tier,
    /// Why it does not verify.
    pub error: Error,
    /// The place it was moved to, or why it could not be moved; None when it was left in place
    /// because the device, not the bytes, is at fault.
    pub set_aside: Option<Result<String>>,
}
