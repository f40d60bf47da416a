//! `repack` and `salvage`: checkpoints written again, otherwise, or as far as they are intact.

use super::derived;
use crate::answer::{Answer, Text};
use crate::args::Output;
use crate::budget::Budget;
use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output, progress};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use tensorkeep::convert;
use tensorkeep::ranks::rebuild;
use tensorkeep::{Checkpoint, Codec, Error, ErrorKind, Result, WriteOptions};

/// A checkpoint that was written with another codec.
pub struct Repacked {
    source: String,
    output: String,
    bytes_before: u64,
    bytes: u64,
}

pub fn repack(target: &OsStr, output: &Output, codec: Codec, budget: Budget) -> Result<Repacked> {
    derived::check_output(&output.output, output.force)?;
    let checkpoint = open_within(target, budget)?;
    // Once to write it, once more to compare it with what was written, which is about as long.
    let _reading = progress::reading("repacking", 3 * checkpoint.inspect().byte_len());
    let written = convert::repack(&checkpoint, &output.output, &WriteOptions::new().codec(codec))?;
    Ok(Repacked {
        source: checkpoint.name().to_owned(),
        output: output.output.display().to_string(),
        bytes_before: checkpoint.inspect().byte_len(),
        bytes: written.byte_len,
    })
}

impl Answer for Repacked {
    fn schema(&self) -> &'static str {
        "repack"
    }

    fn json(&self) -> Json {
        json!({
            "source": self.source, "output": self.output, "bytes_before": self.bytes_before, "bytes": self.bytes,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let share = 100.0 * self.bytes as f64 / self.bytes_before as f64;
        let (after, before) = (output::size(self.bytes), output::size(self.bytes_before));
        let path = &self.output;
        Ok(Text::of(format!("{path}: {after} instead of {before} ({share:.0} %), compared bit for bit")))
    }
}

/// Opens a checkpoint, and refuses one whose values are more than the budget allows.
fn open_within(target: &OsStr, budget: Budget) -> Result<Checkpoint> {
    let checkpoint = Target::parse(target)?.open(budget)?;
    let own = checkpoint.tensors().filter(|info| info.alias_of.is_none());
    let bytes = own.fold(0_u64, |all, info| all.saturating_add(info.byte_len));
    budget.check_len(checkpoint.name(), checkpoint.inspect().byte_len(), bytes)?;
    Ok(checkpoint)
}

/// What could be saved of a damaged checkpoint, and what could not.
pub struct Salvaged {
    output: String,
    /// Tied ones by each of their names, as everywhere.
    tensors: usize,
    /// In the source.
    all: usize,
    bytes: u64,
    lost: Vec<Error>,
}

pub fn salvage(target: &OsStr, output: &Output, budget: Budget) -> Result<Salvaged> {
    derived::check_output(&output.output, output.force)?;
    let checkpoint = open_within(target, budget).map_err(without_its_end)?;
    let mut lost = Vec::new();
    let checkpoint = match Target::parse(target)? {
        Target::File(path) if checkpoint.inspect().is_shard() => {
            let rebuilt = rebuild(path, budget.options())?;
            lost = rebuilt.lost;
            rebuilt.checkpoint
        }
        _ => checkpoint,
    };
    // One pass finds the intact tensors, a second one writes them.
    let _reading = progress::reading("salvaging", 2 * checkpoint.inspect().byte_len());
    let (snapshot, damaged) = checkpoint.inspect().salvage()?;
    let written = snapshot.save(&output.output)?;
    let output = output.output.display().to_string();
    let all = checkpoint.names().count() + lost.iter().filter(|error| error.tensor().is_some()).count();
    lost.extend(damaged);
    let tensors = all - lost.iter().filter(|error| error.tensor().is_some()).count().min(all);
    Ok(Salvaged { output, tensors, all, bytes: written.byte_len, lost })
}

impl Answer for Salvaged {
    fn schema(&self) -> &'static str {
        "salvage"
    }

    fn json(&self) -> Json {
        let lost: Vec<_> = self.lost.iter().map(output::error_in_json).collect();
        json!({ "output": self.output, "tensors": self.tensors, "bytes": self.bytes, "lost": lost })
    }

    fn text(&self) -> Result<Text<'_>> {
        let Self { output: path, tensors, .. } = self;
        let mut lines = vec![match self.lost.len() {
            0 => format!(
                "{path}: {} saved, and all records; nothing is lost",
                output::count(*tensors, "tensor")
            ),
            lost => format!(
                "{path}: {tensors} of {} saved, {lost} lost, and a record that says what is missing",
                output::count(self.all, "tensor")
            ),
        }];
        lines.extend(self.lost.iter().map(|error| output::clean(&format!("lost: {error}"))));
        Ok(Text::of(lines.join("\n")))
    }

    /// 0 when all was intact, 1 when something was lost.
    fn end(self: Box<Self>) -> Done {
        Ok(if self.lost.is_empty() { Exit::Ok } else { Exit::No })
    }
}

/// What cannot be opened has nothing that could be saved: most often its end is missing.
fn without_its_end(error: Error) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    error.help(
        "a file is read by its header and by the list of contents at its end, of which there are two copies; without the header, or \
         without both copies, nothing can be taken out of it: copy the file again, or resume from an older checkpoint",
    )
}
