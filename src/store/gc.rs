//! Deletion on request: a step of an open store, and what a policy does not protect of a run that
//! nobody has open. Both verify first what they count on.

use super::core::Core;
use super::deletion::{self, By};
use super::keep::Keep;
use super::look::Board;
use super::naming::CheckpointId;
use super::reader::{CheckpointInfo, Reader, is_damage};
use super::retention::{self, Candidate, Spared};
use crate::engine::Lock;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

impl Core {
    /// Deletes a step's checkpoint in each tier that has it.
    pub(super) fn delete(&self, step: u64) -> Result<()> {
        let (name, _) = self.tiers_with(step)?;
        let _withheld = self.remote.as_ref().map(|remote| remote.upward.withhold(name));
        // A promotion may have arrived before it was stopped.
        let (name, tiers) = self.tiers_with(step)?;
        let locks = [Some(&self.deleting), self.remote.as_ref().map(|remote| &remote.deleting)];
        let _deleting: Vec<MutexGuard<'_, ()>> = locks
            .into_iter()
            .flatten()
            .map(|deleting| deleting.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        // Refused in all tiers before it is deleted in one; where only the remote one has it, by
        // the local one as well.
        self.attempt.check(self.reader.engine())?;
        let mut others = tiers.iter().filter(|reader| !std::ptr::eq(**reader, &self.reader));
        others.try_for_each(|reader| self.attempt.check(reader.engine()).map(drop))?;
        tiers.iter().try_for_each(|reader| self.check_superfluous(reader, name))?;
        tiers.into_iter().try_for_each(|reader| self.delete_in(reader, name))?;
        if let Some(remote) = &self.remote {
            remote.forget(name);
        }
        Ok(())
    }

    fn delete_in(&self, reader: &Reader, name: CheckpointId) -> Result<()> {
        let mut done = deletion::delete(reader.engine(), By::Writer(&self.attempt), &[name])?;
        match done.failed.pop() {
            Some((_, error)) => Err(error),
            None if done.spared.contains(&name) => Err(deletion::busy(reader.engine(), name)),
            None => Ok(()),
        }
    }

    /// Fails where the run would lose by the deletion.
    fn check_superfluous(&self, reader: &Reader, name: CheckpointId) -> Result<()> {
        let refuse = |what: &'static str, help: &'static str| {
            Err(Error::invalid(what).in_object(reader.engine().describe(&name.key())).help(help))
        };
        let candidates = reader.candidates()?;
        if candidates.iter().any(|candidate| candidate.name == name && candidate.pinned) {
            return refuse("is pinned", "unpin it first");
        }
        let known = *self.known();
        if known.resumed_from == Some(name) {
            return refuse("is what this store resumed from", "delete it when the run is opened again");
        }
        let others = || candidates.iter().rev().filter(|other| other.name != name && other.state.is_some());
        // Verified when it was resumed from, or written by this very process.
        if others().any(|other| [known.resumed_from, known.saved].contains(&Some(other.name))) {
            return Ok(());
        }
        for other in others() {
            match reader.checkpoint_by_id(other.name).and_then(|checkpoint| checkpoint.verify()) {
                Ok(_) => return Ok(()),
                Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        refuse("is the only checkpoint that can be read", "save a newer one first")
    }
}

/// What deleting by a policy would do to a run: see [`Reader::plan_deletion`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Collection {
    /// Why each checkpoint that stays does.
    pub kept: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// What would be deleted, oldest first.
    pub going: Vec<CheckpointInfo>,
    /// Checkpoints that the policy would have kept and that do not verify. They stay, too, and
    /// protect nothing.
    pub damaged: Vec<(CheckpointId, Error)>,
    /// The newest attempt when the plan was made.
    newest: u32,
    reader: Reader,
}

/// What a deletion did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// Deleted, durably.
    pub deleted: Vec<CheckpointId>,
    /// Pinned, or gone on from, since the plan was made.
    pub spared: Vec<CheckpointId>,
    /// Could not be deleted.
    pub not_deleted: Vec<(CheckpointId, Error)>,
}

impl Reader {
    /// Takes the run's lock for a tool that deletes, where there is one. None on an engine without
    /// locks.
    ///
    /// # Errors
    /// `Locked` while a writer has the run; whatever the engine says.
    pub fn lock_for(&self, tool: &str) -> Result<Option<Box<dyn Lock>>> {
        match self.engine().lock(&format!("{tool}, process {}", std::process::id())) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            locked => locked.map(Some),
        }
    }

