//! Foreign files: imports safetensors, NumPy's `.npy` and `.npz`, torch's `.pt` and GGUF; exports
//! safetensors, `.npy` and `.npz`.
//!
//! [`Foreign`] is an open foreign file whose tensors are read one at a time; each [`Note`] records
//! something that could not be converted unchanged. Files are recognised by their content, never by
//! their names. They are untrusted: no code runs, nothing panics, every count is checked against
//! the bytes in the file, and memory is charged to a budget.

mod blob;
mod bools;
mod carried;
mod export;
mod gguf;
mod import;
mod index;
mod meaning;
mod naming;
mod npy;
mod npz;
mod pickle;
mod ranges;
mod records;
mod renaming;
mod safetensors;
mod sniff;
mod strided;
mod tensor;
mod torch;
mod unique;

pub use export::{Export, ExportOptions, Input, differences, export, export_with, npy_bytes};
pub use import::{import, repack};
pub use renaming::{meaning_of, rename_meanings};
pub use tensor::ForeignTensor;

use crate::budget::Budget;
use crate::checkpoint::inspect::Scratch;
use crate::engine::{Blob, local};
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use crate::snapshot::{LazyTensor, Snapshot};
use crate::tensor::Tensor;
use naming::Names;
use sniff::Kind;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tensor::{PIECE, Place};

/// A foreign format.
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

    /// The format for a path's extension in any case, for writing.
    pub fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
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

/// Something that was renamed, dropped or stored differently in a conversion, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// The tensor, record or key concerned.
    pub name: String,
    /// The change, and its reason.
    pub what: String,
    /// Whether it loses data.
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

/// An open foreign file. Its tensors are listed, and read on request.
#[derive(Debug)]
pub struct Foreign {
    format: Format,
    name: String,
    len: u64,
    tensors: Vec<ForeignTensor>,
    /// Index in `tensors`, by name.
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    records: BTreeMap<String, Value>,
    record_names: Names,
    notes: Vec<Note>,
}

impl Foreign {
    /// Recognises a file's format by its first bytes; None for a format unknown to this module. The
    /// folder of a checkpoint of `torch.distributed.checkpoint` has torch's format.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Foreign` for a folder that is not such a checkpoint.
    pub fn sniff(path: impl AsRef<Path>) -> Result<Option<Format>> {
        let path = path.as_ref();
        if torch::distributed::metadata(path).map_err(|error| error.in_object(path.display()))?.is_some() {
            return Ok(Some(Format::Torch));
        }
        let blob = local::open_file(path)?;
        Ok(sniff::sniff(&sniff::head(&blob)?).map(Kind::format))
    }

