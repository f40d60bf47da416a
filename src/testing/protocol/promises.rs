//! What must be true of every world. Owns: the promises, as one check each. How a world comes to be is `protocol.rs`'s.

use super::replay::{Call, Content, Known};
use super::{At, Locks, Search, World};
use crate::engine::{Engine, Memory, fresh_nonce};
use crate::store::{Name, Settings, Store};
use std::sync::Arc;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Broken {
    /// A committed name was written again.
    NameIsReplaced,
    /// A checkpoint is visible that was not written whole.
    HalfIsVisible,
    /// Two writers have the same attempt number.
    TwoOfOneAttempt,
    /// Two processes write to one run while each believes in its lock.
    TwoWriters,
    /// There was a checkpoint, and there is none.
    NoneIsLeft,
    /// The newest save that returned Ok is gone, and nothing newer is there.
    SavedIsLost,
    /// A newer writer resumed from something older than what a save had returned Ok for.
    SavedIsPassedOver,
    /// What the newest writer resumed from was deleted.
    ResumedFromIsGone,
    /// A writer committed though a newer attempt had been taken before its save began.
    FencedCommits,
    /// A writer deleted though a newer attempt had been taken before its save began.
    FencedDeletes,
    /// A reader saw an older checkpoint, or none, after it had seen a newer one.
    ReaderWentBack,
}

pub(super) type Found = (Broken, String);

/// The checkpoint of a key.
pub(super) fn name(key: &str) -> Option<Name> {
    key.strip_suffix(".tkeep")?.parse().ok()
}

/// The newest attempt that somebody has taken.
pub(super) fn newest_attempt(world: &World) -> Option<u32> {
    world.objects.keys().filter_map(|key| key.strip_prefix("attempts/")?.parse().ok()).max()
}

impl Search<'_> {
    fn all_known<'s>(&'s self, world: &'s World) -> impl Iterator<Item = (usize, &'s Known)> + Clone {
        world.at.iter().map(|at| self.histories.known(at.node())).enumerate()
    }

    /// Whether a world keeps every promise.
    pub(super) fn look(&self, world: &World) -> Result<(), Found> {
        let there: Vec<Name> = world.objects.keys().filter_map(|key| name(key)).collect();
        let half = |(key, content): (&String, &Content)| name(key).is_some() && content.0.is_empty();
        ensure(!world.objects.iter().any(half), Broken::HalfIsVisible, || format!("{there:?}"))?;
        ensure(!world.any_committed || !there.is_empty(), Broken::NoneIsLeft, || "no checkpoint".to_owned())?;
        self.look_at_writers(world)?;
        let acknowledged = self.all_known(world).flat_map(|(_, known)| known.acknowledged.iter().copied());
        let newest = acknowledged.clone().max();
        ensure(there.iter().copied().max() >= newest, Broken::SavedIsLost, || {
            format!("{newest:?} was saved, there is {there:?}")
        })?;
        for (process, known) in self.all_known(world) {
            ensure(!known.looked_back, Broken::ReaderWentBack, || format!("now it sees {:?}", known.looked))?;
            let (Some(attempt), Some(resumed)) = (known.attempt, known.resumed) else { continue };
            let passed = acknowledged.clone().find(|saved| saved.attempt < attempt && Some(*saved) > resumed);
            ensure(passed.is_none(), Broken::SavedIsPassedOver, || {
                format!("process {process} resumed from {resumed:?}, and {passed:?} was saved")
            })?;
            let needs_it = newest_attempt(world) == Some(attempt) && self.is_writing(world, process);
            let gone = resumed.filter(|name| needs_it && !there.contains(name));
            ensure(gone.is_none(), Broken::ResumedFromIsGone, || {
                format!("process {process} needs {gone:?}")
            })?;
        }
        Ok(())
    }

    fn look_at_writers(&self, world: &World) -> Result<(), Found> {
        for (process, known) in self.all_known(world).filter(|(_, known)| known.attempt.is_some()) {
            for (other, other_known) in self.all_known(world).take(process) {
                ensure(known.attempt != other_known.attempt, Broken::TwoOfOneAttempt, || {
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
        let next = self.histories.next_call(node);
        self.histories.known(node).attempt.is_some() && next.is_some_and(|call| call != Call::Unlock)
    }

    /// What a call breaks by being made in this world.
    pub(super) fn breaks(&self, world: &World, process: usize, call: &Call) -> Option<Found> {
        let fenced = world.fenced & (1 << process) != 0;
        let is_there = |key: &String| world.objects.contains_key(key);
        let found = |broken, key: &String| Some((broken, format!("process {process}, {key}")));
        match call {
            Call::Commit(key, _) if name(key).is_some() && self.replaces(key) && is_there(key) => {
                found(Broken::NameIsReplaced, key)
            }
            Call::Commit(key, _) if fenced && name(key).is_some() => found(Broken::FencedCommits, key),
            Call::Delete(key) if fenced => found(Broken::FencedDeletes, key),
            _ => None,
        }
    }

    /// When everybody has ended, the next writer resumes from the newest checkpoint, and every byte of it verifies.
    pub(super) fn look_at_end(&self, world: &World) -> Result<(), Found> {
        let memory = Memory::new();
        for (key, content) in world.objects.iter() {
            let put = memory.create(key, None).and_then(|mut upload| {
                upload.append(&content.0)?;
                Ok(upload.commit(fresh_nonce())?)
            });
            put.map_err(|error| (Broken::HalfIsVisible, error.to_string()))?;
        }
        let newest = world.objects.keys().filter_map(|key| name(key)).max();
        let resumed = Store::open_shared(Arc::new(memory), Settings::new()).and_then(|store| store.resume());
        let resumed = resumed.map_err(|error| (Broken::SavedIsLost, error.to_string()))?;
        ensure(resumed.name == newest && resumed.skipped.is_empty(), Broken::SavedIsPassedOver, || {
            format!("the next writer resumed from {:?}, and {newest:?} is there", resumed.name)
        })
    }
}

fn ensure(holds: bool, broken: Broken, detail: impl FnOnce() -> String) -> Result<(), Found> {
    if holds { Ok(()) } else { Err((broken, detail())) }
}
