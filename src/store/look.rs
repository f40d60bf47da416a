//! One look at a run's folders, and what it shows: checkpoints, pins, marks, attempts. Knows the names of all of them, and
//! opens nothing.

use super::attempt::Board;
use super::naming::{ATTEMPTS, DAMAGED, Name, PINS, damaged_mark_key};
use super::record::State;
use super::retention::Candidate;
use crate::engine::{Engine, Entry};
use crate::error::Result;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A checkpoint as the storage lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Attempt and step.
    pub name: Name,
    /// Length in bytes.
    pub len: u64,
    /// As [`Info::is_marked`](super::Info::is_marked).
    pub is_marked: bool,
}

/// A listed checkpoint, and what is known of it.
pub(super) struct Found {
    pub listed: Listed,
    pub pinned: bool,
    pub state: Result<Arc<State>>,
}

impl Found {
    pub(super) fn candidate(self) -> Candidate {
        let Self { listed: Listed { name, len, is_marked }, pinned, state } = self;
        Candidate { name, len, pinned, marked: is_marked, state: state.ok() }
    }
}

/// What one look at the run's folders showed.
pub(super) struct Look(Vec<(&'static str, Vec<Entry>)>);

impl Look {
    /// At some of the run's folders, in one call of the engine.
    pub(super) fn at(engine: &dyn Engine, folders: &[&'static str]) -> Result<Self> {
        let listed = engine.list_each(folders)?;
        Ok(Self(folders.iter().copied().zip(listed).collect()))
    }

    /// As [`Board`] says it.
    pub(super) fn board(&self) -> Board {
        Board::of(self.folder(ATTEMPTS))
    }

    /// Keys of all pins.
    pub(super) fn pins(&self) -> BTreeSet<&str> {
        self.folder(PINS).iter().map(|pin| &*pin.key).collect()
    }

    pub(super) fn folder(&self, folder: &str) -> &[Entry] {
        self.0.iter().find(|(there, _)| *there == folder).map_or(&[], |(_, entries)| entries)
    }

    /// The checkpoints, oldest first.
    pub(super) fn checkpoints(&self) -> Vec<Listed> {
        // Where the engine cannot rename, damaged checkpoints are marked instead of moved.
        let marks: BTreeSet<&str> = self.folder(DAMAGED).iter().map(|mark| &*mark.key).collect();
        let listed = |entry: &Entry| {
            let name = Name::of_key(&entry.key)?;
            let is_marked = !marks.is_empty() && marks.contains(&*damaged_mark_key(name));
            Some(Listed { name, len: entry.len, is_marked })
        };
        let mut listed: Vec<Listed> = self.folder("").iter().filter_map(listed).collect();
        listed.sort_unstable_by_key(|listed| listed.name);
        listed
    }
}
