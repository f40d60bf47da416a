//! One checkpoint, or one foreign file, verified: what is wrong with it, in words and as JSON.

use crate::budget::Budget;
use crate::opened::{Meta, Opened};
use crate::told::Told;
use crate::{output, progress, stats};
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use tensorkeep::convert::Format;
use tensorkeep::inspect::{Scratch, VerifyReport};
use tensorkeep::{Checkpoint, CheckpointId, Error, ErrorKind, Result, Value};

/// The word that is red.
pub const DAMAGED: &str = "DAMAGED";

/// How thoroughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Header, footer, index, records.
    Quick,
    /// Every byte by its checksum, and records decoded.
    Bytes,
    /// And every tensor decoded, and searched for NaN and Inf.
    Deep,
}

/// One checkpoint's answer.
#[derive(Default)]
pub struct Verified {
    pub name: String,
    /// The name in its run; of a file as it was typed.
    pub key: String,
    /// Of a foreign file, whose bytes are read and have no checksums that could be verified.
    pub foreign: Option<Format>,
    pub report: Option<VerifyReport>,
    /// Notes of a foreign file: values read in another form, or not at all.
    pub told: Told,
    /// Tensors with NaN or Inf: name, how many, the first index.
    pub bad: Vec<(String, u64, u64)>,
    pub damage: Vec<Error>,
    /// What would have to be decoded, and only a newer version can, or more budget.
    pub unsupported: Vec<Error>,
    pub mark: Mark,
    /// The name that it was saved under, where it has another one now.
    pub saved_as: Option<CheckpointId>,
}

/// Of damage, set by a resume on storage that cannot rename.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    #[default]
    None,
    Marked,
    Healed,
}

impl Mark {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Marked => "marked",
            Self::Healed => "healed",
        }
    }
}

impl Verified {
    /// # Errors
    /// What is not about the checkpoint's bytes.
    pub fn of(name: String, opened: Result<Opened>, depth: Depth, budget: Budget) -> Result<Self> {
        let mut verified = Self { key: name.clone(), name, ..Self::default() };
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                verified.put(error)?;
                return Ok(verified);
            }
        };
        // Decoding draws a bar of its own.
        let reading = (depth == Depth::Deep).then(|| progress::reading("verifying", opened.byte_len()));
        if let Err(error) = budget.check_bytes(&opened, opened.records_len()) {
            verified.put(error)?;
            return Ok(verified);
        }
        if depth != Depth::Quick {
            opened.keep_odd_bools()?;
        }
        let mut report = match &opened {
            Opened::Foreign(foreign) => {
                verified.foreign = Some(foreign.format());
                verified.told = Told::of_file(&opened);
                read_all(&opened, depth)?
            }
            Opened::Own(checkpoint) if depth == Depth::Quick => quick(checkpoint)?,
            Opened::Own(checkpoint) => checkpoint.inspect().verify_all()?,
        };
        let told =
            std::mem::take(&mut report.damage).into_iter().chain(std::mem::take(&mut report.unsupported));
        told.into_iter().try_for_each(|error| verified.put(error))?;
        verified.report = Some(report);
        drop(reading);
        if depth == Depth::Deep {
            verified.decode_all(&opened, budget)?;
        }
        Ok(verified)
    }

    /// Takes down what is an answer.
    fn put(&mut self, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Unsupported | ErrorKind::LimitExceeded => self.unsupported.push(error),
            _ if is_answer(&error) => self.damage.push(error),
            _ => return Err(error),
        }
        Ok(())
    }

    /// Decodes every tensor whose bytes are as they were written, and takes down each that fails.
    fn decode_all(&mut self, opened: &Opened, budget: Budget) -> Result<()> {
        let mut metas: Vec<Meta> = opened.tensors();
        let damaged: HashSet<&str> = self.damage.iter().filter_map(Error::tensor).collect();
        metas.retain(|meta| meta.alias_of.is_none() && !damaged.contains(meta.name.as_str()));
        if let Err(error) = budget.check(opened, &metas) {
            return self.put(error);
        }
        let mut scratch = Scratch::default();
        for (meta, found) in metas.iter().zip(stats::of(opened, &metas)?) {
            match found {
                Err(error) => self.put(error)?,
                Ok(Some(stats)) => {
                    self.bad.extend(stats.first_bad.map(|first| (meta.name.clone(), stats.bad(), first)));
                }
                // What has no numbers is decoded all the same.
                Ok(None) => {
                    let read = opened.visit(meta, 0..meta.chunks, &mut scratch, |_, _| Ok(()));
                    read.or_else(|error| self.put(error))?;
                }
            }
        }
        Ok(())
    }

    pub fn as_text(&self) -> String {
        let mut text = match (&self.report, self.damage.len()) {
            (Some(report), 0) => format!(
                "{}: ok, {}, {}, {}, {}{}",
                self.name,
                output::count(report.tensors, "tensor"),
                output::count(report.records, "record"),
                output::count(report.chunks, "chunk"),
                output::size(report.byte_len),
                match self.unsupported.len() {
                    0 => String::new(),
                    parts => format!(", but {} of it cannot be decoded", output::count(parts, "part")),
                }
            ),
            (Some(_), places) => format!("{}: {DAMAGED} in {}", self.name, output::count(places, "place")),
            (None, _) => format!("{}: does not open", self.name),
        };
        match self.mark {
            Mark::None => {}
            Mark::Healed => text.push_str("\n  was marked as damaged: the mark is taken off"),
            Mark::Marked if self.damage.is_empty() => {
                text.push_str(
                    "\n  is marked as damaged, so no resume takes it; --heal-marks takes the mark off",
                );
            }
            Mark::Marked => text.push_str("\n  is marked as damaged"),
        }
        if let Some(saved_as) = self.saved_as {
            text.push_str(&format!("\n  was saved as {saved_as}: its file was copied or renamed"));
        }
        if let Some(format) = self.foreign {
            text.push_str(&format!("\n  format {format}: {}", what_a_read_shows(format)));
        }
        for line in self.told.lines() {
            text.push_str(&format!("\n  {line}"));
        }
        for error in self.damage.iter().chain(&self.unsupported) {
            text.push_str(&format!("\n  {error}"));
        }
        for (tensor, count, first) in &self.bad {
            text.push_str(&format!("\n  {tensor}: {count} NaN or Inf, the first at {first}"));
        }
        text
    }

    pub fn as_json(&self) -> Json {
        let bad = |(tensor, count, first): &(String, u64, u64)| json!({ "tensor": tensor, "count": count, "first": first });
        json!({
            "name": self.name,
            "format": self.foreign.map_or("tensorkeep", Format::as_str),
            "ok": self.damage.is_empty(),
            "opens": self.report.is_some(),
            "tensors": self.report.as_ref().map(|report| report.tensors),
            "records": self.report.as_ref().map(|report| report.records),
            "chunks": self.report.as_ref().map(|report| report.chunks),
            "bytes": self.report.as_ref().map(|report| report.byte_len),
            "damage": self.damage.iter().map(output::error_in_json).collect::<Vec<_>>(),
            "unsupported": self.unsupported.iter().map(output::error_in_json).collect::<Vec<_>>(),
            "notes": self.told.json(),
            "non_finite": self.bad.iter().map(bad).collect::<Vec<_>>(),
            "mark": self.mark.as_str(),
            "saved_as": self.saved_as.map(|id| id.to_string()),
        })
    }
}

