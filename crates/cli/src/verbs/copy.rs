//! `repack` and `salvage`: checkpoints written again, otherwise, or as far as they are intact.

use crate::args::Output;
use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output, parallel};
use serde_json::json;
use std::ffi::OsStr;
use tensorkeep::{Checkpoint, Codec, Error, ErrorKind, Result, WriteOptions};

pub fn repack(target: &OsStr, output: &Output, codec: Codec, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("repacking", true);
    let checkpoint = Target::parse(target)?.open()?;
    let written =
        checkpoint.inspect().to_snapshot()?.save_with(&output.output, &WriteOptions::new().codec(codec))?;
    let again = Checkpoint::open(&output.output)?;
    same_bytes(&checkpoint, &again)?;
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

/// Every tensor, read from both.
fn same_bytes(left: &Checkpoint, right: &Checkpoint) -> Result<()> {
    for info in left.tensors() {
        let theirs = right.tensor(info.name)?;
        let mut same = theirs.bytes().len() as u64 == info.byte_len;
        left.inspect().visit_chunks(info.name, 0..info.chunks, |start, bytes| {
            same &= theirs.bytes().get(start as usize..start as usize + bytes.len()) == Some(bytes);
            Ok(())
        })?;
        if !same {
            return Err(Error::new(ErrorKind::Damaged, "what was written differs")
                .in_tensor(info.name)
                .in_object(right.name()));
        }
    }
    Ok(())
}

/// Exit code 0 when all was intact, 1 when something was lost.
pub fn salvage(target: &OsStr, output: &Output, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("salvaging", true);
    let checkpoint = Target::parse(target)?.open().map_err(without_its_end)?;
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
