//! Checkpoints as safetensors, `.npz` and `.npy`, out. Owns: what those formats can hold, and saying what they cannot.
//! Tensors go through one at a time, chunk by chunk; the file appears whole or not at all.

use super::safetensors::{DTYPES, RECORD_KEY};
use super::{Foreign, Format, Note, npy};
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::engine::{Upload, replace_file};
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use crate::snapshot::RESERVED_PREFIX;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What an export did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Export {
    /// Tensors written.
    pub tensors: usize,
    /// What was renamed, dropped or stored differently.
    pub notes: Vec<Note>,
}

/// One tensor on its way out.
struct Item<'c> {
    info: TensorInfo<'c>,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Writes a checkpoint in another format, replacing `path` atomically.
///
/// # Errors
/// `Unsupported` for formats that are only read, and for a name that the format cannot have; `Invalid` when a `.npy` would have to hold more than one tensor; what
/// reading and writing say. On every error `path` is what it was.
pub fn export(checkpoint: &Checkpoint, path: &Path, format: Format) -> Result<Export> {
    let mut notes = Vec::new();
    let items = items(checkpoint, &mut notes)?;
    match format {
        Format::Safetensors => {
            let (header, items) = plan_safetensors(checkpoint, items, &mut notes)?;
            replace_file(path, None, |upload| {
                upload.append(&header)?;
                items.iter().try_for_each(|item| append(checkpoint, item, upload))
            })?;
            Ok(Export { tensors: items.len(), notes })
        }
        Format::Npz => {
            items.iter().try_for_each(|item| check_member_name(item.info.name))?;
            drop_records(checkpoint, &mut notes);
            let headers = npy_headers(&items, &mut notes)?;
            replace_file(path, None, |upload| write_npz(checkpoint, &items, &headers, upload))?;
            Ok(Export { tensors: items.len(), notes })
        }
        Format::Npy if items.len() == 1 => {
            drop_records(checkpoint, &mut notes);
            let headers = npy_headers(&items, &mut notes)?;
            replace_file(path, None, |upload| {
                upload.append(&headers[0])?;
                append(checkpoint, &items[0], upload)
            })?;
            Ok(Export { tensors: 1, notes })
        }
        Format::Npy => Err(Error::invalid("a .npy file holds one tensor")
            .found(items.len())
            .help("export to .npz, or take one with `tensorkeep get`")),
        Format::Torch | Format::Gguf => {
            Err(Error::new(ErrorKind::Unsupported, format!("{format} is only read, not written"))
                .help("export to safetensors, which torch and llama.cpp's tools read"))
        }
    }
}

/// One tensor as the bytes of a `.npy` file, and what is lost by that.
///
/// # Errors
/// `Unsupported` for a shape that the header cannot hold.
pub fn npy_bytes(tensor: &Tensor<'_>) -> Result<(Vec<u8>, Option<Note>)> {
    let (header, note) = npy_header("array", tensor.dtype(), tensor.shape())?;
    Ok(([&header, tensor.bytes()].concat(), note))
}

/// The tensors of a checkpoint whose bytes a foreign file does not hold under the same name, bit for bit, and why.
///
/// # Errors
/// `Damaged`, `Io`.
pub fn differences(checkpoint: &Checkpoint, foreign: &Foreign) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for info in checkpoint.tensors() {
        let theirs = match foreign.tensor(info.name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                found.push(format!("{}: missing", info.name));
                continue;
            }
            theirs => theirs?,
        };
        let mut same = theirs.bytes().len() as u64 == info.byte_len;
        checkpoint.visit_chunks(info.name, 0..info.chunks, |start, bytes| {
            let start = start as usize;
            same &= theirs.bytes().get(start..start + bytes.len()) == Some(bytes);
            Ok(())
        })?;
        if !same {
            found.push(format!("{}: other bytes", info.name));
        }
    }
    Ok(found)
}

fn items<'c>(checkpoint: &'c Checkpoint, notes: &mut Vec<Note>) -> Result<Vec<Item<'c>>> {
    let mut items = Vec::new();
    for info in checkpoint.tensors() {
        let shape: Option<Vec<usize>> = info.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let (Ok(dtype), Some(shape)) = (info.dtype, shape) else {
            notes.push(Note::lost(info.name, "dropped: a dtype that this version does not know"));
            continue;
        };
        if let Some(other) = info.alias_of {
            notes.push(Note::kept(info.name, format!("tied to {other}, written a second time")));
        }
        items.push(Item { info, dtype, shape });
    }
    Ok(items)
}

fn append(checkpoint: &Checkpoint, item: &Item<'_>, upload: &mut dyn Upload) -> Result<()> {
    checkpoint.visit_chunks(item.info.name, 0..item.info.chunks, |_, bytes| upload.append(bytes))
}

fn plan_safetensors<'c>(
    checkpoint: &Checkpoint,
    mut items: Vec<Item<'c>>,
    notes: &mut Vec<Note>,
) -> Result<(Vec<u8>, Vec<Item<'c>>)> {
    // Widest elements first, as the safetensors crate does: then each tensor is aligned to its own element.
    items.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then(a.info.name.cmp(b.info.name)));
    let mut header = serde_json::Map::new();
    let metadata = metadata(checkpoint, notes)?;
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), metadata.into_iter().collect());
    }
    let mut end = 0_u64;
    for item in &items {
        let start = end;
        end += item.info.byte_len;
        let (dtype, shape) = match DTYPES.iter().find(|(_, dtype)| *dtype == item.dtype) {
            Some((name, _)) => (*name, item.info.shape.to_vec()),
            None => {
                let what = format!("{} has no name in safetensors: written as U8", item.dtype);
                notes.push(Note::lost(item.info.name, what));
                ("U8", vec![item.info.byte_len])
            }
        };
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        if header.insert(item.info.name.to_owned(), entry).is_some() {
            return Err(Error::new(ErrorKind::Unsupported, "a tensor cannot have this name in safetensors")
                .in_tensor(item.info.name));
        }
    }
    let mut text = serde_json::to_vec(&header)
        .map_err(|error| Error::invalid("the header cannot be JSON").because(error))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(([&(text.len() as u64).to_le_bytes(), &text[..]].concat(), items))
}

