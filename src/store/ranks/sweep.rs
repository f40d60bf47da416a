//! Shards that no checkpoint has: of saves that ended without a manifest, because a rank failed or
//! the job was killed. They are swept behind an own commit, by rank 0; or by a tool, behind one of
//! the newest attempt.
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
use crate::engine::{Engine, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::store::core::Core;
use crate::store::deletion::{By, tool_maker};
use crate::store::look::Look;
use crate::store::naming::{ATTEMPTS, CheckpointId, DAMAGED, hidden_key, save_of_shard_key};
use crate::store::reader::Reader;
use crate::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
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
    let by = By::Writer(&core.attempt);
    let mut saves = listed(core.reader.engine())?;
    saves.retain(|id, _| id.attempt < core.attempt.number);
    if saves.is_empty() {
        return Ok(());
    }
    let before = by.look(core.reader.engine(), &FOLDERS_OF_LOOK, vec![])?;
    saves.retain(|id, _| !before.has_manifest(*id));
    let swept: BTreeSet<CheckpointId> = saves.keys().copied().collect();
    let (_, behind) = delete_orphans(&core.reader, by, saves)?;
    finish_deletions(core, &behind, &swept);
    Ok(())
}

const FOLDERS_OF_LOOK: [&str; 3] = ["", DAMAGED, ATTEMPTS];

/// The shards of all saves.
fn listed(engine: &dyn Engine) -> Result<BTreeMap<CheckpointId, Vec<Entry>>> {
    let mut saves: BTreeMap<CheckpointId, Vec<Entry>> = BTreeMap::new();
    for entry in engine.list_each(&FOLDERS)?.into_iter().flatten() {
        if let Some(id) = save_of_shard_key(&entry.key) {
            saves.entry(id).or_default().push(entry);
        }
    }
    Ok(saves)
}

/// Hides, looks, and deletes. Returns what was deleted, and the look behind the marks.
fn delete_orphans(
    reader: &Reader,
    by: By<'_>,
    saves: BTreeMap<CheckpointId, Vec<Entry>>,
) -> Result<(Vec<Entry>, Look)> {
    let (engine, maker) = (reader.engine(), by.maker());
    let mine = |id| hidden_key(id, &maker);
    // Marks that were there stay: their shards may be gone.
    let mut made = BTreeSet::new();
    for &id in saves.keys() {
        match engine.mark(&mine(id)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            marked => {
                marked?;
                made.insert(id);
            }
        }
    }
    let behind = by.look(engine, &FOLDERS_OF_LOOK, saves.keys().map(|id| mine(*id)).collect());
    let behind = behind.inspect_err(|_| {
        // A newer start decides.
        for &id in &made {
            let _ = engine.unmark(&mine(id));
        }
    })?;
    let mut deleted = Vec::new();
    for (id, shards) in saves {
        if behind.has_manifest(id) {
            if made.contains(&id) {
                let _ = engine.unmark(&mine(id));
            }
        } else {
            deleted.extend(shards.into_iter().filter(|shard| engine.delete(&shard.key).is_ok()));
        }
    }
    Ok((deleted, behind))
}

/// Shards that no checkpoint has: see [`Reader::orphaned_shards`].
#[derive(Debug)]
pub struct OrphanedShards {
    saves: BTreeMap<CheckpointId, Vec<Entry>>,
    /// The newest attempt when they were listed.
    newest: u32,
    reader: Reader,
}

impl Reader {
    /// Shards that no checkpoint has, of attempts before the newest: of saves whose ranks failed or
    /// were killed. A store of many ranks deletes them behind its own first save.
    ///
    /// # Errors
    /// Errors of listing.
    pub fn orphaned_shards(&self) -> Result<OrphanedShards> {
        let mut saves = listed(self.engine())?;
        let look = Look::at(self.engine(), &FOLDERS_OF_LOOK)?;
        let newest = look.board().newest;
        saves.retain(|id, _| id.attempt < newest && !look.has_manifest(*id));
        Ok(OrphanedShards { saves, newest, reader: self.clone() })
    }
}

impl OrphanedShards {
    /// The objects.
    pub fn objects(&self) -> impl Iterator<Item = &Entry> {
        self.saves.values().flatten()
    }

    /// Deletes those that are still orphans; returns them. No running job is disturbed: only saves
    /// of older attempts than the newest are touched.
    ///
    /// # Errors
    /// `Busy` while the newest attempt has no checkpoint; `Fenced` when a writer has opened the run
    /// since they were listed. Then nothing was deleted. Errors of the storage.
    pub fn delete(self) -> Result<Vec<Entry>> {
        if self.saves.is_empty() {
            return Ok(vec![]);
        }
        let engine = self.reader.engine();
        // A name that is hidden might otherwise be that of the only checkpoint, for a moment.
        if !self.reader.ids()?.iter().any(|id| id.attempt == self.newest) {
            return Err(Error::new(ErrorKind::Busy, "the newest attempt has saved nothing yet")
                .in_object(engine.describe(""))
                .help("once it has, shards of earlier attempts can be deleted"));
        }
        let maker = tool_maker();
        let by = By::Tool { maker: &maker, newest: self.newest };
        Ok(delete_orphans(&self.reader, by, self.saves)?.0)
    }
}

/// Deletes what was hidden to be deleted, by a process that was killed before it did. Not those
/// that this sweep has just hidden and shown again.
fn finish_deletions(core: &Core, look: &Look, swept: &BTreeSet<CheckpointId>) {
    let engine = core.reader.engine();
    for id in look.hidden_and_there().into_iter().filter(|id| !swept.contains(id)) {
        if core.known().resumed_from == Some(id) {
            continue;
        }
        // Its shards are without a manifest then, and go with the next sweep.
        let _ = engine.delete(&id.key());
    }
}
