//! One save of a store, and the rotation behind it: commit first, then delete.

use super::core::Core;
use super::cost::Stall;
use super::deletion::{self, By};
use super::history::HISTORY;
use super::naming::CheckpointId;
use super::record::{CheckpointMeta, SAVE, SaveRecord};
use super::retention::{self, Candidate, Kept, Spared};
use super::saved::Saved;
use super::schedule::Begun;
use crate::clock::{Timer, seconds_since_1970};
use crate::deadline::CallDeadline;
use crate::engine::CommitError;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records;
use crate::snapshot::{METRICS, PROGRESS, Progress, Snapshot};
use crate::sync::lock;
use crate::writer::{Plan, Written};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time limit, in all, for the work of a save after its outcome is known: rotation, or finding out
/// why it failed.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What a store says of a save in its checkpoint: its own record, and all of them, encoded.
pub(super) struct OwnRecords {
    pub save: SaveRecord,
    pub encoded: Vec<(&'static str, Vec<u8>)>,
}

impl Core {
    /// Saves and updates the schedule. The caller wakes the promoter, as after
    /// [`Core::save_because`].
    pub(super) fn save(&self, snapshot: &Snapshot<'_>, stall: &Stall) -> Result<Saved> {
        let begun = self.begin_save(snapshot)?;
        let mut saved = self.save_because(snapshot, &begun, stall)?;
        let mut schedule = self.lock_schedule();
        let done = schedule.handed_over(&begun, Instant::now());
        schedule.arrived(done.number);
        saved.warnings.extend(done.warnings);
        Ok(saved)
    }

    /// Begins a save; of one that cannot begin, every rank hears.
    pub(super) fn begin_save(&self, snapshot: &Snapshot<'_>) -> Result<Begun> {
        let begun = self.lock_schedule().begin(snapshot);
        begun.map_err(|error| self.refuse(error))
    }

    /// Commits, then rotates. Errors name the step.
    pub(super) fn save_because(
        &self,
        snapshot: &Snapshot<'_>,
        begun: &Begun,
        stall: &Stall,
    ) -> Result<Saved> {
        let step = begun.progress.step;
        let saved = match &self.ranks {
            None => self.timed(|| self.commit_and_rotate(snapshot, begun, stall)),
            // Waiting for other ranks has a deadline of its own.
            Some(ranks) => ranks.save(self, snapshot, begun, stall),
        };
        saved.map_err(|error| error.in_save_of_step(step))
    }

    fn commit_and_rotate(&self, snapshot: &Snapshot<'_>, begun: &Begun, stall: &Stall) -> Result<Saved> {
        let _one_at_a_time = lock(&self.saving);
        let id = CheckpointId { attempt: self.attempt.number, step: begun.progress.step };
        self.check_order(id)?;
        let committing = Timer::start();
        let written = self.commit(snapshot, id, begun)?;
        self.last_save.set(id.step, committing.elapsed(), stall);
        let seen = self.acknowledge(id)?;
        let mut saved = Saved::of(id, written);
        self.rotate_behind(seen, &mut saved);
        Ok(saved)
    }

    /// Looks for a newer writer behind a commit. Inside: the candidates for rotation, or why they
    /// could not be listed.
    pub(super) fn acknowledge(&self, id: CheckpointId) -> Result<Result<Vec<Candidate>>> {
        let seen = match self.look_behind_the_commit(id) {
            // A checkpoint that a fenced writer committed is not part of the run.
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            seen => seen,
        };
        self.known().saved = Some(id);
        match seen {
            // The checkpoint is there; whether it counts could not be found out.
            Err(error) if self.lock.is_none() => Err(error.with_kind(ErrorKind::Unknown)),
            seen => Ok(seen),
        }
    }

