//! Shards that no checkpoint has: of saves that ended without a manifest, because a rank failed or
//! the job was killed. They are swept behind an own commit, by rank 0.
//!
//! # Why no checkpoint loses a shard
//! * Only saves of older attempts are swept: the shards of this attempt's saves are deleted by the
//!   ranks that wrote them, when a save has failed for certain.
//! * Only saves without any manifest are swept, not those of a checkpoint that is being deleted or
//!   was set aside as damaged.
//! * A zombie of an older attempt may still create its manifest. So the name is *hidden* first, by
//!   an object that stays, and only then is it looked for the manifest again: either it is there,
//!   and the shards stay, or it will never be listed.
//! * A start that is newer than this one takes its attempt before it lists; the look behind the
//!   marks then finds it, and nothing is deleted.

use super::Ranks;
use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use crate::store::core::Core;
use crate::store::look::Look;
use crate::store::naming::{ATTEMPTS, CheckpointId, DAMAGED, hidden_key, save_of_shard_key};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long nothing is swept after it was.
const PAUSE: Duration = Duration::from_secs(3600);

/// The folders of shards, by the lowest digit of the rank.
const FOLDERS: [&str; 16] = [
    "shards/0", "shards/1", "shards/2", "shards/3", "shards/4", "shards/5", "shards/6", "shards/7",
    "shards/8", "shards/9", "shards/a", "shards/b", "shards/c", "shards/d", "shards/e", "shards/f",
];

impl Ranks {
    /// Sweeps behind the first commit, and at most once an hour after it.
    pub(super) fn sweep(&self, core: &Core) -> Result<()> {
        let mut last = lock(&self.last_sweep);
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return Ok(());
        }
        *last = Some(Instant::now());
        sweep(core)
    }
}

fn sweep(core: &Core) -> Result<()> {
    let engine = core.reader.engine();
    let mut saves: BTreeMap<CheckpointId, Vec<String>> = BTreeMap::new();
    for entry in engine.list_each(&FOLDERS)?.into_iter().flatten() {
        match save_of_shard_key(&entry.key) {
            Some(id) if id.attempt < core.attempt.number => saves.entry(id).or_default().push(entry.key),
            _ => {}
        }
    }
    if saves.is_empty() {
        return Ok(());
    }
    let look = || core.attempt.look(engine, &["", DAMAGED, ATTEMPTS], vec![]);
    let before = look()?;
    saves.retain(|id, _| !before.has_manifest(*id));
    let mine = |id| hidden_key(id, &core.attempt.maker());
    for &id in saves.keys() {
        match engine.mark(&mine(id)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let behind = look().inspect_err(|_| {
        // A newer start decides.
        for &id in saves.keys() {
            let _ = engine.unmark(&mine(id));
        }
    })?;
    for (id, keys) in saves {
        if behind.has_manifest(id) {
            let _ = engine.unmark(&mine(id));
        } else {
            delete_all(engine, keys);
        }
    }
    finish_deletions(core, &behind);
    Ok(())
}

/// Deletes what was hidden to be deleted, by a process that was killed before it did.
fn finish_deletions(core: &Core, look: &Look) {
    let engine = core.reader.engine();
    for id in look.hidden_and_there() {
        if core.known().resumed_from == Some(id) {
            continue;
        }
        // Its shards are without a manifest then, and go with the next sweep.
        let _ = engine.delete(&id.key());
    }
}

/// Deletes shards; those that cannot be are orphans, and go with a later sweep.
pub(in crate::store) fn delete_all(engine: &dyn Engine, keys: impl IntoIterator<Item = String>) {
    for key in keys {
        let _ = engine.delete(&key);
    }
}
