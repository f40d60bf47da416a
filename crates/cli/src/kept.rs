//! What the policy of a run keeps.

use crate::output;
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::{CheckpointId, CheckpointInfo, Keep, Reader, Result};

/// Why each checkpoint is kept: by the policy that the newest checkpoint's writer had, where it
/// says so.
pub type Kept = BTreeMap<CheckpointId, BTreeSet<String>>;

/// The run's own policy, and what it keeps. Checkpoints of earlier versions do not say their
/// policy: then only what holds whatever the policy is known (newest, pinned, resumed from).
///
/// # Errors
/// What listing says.
pub fn kept(reader: &Reader, infos: &[CheckpointInfo]) -> Result<(Option<Keep>, Kept)> {
    let newest = infos.iter().rev().find_map(|info| info.state.as_ref().ok());
    let keep = newest.and_then(|state| state.keep.clone());
    let kept = reader.kept(keep.as_ref().unwrap_or(&Keep::default()), output::now())?;
    Ok((keep, kept))
}
