//! What the parts of a store share: the run as it was opened, its writer, and what is known of it
//! since.

use super::attempt::{self, Attempt, Writer};
use super::cost::LastSave;
use super::deletion::{self, Inherited};
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED};
use super::options::{StoreOptions, default_codec};
use super::reader::Reader;
use super::resume::Resumed;
use super::retention::Spared;
use super::run_id::{self, RunId};
use super::schedule::Schedule;
use super::tiers::Remote;
use crate::clock::seconds_since_1970;
use crate::engine::{Engine, Lock};
use crate::error::Result;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// None on an engine without locks: there the attempt alone fences.
    pub lock: Option<Box<dyn Lock>>,
    pub remote: Option<Remote>,
    /// Held during a save: checkpoints are committed in the order of their steps.
    pub saving: Mutex<()>,
    /// Held while it is decided what is deleted in the local tier, and until it is.
    pub deleting: Mutex<()>,
    /// How many saves were begun.
    pub saves: AtomicU32,
    /// Whether a warning was printed: once is enough.
    pub has_warned: AtomicBool,
    /// Whether a save may follow: the run was empty, was resumed, or is started over on purpose.
    has_begun: AtomicBool,
    known: Mutex<Known>,
}

/// What is known of the run since it was opened.
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
        // Asked behind that: an engine may have to write to know what it can do.
        options.write = options.write.codec_unless_set(default_codec(&*engine));
        let mut schedule = Schedule::start(options.every.clone(), Instant::now())?;
        let mut writer = Writer::this_process(seconds_since_1970());
        let lock = attempt::lock_or_fence(&*engine, &writer)?;
        let reader = Reader::on(engine, options.open, options.map);
        let candidates = reader.candidates()?;
        let remote =
            remote.map(|engine| Remote::contact(engine, &options, &writer, &candidates)).transpose()?;
        let there = remote.as_ref().map(Remote::there).unwrap_or_default();
        let all = || candidates.iter().chain(&there);
        for state in all().filter_map(|candidate| candidate.state.as_ref()) {
            schedule.remember(&state.metrics);
        }
        let found = run_id::Found::look(reader.engine(), &candidates)?;
        let run = identity(&reader, found, remote.as_ref())?;
        writer.run = Some(run);
        let names: Vec<CheckpointId> = all().map(|candidate| candidate.name).collect();
        let (attempt, board) =
            Attempt::take(reader.engine(), remote.as_ref(), &names, &writer, lock.is_some())?;
        let here =
            Inherited { board: &board, attempt: attempt.number, writer: &writer, is_locked: lock.is_some() };
        deletion::clear_marks(reader.engine(), &here);
        remote.as_ref().map_or(Ok(()), |remote| remote.clear_marks(attempt.number, &writer))?;
        // Asked again behind the attempt: without a lock another writer may have saved since.
        let is_empty =
            || attempt.look(reader.engine(), &["", DAMAGED, ATTEMPTS], vec![]).map(|look| look.is_empty());
        let has_begun = AtomicBool::new(names.is_empty() && is_empty()?);
        let (last_save, saving, deleting, saves, has_warned, known) = Default::default();
        let schedule = Mutex::new(schedule);
        Ok(Self {
            reader,
            options,
            run,
            writer,
            attempt,
            schedule,
            last_save,
            lock,
            remote,
            saving,
            deleting,
            saves,
            has_warned,
            has_begun,
            known,
        })
    }

    /// What the store goes on from, or has written, is known from here on.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Held for one assignment or one copy.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stays whatever the rules say.
    pub(super) fn spared(&self) -> impl Iterator<Item = Spared> + use<> {
        let known = *self.known();
        known.resumed_from.into_iter().map(|name| (name, "resumed from"))
    }

    pub(super) fn lock_schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`StoreOptions::timed`].
    pub(super) fn timed<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.options.timed(call)
    }

    /// Does something to a step's checkpoint in each tier that has it.
    pub(super) fn in_each_tier(
        &self,
        step: u64,
        act: impl Fn(&Reader, CheckpointId) -> Result<()>,
    ) -> Result<()> {
        self.timed(|| {
            let (name, tiers) = self.tiers_with(step)?;
            tiers.into_iter().try_for_each(|reader| act(reader, name))
        })
    }

    /// The newest attempt's checkpoint of a step, and the tiers that have it, the local one first.
    pub(super) fn tiers_with(&self, step: u64) -> Result<(CheckpointId, Vec<&Reader>)> {
        let (mut newest, mut tiers) = (None, Vec::new());
        for reader in self.tiers()? {
            let Some(name) = reader.names()?.into_iter().rev().find(|name| name.step == step) else {
                continue;
            };
            if newest < Some(name) {
                (newest, tiers) = (Some(name), vec![]);
            }
            if newest == Some(name) {
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
        self.remote.iter().for_each(|remote| remote.passes.wake());
    }

    /// What was damaged is out of the way: what an earlier process left is promoted now.
    pub(super) fn resumed(&self, resumed: &Resumed) {
        // Whoever was just told that the remote tier does not answer need not hear it again from
        // the next call.
        if resumed.remote_error.is_none() {
            self.wake_promoter();
        }
    }

    /// Fails when a newer writer has taken over the remote tier.
    pub(super) fn check_fenced(&self) -> Result<()> {
        self.remote.as_ref().map_or(Ok(()), |remote| remote.passes.check_fenced())
    }

    /// Returns a failed promotion that is due.
    pub(super) fn check_promotions(&self) -> Result<()> {
        self.remote.as_ref().map_or(Ok(()), |remote| remote.passes.report())
    }
}

/// The identity of the run in both tiers, written where it was not.
fn identity(reader: &Reader, found: run_id::Found, remote: Option<&Remote>) -> Result<RunId> {
    let engine = reader.engine();
    let there = remote.map(Remote::run).unwrap_or_default();
    let run = match found.id().or(there.id()) {
        Some(run) => run,
        None => run_id::of_oldest_attempt(engine)?.unwrap_or_else(RunId::fresh),
    };
    // A new disk takes what the remote tier has, and not what it was heard not to have: of two that
    // create it one wins.
    let taken = remote.filter(|_| found.id().is_none()).map(|remote| remote.run_or(run)).transpose()?;
    let run = found.establish(engine, taken.unwrap_or(run))?;
    // What was taken from there need not be compared with it.
    remote.filter(|_| taken != Some(run)).map_or(Ok(()), |remote| remote.join(run))?;
    Ok(run)
}
