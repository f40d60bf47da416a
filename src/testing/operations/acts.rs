//! The writers' operations: opening, resuming, pinning and deleting, each with its required result.
//! If a remote tier may be away, the result is not predicted; the changes are judged all the same.

use super::decode::{Kind, Operation};
use super::model::LOSS;
use super::saves::bad_metric;
use super::site::{Life, Seen};
use super::world::{Effect, Handle, Judged, World, bury, must, sane, tag_in, words};
use crate::error::{Error, ErrorKind};
use crate::store::{CheckpointId, Every, Mode, Resumed, Store, StoreOptions, Tier};
use std::sync::Arc;

impl World {
    pub fn act(&mut self, operation: Operation) -> Judged<Effect> {
        use Kind::*;
        match operation.kind {
            Open => return self.open(operation),
            _ if !operation.is_by_a_writer() => return self.act_outside(operation),
            _ => {}
        }
        let newest = match self.writers.len() {
            0 => return self.open(operation),
            count => count - 1,
        };
        let writer = if operation.is_zombies() { 0 } else { newest };
        match operation.kind {
            Save | Stage => self.save(writer, operation),
            SaveBadMetric => bad_metric(operation),
            Observe => self.observe(writer, operation),
            Resume => self.resume(writer, None),
            ResumeAt => self.resume_at(writer, operation),
            StartOver => {
                self.writers[writer].store.start_over();
                self.writers[writer].has_begun = true;
                Ok(Effect::Nothing)
            }
            Pin | Unpin => self.pin(writer, operation),
            Delete => self.delete(writer, operation),
            Kill => {
                self.writers[writer].life.end_after(u64::from(operation.a % 48));
                Ok(Effect::Nothing)
            }
            Close => self.close(writer),
            _ => self.read(writer),
        }
    }

    /// One of the existing checkpoints, or none.
    pub fn pick(&self, tier: usize, choice: u8) -> Option<CheckpointId> {
        let ids = &self.before[tier].ids;
        // Mostly a new one.
        let back = usize::from(choice) % ids.len().max(1);
        ids.iter().rev().nth(back).copied()
    }

    /// The newest attempt's checkpoint of the same step.
    fn newest_of_step(&self, id: CheckpointId) -> CheckpointId {
        let ids = self.before.iter().flat_map(|seen| &seen.ids).copied();
        ids.filter(|other| other.step == id.step).max().unwrap_or(id)
    }

    fn close(&mut self, writer: usize) -> Judged<Effect> {
        let handle = self.writers.remove(writer);
        let life = Arc::clone(&handle.life);
        match handle.store.close() {
            Err(error) if self.has_tiers() || life.is_over() => sane(&error)?,
            closed => closed.map_err(words)?,
        }
        Ok(Effect::Nothing)
    }

