//! `repack` and `salvage`: checkpoints written again, otherwise, or as far as they are intact.

use crate::args::Output;
use crate::budget::Budget;
use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output, parallel};
use serde_json::json;
use std::ffi::OsStr;
use tensorkeep::convert;
use tensorkeep::{Checkpoint, Codec, Error, ErrorKind, Result, WriteOptions};

pub fn repack(target: &OsStr, output: &Output, codec: Codec, budget: Budget, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("repacking", true);
    let checkpoint = open_within(target, budget)?;
    let written = convert::repack(&checkpoint, &output.output, &WriteOptions::new().codec(codec))?;
    drop(busy);
    let (before, after) = (checkpoint.byte_len(), written.len);
    if json {
        let path = output.output.display().to_string();
        output::print_json(
            "repack",
            json!({ "source": checkpoint.name(), "output": path, "bytes_before": before, "bytes": after }),
        )?;
    } else {
        let share = 100.0 * after as f64 / before as f64;
        output::print(format!(
            "{}: {} instead of {} ({share:.0} %), compared bit for bit",
            output.output.display(),
            output::size(after),
            output::size(before)
        ))?;
    }
    Ok(Exit::Ok)
}

/// Opens a checkpoint, and refuses one whose values are more than the budget allows.
fn open_within(target: &OsStr, budget: Budget) -> Result<Checkpoint> {
    let checkpoint = Target::parse(target)?.open(budget)?;
    let own = checkpoint.tensors().filter(|info| info.alias_of.is_none());
    let bytes = own.fold(0_u64, |all, info| all.saturating_add(info.byte_len));
    budget.check_len(checkpoint.name(), checkpoint.byte_len(), bytes)?;
    Ok(checkpoint)
}

/// Exit code 0 when all was intact, 1 when something was lost.
pub fn salvage(target: &OsStr, output: &Output, budget: Budget, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("salvaging", true);
    let checkpoint = open_within(target, budget).map_err(without_its_end)?;
    let (snapshot, lost) = checkpoint.inspect().salvage()?;
    let written = snapshot.save(&output.output)?;
    drop(busy);
    if json {
        let lost: Vec<_> = lost.iter().map(output::error_in_json).collect();
        let path = output.output.display().to_string();
        output::print_json(
            "salvage",
            json!({ "output": path, "tensors": written.tensors, "bytes": written.len, "lost": lost }),
        )?;
    } else {
        let tensors = output::count(written.tensors, "tensor");
        let mut lines = vec![format!(
            "{}: {tensors} saved, and a record that says what is missing",
            output.output.display()
        )];
        lines.extend(lost.iter().map(|error| output::clean(&format!("lost: {error}"))));
        output::print(lines.join("\n"))?;
    }
    Ok(if lost.is_empty() { Exit::Ok } else { Exit::No })
}

/// What cannot be opened has nothing that could be saved: most often its end is missing.
fn without_its_end(error: Error) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    error.help(
        "where each tensor lies is written at the end of a file, twice; neither list is whole here, so nothing can be taken \
         out of it: copy the file again, or resume from an older checkpoint",
    )
}
