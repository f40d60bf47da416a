//! The steps of a process: its calls, their replies, and the events that it reports. Keys begin
//! with their place.

use crate::engine::Entry;
use crate::error::ErrorKind;
use crate::store::CheckpointId;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// An event that a process reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has this attempt.
    Opened(u32),
    /// It resumed, from this checkpoint or from nothing.
    Resumed(Option<CheckpointId>),
    /// It went back to an older checkpoint on purpose.
    WentBack(CheckpointId),
    /// A save begins.
    Saving,
    /// A save returned Ok.
    Saved(CheckpointId),
    /// A promotion begins.
    Promoting,
    /// A promotion returned Ok; the newest save before it.
    Promoted(Option<CheckpointId>),
    /// A pin returned Ok.
    Pinned(CheckpointId),
    /// A pin is about to be removed.
    Unpinning(CheckpointId),
    /// A checkpoint is about to be deleted on purpose.
    Deleting(CheckpointId),
    /// A deletion returned Ok.
    Deleted(CheckpointId),
    /// A policy's deletion is about to start.
    Collecting,
    /// An observed metric is better than every saved one, and no save is due.
    BestIsNotDue,
    /// A call returned an error.
    Failed(ErrorKind),
    /// A reader saw this checkpoint as the newest.
    Looked(Option<CheckpointId>),
}

/// The prefix of an engine's keys: "" for a run in one place; each local tier, and the remote one,
/// has its own.
pub type Place = &'static str;

/// Bytes of an object. Hashed once: a world is looked up by its whole content.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    hash: u64,
    pub(super) bytes: Arc<[u8]>,
}

impl Content {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(bytes);
        Self { hash, bytes: Arc::from(bytes) }
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// One call that reaches the engine. Keys begin with their place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Lock,
    Unlock,
    Create(String),
    Commit(String, Content),
    Open(String),
    List(String),
    /// Several folders in one listing.
    ListEach(Vec<String>),
    Delete(String),
    Rename(String, String),
    Mark(String),
    Unmark(String),
    /// No call: the process does one of this many things.
    Choose(usize),
    /// A message to other ranks of the job. Reaches no engine.
    Post(String, Content),
    /// Waits for messages of other ranks.
    Await(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Done,
    Failed(ErrorKind),
    /// The reply to a commit that may or may not have been done.
    Unknown,
    Opened(Content),
    Listed(Vec<Entry>),
    Chosen(usize),
    /// The awaited messages.
    Heard(Vec<Content>),
}

/// By keys that begin with their place.
pub(super) type Objects = BTreeMap<String, Content>;

/// The place and the name of a checkpoint's key.
pub(super) fn checkpoint(key: &str) -> Option<(&str, CheckpointId)> {
    let (place, key) = key.rsplit_once('/').unwrap_or(("", key));
    let id = key.strip_suffix(".tkeep")?.parse().ok()?;
    (place != "damaged" && !place.ends_with("/damaged")).then_some((place, id))
}

/// The key in the world of `key` in a place.
pub(super) fn whole_key(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}/{key}") }
}

pub(super) fn checkpoint_key(place: &str, id: CheckpointId) -> String {
    whole_key(place, &format!("{id}.tkeep"))
}
