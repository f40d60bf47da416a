//! What verbs share that write checkpoints: names that are those of checkpoints, and of `edit` and
//! `merge` a checkpoint that no trainer wrote, and that says so.

use crate::opened::Opened;
use crate::output;
use crate::provenance::{BY, FROM};
use std::collections::BTreeMap;
use std::path::Path;
use tensorkeep::convert::Format;
use tensorkeep::{Error, ErrorKind, Result};

/// Extensions of formats that nothing here writes: a file that is called so should not be another.
pub const NEVER_WRITTEN: [&str; 10] =
    ["bin", "ckpt", "distcp", "h5", "hdf5", "keras", "msgpack", "onnx", "ot", "pkl"];

/// A path's extension in lower case, empty where there is none.
pub fn extension(path: &Path) -> String {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// Only checkpoints are written, and nothing is replaced that is not meant to be.
///
/// # Errors
/// `Invalid` for a name of another format; `AlreadyExists`.
pub fn check_output(path: &Path, force: bool) -> Result<()> {
    if output::is_stdout(path) {
        return Err(Error::new(ErrorKind::Invalid, "a checkpoint is written to a file, not to stdout")
            .help("name one with -o"));
    }
    if Format::of_extension(path).is_none() && !NEVER_WRITTEN.contains(&&*extension(path)) {
        return output::check_free(path, force);
    }
    Err(Error::new(ErrorKind::Invalid, "the result is a tensorkeep checkpoint")
        .in_object(path.display())
        .expected("a name such as model.tkeep")
        .help("`tensorkeep export` makes a file of another format of it"))
}

/// The metadata of the result: the source's own, and where it comes from, behind where that came
/// from.
///
/// # Errors
/// What reading says.
pub fn metadata(base: &Opened, by: String, from: Vec<String>) -> Result<BTreeMap<String, String>> {
    let mut metadata = base.metadata()?;
    for (key, value) in [(FROM, from.join(", ")), (BY, by)] {
        let line = metadata.entry(key.to_owned()).or_default();
        if !line.is_empty() {
            line.push('\n');
        }
        line.push_str(&value);
    }
    Ok(metadata)
}
