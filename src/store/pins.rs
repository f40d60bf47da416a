//! Pins and other objects beside a run's checkpoints, for people and tools: setting and removing
//! pins, and listing attempts and checkpoints that were set aside. None of this needs a lock or an
//! attempt: a pin is a create-once object.

use super::attempt::Writer;
use super::deletion;
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED, attempt_of_key, hidden_of_key};
use super::reader::Reader;
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::engine::{Engine, fresh_nonce};
use crate::error::{ErrorKind, NoneIf, Result};

/// Who opened a run for writing, and when.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttemptInfo {
    /// The attempt's number, counted from 1.
    pub number: u32,
    /// The writer's host; empty when its object cannot be read.
    pub host: String,
    /// The writer's process.
    pub pid: u32,
    /// When it opened the run, in seconds since 1970 by its clock; 0 when its object cannot be
    /// read.
    pub started_at: u64,
}

impl CheckpointId {
    /// Protects this checkpoint from rotation, also beside a running writer. Pinning twice is fine.
    ///
    /// # Errors
    /// `NotFound` when there is no such checkpoint, or when rotation was faster; `Busy` when its
    /// deletion began before and does not end; errors of the engine.
    pub fn pin(self, engine: &dyn Engine) -> Result<()> {
        engine.open(&self.key())?;
        let pinned =
            engine.create(&self.pin_key(), Some(0)).and_then(|upload| Ok(upload.commit(fresh_nonce())?));
        match pinned {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // The pin is written; now look: see deletion.rs. The pin stays if this fails, because
        // another process may have pinned, too, and seen no deletion.
        if deletion::is_being_deleted(engine, self, &self.pin_key())? {
            return Err(deletion::busy(engine, self));
        }
        let there = engine.open(&self.key()).map(drop);
        if there.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // Names are never reused, so no other process's pin is lost.
            let _ = engine.delete(&self.pin_key());
        }
        there
    }

    /// Removes the pin. Nothing is deleted before the next save.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn unpin(self, engine: &dyn Engine) -> Result<()> {
        let deleted = engine.delete(&self.pin_key());
        deleted.none_if(|error| error.kind() == ErrorKind::NotFound).map(drop)
    }
}

impl Reader {
    /// All attempts to write to this run, oldest first.
    ///
    /// # Errors
    /// Errors of listing. An attempt whose object cannot be read is listed without its writer.
    pub fn attempts(&self) -> Result<Vec<AttemptInfo>> {
        let listed = self.engine().list(ATTEMPTS)?;
        let mut numbers: Vec<u32> = listed.iter().filter_map(|entry| attempt_of_key(&entry.key)).collect();
        numbers.sort_unstable();
        Ok(numbers
            .into_iter()
            .map(|number| {
                let writer = Writer::read(self.engine(), number).unwrap_or_default();
                AttemptInfo { number, host: writer.host, pid: writer.pid, started_at: writer.started_at }
            })
            .collect())
    }

    /// Keys of the checkpoints that resuming has set aside as damaged.
    ///
    /// # Errors
    /// Errors of listing.
    pub fn set_aside(&self) -> Result<Vec<String>> {
        let mut keys: Vec<String> = self.engine().list(DAMAGED)?.into_iter().map(|entry| entry.key).collect();
        // Deleted, not damaged.
        keys.retain(|key| hidden_of_key(key).is_none());
        keys.sort();
        Ok(keys)
    }

    /// Opens a checkpoint that was set aside, to inspect it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_set_aside(&self, key: &str) -> Result<Checkpoint> {
        let blob = self.engine().open(key)?;
        OpenOptions::new().open_blob(blob, self.engine().describe(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Memory;
    use crate::{Keep, Mode, Progress, Snapshot, Store, StoreOptions};
    use std::sync::Arc;

    #[test]
    fn tools_see_attempts_and_the_policy_and_pin_beside_a_writer() {
        let engine: Arc<dyn Engine> = Arc::new(Memory::new());
        let keep = Keep::last(2).or(Keep::best("loss", Mode::Min, 1));
        let store = Store::open(Arc::clone(&engine), StoreOptions::new().keep(keep.clone())).unwrap();
        for (step, loss) in [(1, 0.1), (2, 0.4), (3, 0.3)] {
            let snapshot = Snapshot::new().metric("loss", loss).unwrap().progress(Progress::new(step));
            store.save(&snapshot).unwrap();
        }
        let reader = store.reader();
        let infos = reader.list().unwrap();
        let recorded = infos[2].state.as_ref().unwrap().keep.clone();
        assert_eq!(recorded.map(|keep| keep.to_string()).as_deref(), Some("last 2, 1 best loss (min)"));
        let steps = |keep: &Keep| reader.kept(keep, 0).unwrap().keys().map(|id| id.step).collect::<Vec<_>>();
        assert_eq!(steps(&keep), [1, 2, 3]);
        assert_eq!(steps(&Keep::last(1)), [3]);
        let id = reader.find(2).unwrap();
        id.pin(&*engine).unwrap();
        id.pin(&*engine).unwrap();
        assert_eq!(steps(&Keep::last(1)), [2, 3]);
        id.unpin(&*engine).unwrap();
        id.unpin(&*engine).unwrap();
        assert_eq!(steps(&Keep::last(1)), [3]);
        let gone = CheckpointId { attempt: 1, step: 99 };
        assert_eq!(gone.pin(&*engine).unwrap_err().kind(), ErrorKind::NotFound);
        let attempts = reader.attempts().unwrap();
        assert_eq!((attempts.len(), attempts[0].number, attempts[0].pid), (1, 1, std::process::id()));
        assert_eq!(reader.set_aside().unwrap(), Vec::<String>::new());
    }
}
