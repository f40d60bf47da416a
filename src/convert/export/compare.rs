//! Compares an exported file with its source: its header, names, dtypes, shapes and every byte.

use super::input::Item;
use super::{Input, Written};
use crate::checkpoint::inspect::Scratch;
use crate::convert::Foreign;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// The tensors of a checkpoint, or of a foreign file, that `foreign` does not hold bit for bit
/// under the same name, and why.
///
/// # Errors
/// `Damaged`, `Io`.
pub fn differences<'c>(input: impl Into<Input<'c>>, foreign: &Foreign) -> Result<Vec<String>> {
    let input = input.into();
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    for item in input.items(&mut unreadable)? {
        match same_bytes(input, &item, foreign, item.name) {
            Ok(true) => {}
            Ok(false) => found.push(format!("{}: other bytes", item.name)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                found.push(format!("{}: missing", item.name));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Checks that a file which was just written matches the plan.
///
/// # Errors
/// `Damaged` with the first tensor that differs.
pub fn check(input: Input<'_>, written: &[Written<'_>], foreign: &Foreign) -> Result<()> {
    let theirs: BTreeMap<&str, _> =
        foreign.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    if theirs.len() != written.len() {
        return Err(differs("number of tensors").expected(written.len()).found(theirs.len()));
    }
    for Written { item, name, dtype, shape, meaning } in written {
        let found = theirs.get(name.as_str()).ok_or_else(|| differs("it is missing").in_tensor(name))?;
        if (found.dtype, &found.shape) != (*dtype, shape) {
            return Err(differs("dtype and shape")
                .in_tensor(name)
                .expected(format!("{dtype} {shape:?}"))
                .found(format!("{} {:?}", found.dtype, found.shape)));
        }
        let found = found.meaning.as_ref().map(|meaning| &meaning.text);
        if found != meaning.as_ref() {
            let words = |meaning: Option<&String>| meaning.map_or("nothing", String::as_str).to_owned();
            return Err(differs("what its bytes are said to be")
                .in_tensor(name)
                .expected(words(meaning.as_ref()))
                .found(words(found)));
        }
        if !same_bytes(input, item, foreign, name)? {
            return Err(differs("bytes").in_tensor(name));
        }
    }
    Ok(())
}

/// Checks that a file begins with the header that was planned, and so with its metadata and
/// records.
///
/// # Errors
/// `Damaged`, and errors of reading.
pub fn check_head(blob: &dyn Blob, head: &[u8]) -> Result<()> {
    let mut found = vec![0; head.len()];
    blob.read_at(0, &mut found)?;
    if found == head { Ok(()) } else { Err(differs("its header")) }
}

/// The error of a failed comparison: a file written by this program must read back the same.
pub fn differs(what: &'static str) -> Error {
    Error::damaged(format!("what was written differs: {what}"))
        .help("nothing was replaced; this is a bug of tensorkeep, or memory or a disk that fails")
}

/// Whether a tensor's bytes equal those of `foreign` under a name.
///
/// # Errors
/// `NotFound` when `foreign` has no tensor of this name, and errors of reading.
pub fn same_bytes(input: Input<'_>, item: &Item<'_>, foreign: &Foreign, name: &str) -> Result<bool> {
    let mut theirs = foreign.ranges(name)?;
    if theirs.len() != item.byte_len {
        return Ok(false);
    }
    let mut same = true;
    let mut scratch = Scratch::default();
    input.visit(item, |start, bytes| {
        same &= theirs.read(start, bytes.len(), &mut scratch)? == bytes;
        Ok(())
    })?;
    Ok(same)
}
