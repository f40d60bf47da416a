//! State that the parts of a store share: the run as it was opened, its writer, and the run's state
//! since.

use super::attempt::{Attempt, Writer};
use super::cost::{LastSave, Stall};
use super::history::{LifeEnd, Log};
use super::lives;
use super::naming::CheckpointId;
use super::options::StoreOptions;
use super::reader::Reader;
use super::resumed::Resumed;
use super::retention::Spared;
use super::run_id::RunId;
use super::saved::Saved;
use super::schedule::{Begun, SaveReason, Schedule};
use super::tiers::Remote;
use crate::checkpoint::Checkpoint;
use crate::clock::seconds_since_1970;
use crate::engine::Lock;
use crate::error::{Error, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::sync::lock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// A run that is open for writing.
#[derive(Debug)]
pub(super) struct Core {
    pub reader: Reader,
    pub options: StoreOptions,
    pub run: RunId,
    pub writer: Writer,
    pub attempt: Attempt,
    pub schedule: Mutex<Schedule>,
    pub last_save: LastSave,
    /// None on an engine without locks, where only the attempt fences.
    pub lock: Option<Box<dyn Lock>>,
    pub remote: Option<Remote>,
    /// In a job of more than one rank.
    pub ranks: Option<Box<dyn Others>>,
    /// Held during a save: checkpoints are committed in the order of their steps.
    pub saving: Mutex<()>,
    /// Held from choosing the checkpoints to delete in the local tier until they are deleted.
    pub deleting: Mutex<()>,
    /// How many saves have begun.
    pub saves: AtomicU32,
    /// Whether a warning was printed: it is printed once.
    pub has_warned: AtomicBool,
    /// Whether a save may follow: the run was empty, was resumed, or is started over on purpose.
    has_begun: AtomicBool,
    known: Mutex<Known>,
    /// The signal that ends this attempt, where the program heard it itself.
    pub stopped_by: Mutex<Option<String>>,
}

/// What a store asks of the other ranks of its job. A table of functions that only
/// [`Store::open_ranks`](super::Store::open_ranks) makes: a program that does not call it carries
/// none of their code.
pub(super) trait Others: fmt::Debug + Send + Sync {
    fn world(&self) -> u32;
    fn is_root(&self) -> bool;
    fn check_root(&self, what: &'static str) -> Result<()>;
    fn check_background(&self) -> Result<()>;
    fn check_failure(&self) -> Result<()>;
    fn refuse(&self, error: Error) -> Error;
    fn due(&self, core: &Core, progress: Progress) -> Option<SaveReason>;
    fn save(&self, core: &Core, snapshot: &Snapshot<'_>, begun: &Begun, stall: &Stall) -> Result<Saved>;
    fn verify_together(&self, checkpoint: &Checkpoint, id: CheckpointId) -> Result<()>;
    fn resume(
        &self,
        core: &Core,
        step: Option<u64>,
        alone: &mut dyn FnMut() -> Result<Resumed>,
    ) -> Result<Resumed>;
}

/// Names that the store has learned since the run was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub resumed_from: Option<CheckpointId>,
    /// The newest checkpoint that this store committed.
    pub saved: Option<CheckpointId>,
}

impl Core {
    /// Another rank's part in a run that rank 0 has opened.
    pub(super) fn new(
        reader: Reader,
        options: StoreOptions,
        (run, writer, attempt): (RunId, Writer, Attempt),
    ) -> Result<Self> {
        let mut schedule = Schedule::start(options.every.clone(), Instant::now())?;
        schedule.log = Log::start(writer.life(attempt.number), options.ranked());
        Ok(Self::with_schedule(reader, options, (run, writer, attempt), schedule))
    }

    pub(super) fn with_schedule(
        reader: Reader,
        options: StoreOptions,
        (run, writer, attempt): (RunId, Writer, Attempt),
        schedule: Schedule,
    ) -> Self {
        Self {
            reader,
            options,
            run,
            writer,
            attempt,
            schedule: Mutex::new(schedule),
            last_save: LastSave::default(),
            lock: None,
            remote: None,
            ranks: None,
            saving: Mutex::default(),
            deleting: Mutex::default(),
            saves: AtomicU32::new(0),
            has_warned: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            known: Mutex::default(),
            stopped_by: Mutex::default(),
        }
    }

    /// From here on a save may follow: on a checkpoint that was resumed from or saved, or on none
    /// on purpose.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Held for one assignment or one copy.
        lock(&self.known)
    }

    /// Checkpoints that stay regardless of the rules.
    pub(super) fn spared(&self) -> Vec<Spared> {
        let known = *self.known();
        known.resumed_from.into_iter().map(|id| (id, "resumed from")).collect()
    }

    pub(super) fn lock_schedule(&self) -> MutexGuard<'_, Schedule> {
        lock(&self.schedule)
    }

    /// Leaves the mark of this attempt's end in both tiers.
    pub(super) fn end(&self) {
        // The attempt is rank 0's.
        if self.ranks.as_ref().is_some_and(|ranks| !ranks.is_root()) {
            return;
        }
        let schedule = self.lock_schedule();
        let told = lock(&self.stopped_by).clone();
        let stopped = told.or_else(|| Some(schedule.stop_signal()?.to_string()));
        let end = stopped.map_or(LifeEnd::Closed, LifeEnd::Stopped);
        let life = schedule.log.own(end, seconds_since_1970());
        drop(schedule);
        let _ = self.timed(|| lives::leave_end(self.reader.engine(), &life));
        self.remote.iter().for_each(|remote| remote.leave_end(&life, self.options.remote_timeout));
    }

    /// As [`StoreOptions::timed`].
    pub(super) fn timed<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.options.timed(call)
    }

    /// Applies `act` to a step's checkpoint in each tier that has it.
    pub(super) fn in_each_tier(
        &self,
        step: u64,
        act: impl Fn(&Reader, CheckpointId) -> Result<()>,
    ) -> Result<()> {
        self.timed(|| {
            let (id, tiers) = self.tiers_with(step)?;
            tiers.into_iter().try_for_each(|reader| act(reader, id))
        })
    }

    /// The newest attempt's checkpoint of a step, and the tiers that have it, the local one first.
    pub(super) fn tiers_with(&self, step: u64) -> Result<(CheckpointId, Vec<&Reader>)> {
        let (mut newest, mut tiers) = (None, Vec::new());
        for reader in self.tiers()? {
            let Some(id) = reader.ids()?.into_iter().rev().find(|id| id.step == step) else {
                continue;
            };
            if newest < Some(id) {
                (newest, tiers) = (Some(id), vec![]);
            }
            if newest == Some(id) {
                tiers.push(reader);
            }
        }
        Ok((newest.map_or_else(|| self.reader.find(step), Ok)?, tiers))
    }

    /// The tiers, the local one first.
    fn tiers(&self) -> Result<Vec<&Reader>> {
        let Some(remote) = &self.remote else { return Ok(vec![&self.reader]) };
        remote.unreachable().map_or_else(|| Ok(vec![&self.reader, &remote.reader]), Err)
    }

    /// Makes sure that this attempt is taken in the remote tier, if there is one.
    pub(super) fn reach_remote(&self) -> Result<()> {
        let Some(remote) = &self.remote else { return Ok(()) };
        remote.reach(self.run, (&self.attempt, &self.writer), self.reader.engine())
    }

    pub(super) fn wake_promoter(&self) {
        if let Some(remote) = &self.remote {
            remote.passes.wake();
        }
    }

    /// Damaged checkpoints have been set aside: promote what an earlier process left.
    pub(super) fn wake_after(&self, resumed: &Resumed) {
        // A caller who was just told that the remote tier does not answer need not hear it again
        // from the next call.
        if resumed.remote_error.is_none() {
            self.wake_promoter();
        }
    }

    /// Fails when a newer writer has taken over the remote tier.
    pub(super) fn check_fenced(&self) -> Result<()> {
        match &self.remote {
            Some(remote) => remote.passes.check_fenced(),
            None => Ok(()),
        }
    }

    /// Returns a failed promotion that is due.
    pub(super) fn check_promotions(&self) -> Result<()> {
        match &self.remote {
            Some(remote) => remote.passes.report(),
            None => Ok(()),
        }
    }
}
