//! `report RUN -o FILE`: the run as one HTML page.

use crate::args::Output;
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output, report};
use serde_json::json;
use tensorkeep::engine::replace_file;
use tensorkeep::{Error, ErrorKind};

pub fn run(run: &str, output: &Output, diff: Option<&str>, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let mut options = report::Options::titled(run);
    let place = Place::new(run);
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
    replace_file(&output.output, Some(html.len() as u64), |upload| upload.append(html.as_bytes()))?;
    let path = output.output.display().to_string();
    match json {
        true => output::print_json("report", json!({ "output": path, "bytes": html.len() }))?,
        false => output::print(format!("{path}: {}", output::size(html.len() as u64)))?,
    }
    Ok(Exit::Ok)
}
