//! `pin` and `unpin`: protecting one checkpoint of a run, also while it is being trained.

use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;

pub fn run(target: &str, pin: bool, json: bool) -> Done {
    let (place, _, name) = Target::parse(target)?.in_run()?;
    let engine = place.open()?;
    if pin {
        name.pin(&engine)?
    } else {
        name.unpin(&engine)?
    }
    let verb = if pin { "pin" } else { "unpin" };
    match json {
        true => output::print_json(verb, json!({ "name": name.to_string(), "pinned": pin }))?,
        false => output::print(format!("{name}: {}", if pin { "pinned" } else { "no longer pinned" }))?,
    }
    Ok(Exit::Ok)
}
