//! Attempts: each opening writer takes a number by create-once, and later checks that it is still
//! the run's writer. Where two writers meet without a lock, this fences the older one; where a
//! run's folder was removed, replaced or restored, it fences the writer from before, because the
//! object that it wrote is gone.

use super::absent::{self, Absent};
use super::damage::is_damage;
use super::look::{Board, Look};
use super::naming::{ATTEMPTS, CheckpointId, attempt_key, resumed_key};
use super::process;
use super::run_id::RunId;
use super::small;
use crate::clock;
use crate::engine::{CommitError, Engine, Lock, Nonce, fresh_nonce};
use crate::error::{Error, ErrorKind, NoneIf, Result};
use crate::format::records;
use crate::names::hex;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The limit for an attempt's object, which is a hostname and a few numbers.
const LONGEST: u64 = 64 << 10;

/// Who wrote: the content of an attempt's object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Writer {
    pub host: String,
    pub pid: u32,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Distinguishes this opening of the run from every other.
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
        Self { host: process::host(), pid: std::process::id(), started_at: now, id, run }
    }

    /// For the lock file.
    pub(super) fn describe(&self) -> String {
        format!("process {} on {}, since {}", self.pid, self.host, clock::date(self.started_at))
    }

    /// Reads an attempt's object.
    pub(super) fn read(engine: &dyn Engine, attempt: u32) -> Result<Self> {
        records::decode_owned(&small::read(engine, &attempt_key(attempt), LONGEST, |_| false)?)
    }
}

/// A taken attempt number. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub number: u32,
    nonce: Nonce,
    /// The content of its object, the same in every tier.
    content: Arc<[u8]>,
    /// The local tier was full: the object is written before the first checkpoint. Only under the
    /// lock.
    pending: Arc<AtomicBool>,
}

impl Attempt {
    /// An attempt of this writer that has no number yet.
    pub(super) fn without_number(writer: &Writer) -> Result<Self> {
        let (content, nonce) = (records::encode(writer)?.into(), fresh_nonce());
        Ok(Self { number: 0, nonce, content, pending: Arc::default() })
    }

    /// Has the number that follows on `newest`, on the attempts in names of checkpoints, and on the
    /// number that it had: a refused number is skipped even if a listing does not show it.
    pub(super) fn move_behind(
        &mut self,
        newest: u32,
        ids: &[CheckpointId],
        engine: &dyn Engine,
    ) -> Result<()> {
        self.number = next(newest.max(self.number), ids, engine)?;
        Ok(())
    }

    /// Leaves the object to be written before the first checkpoint.
    pub(super) fn postpone(&self) {
        self.pending.store(true, Ordering::Release);
    }

    /// As [`Attempt::take_in`]. If the number does not follow on the newest, because the other tier
    /// or the name of a checkpoint has a newer one, the number that follows is taken, too.
    pub(super) fn take_without_gap(&self, board: &Board, engine: &dyn Engine) -> Result<bool> {
        match board.newest.checked_add(1).filter(|next| *next < self.number) {
            Some(next) => self.write(next, engine).and_then(|_| self.take_in(engine)),
            None => self.take_in(engine),
        }
    }

    /// Takes exactly this number on an engine. False when another writer was faster.
    pub(super) fn take_in(&self, engine: &dyn Engine) -> Result<bool> {
        self.write(self.number, engine)
    }

    /// Whether exactly this number is taken on an engine, by this attempt.
    pub(super) fn is_taken_in(&self, engine: &dyn Engine) -> Result<bool> {
        let there = content(engine, self.number, Some(&self.content)).none_if(absent::is_absence)?;
        Ok(there.is_some_and(|there| there[..] == self.content[..]))
    }

