//! Resuming: the newest checkpoint that verifies, byte for byte, from either tier. Owns: walking back past damaged ones, setting them
//! aside (never deleting), and saying so.

use super::Core;
use super::catalog::{Reader, is_damage};
use super::naming::{Name, damaged_key, damaged_mark_key};
use super::tiers::{Remote, Tier};
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Progress;
use std::cmp::Reverse;

/// Where training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The newest checkpoint that verifies; None when the run starts from nothing.
    pub checkpoint: Option<Checkpoint>,
    /// Its name.
    pub name: Option<Name>,
    /// The tier it was found in. One of the remote tier was fetched to the local one, if there was room.
    pub tier: Option<Tier>,
    /// Completed steps and epochs; zeros when the run starts from nothing.
    pub progress: Progress,
    /// Newer checkpoints that do not verify, newest first.
    pub skipped: Vec<Skipped>,
    /// Why the remote tier was not looked at, where there is one: it may have had a newer checkpoint.
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
pub struct Skipped {
    /// Attempt and step.
    pub name: Name,
    /// Where it is.
    pub tier: Tier,
    /// What is wrong with it.
    pub error: Error,
    /// Where it was put, or why it could not be put anywhere; None when it was left where it is because the device, not
    /// the bytes, is at fault.
    pub set_aside: Option<Result<String>>,
}

/// A checkpoint in one of the tiers.
type Place = (Name, Tier);

impl Core {
    pub(super) fn resume(&self) -> Result<Resumed> {
        let (places, remote_error) = self.places()?;
        self.resume_first_of(&places, remote_error)
    }

    pub(super) fn resume_at(&self, step: u64) -> Result<Resumed> {
        let (mut places, remote_error) = self.places()?;
        if places.iter().any(|(name, _)| name.attempt == self.attempt.number) {
            return Err(Error::invalid(
                "this attempt has saved already: what it saves after going back would be older",
            )
            .in_object(self.reader.engine().describe(""))
            .help("open the store again, then go back"));
        }
        let newest = places.iter().find(|(name, _)| name.step == step).map(|(name, _)| *name);
        let name = newest.map_or_else(|| self.reader.find(step), Ok)?;
        places.retain(|(there, _)| *there == name);
        self.resume_first_of(&places, remote_error)
    }

    /// All checkpoints, newest first, of each the local one first; and why the remote tier was not asked.
    fn places(&self) -> Result<(Vec<Place>, Option<Error>)> {
        let mut places: Vec<Place> =
            self.reader.names()?.into_iter().map(|name| (name, Tier::Local)).collect();
        let remote_error = self.remote.as_ref().and_then(Remote::unreachable);
        if let Some(remote) = self.remote.as_ref().filter(|_| remote_error.is_none()) {
            places.extend(remote.reader.names()?.into_iter().map(|name| (name, Tier::Remote)));
        }
        places.sort_by_key(|&(name, tier)| (Reverse(name), tier));
        Ok((places, remote_error))
    }

    fn resume_first_of(&self, newest_first: &[Place], remote_error: Option<Error>) -> Result<Resumed> {
        let mut skipped = Vec::new();
        for &(name, tier) in newest_first {
            match self.open_in(tier, name).and_then(verified) {
                Ok((checkpoint, progress)) => {
                    let progress = progress.unwrap_or(Progress::new(name.step));
                    self.set_resumed_from(name);
                    self.resumed_to(progress);
                    let (checkpoint, name, tier) = (Some(checkpoint), Some(name), Some(tier));
                    return Ok(Resumed { checkpoint, name, tier, progress, skipped, remote_error });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_damage(&error) => {
                    let set_aside = (error.kind() != ErrorKind::Io).then(|| self.set_aside(name, tier));
                    skipped.push(Skipped { name, tier, error, set_aside });
                }
                Err(error) => return Err(error),
            }
        }
        // Also when all were set aside by an earlier start: a supervisor that starts us again must not thereby begin
        // the run from nothing.
        for tier in [Tier::Local, Tier::Remote] {
            let Some(reader) = self.reader_of(tier) else { continue };
            if skipped.iter().any(|skipped| skipped.tier == tier) || !reader.set_aside()?.is_empty() {
                return Err(nothing_verifies(reader.engine(), skipped));
            }
        }
        let progress = Progress::default();
        Ok(Resumed { checkpoint: None, name: None, tier: None, progress, skipped, remote_error })
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

    /// Opens a checkpoint where it is. One that only the remote tier has is fetched to the local one on the way: reading
    /// it once over the network is enough.
    fn open_in(&self, tier: Tier, name: Name) -> Result<Checkpoint> {
        let Some(remote) = self.reader_of(tier).filter(|_| tier == Tier::Remote) else {
            return self.reader.open_name(name);
        };
        match remote.copy_to(name, &self.reader, |_| ()) {
            Ok(_) => self.reader.open_name(name),
            Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => Err(error),
            // Where there is no room for it here, it is read from there.
            Err(_) => remote.open_name(name),
        }
    }

    /// Renames a damaged checkpoint out of the way, or marks it where the engine cannot rename.
    fn set_aside(&self, name: Name, tier: Tier) -> Result<String> {
        let engine = self.reader_of(tier).unwrap_or(&self.reader).engine();
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

fn verified(checkpoint: Checkpoint) -> Result<(Checkpoint, Option<Progress>)> {
    checkpoint.verify()?;
    let progress = checkpoint.progress()?;
    Ok((checkpoint, progress))
}

fn mark(engine: &dyn Engine, name: Name) -> Result<String> {
    let key = damaged_mark_key(name);
    let marked = engine.create(&key, Some(0)).and_then(|upload| Ok(upload.commit(fresh_nonce())?));
    match marked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(engine.describe(&key)),
    }
}

fn nothing_verifies(engine: &dyn Engine, skipped: Vec<Skipped>) -> Error {
    let error = Error::new(ErrorKind::Damaged, "none of the run's checkpoints verifies")
        .in_object(engine.describe(""))
        .help("they are kept under damaged/; to start the run from nothing, move that folder away");
    match skipped.into_iter().next() {
        Some(newest) => error.because(newest.error),
        None => error,
    }
}
