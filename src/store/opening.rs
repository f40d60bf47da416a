//! Opens a run for writing: the lock, the identity of the run, and an attempt that is newer than
//! all others, each in both tiers.

use super::attempt::{self, Attempt, Writer};
use super::core::Core;
use super::deletion::{self, Inherited};
use super::history::Log;
use super::identity;
use super::look::Board;
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED};
use super::options::{StoreOptions, default_codec};
use super::reader::Reader;
use super::retention::Candidate;
use super::run_id::RunId;
use super::schedule::Schedule;
use super::tiers::Remote;
use crate::clock::seconds_since_1970;
use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use std::sync::Arc;
use std::time::Instant;

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
        let found = identity::Found::look(reader.engine(), &candidates)?;
        let run = identity_of(&reader, found, remote.as_ref())?;
        writer.run = Some(run);
        let ids: Vec<CheckpointId> = all.iter().map(|candidate| candidate.id).collect();
        let (attempt, board) = take_attempt(reader.engine(), remote.as_ref(), &ids, &writer, lock.is_some())?;
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
        let has_begun = ids.is_empty() && is_empty()?;
        schedule.log = Log::start(writer.life(attempt.number), options.ranked());
        let mut core = Self::with_schedule(reader, options, (run, writer, attempt), schedule);
        (core.lock, core.remote) = (lock, remote);
        if has_begun {
            core.begin();
        }
        Ok(core)
    }
}

/// Takes the next number after every one seen in `attempts/` and in the names of checkpoints, in
/// both tiers. Returned with the local tier's board.
///
/// # Errors
/// Errors of the local engine; `NoSpace` only without a lock.
fn take_attempt(
    engine: &dyn Engine,
    remote: Option<&Remote>,
    ids: &[CheckpointId],
    writer: &Writer,
    is_locked: bool,
) -> Result<(Attempt, Board)> {
    let mut attempt = Attempt::without_number(writer)?;
    loop {
        let there = remote.map_or(Ok(0), Remote::newest_attempt)?;
        let board = Board::read(engine)?;
        attempt.move_behind(board.newest.max(there), ids, engine)?;
        match attempt.take_without_gap(&board, engine) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) if error.kind() == ErrorKind::NoSpace && is_locked => attempt.postpone(),
            Err(error) => return Err(error),
        }
        if remote.map_or(Ok(true), |remote| remote.take(&attempt))? {
            return Ok((attempt, board));
        }
    }
}

/// The identity of the run in both tiers, written where it was missing.
fn identity_of(reader: &Reader, found: identity::Found, remote: Option<&Remote>) -> Result<RunId> {
    let engine = reader.engine();
    let there = remote.map(Remote::run).unwrap_or_default();
    let run = match found.id().or(there.id()) {
        Some(run) => run,
        None => identity::of_oldest_attempt(engine)?.unwrap_or_else(RunId::fresh),
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
