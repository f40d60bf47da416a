//! `pin` and `unpin`: protecting one checkpoint of a run, also while it is being trained.

use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;
use std::ffi::OsStr;

/// Pins, or takes the pin away; what is so already is fine, and is said.
///
/// # Errors
/// `NotFound`, and what the run's storage says.
pub fn run(target: &OsStr, pin: bool, json: bool) -> Done {
    let target = Target::parse(target)?;
    let is_newest = matches!(target, Target::Run(_, None));
    let (place, reader, name) = target.in_run()?;
    let was_pinned = reader.list()?.iter().any(|info| info.name == name && info.pinned);
    let engine = place.open()?;
    if pin {
        name.pin(&engine)?
    } else {
        name.unpin(&engine)?
    }
    let changed = pin != was_pinned;
    let verb = if pin { "pin" } else { "unpin" };
    if json {
        output::print_json(verb, json!({ "name": name.to_string(), "pinned": pin, "changed": changed }))?;
        return Ok(Exit::Ok);
    }
    let which = if is_newest { ", the newest" } else { "" };
    let what = match (pin, changed) {
        (true, true) => "pinned: no rotation and no gc deletes it",
        (true, false) => "was pinned already",
        (false, true) => "no longer pinned",
        (false, false) => "was not pinned",
    };
    output::print(format!("{name}{which}: {what}"))?;
    Ok(Exit::Ok)
}