    fn open(&mut self, operation: Operation) -> Judged<Effect> {
        if self.writers.len() > 1 {
            bury(self.writers.remove(0))?;
        }
        let is_locked = self.writers.iter().any(|handle| handle.is_locked);
        let breaks = operation.is_odd();
        let mut processes = self.process(breaks).into_iter();
        let Some(local) = processes.next() else { return Err("a place has no tier".to_owned()) };
        let life = Arc::clone(&local.life);
        if operation.kind == Kind::Open && operation.b >= 240 {
            life.end_after(u64::from(operation.a % 16));
        }
        let opened = match processes.next() {
            Some(remote) => Store::open_tiered(local, remote, self.options()),
            None => Store::open(local, self.options()),
        };
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                self.judge_refusal(&error, is_locked && !breaks, &life)?;
                return Ok(Effect::Nothing);
            }
        };
        must(!is_locked || breaks, || "two writers hold one lock".to_owned())?;
        self.check_swept(breaks)?;
        let Some(handle) = self.handle(store, life, !is_locked)? else { return Ok(Effect::Nothing) };
        let clears = handle.is_locked && !handle.life.is_over();
        self.writers.push(handle);
        // Marks of completed deletions are removed by now. The maker of an incomplete one may be at
        // work: all writers of these runs are this process.
        self.before = self.look()?;
        let here = &self.before[0];
        must(!clears || here.set_aside > 0 || here.condemned.is_subset(&here.ids), || {
            format!("marks of what is gone stay: {:?}", here.condemned)
        })?;
        if operation.a.is_multiple_of(4) {
            Ok(Effect::Nothing)
        } else {
            self.resume(self.writers.len() - 1, None)
        }
    }

    fn options(&self) -> StoreOptions {
        StoreOptions::new()
            .keep(self.policies[0].keep())
            .keep_remote(self.policies[1].keep())
            .save(Every::on_best(LOSS, Mode::Min))
    }

    fn judge_refusal(&mut self, error: &Error, is_locked_out: bool, life: &Life) -> Judged {
        let is_expected = match error.kind() {
            ErrorKind::Locked => is_locked_out || self.has_tiers(),
            ErrorKind::Invalid if self.has_tiers() && self.is_tampered => {
                self.repair_identity()?;
                true
            }
            _ => life.is_over() || self.has_tiers(),
        };
        must(is_expected, || format!("opening: {error:?}"))?;
        sane(error)
    }

    /// The handle of a writer that has just opened the run; None if it was killed meanwhile.
    fn handle(&self, store: Store, life: Arc<Life>, is_alone: bool) -> Judged<Option<Handle>> {
        let attempt = store.attempt();
        let own = match self.sites[0].read(&format!("attempts/{attempt:04}")) {
            Err(_) if life.is_over() => return Ok(None),
            own => own.map_err(|error| format!("attempt {attempt} is not written: {error:?}"))?,
        };
        must(attempt > self.before[0].newest, || format!("attempt {attempt} was taken before"))?;
        let is_empty = self.before[0].set_aside == 0 && self.before.iter().all(|seen| seen.ids.is_empty());
        let losses = self.known.iter().flatten().filter_map(|(_, known)| known.loss);
        Ok(Some(Handle {
            store,
            life,
            is_locked: is_alone && self.sites[0].locks,
            attempt,
            own,
            has_begun: is_empty,
            saved: None,
            resumed: None,
            step: 0,
            best: losses.min_by(f64::total_cmp),
            observed: None,
            has_failed: false,
        }))
    }

    /// Checks that the remains of killed uploads are removed under the lock.
    fn check_swept(&mut self, breaks: bool) -> Judged {
        let Some(folder) = &self.sites[0].folder else { return Ok(()) };
        if breaks || !std::mem::take(&mut self.has_junk) {
            return Ok(());
        }
        let is_there = folder.join(super::outside::JUNK).exists();
        must(!is_there, || "the remains of a killed upload were not swept".to_owned())
    }

    fn resume_at(&mut self, writer: usize, operation: Operation) -> Judged<Effect> {
        match self.pick(0, operation.a) {
            Some(id) if operation.b < 250 => self.resume(writer, Some(id.step)),
            _ => self.resume(writer, Some(1_000_000)),
        }
    }

    fn resume(&mut self, writer: usize, step: Option<u64>) -> Judged<Effect> {
        let (is_fenced, expected) = (self.is_fenced(writer), self.newest_whole(step));
        let has_tiers = self.has_tiers();
        let handle = &mut self.writers[writer];
        let has_saved = self.before.iter().flat_map(|seen| &seen.ids).any(|id| id.attempt == handle.attempt);
        let resumed = match step {
            Some(step) => handle.store.resume_at(step),
            None => handle.store.resume(),
        };
        let resumed = match resumed {
            Ok(resumed) => resumed,
            Err(_) if handle.life.is_over() => return Ok(Effect::Resumed),
            Err(error) => {
                sane(&error)?;
                let is_expected = match error.kind() {
                    ErrorKind::Fenced => is_fenced,
                    ErrorKind::Damaged => expected.is_none(),
                    ErrorKind::NotFound => step.is_some() && expected.is_none(),
                    ErrorKind::Invalid => step.is_some() && has_saved,
                    ErrorKind::Busy => {
                        step.is_some() && self.before.iter().any(|seen| !seen.condemned.is_empty())
                    }
                    _ => false,
                };
                must(is_expected || has_tiers, || format!("resuming: {error:?}, expected {expected:?}"))?;
                return Ok(Effect::Resumed);
            }
        };
        must(!is_fenced, || "a fenced writer resumes".to_owned())?;
        self.check_resumed(&resumed, expected)?;
        let handle = &mut self.writers[writer];
        handle.has_begun = true;
        if resumed.id.is_some() {
            handle.resumed = resumed.id;
        }
        handle.step = resumed.next_step();
        Ok(Effect::Resumed)
    }

    fn check_resumed(&self, resumed: &Resumed, expected: Option<CheckpointId>) -> Judged {
        // A mark in one tier does not affect the copy in the other.
        let has_marks = self.before.iter().any(|seen| !seen.condemned.is_empty());
        let is_certain =
            !self.is_unsettled && resumed.remote_error.is_none() && !(self.has_tiers() && has_marks);
        must(resumed.id == expected || !is_certain, || {
            format!("resumed from {:?}, expected {expected:?}, skipped {:?}", resumed.id, resumed.skipped)
        })?;
        if is_certain {
            for skipped in &resumed.skipped {
                let known = self.known[usize::from(skipped.tier == Tier::Remote)].get(&skipped.id);
                must(known.is_none_or(|known| !known.whole), || format!("{skipped:?} is whole"))?;
            }
        }
        let (Some(checkpoint), Some(id)) = (&resumed.checkpoint, resumed.id) else { return Ok(()) };
        let tag = tag_in(checkpoint).map_err(words)?;
        let is_known = self.known.iter().filter_map(|shelf| shelf.get(&id)).any(|known| known.tag == tag);
        must(is_known, || format!("{id} holds {tag}"))
    }

    /// The checkpoint that a resume must choose: the newest that is whole, in either tier; those
    /// being deleted come last.
    fn newest_whole(&self, step: Option<u64>) -> Option<CheckpointId> {
        let ids = || self.before.iter().flat_map(|seen| &seen.ids).copied();
        let of_step = step.map(|step| ids().filter(|id| id.step == step).max());
        let whole = |takes_condemned: bool| {
            let tiers = self.known.iter().zip(&self.before);
            tiers.flat_map(move |(shelf, seen)| {
                let sound = move |id: &CheckpointId| takes_condemned || !seen.condemned.contains(id);
                shelf.iter().filter(move |(id, known)| known.whole && sound(id)).map(|(id, _)| *id)
            })
        };
        match of_step {
            Some(id) => whole(true).find(|there| Some(*there) == id),
            None => whole(false).max().or_else(|| whole(true).max()),
        }
    }

    fn pin(&mut self, writer: usize, operation: Operation) -> Judged<Effect> {
        let tier = usize::from(operation.is_remote() && self.has_tiers());
        let Some(id) = self.pick(tier, operation.a) else { return Ok(Effect::Nothing) };
        let id = self.newest_of_step(id);
        let store = &self.writers[writer].store;
        let done = if operation.kind == Kind::Pin { store.pin(id.step) } else { store.unpin(id.step) };
        let (is_over, has_tiers) = (self.writers[writer].life.is_over(), self.has_tiers());
        match done {
            Ok(()) => {
                let goes = |seen: &Seen| seen.condemned.contains(&id) && seen.ids.contains(&id);
                // During a promotion, a rotation there may have taken its marks back since.
                let is_condemned =
                    operation.kind == Kind::Pin && !self.is_unsettled && self.before.iter().any(goes);
                must(!is_condemned, || format!("{id} is pinned while it is being deleted"))?;
                for seen in self.before.iter_mut().filter(|seen| seen.ids.contains(&id)) {
                    if operation.kind == Kind::Pin {
                        seen.pins.insert(id);
                    } else {
                        seen.pins.remove(&id);
                    }
                }
                let is_pinned = self.sites[0].raw.open(&format!("pins/{id}")).is_ok();
                let is_here = self.before[0].ids.contains(&id);
                let is_right = is_pinned == (operation.kind == Kind::Pin) || !is_here;
                must(is_right, || format!("{:?} of {id} did nothing", operation.kind))?;
            }
            Err(error) if error.kind() == ErrorKind::Busy => {
                let is_condemned = self.before.iter().any(|seen| seen.condemned.contains(&id));
                must(is_condemned || has_tiers, || format!("pinning {id}: {error:?}"))?;
            }
            Err(error) => {
                sane(&error)?;
                must(is_over || has_tiers, || format!("pinning {id}: {error:?}"))?;
            }
        }
        Ok(Effect::Nothing)
    }

    fn delete(&mut self, writer: usize, operation: Operation) -> Judged<Effect> {
        let Some(id) = self.pick(0, operation.a) else { return Ok(Effect::Nothing) };
        let is_fenced = self.is_fenced(writer);
        let id = self.newest_of_step(id);
        let handle = &self.writers[writer];
        let is_resumed = handle.resumed == Some(id);
        let is_pinned = self.before.iter().any(|seen| seen.pins.contains(&id));
        let is_held = self.before.iter().any(|seen| seen.held.contains(&id));
        let is_last = !self.known[0].iter().any(|(other, known)| *other != id && known.whole);
        let done = handle.store.delete(id.step);
        let (is_over, is_ok) = (handle.life.is_over(), done.is_ok());
        match done {
            Ok(()) => {
                must(!is_fenced, || format!("{id} is deleted by a writer that is fenced"))?;
                must(!is_resumed, || format!("{id} is deleted by a writer that resumed from it"))?;
            }
            Err(_) if is_over => {}
            Err(error) => {
                sane(&error)?;
                let is_expected = match error.kind() {
                    ErrorKind::Invalid => is_pinned || is_resumed || is_last,
                    ErrorKind::Fenced => is_fenced,
                    ErrorKind::Busy => is_held,
                    _ => false,
                };
                must(is_expected || self.has_tiers(), || format!("deleting {id}: {error:?}"))?;
            }
        }
        // A fenced writer deletes nothing, whatever it returns.
        let changes = is_ok || (is_over && !is_fenced) || (self.has_tiers() && !is_fenced);
        Ok(if changes { Effect::Deleted { id, is_ok } } else { Effect::Nothing })
    }

    /// Reading changes nothing, and sees every checkpoint.
    fn read(&self, writer: usize) -> Judged<Effect> {
        let handle = &self.writers[writer];
        let listed = handle.store.reader().ids();
        let listed = match listed {
            Err(_) if handle.life.is_over() => return Ok(Effect::Nothing),
            listed => listed.map_err(words)?,
        };
        let is_right = listed.iter().eq(&self.before[0].ids);
        must(is_right, || format!("{listed:?} are listed, {:?} are there", self.before[0].ids))?;
        Ok(Effect::Nothing)
    }
}
