//! One look at a run's folders, and its contents: checkpoints, pins, marks, attempts. A listing may
//! be stale if storage answers from a replica or a cache; a process that must see what others did
//! before its own last write lists again until its write shows.

use super::absent::{self, Absent};
use super::naming::{
    ATTEMPTS, CheckpointId, DAMAGED, PINS, attempt_of_key, damaged_mark_key, deletes_of_key, ended_of_key,
    hidden_of_key, resumed_of_key, set_aside_of_key,
};
use super::record::CheckpointMeta;
use super::retention::Candidate;
use crate::engine::{Engine, Entry};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many of the newest attempts are kept, for people: each save lists them all.
const KEPT: usize = 64;

/// How many are removed at most when a run is opened: each takes one request.
const MOST_FORGOTTEN: usize = 256;

/// A checkpoint as the storage lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Attempt and step.
    pub id: CheckpointId,
    /// Length in bytes.
    pub byte_len: u64,
    /// As [`CheckpointInfo::is_marked`](super::CheckpointInfo::is_marked).
    pub is_marked: bool,
}

/// A listed checkpoint and its metadata.
pub(super) struct Found {
    pub listed: Listed,
    pub pinned: bool,
    pub state: Result<Arc<CheckpointMeta>>,
}

impl Found {
    pub(super) fn candidate(self) -> Candidate {
        let Self { listed: Listed { id, byte_len, is_marked }, pinned, state } = self;
        let shards = state.as_ref().map_or(0, |state| state.shard_bytes);
        Candidate { id, len: byte_len.saturating_add(shards), pinned, marked: is_marked, state: state.ok() }
    }
}

