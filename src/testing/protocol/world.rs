//! A world: the contents of the engines, the state of each process, and the past as far as the
//! promises refer to it.

use super::calls::{Content, Objects, Place, checkpoint, checkpoint_key, whole_key};
use super::programs::WEIGHTS;
use super::replay::NodeId;
use crate::store::CheckpointId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    Alive(NodeId),
    Dead(NodeId),
}

impl At {
    pub(super) fn node(self) -> NodeId {
        match self {
            Self::Alive(node) | Self::Dead(node) => node,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub at: Vec<At>,
    pub objects: Arc<Objects>,
    /// The objects before the last changes, for stale listings; the newest last.
    pub earlier: Vec<Arc<Objects>>,
    pub holder: Option<usize>,
    pub past: Arc<Past>,
}

/// The past that the promises refer to, and that neither the objects nor the knowledge of a process
/// shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Past {
    /// Places in which there has been a checkpoint.
    pub committed: BTreeSet<String>,
    /// Processes whose present save, promotion or deletion began when the place belonged to another
    /// writer.
    pub stale: BTreeSet<(usize, Place)>,
    /// Processes whose present save, promotion or deletion began after an object had rotted.
    pub began_after_rot: BTreeSet<usize>,
    /// The checkpoint that a process resumed from, in each place that had it then.
    pub needs: BTreeSet<(usize, String)>,
    pub pinned: BTreeSet<String>,
    pub unpinned: BTreeSet<String>,
    /// Rotten objects, as they were written.
    pub rotten: Objects,
    /// Whether another run has replaced the folder.
    pub replaced: bool,
    /// Processes that had opened the run before that.
    pub strangers: BTreeSet<usize>,
    /// How many listings of each process were stale.
    pub misled: BTreeMap<usize, usize>,
}

impl World {
    /// How many changes a listing may lag behind.
    pub const LAG: usize = 3;

    /// Replaces the objects.
    pub fn becomes(&mut self, objects: Arc<Objects>, remembers: bool) {
        if remembers && objects != self.objects {
            self.earlier.push(Arc::clone(&self.objects));
            self.earlier.drain(..self.earlier.len().saturating_sub(Self::LAG));
        }
        self.objects = objects;
    }

    /// The newest attempt that was taken in a place.
    pub fn newest_attempt(&self, place: &str) -> Option<u32> {
        let folder = whole_key(place, "attempts/");
        self.objects.keys().filter_map(|key| key.strip_prefix(&folder)?.parse().ok()).max()
    }

    /// Whether a deletion of a checkpoint has begun and not ended.
    pub fn is_marked(&self, place: &str, id: CheckpointId) -> bool {
        let (folder, end) = (whole_key(place, "attempts/"), format!(".deletes.{id}"));
        self.objects.keys().any(|key| key.starts_with(&folder) && key.ends_with(&end))
    }

    pub fn has_rotted(&self, place: &str, id: CheckpointId) -> bool {
        !self.past.rotten.is_empty() && self.past.rotten.contains_key(&checkpoint_key(place, id))
    }

    /// Whether a sweep has hidden a checkpoint: no listing has it.
    pub fn is_hidden(&self, place: &str, id: CheckpointId) -> bool {
        let hidden = whole_key(place, &format!("damaged/{id}.hidden."));
        self.objects.range(hidden.clone()..).next().is_some_and(|(key, _)| key.starts_with(&hidden))
    }

    /// Checkpoints of a place that are not hidden, oldest first.
    pub fn there(&self, place: &str) -> impl Iterator<Item = CheckpointId> {
        self.objects
            .keys()
            .filter_map(move |key| checkpoint(key).filter(|(of, _)| *of == place).map(|(_, id)| id))
            .filter(move |id| !self.is_hidden(place, *id))
    }
}

/// Flips a bit of a checkpoint's tensors: it opens, and does not verify.
pub(super) fn rot(world: &World, key: &str) -> World {
    let mut next = world.clone();
    let content = world.objects[key].clone();
    let mut bytes = content.bytes.to_vec();
    let is_weights = |window: &[u8]| window == WEIGHTS;
    let at = bytes.windows(WEIGHTS.len()).position(is_weights).expect("OK because every program saves them");
    bytes[at] ^= 1;
    Arc::make_mut(&mut next.objects).insert(key.to_owned(), Content::new(&bytes));
    Arc::make_mut(&mut next.past).rotten.insert(key.to_owned(), content);
    next
}
