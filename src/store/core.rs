//! State that the parts of a store share: the run as it was opened, its writer, and the run's state
//! since.

use super::attempt::{self, Attempt, Writer};
use super::cost::LastSave;
use super::deletion::{self, Inherited};
use super::history::{self, LifeEnd, Log};
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED};
use super::options::{StoreOptions, default_codec};
use super::ranks::Others;
use super::reader::Reader;
use super::resume::Resumed;
use super::retention::{Candidate, Spared};
use super::run_id::{self, RunId};
use super::schedule::Schedule;
use super::tiers::Remote;
use crate::clock::seconds_since_1970;
use crate::engine::{Engine, Lock};
use crate::error::Result;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
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

/// Names that the store has learned since the run was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub resumed_from: Option<CheckpointId>,
    /// The newest checkpoint that this store committed.
    pub saved: Option<CheckpointId>,
}

impl Core {
    pub(super) fn open(
        engine: Arc<dyn Engine>,
        remote: Option<Arc<dyn Engine>>,
        mut options: StoreOptions,
    ) -> Result<Self> {
        options.check()?;
        // After the check: an engine may have to write to find out what it can do.
        options.write = options.write.codec_unless_set(default_codec(&*engine));
        let mut schedule = Schedule::start(options.every.clone(), Instant::now())?;
        let mut writer = Writer::this_process(seconds_since_1970());
        let lock = attempt::lock_or_fence(&*engine, &writer)?;
        let reader = Reader::on(engine, options.open, options.map);
        let candidates = reader.candidates()?;
        let remote =
            remote.map(|engine| Remote::contact(engine, &options, &writer, &candidates)).transpose()?;
        let there = remote.as_ref().map(Remote::there).unwrap_or_default();
        let all: Vec<&Candidate> = candidates.iter().chain(&there).collect();
        for state in all.iter().filter_map(|candidate| candidate.state.as_ref()) {
            schedule.remember(&state.metrics);
        }
        let found = run_id::Found::look(reader.engine(), &candidates)?;
        let run = identity(&reader, found, remote.as_ref())?;
        writer.run = Some(run);
        let ids: Vec<CheckpointId> = all.iter().map(|candidate| candidate.id).collect();
        let (attempt, board) =
            Attempt::take(reader.engine(), remote.as_ref(), &ids, &writer, lock.is_some())?;
        let saved_by = ids.iter().map(|id| id.attempt).max().unwrap_or(0);
        let here = Inherited { board: &board, saved_by, writer: &writer, is_locked: lock.is_some() };
        deletion::clear_marks(reader.engine(), &here);
        if let Some(remote) = &remote {
            remote.clear_marks(saved_by, &writer)?;
        }
        // Listed again after taking the attempt: without a lock another writer may have saved
        // since.
        let is_empty =
            || attempt.look(reader.engine(), &["", DAMAGED, ATTEMPTS], vec![]).map(|look| look.is_empty());
        let has_begun = AtomicBool::new(ids.is_empty() && is_empty()?);
        schedule.log = Log::start(writer.life(attempt.number), options.ranked());
        let opened = Self::with_schedule(reader, options, (run, writer, attempt), schedule);
        Ok(Self { lock, remote, has_begun, ..opened })
    }

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

    fn with_schedule(
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
    pub(super) fn spared(&self) -> impl Iterator<Item = Spared> + use<> {
        let known = *self.known();
        known.resumed_from.into_iter().map(|id| (id, "resumed from"))
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
        let _ = self.timed(|| history::leave_end(self.reader.engine(), &life));
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

/// The identity of the run in both tiers, written where it was missing.
fn identity(reader: &Reader, found: run_id::Found, remote: Option<&Remote>) -> Result<RunId> {
    let engine = reader.engine();
    let there = remote.map(Remote::run).unwrap_or_default();
    let run = match found.id().or(there.id()) {
        Some(run) => run,
        None => run_id::of_oldest_attempt(engine)?.unwrap_or_else(RunId::fresh),
    };
    // A new disk takes the identity that the remote tier has. If none was found there, ask again by
    // creating it: of two writers that create it one wins.
    let taken = match remote {
        Some(remote) if found.id().is_none() => Some(remote.run_or(run)?),
        _ => None,
    };
    let run = found.establish(engine, taken.unwrap_or(run))?;
    // An identity that came from the remote tier need not be compared with it.
    if let Some(remote) = remote
        && taken != Some(run)
    {
        remote.join(run)?;
    }
    Ok(run)
}
