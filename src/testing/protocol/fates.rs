//! The events of a world: what a process reports of itself, as far as a promise refers to it, and
//! events from outside: rot, another run in the folder, a death.

use super::Search;
use super::calls::{Call, Event, checkpoint_key};
use super::case::Locks;
use super::promises::{Broken, Found};
use super::world::{At, Past, World, rot};
use std::sync::Arc;

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
