//! Copying a checkpoint from one engine to another: what the promotion between tiers and tools
//! share. Owns: that what arrives was verified on the way, that nothing is overwritten, and that
//! what is there already is left alone. Bounded memory, whatever the checkpoint's length.

use super::naming::CheckpointId;
use super::reader::{Reader, is_damage};
use crate::checkpoint::Checkpoint;
use crate::engine::{CommitError, Nonce, Upload};
use crate::error::{Error, ErrorKind, Result};

/// What copying one checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// So many bytes were written.
    Written(u64),
    /// The very same checkpoint was there.
    AlreadyThere,
}

impl Reader {
    /// Copies a checkpoint, byte for byte and under its name, to another run. Every byte is
    /// verified on its way, and nothing becomes visible before the last one is; then the copy is
    /// opened. How much of it is read back say `to`'s own options: with
    /// [`Verify::AtOpen`](crate::Verify::AtOpen) everything, else header, footer and index, which
    /// hold every checksum. The same checkpoint found there is left alone, so that copying a run
    /// again goes on where it was interrupted. `moved` hears of each piece's length, for those who
    /// watch.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when the source is, and then nothing was published; `AlreadyExists`
    /// when something else has that name there: it is never overwritten; what both engines say.
    pub fn copy_to(&self, name: CheckpointId, to: &Self, mut moved: impl FnMut(u64)) -> Result<CopyOutcome> {
        self.copy_watched(name, to, &|| Ok(()), &mut moved)
    }

    /// As [`Reader::copy_to`], given up with the error that `stop` returns, which is asked before
    /// each piece.
    pub(super) fn copy_until(&self, name: CheckpointId, to: &Self, stop: &Stop<'_>) -> Result<CopyOutcome> {
        self.copy_watched(name, to, stop, &mut |_| ())
    }

    fn copy_watched(
        &self,
        name: CheckpointId,
        to: &Self,
        stop: &Stop<'_>,
        moved: &mut dyn FnMut(u64),
    ) -> Result<CopyOutcome> {
        let source = self.checkpoint_by_id(name)?;
        if is_there(&source, name, to)? {
            return Ok(CopyOutcome::AlreadyThere);
        }
        let at = to.engine().describe(&name.key());
        let upload = match to.engine().create(&name.key(), Some(source.byte_len())) {
            // Committed between the look and now.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_there(&source, name, to)? => {
                return Ok(CopyOutcome::AlreadyThere);
            }
            upload => upload?,
        };
        let mut watched = Watched { upload, stop };
        source.inspect().copy_into(&mut watched, moved)?;
        stop()?;
        match watched.upload.commit(source.inspect().file_id()).map_err(Error::from) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_there(&source, name, to)? => {
                return Ok(CopyOutcome::AlreadyThere);
            }
            committed => committed.map_err(|error| error.in_object(&at))?,
        }
        let unlike = |error: Error| {
            Error::new(ErrorKind::Io, "the copy does not read back as it was written")
                .in_object(&at)
                .because(error)
        };
        match to.checkpoint_by_id(name).map_err(unlike)?.inspect().is_copy_of(&source) {
            true => Ok(CopyOutcome::Written(source.byte_len())),
            false => Err(unlike(other_object(name, to))),
        }
    }
}

/// Says by an error that a copy is to be given up.
type Stop<'s> = dyn Fn() -> Result<()> + Sync + 's;

/// An upload that may be given up.
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

/// Whether the very same checkpoint is there. Something else under its name is an error.
fn is_there(source: &Checkpoint, name: CheckpointId, to: &Reader) -> Result<bool> {
    match to.checkpoint_by_id(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if is_damage(&error) => Err(other_object(name, to).because(error)),
        Err(error) => Err(error),
        Ok(there) if there.inspect().is_copy_of(source) => Ok(true),
        Ok(_) => Err(other_object(name, to)),
    }
}

fn other_object(name: CheckpointId, to: &Reader) -> Error {
    Error::new(ErrorKind::AlreadyExists, "what has this name there is not a copy of this checkpoint")
        .in_object(to.engine().describe(&name.key()))
        .help("it is never overwritten: look at it, and delete it if it is of no use")
}
