//! Imports files as checkpoints: each is written under a temporary name, compared with its source,
//! and only then renamed.

use super::export::{Input, differences, differs};
use super::{Foreign, carried};
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::error::Result;
use crate::format::records;
use crate::writer::{WriteOptions, Written};
use std::path::Path;

/// Writes a foreign file as a checkpoint to `path`, replacing an existing file. The new file is
/// read back and compared bit for bit before it gets its name: tensors, aliases, records and
/// metadata.
///
/// # Errors
/// As [`Snapshot::save_with`](crate::Snapshot::save_with), `Damaged` when the source is damaged or
/// the new file differs. On every error but `Unknown` `path` is unchanged.
pub fn import(foreign: &Foreign, path: &Path, options: &WriteOptions) -> Result<Written> {
    foreign.snapshot()?.save_checked(path, options, |staged| {
        let written = OpenOptions::new().open_blob(staged.open()?, path.display().to_string())?;
        check(foreign, &written)
    })
}

/// Writes a checkpoint again to `path`, with another codec or other chunks, replacing an existing
/// file. The new file is read back and compared bit for bit before it gets its name, as by
/// [`import`].
///
/// # Errors
/// As [`Snapshot::save_with`](crate::Snapshot::save_with), `Unsupported` for a shard and for a
/// dtype, codec or feature that this version does not know, `Damaged` when the source is damaged or
/// the new file differs. On every error but `Unknown` `path` is unchanged.
pub fn repack(checkpoint: &Checkpoint, path: &Path, options: &WriteOptions) -> Result<Written> {
    checkpoint.check_changeable()?;
    checkpoint.inspect().to_snapshot()?.save_checked(path, options, |staged| {
        let written = OpenOptions::new().open_blob(staged.open()?, path.display().to_string())?;
        check_same(checkpoint, &written)
    })
}

/// Checks that two checkpoints hold the same tensors, aliases and records.
fn check_same(source: &Checkpoint, written: &Checkpoint) -> Result<()> {
    for info in source.tensors() {
        let found = written.info(info.name)?;
        let same = info.dtype == found.dtype
            && info.shape.iter().eq(found.shape.iter())
            && info.alias_of == found.alias_of;
        if !same {
            return Err(differs("dtype, shape or alias").in_tensor(info.name));
        }
        if info.alias_of.is_some() {
            continue;
        }
        let theirs = written.tensor(info.name)?;
        let mut same = theirs.bytes().len() as u64 == info.byte_len;
        source.inspect().visit_chunks(info.name, 0..info.chunks, |start, bytes| {
            let start = start as usize;
            same &= theirs.bytes().get(start..start + bytes.len()) == Some(bytes);
            Ok(())
        })?;
        if !same {
            return Err(differs("bytes").in_tensor(info.name));
        }
    }
    let counts = [source, written].map(|of| (of.names().count(), of.records().len()));
    if counts[0] != counts[1] {
        return Err(differs("number of tensors and records")
            .expected(format!("{:?}", counts[0]))
            .found(format!("{:?}", counts[1])));
    }
    for name in source.records() {
        if source.record_bytes(name)?[..] != written.record_bytes(name)?[..] {
            return Err(differs("a record").in_record(name));
        }
    }
    Ok(())
}

fn check(foreign: &Foreign, written: &Checkpoint) -> Result<()> {
    for tensor in foreign.tensors() {
        let info = written.info(&tensor.name)?;
        let shape = tensor.shape.iter().map(|&dim| dim as u64);
        let same = info.dtype == Ok(tensor.dtype)
            && shape.eq(info.shape.iter().copied())
            && info.alias_of == tensor.alias_of.as_deref();
        if !same {
            return Err(differs("dtype, shape or alias").in_tensor(&tensor.name));
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
        let (expected, found) = (carried::stored(name, value)?, written.inspect().record_value(name)?);
        if records::encode(&expected)? != records::encode(&found)? {
            return Err(differs("a record").in_record(name));
        }
    }
    Ok(())
}
