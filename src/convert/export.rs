//! Exports checkpoints and foreign files as safetensors, `.npz` and `.npy`. A file is planned as a
//! whole, written under a temporary name, read back and compared, and only then renamed. Of several
//! files, all are compared before the first is renamed.

mod compare;
mod input;
mod numpy;
mod safetensors;
mod shards;

pub use compare::differences;
pub(super) use compare::differs;
pub use input::Input;
pub(super) use input::check_bools;
pub use numpy::npy_bytes;

use super::{Foreign, Format, Note};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::Upload;
use crate::engine::local::Staged;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{name_matches, nearest, not_found};
use input::Item;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Options for an export.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    max_shard_bytes: Option<u64>,
    keep_existing: bool,
    only: Option<String>,
    /// Old and new prefixes of names.
    prefixes: Vec<(String, String)>,
}

impl ExportOptions {
    /// One file, which replaces any existing file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes several safetensors files if the tensors have more bytes than this, named and indexed
    /// like those of Hugging Face's libraries: `model-00001-of-00003.safetensors` … and
    /// `model.safetensors.index.json`. A larger tensor gets its own file.
    pub fn max_shard_bytes(self, bytes: u64) -> Self {
        Self { max_shard_bytes: Some(bytes), ..self }
    }

    /// Exports only tensors whose names match a pattern, as in
    /// [`name_matches`](crate::inspect::name_matches). Records and metadata are not affected.
    pub fn only(self, pattern: impl Into<String>) -> Self {
        Self { only: Some(pattern.into()), ..self }
    }

    /// Replaces the prefix `old` of names by `new`, which may be empty. If several prefixes match a
    /// name, the first one given applies.
    pub fn rename_prefix(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        self.prefixes.push((old.into(), new.into()));
        self
    }

    /// The selected tensors, with their new names.
    ///
    /// # Errors
    /// `NotFound` when no tensor is selected, or none has a prefix; `Invalid` when two would get
    /// the same name, or one an empty name.
    fn select<'c>(&self, mut items: Vec<Item<'c>>) -> Result<Vec<Item<'c>>> {
        if let Some(pattern) = &self.only {
            let names: Vec<&str> = items.iter().map(|item| item.name).collect();
            let nearest = nearest(pattern, names.into_iter());
            items.retain(|item| name_matches(pattern, item.name));
            if items.is_empty() {
                return Err(not_found("tensor that fits", pattern, nearest));
            }
        }
        for (old, _) in &self.prefixes {
            if !items.iter().any(|item| item.name.starts_with(old.as_str())) {
                return Err(Error::new(ErrorKind::NotFound, format!("no tensor's name begins with {old:?}"))
                    .help("list the names with `tensorkeep show`"));
            }
        }
        let mut taken = HashSet::new();
        for item in &mut items {
            let renamed = self.prefixes.iter().find_map(|(old, new)| {
                let rest = item.name.strip_prefix(old.as_str())?;
                Some(format!("{new}{rest}"))
            });
            item.renamed = renamed;
            if item.target().is_empty() {
                return Err(Error::invalid("the new name would be empty").in_tensor(item.name));
            }
            if !taken.insert(item.target().to_owned()) {
                return Err(Error::invalid(format!("two tensors would be named {:?}", item.target()))
                    .in_tensor(item.name)
                    .help("choose one of them, or give them different prefixes"));
            }
        }
        Ok(items)
    }

    /// Refuses to replace a file.
    pub fn keep_existing(self) -> Self {
        Self { keep_existing: true, ..self }
    }
}

/// The result of an export.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Export {
    /// Tensors written.
    pub tensors: usize,
    /// The files; an index comes last.
    pub files: Vec<PathBuf>,
    /// Notes on everything that was renamed, dropped or stored differently.
    pub notes: Vec<Note>,
}

/// A tensor of a planned file: its name, dtype and shape there.
struct Written<'c> {
    item: Item<'c>,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// What the file says of opaque bytes.
    meaning: Option<String>,
}

/// Like [`export_with`], as one file that replaces any existing file.
///
/// # Errors
/// As [`export_with`].
pub fn export<'c>(input: impl Into<Input<'c>>, path: &Path, format: Format) -> Result<Export> {
    export_with(input, path, format, &ExportOptions::new())
}

/// Writes a checkpoint, or a foreign file, in another format. The new file is read back and
/// compared bit for bit before it gets its name, metadata and records included. Tensors are
/// converted one at a time.
///
/// # Errors
/// `Unsupported` for formats that are only read, and for a name, a shape or a length that the
/// format cannot hold; `Invalid` when a `.npy` would have to hold more than one tensor, or a format
/// without shards several files; `AlreadyExists` when an existing file must not be replaced;
/// `NotFound` when no tensor is selected; errors of reading and writing. On every error `path` is
/// unchanged.
pub fn export_with<'c>(
    input: impl Into<Input<'c>>,
    path: &Path,
    format: Format,
    options: &ExportOptions,
) -> Result<Export> {
    let input = input.into();
    let mut notes = input.notes();
    let items = options.select(input.items(&mut notes)?)?;
    let tensors = items.len();
    if options.max_shard_bytes.is_some() && format != Format::Safetensors {
        return Err(Error::invalid(format!("{format} has no shards")).help("export to safetensors"));
    }
    let files = match format {
        Format::Safetensors => {
            let plans = safetensors::plan(input, items, options.max_shard_bytes, &mut notes)?;
            shards::write(input, path, &plans, options)?
        }
        Format::Npz | Format::Npy => {
            let plan = numpy::plan(input, items, format, &mut notes)?;
            check_free([path], options)?;
            stage(input, path, &[], plan.len, &plan.written, |upload| plan.write(input, upload))?
                .publish()?;
            vec![path.to_owned()]
        }
        Format::Torch | Format::Gguf => {
            return Err(Error::new(ErrorKind::Unsupported, format!("{format} is only read, not written"))
                .help("export to safetensors, which torch and llama.cpp's tools read"));
        }
    };
    Ok(Export { tensors, files, notes })
}

fn check_free<'p>(paths: impl IntoIterator<Item = &'p Path>, options: &ExportOptions) -> Result<()> {
    if !options.keep_existing {
        return Ok(());
    }
    match paths.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(taken) => {
            Err(Error::new(ErrorKind::AlreadyExists, "is there already").in_object(taken.display()))
        }
        None => Ok(()),
    }
}

/// Writes a file under a temporary name, reads it back and compares it: that it begins with `head`,
/// and its tensors.
fn stage(
    input: Input<'_>,
    path: &Path,
    head: &[u8],
    len: u64,
    written: &[Written<'_>],
    write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<Staged> {
    let place = |error: Error| error.in_object(path.display());
    let staged = Staged::write(path, Some(len), write).map_err(place)?;
    // The plan fits into memory, so its file does too.
    let blob = staged.open()?;
    compare::check_head(&*blob, head).map_err(place)?;
    let foreign = Foreign::of_blob(path, &blob, &Budget::new(u64::MAX)).map_err(place)?;
    compare::check(input, written, &foreign).map_err(place)?;
    Ok(staged)
}
