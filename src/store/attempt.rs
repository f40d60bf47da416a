//! Attempts: one number per opening writer, taken by create-once, and the check whether it still is
//! the run's writer. Where two writers meet without a lock, the older one is fenced by this; where
//! a run's folder was removed, replaced or restored under a writer, so is that writer, because the
//! object that it wrote is not there any more.

use super::absent::{self, Absent};
use super::look::{Board, Look};
use super::naming::{ATTEMPTS, CheckpointId, attempt_key, resumed_key};
use super::reader::is_damage;
use super::run_id::RunId;
use super::small;
use super::tiers::Remote;
use crate::clock;
use crate::engine::{CommitError, Engine, Lock, Nonce, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::format::records;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An attempt's object is a hostname and a few numbers.
const LONGEST: u64 = 64 << 10;

/// Who wrote: the content of an attempt's object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Writer {
    pub host: String,
    pub pid: u32,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Tells this opening of the run from every other.
    #[serde(default)]
    pub id: Nonce,
    /// The run that it opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

impl Writer {
    pub(super) fn this_process(now: u64) -> Self {
        let (id, run) = (fresh_nonce(), None);
        // A simulated run has the same bytes on every machine.
        #[cfg(feature = "testing")]
        if crate::clock::script::seconds().is_some() {
            return Self { host: "simulated".to_owned(), pid: 1, started_at: now, id, run };
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "an unnamed host" } else { host.trim() };
        Self { host: host.to_owned(), pid: std::process::id(), started_at: now, id, run }
    }

    /// For the lock file.
    pub(super) fn describe(&self) -> String {
        format!("process {} on {}, since {}", self.pid, self.host, clock::date(self.started_at))
    }

    /// What an attempt's object says.
    pub(super) fn read(engine: &dyn Engine, attempt: u32) -> Result<Self> {
        records::decode_owned(&small::read(engine, &attempt_key(attempt), LONGEST, |_| false)?)
    }
}

/// A taken attempt number. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub number: u32,
    nonce: Nonce,
    /// What its object holds, in every tier.
    content: Arc<[u8]>,
    /// The local tier was full: the object is written before the first checkpoint. The lock is
    /// held.
    pending: Arc<AtomicBool>,
}