    /// Opens a foreign file. Reads the description of its tensors, not their bytes.
    ///
    /// A checkpoint of `torch.distributed.checkpoint` is opened as a whole, by its folder or by any
    /// file in it. The file may take 64 MiB of memory, and 8 more bytes for each of its own; the
    /// files of an index and the parts of a split model count as one file. See
    /// [`Foreign::open_within`].
    ///
    /// # Errors
    /// `NotFound`; `Foreign` for a format unknown to this module; `Damaged` when its contents
    /// contradict each other; `Unsupported` for variants that cannot be read; `LimitExceeded`
    /// beyond the budget; `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_path(path.as_ref(), None)
    }

    /// Like [`Foreign::open`], with a budget in bytes for the memory that the file takes: the
    /// objects of a pickle, text and paths for each occurrence, records, and tensors that are
    /// larger than their stored bytes.
    ///
    /// # Errors
    /// As [`Foreign::open`].
    pub fn open_within(path: impl AsRef<Path>, budget: u64) -> Result<Self> {
        Self::open_path(path.as_ref(), Some(budget))
    }

    fn open_path(path: &Path, budget: Option<u64>) -> Result<Self> {
        let foreign = Self::parse_path(path, budget).map_err(|error| error.in_object(path.display()))?;
        Ok(index::note_if_part(path, foreign.tidied(path)))
    }

    fn parse_path(path: &Path, budget: Option<u64>) -> Result<Self> {
        if let Some(metadata) = torch::distributed::metadata(path)? {
            let len = torch::distributed::folder_len(&metadata);
            return torch::distributed::open(&metadata, &Budget::for_file(budget, len));
        }
        let blob = local::open_file(path)?;
        Self::parse(path, &blob, &Budget::for_file(budget, blob.len()))
    }

    /// Like [`Foreign::open_within`], for bytes anywhere: for fuzzers, which files would slow down.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn open_blob(blob: &Arc<dyn Blob>, budget: u64) -> Result<Self> {
        Self::of_blob(Path::new("/nonexistent/fuzzed"), blob, &Budget::new(budget))
    }

    /// A file whose bytes are in `blob`; other files may be beside its path.
    fn of_blob(path: &Path, blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Self> {
        Self::parse(path, blob, budget).map(|foreign| foreign.tidied(path))
    }

    /// Makes names valid for a checkpoint, and notes under these names what opaque tensors mean.
    fn tidied(mut self, path: &Path) -> Self {
        self.name = path.display().to_string();
        self.tidy_names();
        self.note_meanings();
        self
    }

    /// A file with its original names, which may be invalid in a checkpoint.
    fn parse(path: &Path, blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Self> {
        let head = sniff::head(blob)?;
        match sniff::sniff(&head) {
            Some(Kind::Safetensors) => safetensors::open(blob, budget),
            Some(Kind::Index) => index::open(path, blob, budget),
            Some(Kind::Npy) => npy::open(blob, budget),
            Some(Kind::Gguf) => gguf::open(path, blob, budget),
            Some(Kind::TorchPickles) => torch::open_legacy(blob, budget),
            Some(Kind::Zip) => {
                let archive = blob::archive(blob)?;
                let note = sniff::check_single(blob, &archive)?;
                let mut foreign = match torch::pickle_name(&archive) {
                    Some(pickle) => torch::open(blob, archive, &pickle, budget),
                    None => npz::open(blob, archive, budget),
                }?;
                foreign.notes.extend(note);
                Ok(foreign)
            }
            Some(Kind::Distributed) | None => Err(sniff::unknown(&head)),
        }
    }

    fn empty(format: Format, len: u64) -> Self {
        Self {
            format,
            name: String::new(),
            len,
            tensors: Vec::new(),
            by_name: HashMap::new(),
            metadata: BTreeMap::new(),
            records: BTreeMap::new(),
            record_names: Names::default(),
            notes: Vec::new(),
        }
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
    pub fn byte_len(&self) -> u64 {
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

    /// Values that are neither tensors nor text, by name.
    pub fn records(&self) -> &BTreeMap<String, Value> {
        &self.records
    }

    /// Notes on everything that was renamed or lost.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn find(&self, name: &str) -> Result<&ForeignTensor> {
        self.by_name.get(name).map(|&number| &self.tensors[number]).ok_or_else(|| {
            let names = self.tensors.iter().map(|tensor| tensor.name.as_str());
            crate::names::not_found("tensor", name, crate::names::nearest(name, names)).in_object(&self.name)
        })
    }

    /// Reads one tensor. If a zip member holds it, the member's checksum is verified.
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

    /// A tensor to be converted: a bool that is neither 0 nor 1 is refused, with the name of its
    /// file.
    fn load_truthful(&self, tensor: &ForeignTensor) -> Result<Tensor<'static>> {
        let loaded = self.load(tensor)?;
        export::check_bools(tensor.dtype, 0, loaded.bytes())
            .map_err(|error| error.in_tensor(&tensor.name).in_object(&self.name))?;
        Ok(loaded)
    }

    /// Like [`Inspect::visit_chunks_with`](crate::inspect::Inspect::visit_chunks_with), over
    /// [`ForeignTensor::chunks`] pieces. Only zip archives (`.npz`, `.pt`) have checksums: a
    /// member's is verified before its first piece is visited.
    ///
    /// # Errors
    /// As [`Foreign::tensor`], and any error of `visit`.
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

    /// A snapshot whose tensors are read one at a time while it is written.
    ///
    /// # Errors
    /// `Invalid` for contents that a checkpoint cannot hold.
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        let mut snapshot = Snapshot::new();
        for tensor in &self.tensors {
            if let Some(other) = &tensor.alias_of {
                snapshot = snapshot.alias(&tensor.name, other)?;
                continue;
            }
            let deferred = LazyTensor::new(tensor.dtype, &tensor.shape, move || self.load_truthful(tensor));
            snapshot = snapshot.tensor(&tensor.name, deferred)?;
        }
        for (name, value) in &self.records {
            carried::put(&mut snapshot, name, value)?;
        }
        for (key, value) in &self.metadata {
            snapshot = snapshot.metadata(key, value)?;
        }
        Ok(snapshot)
    }
}

/// Our error about an invalid shape or length means that the file is damaged.
fn lie(error: Error) -> Error {
    let kind = error.kind();
    if kind == ErrorKind::Invalid { error.with_kind(ErrorKind::Damaged) } else { error }
}
