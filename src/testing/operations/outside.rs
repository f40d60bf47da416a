//! Events beside a run's writers: tools that delete and copy, rot, lost objects, marks of killed
//! deleters, a clock that jumps, a run that is replaced, a network that is away.

use super::decode::{Kind, Operation};
use super::model::{Known, Policy};
use super::site::image_of;
use super::world::{Effect, Image, Judged, World, must, sane, tag_of, words};
use crate::engine::Memory;
use crate::error::{ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::store::{CheckpointId, CopyOutcome, Reader, Store, StoreOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// The remains of a killed upload in a folder.
pub(super) const JUNK: &str = ".tmp-junk-00000000000000000000000000000000";

impl World {
    pub fn act_outside(&mut self, operation: Operation) -> Judged<Effect> {
        let tier = usize::from(operation.is_remote() && self.has_tiers());
        match operation.kind {
            Kind::Collect => return self.collect(tier, operation),
            Kind::Copy => return self.back_up(tier, operation),
            Kind::Flip => self.flip(tier, operation)?,
            Kind::Lose => self.lose(tier, operation)?,
            Kind::DamageRun => self.damage("RUN", tier, operation)?,
            Kind::DamageAttempt => {
                let attempt = self.before[tier].newest.saturating_sub(u32::from(operation.a % 2));
                self.damage(&format!("attempts/{attempt:04}"), tier, operation)?;
            }
            Kind::LeaveMark => self.leave_mark(tier, operation)?,
            Kind::HalfUpload => self.leave_half(),
            Kind::Clock => {
                let by = 1_u64 << (operation.b % 20);
                let now = self.now();
                let then = if operation.a.is_multiple_of(2) {
                    now.saturating_add(by)
                } else {
                    now.saturating_sub(by)
                };
                self.set_clock(then);
            }
            Kind::TakeImage => {
                let (objects, known) = (image_of(&*self.sites[0].raw).map_err(words)?, self.known[0].clone());
                self.image = Some(Image { objects, known, deleted: self.deleted.clone() });
            }
            Kind::Replace if !self.has_tiers() => self.replace(operation)?,
            Kind::Disconnect if self.has_tiers() => {
                self.sites[1].is_down.store(operation.a.is_multiple_of(4), Ordering::SeqCst);
            }
            _ => {}
        }
        Ok(Effect::Outside)
    }

    fn set_clock(&self, seconds: u64) {
        self.clock.store(seconds, Ordering::SeqCst);
        crate::clock::script::set_seconds(seconds);
    }

    /// Does the work of `tensorkeep gc`, under the lock if there is one, and perhaps killed.
    fn collect(&mut self, tier: usize, operation: Operation) -> Judged<Effect> {
        let policy = Policy::decode(operation.a);
        let process = self.process(false).swap_remove(tier);
        let (life, site) = (process.life.clone(), process.site.clone());
        let reader = Reader::new(process);
        let is_away = || site.is_down.load(Ordering::SeqCst);
        let _lock = match reader.lock_for("gc") {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::Locked || is_away() => {
                let holds = |handle: &super::world::Handle| handle.is_locked || tier == 1;
                let is_expected = is_away() || site.locks && self.writers.iter().any(holds);
                must(is_expected, || format!("gc: {error:?}"))?;
                return Ok(Effect::Nothing);
            }
            Err(error) => return Err(words(error)),
        };
        let plan = match reader.plan_deletion(&policy.keep(), self.now(), |_| true) {
            Ok(plan) => plan,
            Err(error) => {
                sane(&error)?;
                let is_unknown = error.kind() == ErrorKind::Invalid;
                let ranks = matches!(policy, Policy::Misspelt | Policy::Best(..));
                must(is_unknown && ranks || is_away(), || format!("gc: {error:?}"))?;
                return Ok(Effect::Nothing);
            }
        };
        if operation.b >= 192 {
            life.end_after(u64::from(operation.b % 32));
        }
        self.has_lost_there |= tier == 1 && !plan.going.is_empty();
        match plan.delete() {
            Ok(done) => {
                let failed = done.not_deleted.first();
                must(failed.is_none() || life.is_over() || is_away(), || format!("gc: {failed:?}"))?;
            }
            Err(_) if life.is_over() || is_away() => {}
            Err(error) => return Err(words(error)),
        }
        Ok(Effect::Collected { tier, policy })
    }

    /// Does the work of `tensorkeep cp` for one checkpoint.
    fn back_up(&mut self, tier: usize, operation: Operation) -> Judged<Effect> {
        let Some(id) = self.pick(tier, operation.a) else { return Ok(Effect::Nothing) };
        let (from, to) = (self.reader(tier), Reader::new(self.backup.clone()));
        let run = match from.run_id() {
            Ok(Some(run)) => run,
            Ok(None) => {
                must(self.is_tampered, || "the run has no identity".to_owned())?;
                return Ok(Effect::Nothing);
            }
            Err(error) => return Err(words(error)),
        };
        match to.belong_to(run) {
            Ok(()) => {
                let is_other = self.backup_run.is_some_and(|there| there != run);
                must(!is_other, || "two runs are copied into one".to_owned())?;
                self.backup_run = Some(run);
            }
            Err(error) => {
                let is_other = self.backup_run != Some(run);
                must(is_other && error.kind() == ErrorKind::Invalid, || format!("cp: {error:?}"))?;
                return Ok(Effect::Nothing);
            }
        }
        let Some(known) = self.known[tier].get(&id).cloned() else { return Ok(Effect::Nothing) };
        match from.copy_to(id, &to, |_| ()) {
            Ok(CopyOutcome::Written(_)) => {
                must(known.whole, || format!("{id} is damaged, and was copied"))?;
                self.backed_up.insert(id, known.tag);
            }
            Ok(CopyOutcome::AlreadyThere) => {
                let is_same = self.backed_up.get(&id) == Some(&known.tag);
                must(is_same, || format!("{id} is not the copy"))?;
            }
            Err(error) => {
                sane(&error)?;
                let is_taken = self.backed_up.contains_key(&id);
                must(!known.whole || is_taken, || format!("cp of {id}: {error:?}"))?;
            }
        }
        Ok(Effect::Nothing)
    }

    /// Flips one bit of a checkpoint: at its beginning, at its end or anywhere.
    fn flip(&mut self, tier: usize, operation: Operation) -> Judged {
        let Some(id) = self.pick(tier, operation.a / 4) else { return Ok(()) };
        let key = format!("{id}.tkeep");
        let mut bytes = self.sites[tier].read(&key).map_err(words)?;
        let (len, at) = (bytes.len(), usize::from(operation.b));
        let at = match operation.a % 4 {
            0 => at % 64,
            1 => len - 1 - at % len.min(128),
            // The tensor.
            2 => 4096 + at % 16,
            _ => at * 61,
        };
        bytes[at % len] ^= 1 << (operation.b % 8);
        self.sites[tier].put(&key, &bytes).map_err(words)?;
        if let Some(known) = self.known[tier].get_mut(&id) {
            // The same bit twice makes it whole again.
            known.whole = tag_of(&Reader::new(self.sites[tier].raw.clone()), id).is_ok();
        }
        self.has_rotted = true;
        Ok(())
    }

    fn lose(&mut self, tier: usize, operation: Operation) -> Judged {
        let Some(id) = self.pick(tier, operation.a) else { return Ok(()) };
        self.sites[tier].raw.delete(&format!("{id}.tkeep")).map_err(words)?;
        self.known[tier].remove(&id);
        self.has_lost_there |= tier == 1;
        Ok(())
    }

    /// Deletes, truncates or changes an object beside the checkpoints.
    fn damage(&mut self, key: &str, tier: usize, operation: Operation) -> Judged {
        let Ok(mut bytes) = self.sites[tier].read(key) else { return Ok(()) };
        self.is_tampered = true;
        match operation.b % 3 {
            0 => return self.sites[tier].raw.delete(key).map_err(words),
            1 => bytes.truncate(bytes.len() / 2),
            _ => {
                let at = usize::from(operation.b) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }
        }
        self.sites[tier].put(key, &bytes).map_err(words)
    }

    /// Follows the help of the error.
    pub fn repair_identity(&mut self) -> Judged {
        for site in &self.sites {
            match site.raw.delete("RUN") {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(words(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Leaves the mark of a deleter that was killed after its first step.
    fn leave_mark(&mut self, tier: usize, operation: Operation) -> Judged {
        let Some(id) = self.pick(tier, operation.a) else { return Ok(()) };
        let newest = self.before[tier].newest;
        let by = match operation.b % 3 {
            0 => format!("{newest:04}"),
            1 => format!("{:04}", newest.saturating_sub(1)),
            _ => "tool-00".to_owned(),
        };
        match self.sites[tier].raw.mark(&format!("attempts/{by}.deletes.{id}")) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(words(error)),
            _ => Ok(()),
        }
    }

    fn leave_half(&mut self) {
        if let Some(folder) = &self.sites[0].folder {
            self.has_junk = std::fs::write(folder.join(JUNK), b"half").is_ok();
        }
    }

    /// Replaces the run by another one, or by an earlier state of this one.
    fn replace(&mut self, operation: Operation) -> Judged {
        let image = match &self.image {
            Some(image) if operation.a.is_multiple_of(2) => image.clone(),
            _ => self.other_run(operation.b).map_err(words)?,
        };
        self.sites[0].become_image(&image.objects).map_err(words)?;
        self.known[0] = image.known;
        self.deleted = image.deleted;
        self.is_tampered = true;
        Ok(())
    }

    fn other_run(&mut self, choice: u8) -> Result<Image> {
        let place = Memory::new();
        let store = Store::open(place.clone(), StoreOptions::new())?;
        let mut known = BTreeMap::new();
        for step in 1..=u64::from(choice % 4) {
            let tag = self.fresh_tag();
            let values = [tag; 4];
            let snapshot = Snapshot::new().tensor("w", &values[..])?.progress(Progress::new(step));
            store.save(&snapshot)?;
            let saved =
                Known { tag, whole: true, loss: None, epoch: 0, saved_at: self.now(), resumed_from: None };
            known.insert(CheckpointId { attempt: 1, step }, saved);
        }
        store.close()?;
        Ok(Image { objects: image_of(&place)?, known, deleted: BTreeSet::new() })
    }
}
