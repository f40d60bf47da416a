//! Foreign files in and out: safetensors, NumPy's `.npy` and `.npz`, torch's `.pt` (in), GGUF (in). Owns: [`Foreign`],
//! an open foreign file whose tensors are read one at a time, and [`Note`], what could not be carried over as it was.
//!
//! Files are told apart by their content, never by their name. They are untrusted: no code runs, no panic, and nothing
//! is allocated that is out of proportion to the file: every count is checked against the bytes that are there.

mod blob;
mod carried;
mod export;
mod gguf;
mod import;
mod index;
mod npy;
mod npz;
mod pickle;
mod ranges;
mod safetensors;
mod strided;
mod tensor;
mod torch;
mod unique;

pub use export::{Export, ExportOptions, Input, differences, export, export_with, npy_bytes};
pub use import::import;
pub use tensor::ForeignTensor;

use crate::checkpoint::Scratch;
use crate::engine::{Blob, local};
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use crate::snapshot::{Deferred, Snapshot};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tensor::{PIECE, Place};

/// A format that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One safetensors file, or an index file of several.
    Safetensors,
    /// One NumPy array.
    Npy,
    /// A zip archive of NumPy arrays.
    Npz,
    /// torch's zip archive around a pickle. Read only.
    Torch,
    /// llama.cpp's GGUF. Read only.
    Gguf,
}

impl Format {
    /// The format's name, which is also its usual extension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Torch => "pt",
            Self::Gguf => "gguf",
        }
    }

    /// The format that a path's extension asks for, for writing.
    pub fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "safetensors" => Some(Self::Safetensors),
            "npy" => Some(Self::Npy),
            "npz" => Some(Self::Npz),
            "pt" | "pth" => Some(Self::Torch),
            "gguf" => Some(Self::Gguf),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that was renamed, dropped or stored differently on the way, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// The tensor, record or key concerned.
    pub name: String,
    /// What became of it, and why.
    pub what: String,
    /// Whether something is lost by that.
    pub loss: bool,
}

impl Note {
    fn kept(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self { name: name.into(), what: what.into(), loss: false }
    }

    fn lost(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self { name: name.into(), what: what.into(), loss: true }
    }
}

/// An open foreign file: what it holds is known, its tensors are read when they are asked for.
#[derive(Debug)]
pub struct Foreign {
    format: Format,
    name: String,
    len: u64,
    tensors: Vec<ForeignTensor>,
    /// Places in `tensors`, by name.
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    records: BTreeMap<String, Value>,
    notes: Vec<Note>,
}

