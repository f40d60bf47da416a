//! Writes one file: temporary name, write, fsync, publish, fsync of the folder, fsync again. Here
//! for a key of the engine, which is never replaced; `replace.rs` does it for a plain path.

use super::blocks::{BlockWriter, Spare};
use super::unfinished::Unfinished;
use super::{Folder, PLAIN_TEMP_PREFIX, Publish, Shared, TEMP_PREFIX, in_the_way};
use crate::engine::vfs::{self, Vfs, VfsFile};
use crate::engine::{CommitError, Nonce, Upload, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use crate::names::hex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A shorter file is one write. A longer one goes to the disk in blocks, several at a time, and its
/// space is reserved before the first, so that a full disk shows at once; a short one's write shows
/// it as soon, and reserving more than is written costs a small save a second change of the file.
const BLOCKS_FROM: usize = 4 << 20;

/// A file under a temporary name. Dropped before it is published, it is unlinked.
pub(super) struct TempFile {
    folder: Arc<Folder>,
    file: Arc<dyn VfsFile>,
    pub path: PathBuf,
    /// None once it is published.
    pub unfinished: Option<Unfinished>,
    content: Content,
    reserved: u64,
    spare: Spare,
}

enum Content {
    Gathered(Vec<u8>),
    Blocks(BlockWriter),
}

impl TempFile {
    /// Creates it beside `target`: a rename cannot cross file systems.
    fn create(folder: Arc<Folder>, target: &Path, size_hint: Option<u64>, spare: Spare) -> Result<Self> {
        let path = target.with_file_name(format!("{TEMP_PREFIX}{}-{}", leaf(target), hex(&fresh_nonce())));
        let unfinished = Unfinished::begin(&folder, path.clone());
        let created = folder.vfs.create_new(&path);
        let file = created.map_err(|error| folder.error("creating the temporary file", &path, error))?;
        Self::of(folder, file, path, unfinished, size_hint, spare)
    }

    /// As [`TempFile::create`], for a plain path, whose folder is never swept: the name is the same
    /// every time, so that the next save removes the remains of a killed one. A live writer holds
    /// its file; then the name is a fresh one.
    pub(super) fn create_again(folder: Arc<Folder>, target: &Path, size_hint: Option<u64>) -> Result<Self> {
        let path = target.with_file_name(format!("{PLAIN_TEMP_PREFIX}{}", leaf(target)));
        let vfs = &*folder.vfs;
        // A file that cannot be removed does no harm.
        let _ = vfs.unlink_if_dead(&path);
        let unfinished = Unfinished::begin(&folder, path.clone());
        if let Ok(file) = vfs.create_new(&path) {
            let is_ours = match file.hold() {
                // Between creating and holding, another save may have taken the file for a dead
                // one's.
                Ok(()) => is_at(vfs, &path, &*file),
                // Without file locks, no file is taken for dead.
                Err(error) => error.kind() == io::ErrorKind::Unsupported,
            };
            if is_ours {
                return Self::of(folder, file, path, unfinished, size_hint, Spare::default());
            }
            drop(file);
            let _ = vfs.unlink_if_dead(&path);
        }
        drop(unfinished);
        Self::create(folder, target, size_hint, Spare::default())
    }

    fn of(
        folder: Arc<Folder>,
        file: Arc<dyn VfsFile>,
        path: PathBuf,
        unfinished: Unfinished,
        size_hint: Option<u64>,
        spare: Spare,
    ) -> Result<Self> {
        unfinished.created();
        // Without the capacity, a small file would be copied each time the vector doubles.
        let expected = size_hint.map_or(0, |len| len.min(BLOCKS_FROM as u64) as usize);
        let content = Content::Gathered(Vec::with_capacity(expected));
        let unfinished = Some(unfinished);
        let mut temp = Self { folder, file, path, unfinished, content, reserved: 0, spare };
        if let Some(len) = size_hint.filter(|&len| len >= BLOCKS_FROM as u64) {
            temp.preallocate(len)?;
        }
        Ok(temp)
    }

    fn preallocate(&mut self, len: u64) -> Result<()> {
        match self.file.preallocate(len) {
            Ok(()) => self.reserved = len,
            // Only an early warning: without it a full disk shows while writing.
            Err(error) if is_refusal(&error) => {}
            Err(error) => {
                return Err(self.folder.error(format!("reserving {len} bytes"), &self.path, error));
            }
        }
        Ok(())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let (folder, path) = (&self.folder, &self.path);
        let failed = |error| folder.error("writing", path, error);
        match &mut self.content {
            Content::Gathered(gathered) if gathered.len() + bytes.len() < BLOCKS_FROM => {
                gathered.extend_from_slice(bytes);
            }
            Content::Gathered(gathered) => {
                let mut blocks = BlockWriter::start(&self.file, Arc::clone(&self.spare)).map_err(failed)?;
                blocks.append(gathered).and_then(|()| blocks.append(bytes)).map_err(failed)?;
                self.content = Content::Blocks(blocks);
            }
            Content::Blocks(blocks) => blocks.append(bytes).map_err(failed)?,
        }
        Ok(())
    }

    /// Everything before the fsync: the last bytes and the exact length.
    pub(super) fn complete(&mut self) -> Result<()> {
        let (folder, path) = (&self.folder, &self.path);
        let failed = |error| folder.error("writing", path, error);
        let (len, written) = match &mut self.content {
            Content::Gathered(gathered) => {
                vfs::write_all_at(&*self.file, 0, gathered).map_err(failed)?;
                (gathered.len() as u64, gathered.len() as u64)
            }
            Content::Blocks(blocks) => {
                let len = blocks.len();
                blocks.finish().map_err(failed)?;
                // The last block is padded.
                (len, u64::MAX)
            }
        };
        if self.reserved.max(written) > len {
            let cut = self.file.set_len(len);
            cut.map_err(|error| self.folder.error("cutting the file to its length", &self.path, error))?;
        }
        Ok(())
    }

    pub(super) fn sync(&self, what: &'static str) -> Result<()> {
        self.file.sync().map_err(|error| self.folder.error(what, &self.path, error))
    }

    /// The folder's fsync makes the name durable; the file's second one is for XFS, where the
    /// folder's fsync can return 0 after the file system has shut down while the rename is lost.
    pub(super) fn sync_name(&self, target: &Path) -> Result<()> {
        self.folder.sync_parent(target)?;
        self.file.sync().map_err(|error| self.folder.error("fsync after the rename", target, error))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // The threads of an aborted upload end before its file is removed.
        self.content = Content::Gathered(Vec::new());
        if self.unfinished.is_some() {
            // Best effort: a file that stays has a name that is never listed, and is swept under
            // the next lock.
            let _ = self.folder.vfs.unlink(&self.path);
        }
    }
}

/// The target's part in a temporary name. Names may be 255 bytes.
fn leaf(target: &Path) -> String {
    let leaf = target.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    leaf.chars().take(40).collect()
}

/// Whether a path names this very file.
fn is_at(vfs: &dyn Vfs, path: &Path, file: &dyn VfsFile) -> bool {
    matches!((vfs.lstat(path), file.stat()), (Ok(there), Ok(ours)) if there.id == ours.id)
}

/// The errors by which file systems report an unknown call.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// An upload of the local engine.
pub(super) struct LocalUpload {
    shared: Arc<Shared>,
    temp: TempFile,
    target: PathBuf,
    publish: Publish,
    failed: bool,
}

impl LocalUpload {
    pub(super) fn start(
        shared: Arc<Shared>,
        target: PathBuf,
        publish: Publish,
        size_hint: Option<u64>,
    ) -> Result<Self> {
        let (folder, spare) = (Arc::clone(&shared.folder), Arc::clone(&shared.spare));
        let temp = TempFile::create(folder, &target, size_hint, spare)?;
        Ok(Self { shared, temp, target, publish, failed: false })
    }

    fn check_alive(&self) -> Result<()> {
        if !self.failed {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, "an earlier write of this upload failed")
            .in_object(self.shared.folder.name(&self.target)))
    }

    fn sync_failed<T>(&self, error: T) -> T {
        self.shared.failed_syncs.fetch_add(1, Ordering::AcqRel);
        error
    }

    /// Whether the target is the very file that was written here, even if a call failed.
    fn is_published(&self) -> bool {
        is_at(&*self.shared.folder.vfs, &self.target, &*self.temp.file)
    }
}

