//! Foreign files as checkpoints: written beside, compared with what they came from, and only then given their name.

use super::export::{Input, differences, differs};
use super::{Foreign, carried};
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::error::Result;
use crate::format::records;
use crate::writer::{WriteOptions, Written};
use std::path::Path;

/// Writes a foreign file as a checkpoint to `path`, replacing what is there. What was written is read again and compared
/// bit for bit before it gets its name: tensors, ties, records and metadata.
///
/// # Errors
/// As [`Snapshot::save_with`](crate::Snapshot::save_with), `Damaged` when the file lies or what was written differs. On every
/// error but `Unknown` `path` is what it was.
pub fn import(foreign: &Foreign, path: &Path, options: &WriteOptions) -> Result<Written> {
    foreign.snapshot()?.save_checked(path, options, |staged| {
        let written = OpenOptions::new().open_blob(staged.open()?, path.display().to_string())?;
        check(foreign, &written)
    })
}

fn check(foreign: &Foreign, written: &Checkpoint) -> Result<()> {
    for tensor in foreign.tensors() {
        let info = written.info(&tensor.name)?;
        let shape = tensor.shape.iter().map(|&dim| dim as u64);
        let same = info.dtype == Ok(tensor.dtype)
            && shape.eq(info.shape.iter().copied())
            && info.alias_of == tensor.alias_of.as_deref();
        if !same {
            return Err(differs("dtype, shape or tie").in_tensor(&tensor.name));
        }
    }
    let tensors = written.names().count();
    if tensors != foreign.tensors().len() {
        return Err(differs("number of tensors").expected(foreign.tensors().len()).found(tensors));
    }
    if let Some(first) = differences(Input::Checkpoint(written), foreign)?.into_iter().next() {
        return Err(differs("bytes").found(first));
    }
    if written.metadata()? != *foreign.metadata() {
        return Err(differs("metadata"));
    }
    for (name, value) in foreign.records() {
        // Compared as bytes: NaN is not equal to itself.
        let (expected, found) = (carried::stored(name, value)?, written.record_value(name)?);
        if records::encode(&expected)? != records::encode(&found)? {
            return Err(differs("a record").in_record(name));
        }
    }
    Ok(())
}