    /// Rotates behind a save that was acknowledged.
    pub(super) fn rotate_behind(&self, seen: Result<Vec<Candidate>>, saved: &mut Saved) {
        let rotate = |candidates: Vec<Candidate>| {
            CallDeadline::after(AFTERWARDS).enter(|| self.rotate(&candidates, saved))
        };
        let rotated = seen.and_then(rotate);
        saved.rotation_error = rotated.err();
    }
}

impl Core {
    /// A newer attempt may have been taken between the check before the commit and the commit, and
    /// its writer may have looked for checkpoints before ours was there. Without a newer attempt
    /// now, every later one finds it: an acknowledged save is never passed over. This also holds
    /// under a lock, which may have been removed while this process stood still. It runs before
    /// rotation marks anything: a process that resumes meanwhile would pass over a checkpoint that
    /// a fenced writer has marked.
    ///
    /// The same look lists the candidates for rotation. A run that keeps everything has none: it
    /// would list all its checkpoints on each save.
    fn look_behind_the_commit(&self, saved: CheckpointId) -> Result<Vec<Candidate>> {
        if self.options.keep.is_all() {
            self.attempt.check_by_number(self.reader.engine())?;
            return Ok(vec![]);
        }
        self.reader.candidates_of(&self.attempt, saved)
    }

    /// A checkpoint's name gives its position in the run. One that would not be the newest, or that
    /// follows on nothing although the run has checkpoints, is a mistake, and rotation would act on
    /// it.
    pub(super) fn check_order(&self, id: CheckpointId) -> Result<()> {
        let here = self.reader.engine().describe("");
        if !self.has_begun() {
            return Err(Error::invalid("the run has checkpoints, and this store has not resumed from any")
                .in_object(here)
                .help("call resume() or resume_at(step) first, or start_over() to begin the run anew"));
        }
        match self.known().saved {
            Some(newest) if id.step < newest.step => Err(Error::invalid(
                "an earlier step than the newest saved one",
            )
            .in_object(here)
            .expected(format!("a step after {}", newest.step))
            .found(format!("step {}", id.step))
            .help(
                "count steps over the whole run; to go back, open the store again and call resume_at(step)",
            )),
            Some(newest) if id.step == newest.step => Err(Error::new(
                ErrorKind::AlreadyExists,
                "this step was saved already, and is never written again",
            )
            .in_object(self.reader.engine().describe(&id.key()))
            .help("count completed steps over the whole run, and save again when there is one more")),
            _ if id.step == u64::MAX => Err(Error::invalid("the progress is no count of completed steps")
                .found(id.step)
                .help("it is -1 as an unsigned number")),
            _ => Ok(()),
        }
    }

    fn commit(&self, snapshot: &Snapshot<'_>, id: CheckpointId, begun: &Begun) -> Result<Written> {
        let OwnRecords { save, encoded } = self.own_records(snapshot.byte_len(), id, begun)?;
        let nonce = self.attempt.nonce(id.step, self.saves.fetch_add(1, Ordering::Relaxed));
        let plan = Plan::of(snapshot, &encoded, &self.options.write.clone().file_id(nonce))?;
        let written = self.publish(&plan, id)?;
        self.lock_schedule().log.saved(begun.progress, written.byte_len);
        self.reader.remember(id, CheckpointMeta::of_saved(save, begun, snapshot.tensor_count()));
        Ok(written)
    }

    /// The store's own records in a checkpoint: what it says of the save, and the run's history.
    pub(super) fn own_records(&self, byte_len: u64, id: CheckpointId, begun: &Begun) -> Result<OwnRecords> {
        let record = SaveRecord {
            attempt: id.attempt,
            step: id.step,
            saved_at: seconds_since_1970(),
            why: begun.why.clone(),
            resumed_from: self.known().resumed_from.map(|id| id.to_string()),
            run: Some(self.run),
            keep: Some(self.options.keep.clone()),
            keep_remote: self.remote.as_ref().map(|remote| remote.keep().clone()),
            previous: self.last_save.cost(),
            auto: self.lock_schedule().auto_interval(),
            not_finite: begun.not_finite.clone(),
            world: self.ranks.as_ref().map(|ranks| ranks.world()),
        };
        let mut extra =
            vec![(SAVE, records::encode(&record)?), (PROGRESS, records::encode(&begun.progress)?)];
        if !begun.metrics.is_empty() {
            extra.push((METRICS, records::encode(&begun.metrics)?));
        }
        let mut schedule = self.lock_schedule();
        let history = schedule.log.encode(begun.progress, record.saved_at, byte_len);
        drop(schedule);
        extra.push((HISTORY, history));
        Ok(OwnRecords { save: record, encoded: extra })
    }

