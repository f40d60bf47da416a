//! `verify TARGET`: every byte of one checkpoint, or of every checkpoint of a run. The answer no is exit code 4 with
//! everything that is damaged, not only the first.

use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Checkpoint, Error, ErrorKind, Reader, Report, Result};

/// Verifies.
///
/// # Errors
/// `NotFound`, `Io`; damage is an answer and not an error.
pub fn run(target: &str, json: bool) -> Done {
    let verified = match Target::parse(target)? {
        Target::Run(path, None) => verify_run(&path)?,
        one => vec![Verified::of(target.to_owned(), one.open())?],
    };
    if verified.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "the run has no checkpoints to verify").in_object(target));
    }
    if json {
        let checkpoints: Vec<_> = verified.iter().map(Verified::as_json).collect();
        let ok = verified.iter().all(|one| one.damage.is_empty());
        output::print_json("verify", json!({ "target": target, "ok": ok, "checkpoints": checkpoints }))?;
    } else {
        for one in &verified {
            output::print(one.as_text())?;
        }
    }
    let newer =
        verified.iter().flat_map(|one| &one.damage).find(|error| error.kind() == ErrorKind::NewerVersion);
    Ok(match (verified.iter().all(|one| one.damage.is_empty()), newer) {
        (true, _) => Exit::Ok,
        (false, Some(_)) => Exit::NewerVersion,
        (false, None) => Exit::Damaged,
    })
}

/// One checkpoint's answer.
struct Verified {
    name: String,
    report: Option<Report>,
    damage: Vec<Error>,
}

impl Verified {
    fn of(name: String, opened: Result<Checkpoint>) -> Result<Self> {
        let is_answer = |error: &Error| {
            matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign | ErrorKind::NewerVersion)
        };
        let mut report = match opened {
            Ok(checkpoint) => checkpoint.report()?,
            Err(error) if is_answer(&error) => return Ok(Self { name, report: None, damage: vec![error] }),
            Err(error) => return Err(error),
        };
        let damage = std::mem::take(&mut report.damage);
        Ok(Self { name, report: Some(report), damage })
    }

    fn as_text(&self) -> String {
        let mut text = match (&self.report, self.damage.len()) {
            (Some(report), 0) => format!(
                "{}: ok, {} tensors, {} records, {} chunks, {}",
                self.name,
                report.tensors,
                report.records,
                report.chunks,
                output::size(report.bytes)
            ),
            (Some(_), count) => format!("{}: DAMAGED in {count} places", self.name),
            (None, _) => format!("{}: does not open", self.name),
        };
        for error in &self.damage {
            text.push_str(&format!("\n  {error}"));
        }
        text
    }

    fn as_json(&self) -> serde_json::Value {
        let damage: Vec<_> = self
            .damage
            .iter()
            .map(|error| {
                json!({
                    "kind": error.kind().as_str(),
                    "tensor": error.tensor(),
                    "byte": error.byte(),
                    "message": error.to_string(),
                })
            })
            .collect();
        json!({
            "name": self.name,
            "ok": self.damage.is_empty(),
            "opens": self.report.is_some(),
            "tensors": self.report.as_ref().map(|report| report.tensors),
            "records": self.report.as_ref().map(|report| report.records),
            "chunks": self.report.as_ref().map(|report| report.chunks),
            "bytes": self.report.as_ref().map(|report| report.bytes),
            "damage": damage,
        })
    }
}

fn verify_run(path: &Path) -> Result<Vec<Verified>> {
    let reader = Reader::new(Local::open(path)?);
    let mut verified = Vec::new();
    for name in reader.names()? {
        let path = path.join(format!("{name}.tkeep")).display().to_string();
        match Verified::of(path, reader.open_name(name)) {
            // Rotated away by the run's writer since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            one => verified.push(one?),
        }
    }
    Ok(verified)
}
