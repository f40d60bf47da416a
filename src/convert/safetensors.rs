//! safetensors, in: 8 bytes of header length, a JSON header, bytes. What the format's own crate
//! opens is opened, and what it refuses (holes, overlaps, bytes that no tensor has, lengths that do
//! not fit the shape) is refused.

pub mod dtypes;
mod header;

use super::naming::{Names, valid_name};
use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, carried, lie, unique};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, Result};
use crate::format::table::check_name;
use crate::format::value::Value;
use dtypes::Known;
use header::{Entry, Header};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The reference's own limit: it opens no longer header, and nobody should write one.
pub const LONGEST_HEADER: u64 = 100_000_000;
/// The key that is no tensor's name.
pub const METADATA_KEY: &str = "__metadata__";
/// What goes before a tensor's name in the metadata key that holds its dtype's name and its shape,
/// where the dtype has less than a byte, or is not known.
pub const DTYPE_KEY: &str = "safetensors.dtype.";
/// The record with what entries say besides dtype, shape and offsets.
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
            extra.insert(name.clone(), Value::Map(std::mem::take(&mut entry.extra)));
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
    // OK to cast: at most 100 MB, and the file has that many.
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

/// Records that an export carried come back as records.
fn take_metadata(foreign: &mut Foreign, metadata: BTreeMap<String, String>, budget: &Budget) -> Result<()> {
    let carried = carried::unpack(metadata, budget)?;
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

fn keep_extra(foreign: &mut Foreign, extra: BTreeMap<String, Value>) {
    if extra.is_empty() {
        return;
    }
    let what = format!("{} entries say more than the format knows: kept in this record", extra.len());
    foreign.notes.push(Note::kept(EXTRA_RECORD, what));
    foreign.records.entry(EXTRA_RECORD.to_owned()).or_insert(Value::Map(extra));
}