    /// Writes a planned checkpoint durably, under its name.
    pub(super) fn publish(&self, plan: &Plan<'_, '_>, id: CheckpointId) -> Result<Written> {
        match self.upload(plan, id) {
            // The file that failed is gone; write a new one from memory, which still has
            // everything. Once.
            Err(CommitError::NotCommitted(error)) if error.kind() == ErrorKind::Io => {
                self.upload(plan, id).map_err(Error::from)
            }
            outcome => outcome.map_err(Error::from),
        }
        .map_err(|error| error.in_object(self.reader.engine().describe(&id.key())))
    }

    fn upload(&self, plan: &Plan<'_, '_>, id: CheckpointId) -> Result<Written, CommitError> {
        let started = Instant::now();
        let engine = self.reader.engine();
        let write = || {
            self.attempt.take_if_pending(engine)?;
            let mut upload = engine.create(&id.key(), Some(plan.size_bound()))?;
            let written = plan.write(&mut *upload)?;
            // After the long part: a zombie that woke up must not commit.
            self.attempt.check_by_number(engine)?;
            Ok((upload, written))
        };
        let check = || self.attempt.check(engine);
        let explained = |error: Error| match CallDeadline::after(AFTERWARDS).enter(check) {
            // Such as when the folder is gone.
            Err(fenced) if fenced.kind() == ErrorKind::Fenced => fenced,
            _ => error,
        };
        let (upload, written) = write().map_err(|error| CommitError::NotCommitted(explained(error)))?;
        let appended = Instant::now();
        upload.commit(plan.file_id())?;
        Ok(written.committed(started, appended))
    }

    /// Deletes checkpoints that no rule protects. Runs only after a durable commit.
    fn rotate(&self, candidates: &[Candidate], saved: &mut Saved) -> Result<()> {
        if candidates.is_empty() {
            return Ok(());
        }
        let _deleting = lock(&self.deleting);
        let kept = self.select(candidates, &[(saved.id, "newest")]);
        let ids = candidates.iter().map(|candidate| candidate.id);
        let going: Vec<CheckpointId> = ids.filter(|id| !kept.contains_key(id)).collect();
        self.warn_of_metrics(candidates, saved, !going.is_empty());
        let done = deletion::delete(&self.reader, By::Writer(&self.attempt), &going)?;
        (saved.deleted, saved.not_deleted) = (done.deleted, done.failed);
        Ok(())
    }

    /// Warns of a policy whose metric is misspelt, which keeps nothing.
    fn warn_of_metrics(&self, candidates: &[Candidate], saved: &mut Saved, is_deleting: bool) {
        for metric in retention::unknown_metrics(&self.options.keep, candidates) {
            saved.warnings.push(format!(
                "the policy keeps the best by {metric:?}, and no checkpoint has that metric: nothing is kept by it"
            ));
        }
        if is_deleting && !saved.warnings.is_empty() && !self.has_warned.swap(true, Ordering::Relaxed) {
            eprintln!("tensorkeep: WARNING: {}", saved.warnings.join("; "));
        }
    }

    fn select(&self, candidates: &[Candidate], spared: &[Spared]) -> Kept {
        let now = seconds_since_1970();
        let spared = [&self.spared()[..], spared].concat();
        let mut kept = retention::select(&self.options.keep, candidates, &spared, now);
        if let Some(remote) = &self.remote {
            for id in remote.unpromoted(&self.spared(), candidates) {
                kept.entry(id).or_default().insert("not promoted yet".to_owned());
            }
        }
        kept
    }

    pub(super) fn kept(&self) -> Result<Kept> {
        Ok(self.select(&self.reader.candidates()?, &[]))
    }

    pub(super) fn schedule_from(&self, progress: Progress) {
        self.lock_schedule().resumed(progress, Instant::now());
    }
}
