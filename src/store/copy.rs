//! Copies a checkpoint from one engine to another, for promotion between tiers and for tools. Every
//! byte is verified on the way, nothing is overwritten, and a copy that exists already is left
//! alone. Memory is bounded for checkpoints of any length.

use super::attempt;
use super::damage::is_damage;
use super::look::Board;
use super::naming::{CheckpointId, DAMAGED, attempt_key, ended_key, hidden_of_key};
use super::reader::Reader;
use super::small;
use crate::checkpoint::Checkpoint;
use crate::engine::{CommitError, Nonce, Upload};
use crate::error::{Error, ErrorKind, Result};

/// The outcome of copying one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The number of bytes written.
    Written(u64),
    /// The same checkpoint was there already.
    AlreadyThere,
}

impl Reader {
    /// Copies a checkpoint, byte for byte and under its name, to another run. Every byte is
    /// verified on its way, and nothing becomes visible before the last one is; then the copy is
    /// opened. `to`'s options set how much of it is read back: with
    /// [`Verify::AtOpen`](crate::Verify::AtOpen) everything, otherwise header, footer and index,
    /// which hold every checksum. If the same checkpoint is there already, it is left alone, so
    /// that copying a run again continues where it was interrupted. `moved` receives the length of
    /// each piece, for progress displays.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when the source is, and then nothing was published; `AlreadyExists`
    /// when another object has that name there: it is never overwritten; errors of both engines.
    pub fn copy_to(&self, id: CheckpointId, to: &Self, mut moved: impl FnMut(u64)) -> Result<CopyOutcome> {
        self.copy_watched(id, to, &|| Ok(()), &mut moved)
    }

    /// Copies the attempts to another place of the same run, with the marks of their ends: who
    /// wrote to it, and how each ended. Existing objects are left alone. Nothing is added behind a
    /// newer attempt of that place, which would fence its writer. Returns how many objects were
    /// written.
    ///
    /// # Errors
    /// What both engines say.
    pub fn copy_attempts_to(&self, to: &Self) -> Result<usize> {
        let (here, there) = (Board::read(self.engine())?, Board::read(to.engine())?);
        let mut attempts = here.attempts.clone();
        attempts.sort_unstable();
        let (newest, copied_before) = attempt::newest_on(to.engine(), there.newest, self.engine())?;
        let may_follow = |attempt: u32| copied_before || attempt < newest;
        let mut written = 0;
        for attempt in attempts.into_iter().filter(|&attempt| may_follow(attempt)) {
            if !there.attempts.contains(&attempt) {
                written += usize::from(small::copy(self.engine(), to.engine(), &attempt_key(attempt))?);
            }
            if here.ended.contains(&attempt) && !there.ended.contains(&attempt) {
                written += usize::from(small::copy(self.engine(), to.engine(), &ended_key(attempt))?);
            }
        }
        Ok(written)
    }

    /// As [`Reader::copy_to`], but aborted with the error of `stop`, which is called before each
    /// piece.
    pub(super) fn copy_until(&self, id: CheckpointId, to: &Self, stop: &Stop<'_>) -> Result<CopyOutcome> {
        self.copy_watched(id, to, stop, &mut |_| ())
    }

    fn copy_watched(
        &self,
        id: CheckpointId,
        to: &Self,
        stop: &Stop<'_>,
        moved: &mut dyn FnMut(u64),
    ) -> Result<CopyOutcome> {
        let source = self.checkpoint_by_id(id)?;
        let has_shards = source.shard_refs().is_some();
        if has_shards {
            check_shown(id, to)?;
        }
        if is_there(&source, &id.key(), to)? {
            return Ok(CopyOutcome::AlreadyThere);
        }
        // The shards of a manifest first: behind it they are all there.
        let mut written = 0;
        for shard in source.inspect().shard_files() {
            let (key, shard) = shard?;
            match copy_object(shard, &key, to, stop, moved)? {
                CopyOutcome::Written(bytes) => written += bytes,
                CopyOutcome::AlreadyThere => moved(shard.inspect().byte_len()),
            }
        }
        let copied = copy_object(&source, &id.key(), to, stop, moved)?;
        if has_shards {
            // Shards without a manifest may have been swept meanwhile.
            check_shown(id, to)?;
        }
        Ok(match copied {
            CopyOutcome::Written(bytes) => CopyOutcome::Written(written + bytes),
            there => there,
        })
    }
}

