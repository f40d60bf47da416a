//! The lives of a run's attempts, as its objects tell them: who an attempt was is in its own
//! object, and how it ended in the mark that closing leaves. Reading only; no lock is taken.

use super::attempt::Writer;
use super::history::{History, Life, LifeEnd, Point};
use super::look::Board;
use super::naming::{CheckpointId, attempt_key, ended_key};
use super::process;
use super::reader::Reader;
use super::retention::{self, Candidate};
use super::small;
use crate::engine::{Engine, Nonce, fresh_nonce};
use crate::error::Result;
use crate::format::records;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// So many checkpoints are asked whether they carry a history: where those carry none, the others
/// will not, either.
const ASKED: usize = 8;

/// An attempt's object and the mark of its end are a host and a few numbers.
const LONGEST: u64 = 64 << 10;

/// How an attempt ended, in an object beside its own that `close` creates.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct End {
    /// As [`LifeEnd`] is recorded.
    end: String,
    /// Seconds since 1970.
    at: u64,
    /// Of its process, and when that opened the run: an attempt of the same number may be another.
    pid: u32,
    started_at: u64,
    first_step: Option<u64>,
    last_step: Option<u64>,
    saves: u64,
    resumed_from: Option<(u32, u64)>,
}

/// Leaves the mark of an end.
///
/// # Errors
/// Whatever the engine says; `AlreadyExists` where there is one.
pub(super) fn leave_end(engine: &dyn Engine, life: &Life) -> Result<()> {
    let end = End {
        end: life.end.word(),
        at: life.last_seen,
        pid: life.pid,
        started_at: life.started,
        first_step: life.first_step,
        last_step: life.last_step,
        saves: life.saves,
        resumed_from: life.resumed_from.map(|id| (id.attempt, id.step)),
    };
    let content = records::encode(&end)?;
    let mut upload = engine.create(&ended_key(life.attempt), Some(content.len() as u64))?;
    upload.append(&content)?;
    Ok(upload.commit(fresh_nonce())?)
}

/// Completes the lives from the objects beside the checkpoints: attempts that no checkpoint
/// mentions, the checkpoint each resumed from, and ends. Objects that cannot be read are skipped:
/// nothing depends on them. A writer knows its own attempt, and does not read it.
pub(super) fn complete(
    engine: &dyn Engine,
    board: &Board,
    own: Option<(u32, &Writer)>,
    lives: &mut Vec<Life>,
) {
    let known: BTreeSet<u32> = lives.iter().map(|life| life.attempt).collect();
    let unknown = board.attempts.iter().copied().filter(|attempt| !known.contains(attempt));
    let writer_of = |attempt| match own {
        Some((number, writer)) if number == attempt => writer.clone(),
        _ => read(engine, &attempt_key(attempt)).unwrap_or_default(),
    };
    let unknown: Vec<(u32, Writer)> = unknown.map(|attempt| (attempt, writer_of(attempt))).collect();
    for (attempt, writer) in &unknown {
        // A writer that takes a number beyond the next one takes the next one, too.
        let is_told = writer.id != Nonce::default();
        if !(is_told && unknown.iter().any(|(other, there)| other > attempt && there.id == writer.id)) {
            lives.push(writer.life(*attempt));
        }
    }
    lives.sort_by_key(|life| life.attempt);
    for life in lives.iter_mut().filter(|life| life.resumed_from.is_none()) {
        let from = board.resumed.iter().find(|(attempt, _)| *attempt == life.attempt).map(|(_, id)| *id);
        life.resumed_from = from;
        life.first_step = life.first_step.or(from.map(|id| id.step));
    }
    for life in lives.iter_mut().filter(|life| !life.end.is_planned()) {
        let end = board
            .ended
            .contains(&life.attempt)
            .then(|| read::<End>(engine, &ended_key(life.attempt)))
            .transpose();
        match end {
            Ok(Some(end)) if end.is_of(life) => end.complete(life),
            _ if life.attempt < board.newest => life.end = LifeEnd::Died,
            _ => {}
        }
    }
}

