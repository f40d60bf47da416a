//! Deletion on request: of a step of an open store, and of the checkpoints that a policy does not
//! protect in a run without a writer. Both first verify the checkpoints that they count on.

use super::core::Core;
use super::damage::is_damage;
use super::deletion::{self, By};
use super::keep::Keep;
use super::look::Board;
use super::naming::CheckpointId;
use super::presence::Presence;
use super::reader::{CheckpointInfo, Reader};
use super::retention::{self, Candidate, Spared};
use crate::engine::Lock;
use crate::error::{Error, ErrorKind, NoneIf, Result};
use crate::names;
use crate::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard};

impl Core {
    /// Deletes a step's checkpoint in each tier that has it.
    pub(super) fn delete(&self, step: u64) -> Result<()> {
        let (id, _) = self.tiers_with(step)?;
        let _withheld = self.remote.as_ref().map(|remote| remote.upward.withhold(id));
        // A promotion may have arrived before it was stopped.
        let (id, tiers) = self.tiers_with(step)?;
        let locks = [Some(&self.deleting), self.remote.as_ref().map(|remote| &remote.deleting)];
        let _deleting: Vec<MutexGuard<'_, ()>> = locks.into_iter().flatten().map(lock).collect();
        // Checked in all tiers before anything is deleted in one; if only the remote tier has it,
        // in the local one as well.
        self.attempt.check(self.reader.engine())?;
        let mut others = tiers.iter().filter(|reader| !std::ptr::eq(**reader, &self.reader));
        others.try_for_each(|reader| self.attempt.check(reader.engine()).map(drop))?;
        tiers.iter().try_for_each(|reader| self.check_superfluous(reader, id))?;
        tiers.into_iter().try_for_each(|reader| self.delete_in(reader, id))?;
        if let Some(remote) = &self.remote {
            remote.forget(id);
        }
        Ok(())
    }

    fn delete_in(&self, reader: &Reader, id: CheckpointId) -> Result<()> {
        let mut done = deletion::delete(reader, By::Writer(&self.attempt), &[id])?;
        match done.failed.pop() {
            Some((_, error)) => Err(error),
            None if done.spared.contains(&id) => Err(deletion::busy(reader.engine(), id)),
            None => Ok(()),
        }
    }

    /// Fails if the run would lose work by the deletion.
    fn check_superfluous(&self, reader: &Reader, id: CheckpointId) -> Result<()> {
        let refuse = |what: &'static str, help: &'static str| {
            Err(Error::invalid(what).in_object(reader.engine().describe(&id.key())).help(help))
        };
        let candidates = reader.candidates()?;
        if candidates.iter().any(|candidate| candidate.id == id && candidate.pinned) {
            return refuse("is pinned", "unpin it first");
        }
        let known = *self.known();
        if known.resumed_from == Some(id) {
            return refuse("is what this store resumed from", "delete it when the run is opened again");
        }
        let others = || candidates.iter().rev().filter(|other| other.id != id && other.state.is_some());
        // Verified when it was resumed from, or written by this very process.
        if others().any(|other| [known.resumed_from, known.saved].contains(&Some(other.id))) {
            return Ok(());
        }
        for other in others() {
            match reader.checkpoint_by_id(other.id).and_then(|checkpoint| checkpoint.verify()) {
                Ok(_) => return Ok(()),
                Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        refuse("is the only checkpoint that can be read", "save a newer one first")
    }
}

/// The effect of deleting by a policy: see [`Reader::plan_deletion`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Collection {
    /// Why each checkpoint that stays does.
    pub kept: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// The checkpoints that would be deleted, oldest first.
    pub going: Vec<CheckpointInfo>,
    /// Checkpoints that the policy would have kept and that do not verify. They stay, too, and
    /// protect nothing.
    pub damaged: Vec<(CheckpointId, Error)>,
    /// The newest attempt when the plan was made.
    newest: u32,
    reader: Reader,
}

/// The outcome of a deletion.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// Deleted, durably.
    pub deleted: Vec<CheckpointId>,
    /// Pinned or resumed from since the plan was made.
    pub spared: Vec<CheckpointId>,
    /// Could not be deleted.
    pub not_deleted: Vec<(CheckpointId, Error)>,
}

impl Reader {
    /// Takes the run's lock for a tool that deletes. None on an engine without locks.
    ///
    /// # Errors
    /// `Locked` while a writer has the run; errors of the engine.
    pub fn lock_for(&self, tool: &str) -> Result<Option<Box<dyn Lock>>> {
        let locked = self.engine().lock(&format!("{tool}, process {}", std::process::id()));
        locked.none_if(|error| error.kind() == ErrorKind::Unsupported)
    }

