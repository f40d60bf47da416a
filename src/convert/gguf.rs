//! Imports GGUF, llama.cpp's format, versions 2 and 3, whole or split into several files. Key-value
//! pairs become a record; quantised tensors are kept as opaque bytes, with their ggml type in the
//! metadata.

mod fields;
mod split;
mod types;

use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note};
use crate::budget::Budget;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use fields::{Described, Fields};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use types::GgmlType;

/// The record with all key-value pairs.
const RECORD: &str = "gguf";
/// Prefix of a tensor's name in the metadata key that holds its ggml type and shape.
pub const TYPE_KEY: &str = "gguf.type.";

/// The header of one file.
struct Part {
    blob: Arc<dyn Blob>,
    pairs: BTreeMap<String, Value>,
    tensors: Vec<Described>,
    alignment: u64,
    data_start: u64,
}

/// Opens a file, and with it the other parts of a split model, which must be beside it.
pub fn open(path: &Path, blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let first = Part::read(blob, budget)?;
    let mut foreign = Foreign::empty(Format::Gguf, 0);
    let mut names = HashSet::new();
    let mut pairs = BTreeMap::new();
    for mut part in split::parts(path, first, budget)? {
        foreign.len += part.blob.len();
        let data_len = part.blob.len().saturating_sub(part.data_start);
        for (tensor, room) in with_room(std::mem::take(&mut part.tensors), data_len)? {
            push(&mut foreign, &part, &tensor, room)?;
            if names.contains(&tensor.name) {
                return Err(Error::damaged("two tensors have this name").in_tensor(shown(&tensor.name)));
            }
            names.insert(tensor.name);
        }
        for (key, value) in part.pairs {
            if pairs.get(&key).is_some_and(|earlier| *earlier != value) {
                foreign.notes.push(Note::lost(&key, "dropped: another part has another value for this key"));
            }
            pairs.entry(key).or_insert(value);
        }
    }
    foreign.keep_record(RECORD, Value::Map(pairs));
    Ok(foreign)
}

