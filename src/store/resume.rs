//! Resuming: the newest checkpoint that verifies, byte for byte. Owns: walking back past damaged ones, setting them
//! aside (never deleting), and saying so.

use super::Core;
use super::catalog::is_damage;
use super::naming::{DAMAGED, Name, damaged_key, damaged_mark_key};
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Progress;

/// Where training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The newest checkpoint that verifies; None when the run starts from nothing.
    pub checkpoint: Option<Checkpoint>,
    /// Its name.
    pub name: Option<Name>,
    /// Completed steps and epochs; zeros when the run starts from nothing.
    pub progress: Progress,
    /// Newer checkpoints that do not verify, newest first.
    pub skipped: Vec<Skipped>,
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
    /// What is wrong with it.
    pub error: Error,
    /// Where it was put, or why it could not be put anywhere; None when it was left where it is because the device, not
    /// the bytes, is at fault.
    pub set_aside: Option<Result<String>>,
}

impl Core {
    pub(super) fn resume(&self) -> Result<Resumed> {
        let mut names = self.reader.names()?;
        names.reverse();
        self.resume_first_of(&names)
    }

    pub(super) fn resume_at(&self, step: u64) -> Result<Resumed> {
        let names = self.reader.names()?;
        if names.iter().any(|name| name.attempt == self.attempt.number) {
            return Err(Error::invalid(
                "this attempt has saved already: what it saves after going back would be older",
            )
            .in_object(self.reader.engine().describe(""))
            .help("open the store again, then go back"));
        }
        self.resume_first_of(&[self.reader.find(step)?])
    }

    fn resume_first_of(&self, newest_first: &[Name]) -> Result<Resumed> {
        let mut skipped = Vec::new();
        for &name in newest_first {
            match self.reader.open_name(name).and_then(verified) {
                Ok((checkpoint, progress)) => {
                    let progress = progress.unwrap_or(Progress::new(name.step));
                    self.set_resumed_from(name);
                    self.resumed_to(progress);
                    return Ok(Resumed { checkpoint: Some(checkpoint), name: Some(name), progress, skipped });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if is_damage(&error) => {
                    let set_aside = (error.kind() != ErrorKind::Io).then(|| self.set_aside(name));
                    skipped.push(Skipped { name, error, set_aside });
                }
                Err(error) => return Err(error),
            }
        }
        let engine = self.reader.engine();
        // Also when all were set aside by an earlier start: a supervisor that starts us again must not thereby begin
        // the run from nothing.
        if !skipped.is_empty() || !engine.list(DAMAGED)?.is_empty() {
            return Err(nothing_verifies(engine, skipped));
        }
        Ok(Resumed { checkpoint: None, name: None, progress: Progress::default(), skipped })
    }

    /// Renames a damaged checkpoint out of the way, or marks it where the engine cannot rename.
    fn set_aside(&self, name: Name) -> Result<String> {
        let engine = self.reader.engine();
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
