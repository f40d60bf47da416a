//! Opening the checkpoints of a run, read or mapped.

use super::Reader;
use crate::checkpoint::{Checkpoint, OpenOptions, Siblings, Verify};
use crate::engine::{Blob, Engine, MmapPromise};
use crate::error::{ErrorKind, NoneIf, Result};
use crate::store::absent;
use crate::store::damage::is_damage;
use crate::store::naming::{CheckpointId, damaged_mark_key};
use crate::store::record::{SAVE, SaveRecord};
use std::sync::Arc;

impl Reader {
    /// The checkpoint of a step; if several attempts have it, the newest attempt's.
    ///
    /// # Errors
    /// `NotFound` with the nearest steps, and as [`Checkpoint::open`].
    pub fn checkpoint(&self, step: u64) -> Result<Checkpoint> {
        self.checkpoint_by_id(self.find(step)?)
    }

    /// Exactly this checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn checkpoint_by_id(&self, id: CheckpointId) -> Result<Checkpoint> {
        self.map.map_or_else(|| self.open_to_read(id), |promise| self.open_mapped(id, promise, self.options))
    }

    /// As [`Reader::checkpoint_by_id`], tried twice if the bytes are at fault: one wrong answer
    /// must not make an older checkpoint win.
    pub(super) fn open_surely(&self, id: CheckpointId) -> Result<Checkpoint> {
        match self.checkpoint_by_id(id) {
            Err(error) if is_damage(&error) => self.checkpoint_by_id(id),
            opened => opened,
        }
    }

    fn open_mapped(
        &self,
        id: CheckpointId,
        promise: MmapPromise,
        options: OpenOptions,
    ) -> Result<Checkpoint> {
        // Tried, not looked up: an engine may have to write to find out its capabilities, and a
        // reader only reads.
        match self.engine.map(&id.key(), promise) {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.open_to_read(id),
            mapped => options.open_in(mapped?, self.engine.describe(&id.key()), self.beside(Some(promise))),
        }
    }

    /// As [`Reader::checkpoint_by_id`], never mapped. What opens as another checkpoint is believed
    /// when two answers say so: a cache may take one object for another, and another program may
    /// have renamed it.
    pub(in crate::store) fn open_to_read(&self, id: CheckpointId) -> Result<Checkpoint> {
        let opened = self.open_once(id)?;
        if is_another(&opened, id) { self.open_once(id) } else { Ok(opened) }
    }

    fn open_once(&self, id: CheckpointId) -> Result<Checkpoint> {
        let key = id.key();
        self.options.open_in(self.engine.open(&key)?, self.engine.describe(&key), self.beside(None))
    }

    /// The run's other objects, for a manifest.
    fn beside(&self, map: Option<MmapPromise>) -> Option<Arc<dyn Siblings>> {
        Some(Arc::new(Beside { engine: Arc::clone(&self.engine), map }))
    }

    /// Any object of the run as a file by itself: a checkpoint by its key, or a shard.
    pub(in crate::store) fn open_key(&self, key: &str) -> Result<Checkpoint> {
        match CheckpointId::of_key(key) {
            Some(id) => self.checkpoint_by_id(id),
            None => self.options.open_in(self.engine.open(key)?, self.engine.describe(key), None),
        }
    }

    /// A checkpoint that was verified by reading, mapped if this reader maps; nothing is verified
    /// twice.
    pub(in crate::store) fn map_verified(&self, read: Checkpoint, id: CheckpointId) -> Result<Checkpoint> {
        match self.map {
            // Not verified at opening: that would go through the mapping.
            Some(promise) if read.name() == self.engine.describe(&id.key()) => {
                Ok(self.open_mapped(id, promise, self.options.verify(Verify::OnTouch))?.trusting(&read))
            }
            _ => Ok(read),
        }
    }

    /// Removes the mark of damage from a checkpoint that verifies, every byte of it, and returns
    /// whether there was one: the storage may have answered wrongly when it was set.
    ///
    /// # Errors
    /// Errors of verifying, and then the mark stays; errors of the engine.
    pub fn heal(&self, id: CheckpointId) -> Result<bool> {
        self.open_to_read(id)?.verify()?;
        let removed = self.engine.delete(&damaged_mark_key(id)).none_if(absent::is_absence)?;
        Ok(removed.is_some())
    }
}

/// The objects of an engine, read or mapped.
struct Beside {
    engine: Arc<dyn Engine>,
    map: Option<MmapPromise>,
}

impl Siblings for Beside {
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        match self.map.map(|promise| self.engine.map(key, promise)) {
            Some(Err(error)) if error.kind() == ErrorKind::Unsupported => self.engine.open(key),
            Some(mapped) => mapped,
            None => self.engine.open(key),
        }
    }

    fn describe(&self, key: &str) -> String {
        self.engine.describe(key)
    }
}

/// Whether a checkpoint was saved under another name.
fn is_another(checkpoint: &Checkpoint, id: CheckpointId) -> bool {
    // Damage is for the caller to find.
    let save = checkpoint.optional_record::<SaveRecord>(SAVE).ok().flatten();
    save.is_some_and(|save| save.id() != id)
}
