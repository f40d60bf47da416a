//! Opening a checkpoint: from a file, read or mapped, from memory, or from an engine's blob.

use super::shards::{Folder, Siblings};
use super::{Checkpoint, MappedCopy};
use crate::buffer::Buffer;
use crate::engine::memory::MemoryBlob;
use crate::engine::{Blob, MmapPromise, local};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// When checksums of tensors and records are verified. Header, footer and index always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Each chunk, when it is first touched. No unverified byte is given out.
    #[default]
    OnTouch,
    /// Everything when the file is opened; bytes that are read, not mapped, again when they are
    /// read.
    AtOpen,
    /// Not at all: damaged bytes are returned as data. For measurements, and for inspecting a
    /// damaged file.
    Never,
}

/// Options for opening a checkpoint, and the calls that open it, like [`std::fs::OpenOptions`].
///
/// ```
/// # use tensorkeep::{OpenOptions, Snapshot, Verify};
/// # let path = std::env::temp_dir().join(format!("tensorkeep-doc-options-{}.tkeep", std::process::id()));
/// # let mut snapshot = Snapshot::new().tensor("w", &[1.0_f32, 2.0][..])?;
/// # snapshot.save(&path)?;
/// let checkpoint = OpenOptions::new().verify(Verify::AtOpen).budget(1 << 30).open(&path)?;
/// assert_eq!(checkpoint.tensor("w")?.shape(), [2]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    pub(super) verify: Verify,
    pub(super) budget: u64,
    pub(super) workers: Option<usize>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { verify: Verify::OnTouch, budget: u64::MAX, workers: None }
    }
}

impl OpenOptions {
    /// Verified on touch, without a memory budget.
    pub fn new() -> Self {
        Self::default()
    }

    /// When to verify.
    pub fn verify(self, verify: Verify) -> Self {
        Self { verify, ..self }
    }

    /// The most bytes that one tensor, one record or the index may take in memory. Mapped raw
    /// tensors take none. While it verifies or decodes, each thread may hold one more chunk of up
    /// to 1 MiB, the default size.
    ///
    /// Without a budget, the only limit is for a record read as a [`Value`](crate::Value), which
    /// takes up to 64 times its stored bytes: 256 MiB, enough for any text and for lists of 3
    /// million numbers.
    pub fn budget(self, budget: u64) -> Self {
        Self { budget, ..self }
    }

    /// Number of threads, at least 1 (the calling thread), by default the number of cores. Threads
    /// read, verify and decode from 8 MiB on, checksum an index from 2 MiB on, and validate it from
    /// 65,536 entries on. They end with the call.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound`, `Foreign`, `Damaged`, `NewerVersion`, `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        self.open_in(local::open_file(path)?, path.display().to_string(), Some(beside(path, None)))
    }

    /// Maps a file like [`Checkpoint::map`], under a promise made beforehand.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn map(self, path: impl AsRef<Path>, promise: MmapPromise) -> Result<Checkpoint> {
        let path = path.as_ref();
        let blob = local::map_file(path, promise)?;
        self.open_in(blob, path.display().to_string(), Some(beside(path, Some(promise))))
    }

    /// Maps a file copy-on-write like [`MappedCopy::open`], under a promise made beforehand.
    ///
    /// # Errors
    /// As [`OpenOptions::open`]; `Damaged` for any tensor, unless the options say
    /// [`Verify::Never`]; `Unsupported` for a dtype or codec that this version does not know, and
    /// on a network file system, where files are never mapped; `LimitExceeded` for a tensor to be
    /// decoded beyond the budget.
    pub fn map_copy(self, path: impl AsRef<Path>, promise: MmapPromise) -> Result<MappedCopy> {
        let path = path.as_ref();
        let (blob, memory) = local::map_copy_of_file(path, promise)?;
        MappedCopy::new(self.open_blob(blob, path.display().to_string())?, memory)
    }

    /// Opens an engine's blob. `name` appears in messages. A manifest's tensors that lie in shards
    /// are listed and cannot be read.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_blob(self, blob: Arc<dyn Blob>, name: impl Into<String>) -> Result<Checkpoint> {
        self.open_in(blob, name, None)
    }

    /// As [`OpenOptions::open_blob`], with the objects beside it.
    pub(crate) fn open_in(
        self,
        blob: Arc<dyn Blob>,
        name: impl Into<String>,
        siblings: Option<Arc<dyn Siblings>>,
    ) -> Result<Checkpoint> {
        let name = name.into();
        Checkpoint::parse(blob, &name, self, siblings).map_err(|error| error.in_object(&name))
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.workers {
            Some(0) => Err(Error::invalid("number of workers").expected("at least 1").found(0)),
            _ => Ok(()),
        }
    }

    /// Whether damaged bytes are returned as data.
    pub(super) fn verifies_nothing(self) -> bool {
        self.verify == Verify::Never
    }
}

/// The files beside this one.
fn beside(path: &Path, map: Option<MmapPromise>) -> Arc<dyn Siblings> {
    Arc::new(Folder { path: path.parent().map(Path::to_path_buf).unwrap_or_default(), map })
}

impl Checkpoint {
    /// Opens a file for reading. [`OpenOptions::open`] has options.
    ///
    /// # Errors
    /// `NotFound`, `Foreign`, `Damaged`, `NewerVersion`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// Maps a file: raw tensors are used in place, without a copy. On a network file system (NFS,
    /// SMB, 9p, FUSE, Lustre, Ceph, …) it is opened for reading instead, like [`Checkpoint::open`],
    /// because a file that another machine truncates would kill a process that maps it.
    ///
    /// # Safety
    /// No process writes to or truncates the file while this checkpoint, or any tensor or view of
    /// it, lives; see [`MmapPromise`]. Files published by this library are never written again and
    /// may be unlinked or replaced.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    #[expect(unsafe_code, reason = "hands the promise on; the mapping itself is in engine/vfs/map.rs")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the caller of this function gives exactly the promise that `assume_unchanged`
        // asks for.
        let promise = unsafe { MmapPromise::assume_unchanged() };
        OpenOptions::new().map(path, promise)
    }

    /// Opens a container that is in memory: for tests, and for bytes received over a network. The
    /// bytes are copied once, into aligned memory; tensors stored raw are then borrowed.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        OpenOptions::new().open_blob(Arc::new(MemoryBlob(Buffer::copy_of(bytes)?)), "bytes in memory")
    }
}

impl MappedCopy {
    /// Maps a file copy-on-write: its tensors can be changed in place, and training goes on in the
    /// mapped file itself, which never changes. [`OpenOptions::map_copy`] has options.
    ///
    /// # Safety
    /// As [`Checkpoint::map`]: no *other* writer changes the file. Changes made through the mapping
    /// do not count.
    ///
    /// # Errors
    /// As [`OpenOptions::map_copy`].
    #[expect(unsafe_code, reason = "hands the promise on; the mapping itself is in engine/vfs/map.rs")]
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the caller of this function gives exactly the promise that `assume_unchanged`
        // asks for.
        let promise = unsafe { MmapPromise::assume_unchanged() };
        OpenOptions::new().map_copy(path, promise)
    }
}
