//! Resuming: the newest checkpoint that verifies, byte for byte, from either tier. Owns: walking
//! back past damaged ones, setting them aside (never deleting), and saying so.

use super::absent::{self, Absent};
use super::copy::CopyOutcome;
use super::core::Core;
use super::deletion;
use super::look::Look;
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED, damaged_key, damaged_mark_key, is_mark};
use super::reader::{Reader, is_damage};
use super::tiers::{Remote, Tier};
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Progress;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Where training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The newest checkpoint that verifies; None when the run starts from nothing.
    pub checkpoint: Option<Checkpoint>,
    /// Its name.
    pub name: Option<CheckpointId>,
    /// The tier it was found in. One of the remote tier was fetched to the local one, if there was
    /// room.
    pub tier: Option<Tier>,
    /// Completed steps and epochs; zeros when the run starts from nothing.
    pub progress: Progress,
    /// Newer checkpoints that do not verify, newest first.
    pub skipped: Vec<SkippedCheckpoint>,
    /// Why the remote tier was not looked at, where there is one: it may have had a newer
    /// checkpoint.
    pub remote_error: Option<Error>,
}

impl Resumed {
    /// The number of the next step, counted from 0: as many as are completed.
    pub fn next_step(&self) -> u64 {
        self.progress.step
    }

    /// The number of the next epoch, counted from 0.
    pub fn next_epoch(&self) -> u64 {
        self.progress.epoch
    }
}

/// A checkpoint that resuming passed over.
#[derive(Debug)]
#[non_exhaustive]
pub struct SkippedCheckpoint {
    /// Attempt and step.
    pub name: CheckpointId,
    /// Where it is.
    pub tier: Tier,
    /// What is wrong with it.
    pub error: Error,
    /// Where it was put, or why it could not be put anywhere; None when it was left where it is
    /// because the device, not the bytes, is at fault.
    pub set_aside: Option<Result<String>>,
}

/// A checkpoint in one of the tiers.
type Place = (CheckpointId, Tier);

/// All checkpoints, newest first, of each the local one first.
#[derive(Default)]
struct Places {
    /// Those that nobody is about to delete, and those that somebody is.
    sound: Vec<Place>,
    condemned: Vec<Place>,
    /// Why the remote tier was not asked.
    remote_error: Option<Error>,
}

impl Places {
    fn add(&mut self, look: &Look, tier: Tier) {
        let board = look.board();
        for listed in look.checkpoints().into_iter().filter(|listed| !listed.is_marked) {
            let is_condemned = board.is_being_deleted(listed.name);
            let those = if is_condemned { &mut self.condemned } else { &mut self.sound };
            those.push((listed.name, tier));
        }
    }

    fn all(&mut self) -> [&mut Vec<Place>; 2] {
        [&mut self.sound, &mut self.condemned]
    }
}

/// What walking along the places came to.
enum Walk {
    Found(Place, Box<Checkpoint>, Progress),
    /// One was listed and is not there.
    ListAgain,
    Nothing,
}

impl Core {
    pub(super) fn resume(&self) -> Result<Resumed> {
        self.remote.iter().for_each(Remote::begin_call);
        self.resume_from(None, self.places()?)
    }

    pub(super) fn resume_at(&self, step: u64) -> Result<Resumed> {
        self.remote.iter().for_each(Remote::begin_call);
        let mut places = self.places()?;
        let all: Vec<CheckpointId> = places.all().into_iter().flatten().map(|(name, _)| *name).collect();
        if all.iter().any(|name| name.attempt == self.attempt.number) {
            return Err(Error::invalid(
                "this attempt has saved already: what it saves after going back would be older",
            )
            .in_object(self.reader.engine().describe(""))
            .help("open the store again, then go back"));
        }
        let newest = all.into_iter().filter(|name| name.step == step).max();
        let name = match newest.map_or_else(|| self.reader.find(step), Ok) {
            Ok(name) => name,
            Err(error) => {
                return Err(match places.remote_error {
                    Some(unreachable) => error.help(NOT_ASKED).because(unreachable),
                    None => error,
                });
            }
        };
        self.resume_from(Some(name), places)
    }

    fn places(&self) -> Result<Places> {
        const FOLDERS: [&str; 3] = ["", DAMAGED, ATTEMPTS];
        let mut places = Places::default();
        places.add(&self.attempt.look(self.reader.engine(), &FOLDERS, vec![])?, Tier::Local);
        if let Some(remote) = &self.remote {
            if let Some(there) = remote.look_as(&self.attempt, &FOLDERS)? {
                places.add(&there, Tier::Remote);
            }
            places.remote_error = remote.unreachable();
        }
        for those in places.all() {
            those.sort_by_key(|&(name, tier)| (Reverse(name), tier));
        }
        Ok(places)
    }