/// What a small object says. Nothing depends on it, so the first answer that can be read is
/// believed.
fn read<T: DeserializeOwned>(engine: &dyn Engine, key: &str) -> Result<T> {
    let is_readable = |bytes: &[u8]| records::decode_owned::<T>(bytes).is_ok();
    records::decode_owned(&small::read(engine, key, LONGEST, is_readable)?)
}

impl End {
    /// Whether it was the same process. Not known where the attempt's object could not be read.
    fn is_of(&self, life: &Life) -> bool {
        life.started == 0 || (life.pid, life.started) == (self.pid, self.started_at)
    }

    fn complete(self, life: &mut Life) {
        life.end = LifeEnd::of_word(&self.end);
        (life.last_seen, life.saves) = (self.at, self.saves);
        (life.first_step, life.last_step) = (self.first_step, self.last_step);
        life.resumed_from = self.resumed_from.map(|(attempt, step)| CheckpointId { attempt, step });
    }
}

impl Writer {
    /// The life of this attempt, as far as its own object tells it.
    pub(super) fn life(&self, attempt: u32) -> Life {
        let Self { host, pid, started_at, .. } = self;
        Life {
            attempt,
            host: host.clone(),
            pid: *pid,
            started: *started_at,
            last_seen: *started_at,
            ..Life::default()
        }
    }
}

/// What the kept checkpoints say of a run whose checkpoints carry no history: their own metrics,
/// and when their attempts saved.
pub(super) fn of_checkpoints(candidates: &[Candidate]) -> History {
    let mut history = History::default();
    let readable: Vec<_> =
        candidates.iter().filter_map(|candidate| Some((candidate, &**candidate.state.as_ref()?))).collect();
    for (candidate, state) in retention::line(&readable) {
        for (metric, &value) in &state.metrics {
            let series = history.metrics.entry(metric.clone()).or_default();
            let (step, epoch) = (candidate.id.step, state.progress.epoch);
            series.push(Point { step, epoch, time: state.saved_at as f64, value });
        }
    }
    let mut lives = BTreeMap::<u32, Life>::new();
    for (candidate, state) in readable {
        let CheckpointId { attempt, step } = candidate.id;
        let life = lives.entry(attempt).or_default();
        life.attempt = attempt;
        life.resumed_from = state.resumed_from.as_ref().and_then(|id| id.parse().ok());
        life.first_step = Some(life.resumed_from.map_or(0, |from| from.step));
        life.last_step = life.last_step.max(Some(step));
        life.last_seen = life.last_seen.max(state.saved_at);
        life.saves += 1;
    }
    history.lives = lives.into_values().collect();
    history
}

impl Reader {
    /// The run's history: what the newest checkpoint carries, and the lives of attempts of which no
    /// checkpoint is left, the one that runs now among them. Of a run of version 0.1, what its
    /// checkpoints say of themselves.
    ///
    /// ```no_run
    /// use tensorkeep::Reader;
    ///
    /// let history = Reader::open("runs/lenet")?.history()?;
    /// for (metric, series) in &history.metrics {
    ///     println!("{metric}: {} of {} points, last {:?}", series.len(), series.logged, series.last());
    /// }
    /// for life in &history.lives {
    ///     println!("attempt {} on {}: {}", life.attempt, life.host, life.end);
    /// }
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// Whatever listing says. A checkpoint that cannot be read is passed over, and so is an object
    /// of an attempt.
    pub fn history(&self) -> Result<History> {
        let carried = self.newest_history()?;
        let mut history = match carried {
            Some(history) => history,
            None => of_checkpoints(&self.candidates()?),
        };
        let board = Board::read(self.engine())?;
        complete(self.engine(), &board, None, &mut history.lives);
        if let Some(newest) = history.lives.last_mut().filter(|life| !life.end.is_over()) {
            newest.end = process::end_of(&newest.host, newest.pid);
        }
        Ok(history)
    }

    /// What the newest checkpoint carries that has a history and can be read.
    pub(super) fn newest_history(&self) -> Result<Option<History>> {
        let carried = |id| self.checkpoint_by_id(id).and_then(|checkpoint| checkpoint.inspect().history());
        let newest = self.ids()?.into_iter().rev().take(ASKED);
        Ok(newest.filter_map(|id| carried(id).ok().flatten()).next())
    }
}