impl Attempt {
    /// Takes the next number after every one seen in `attempts/` and in the names of checkpoints,
    /// in both tiers. Returned with what was seen in the local one.
    ///
    /// # Errors
    /// Whatever the local engine says; `NoSpace` only without a lock.
    pub(super) fn take(
        engine: &dyn Engine,
        remote: Option<&Remote>,
        names: &[CheckpointId],
        writer: &Writer,
        is_locked: bool,
    ) -> Result<(Self, Board)> {
        let (content, nonce, pending) = (records::encode(writer)?.into(), fresh_nonce(), Arc::default());
        let mut attempt = Self { number: 0, nonce, content, pending };
        loop {
            let there = remote.map_or(Ok(0), Remote::newest_attempt)?;
            let board = Board::read(engine)?;
            // A number that was refused is passed over, whatever the listing says of it.
            attempt.number = next(board.newest.max(there).max(attempt.number), names, engine)?;
            match attempt.take_without_gap(&board, engine) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) if error.kind() == ErrorKind::NoSpace && is_locked => {
                    attempt.pending.store(true, Ordering::Release);
                }
                Err(error) => return Err(error),
            }
            if remote.map_or(Ok(true), |remote| remote.take(&attempt))? {
                return Ok((attempt, board));
            }
        }
    }

    /// As [`Attempt::take_in`]; where the number does not follow on the newest, because the other
    /// tier or the name of a checkpoint has a newer one, the one that does is taken, too.
    fn take_without_gap(&self, board: &Board, engine: &dyn Engine) -> Result<bool> {
        match board.newest.checked_add(1).filter(|next| *next < self.number) {
            Some(next) => self.write(next, engine).and_then(|_| self.take_in(engine)),
            None => self.take_in(engine),
        }
    }

    /// Takes exactly this number on an engine. False when another writer was faster.
    pub(super) fn take_in(&self, engine: &dyn Engine) -> Result<bool> {
        self.write(self.number, engine)
    }

    fn write(&self, number: u32, engine: &dyn Engine) -> Result<bool> {
        let committed =
            engine.create(&attempt_key(number), Some(self.content.len() as u64)).and_then(|mut upload| {
                upload.append(&self.content)?;
                Ok(upload.commit(fresh_nonce()))
            });
        // What is there may be ours: of an earlier try of which nobody heard how it ended.
        let is_ours = || Ok(content(engine, number, Some(&self.content))?[..] == self.content[..]);
        match committed {
            Ok(Ok(())) => Ok(true),
            Ok(Err(CommitError::Conflict(_))) => is_ours(),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => is_ours(),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error),
        }
    }

    /// Takes the number where a full disk was in the way when the run was opened. Before anything
    /// is committed.
    pub(super) fn take_if_pending(&self, engine: &dyn Engine) -> Result<()> {
        if !self.pending.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.take_in(engine)? {
            return Err(self.fenced(engine, "another writer took this attempt's number".to_owned()));
        }
        self.pending.store(false, Ordering::Release);
        Ok(())
    }

    /// Fails when this is not the run's writer any more: a newer attempt was taken, or the object
    /// that this attempt wrote is gone or another's. What the same listing says besides is the
    /// answer.
    ///
    /// # Errors
    /// `Fenced`, and whatever the engine says.
    pub(super) fn check(&self, engine: &dyn Engine) -> Result<Board> {
        Ok(self.look(engine, &[ATTEMPTS], vec![])?.board())
    }

    /// As [`Attempt::check`], by a look at `attempts/` and other folders of the run, which is the
    /// answer. It is not from before this attempt was taken, nor from before it wrote those
    /// objects.
    ///
    /// # Errors
    /// As [`Attempt::check`].
    pub(super) fn look(
        &self,
        engine: &dyn Engine,
        folders: &[&'static str],
        mut written: Vec<String>,
    ) -> Result<Look> {
        if !self.pending.load(Ordering::Acquire) {
            written.push(attempt_key(self.number));
        }
        let (mut absent, mut unlisted) = (Absent::default(), Absent::default());
        loop {
            let look = Look::at(engine, folders).map_err(|error| self.removed(engine, error))?;
            if self.is_newest(look.board().newest, engine, &mut absent)?
                && !look.is_to_be_asked_again(engine, &written, &mut unlisted)?
            {
                return Ok(look);
            }
        }
    }

    /// Whether this is the writer, where so much is listed as the newest attempt. False when it is
    /// to be listed again.
    fn is_newest(&self, newest: u32, engine: &dyn Engine, absent: &mut Absent<u32>) -> Result<bool> {
        if newest > self.number {
            return Err(self.fenced(engine, format!("attempt {newest}")));
        }
        match content(engine, self.number, Some(&self.content)) {
            Ok(there) if there[..] == self.content[..] => Ok(true),
            Ok(_) => Err(self.fenced(engine, "an attempt of that number by another writer".to_owned())),
            // It is listed: a single answer does not end a run.
            Err(error) if absent::is_absence(&error) && newest == self.number => {
                match absent.ask_again([self.number]) {
                    true => Ok(false),
                    false => Err(absent::told(error)),
                }
            }
            Err(error) if absent::is_absence(&error) => match self.pending.load(Ordering::Acquire) {
                true => Ok(true),
                false => Err(self.fenced(engine, "a run that does not know this attempt".to_owned())),
            },
            // A sector of the writer's own note that cannot be read says nothing about other
            // writers.
            Err(error) if is_damage(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// As [`Attempt::check`], by two small reads where all is well. Numbers are taken without gaps,
    /// so whoever is newer has left the next one.
    pub(super) fn check_by_number(&self, engine: &dyn Engine) -> Result<()> {
        let is_own = content(engine, self.number, Some(&self.content))
            .is_ok_and(|there| there[..] == self.content[..]);
        let Some(next) = self.number.checked_add(1).filter(|_| is_own) else {
            return self.check(engine).map(drop);
        };
        match engine.open(&attempt_key(next)) {
            Err(error) if absent::is_absence(&error) => Ok(()),
            // Whatever a listing says that may be behind.
            Ok(_) => Err(self
                .check(engine)
                .err()
                .unwrap_or_else(|| self.fenced(engine, format!("attempt {next}")))),
            Err(_) => self.check(engine).map(drop),
        }
    }

    /// Not that no attempt is listed: the run itself is not there.
    fn removed(&self, engine: &dyn Engine, error: Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound => self.fenced(engine, "a run that was removed".to_owned()).because(error),
            _ => error,
        }
    }

    fn fenced(&self, engine: &dyn Engine, found: String) -> Error {
        let what = "this run has another writer, or its folder was removed, replaced or restored";
        Error::new(ErrorKind::Fenced, what)
            .in_object(engine.describe(""))
            .expected(format!("attempt {}, as this writer took it, to be the newest", self.number))
            .found(found)
            .help("this process must stop; nothing more is written or deleted by it")
    }

    /// Says that this attempt goes on from a checkpoint, so that nobody deletes it, and returns
    /// whether somebody is about to. As with a pin, one of the two sees the other.
    pub(super) fn go_on_from(&self, name: CheckpointId, engine: &dyn Engine) -> Result<bool> {
        let mark = resumed_key(self.number, name);
        let written = match engine.mark(&mark) {
            // A full disk and a folder that cannot be written have no writer beside this one that
            // deletes.
            Err(error) if error.kind() == ErrorKind::NoSpace => vec![],
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => vec![mark],
        };
        Ok(self.look(engine, &[ATTEMPTS], written)?.board().is_being_deleted(name))
    }

    /// Takes that back.
    pub(super) fn leave(&self, name: CheckpointId, engine: &dyn Engine) {
        let _ = engine.unmark(&resumed_key(self.number, name));
    }

    /// What marks of deletion by this attempt are called.
    pub(super) fn maker(&self) -> String {
        attempt_key(self.number).split_off(ATTEMPTS.len() + 1)
    }

    /// The file id of this attempt's checkpoint at `step`, in its save of that number: nobody
    /// else's, and not that of another save of the step, whose outcome may be unknown and whose
    /// bytes may be others.
    pub(super) fn nonce(&self, step: u64, save: u32) -> Nonce {
        let mut nonce = self.nonce;
        nonce[4..8].iter_mut().zip(save.to_le_bytes()).for_each(|(byte, save)| *byte ^= save);
        nonce[8..].iter_mut().zip(step.to_le_bytes()).for_each(|(byte, step)| *byte ^= step);
        nonce
    }
}

/// The number after `newest` and after those in the names.
fn next(newest: u32, names: &[CheckpointId], engine: &dyn Engine) -> Result<u32> {
    let newest = names.iter().map(|name| name.attempt).fold(newest, u32::max);
    newest.checked_add(1).ok_or_else(|| {
        Error::new(ErrorKind::LimitExceeded, "no attempt number is left").in_object(engine.describe(ATTEMPTS))
    })
}

/// What an attempt's object holds, believed at once where that is what is expected.
fn content(engine: &dyn Engine, attempt: u32, expected: Option<&[u8]>) -> Result<Vec<u8>> {
    small::read(engine, &attempt_key(attempt), LONGEST, |bytes| Some(bytes) == expected)
}

/// Whether an attempt that is listed on one engine is on another, too, taken by one writer in both.
///
/// # Errors
/// What reading says; `Io` when it is not there although it is listed.
pub(super) fn is_also_on(other: &dyn Engine, number: u32, listed_on: &dyn Engine) -> Result<bool> {
    let there = content(listed_on, number, None).map_err(absent::told)?;
    match content(other, number, Some(&there)) {
        Err(error) if absent::is_absence(&error) => Ok(false),
        here => Ok(here? == there),
    }
}

/// The writer's lock; None on an engine without locks, where two writers can only be told apart by
/// the storage itself.
pub(super) fn lock_or_fence(engine: &dyn Engine, writer: &Writer) -> Result<Option<Box<dyn Lock>>> {
    match engine.lock(&writer.describe()) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        locked => return locked.map(Some),
    }
    if engine.caps().create_only {
        return Ok(None);
    }
    Err(Error::new(ErrorKind::Unsupported, "this engine has neither a lock nor create-only commits")
        .in_object(engine.describe(""))
        .help("two writers would overwrite each other unseen; use storage that has one of the two"))
}
