//! `import` and `export`: other formats in and out. Both list what was renamed or dropped, read the result again and
//! compare it bit for bit. Exit code 1 when something was lost, unless that was allowed.

use crate::args::Output;
use crate::exit::Exit;
use crate::target::Target;
use crate::{Done, output, parallel};
use serde_json::json;
use tensorkeep::convert::{self, Foreign, Format, Note};
use tensorkeep::{Checkpoint, Codec, Error, ErrorKind, Result, WriteOptions};

pub fn import(source: &str, output: &Output, allow_loss: bool, codec: Codec, json: bool) -> Done {
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("importing", true);
    let foreign = Foreign::open(source)?;
    foreign.snapshot()?.save_with(&output.output, &WriteOptions::new().codec(codec))?;
    let checkpoint = Checkpoint::open(&output.output)?;
    compared(convert::differences(&checkpoint, &foreign)?, &output.output)?;
    drop(busy);
    done("import", output, foreign.tensors().len(), foreign.notes(), allow_loss, json)
}

pub fn export(target: &str, output: &Output, allow_loss: bool, json: bool) -> Done {
    let format = Format::of_extension(&output.output).ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "the extension does not say a format")
            .in_object(output.output.display())
            .expected(".safetensors, .npz or .npy")
    })?;
    output::check_free(&output.output, output.force)?;
    let busy = parallel::busy("exporting", true);
    let checkpoint = Target::parse(target)?.open()?;
    let export = convert::export(&checkpoint, &output.output, format)?;
    let foreign = Foreign::open(&output.output)?;
    let mut differences = convert::differences(&checkpoint, &foreign)?;
    // The only tensor of a .npy file has no name there; what was dropped is listed already.
    differences.retain(|what| {
        format != Format::Npy
            && !export
                .notes
                .iter()
                .any(|note| note.loss && what.starts_with(&format!("{}: missing", note.name)))
    });
    compared(differences, &output.output)?;
    drop(busy);
    done("export", output, export.tensors, &export.notes, allow_loss, json)
}

fn compared(differences: Vec<String>, path: &std::path::Path) -> Result<()> {
    match differences.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(
            ErrorKind::Damaged,
            format!("what was written differs in {} tensors, {first}", differences.len()),
        )
        .in_object(path.display())
        .help("this is a bug of tensorkeep: keep both files and report it")),
    }
}

fn done(verb: &str, output: &Output, tensors: usize, notes: &[Note], allow_loss: bool, json: bool) -> Done {
    let lost = notes.iter().filter(|note| note.loss).count();
    let path = output.output.display().to_string();
    if json {
        let note = |note: &Note| json!({ "name": note.name, "what": note.what, "loss": note.loss });
        let notes: Vec<_> = notes.iter().map(note).collect();
        output::print_json(
            verb,
            json!({ "output": path, "tensors": tensors, "notes": notes, "lost": lost, "compared": true }),
        )?;
    } else {
        for note in notes {
            let word = if note.loss { "lost" } else { "note" };
            output::tell(format_args!("{word}: {}: {}", note.name, note.what));
        }
        output::print(format!(
            "{path}: {}, compared bit for bit{}",
            output::count(tensors, "tensor"),
            if lost > 0 { format!(", {} lost", output::count(lost, "thing")) } else { String::new() }
        ))?;
    }
    if lost > 0 && !allow_loss {
        output::warn("something was lost; --allow-loss makes that a success");
        return Ok(Exit::No);
    }
    Ok(Exit::Ok)
}
