//! safetensors, in: 8 bytes of header length, a JSON header, bytes. Owns: its rules (no holes, no overlaps, all bytes
//! covered) and the index files of sharded models.

use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, lie};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::{Blob, local};
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;
/// An index names every tensor once.
const LONGEST_INDEX: u64 = 100_000_000;
/// Metadata keys under which our own export carries records.
pub const RECORD_KEY: &str = "tensorkeep.record.";

/// Dtypes by the format's names.
pub const DTYPES: &[(&str, Dtype)] = &[
    ("BOOL", Dtype::Bool),
    ("U8", Dtype::U8),
    ("I8", Dtype::I8),
    ("U16", Dtype::U16),
    ("I16", Dtype::I16),
    ("U32", Dtype::U32),
    ("I32", Dtype::I32),
    ("U64", Dtype::U64),
    ("I64", Dtype::I64),
    ("F16", Dtype::F16),
    ("BF16", Dtype::Bf16),
    ("F32", Dtype::F32),
    ("F64", Dtype::F64),
    ("C64", Dtype::C64),
    ("F8_E4M3", Dtype::F8E4M3Fn),
    ("F8_E5M2", Dtype::F8E5M2),
    ("F8_E8M0", Dtype::F8E8M0Fnu),
    ("F8_E4M3FNUZ", Dtype::F8E4M3FnUz),
    ("F8_E5M2FNUZ", Dtype::F8E5M2FnUz),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    entries: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("key {key:?} stands twice")));
            }
            if key == "__metadata__" {
                header.metadata = map.next_value()?;
            } else {
                header.entries.push((key, map.next_value()?));
            }
        }
        Ok(header)
    }
}

pub fn open(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let (header, data_start) = read_header(blob, budget)?;
    let mut foreign = Foreign::empty(Format::Safetensors, blob.len());
    let mut entries = header.entries;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    for (name, entry) in entries {
        let (start, stop) = entry.data_offsets;
        if start != end || stop < start {
            return Err(Error::damaged("tensors must lie one behind the other, without holes")
                .in_tensor(name)
                .expected(format!("a start at {end}"))
                .found(format!("{start}..{stop}")));
        }
        end = stop;
        foreign.push(name, &entry, blob, data_start)?;
    }
    if data_start + end != blob.len() {
        return Err(Error::damaged("the tensors do not cover the file")
            .expected(format!("{} bytes", data_start.saturating_add(end)))
            .found(blob.len()));
    }
    foreign.take_metadata(header.metadata);
    Ok(foreign)
}

fn read_header(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<(Header, u64)> {
    let mut len = [0; 8];
    blob.read_at(0, &mut len)?;
    let len = u64::from_le_bytes(len);
    if len > LONGEST_HEADER || len.checked_add(8).is_none_or(|start| start > blob.len()) {
        return Err(Error::damaged("length of the header")
            .at_byte(0)
            .expected(format!("at most {} and within the file", LONGEST_HEADER))
            .found(len));
    }
    budget.spend(len, "the header")?;
    // OK to cast: at most 100 MB, and the file has that many.
    let mut text = vec![0; len as usize];
    blob.read_at(8, &mut text)?;
    let header = serde_json::from_slice(&text)
        .map_err(|error| Error::damaged("the header is not safetensors' JSON").at_byte(8).because(error))?;
    Ok((header, 8 + len))
}

impl Foreign {
    fn push(&mut self, name: String, entry: &Entry, blob: &Arc<dyn Blob>, data_start: u64) -> Result<()> {
        let (start, stop) = entry.data_offsets;
        let shape: Result<Vec<usize>, _> = entry.shape.iter().map(|&len| usize::try_from(len)).collect();
        let shape =
            shape.map_err(|error| Error::damaged("shape overflows").in_tensor(&name).because(error))?;
        let place = |offset| Place::At(Arc::clone(blob), offset);
        let offset = data_start.checked_add(start).ok_or_else(|| Error::damaged("offset overflows"))?;
        let known = DTYPES.iter().find(|(known, _)| *known == entry.dtype);
        let Some(&(_, dtype)) = known else {
            let len = usize::try_from(stop - start).map_err(|_| Error::damaged("length overflows"))?;
            let what = format!("dtype {} {:?} kept as opaque bytes", entry.dtype, entry.shape);
            self.notes.push(Note::kept(&name, what));
            self.metadata
                .insert(format!("safetensors.dtype.{name}"), format!("{} {:?}", entry.dtype, entry.shape));
            self.tensors.push(ForeignTensor::new(name, Dtype::Opaque, vec![len], place(offset))?);
            return Ok(());
        };
        let tensor = ForeignTensor::new(name, dtype, shape, place(offset)).map_err(lie)?;
        if tensor.byte_len as u64 != stop - start {
            return Err(Error::damaged("shape and offsets disagree")
                .in_tensor(&tensor.name)
                .expected(format!("{} bytes", tensor.byte_len))
                .found(format!("{start}..{stop}")));
        }
        self.tensors.push(tensor);
        Ok(())
    }

    /// Records that our own export carried come back as records.
    fn take_metadata(&mut self, metadata: BTreeMap<String, String>) {
        for (key, text) in metadata {
            let record = key.strip_prefix(RECORD_KEY).and_then(|name| {
                let value: Value = serde_json::from_str(&text).ok()?;
                Some((name.to_owned(), value))
            });
            if let Some((name, value)) = record.filter(|(name, _)| super::valid_name(name) == *name) {
                self.records.insert(name, value);
                continue;
            }
            let valid = super::valid_name(&key);
            if valid != key {
                self.notes.push(Note::kept(&valid, format!("metadata key renamed from {key:?}")));
            }
            self.metadata.insert(valid, text);
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens all files of an index, which must lie beside it.
pub fn open_index(path: &Path, blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    if blob.len() > LONGEST_INDEX {
        return Err(Error::damaged("length of the index file").found(blob.len()));
    }
    budget.spend(blob.len(), "the index")?;
    let mut text = vec![0; blob.len() as usize];
    blob.read_at(0, &mut text)?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| {
        Error::new(ErrorKind::Foreign, "JSON, but not an index of safetensors files").because(error)
    })?;
    let mut foreign = Foreign::empty(Format::Safetensors, 0);
    let files: std::collections::BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    for file in files {
        // A name in a file must not lead out of the folder.
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', '\0']) {
            return Err(
                Error::damaged(format!("the index names the file {file:?}")).expected("a file beside it")
            );
        }
        let shard = path.with_file_name(file);
        let shard_blob = local::open_file(&shard)?;
        let opened = open(&shard_blob, budget).map_err(|error| error.in_object(shard.display()))?;
        foreign.len += opened.len;
        let wanted = |tensor: &ForeignTensor| index.weight_map.get(&tensor.name).is_some_and(|of| of == file);
        let (wanted, other): (Vec<_>, Vec<_>) = opened.tensors.into_iter().partition(wanted);
        foreign.notes.extend(
            other.iter().map(|tensor| Note::lost(&tensor.name, format!("in {file}, but not by the index"))),
        );
        foreign.tensors.extend(wanted);
        foreign.notes.extend(opened.notes);
        foreign.metadata.extend(opened.metadata);
        foreign.records.extend(opened.records);
    }
    let found: HashSet<&str> = foreign.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    match index.weight_map.iter().find(|(name, _)| !found.contains(name.as_str())) {
        Some((name, file)) => {
            Err(Error::damaged(format!("the index says it is in {file}, and it is not")).in_tensor(name))
        }
        None => Ok(foreign),
    }
}