    /// Resumes from the newest that verifies, or from exactly this one. That there is nothing to
    /// resume from is believed only of a listing that has nothing: what is listed and is not there
    /// is listed again.
    fn resume_from(&self, only: Option<CheckpointId>, mut places: Places) -> Result<Resumed> {
        let (mut skipped, mut absent) = (Vec::new(), Absent::default());
        loop {
            for those in places.all() {
                those.retain(|&(name, _)| only.is_none_or(|only| only == name));
            }
            let remote_error = places.remote_error.take();
            // Better than nothing is also what another process is about to delete.
            match self.walk(places, only.is_none(), &mut skipped, &mut absent)? {
                Walk::ListAgain => places = self.places()?,
                Walk::Found((name, tier), checkpoint, progress) => {
                    self.known().resumed_from = Some(name);
                    self.begin();
                    self.resumed_to(progress);
                    let (checkpoint, name, tier) = (Some(*checkpoint), Some(name), Some(tier));
                    return Ok(Resumed { checkpoint, name, tier, progress, skipped, remote_error });
                }
                Walk::Nothing => {
                    self.check_nothing(only, &mut skipped, remote_error.as_ref())?;
                    self.begin();
                    let progress = Progress::default();
                    return Ok(Resumed {
                        checkpoint: None,
                        name: None,
                        tier: None,
                        progress,
                        skipped,
                        remote_error,
                    });
                }
            }
        }
    }

    /// Tries one after the other. What is being deleted comes last, or is an error where only one
    /// will do.
    fn walk(
        &self,
        places: Places,
        takes_condemned: bool,
        skipped: &mut Vec<SkippedCheckpoint>,
        absent: &mut Absent<Place>,
    ) -> Result<Walk> {
        let Places { sound, mut condemned, .. } = places;
        let (mut queue, mut is_last_resort) = (VecDeque::from(sound), false);
        loop {
            if queue.is_empty() && takes_condemned && !is_last_resort {
                (queue, is_last_resort) = (std::mem::take(&mut condemned).into(), true);
            }
            let Some((name, tier)) = queue.pop_front() else { break };
            if skipped.iter().any(|skipped| (skipped.name, skipped.tier) == (name, tier)) {
                continue;
            }
            let verified = self.read_twice(name, tier);
            match verified.and_then(|found| Ok((is_last_resort || self.holds(name, tier)?, found))) {
                Ok((true, (checkpoint, progress))) => {
                    return Ok(Walk::Found((name, tier), Box::new(checkpoint), progress));
                }
                Ok((false, _)) => condemned.push((name, tier)),
                Err(error) if absent::is_absence(&error) && absent.ask_again([(name, tier)]) => {
                    return Ok(Walk::ListAgain);
                }
                Err(error) if is_damage(&error) || absent::is_absence(&error) => {
                    let error = absent::told(error);
                    let set_aside = (error.kind() != ErrorKind::Io).then(|| self.set_aside(name, tier));
                    skipped.push(SkippedCheckpoint { name, tier, error, set_aside });
                }
                Err(error) => return Err(error),
            }
        }
        match condemned.first() {
            Some(&(name, tier)) => Err(deletion::busy(self.engine_of(tier), name)),
            None => Ok(Walk::Nothing),
        }
    }

    /// Whether the run may begin from nothing. Not where there were checkpoints, also when all were
    /// set aside by an earlier start: a supervisor that starts us again must not thereby begin the
    /// run anew.
    fn check_nothing(
        &self,
        only: Option<CheckpointId>,
        skipped: &mut Vec<SkippedCheckpoint>,
        remote_error: Option<&Error>,
    ) -> Result<()> {
        for tier in [Tier::Local, Tier::Remote] {
            let Some(reader) = self.reader_of(tier) else { continue };
            let is_skipped = skipped.iter().any(|skipped| skipped.tier == tier);
            let set_aside = reader.set_aside()?;
            if is_skipped || (only.is_none() && !set_aside.is_empty()) {
                let error = nothing_verifies(reader.engine(), std::mem::take(skipped));
                return Err(match remote_error {
                    Some(_) => error.help(NOT_ASKED),
                    None if set_aside.iter().any(|key| is_mark(key)) => error.help(MARKED),
                    None => error.help(
                        "they are kept under damaged/; to start the run from nothing, move that folder away",
                    ),
                });
            }
        }
        let gone = |name: CheckpointId| {
            Error::new(ErrorKind::NotFound, "was deleted while it was being opened")
                .in_object(self.reader.engine().describe(&name.key()))
        };
        only.map_or(Ok(()), |name| Err(gone(name)))
    }

