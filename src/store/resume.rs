//! Resumes from the newest checkpoint that verifies, byte for byte, in either tier: walks back past
//! damaged ones, sets them aside (never deletes them), and reports them.

mod history;
mod read;

use super::absent::{self, Absent};
use super::core::Core;
use super::damage::is_damage;
use super::deletion;
use super::history::History;
use super::look::{Board, Look};
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED, damaged_key, damaged_mark_key, is_mark};
use super::reader::Reader;
use super::resumed::{Resumed, SkippedCheckpoint};
use super::tiers::Tier;
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Progress;
use history::Behind;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// A checkpoint in one of the tiers.
type Place = (CheckpointId, Tier);

/// All checkpoints, newest first; of each the local copy first.
#[derive(Default)]
struct Places {
    /// Checkpoints that no process is about to delete, and those that one is.
    sound: Vec<Place>,
    condemned: Vec<Place>,
    /// Why the remote tier was not consulted.
    remote_error: Option<Error>,
    /// The attempts of each tier that was asked.
    boards: Vec<(Tier, Board)>,
}

impl Places {
    fn add(&mut self, look: &Look, tier: Tier) {
        let board = look.board();
        for listed in look.checkpoints().into_iter().filter(|listed| !listed.is_marked) {
            let is_condemned = board.is_being_deleted(listed.id);
            let those = if is_condemned { &mut self.condemned } else { &mut self.sound };
            those.push((listed.id, tier));
        }
        self.boards.push((tier, board));
    }

    fn all(&mut self) -> [&mut Vec<Place>; 2] {
        [&mut self.sound, &mut self.condemned]
    }
}

/// The result of walking along the places.
enum Walk {
    Found(Place, Box<Checkpoint>, Progress, History),
    /// A listed checkpoint is not there.
    ListAgain,
    Nothing,
}

impl Core {
    /// Resumes, from exactly this step if one is given: by itself, or with the other ranks of its
    /// job.
    pub(super) fn resume_by(&self, step: Option<u64>) -> Result<Resumed> {
        let mut alone = || {
            self.timed(|| match step {
                None => self.resume(),
                Some(step) => self.resume_at(step),
            })
        };
        match &self.ranks {
            None => alone(),
            Some(ranks) => ranks.resume(self, step, &mut alone),
        }
    }

    fn resume(&self) -> Result<Resumed> {
        self.begin_call();
        self.resume_from(None, None, self.places()?)
    }

    fn resume_at(&self, step: u64) -> Result<Resumed> {
        self.begin_call();
        let mut places = self.places()?;
        let all: Vec<CheckpointId> = places.all().into_iter().flatten().map(|(id, _)| *id).collect();
        if all.iter().any(|id| id.attempt == self.attempt.number) {
            return Err(Error::invalid(
                "this attempt has saved already: what it saves after going back would be older",
            )
            .in_object(self.reader.engine().describe(""))
            .help("open the store again, then go back"));
        }
        let newest_of_all = all.iter().max().copied();
        let newest = all.into_iter().filter(|id| id.step == step).max();
        let id = match newest.map_or_else(|| self.reader.find(step), Ok) {
            Ok(id) => id,
            Err(error) => {
                return Err(match places.remote_error {
                    Some(unreachable) => error.help(NOT_ASKED).because(unreachable),
                    None => error,
                });
            }
        };
        self.resume_from(Some(id), newest_of_all, places)
    }