    /// What a policy would delete, and why the rest stays; deletes nothing. `verify` is called with
    /// each checkpoint that the policy counts on, newest first, and its answer says whether to read
    /// and verify it: one that turns out to be damaged is left alone and protects nothing, and the
    /// policy is asked again. `now` in seconds since 1970.
    ///
    /// # Errors
    /// `Invalid` for a policy that means nothing, or that ranks by a metric that no checkpoint has;
    /// whatever listing and reading say.
    pub fn plan_deletion(
        &self,
        keep: &Keep,
        now: u64,
        mut verify: impl FnMut(&CheckpointInfo) -> bool,
    ) -> Result<Collection> {
        keep.check()?;
        let newest = Board::read(self.engine())?.newest;
        let mut infos: BTreeMap<CheckpointId, CheckpointInfo> =
            self.list()?.into_iter().map(|info| (info.name, info)).collect();
        let mut candidates: Vec<Candidate> = infos.values().map(candidate).collect();
        check_metrics(keep, &candidates)?;
        let resumed_from = resumed_from(&candidates);
        let (mut damaged, mut sound) = (Vec::new(), BTreeSet::new());
        let kept = loop {
            let kept = retention::select(keep, &candidates, &resumed_from, now);
            let counts = |candidate: &&mut Candidate| {
                let name = candidate.name;
                kept.contains_key(&name) && candidate.state.is_some() && !sound.contains(&name)
            };
            let all_stay = candidates.iter().all(|candidate| kept.contains_key(&candidate.name));
            let Some(next) = candidates.iter_mut().rev().find(counts).filter(|_| !all_stay) else {
                break kept;
            };
            let name = next.name;
            let is_wanted = infos.get(&name).is_some_and(&mut verify);
            match if is_wanted { self.verify_name(name) } else { Ok(()) } {
                Ok(()) => drop(sound.insert(name)),
                Err(error) if is_damage(&error) => {
                    next.state = None;
                    damaged.push((name, error));
                }
                // Rotated away by a writer beside this.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    candidates.retain(|candidate| candidate.name != name);
                }
                Err(error) => return Err(error),
            }
        };
        let names = candidates.iter().map(|candidate| candidate.name);
        let going = names.filter(|name| !kept.contains_key(name)).filter_map(|name| infos.remove(&name));
        Ok(Collection { going: going.collect(), kept, damaged, newest, reader: self.clone() })
    }

    fn verify_name(&self, name: CheckpointId) -> Result<()> {
        self.checkpoint_by_id(name).and_then(|checkpoint| checkpoint.verify()).map(drop)
    }

    /// Why each checkpoint would stay under a policy, as [`Store::kept`](super::Store::kept) says
    /// it; what is not in the answer would go. What the newest attempt had resumed from stays, as
    /// it does for its writer. `now` in seconds since 1970. Verifies nothing: see
    /// [`Reader::plan_deletion`].
    ///
    /// # Errors
    /// `Invalid` for a policy that means nothing; whatever listing says.
    pub fn kept(&self, keep: &Keep, now: u64) -> Result<BTreeMap<CheckpointId, BTreeSet<String>>> {
        keep.check()?;
        let candidates = self.candidates()?;
        Ok(retention::select(keep, &candidates, &resumed_from(&candidates), now))
    }
}

impl Collection {
    /// Does it. Checkpoints that were pinned since stay. Call it with the lock of
    /// [`Reader::lock_for`] held since before the plan was made.
    ///
    /// # Errors
    /// `Fenced` when a writer has opened the run since: then nothing was deleted. What listing
    /// says.
    pub fn delete(&self) -> Result<Collected> {
        let maker = deletion::tool_maker();
        let by = By::Tool { maker: &maker, newest: self.newest };
        let names: Vec<CheckpointId> = self.going.iter().map(|info| info.name).collect();
        let done = deletion::delete(self.reader.engine(), by, &names)?;
        Ok(Collected { deleted: done.deleted, spared: done.spared, not_deleted: done.failed })
    }
}

fn candidate(info: &CheckpointInfo) -> Candidate {
    let state = info.state.as_ref().ok().cloned().map(Arc::new);
    Candidate { name: info.name, len: info.len, pinned: info.pinned, marked: info.is_marked, state }
}

/// What the newest attempt went on from, as its checkpoints say.
fn resumed_from(candidates: &[Candidate]) -> Vec<Spared> {
    let newest = candidates.iter().rev().find_map(|candidate| candidate.state.as_ref());
    let name = newest.and_then(|state| state.resumed_from.as_ref()?.parse().ok());
    name.map(|name| (name, "resumed from")).into_iter().collect()
}

/// A policy that ranks by a metric that no checkpoint has would delete all that it was to keep.
fn check_metrics(keep: &Keep, candidates: &[Candidate]) -> Result<()> {
    let Some(&unknown) =
        retention::unknown_metrics(keep, candidates).first().filter(|_| !candidates.is_empty())
    else {
        return Ok(());
    };
    let states = candidates.iter().filter_map(|candidate| candidate.state.as_ref());
    let known: BTreeSet<&str> = states.flat_map(|state| state.metrics.keys().map(String::as_str)).collect();
    let error = Error::invalid(format!("no checkpoint has the metric {unknown:?}"));
    Err(match names::nearest(unknown, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error.help(format!("the metrics are {known:?}")),
    })
}
