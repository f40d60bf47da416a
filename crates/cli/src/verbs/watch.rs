//! `watch RUN`: a line for each checkpoint as it appears or goes, until interrupted or until nobody
//! reads on.

use crate::exit::Exit;
use crate::place::Place;
use crate::verbs::ls;
use crate::{Done, output};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;
use tensorkeep::{CheckpointId, CheckpointInfo, Error, ErrorKind};

pub fn run(run: &OsStr, interval: f64, count: Option<u64>, json: bool) -> Done {
    let pause =
        Duration::try_from_secs_f64(interval).ok().filter(|pause| !pause.is_zero()).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "interval").expected("seconds above 0").found(interval)
        })?;
    // One reader for all looks: it remembers what immutable checkpoints said.
    let place = Place::new(run);
    let reader = place.reader()?;
    if reader.names()?.is_empty() {
        place.check_exists(&reader)?;
    }
    let mut before: BTreeMap<CheckpointId, CheckpointInfo> = BTreeMap::new();
    let mut looks = 0;
    loop {
        let now: BTreeMap<CheckpointId, CheckpointInfo> =
            reader.list()?.into_iter().map(|info| (info.name, info)).collect();
        for info in now.values().filter(|info| !before.contains_key(&info.name)) {
            tell("new", info, json)?;
        }
        for info in before.values().filter(|info| !now.contains_key(&info.name)) {
            tell("gone", info, json)?;
        }
        before = now;
        looks += 1;
        if count.is_some_and(|count| looks >= count) || output::reader_is_gone() {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(pause);
    }
}

/// One line: for JSON, one document each.
fn tell(what: &str, info: &CheckpointInfo, json: bool) -> Result<(), Error> {
    if json {
        return output::print_json("watch", json!({ "event": what, "checkpoint": ls::as_json(info, None) }));
    }
    let state = match &info.state {
        Ok(state) => output::clean(&format!("{}  {}", ls::metrics(state), state.why)),
        Err(error) => error.kind().as_str().to_owned(),
    };
    output::print(format!("{what:<4}  {}  {:>10}  {state}", info.name, output::size(info.len)))
}
