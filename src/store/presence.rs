//! Whether a listed checkpoint is there, for tools that go through all of a run's: none is passed
//! over because of one answer.

use super::absent;
use super::naming::CheckpointId;
use super::reader::Reader;
use crate::error::{Error, Result};

/// The result of asking for a checkpoint that was listed.
#[derive(Debug)]
pub enum Presence<T> {
    /// It is there.
    There(T),
    /// It was deleted since: a new listing does not have it.
    Deleted,
    /// It is listed again and again, and each request answers that it, or a part of it, is not
    /// there.
    Absent(Error),
}

impl Reader {
    /// Asks for a checkpoint that was listed, and again with pauses while it is listed and the
    /// answer is `NotFound`.
    ///
    /// # Errors
    /// Other errors of `ask`, and those of listing.
    pub fn ask_listed<T>(&self, id: CheckpointId, mut ask: impl FnMut() -> Result<T>) -> Result<Presence<T>> {
        let mut absent = absent::Absent::default();
        loop {
            let answer = match ask() {
                Err(error) if absent::is_absence(&error) => error,
                there => return there.map(Presence::There),
            };
            if self.listed()?.iter().all(|listed| listed.id != id) {
                return Ok(Presence::Deleted);
            }
            if !absent.ask_again([id]) {
                return Ok(Presence::Absent(absent::told(answer)));
            }
        }
    }
}