    fn begin_call(&self) {
        if let Some(remote) = &self.remote {
            remote.begin_call();
        }
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
            those.sort_by_key(|&(id, tier)| (Reverse(id), tier));
        }
        Ok(places)
    }

    /// Resumes from the newest checkpoint that verifies, or from exactly `only`. Only an empty
    /// listing proves that there is nothing to resume from: if a listed checkpoint is not there,
    /// everything is listed again. `newest` is the run's newest checkpoint, of a rollback.
    fn resume_from(
        &self,
        only: Option<CheckpointId>,
        newest: Option<CheckpointId>,
        mut places: Places,
    ) -> Result<Resumed> {
        let (mut skipped, mut absent) = (Vec::new(), Absent::default());
        loop {
            for those in places.all() {
                those.retain(|&(id, _)| only.is_none_or(|only| only == id));
            }
            let remote_error = places.remote_error.take();
            let behind = Behind { newest, boards: std::mem::take(&mut places.boards) };
            // A checkpoint that another process is about to delete is better than nothing.
            match self.walk(places, only.is_none(), &behind, &mut skipped, &mut absent)? {
                Walk::ListAgain => places = self.places()?,
                Walk::Found((id, tier), checkpoint, progress, history) => {
                    self.known().resumed_from = Some(id);
                    self.go_on_with_history((&checkpoint, id, progress), history);
                    self.begin();
                    self.schedule_from(progress);
                    let (checkpoint, id, tier) = (Some(*checkpoint), Some(id), Some(tier));
                    return Ok(Resumed { checkpoint, id, tier, progress, skipped, remote_error });
                }
                Walk::Nothing => {
                    let lives = self.complete_lives(vec![], &behind.boards);
                    self.check_nothing(only, &mut skipped, remote_error.as_ref())?;
                    self.begin_history(lives);
                    self.begin();
                    let progress = Progress::default();
                    return Ok(Resumed {
                        checkpoint: None,
                        id: None,
                        tier: None,
                        progress,
                        skipped,
                        remote_error,
                    });
                }
            }
        }
    }

    /// Tries one after the other. Checkpoints that are being deleted come last, or are an error if
    /// only one will do.
    fn walk(
        &self,
        places: Places,
        takes_condemned: bool,
        behind: &Behind,
        skipped: &mut Vec<SkippedCheckpoint>,
        absent: &mut Absent<Place>,
    ) -> Result<Walk> {
        let Places { sound, mut condemned, .. } = places;
        let (mut queue, mut is_last_resort) = (VecDeque::from(sound), false);
        loop {
            if queue.is_empty() && takes_condemned && !is_last_resort {
                (queue, is_last_resort) = (std::mem::take(&mut condemned).into(), true);
            }
            let Some((id, tier)) = queue.pop_front() else { break };
            if skipped.iter().any(|skipped| (skipped.id, skipped.tier) == (id, tier)) {
                continue;
            }
            // The history first: no request lies between holding a checkpoint and going on from it,
            // so no deletion can be acknowledged in between.
            let verified = self.read_until_agreed(id, tier).map(|(checkpoint, progress)| {
                let history = self.history_behind(&checkpoint, id, behind);
                (checkpoint, progress, history)
            });
            match verified.and_then(|found| Ok((is_last_resort || self.holds(id, tier)?, found))) {
                Ok((true, (checkpoint, progress, history))) => {
                    return Ok(Walk::Found((id, tier), Box::new(checkpoint), progress, history));
                }
                Ok((false, _)) => condemned.push((id, tier)),
                Err(error) if absent::is_absence(&error) && absent.ask_again([(id, tier)]) => {
                    return Ok(Walk::ListAgain);
                }
                Err(error) if is_damage(&error) || absent::is_absence(&error) => {
                    let error = absent::told(error);
                    let set_aside = (error.kind() != ErrorKind::Io).then(|| self.set_aside(id, tier));
                    skipped.push(SkippedCheckpoint { id, tier, error, set_aside });
                }
                Err(error) => return Err(error),
            }
        }
        match condemned.first() {
            Some(&(id, tier)) => Err(deletion::busy(self.engine_of(tier), id)),
            None => Ok(Walk::Nothing),
        }
    }

    /// Whether the run may begin from nothing. It may not if there were checkpoints, even if an
    /// earlier start has set all of them aside: a supervisor that restarts this process must not
    /// thereby begin the run anew.
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
        let Some(id) = only else { return Ok(()) };
        Err(Error::new(ErrorKind::NotFound, "was deleted while it was being opened")
            .in_object(self.reader.engine().describe(&id.key())))
    }

    /// The reader of a tier, unless that tier is unreachable.
    fn reader_of(&self, tier: Tier) -> Option<&Reader> {
        match tier {
            Tier::Local => Some(&self.reader),
            Tier::Remote => {
                let remote = self.remote.as_ref().filter(|remote| remote.unreachable().is_none())?;
                Some(&remote.reader)
            }
        }
    }

    fn engine_of(&self, tier: Tier) -> &dyn Engine {
        self.reader_of(tier).unwrap_or(&self.reader).engine()
    }

    /// Makes sure that the checkpoint this store resumes from is not deleted; false if another
    /// process is about to delete it. As with a pin, the mark is written before looking.
    fn holds(&self, id: CheckpointId, tier: Tier) -> Result<bool> {
        let engine = self.engine_of(tier);
        if self.attempt.go_on_from(id, engine)? {
            self.attempt.leave(id, engine);
            return Ok(false);
        }
        match engine.open(&id.key()) {
            // Its bytes were verified before: this says at least that it is there.
            Err(error) if is_damage(&error) => Ok(true),
            opened => opened.map(|_| true),
        }
    }

    /// Renames a damaged checkpoint out of the way, or marks it where the engine cannot rename.
    fn set_aside(&self, id: CheckpointId, tier: Tier) -> Result<String> {
        let engine = self.engine_of(tier);
        for copy in 0..1000 {
            let key = damaged_key(id, copy);
            match engine.rename(&id.key(), &key) {
                Ok(()) => return Ok(engine.describe(&key)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => return mark(engine, id),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            "1000 damaged checkpoints of one name are set aside already",
        )
        .in_object(engine.describe(&id.key())))
    }
}

/// Help for a run that may be able to go on from the remote tier.
const NOT_ASKED: &str = "the remote tier was not asked, because it cannot be reached: it may have one that does; \
    open the run again when it answers";

/// Help where damage is marked.
const MARKED: &str = "some are marked as damaged: `tensorkeep verify --heal-marks` takes the mark off what verifies, \
    the storage may have answered wrongly";

fn mark(engine: &dyn Engine, id: CheckpointId) -> Result<String> {
    let key = damaged_mark_key(id);
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