    /// The reader of a tier that can be asked.
    fn reader_of(&self, tier: Tier) -> Option<&Reader> {
        match tier {
            Tier::Local => Some(&self.reader),
            Tier::Remote => {
                self.remote.as_ref().filter(|remote| remote.unreachable().is_none()).map(|it| &it.reader)
            }
        }
    }

    fn engine_of(&self, tier: Tier) -> &dyn Engine {
        self.reader_of(tier).unwrap_or(&self.reader).engine()
    }

    /// Makes sure that nobody deletes what this store goes on from; false where somebody is about
    /// to. As with a pin, the mark is written before it is looked.
    fn holds(&self, name: CheckpointId, tier: Tier) -> Result<bool> {
        let engine = self.engine_of(tier);
        if self.attempt.go_on_from(name, engine)? {
            self.attempt.leave(name, engine);
            return Ok(false);
        }
        engine.open(&name.key()).map(|_| true)
    }

    /// Reads and verifies a checkpoint; once more where the bytes are at fault, since what is set
    /// aside for one wrong answer, of a proxy, a network card or a bad page of memory, is lost to
    /// this run for good.
    fn read_twice(&self, name: CheckpointId, tier: Tier) -> Result<(Checkpoint, Progress)> {
        let read = || self.open_in(tier, name).and_then(|checkpoint| self.verified(checkpoint, name));
        match read() {
            Err(error) if is_damage(&error) && error.kind() != ErrorKind::Io => read(),
            verified => verified,
        }
    }

    /// Opens a checkpoint where it is, to be read. One that only the remote tier has is fetched to
    /// the local one on the way: reading it once over the network is enough.
    fn open_in(&self, tier: Tier, name: CheckpointId) -> Result<Checkpoint> {
        let Some(remote) = self.reader_of(tier).filter(|_| tier == Tier::Remote) else {
            return self.reader.open_to_read(name);
        };
        match remote.copy_to(name, &self.reader, |_| ()) {
            Ok(CopyOutcome::Written(_)) => self.reader.open_to_read(name),
            // The local one was tried before, and is damaged or about to be deleted: its bytes say
            // nothing of these.
            Ok(CopyOutcome::AlreadyThere) => remote.checkpoint_by_id(name),
            Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => Err(error),
            // Where there is no room for it here, it is read from there.
            Err(_) => remote.checkpoint_by_id(name),
        }
    }

    /// Verifies by reading, also what is then mapped: a bad sector is an error of a read, and the
    /// end of the process under a mapping.
    fn verified(&self, read: Checkpoint, name: CheckpointId) -> Result<(Checkpoint, Progress)> {
        read.verify()?;
        let progress = read.progress()?.unwrap_or(Progress::new(name.step));
        Ok((self.reader.map_verified(read, name)?, progress))
    }

    /// Renames a damaged checkpoint out of the way, or marks it where the engine cannot rename.
    fn set_aside(&self, name: CheckpointId, tier: Tier) -> Result<String> {
        let engine = self.engine_of(tier);
        for copy in 0..1000 {
            let key = damaged_key(name, copy);
            match engine.rename(&name.key(), &key) {
                Ok(()) => return Ok(engine.describe(&key)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => return mark(engine, name),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            "1000 damaged checkpoints of one name are set aside already",
        )
        .in_object(engine.describe(&name.key())))
    }
}

/// What is told of a run that may go on from what its remote tier has.
const NOT_ASKED: &str = "the remote tier was not asked, because it cannot be reached: it may have one that does; \
    open the run again when it answers";

/// What is told where damage is marked.
const MARKED: &str = "some are marked as damaged: `tensorkeep verify --heal-marks` takes the mark off what verifies, \
    the storage may have answered wrongly";

fn mark(engine: &dyn Engine, name: CheckpointId) -> Result<String> {
    let key = damaged_mark_key(name);
    let marked = engine.create(&key, Some(0)).and_then(|upload| Ok(upload.commit(fresh_nonce())?));
    match marked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(engine.describe(&key)),
    }
}

fn nothing_verifies(engine: &dyn Engine, skipped: Vec<SkippedCheckpoint>) -> Error {
    let error = Error::new(ErrorKind::Damaged, "none of the run's checkpoints verifies")
        .in_object(engine.describe(""));
    match skipped.into_iter().next() {
        Some(newest) => error.because(newest.error),
        None => error,
    }
}