/// The listings of one look at the run's folders.
pub(super) struct Look(Vec<(&'static str, Vec<Entry>)>);

impl Look {
    /// Lists some of the run's folders, in one call of the engine.
    pub(super) fn at(engine: &dyn Engine, folders: &[&'static str]) -> Result<Self> {
        let listed = engine.list_each(folders)?;
        Ok(Self(folders.iter().copied().zip(listed).collect()))
    }

    /// As [`Look::at`], but not older than these objects, which the caller has written.
    ///
    /// # Errors
    /// Errors of listing; `Io` when one of them is there and is not listed.
    pub(super) fn behind(engine: &dyn Engine, folders: &[&'static str], written: &[String]) -> Result<Self> {
        let mut absent = Absent::default();
        loop {
            let look = Self::at(engine, folders)?;
            if !look.is_to_be_asked_again(engine, written, &mut absent)? {
                return Ok(look);
            }
        }
    }

    /// Whether this look is older than those objects. An object deleted meanwhile is never listed.
    pub(super) fn is_to_be_asked_again(
        &self,
        engine: &dyn Engine,
        written: &[String],
        absent: &mut Absent<String>,
    ) -> Result<bool> {
        let lacking: Vec<&String> = written.iter().filter(|key| !self.lists(key)).collect();
        if absent.ask_again(lacking.iter().copied().cloned()) {
            return Ok(true);
        }
        for key in lacking {
            match engine.open(key) {
                Err(error) if absent::is_absence(&error) => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(behind(engine, key)),
            }
        }
        Ok(false)
    }

    fn lists(&self, key: &str) -> bool {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.folder(folder).iter().any(|entry| entry.key == key)
    }

    /// The contents of `attempts/`.
    pub(super) fn board(&self) -> Board {
        Board::of(self.folder(ATTEMPTS))
    }

    /// Keys of all pins.
    pub(super) fn pins(&self) -> BTreeSet<&str> {
        self.folder(PINS).iter().map(|pin| &*pin.key).collect()
    }

    fn folder(&self, folder: &str) -> &[Entry] {
        self.0.iter().find(|(there, _)| *there == folder).map_or(&[], |(_, entries)| entries)
    }

    /// Keys of the checkpoints that are set aside as damaged, and of the marks if the engine cannot
    /// rename.
    pub(super) fn damaged(&self) -> BTreeSet<&str> {
        self.folder(DAMAGED).iter().map(|damaged| &*damaged.key).collect()
    }

    /// Whether the run has, and had, no checkpoint to resume from.
    pub(super) fn is_empty(&self) -> bool {
        let is_damaged = |key: &&str| hidden_of_key(key).is_none();
        self.checkpoints().is_empty() && !self.damaged().iter().any(is_damaged)
    }

    /// Whether a checkpoint of this name is there, hidden or set aside as damaged.
    pub(super) fn has_manifest(&self, id: CheckpointId) -> bool {
        self.lists(&id.key()) || self.damaged().iter().any(|key| set_aside_of_key(key) == Some(id))
    }

    /// The checkpoints that are hidden and not deleted.
    pub(super) fn hidden_and_there(&self) -> Vec<CheckpointId> {
        let hidden = self.damaged().into_iter().filter_map(hidden_of_key);
        hidden.filter(|id| self.lists(&id.key())).collect()
    }

    /// The checkpoints that are not hidden, oldest first.
    pub(super) fn checkpoints(&self) -> Vec<Listed> {
        let marks = self.damaged();
        let hidden: BTreeSet<CheckpointId> = marks.iter().filter_map(|key| hidden_of_key(key)).collect();
        let listed = |entry: &Entry| {
            let id = CheckpointId::of_key(&entry.key).filter(|id| !hidden.contains(id))?;
            let is_marked = !marks.is_empty() && marks.contains(&*damaged_mark_key(id));
            Some(Listed { id, byte_len: entry.len, is_marked })
        };
        let mut listed: Vec<Listed> = self.folder("").iter().filter_map(listed).collect();
        listed.sort_unstable_by_key(|listed| listed.id);
        listed
    }
}

fn behind(engine: &dyn Engine, key: &str) -> Error {
    Error::new(ErrorKind::Io, "was written by this process, and is not listed")
        .in_object(engine.describe(key))
        .help("the storage's listings are behind: nothing is deleted and nothing acknowledged by such a one; try again later")
}

/// The contents of one listing of `attempts/`.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    /// The newest number that was taken, 0 if none was.
    pub newest: u32,
    /// All numbers that are still listed, in no order.
    pub attempts: Vec<u32>,
    /// Checkpoints that are about to be deleted, and by which attempt or tool.
    pub deletes: Vec<(String, CheckpointId)>,
    /// Checkpoints that attempts resumed from.
    pub resumed: Vec<(u32, CheckpointId)>,
    /// Attempts that have said how they ended.
    pub ended: BTreeSet<u32>,
}

impl Board {
    pub(super) fn read(engine: &dyn Engine) -> Result<Self> {
        Ok(Self::of(&engine.list(ATTEMPTS)?))
    }

    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut board = Self::default();
        for entry in entries {
            if let Some(attempt) = attempt_of_key(&entry.key) {
                board.newest = board.newest.max(attempt);
                board.attempts.push(attempt);
            } else if let Some((by, id)) = deletes_of_key(&entry.key) {
                board.deletes.push((by.to_owned(), id));
            } else if let Some(mark) = resumed_of_key(&entry.key) {
                board.resumed.push(mark);
            } else if let Some(attempt) = ended_of_key(&entry.key) {
                board.ended.insert(attempt);
            }
        }
        board
    }

    pub(super) fn is_being_deleted(&self, id: CheckpointId) -> bool {
        self.deletes.iter().any(|(_, there)| *there == id)
    }

    /// Numbers whose objects are no longer needed, oldest first: all but the newest ones and those
    /// that left marks of deletion, which are needed to tell whether their process lives. A writer
    /// whose object is gone is fenced as before: there is a newer number. And no number is reused:
    /// the newest stays. The oldest go first, so that an attempt that follows on an existing one
    /// exists.
    pub(super) fn superfluous(&self) -> impl Iterator<Item = u32> {
        let mut attempts = self.attempts.clone();
        attempts.sort_unstable();
        let old = attempts.len().saturating_sub(KEPT);
        attempts.truncate(old.min(MOST_FORGOTTEN));
        let has_no_marks = |attempt: &u32| !self.deletes.iter().any(|(by, _)| by.parse() == Ok(*attempt));
        attempts.into_iter().take_while(has_no_marks)
    }

    /// Whether the newest writer resumed from this checkpoint.
    pub(super) fn is_resumed_from(&self, id: CheckpointId) -> bool {
        self.resumed.contains(&(self.newest, id))
    }
}
