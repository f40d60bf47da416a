//! Foreign files in and out: safetensors, NumPy's `.npy` and `.npz`, torch's `.pt` (in), GGUF (in).
//!
//! [`Foreign`] is an open foreign file whose tensors are read one at a time; [`Note`] says what
//! could not be carried over as it was. Files are told apart by their content, never by their name.
//! They are untrusted: no code runs, no panic, every count is checked against the bytes that are
//! there, and what a file unfolds to in memory is charged to a budget.

mod blob;
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
mod safetensors;
mod sniff;
mod strided;
mod tensor;
mod torch;
mod unique;

pub use export::{Export, ExportOptions, Input, differences, export, export_with, npy_bytes};
pub use import::{import, repack};
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
    record_names: Names,
    notes: Vec<Note>,
}

impl Foreign {
    /// The format of a file, told from its first bytes; None when it is none that this module
    /// knows. The folder of a checkpoint that `torch.distributed.checkpoint` saved is of torch's
    /// format.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Foreign` for a folder that is no such checkpoint.
    pub fn sniff(path: impl AsRef<Path>) -> Result<Option<Format>> {
        let path = path.as_ref();
        if torch::distributed::metadata(path).map_err(|error| error.in_object(path.display()))?.is_some() {
            return Ok(Some(Format::Torch));
        }
        let blob = local::open_file(path)?;
        Ok(sniff::sniff(&sniff::head(&blob)?).map(Kind::format))
    }

    /// Opens a foreign file. Reads what it says of its tensors, not their bytes.
    ///
    /// A checkpoint of `torch.distributed.checkpoint` is opened whole, by its folder or by one of
    /// the files in it. What the file unfolds to in memory may be 64 MiB, and 8 bytes for each of
    /// its own; the files of an index and the parts of a split model count as one file: see
    /// [`Foreign::open_within`].
    ///
    /// # Errors
    /// `NotFound`; `Foreign` when it is no format that this module knows; `Damaged` when it lies;
    /// `Unsupported` for variants that cannot be read; `LimitExceeded` beyond the budget; `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_path(path.as_ref(), None)
    }

    /// As [`Foreign::open`], with a budget in bytes for what the file unfolds to in memory: the
    /// objects of a pickle, text and paths as often as they are repeated, records, and tensors that
    /// are larger than what is stored of them.
    ///
    /// # Errors
    /// As [`Foreign::open`].
    pub fn open_within(path: impl AsRef<Path>, budget: u64) -> Result<Self> {
        Self::open_path(path.as_ref(), Some(budget))
    }

    fn open_path(path: &Path, budget: Option<u64>) -> Result<Self> {
        let opened = || {
            if let Some(metadata) = torch::distributed::metadata(path)? {
                let len = torch::distributed::folder_len(&metadata);
                let budget = Budget::for_file(budget, len);
                return torch::distributed::open(&metadata, &budget);
            }
            let blob = local::open_file(path)?;
            let budget = Budget::for_file(budget, blob.len());
            Self::parse(path, &blob, &budget)
        };
        let foreign = opened().map_err(|error: Error| error.in_object(path.display()))?;
        Ok(index::told_if_part(path, foreign.tidied(path)))
    }

    /// As [`Foreign::open_within`], of bytes that lie anywhere: for fuzzers, which would spend
    /// their time on files.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn open_blob(blob: &Arc<dyn Blob>, budget: u64) -> Result<Self> {
        Self::of_blob(Path::new("/nonexistent/fuzzed"), blob, &Budget::new(budget))
    }

    /// A file of which the bytes are at hand; its path says what may lie beside it.
    fn of_blob(path: &Path, blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Self> {
        Self::parse(path, blob, budget).map(|foreign| foreign.tidied(path))
    }

    /// With names that a checkpoint can have, and with what opaque tensors mean under these.
    fn tidied(mut self, path: &Path) -> Self {
        self.name = path.display().to_string();
        self.tidy_names();
        self.tell_meanings();
        self
    }

    /// A file with its own names, of which a checkpoint may not be able to have each.
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
                sniff::check_single(&archive)?;
                match torch::pickle_name(&archive) {
                    Some(pickle) => torch::open(blob, archive, &pickle, budget),
                    None => npz::open(blob, archive, budget),
                }
            }
            Some(Kind::Distributed) | None => Err(sniff::unknown(&head)),
        }
    }

    fn empty(format: Format, len: u64) -> Self {
        let (name, tensors, by_name, metadata, records, record_names, notes) = Default::default();
        Self { format, name, len, tensors, by_name, metadata, records, record_names, notes }
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

    /// A tensor that will be carried over: a truth value that is neither 0 nor 1 is refused, in the
    /// name of the file that has it.
    fn load_truthful(&self, tensor: &ForeignTensor) -> Result<Tensor<'static>> {
        let loaded = self.load(tensor)?;
        export::check_bools(tensor.dtype, 0, loaded.bytes())
            .map_err(|error| error.in_tensor(&tensor.name).in_object(&self.name))?;
        Ok(loaded)
    }

    /// As [`Inspect::visit_chunks_with`](crate::inspect::Inspect::visit_chunks_with), over
    /// [`ForeignTensor::chunks`] pieces. The only checksums are a zip archive's (`.npz`, `.pt`): a
    /// member's is compared before its first piece is visited.
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
                snapshot = snapshot.tie(&tensor.name, other)?;
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

/// An error of ours about a shape or a length is the file's lie here.
fn lie(error: Error) -> Error {
    let kind = error.kind();
    if kind == ErrorKind::Invalid { error.with_kind(ErrorKind::Damaged) } else { error }
}
