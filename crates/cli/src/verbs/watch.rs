//! `watch RUN`: a line for each checkpoint as it appears or goes, until it is interrupted or
//! stdout is closed.

use crate::answer::{Answer, OutputFormat, Text};
use crate::exit::Exit;
use crate::metrics;
use crate::place::Place;
use crate::verbs::ls;
use crate::{Done, output};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;
use tensorkeep::{CheckpointId, CheckpointInfo, Error, ErrorKind, Result};

pub fn run(run: &OsStr, interval: f64, count: Option<u64>, format: OutputFormat) -> Done {
    let pause =
        Duration::try_from_secs_f64(interval).ok().filter(|pause| !pause.is_zero()).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "interval").expected("seconds above 0").found(interval)
        })?;
    // One reader for all looks, because it caches the metadata of checkpoints, which never change.
    let place = Place::new(run);
    let reader = place.reader()?;
    if reader.ids()?.is_empty() {
        place.check_exists(&reader)?;
    }
    let list = || -> Result<BTreeMap<CheckpointId, CheckpointInfo>> {
        Ok(reader.list()?.into_iter().map(|info| (info.id, info)).collect())
    };
    // People get one line for all checkpoints that exist already, programs a document for each.
    let mut before = BTreeMap::new();
    if format == OutputFormat::Text {
        before = list()?;
        output::print(heading(&place, &before))?;
    }
    let mut looks = 0;
    loop {
        let now = list()?;
        for info in now.values().filter(|info| !before.contains_key(&info.id)) {
            format.print(&Event { what: "new", info })?;
        }
        for info in before.values().filter(|info| !now.contains_key(&info.id)) {
            format.print(&Event { what: "gone", info })?;
        }
        before = now;
        looks += 1;
        if count.is_some_and(|count| looks >= count) || output::reader_is_gone() {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(pause);
    }
}

/// The existing checkpoints in one line, and the columns' names.
fn heading(place: &Place, infos: &BTreeMap<CheckpointId, CheckpointInfo>) -> String {
    let there = output::count(infos.len(), "checkpoint");
    let newest = infos.keys().last().map(|id| format!(", the newest {id}")).unwrap_or_default();
    let first = output::clean(&format!("{}  {place}: {there}{newest}", clock()));
    let columns = output::bold(&line("time", "what", "checkpoint", "size", "metrics"));
    format!("{first}\n{columns}")
}

/// A checkpoint that appeared or went.
struct Event<'a> {
    what: &'static str,
    info: &'a CheckpointInfo,
}

impl Answer for Event<'_> {
    fn schema(&self) -> &'static str {
        "watch"
    }

    fn json(&self) -> Json {
        json!({ "event": self.what, "checkpoint": ls::as_json(self.info, None, |_| true) })
    }

    fn text(&self) -> Result<Text<'_>> {
        let state = match &self.info.state {
            Ok(state) => output::clean(&format!("{}  {}", metrics::in_words(state), state.why)),
            Err(error) => error.kind().as_str().to_owned(),
        };
        let (id, size) = (self.info.id.to_string(), output::size(self.info.byte_len));
        Ok(Text::of(line(&clock(), self.what, &id, &size, &state)))
    }
}

/// A line of columns.
fn line(time: &str, what: &str, name: &str, size: &str, metrics: &str) -> String {
    format!("{time:<8}  {what:<4}  {name:<15}  {size:>10}  {metrics}").trim_end().to_owned()
}

/// The time of day, UTC.
fn clock() -> String {
    output::date(output::now()).get(11..19).unwrap_or_default().to_owned()
}