    fn write(&self, number: u32, engine: &dyn Engine) -> Result<bool> {
        let committed =
            engine.create(&attempt_key(number), Some(self.content.len() as u64)).and_then(|mut upload| {
                upload.append(&self.content)?;
                Ok(upload.commit(fresh_nonce()))
            });
        // An existing object may be ours, from an earlier try whose outcome stayed unknown.
        let is_ours = || Ok(content(engine, number, Some(&self.content))?[..] == self.content[..]);
        match committed {
            Ok(Ok(())) => Ok(true),
            Ok(Err(CommitError::Conflict(_))) => is_ours(),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => is_ours(),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error),
        }
    }

    /// Takes the number if a full disk prevented that when the run was opened. Called before
    /// anything is committed.
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

    /// Fails when this is no longer the run's writer: a newer attempt was taken, or the object that
    /// this attempt wrote is gone or another's. Returns the rest of the same listing.
    ///
    /// # Errors
    /// `Fenced`, and errors of the engine.
    pub(super) fn check(&self, engine: &dyn Engine) -> Result<Board> {
        Ok(self.look(engine, &[ATTEMPTS], vec![])?.board())
    }

    /// As [`Attempt::check`], from one look at `attempts/` and other folders of the run, which is
    /// returned. The look is not older than this attempt, nor than the objects in `written`.
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

    /// Whether this is the writer, given the newest listed attempt. False when the folder must be
    /// listed again.
    fn is_newest(&self, newest: u32, engine: &dyn Engine, absent: &mut Absent<u32>) -> Result<bool> {
        if newest > self.number {
            return Err(self.fenced(engine, format!("attempt {newest}")));
        }
        match content(engine, self.number, Some(&self.content)) {
            Ok(there) if there[..] == self.content[..] => Ok(true),
            Ok(_) => Err(self.fenced(engine, "an attempt of that number by another writer".to_owned())),
            // It is listed: a single answer does not end a run.
            Err(error) if absent::is_absence(&error) && newest == self.number => {
                if absent.ask_again([self.number]) { Ok(false) } else { Err(absent::told(error)) }
            }
            Err(error) if absent::is_absence(&error) && self.pending.load(Ordering::Acquire) => Ok(true),
            Err(error) if absent::is_absence(&error) => {
                Err(self.fenced(engine, "a run that does not know this attempt".to_owned()))
            }
            // If the writer's own note cannot be read because of a bad sector, that says nothing
            // about other writers.
            Err(error) if is_damage(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// As [`Attempt::check`], by two small reads if all is well. Numbers are taken without gaps, so
    /// a newer writer has left the next one.
    pub(super) fn check_by_number(&self, engine: &dyn Engine) -> Result<()> {
        let is_own = content(engine, self.number, Some(&self.content))
            .is_ok_and(|there| there[..] == self.content[..]);
        let next = match self.number.checked_add(1) {
            Some(next) if is_own => next,
            _ => return self.check(engine).map(drop),
        };
        // Its absence is expected; its presence is believed when two answers agree.
        match engine.open(&attempt_key(next)).and_then(|_| content(engine, next, None)) {
            Err(error) if absent::is_absence(&error) => Ok(()),
            // Even if a listing, which may be stale, does not show it.
            Ok(_) => Err(self
                .check(engine)
                .err()
                .unwrap_or_else(|| self.fenced(engine, format!("attempt {next}")))),
            Err(_) => self.check(engine).map(drop),
        }
    }

    /// `NotFound` from a listing does not mean that no attempt is listed: the run itself is gone.
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

    /// Marks that this attempt resumes from a checkpoint, so that it is not deleted, and returns
    /// whether another process is about to delete it. As with a pin, one of the two sees the other.
    pub(super) fn go_on_from(&self, id: CheckpointId, engine: &dyn Engine) -> Result<bool> {
        let mark = resumed_key(self.number, id);
        let written = match engine.mark(&mark) {
            // On a full disk and in a read-only folder, no other writer deletes.
            Err(error) if error.kind() == ErrorKind::NoSpace => vec![],
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => vec![mark],
        };
        Ok(self.look(engine, &[ATTEMPTS], written)?.board().is_being_deleted(id))
    }

    /// Removes that mark.
    pub(super) fn leave(&self, id: CheckpointId, engine: &dyn Engine) {
        let _ = engine.unmark(&resumed_key(self.number, id));
    }

    /// The maker's name in this attempt's marks of deletion.
    pub(super) fn maker(&self) -> String {
        attempt_key(self.number).split_off(ATTEMPTS.len() + 1)
    }

    /// The file id of this attempt's checkpoint at `step`, in its save of that number. It differs
    /// from that of any other attempt, and from that of another save of the step, whose outcome may
    /// be unknown and whose bytes may differ.
    pub(super) fn nonce(&self, step: u64, save: u32) -> Nonce {
        let mut nonce = self.nonce;
        for (byte, save) in nonce[4..8].iter_mut().zip(save.to_le_bytes()) {
            *byte ^= save;
        }
        for (byte, step) in nonce[8..].iter_mut().zip(step.to_le_bytes()) {
            *byte ^= step;
        }
        nonce
    }
}

/// An attempt as rank 0 of a job tells it to the others.
#[derive(Serialize, Deserialize)]
pub(super) struct Joined {
    number: u32,
    nonce: Nonce,
    content: Vec<u8>,
}

impl Attempt {
    /// This attempt, for the other ranks of its job.
    pub(super) fn for_job(&self) -> Joined {
        Joined { number: self.number, nonce: self.nonce, content: self.content.to_vec() }
    }

    /// The attempt that rank 0 has taken.
    ///
    /// # Errors
    /// `Invalid` for what is no attempt.
    pub(super) fn of_job(joined: Joined) -> Result<Self> {
        let Joined { number, nonce, content } = joined;
        if number == 0 || content.len() as u64 > LONGEST {
            return Err(Error::invalid("what rank 0 tells of its attempt").found(number));
        }
        Ok(Self { number, nonce, content: content.into(), pending: Arc::default() })
    }

    /// The file id of a rank's shard in a save.
    pub(super) fn shard_nonce(&self, step: u64, save: u32, rank: u32) -> Nonce {
        let mut nonce = self.nonce(step, save);
        // Another one than the manifest's for each rank.
        for (byte, rank) in nonce[0..4].iter_mut().zip((rank + 1).to_le_bytes()) {
            *byte ^= rank;
        }
        nonce
    }

    /// Tells this attempt's shards from those of another attempt of the same number.
    pub(super) fn tag(&self) -> String {
        hex(&self.nonce[..4])
    }
}

/// The number after `newest` and after the attempts in the names.
fn next(newest: u32, ids: &[CheckpointId], engine: &dyn Engine) -> Result<u32> {
    let newest = ids.iter().map(|id| id.attempt).fold(newest, u32::max);
    newest.checked_add(1).ok_or_else(|| {
        Error::new(ErrorKind::LimitExceeded, "no attempt number is left").in_object(engine.describe(ATTEMPTS))
    })
}

/// The content of an attempt's object; the expected content is believed at once.
fn content(engine: &dyn Engine, attempt: u32, expected: Option<&[u8]>) -> Result<Vec<u8>> {
    small::read(engine, &attempt_key(attempt), LONGEST, |bytes| Some(bytes) == expected)
}

/// The newest attempt on an engine, of which a listing shows `newest`, and whether it is also on
/// `other`, taken by one writer in both. The listing may be stale, so the later attempts of `other`
/// are asked for by number before the answer is no.
///
/// # Errors
/// Errors of reading; `Io` when the newest is listed but not there.
pub(super) fn newest_on(engine: &dyn Engine, newest: u32, other: &dyn Engine) -> Result<(u32, bool)> {
    if newest == 0 || is_on_both(newest, engine, other).map_err(absent::told)? {
        return Ok((newest, true));
    }
    let mut later = Board::read(other)?.attempts;
    later.retain(|number| *number > newest);
    later.sort_unstable_by_key(|number| Reverse(*number));
    for number in later {
        match is_on_both(number, engine, other) {
            Err(error) if absent::is_absence(&error) => {}
            is_on_both => return Ok((number, is_on_both?)),
        }
    }
    Ok((newest, false))
}

/// Whether an attempt on an engine is also on `other`, by the same writer.
///
/// # Errors
/// Errors of reading; `NotFound` when the engine does not have it.
fn is_on_both(number: u32, engine: &dyn Engine, other: &dyn Engine) -> Result<bool> {
    let there = content(engine, number, None)?;
    let here = content(other, number, Some(&there)).none_if(absent::is_absence)?;
    Ok(here.is_some_and(|here| here == there))
}

/// The writer's lock; None on an engine without locks, where only the storage can tell two writers
/// apart.
pub(super) fn lock_or_fence(engine: &dyn Engine, writer: &Writer) -> Result<Option<Box<dyn Lock>>> {
    let locked = engine.lock(&writer.describe()).none_if(|error| error.kind() == ErrorKind::Unsupported)?;
    if locked.is_some() {
        return Ok(locked);
    }
    if engine.caps().create_only {
        return Ok(None);
    }
    Err(Error::new(ErrorKind::Unsupported, "this engine has neither a lock nor create-only commits")
        .in_object(engine.describe(""))
        .help("two writers would overwrite each other unseen; use storage that has one of the two"))
}
