//! Imports safetensors: 8 bytes of header length, a JSON header, bytes. Accepts and refuses the
//! same files as the format's own crate, which refuses holes, overlaps, bytes outside of tensors,
//! and lengths that do not match the shape.

pub mod dtypes;
mod header;

use super::naming::{Names, valid_name};
use super::records::depth;
use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, carried, lie, unique};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, Result};
use crate::format::limits::Limits;
use crate::format::table::check_name;
use crate::format::value::Value;
use dtypes::Known;
use header::{Entry, Header};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The reference's own limit: it opens no longer header.
pub const LONGEST_HEADER: u64 = 100_000_000;
/// The header key for metadata; no tensor can have this name.
pub const METADATA_KEY: &str = "__metadata__";
/// Prefix of a tensor's name in the metadata key that holds its dtype's name and its shape, if the
/// dtype has less than a byte, or is unknown.
pub const DTYPE_KEY: &str = "safetensors.dtype.";
/// The record of everything in entries besides dtype, shape and offsets.
const EXTRA_RECORD: &str = "safetensors";

/// Opens one file.
pub fn open(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let (header, data_start) = read_header(blob, budget)?;
    let mut foreign = Foreign::empty(Format::Safetensors, blob.len());
    let mut entries = header.entries;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    let mut extra = BTreeMap::new();
    for (name, mut entry) in entries {
        let (start, stop) = entry.data_offsets;
        if start != end || stop < start {
            return Err(Error::damaged("tensors must lie one behind the other, without holes")
                .in_tensor(name)
                .expected(format!("a start at {end}"))
                .found(format!("{start}..{stop}")));
        }
        end = stop;
        if !entry.extra.is_empty() {
            extra.insert(name.clone(), std::mem::take(&mut entry.extra));
        }
        push(&mut foreign, name, &entry, blob, data_start)?;
    }
    if data_start + end != blob.len() {
        return Err(Error::damaged("the tensors do not cover the file")
            .expected(format!("{} bytes", data_start.saturating_add(end)))
            .found(blob.len()));
    }
    take_metadata(&mut foreign, header.metadata, budget)?;
    keep_extra(&mut foreign, extra);
    Ok(foreign)
}

fn read_header(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<(Header, u64)> {
    let mut len = [0; 8];
    blob.read_at(0, &mut len)?;
    let len = u64::from_le_bytes(len);
    if len > LONGEST_HEADER || len.checked_add(8).is_none_or(|start| start > blob.len()) {
        return Err(Error::damaged("length of the header")
            .at_byte(0)
            .expected(format!("at most {LONGEST_HEADER} and within the file"))
            .found(len));
    }
    // OK to cast: at most 100 MB, and the file is that long.
    budget.spend(len, "the header")?;
    let mut text = vec![0; len as usize];
    blob.read_at(8, &mut text)?;
    unique::charge(&text, budget)?;
    let header = serde_json::from_slice(&text)
        .map_err(|error| Error::damaged("the header is not safetensors' JSON").at_byte(8).because(error))?;
    Ok((header, 8 + len))
}

fn push(
    foreign: &mut Foreign,
    name: String,
    entry: &Entry,
    blob: &Arc<dyn Blob>,
    data_start: u64,
) -> Result<()> {
    let (start, stop) = entry.data_offsets;
    let shape: Result<Vec<usize>, _> = entry.shape.iter().map(|&len| usize::try_from(len)).collect();
    let shape = shape.map_err(|error| Error::damaged("shape overflows").in_tensor(&name).because(error))?;
    let offset = data_start.checked_add(start).ok_or_else(|| Error::damaged("offset overflows"))?;
    let place = Place::At(Arc::clone(blob), offset);
    let disagree = |expected: String| {
        Error::damaged("shape and offsets disagree")
            .in_tensor(&name)
            .expected(expected)
            .found(format!("{start}..{stop}"))
    };
    if let Some(&Known { dtype: Some(dtype), .. }) = Known::of(&entry.dtype) {
        let tensor = ForeignTensor::new(name.clone(), dtype, shape, place).map_err(lie)?;
        if tensor.byte_len as u64 != stop - start {
            return Err(disagree(format!("{} bytes", tensor.byte_len)));
        }
        foreign.tensors.push(tensor);
        return Ok(());
    }
    if let Some(known) = Known::of(&entry.dtype) {
        match known.byte_len(&entry.shape) {
            Some(len) if len == stop - start => {}
            Some(len) => return Err(disagree(format!("{len} bytes"))),
            None => return Err(disagree("a whole number of bytes".to_owned())),
        }
    }
    let len = usize::try_from(stop - start).map_err(|_| Error::damaged("length overflows"))?;
    let what = dtypes::described(&entry.dtype, &entry.shape);
    foreign.notes.push(Note::kept(&name, format!("{what} kept as opaque bytes")));
    foreign.tensors.push(ForeignTensor::new(name, Dtype::Opaque, vec![len], place)?.meaning(DTYPE_KEY, what));
    Ok(())
}

/// Restores the records of an export.
fn take_metadata(foreign: &mut Foreign, metadata: BTreeMap<String, String>, budget: &Budget) -> Result<()> {
    let carried = carried::unpack(metadata, budget)?;
    for name in carried.records.keys() {
        foreign.record_names.take(name);
    }
    foreign.records = carried.records;
    let (valid, other): (BTreeMap<_, _>, BTreeMap<_, _>) =
        carried.metadata.into_iter().partition(|(key, _)| check_name(key).is_ok());
    let mut names = Names::default();
    for key in valid.keys() {
        names.take(key);
    }
    foreign.metadata = valid;
    for (key, text) in other {
        let valid = names.free(&valid_name(&key));
        foreign.notes.push(Note::kept(&valid, format!("metadata key renamed from {key:?}")));
        foreign.metadata.insert(valid, text);
    }
    Ok(())
}

/// Keeps what entries say besides dtype, shape and offsets. The reference ignores it, so what no
/// record can hold is no reason to refuse the file.
fn keep_extra(foreign: &mut Foreign, extra: BTreeMap<String, BTreeMap<String, Value>>) {
    // The record and each of its entries are maps.
    let deepest = Limits::V1.record_depth - 2;
    let mut kept = BTreeMap::new();
    for (name, mut entry) in extra {
        entry.retain(|key, value| {
            let fits = depth(value) <= deepest;
            if !fits {
                let what = format!("dropped: {key:?} of its entry, nested more than {deepest} deep");
                foreign.notes.push(Note::lost(&name, what));
            }
            fits
        });
        if !entry.is_empty() {
            kept.insert(name, Value::Map(entry));
        }
    }
    if kept.is_empty() {
        return;
    }
    let what = format!("{} entries say more than the format knows: kept in this record", kept.len());
    if let Some(record) = foreign.keep_record(EXTRA_RECORD, Value::Map(kept)) {
        foreign.notes.push(Note::kept(record, what));
    }
}