/// Metadata as text; records as JSON where JSON can hold them.
fn metadata(checkpoint: &Checkpoint, notes: &mut Vec<Note>) -> Result<BTreeMap<String, serde_json::Value>> {
    let mut all: BTreeMap<String, serde_json::Value> =
        checkpoint.metadata()?.into_iter().map(|(key, value)| (key, value.into())).collect();
    if let Some(progress) = checkpoint.progress()? {
        all.insert("tensorkeep.step".to_owned(), progress.step.to_string().into());
        all.insert("tensorkeep.epoch".to_owned(), progress.epoch.to_string().into());
    }
    for (name, value) in checkpoint.metrics()? {
        all.insert(format!("tensorkeep.metric.{name}"), format!("{value:?}").into());
    }
    for name in own_records(checkpoint) {
        let value = checkpoint.record_value(name)?;
        let text = serde_json::to_string(&value).ok();
        let faithful =
            text.filter(|text| serde_json::from_str::<Value>(text).is_ok_and(|again| again == value));
        match faithful {
            Some(text) => {
                all.insert(format!("{RECORD_KEY}{name}"), text.into());
            }
            None => {
                notes.push(Note::lost(name, "record dropped: JSON cannot hold its bytes, keys or numbers"))
            }
        }
    }
    Ok(all)
}

/// The user's records.
fn own_records(checkpoint: &Checkpoint) -> impl Iterator<Item = &str> {
    checkpoint.records().filter(|name| !name.starts_with(RESERVED_PREFIX))
}

fn drop_records(checkpoint: &Checkpoint, notes: &mut Vec<Note>) {
    // When and why it was saved says nothing about the model.
    let dropped = checkpoint.records().filter(|name| *name != "tensorkeep.save");
    notes.extend(dropped.map(|name| Note::lost(name, "record dropped: NumPy's files hold arrays only")));
}

/// An archive's names are paths to whoever unpacks it, on any system: none may lead out of the folder it is unpacked in.
fn check_member_name(name: &str) -> Result<()> {
    let mut parts = name.split(['/', '\\']);
    let is_drive = name.as_bytes().get(1) == Some(&b':');
    if !is_drive && !name.starts_with(['/', '\\']) && parts.all(|part| part != "..") {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "a tensor cannot have this name in an .npz archive");
    Err(error
        .in_tensor(name)
        .found("a path that leads out of the folder into which the archive is unpacked")
        .help("export to safetensors, whose names are not paths"))
}

fn npy_headers(items: &[Item<'_>], notes: &mut Vec<Note>) -> Result<Vec<Vec<u8>>> {
    let header = |item: &Item<'_>| {
        let (header, note) = npy_header(item.info.name, item.dtype, &item.shape)?;
        notes.extend(note);
        Ok(header)
    };
    items.iter().map(header).collect()
}

fn npy_header(name: &str, dtype: Dtype, shape: &[usize]) -> Result<(Vec<u8>, Option<Note>)> {
    let too_long =
        || Error::new(ErrorKind::Unsupported, "the shape is too long for a .npy header").in_tensor(name);
    if let Some(header) = npy::header(dtype, shape) {
        return Ok((header, None));
    }
    let stand_in = if dtype.size() == 2 { Dtype::U16 } else { Dtype::U8 };
    let header = npy::header(stand_in, shape).ok_or_else(too_long)?;
    Ok((header, Some(Note::lost(name, format!("NumPy has no {dtype}: its bytes are written as {stand_in}")))))
}

/// Upload as `Write`. The upload's own error is kept, because `io::Error` would hide its kind.
struct AsWrite<'u> {
    upload: &'u mut dyn Upload,
    error: Option<Error>,
}

impl Write for AsWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.upload.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("the upload failed"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_npz(
    checkpoint: &Checkpoint,
    items: &[Item<'_>],
    headers: &[Vec<u8>],
    upload: &mut dyn Upload,
) -> Result<()> {
    let mut out = AsWrite { upload, error: None };
    let mut archive = ZipWriter::new_stream(&mut out);
    let written = items.iter().zip(headers).try_for_each(|(item, header)| {
        let large = item.info.byte_len >= u64::from(u32::MAX) - (1 << 20);
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
        archive.start_file(format!("{}.npy", item.info.name), options).map_err(zip_error)?;
        archive.write_all(header).map_err(zip_error)?;
        checkpoint.visit_chunks(item.info.name, 0..item.info.chunks, |_, bytes| {
            archive.write_all(bytes).map_err(zip_error)
        })
    });
    let written = written.and_then(|()| archive.finish().map(drop).map_err(zip_error));
    match out.error {
        Some(error) => Err(error),
        None => written,
    }
}

fn zip_error(error: impl Into<io::Error>) -> Error {
    Error::io("writing the zip archive", error.into())
}
