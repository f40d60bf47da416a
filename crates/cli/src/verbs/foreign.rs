//! `import` and `export`: files of one format as files of another, told by the output's extension.
//! Both list what was renamed or dropped. Exit code 1 when something was lost, unless that was
//! allowed.

use super::derived::{self, NEVER_WRITTEN};
use crate::answer::{Answer, Text};
use crate::args::Conversion;
use crate::exit::Exit;
use crate::opened::Opened;
use crate::target::Target;
use crate::told::Told;
use crate::{Done, output, progress};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tensorkeep::convert::{self, Export, ExportOptions, Format};
use tensorkeep::{Codec, Error, ErrorKind, Result, WriteOptions};

/// The arguments of both verbs.
pub struct Asked<'a> {
    pub verb: &'static str,
    pub source: &'a OsStr,
    pub options: &'a Conversion,
    /// How a checkpoint stores its tensors.
    pub codec: Codec,
}

/// The kind of file that is written.
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
        let extension = derived::extension(path);
        if NEVER_WRITTEN.contains(&&*extension) {
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

/// Converts a file, compares the result, and publishes it.
///
/// # Errors
/// `Invalid` for options that do not fit the output, `Mismatch` for a file without tensors; errors
/// of reading and writing.
pub fn convert(asked: &Asked<'_>) -> Result<Converted> {
    let path = asked.options.output.output.as_path();
    if output::is_stdout(path) {
        return Err(Error::new(ErrorKind::Invalid, "a conversion is written to a file, not to stdout")
            .help("it is read again and compared before it gets its name: name a file with -o"));
    }
    let to = To::of(path, asked.verb)?;
    let options = export_options(asked.options, to)?;
    output::check_free(path, asked.options.output.force)?;
    let mut opened = Target::parse(asked.source)?.look(asked.options.budget.get())?;
    opened.keep_odd_bools()?;
    check_not_empty(&opened)?;
    let doing = if asked.verb == "import" { "importing" } else { "exporting" };
    let reading = progress::reading(doing, to_read(&opened));
    let outcome = match (&opened, to) {
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
    drop(reading);
    Ok(Converted { verb: asked.verb, allow_loss: asked.options.allow_loss, outcome })
}

/// About what a conversion reads: the source to write it, and once more to compare it with what was
/// written, which is about as long.
fn to_read(source: &Opened) -> u64 {
    let is_zip =
        matches!(source, Opened::Foreign(foreign) if matches!(foreign.format(), Format::Npz | Format::Torch));
    // The checksums of an archive are verified first.
    source.byte_len().saturating_mul(if is_zip { 4 } else { 3 })
}

/// The options of an export, as far as its format has them.
fn export_options(asked_for: &Conversion, to: To) -> Result<ExportOptions> {
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
    if !asked_for.output.force {
        options = options.keep_existing();
    }
    Ok(options)
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

/// The files that an import or an export made, and what they lack.
pub struct Converted {
    verb: &'static str,
    allow_loss: bool,
    outcome: Outcome,
}

impl Converted {
    fn lost(&self) -> usize {
        self.outcome.notes.iter().filter(|note| note.loss).count()
    }

    /// The file to open: of several, the index, which is the last.
    fn path(&self) -> String {
        self.outcome.files.last().map(|file| file.display().to_string()).unwrap_or_default()
    }
}

impl Answer for Converted {
    fn schema(&self) -> &'static str {
        self.verb
    }

    fn json(&self) -> Json {
        let Outcome { tensors, files, notes } = &self.outcome;
        let note = |note: &convert::Note| json!({ "name": note.name, "what": note.what, "loss": note.loss });
        let notes: Vec<_> = notes.iter().map(note).collect();
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        json!({
            "output": self.path(), "files": files, "tensors": tensors, "notes": notes, "lost": self.lost(),
            "compared": true,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let Outcome { tensors, files, notes } = &self.outcome;
        let text = Told::of(notes).add_to(Text::default());
        let in_files = if files.len() > 1 { format!(" in {} files", files.len() - 1) } else { String::new() };
        let losses = match self.lost() {
            0 => String::new(),
            lost => format!(", {} lost", output::count(lost, "thing")),
        };
        let (path, tensors) = (output::clean(&self.path()), output::count(*tensors, "tensor"));
        Ok(text.lines(format_args!("{path}: {tensors}{in_files}, compared bit for bit{losses}")))
    }

    fn end(self: Box<Self>) -> Done {
        if self.lost() == 0 || self.allow_loss {
            return Ok(Exit::Ok);
        }
        output::warn("something was lost; --allow-loss makes that a success");
        Ok(Exit::No)
    }
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
