//! `report RUN -o FILE`: the run as one HTML page; `-o -` is stdout.

use crate::args::Output;
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output, report};
use serde_json::json;
use std::ffi::OsStr;
use tensorkeep::engine::replace_file;
use tensorkeep::{Error, ErrorKind};

pub fn run(run: &OsStr, output: &Output, diff: Option<&str>, json: bool) -> Done {
    let to_stdout = output::is_stdout(&output.output);
    if to_stdout && json {
        return Err(Error::new(ErrorKind::Invalid, "stdout cannot be both the page and the JSON document")
            .help("leave out --json, or name a file"));
    }
    if !to_stdout {
        output::check_free(&output.output, output.force)?;
    }
    let place = Place::new(run);
    let mut options = report::Options::titled(place.to_string());
    if let Some(Ok(stat)) = place.folder().map(rustix::fs::statvfs) {
        options = options.free_bytes(stat.f_bavail.saturating_mul(stat.f_frsize));
    }
    if let Some(diff) = diff {
        let steps = diff.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        options.diff = Some(steps.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{diff:?} names no two steps")).expected("as 100:200")
        })?);
    }
    let reader = place.reader()?;
    place.check_exists(&reader)?;
    let html = report::html(&reader, &options)?;
    if to_stdout {
        output::print_bytes(html.as_bytes())?;
        return Ok(Exit::Ok);
    }
    replace_file(&output.output, Some(html.len() as u64), |upload| upload.append(html.as_bytes()))?;
    let path = output.output.display().to_string();
    match json {
        true => output::print_json("report", json!({ "output": path, "bytes": html.len() }))?,
        false => output::print(format!("{}: {}", output::clean(&path), output::size(html.len() as u64)))?,
    }
    Ok(Exit::Ok)
}