    /// The checkpoints that a policy would delete, and why the others stay; deletes nothing.
    /// `verify` is called with each checkpoint that the policy counts on, newest first, and returns
    /// whether to read and verify it: one that turns out to be damaged is left alone and protects
    /// nothing, and the policy is applied again. `now` in seconds since 1970.
    ///
    /// # Errors
    /// `Invalid` for a policy that makes no sense, or that ranks by a metric that no checkpoint
    /// has; errors of listing and reading.
    pub fn plan_deletion(
        &self,
        keep: &Keep,
        now: u64,
        mut verify: impl FnMut(&CheckpointInfo) -> bool,
    ) -> Result<Collection> {
        keep.check()?;
        let newest = Board::read(self.engine())?.newest;
        let mut infos: BTreeMap<CheckpointId, CheckpointInfo> =
            self.list()?.into_iter().map(|info| (info.id, info)).collect();
        let mut candidates: Vec<Candidate> = infos.values().map(candidate).collect();
        check_metrics(keep, &candidates)?;
        let resumed_from = resumed_from(&candidates);
        let (mut damaged, mut sound) = (Vec::new(), BTreeSet::new());
        let kept = loop {
            let kept = retention::select(keep, &candidates, &resumed_from, now);
            let counts = |candidate: &&mut Candidate| {
                let id = candidate.id;
                kept.contains_key(&id) && candidate.state.is_some() && !sound.contains(&id)
            };
            if candidates.iter().all(|candidate| kept.contains_key(&candidate.id)) {
                break kept;
            }
            let Some(next) = candidates.iter_mut().rev().find(counts) else { break kept };
            let id = next.id;
            let is_wanted = infos.get(&id).is_some_and(&mut verify);
            let verified = self.ask_listed(id, || if is_wanted { self.verify_id(id) } else { Ok(()) });
            match verified {
                Ok(Presence::There(())) => {
                    sound.insert(id);
                }
                // Rotated away by a concurrent writer.
                Ok(Presence::Deleted) => candidates.retain(|candidate| candidate.id != id),
                Ok(Presence::Absent(error)) | Err(error) if is_damage(&error) => {
                    next.state = None;
                    damaged.push((id, error));
                }
                Ok(Presence::Absent(error)) | Err(error) => return Err(error),
            }
        };
        let ids = candidates.iter().map(|candidate| candidate.id);
        let going = ids.filter(|id| !kept.contains_key(id)).filter_map(|id| infos.remove(&id));
        Ok(Collection { going: going.collect(), kept, damaged, newest, reader: self.clone() })
    }

    fn verify_id(&self, id: CheckpointId) -> Result<()> {
        self.checkpoint_by_id(id).and_then(|checkpoint| checkpoint.verify()).map(drop)
    }

    /// Why each checkpoint would stay under a policy, in the words of
    /// [`Store::kept`](super::Store::kept); a checkpoint that is not in the result would be
    /// deleted. The one that the newest attempt had resumed from stays, as it does for its writer.
    /// `now` in seconds since 1970. Verifies nothing: see [`Reader::plan_deletion`].
    ///
    /// # Errors
    /// `Invalid` for a policy that makes no sense; errors of listing.
    pub fn kept(&self, keep: &Keep, now: u64) -> Result<BTreeMap<CheckpointId, BTreeSet<String>>> {
        keep.check()?;
        let candidates = self.candidates()?;
        Ok(retention::select(keep, &candidates, &resumed_from(&candidates), now))
    }
}

impl Collection {
    /// Deletes. Checkpoints pinned since the plan was made stay. Hold the lock of
    /// [`Reader::lock_for`] from before the plan until this returns.
    ///
    /// # Errors
    /// `Fenced` when a writer has opened the run since: then nothing was deleted. Errors of
    /// listing.
    pub fn delete(&self) -> Result<Collected> {
        let maker = deletion::tool_maker();
        let by = By::Tool { maker: &maker, newest: self.newest };
        let ids: Vec<CheckpointId> = self.going.iter().map(|info| info.id).collect();
        let done = deletion::delete(&self.reader, by, &ids)?;
        Ok(Collected { deleted: done.deleted, spared: done.spared, not_deleted: done.failed })
    }
}

fn candidate(info: &CheckpointInfo) -> Candidate {
    let state = info.state.as_ref().ok().cloned().map(Arc::new);
    Candidate { id: info.id, len: info.byte_len, pinned: info.pinned, marked: info.is_marked, state }
}

/// The checkpoint that the newest attempt resumed from, according to its checkpoints.
fn resumed_from(candidates: &[Candidate]) -> Vec<Spared> {
    let newest = candidates.iter().rev().find_map(|candidate| candidate.state.as_ref());
    let id = newest.and_then(|state| state.resumed_from.as_ref()?.parse().ok());
    id.map(|id| (id, "resumed from")).into_iter().collect()
}

/// A policy that ranks by a metric that no checkpoint has would delete all that it was meant to
/// keep.
fn check_metrics(keep: &Keep, candidates: &[Candidate]) -> Result<()> {
    if candidates.is_empty() {
        return Ok(());
    }
    let Some(&unknown) = retention::unknown_metrics(keep, candidates).first() else { return Ok(()) };
    let states = candidates.iter().filter_map(|candidate| candidate.state.as_ref());
    let known: BTreeSet<&str> = states.flat_map(|state| state.metrics.keys().map(String::as_str)).collect();
    let error = Error::invalid(format!("no checkpoint has the metric {unknown:?}"));
    Err(match names::nearest(unknown, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error.help(format!("the metrics are {known:?}")),
    })
}
