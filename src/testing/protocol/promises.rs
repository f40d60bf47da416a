//! The promises that every world must keep, one check each. `protocol.rs` reaches the worlds.
//!
//! Requested or unavoidable losses break no promise: a checkpoint that was deleted on purpose may
//! be gone, one that has rotted may be passed over and set aside, and the objects of a folder are
//! gone when another run replaces it.

use super::Search;
use super::WrongProtocol;
use super::calls::{Call, Content, checkpoint, checkpoint_key};
use super::case::Locks;
use super::machine::without_attempt;
use super::replay::Known;
use super::world::{At, World};
use crate::engine::{Engine, Memory, fresh_nonce};
use crate::error::Result;
use crate::store::{CheckpointId, Reader, Store, StoreOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Broken {
    /// A committed name was written again.
    NameIsReplaced,
    /// A checkpoint is visible that was not written whole.
    HalfIsVisible,
    /// A checkpoint of many files is visible, and a shard of it is not what it was written with.
    ShardIsGone,
    /// Ranks of one job resumed from different checkpoints.
    RanksDiffer,
    /// Two writers have the same attempt number.
    TwoOfOneAttempt,
    /// Two processes write to one run while each believes in its lock.
    TwoWriters,
    /// There was a checkpoint, and there is none.
    NoneIsLeft,
    /// A checkpoint that verifies was deleted, and those that are left do not.
    WholeIsGone,
    /// The newest save that returned Ok is gone, and nothing newer is there.
    SavedIsLost,
    /// A newer writer resumed from an older checkpoint than one for which a save had returned Ok.
    SavedIsPassedOver,
    /// The checkpoint that the newest writer resumed from, or had gone back to, was deleted.
    ResumedFromIsGone,
    /// A pin returned Ok and was not removed, and the pinned checkpoint was deleted.
    PinnedIsGone,
    /// A deletion returned Ok, and the checkpoint is there again, or a process resumed from it.
    DeletedIsBack,
    /// A writer committed though a newer attempt had been taken before its save began.
    FencedCommits,
    /// A writer deleted though a newer attempt had been taken before its save began.
    FencedDeletes,
    /// A writer committed or deleted in a folder that another run had replaced before its save
    /// began.
    ForeignIsTouched,
    /// A reader saw an older checkpoint, or none, after it had seen a newer one.
    ReaderWentBack,
    /// A promotion makes more calls than it can need.
    PassNeverEnds,
    /// A metric is better than every saved one, and no save is due.
    BestIsNotDue,
}

pub(super) type Found = (Broken, String);

/// Limit of calls of one promotion. Those of the cases need fewer than sixty.
const MOST_CALLS_OF_A_PASS: u32 = 150;

impl Search<'_> {
    pub(super) fn all_known<'s>(
        &'s self,
        world: &'s World,
    ) -> impl Iterator<Item = (usize, &'s Known)> + Clone {
        world.at.iter().map(|at| self.histories.known(at.node())).enumerate()
    }

    /// The processes whose run is in the folder.
    fn own<'s>(&'s self, world: &'s World) -> impl Iterator<Item = (usize, &'s Known)> + Clone {
        self.all_known(world).filter(|(process, _)| !world.past.strangers.contains(process))
    }

    fn is_given_up(&self, world: &World, id: CheckpointId) -> bool {
        self.all_known(world).any(|(_, known)| known.gives_up.contains(&id))
    }

    /// Saves that are known to be durable in a place, and still have to count.
    fn acknowledged(&self, world: &World, place: &str) -> Vec<CheckpointId> {
        let mut ids = Vec::new();
        for (process, known) in self.own(world) {
            let places = self.histories.program(process).places();
            if places[0] == place {
                ids.extend(&known.acknowledged);
            } else if places.contains(&place) {
                ids.extend(&known.promoted);
            }
        }
        ids.retain(|id| !self.is_given_up(world, *id) && !world.has_rotted(place, *id));
        ids
    }

    /// Whether a world keeps every promise.
    pub(super) fn look(&self, world: &World) -> Result<(), Found> {
        let half =
            world.objects.iter().find(|(key, content)| checkpoint(key).is_some() && content.bytes.is_empty());
        ensure(half.is_none(), Broken::HalfIsVisible, || format!("{half:?}"))?;
        if self.histories.has_ranks() {
            self.look_at_shards(world)?;
        }
        self.look_at_writers(world)?;
        let places: BTreeSet<&str> = (0..world.at.len())
            .flat_map(|process| self.histories.program(process).places())
            .copied()
            .collect();
        places.into_iter().try_for_each(|place| self.look_at_place(world, place))?;
        self.look_at_what_is_kept(world)?;
        for (_, known) in self.own(world) {
            let looked_back = known.looked_back_from;
            let looked_back =
                looked_back.filter(|id| !self.is_given_up(world, *id) && !world.has_rotted("", *id));
            ensure(looked_back.is_none(), Broken::ReaderWentBack, || {
                format!("now it sees {:?}", known.looked)
            })?;
            ensure(!known.best_is_not_due, Broken::BestIsNotDue, || "the best metric so far".to_owned())?;
            let calls = known.calls_of_pass.unwrap_or(0);
            ensure(calls < MOST_CALLS_OF_A_PASS, Broken::PassNeverEnds, || format!("{calls} calls"))?;
        }
        Ok(())
    }

    fn look_at_place(&self, world: &World, place: &str) -> Result<(), Found> {
        let newest_there = world.there(place).max();
        let is_empty = world.past.committed.contains(place) && newest_there.is_none();
        ensure(!is_empty || !world.past.rotten.is_empty(), Broken::NoneIsLeft, || {
            format!("no checkpoint in {place:?}")
        })?;
        let acknowledged = self.acknowledged(world, place);
        let newest = acknowledged.iter().copied().max();
        // `WholeIsGone` covers a whole checkpoint beside a rotten one.
        let is_lost = newest_there < newest && world.past.rotten.is_empty();
        ensure(!is_lost, Broken::SavedIsLost, || {
            format!("{newest:?} was saved, the newest there is {newest_there:?}")
        })?;
        for (process, known) in self.own(world).filter(|(_, known)| !known.went_back) {
            let (Some(attempt), Some(resumed)) = (known.attempt, known.resumed) else { continue };
            if !self.histories.program(process).places().contains(&place) {
                continue;
            }
            let passed = acknowledged.iter().find(|saved| saved.attempt < attempt && Some(**saved) > resumed);
            ensure(passed.is_none(), Broken::SavedIsPassedOver, || {
                format!("process {process} resumed from {resumed:?}, and {passed:?} was saved")
            })?;
        }
        Ok(())
    }

    /// Checks objects that must be there for a reason, and objects that must not.
    fn look_at_what_is_kept(&self, world: &World) -> Result<(), Found> {
        let past = &*world.past;
        let is_gone = |key: &String| !world.objects.contains_key(key) && !past.rotten.contains_key(key);
        for (process, key) in past.needs.iter().filter(|(_, key)| is_gone(key)) {
            let known = self.histories.known(world.at[*process].node());
            let Some((place, id)) = checkpoint(key) else { continue };
            let needs_it = world.newest_attempt(place) == known.attempt
                && self.is_writing(world, *process)
                && !known.gives_up.contains(&id);
            ensure(!needs_it, Broken::ResumedFromIsGone, || format!("process {process} needs {key}"))?;
        }
        let gone = past.pinned.difference(&past.unpinned).find(|key| is_gone(key));
        ensure(gone.is_none(), Broken::PinnedIsGone, || format!("{gone:?}"))?;
        for (process, known) in self.own(world) {
            for &id in &known.deleted {
                let places = self.histories.program(process).places();
                let mut keys = places.iter().map(|place| checkpoint_key(place, id));
                let back = keys.find(|key| world.objects.contains_key(key));
                ensure(back.is_none(), Broken::DeletedIsBack, || format!("{back:?}"))?;
            }
        }
        Ok(())
    }

    /// A checkpoint that is not hidden is whole, also while it is being deleted.
    fn look_at_shards(&self, world: &World) -> Result<(), Found> {
        let files: Vec<(String, Content)> = world
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with("shards/"))
            .map(|(key, content)| (key.clone(), content.clone()))
            .collect();
        for id in world.there("") {
            let key = (world.objects[&checkpoint_key("", id)].clone(), files.clone());
            let is_whole =
                *self.whole.borrow_mut().entry(key).or_insert_with_key(|(manifest, files)| {
                    self.is_whole(id, manifest, files).unwrap_or(false)
                });
            ensure(is_whole, Broken::ShardIsGone, || {
                let names: Vec<&str> = files.iter().map(|(key, _)| key.as_str()).collect();
                format!("{id}, beside {names:?}")
            })?;
        }
        Ok(())
    }

    /// Whether every byte of a checkpoint verifies, each shard under its name.
    fn is_whole(&self, id: CheckpointId, manifest: &Content, files: &[(String, Content)]) -> Result<bool> {
        let key = checkpoint_key("", id);
        let alone = Reader::new(in_memory([(&*key, manifest)].into_iter())?).checkpoint_by_id(id)?;
        let shards = alone.inspect().shard_keys();
        let stored = |shard: &String| match self.wrong {
            Some(WrongProtocol::ShardsOfAllAttempts) => without_attempt(shard),
            _ => shard.clone(),
        };
        let content =
            |shard| files.iter().find(|(file, _)| *file == stored(shard)).map(|(_, content)| content);
        let shards = shards.iter().filter_map(|shard| Some((shard.as_str(), content(shard)?)));
        let whole = Reader::new(in_memory(shards.chain([(&*key, manifest)]))?);
        Ok(whole.checkpoint_by_id(id)?.verify().is_ok())
    }

    fn look_at_writers(&self, world: &World) -> Result<(), Found> {
        for (process, known) in self.own(world).filter(|(_, known)| known.attempt.is_some()) {
            let (places, rank) =
                (self.histories.program(process).places(), self.histories.program(process).rank());
            for (other, other_known) in self.own(world).take_while(|(other, _)| *other < process) {
                let other_rank = self.histories.program(other).rank();
                if rank.is_some_and(|rank| other_rank.is_some_and(|other| other.job == rank.job)) {
                    let differ = [known, other_known].iter().all(|known| known.resumed.is_some())
                        && known.resumed != other_known.resumed;
                    ensure(!differ, Broken::RanksDiffer, || format!("processes {other} and {process}"))?;
                    continue;
                }
                let meets = self.histories.program(other).places().iter().any(|place| places.contains(place));
                ensure(!meets || known.attempt != other_known.attempt, Broken::TwoOfOneAttempt, || {
                    format!("processes {other} and {process} are both attempt {:?}", known.attempt)
                })?;
                let both = self.case.locks == Locks::Honest
                    && self.is_writing(world, process)
                    && self.is_writing(world, other);
                ensure(!both, Broken::TwoWriters, || format!("processes {other} and {process}"))?;
            }
        }
        Ok(())
    }

    /// Whether a process has an attempt and is neither dead nor done.
    fn is_writing(&self, world: &World, process: usize) -> bool {
        let At::Alive(node) = world.at[process] else { return false };
        // The lock of a job is its rank 0's.
        if self.case.locks == Locks::Honest
            && self.histories.program(process).rank().is_some_and(|rank| rank.rank > 0)
        {
            return false;
        }
        let next = self.histories.next_call(node);
        self.histories.known(node).attempt.is_some() && next.is_some_and(|call| *call != Call::Unlock)
    }

    /// The promise that a call breaks by being made in this world.
    pub(super) fn breaks(&self, world: &World, process: usize, call: &Call) -> Option<Found> {
        let (Call::Commit(key, _) | Call::Delete(key)) = call else { return None };
        let (place, _) = checkpoint(key)?;
        let found = |broken| Some((broken, format!("process {process}, {key}")));
        let commits = matches!(call, Call::Commit(..));
        if commits && self.replaces(key) && world.objects.contains_key(key) {
            return found(Broken::NameIsReplaced);
        }
        if world.past.stale.iter().any(|(stale, of)| *stale == process && *of == place) {
            return found(match (world.past.strangers.contains(&process), commits) {
                (true, _) => Broken::ForeignIsTouched,
                (false, true) => Broken::FencedCommits,
                (false, false) => Broken::FencedDeletes,
            });
        }
        let verifies = |key: &String| !world.past.rotten.contains_key(key);
        let others = world.there(place).map(|id| checkpoint_key(place, id)).filter(|other| other != key);
        let is_last =
            world.objects.contains_key(key) && verifies(key) && !others.into_iter().any(|key| verifies(&key));
        // Rot between a look and a deletion cannot be noticed.
        let could_know = world.past.began_after_rot.contains(&process);
        if !commits && is_last && could_know { found(Broken::WholeIsGone) } else { None }
    }

    /// When all processes have ended, the next writer resumes from the newest checkpoint that
    /// verifies, every byte of it. Checkpoints that a process had begun to delete come last.
    pub(super) fn look_at_end(&self, world: &World) -> Result<(), Found> {
        let places: BTreeSet<&str> =
            world.objects.keys().filter_map(|key| Some(checkpoint(key)?.0)).collect();
        places.into_iter().try_for_each(|place| self.look_at_end_of(world, place))
    }

    fn look_at_end_of(&self, world: &World, place: &str) -> Result<(), Found> {
        let within = |key: &'_ String| -> Option<String> {
            match place {
                "" => Some(key.clone()),
                _ => Some(key.strip_prefix(place)?.strip_prefix('/')?.to_owned()),
            }
        };
        let objects: Vec<(String, &Content)> =
            world.objects.iter().filter_map(|(key, content)| Some((within(key)?, content))).collect();
        let objects = objects.iter().map(|(key, content)| (key.as_str(), *content));
        let memory = in_memory(objects).map_err(|error| (Broken::HalfIsVisible, error.to_string()))?;
        let whole = world.there(place).filter(|id| {
            let rotten = world.past.rotten.get(&checkpoint_key(place, *id));
            rotten.is_none_or(|as_written| world.objects.get(&checkpoint_key(place, *id)) == Some(as_written))
        });
        let newest = whole.max_by_key(|id| (!world.is_marked(place, *id), *id));
        // Where shards have no names of their own, no reader finds them.
        if newest.is_none() || self.wrong == Some(WrongProtocol::ShardsOfAllAttempts) {
            return Ok(());
        }
        let resumed = Store::open(Arc::new(memory), StoreOptions::new()).and_then(|store| store.resume());
        let resumed = resumed.map_err(|error| (Broken::SavedIsLost, error.to_string()))?;
        let skips = resumed
            .skipped
            .iter()
            .any(|skipped| !world.past.rotten.contains_key(&checkpoint_key(place, skipped.id)));
        ensure(resumed.id == newest && !skips, Broken::SavedIsPassedOver, || {
            format!("the next writer resumed from {:?}, and {newest:?} is there", resumed.id)
        })
    }
}

/// An engine that holds these objects.
fn in_memory<'o>(objects: impl Iterator<Item = (&'o str, &'o Content)>) -> Result<Memory> {
    let memory = Memory::new();
    for (key, content) in objects {
        let mut upload = memory.create(key, None)?;
        upload.append(&content.bytes)?;
        upload.commit(fresh_nonce())?;
    }
    Ok(memory)
}

fn ensure(holds: bool, broken: Broken, detail: impl FnOnce() -> String) -> Result<(), Found> {
    if holds { Ok(()) } else { Err((broken, detail())) }
}