/// Copies one object under its key.
fn copy_object(
    source: &Checkpoint,
    key: &str,
    to: &Reader,
    stop: &Stop<'_>,
    moved: &mut dyn FnMut(u64),
) -> Result<CopyOutcome> {
    if is_there(source, key, to)? {
        return Ok(CopyOutcome::AlreadyThere);
    }
    let at = to.engine().describe(key);
    let upload = match to.engine().create(key, Some(source.inspect().file_len())) {
        // Committed since the check above.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_there(source, key, to)? => {
            return Ok(CopyOutcome::AlreadyThere);
        }
        upload => upload?,
    };
    let mut watched = Watched { upload, stop };
    source.inspect().copy_into(&mut watched, moved)?;
    stop()?;
    match watched.upload.commit(source.inspect().file_id()).map_err(Error::from) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && is_there(source, key, to)? => {
            return Ok(CopyOutcome::AlreadyThere);
        }
        committed => committed.map_err(|error| error.in_object(&at))?,
    }
    let unlike = |error: Error| {
        Error::new(ErrorKind::Io, "the copy does not read back as it was written")
            .in_object(&at)
            .because(error)
    };
    if !to.open_key(key).map_err(unlike)?.inspect().is_copy_of(source) {
        return Err(unlike(other_object(key, to)));
    }
    Ok(CopyOutcome::Written(source.inspect().file_len()))
}

/// Returns an error when a copy must be aborted.
type Stop<'s> = dyn Fn() -> Result<()> + Sync + 's;

/// An upload that may be aborted.
struct Watched<'s> {
    upload: Box<dyn Upload>,
    stop: &'s Stop<'s>,
}

impl Upload for Watched<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        (self.stop)()?;
        self.upload.append(bytes)
    }

    fn append_with_crc(&mut self, bytes: &[u8], crc32: u32) -> Result<()> {
        (self.stop)()?;
        self.upload.append_with_crc(bytes, crc32)
    }

    fn begin_tail(&mut self) {
        self.upload.begin_tail();
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        self.upload.commit(nonce)
    }
}

/// Fails where a mark hides a checkpoint of many files: it would be there, and listed nowhere.
fn check_shown(id: CheckpointId, to: &Reader) -> Result<()> {
    let hidden = to.engine().list(DAMAGED)?.into_iter().find(|entry| hidden_of_key(&entry.key) == Some(id));
    hidden.map_or(Ok(()), |mark| {
        Err(Error::new(ErrorKind::Busy, "was deleted there by another attempt, whose mark hides the name")
            .in_object(to.engine().describe(&id.key()))
            .help(format!("if no process writes to that run, delete the object {} and copy again", mark.key)))
    })
}

/// Whether the same object is there. Another one under its key is an error.
fn is_there(source: &Checkpoint, key: &str, to: &Reader) -> Result<bool> {
    match to.open_key(key) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if is_damage(&error) => Err(other_object(key, to).because(error)),
        Err(error) => Err(error),
        Ok(there) if there.inspect().is_copy_of(source) => Ok(true),
        Ok(_) => Err(other_object(key, to)),
    }
}

fn other_object(key: &str, to: &Reader) -> Error {
    Error::new(ErrorKind::AlreadyExists, "another object has this checkpoint's name there")
        .in_object(to.engine().describe(key))
        .help("it is never overwritten: look at it, and delete it if it is not needed")
}
