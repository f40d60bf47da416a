//! One file on its way: temporary name, write, fsync, publish, fsync of the folder, fsync again. Owns: that order, for
//! a key of the engine (never replaced) and for a plain path (replaced whole). Knows nothing of what is in the file.

use super::blocks::{BlockWriter, Spare};
use super::{PLAIN_TEMP_PREFIX, Publish, Shared, TEMP_PREFIX, already_there, hex, parent};
use crate::engine::vfs::{self, Os, Vfs, VfsFile};
use crate::engine::{CommitError, Nonce, Upload, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file up to this long is one write; a longer one goes to the disk in blocks, several at a time.
const BLOCKS_FROM: usize = 4 << 20;
/// From this size on the space is reserved before the first byte is written, so that a full disk shows at once.
const PREALLOCATE_FROM: u64 = 256 << 10;

/// A file under a temporary name. Dropped before it is published, it is unlinked.
struct TempFile {
    vfs: Arc<dyn Vfs>,
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    published: bool,
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
    fn create(vfs: Arc<dyn Vfs>, target: &Path, size_hint: Option<u64>, spare: Spare) -> Result<Self> {
        let path = parent(target).join(format!("{TEMP_PREFIX}{}-{}", leaf(target), hex(fresh_nonce())));
        let created = vfs.create_new(&path);
        let file = created
            .map_err(|error| Error::io("creating the temporary file", error).in_object(path.display()))?;
        Self::of(vfs, file, path, size_hint, spare)
    }

    /// As [`TempFile::create`], for a plain path, whose folder nobody sweeps: the name is the same every time, so that
    /// what a killed save left goes with the next one. A live writer holds its file; then the name is a fresh one.
    fn create_again(vfs: Arc<dyn Vfs>, target: &Path, size_hint: Option<u64>) -> Result<Self> {
        let path = parent(target).join(format!("{PLAIN_TEMP_PREFIX}{}", leaf(target)));
        // What cannot be removed is in nobody's way.
        let _ = vfs.unlink_if_dead(&path);
        if let Ok(file) = vfs.create_new(&path) {
            let is_ours = match file.hold() {
                // Between creating and holding it another save may have taken it for a dead one's.
                Ok(()) => is_at(&*vfs, &path, &*file),
                // Where nobody can hold a file, nobody takes one for dead.
                Err(error) => error.kind() == io::ErrorKind::Unsupported,
            };
            if is_ours {
                return Self::of(vfs, file, path, size_hint, Spare::default());
            }
            drop(file);
            let _ = vfs.unlink_if_dead(&path);
        }
        Self::create(vfs, target, size_hint, Spare::default())
    }

    fn of(
        vfs: Arc<dyn Vfs>,
        file: Arc<dyn VfsFile>,
        path: PathBuf,
        size_hint: Option<u64>,
        spare: Spare,
    ) -> Result<Self> {
        // Grown step by step, a small file would be copied as often as it doubles.
        let expected = size_hint.map_or(0, |len| len.min(BLOCKS_FROM as u64) as usize);
        let content = Content::Gathered(Vec::with_capacity(expected));
        let mut temp = Self { vfs, file, path, published: false, content, reserved: 0, spare };
        if let Some(len) = size_hint.filter(|&len| len >= PREALLOCATE_FROM) {
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
                return Err(Error::io(format!("reserving {len} bytes"), error).in_object(self.path.display()));
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let path = &self.path;
        let failed = |error| Error::io("writing", error).in_object(path.display());
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

    /// Everything before the fsync: last bytes, exact length.
    fn complete(&mut self) -> Result<()> {
        let path = &self.path;
        let failed = |error| Error::io("writing", error).in_object(path.display());
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
            cut.map_err(|error| {
                Error::io("cutting the file to its length", error).in_object(self.path.display())
            })?;
        }
        Ok(())
    }

    fn sync(&self, what: &'static str) -> Result<()> {
        self.file.sync().map_err(|error| Error::io(what, error).in_object(self.path.display()))
    }

    /// The folder's fsync makes the name durable; the file's second one is for XFS, where the folder's fsync can return
    /// 0 after the file system has shut down while the rename is lost.
    fn sync_name(&self, target: &Path) -> Result<()> {
        let folder = parent(target);
        let synced = self.vfs.sync_dir(folder);
        synced.map_err(|error| Error::io("fsync of the folder", error).in_object(folder.display()))?;
        let again = self.file.sync();
        again.map_err(|error| Error::io("fsync after the rename", error).in_object(target.display()))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // The threads of an upload that is given up end before its file goes.
        self.content = Content::Gathered(Vec::new());
        if !self.published {
            // Best effort: what stays has a name that nothing lists, and is swept under the next lock.
            let _ = self.vfs.unlink(&self.path);
        }
    }
}

/// What a temporary name says of its target. Names may be 255 bytes.
fn leaf(target: &Path) -> String {
    let leaf = target.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    leaf.chars().take(40).collect()
}

/// Whether a path names this very file.
fn is_at(vfs: &dyn Vfs, path: &Path, file: &dyn VfsFile) -> bool {
    matches!((vfs.stat(path), file.stat()), (Ok(there), Ok(ours)) if there.id == ours.id)
}

/// File systems that do not know a call say so in one of these ways.
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
        let temp = TempFile::create(Arc::clone(&shared.vfs), &target, size_hint, Arc::clone(&shared.spare))?;
        Ok(Self { shared, temp, target, publish, failed: false })
    }

    fn check_alive(&self) -> Result<()> {
        if !self.failed {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, "an earlier write of this upload failed")
            .in_object(self.target.display()))
    }

    fn sync_failed<T>(&self, error: T) -> T {
        self.shared.failed_syncs.fetch_add(1, Ordering::AcqRel);
        error
    }

    /// Whether the target is the very file that was written here, whatever a call said.
    fn is_published(&self) -> bool {
        is_at(&*self.shared.vfs, &self.target, &*self.temp.file)
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
        let path = self.temp.path.display().to_string();
        let read_only = self.temp.file.set_read_only();
        read_only
            .map_err(|error| NotCommitted(Error::io("making the file read-only", error).in_object(path)))?;
        // From a failed fsync on this file is lost: the kernel has dropped the pages' errors and a second fsync would
        // return Ok without them being on disk. The caller starts a new file from memory.
        self.temp.sync("fsync").map_err(|error| NotCommitted(self.sync_failed(error)))?;
        if let Err(error) = self.publish.run(&*self.shared.vfs, &self.temp.path, &self.target) {
            // A network file system can lose the reply of a rename that happened, and be asked again.
            if !self.is_published() {
                let taken = error.kind() == io::ErrorKind::AlreadyExists;
                let error = Error::io("publishing by rename", error).in_object(self.target.display());
                return Err(if taken { Conflict(already_there(&self.target)) } else { NotCommitted(error) });
            }
        }
        self.temp.published = true;
        self.temp.sync_name(&self.target).map_err(|error| Unknown(self.sync_failed(error)))?;
        self.shared.failed_syncs.store(0, Ordering::Release);
        Ok(())
    }
}

