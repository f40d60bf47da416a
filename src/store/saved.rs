//! The outcome of a save, as a value.

use super::naming::CheckpointId;
use crate::error::Error;
use crate::layout::TensorBox;
use crate::writer::{Timings, Written};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;

/// The outcome of a save.
#[derive(Debug)]
#[non_exhaustive]
pub struct Saved {
    /// Attempt and step.
    pub id: CheckpointId,
    /// Length of the checkpoint in bytes.
    pub byte_len: u64,
    /// Where the time went, without rotation.
    pub timings: Timings,
    /// Checkpoints that rotation deleted.
    pub deleted: Vec<CheckpointId>,
    /// Checkpoints that rotation failed to delete. The save is durable all the same, and the next
    /// one tries again.
    pub not_deleted: Vec<(CheckpointId, Error)>,
    /// Why rotation did not run at all, if it did not.
    pub rotation_error: Option<Error>,
    /// Problems that did not keep this checkpoint from being saved, in words for a log.
    pub warnings: Vec<String>,
    /// What several ranks of a job hold and what differs between them: the bytes of the rank that
    /// stores it were saved. Empty in a job of one rank.
    pub diverged: Vec<Diverged>,
    /// An earlier background save or promotion that failed and that no call has returned yet. It is
    /// returned once. When several have failed, later calls return the others.
    pub earlier_error: Option<Error>,
}

impl Saved {
    /// What was written, before rotation.
    pub(super) fn of(id: CheckpointId, written: Written) -> Self {
        let Written { byte_len, timings, unmatched_patterns, .. } = written;
        let no_tensor =
            |pattern| format!("the codec for {pattern:?} was chosen for no tensor: none has such a name");
        Self {
            id,
            byte_len,
            timings,
            deleted: vec![],
            not_deleted: vec![],
            rotation_error: None,
            warnings: unmatched_patterns.iter().map(no_tensor).collect(),
            diverged: vec![],
            earlier_error: None,
        }
    }
}

/// What several ranks of a job hold, of which some have other bytes than others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diverged {
    /// The tensor, or the record.
    pub name: String,
    /// Offsets and lengths of the box that they hold; None for a record.
    pub offsets_and_lens: Option<(Vec<u64>, Vec<u64>)>,
    /// The ranks, in one list for each value that they have, the largest list first.
    pub ranks: Vec<Vec<u32>>,
}

impl Diverged {
    pub(super) fn of(name: &str, tensor_box: Option<&TensorBox>, by_value: HashMap<u32, Vec<u32>>) -> Self {
        let mut ranks: Vec<Vec<u32>> = by_value.into_values().collect();
        ranks.sort_by_key(|ranks| (std::cmp::Reverse(ranks.len()), ranks.first().copied()));
        let offsets_and_lens = tensor_box.map(|own| (own.offsets().to_vec(), own.lens().to_vec()));
        Self { name: name.to_owned(), offsets_and_lens, ranks }
    }
}

/// In words: `tensor fc1.weight [0:128, 0:64]: ranks 0, 1, 3 differ from ranks 2`.
impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.offsets_and_lens {
            Some((offsets, lens)) => {
                write!(f, "tensor {}", self.name)?;
                if let Ok(own) = TensorBox::new(&offsets[..], &lens[..]) {
                    write!(f, " {own}")?;
                }
            }
            None => write!(f, "record {}", self.name)?,
        }
        for (number, ranks) in self.ranks.iter().enumerate() {
            let few: Vec<String> = ranks.iter().take(16).map(u32::to_string).collect();
            let more = ranks.len().saturating_sub(few.len());
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let between = if number == 0 { ": ranks " } else { " differ from ranks " };
            write!(f, "{between}{}{more}", few.join(", "))?;
        }
        Ok(())
    }
}