impl Foreign {
    /// The format of a file, told from its first bytes; None when it is none that this module knows.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn sniff(path: impl AsRef<Path>) -> Result<Option<Format>> {
        let blob = local::open_file(path.as_ref())?;
        let mut head = [0; 16];
        let len = blob.len().min(16) as usize;
        blob.read_at(0, &mut head[..len])?;
        Ok(sniff(&head[..len]))
    }

    /// Opens a foreign file. Reads what it says of its tensors, not their bytes.
    ///
    /// # Errors
    /// `NotFound`; `Foreign` when it is no format that this module knows; `Damaged` when it lies; `Unsupported` for
    /// variants that cannot be read; `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let blob = local::open_file(path)?;
        Self::parse(path, &blob).map_err(|error| error.in_object(path.display()))
    }

    fn parse(path: &Path, blob: &Arc<dyn Blob>) -> Result<Self> {
        let mut head = [0; 16];
        let len = blob.len().min(16) as usize;
        blob.read_at(0, &mut head[..len])?;
        let format = sniff(&head[..len]).ok_or_else(|| {
            Error::new(ErrorKind::Foreign, "not a format that can be read")
                .expected("tensorkeep, safetensors, .npy, .npz, .pt of torch 1.6 or later, or GGUF")
                .found(first_bytes(&head[..len]))
        })?;
        let mut foreign = match format {
            Format::Safetensors if is_index(blob)? => index::open(path, blob)?,
            Format::Safetensors => safetensors::open(blob)?,
            Format::Npy => npy::open(blob)?,
            Format::Gguf => gguf::open(path, blob)?,
            Format::Npz | Format::Torch => {
                let archive = blob::archive(blob)?;
                match torch::pickle_name(&archive) {
                    Some(pickle) => torch::open(blob, archive, &pickle)?,
                    None => npz::open(blob, archive)?,
                }
            }
        };
        foreign.name = path.display().to_string();
        foreign.tidy_names();
        Ok(foreign)
    }

    fn empty(format: Format, len: u64) -> Self {
        let (name, tensors, by_name, metadata, records, notes) = Default::default();
        Self { format, name, len, tensors, by_name, metadata, records, notes }
    }

    /// Names that a checkpoint cannot have are changed, and that is noted.
    fn tidy_names(&mut self) {
        let mut taken: HashSet<String> = HashSet::new();
        let mut renamed = BTreeMap::new();
        for tensor in &mut self.tensors {
            let mut name = valid_name(&tensor.name);
            let mut count = 2;
            while taken.contains(&name) {
                name = format!("{}~{count}", valid_name(&tensor.name));
                count += 1;
            }
            if name != tensor.name {
                let what = format!("renamed from {:?}: not a name, or taken", tensor.name);
                self.notes.push(Note::kept(name.clone(), what));
                renamed.insert(std::mem::replace(&mut tensor.name, name.clone()), name.clone());
            }
            taken.insert(name);
            if let Some(other) = tensor.alias_of.as_mut() {
                renamed.get(other).into_iter().for_each(|new| *other = new.clone());
            }
        }
        let names = self.tensors.iter().map(|tensor| tensor.name.clone());
        self.by_name = names.enumerate().map(|(number, name)| (name, number)).collect();
    }

    /// The path, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Length of the file, or of all files of an index, in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[ForeignTensor] {
        &self.tensors
    }

    /// Text by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What is neither a tensor nor text, by name.
    pub fn records(&self) -> &BTreeMap<String, Value> {
        &self.records
    }

    /// What was renamed or cannot be carried over.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn find(&self, name: &str) -> Result<&ForeignTensor> {
        self.by_name.get(name).map(|&number| &self.tensors[number]).ok_or_else(|| {
            let names = self.tensors.iter().map(|tensor| tensor.name.as_str());
            crate::names::not_found("tensor", name, crate::names::nearest(name, names)).in_object(&self.name)
        })
    }

    /// Reads one tensor. The checksum of the zip member that holds it is compared, if there is one.
    ///
    /// # Errors
    /// `NotFound` with the nearest name, `Damaged`, `LimitExceeded`, `Io`.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'static>> {
        let tensor = self.find(name)?;
        self.load(tensor)
    }

    fn load(&self, tensor: &ForeignTensor) -> Result<Tensor<'static>> {
        let place = |error: Error| error.in_tensor(&tensor.name).in_object(&self.name);
        let bytes = tensor.load().map_err(place)?;
        Tensor::owned(tensor.dtype, &tensor.shape, bytes).map_err(|error| place(lie(error)))
    }

    /// As [`Checkpoint::visit_chunks_with`](crate::Checkpoint::visit_chunks_with), over [`ForeignTensor::chunks`] pieces.
    /// The only checksums are a zip archive's (`.npz`, `.pt`): a member's is compared before its first piece is visited.
    ///
    /// # Errors
    /// As [`Foreign::tensor`], and what `visit` returns.
    pub fn visit_chunks_with(
        &self,
        name: &str,
        chunks: Range<usize>,
        scratch: &mut Scratch,
        mut visit: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let tensor = self.find(name)?;
        let Place::At(blob, offset) = &tensor.place else {
            if chunks.is_empty() || tensor.byte_len == 0 {
                return Ok(());
            }
            return visit(0, self.load(tensor)?.bytes());
        };
        for number in chunks.start..chunks.end.min(tensor.chunks()) {
            let start = number * PIECE;
            let piece = scratch.stored.room(PIECE.min(tensor.byte_len - start))?;
            blob.read_at(offset + start as u64, piece)
                .map_err(|error| error.in_tensor(name).in_object(&self.name))?;
            visit(start as u64, piece)?;
        }
        Ok(())
    }

    /// A snapshot whose tensors are read one at a time when it is written.
    ///
    /// # Errors
    /// `Invalid` for what a checkpoint cannot hold.
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        let mut snapshot = Snapshot::new();
        for tensor in &self.tensors {
            if let Some(other) = &tensor.alias_of {
                snapshot.tie(&tensor.name, other)?;
                continue;
            }
            let deferred = Deferred::new(tensor.dtype, &tensor.shape, move || self.load(tensor));
            snapshot.tensor(&tensor.name, deferred)?;
        }
        for (name, value) in &self.records {
            carried::put(&mut snapshot, name, value)?;
        }
        for (key, value) in &self.metadata {
            snapshot.metadata(key, value)?;
        }
        Ok(snapshot)
    }
}

fn sniff(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"\x93NUMPY") {
        return Some(Format::Npy);
    }
    if head.starts_with(b"GGUF") {
        return Some(Format::Gguf);
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        // Which of the two it is, the archive's list of names says.
        return Some(Format::Npz);
    }
    if head.get(8) == Some(&b'{') && head[..8] != [b'{'; 8] {
        return Some(Format::Safetensors);
    }
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    (first == Some(&b'{') && head.first() == Some(&b'{')).then_some(Format::Safetensors)
}

/// Whether a file that begins like safetensors is an index: JSON from its first byte on.
fn is_index(blob: &Arc<dyn Blob>) -> Result<bool> {
    let mut head = [0; 9];
    let len = blob.len().min(9) as usize;
    blob.read_at(0, &mut head[..len])?;
    Ok(head[0] == b'{' && (head[8] != b'{' || head[..8] == [b'{'; 8]))
}

/// An error of ours about a shape or a length is the file's lie here.
fn lie(error: Error) -> Error {
    let kind = error.kind();
    if kind == ErrorKind::Invalid { error.with_kind(ErrorKind::Damaged) } else { error }
}

fn first_bytes(head: &[u8]) -> String {
    if head.is_empty() {
        return "an empty file".to_owned();
    }
    if head.starts_with(&[0x80]) {
        return "a bare pickle, as torch before 1.6 saved them; load and save it once with a newer torch"
            .to_owned();
    }
    let bytes: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("first bytes {}", bytes.join(" "))
}

/// A name that a checkpoint can have: no control characters, not empty, not too long.
fn valid_name(name: &str) -> String {
    if crate::format::table::check_name(name).is_ok() {
        return name.to_owned();
    }
    let clean: String = name.chars().map(|c| if c.is_control() { '_' } else { c }).take(200).collect();
    if crate::format::table::check_name(&clean).is_ok() { clean } else { "unnamed".to_owned() }
}