/// Writes one file at a plain path, replacing what is there, atomically and durably: temporary file, fsync, rename,
/// fsync of the folder. `write` runs again, once, when the first file's fsync failed.
///
/// # Errors
/// What `write` says; `NoSpace`, `Io`: `path` is what it was. `Unknown` when the new file is there and its durability
/// could not be had.
pub fn replace_file(
    path: &Path,
    size_hint: Option<u64>,
    write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    replace_on(Arc::new(Os), path, size_hint, write)
}

pub(super) fn replace_on(
    vfs: Arc<dyn Vfs>,
    path: &Path,
    size_hint: Option<u64>,
    mut write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    if vfs.stat(path).is_ok_and(|stat| stat.is_dir) {
        return Err(Error::invalid("is a folder where a file is to be written")
            .in_object(path.display())
            .help("name a file in it"));
    }
    let mut attempt = || -> Result<TempFile> {
        let mut replacement = Replacement(TempFile::create_again(Arc::clone(&vfs), path, size_hint)?);
        write(&mut replacement)?;
        replacement.0.complete()?;
        Ok(replacement.0)
    };
    let mut temp = attempt()?;
    match temp.sync("fsync") {
        Ok(()) => {}
        // Dropped, never synced again: the new file is written from memory.
        Err(error) if error.kind() == ErrorKind::Io => {
            temp = attempt()?;
            temp.sync("fsync of a second file, after the first one's failed")?;
        }
        Err(error) => return Err(error),
    }
    let renamed = vfs.rename(&temp.path, path);
    renamed.map_err(|error| Error::io("publishing by rename", error).in_object(path.display()))?;
    temp.published = true;
    temp.sync_name(path).map_err(|error| error.with_kind(ErrorKind::Unknown))
}

struct Replacement(TempFile);

impl Upload for Replacement {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.append(bytes)
    }

    fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        Err(CommitError::NotCommitted(Error::invalid("a plain file is published by `replace_file`")))
    }
}
