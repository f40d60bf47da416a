//! Index files of sharded models, `model.safetensors.index.json` and
//! `pytorch_model.bin.index.json`, which map each tensor to a file beside them. These files are
//! opened like any other, by content.

use super::sniff::{self, Kind};
use super::unique::{self, Unique};
use super::{Foreign, Format, Note};
use crate::budget::Budget;
use crate::engine::{Blob, local};
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

/// The longest index: it names every tensor once.
const LONGEST_INDEX: u64 = 100_000_000;
/// The record of everything in an index besides its map.
const RECORD: &str = "index";
/// Sums, which would be wrong for another file.
const SUMS: [&str; 2] = ["total_size", "total_parameters"];

#[derive(Deserialize)]
struct Index {
    weight_map: Unique<String>,
    #[serde(default)]
    metadata: Option<Unique<Value>>,
}

/// Opens all files of an index, which must be beside it.
pub fn open(path: &Path, blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let index = read(blob, budget)?;
    let weight_map = index.weight_map.0;
    let mut whole = Foreign::empty(Format::Safetensors, 0);
    // Memory besides the map: the list of files, the tensors by name, and the new place of each of
    // a file's tensors.
    const PER_TENSOR: u64 = 96;
    budget.spend((weight_map.len() as u64).saturating_mul(PER_TENSOR), "the lists of an index")?;
    let files: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    for (number, file) in files.into_iter().enumerate() {
        let shard = open_shard(path, file, budget)?;
        if number == 0 {
            whole.format = shard.format;
        }
        join(&mut whole, shard, file, &weight_map);
    }
    let found: HashSet<&str> = whole.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    if let Some((name, file)) = weight_map.iter().find(|(name, _)| !found.contains(name.as_str())) {
        return Err(Error::damaged(format!("the index says it is in {file}, and it is not")).in_tensor(name));
    }
    let mut besides = index.metadata.map_or_else(BTreeMap::new, |unique| unique.0);
    besides.retain(|key, _| !SUMS.contains(&key.as_str()));
    if !besides.is_empty() && !whole.records.contains_key(RECORD) {
        whole.keep_record(RECORD, Value::Map(besides));
    }
    Ok(whole)
}

fn read(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Index> {
    if blob.len() > LONGEST_INDEX {
        return Err(Error::new(ErrorKind::LimitExceeded, "length of the index file")
            .expected(format!("at most {LONGEST_INDEX}"))
            .found(blob.len()));
    }
    budget.spend(blob.len(), "the index")?;
    let mut text = vec![0; blob.len() as usize];
    blob.read_at(0, &mut text)?;
    unique::charge(&text, budget)?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(ErrorKind::Foreign, "JSON, but not an index of safetensors or torch files").because(error)
    })
}

fn open_shard(path: &Path, file: &str, budget: &Budget) -> Result<Foreign> {
    // A name in an index must not lead out of the folder.
    if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', '\0']) {
        return Err(Error::damaged(format!("the index names the file {file:?}")).expected("a file beside it"));
    }
    let shard = path.with_file_name(file);
    let place = |error: Error| error.in_object(shard.display());
    let blob = local::open_file(&shard).map_err(place)?;
    budget.add_file(blob.len());
    if sniff::sniff(&sniff::head(&blob)?) == Some(Kind::Index) {
        return Err(place(Error::damaged("an index within an index").expected("a file of tensors")));
    }
    Foreign::parse(&shard, &blob, budget).map_err(place)
}

/// Adds the contents of a file, except tensors that the index places elsewhere.
fn join(whole: &mut Foreign, shard: Foreign, file: &str, weight_map: &BTreeMap<String, String>) {
    whole.len += shard.len;
    // The index of each of the file's tensors in the whole; aliases are by number.
    let mut places: Vec<Option<usize>> = Vec::new();
    for mut tensor in shard.tensors {
        let is_wanted = weight_map.get(&tensor.name).is_some_and(|of| of == file);
        places.push(is_wanted.then_some(whole.tensors.len()));
        if !is_wanted {
            whole.notes.push(Note::lost(&tensor.name, format!("in {file}, but not by the index")));
            continue;
        }
        // An alias of a tensor that is left out keeps its bytes, as a tensor of its own.
        tensor.alias_index = tensor.alias_index.and_then(|first| *places.get(first)?);
        whole.tensors.push(tensor);
    }
    whole.notes.extend(shard.notes);
    for (key, text) in shard.metadata {
        let there = whole.metadata.entry(key.clone()).or_insert_with(|| text.clone());
        if *there != text {
            whole.notes.push(Note::lost(&key, format!("dropped: {file} has another text for this key")));
        }
    }
    for (name, value) in shard.records {
        let agree = match whole.records.get_mut(&name) {
            Some(there) => merge(there, value),
            None => whole.records.insert(name.clone(), value).is_none(),
        };
        if !agree {
            whole
                .notes
                .push(Note::lost(&name, format!("dropped in part: {file} has another record of this name")));
        }
    }
}

/// Adds the missing keys; false if an existing key has another value.
fn merge(there: &mut Value, value: Value) -> bool {
    match (there, value) {
        (Value::Map(there), Value::Map(more)) => more.into_iter().fold(true, |agree, (key, value)| {
            let kept = there.entry(key).or_insert_with(|| value.clone());
            agree && *kept == value
        }),
        (there, value) => *there == value,
    }
}

/// Notes that a file opened by itself is one of several, by its name:
/// `model-00001-of-00002.safetensors`.
pub fn note_if_part(path: &Path, mut foreign: Foreign) -> Foreign {
    let leaf = path.file_name().and_then(|leaf| leaf.to_str()).unwrap_or_default();
    let part = part_of(leaf).filter(|(_, count)| *count > 1 && foreign.format != Format::Gguf);
    if let Some((number, count)) = part {
        let what =
            format!("part {number} of {count} by its name: the others were not read; open their index");
        foreign.notes.push(Note::lost(leaf, what));
    }
    foreign
}

/// Number and count of `…-00001-of-00002.extension`.
fn part_of(leaf: &str) -> Option<(u32, u32)> {
    let (rest, count) = leaf.rsplit_once('.')?.0.rsplit_once("-of-")?;
    let number = rest.rsplit_once('-')?.1;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse().ok())?;
    Some((digits(number)?, digits(count)?))
}