/// What it means that a foreign file could be read.
fn what_a_read_shows(format: Format) -> &'static str {
    match format {
        Format::Npz | Format::Torch => "read, and the checksums of its zip archive compared",
        _ => "read, not verified; it has no checksums",
    }
}

/// Damage is what was asked for; anything else is in the way of answering.
fn is_answer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Damaged
            | ErrorKind::Foreign
            | ErrorKind::NewerVersion
            | ErrorKind::LimitExceeded
            | ErrorKind::Unsupported
    )
}

/// Opening has verified header, footer and index, or the index's mirror; the records are read here.
fn quick(checkpoint: &Checkpoint) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    report.byte_len = checkpoint.inspect().byte_len();
    report.tensors = checkpoint.names().count();
    report.records = checkpoint.records().len();
    let by_mirror = |error: &Error| {
        Error::new(ErrorKind::Damaged, format!("opened by the index's mirror: {error}"))
            .help("no tensor is affected; save the checkpoint again")
    };
    report.damage.extend(checkpoint.inspect().index_damage().map(by_mirror));
    for name in checkpoint.records() {
        match checkpoint.inspect().verify_record(name) {
            Err(error) if error.kind() == ErrorKind::Unsupported => report.unsupported.push(error),
            Err(error) if is_answer(&error) => report.damage.push(error),
            other => other?,
        }
    }
    Ok(report)
}

/// Every byte of a foreign file, so far as it is asked for; what cannot be read is its damage.
fn read_all(opened: &Opened, depth: Depth) -> Result<VerifyReport> {
    let (mut report, mut scratch) = (VerifyReport::default(), Scratch::default());
    let metas = opened.tensors();
    (report.byte_len, report.tensors) = (opened.byte_len(), metas.len());
    (report.records, report.chunks) = (opened.records().len(), metas.iter().map(|meta| meta.chunks).sum());
    for meta in metas.iter().filter(|_| depth != Depth::Quick) {
        match opened.visit(meta, 0..meta.chunks, &mut scratch, |_, _| Ok(())) {
            Err(error) if is_answer(&error) => report.damage.push(error),
            read => read?,
        }
    }
    Ok(report)
}

/// The name that a store saved it under, where one did. What cannot be read is told as damage.
pub fn saved_as(checkpoint: &Checkpoint) -> Option<CheckpointId> {
    let Ok(Value::Map(save)) = checkpoint.inspect().record_value(SAVE) else { return None };
    let number = |key: &str| match save.get(key) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let attempt = number("attempt").and_then(|attempt| u32::try_from(attempt).ok()).filter(|it| *it > 0)?;
    Some(CheckpointId { attempt, step: number("step")? })
}

/// The record of stores.
const SAVE: &str = "tensorkeep.save";