impl Upload for LocalUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_alive()?;
        let appended = self.temp.append(bytes);
        self.failed = appended.is_err();
        appended
    }

    fn commit(mut self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        use CommitError::{Conflict, NotCommitted, Unknown};
        self.check_alive().map_err(NotCommitted)?;
        self.temp.complete().map_err(NotCommitted)?;
        let folder = Arc::clone(&self.shared.folder);
        let read_only = self.temp.file.set_read_only();
        read_only.map_err(|error| {
            NotCommitted(folder.error("making the file read-only", &self.temp.path, error))
        })?;
        // After a failed fsync this file is lost: the kernel has dropped the pages' errors, and a
        // second fsync would return Ok without them being on disk. The caller starts a new file
        // from memory.
        self.temp.sync("fsync").map_err(|error| NotCommitted(self.sync_failed(error)))?;
        if let Err(error) = self.publish.run(&*folder.vfs, &self.temp.path, &self.target) {
            // A network file system can lose the reply of a rename that happened, and retry it.
            if !self.is_published() {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    let taken = in_the_way(&folder, &self.target);
                    let is_object = taken.kind() == ErrorKind::AlreadyExists;
                    return Err(if is_object { Conflict(taken) } else { NotCommitted(taken) });
                }
                return Err(NotCommitted(folder.error("publishing by rename", &self.target, error)));
            }
        }
        self.temp.unfinished = None;
        self.temp.sync_name(&self.target).map_err(|error| Unknown(self.sync_failed(error)))?;
        self.shared.failed_syncs.store(0, Ordering::Release);
        Ok(())
    }
}
