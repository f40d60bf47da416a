//! A world: the contents of the engines, the state of each process, and the past as far as the
//! promises refer to it. Events of a process change it, and events from outside: rot, another run
//! in the folder, a death.

use super::programs::{Event, Place, WEIGHTS};
use super::promises::Found;
use super::replay::{Call, Content, NodeId};
use super::{Broken, Locks, Search};
use crate::store::CheckpointId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// By keys that begin with their place.
pub(super) type Objects = BTreeMap<String, Content>;

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

impl Search<'_> {
    /// Records the latest events of a process, as far as a promise refers to them.
    pub(super) fn hear(&self, world: &mut World, process: usize) -> Option<Found> {
        let known = self.histories.known(world.at[process].node());
        if known.said.is_empty() {
            return None;
        }
        let places = self.histories.program(process).places();
        let mut past = (*world.past).clone();
        if known.begins() {
            self.note_beginning(world, process, &mut past);
        }
        let mut found = None;
        for event in &known.said {
            match *event {
                Event::Resumed(Some(id)) | Event::WentBack(id) => {
                    let keys = places.iter().map(|place| checkpoint_key(place, id));
                    past.needs
                        .extend(keys.filter(|key| world.objects.contains_key(key)).map(|key| (process, key)));
                    if self.all_known(world).any(|(_, known)| known.deleted.contains(&id)) {
                        found = Some((Broken::DeletedIsBack, format!("process {process} resumed from {id}")));
                    }
                }
                Event::Pinned(id) => {
                    let mut keys: Vec<String> =
                        places.iter().map(|place| checkpoint_key(place, id)).collect();
                    // In the other tier only if it is there; if it is nowhere, the pin is a lie.
                    keys.retain(|key| world.objects.contains_key(key));
                    past.pinned.extend(keys.is_empty().then(|| checkpoint_key(places[0], id)));
                    past.pinned.extend(keys);
                }
                Event::Unpinning(id) => {
                    past.unpinned.extend(places.iter().map(|place| checkpoint_key(place, id)));
                }
                _ => {}
            }
        }
        world.past = Arc::new(past);
        found
    }

    /// Records the circumstances in which a save, a deletion or a promotion begins.
    fn note_beginning(&self, world: &World, process: usize, past: &mut Past) {
        let attempt = self.histories.known(world.at[process].node()).attempt;
        let is_stranger = past.strangers.contains(&process);
        for &place in self.histories.program(process).places() {
            let is_overtaken = attempt.is_some() && world.newest_attempt(place) > attempt;
            if is_stranger || is_overtaken {
                past.stale.insert((process, place));
            } else {
                past.stale.remove(&(process, place));
            }
        }
        if past.rotten.is_empty() {
            past.began_after_rot.remove(&process);
        } else {
            past.began_after_rot.insert(process);
        }
    }

    /// The worlds that may follow without a call of a process.
    pub(super) fn fates(&self, world: &World) -> Vec<World> {
        let rotten = self.case.rots.filter(|key| world.objects.contains_key(*key));
        let rotten = rotten.filter(|key| !world.past.rotten.contains_key(*key));
        let mut fates: Vec<World> = rotten.into_iter().map(|key| rot(world, key)).collect();
        fates.extend(self.replacement(world));
        fates.extend((0..world.at.len()).filter_map(|process| self.death(world, process)));
        fates
    }

    /// Another run replaces the folder. Not while a process opens the run: it may mistake one for
    /// the other, and then it is a writer of the new one.
    fn replacement(&self, world: &World) -> Option<World> {
        let foreign = self.foreign.as_ref().filter(|_| !world.past.replaced)?;
        let is_opening = |at: &At| {
            let node = at.node();
            let is_writing = self.histories.next_call(node).is_some();
            is_writing && self.histories.has_started(node) && self.histories.known(node).attempt.is_none()
        };
        if world.at.iter().any(is_opening) {
            return None;
        }
        let mut next = world.clone();
        let has_opened = |process: &usize| self.histories.known(world.at[*process].node()).attempt.is_some();
        let strangers = (0..world.at.len()).filter(has_opened).collect();
        let (stale, committed) = (world.past.stale.clone(), [String::new()].into());
        next.objects = Arc::clone(foreign);
        next.holder = None;
        next.past = Arc::new(Past { replaced: true, strangers, stale, committed, ..Past::default() });
        Some(next)
    }

    /// Only if it changes anything: a process that never takes another step is one of the orders
    /// already.
    fn death(&self, world: &World, process: usize) -> Option<World> {
        let holds = self.case.locks == Locks::Honest && world.holder == Some(process);
        self.next_call(world, process).filter(|_| holds)?;
        let mut next = world.clone();
        next.at[process] = At::Dead(world.at[process].node());
        next.holder = None;
        Some(next)
    }

    pub(super) fn next_call(&self, world: &World, process: usize) -> Option<&Call> {
        match world.at[process] {
            At::Alive(node) => self.histories.next_call(node),
            At::Dead(_) => None,
        }
    }

    pub(super) fn describe(&self, before: &World, after: &World) -> String {
        let process = (0..after.at.len()).find(|&process| before.at[process] != after.at[process]);
        match process.map(|process| (process, after.at[process])) {
            Some((process, At::Alive(node))) => {
                format!("process {process}: {}", self.histories.describe(node))
            }
            Some((process, At::Dead(_))) => format!("process {process} dies"),
            None if before.past.replaced != after.past.replaced => {
                "another run lies in the folder".to_owned()
            }
            None => {
                let key = after.past.rotten.keys().find(|key| !before.past.rotten.contains_key(*key));
                format!("a byte of {} rots", key.map_or("nothing", String::as_str))
            }
        }
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