impl Part {
    fn read(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Self> {
        let mut fields = Fields::new(blob, budget);
        fields.take::<4>()?;
        check_version(fields.u32()?)?;
        let tensor_count = fields.u64()?;
        let pair_count = fields.u64()?;
        let mut pairs = BTreeMap::new();
        for _ in 0..fields.plausible(pair_count, 13)? {
            let at = fields.at;
            let key = String::from_utf8(fields.text()?)
                .map_err(|error| Error::damaged("a key is no text").at_byte(at).because(error))?;
            let kind = fields.u32()?;
            let value = fields.value(kind, 0).map_err(|error| error.at_byte(fields.at))?;
            if pairs.insert(key.clone(), value).is_some() {
                return Err(Error::damaged(format!("key {key:?} stands twice")).at_byte(at));
            }
        }
        let mut tensors = Vec::new();
        for _ in 0..fields.plausible(tensor_count, 24)? {
            tensors.push(fields.tensor()?);
        }
        let alignment = match pairs.get("general.alignment") {
            Some(Value::Int(alignment)) if *alignment > 0 && *alignment <= 1 << 30 => *alignment as u64,
            None => 32,
            Some(other) => return Err(Error::damaged("general.alignment").found(other)),
        };
        let data_start = fields.at.next_multiple_of(alignment);
        Ok(Self { blob: Arc::clone(blob), pairs, tensors, alignment, data_start })
    }
}

/// The version is the first number of the file, and reveals its byte order.
fn check_version(version: u32) -> Result<()> {
    let unsupported = |what: &'static str| Error::new(ErrorKind::Unsupported, what);
    match version {
        2 | 3 => Ok(()),
        0 | 1 => Err(unsupported("GGUF version 1, which was written until October 2023")
            .expected("version 2 or 3")
            .found(version)
            .help("convert the original model again with a current llama.cpp")),
        _ if (1..=0xFFFF).contains(&version.swap_bytes()) => {
            Err(unsupported("a big-endian GGUF file, of a machine such as s390x")
                .found(format!("version {} in big-endian order", version.swap_bytes()))
                .help("`gguf-convert-endian FILE little` of Python's gguf package turns it round"))
        }
        _ => Err(Error::new(ErrorKind::NewerVersion, "GGUF version")
            .expected("2 or 3")
            .found(version)
            .help("a newer tensorkeep may know it")),
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The tensors in their own order, each with the bytes from its offset to the next tensor or the
/// end of the file.
///
/// # Errors
/// `Damaged` for tensors that overlap: llama.cpp never writes any, and a few bytes shared by many
/// tensors would be terabytes when all are read.
fn with_room(tensors: Vec<Described>, data_len: u64) -> Result<Vec<(Described, u64)>> {
    // A tensor whose length is unknown has at least one byte.
    let least = |tensor: &Described| {
        let settled = GgmlType::of(tensor.ggml_type).filter(|known| known.is_settled());
        settled.and_then(|known| known.byte_len(&tensor.dims)).unwrap_or(1)
    };
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // An empty tensor goes before others at the same offset.
    order.sort_by_key(|&i| (tensors[i].offset, least(&tensors[i])));
    let mut rooms = vec![0; tensors.len()];
    for (place, &i) in order.iter().enumerate() {
        let tensor = &tensors[i];
        let next = order.get(place + 1).map(|&next| &tensors[next]);
        rooms[i] = next.map_or(data_len, |next| next.offset).saturating_sub(tensor.offset);
        if let Some(next) = next
            && least(tensor) > rooms[i]
        {
            return Err(Error::damaged("its bytes are another tensor's, too")
                .in_tensor(shown(&tensor.name))
                .expected(format!("{} bytes from offset {}", least(tensor), tensor.offset))
                .found(format!("tensor {} at offset {}", shown(&next.name), next.offset)));
        }
    }
    Ok(tensors.into_iter().zip(rooms).collect())
}

/// The name of a tensor's type, and its length in bytes. A tensor of an unknown or unconfirmed type
/// takes all of its room, padding included.
fn name_and_len(tensor: &Described, room: u64, alignment: u64) -> Result<(String, u64)> {
    let wrong = |what: &'static str| Error::damaged(what).in_tensor(shown(&tensor.name));
    let known = GgmlType::of(tensor.ggml_type);
    let len = known.map(|known| known.byte_len(&tensor.dims));
    match (known, len) {
        (Some(known), Some(Some(len)))
            if known.is_settled() || len == room || len.next_multiple_of(alignment) == room =>
        {
            Ok((known.name.to_owned(), len))
        }
        (Some(known), None | Some(None)) if known.is_settled() => {
            Err(wrong("rows are no whole number of blocks, or the shape overflows"))
        }
        _ if room == 0 => Err(wrong("its bytes begin where the file ends")),
        _ => Ok((format!("ggml type {}", tensor.ggml_type), room)),
    }
}

fn push(foreign: &mut Foreign, part: &Part, tensor: &Described, room: u64) -> Result<()> {
    let name = shown(&tensor.name);
    let wrong = |what: &'static str| Error::damaged(what).in_tensor(&name);
    if name.as_bytes() != tensor.name {
        foreign.notes.push(Note::kept(&name, "renamed: its name is not UTF-8"));
    }
    let at = part.data_start.checked_add(tensor.offset).ok_or_else(|| wrong("offset overflows"))?;
    // ggml lists the fastest axis first, we the slowest.
    let shape: Option<Vec<usize>> = tensor.dims.iter().rev().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| wrong("shape overflows"))?;
    let place = Place::At(Arc::clone(&part.blob), at);
    if let Some(dtype) = GgmlType::of(tensor.ggml_type).and_then(|known| known.dtype) {
        foreign.tensors.push(ForeignTensor::new(name, dtype, shape, place)?);
        return Ok(());
    }
    let (type_name, len) = name_and_len(tensor, room, part.alignment)?;
    let len = usize::try_from(len).map_err(|_| wrong("length overflows"))?;
    let what = format!("{type_name} {shape:?}");
    foreign.notes.push(Note::kept(&name, format!("{what} kept as opaque blocks")));
    foreign.tensors.push(ForeignTensor::new(name, Dtype::Opaque, vec![len], place)?.meaning(TYPE_KEY, what));
    Ok(())
}
