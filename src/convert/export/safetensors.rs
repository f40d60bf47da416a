//! Exports safetensors: assigns tensors to files, and makes each file's header.

use super::input::Item;
use super::{Input, Written};
use crate::convert::safetensors::dtypes::{self, Known};
use crate::convert::safetensors::{DTYPE_KEY, LONGEST_HEADER, METADATA_KEY};
use crate::convert::{Note, carried, rename_meanings};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// A planned file.
pub struct Plan<'c> {
    /// Length of the header, and the header.
    pub header: Vec<u8>,
    /// The tensors in the order of their bytes.
    pub written: Vec<Written<'c>>,
    pub len: u64,
}

/// A tensor with its dtype and shape in the header.
struct Entry<'c> {
    written: Written<'c>,
    dtype: &'static str,
    shape: Vec<u64>,
}

/// Plans one file, or several shards of at most `max_shard_bytes`.
///
/// # Errors
/// `Unsupported` for a name that no tensor can have in safetensors, and for a header that readers
/// would refuse.
pub fn plan<'c>(
    input: Input<'c>,
    items: Vec<Item<'c>>,
    max_shard_bytes: Option<u64>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Plan<'c>>> {
    let mut metadata = input.metadata()?;
    let mut names: BTreeMap<String, Option<String>> =
        input.items(&mut vec![])?.into_iter().map(|item| (item.name.to_owned(), None)).collect();
    names.extend(items.iter().map(|item| (item.name.to_owned(), Some(item.target().to_owned()))));
    let entries =
        items.into_iter().map(|item| entry(item, &mut metadata, notes)).collect::<Result<Vec<_>>>()?;
    let metadata = rename_meanings(metadata, &names);
    let mut records = Vec::new();
    for name in input.record_names() {
        match input.record(name) {
            Ok(value) => records.push((name.to_owned(), value)),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let what = "record dropped: stored by a codec that this version does not know";
                notes.push(Note::lost(name, what));
            }
            Err(error) => return Err(error),
        }
    }
    let text = carried::pack(metadata, records, notes);
    let groups = groups(entries, max_shard_bytes);
    let of_shard = |(number, entries)| {
        // The user's metadata goes into every file, records into the first.
        let mut text = text.clone();
        text.retain(|key, _| number == 0 || !carried::is_record_key(key));
        file(entries, text)
    };
    groups.into_iter().enumerate().map(of_shard).collect()
}

/// The header's entry for a tensor. Metadata that describes opaque bytes is removed, because the
/// entry contains it.
fn entry<'c>(
    item: Item<'c>,
    metadata: &mut BTreeMap<String, String>,
    notes: &mut Vec<Note>,
) -> Result<Entry<'c>> {
    if item.target() == METADATA_KEY {
        return Err(Error::new(ErrorKind::Unsupported, "a tensor cannot have this name in safetensors")
            .in_tensor(item.name)
            .help("it is the key of the metadata there; export to .npz, or rename the tensor"));
    }
    let name = item.target().to_owned();
    let key = format!("{DTYPE_KEY}{}", item.name);
    let bytes = vec![usize::try_from(item.byte_len).unwrap_or(usize::MAX)];
    if item.dtype == Dtype::Opaque
        && item.shape.len() == 1
        && let Some(description) = metadata.get(&key)
        && let Some((known, shape)) = dtypes::packed_of(description, item.byte_len)
    {
        let meaning = Some(dtypes::described(known.name, &shape));
        metadata.remove(&key);
        let written = Written { item, name, dtype: Dtype::Opaque, shape: bytes, meaning };
        return Ok(Entry { written, dtype: known.name, shape });
    }
    if let Some(known) = Known::of_dtype(item.dtype) {
        let shape = item.shape.iter().map(|&dim| dim as u64).collect();
        let written = Written { name, dtype: item.dtype, shape: item.shape.clone(), item, meaning: None };
        return Ok(Entry { written, dtype: known.name, shape });
    }
    notes.push(Note::lost(item.name, format!("{} has no name in safetensors: written as U8", item.dtype)));
    let shape = vec![item.byte_len];
    let written = Written { item, name, dtype: Dtype::U8, shape: bytes, meaning: None };
    Ok(Entry { written, dtype: "U8", shape })
}

/// Splits as Hugging Face's libraries do: in the order of the names, with a new file when the next
/// tensor does not fit.
fn groups(entries: Vec<Entry<'_>>, most: Option<u64>) -> Vec<Vec<Entry<'_>>> {
    let mut groups = vec![vec![]];
    let mut held = 0_u64;
    for entry in entries {
        let len = entry.written.item.byte_len;
        let is_full = most.is_some_and(|most| held > 0 && held.saturating_add(len) > most);
        if is_full {
            groups.push(vec![]);
            held = 0;
        }
        held = held.saturating_add(len);
        if let Some(last) = groups.last_mut() {
            last.push(entry);
        }
    }
    groups
}

fn file(mut entries: Vec<Entry<'_>>, text: BTreeMap<String, String>) -> Result<Plan<'_>> {
    // Widest elements first, like the safetensors crate, so that each tensor is aligned to its
    // element.
    entries.sort_by(|a, b| {
        let width = |entry: &Entry<'_>| entry.written.item.dtype.size();
        width(b).cmp(&width(a)).then(a.written.name.cmp(&b.written.name))
    });
    let longest = text.iter().max_by_key(|(_, text)| text.len()).map(|(key, text)| (key.clone(), text.len()));
    let mut header = serde_json::Map::new();
    if !text.is_empty() {
        let text = text.into_iter().map(|(key, text)| (key, serde_json::Value::from(text)));
        header.insert(METADATA_KEY.to_owned(), text.collect());
    }
    let mut end = 0_u64;
    for Entry { written, dtype, shape } in &entries {
        let start = end;
        end = end.saturating_add(written.item.byte_len);
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(written.name.clone(), entry);
    }
    let mut json = serde_json::to_vec(&header)
        .map_err(|error| Error::invalid("the header cannot be JSON").because(error))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() as u64 > LONGEST_HEADER {
        let error = Error::new(ErrorKind::Unsupported, "the header would be longer than safetensors reads")
            .expected(format!("at most {LONGEST_HEADER} bytes"))
            .found(json.len());
        return Err(match longest {
            Some((key, len)) => error.help(format!("the longest part of it is {key:?} with {len} bytes")),
            None => error,
        });
    }
    let header = [&(json.len() as u64).to_le_bytes(), &json[..]].concat();
    let len = end.saturating_add(header.len() as u64);
    Ok(Plan { header, written: entries.into_iter().map(|entry| entry.written).collect(), len })
}
