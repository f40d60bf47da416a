//! `import` and `export`: files of one format as files of another, told by the output's extension.
//! Both list what was renamed or dropped. Exit code 1 when something was lost, unless that was
//! allowed.

use crate::args::Conversion;
use crate::exit::Exit;
use crate::opened::Opened;
use crate::target::Target;
use crate::{Done, output, parallel};
use serde_json::json;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tensorkeep::convert::{self, Export, ExportOptions, Format};
use tensorkeep::{Codec, Error, ErrorKind, Result, WriteOptions};

/// Extensions of formats that nothing here writes: a file that is called so should not be another.
const NEVER_WRITTEN: [&str; 10] =
    ["bin", "ckpt", "distcp", "h5", "hdf5", "keras", "msgpack", "onnx", "ot", "pkl"];

/// What both verbs are asked for.
pub struct Asked<'a> {
    pub verb: &'static str,
    pub source: &'a OsStr,
    pub options: &'a Conversion,
    /// How a checkpoint stores its tensors.
    pub codec: Codec,
    pub json: bool,
}

/// What the output is to be.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Checkpoint,
    Foreign(Format),
}

impl To {
    fn of(path: &Path, verb: &str) -> Result<Self> {
        if let Some(format) = Format::of_extension(path) {
            return Ok(Self::Foreign(format));
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if NEVER_WRITTEN.contains(&extension) {
            return Err(Error::new(ErrorKind::Invalid, format!(".{extension} files are not written"))
                .in_object(path.display())
                .expected(".safetensors, .npz, .npy or .tkeep")
                .help("torch and Hugging Face's libraries read safetensors"));
        }
        if extension == "tkeep" || verb == "import" {
            return Ok(Self::Checkpoint);
        }
        Err(Error::new(ErrorKind::Invalid, "the extension does not say a format")
            .in_object(path.display())
            .expected(".safetensors, .npz, .npy or .tkeep"))
    }
}

pub fn convert(asked: &Asked<'_>) -> Done {
    let asked_for = asked.options;
    let path = asked_for.output.output.as_path();
    let to = To::of(path, asked.verb)?;
    let mut options = ExportOptions::new();
    if let Some(bytes) = asked_for.max_shard_size {
        if bytes == 0 || to != To::Foreign(Format::Safetensors) {
            return Err(Error::new(ErrorKind::Invalid, "--max-shard-size is for safetensors")
                .expected("a size such as 5GB, and an output named .safetensors"));
        }
        options = options.max_shard_bytes(bytes);
    }
    let is_edited =
        asked_for.only.is_some() || !asked_for.strip_prefix.is_empty() || !asked_for.rename.is_empty();
    if is_edited && to == To::Checkpoint {
        return Err(Error::new(
            ErrorKind::Invalid,
            "--only, --strip-prefix and --rename are for other formats",
        )
        .expected("an output named .safetensors, .npz or .npy"));
    }
    if let Some(pattern) = &asked_for.only {
        options = options.only(pattern);
    }
    for prefix in &asked_for.strip_prefix {
        options = options.rename_prefix(prefix, "");
    }
    for (old, new) in &asked_for.rename {
        options = options.rename_prefix(old, new);
    }
    output::check_free(path, asked_for.output.force)?;
    if !asked_for.output.force {
        options = options.keep_existing();
    }
    let busy = parallel::busy(if asked.verb == "import" { "importing" } else { "exporting" }, true);
    let opened = Target::parse(asked.source)?.look(asked_for.budget.get())?;
    check_not_empty(&opened)?;
    let export = match (&opened, to) {
        (Opened::Foreign(foreign), To::Checkpoint) => {
            convert::import(foreign, path, &WriteOptions::new().codec(asked.codec))?;
            Outcome {
                tensors: foreign.tensors().len(),
                files: vec![path.to_owned()],
                notes: foreign.notes().to_vec(),
            }
        }
        (Opened::Own(checkpoint), To::Checkpoint) => {
            return Err(Error::new(ErrorKind::Foreign, "is a tensorkeep checkpoint already")
                .in_object(checkpoint.name())
                .help("`tensorkeep cp` copies it, `tensorkeep repack` writes it with another codec"));
        }
        (Opened::Foreign(foreign), To::Foreign(format)) => {
            convert::export_with(foreign, path, format, &options)?.into()
        }
        (Opened::Own(checkpoint), To::Foreign(format)) => {
            convert::export_with(checkpoint, path, format, &options)?.into()
        }
    };
    drop(busy);
    tell(asked, &export)
}

/// A file of which nothing can be carried over is not converted, whatever may be lost.
fn check_not_empty(opened: &Opened) -> Result<()> {
    let (tensors, records, notes) = match opened {
        Opened::Own(checkpoint) => (checkpoint.names().count(), checkpoint.records().len(), &[][..]),
        Opened::Foreign(foreign) => (foreign.tensors().len(), foreign.records().len(), foreign.notes()),
    };
    let lost: Vec<String> =
        notes.iter().filter(|note| note.loss).map(|note| format!("{}: {}", note.name, note.what)).collect();
    if tensors > 0 || (records > 0 && lost.is_empty()) {
        return Ok(());
    }
    let error =
        Error::new(ErrorKind::Mismatch, "there is no tensor in it to carry over").in_object(opened.name());
    Err(match lost.first() {
        Some(first) if lost.len() > 1 => error.found(format!("{first}; and {} more", lost.len() - 1)),
        Some(first) => error.found(first),
        None => error,
    })
}

struct Outcome {
    tensors: usize,
    files: Vec<PathBuf>,
    notes: Vec<convert::Note>,
}

impl From<Export> for Outcome {
    fn from(Export { tensors, files, notes, .. }: Export) -> Self {
        Self { tensors, files, notes }
    }
}

fn tell(asked: &Asked<'_>, Outcome { tensors, files, notes }: &Outcome) -> Done {
    let lost = notes.iter().filter(|note| note.loss).count();
    // Of several files the index is the one to open.
    let path = files.last().map(|file| file.display().to_string()).unwrap_or_default();
    if asked.json {
        let note = |note: &convert::Note| json!({ "name": note.name, "what": note.what, "loss": note.loss });
        let notes: Vec<_> = notes.iter().map(note).collect();
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        output::print_json(
            asked.verb,
            json!({
                "output": path, "files": files, "tensors": tensors, "notes": notes, "lost": lost, "compared": true,
            }),
        )?;
    } else {
        for note in notes {
            let word = if note.loss { "lost" } else { "note" };
            output::tell(format_args!("{word}: {}: {}", note.name, note.what));
        }
        let in_files = if files.len() > 1 { format!(" in {} files", files.len() - 1) } else { String::new() };
        let losses =
            if lost > 0 { format!(", {} lost", output::count(lost, "thing")) } else { String::new() };
        output::print(format!(
            "{}: {}{in_files}, compared bit for bit{losses}",
            output::clean(&path),
            output::count(*tensors, "tensor"),
        ))?;
    }
    if lost > 0 && !asked.options.allow_loss {
        output::warn("something was lost; --allow-loss makes that a success");
        return Ok(Exit::No);
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_what_is_written() {
        let to = |path: &str, verb: &str| To::of(Path::new(path), verb);
        assert!(matches!(to("x.safetensors", "import"), Ok(To::Foreign(Format::Safetensors))));
        assert!(matches!(to("x.npz", "export"), Ok(To::Foreign(Format::Npz))));
        for path in ["x.tkeep", "x", "sd.pt.tkeep"] {
            assert!(matches!(to(path, "import"), Ok(To::Checkpoint)), "{path}");
        }
        assert!(matches!(to("x.tkeep", "export"), Ok(To::Checkpoint)));
        assert_eq!(to("x", "export").err().unwrap().kind(), ErrorKind::Invalid);
        assert_eq!(to("pytorch_model.bin", "import").err().unwrap().kind(), ErrorKind::Invalid);
    }
}
