//! `pin` and `unpin`: protecting one checkpoint of a run, also while it is being trained.

use crate::answer::{Answer, Text};
use crate::target::Target;
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use tensorkeep::{CheckpointId, Result};

/// A checkpoint that is pinned now, or no longer.
pub struct Pinned {
    id: CheckpointId,
    is_newest: bool,
    pinned: bool,
    changed: bool,
}

/// Pins, or takes the pin away. Doing either twice is no error.
///
/// # Errors
/// `NotFound`, and what the run's storage says.
pub fn run(target: &OsStr, pin: bool) -> Result<Pinned> {
    let target = Target::parse(target)?;
    let is_newest = matches!(target, Target::Run(_, None));
    let (place, reader, id) = target.in_run()?;
    let was_pinned = reader.list()?.iter().any(|info| info.id == id && info.pinned);
    let engine = place.open()?;
    if pin {
        id.pin(&engine)?
    } else {
        id.unpin(&engine)?
    }
    Ok(Pinned { id, is_newest, pinned: pin, changed: pin != was_pinned })
}

impl Answer for Pinned {
    fn schema(&self) -> &'static str {
        if self.pinned { "pin" } else { "unpin" }
    }

    fn json(&self) -> Json {
        json!({ "name": self.id.to_string(), "pinned": self.pinned, "changed": self.changed })
    }

    fn text(&self) -> Result<Text<'_>> {
        let which = if self.is_newest { ", the newest" } else { "" };
        let what = match (self.pinned, self.changed) {
            (true, true) => "pinned: no rotation and no gc deletes it",
            (true, false) => "was pinned already",
            (false, true) => "no longer pinned",
            (false, false) => "was not pinned",
        };
        Ok(Text::of(format!("{}{which}: {what}", self.id)))
    }
}
