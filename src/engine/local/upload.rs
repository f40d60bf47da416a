//! One file on its way: temporary name, write, fsync, publish, fsync of the folder, fsync again.
//! Owns: that order, for a key of the engine (never replaced) and for a plain path (replaced
//! whole). Knows nothing of what is in the file.

use super::blocks::{BlockWriter, Spare};
use super::unfinished::Unfinished;
use super::{Folder, PLAIN_TEMP_PREFIX, Publish, Shared, TEMP_PREFIX, hex, in_the_way};
#[cfg(feature = "convert")]
use crate::engine::Blob;
use crate::engine::vfs::{self, Kind, Os, Vfs, VfsFile};
use crate::engine::{CommitError, Nonce, Upload, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file up to this long is one write; a longer one goes to the disk in blocks, several at a time.
const BLOCKS_FROM: usize = 4 << 20;
/// From this size on the space is reserved before the first byte is written, so that a full disk
/// shows at once.
const PREALLOCATE_FROM: u64 = 256 << 10;

/// A file under a temporary name. Dropped before it is published, it is unlinked.
struct TempFile {
    folder: Arc<Folder>,
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    /// None once it is published.
    unfinished: Option<Unfinished>,
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
        let path = target.with_file_name(format!("{TEMP_PREFIX}{}-{}", leaf(target), hex(fresh_nonce())));
        let created = folder.vfs.create_new(&path);
        let file = created.map_err(|error| folder.error("creating the temporary file", &path, error))?;
        Self::of(folder, file, path, size_hint, spare)
    }

    /// As [`TempFile::create`], for a plain path, whose folder nobody sweeps: the name is the same
    /// every time, so that what a killed save left goes with the next one. A live writer holds its
    /// file; then the name is a fresh one.
    fn create_again(folder: Arc<Folder>, target: &Path, size_hint: Option<u64>) -> Result<Self> {
        let path = target.with_file_name(format!("{PLAIN_TEMP_PREFIX}{}", leaf(target)));
        let vfs = &*folder.vfs;
        // What cannot be removed is in nobody's way.
        let _ = vfs.unlink_if_dead(&path);
        if let Ok(file) = vfs.create_new(&path) {
            let is_ours = match file.hold() {
                // Between creating and holding it another save may have taken it for a dead one's.
                Ok(()) => is_at(vfs, &path, &*file),
                // Where nobody can hold a file, nobody takes one for dead.
                Err(error) => error.kind() == io::ErrorKind::Unsupported,
            };
            if is_ours {
                return Self::of(folder, file, path, size_hint, Spare::default());
            }
            drop(file);
            let _ = vfs.unlink_if_dead(&path);
        }
        Self::create(folder, target, size_hint, Spare::default())
    }

    fn of(
        folder: Arc<Folder>,
        file: Arc<dyn VfsFile>,
        path: PathBuf,
        size_hint: Option<u64>,
        spare: Spare,
    ) -> Result<Self> {
        // Grown step by step, a small file would be copied as often as it doubles.
        let expected = size_hint.map_or(0, |len| len.min(BLOCKS_FROM as u64) as usize);
        let content = Content::Gathered(Vec::with_capacity(expected));
        let unfinished = Some(Unfinished::of(&folder, path.clone()));
        let mut temp = Self { folder, file, path, unfinished, content, reserved: 0, spare };
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
                return Err(self.folder.error(format!("reserving {len} bytes"), &self.path, error));
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
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

    /// Everything before the fsync: last bytes, exact length.
    fn complete(&mut self) -> Result<()> {
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

    fn sync(&self, what: &'static str) -> Result<()> {
        self.file.sync().map_err(|error| self.folder.error(what, &self.path, error))
    }

    /// The folder's fsync makes the name durable; the file's second one is for XFS, where the
    /// folder's fsync can return 0 after the file system has shut down while the rename is lost.
    fn sync_name(&self, target: &Path) -> Result<()> {
        self.folder.sync_parent(target)?;
        self.file.sync().map_err(|error| self.folder.error("fsync after the rename", target, error))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // The threads of an upload that is given up end before its file goes.
        self.content = Content::Gathered(Vec::new());
        if self.unfinished.is_some() {
            // Best effort: what stays has a name that nothing lists, and is swept under the next
            // lock.
            let _ = self.folder.vfs.unlink(&self.path);
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
    matches!((vfs.lstat(path), file.stat()), (Ok(there), Ok(ours)) if there.id == ours.id)
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

    /// Whether the target is the very file that was written here, whatever a call said.
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
        // From a failed fsync on this file is lost: the kernel has dropped the pages' errors and a
        // second fsync would return Ok without them being on disk. The caller starts a new file
        // from memory.
        self.temp.sync("fsync").map_err(|error| NotCommitted(self.sync_failed(error)))?;
        if let Err(error) = self.publish.run(&*folder.vfs, &self.temp.path, &self.target) {
            // A network file system can lose the reply of a rename that happened, and be asked
            // again.
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

/// Writes one file at a plain path, replacing what is there, atomically and durably: temporary
/// file, fsync, rename, fsync of the folder. `write` runs again, once, when the first file's fsync
/// failed.
///
/// A link is followed, as editors do: the file that it leads to is replaced, or created where there
/// is none, and the link stays. The folder is held while the file is written: what happens to its
/// path meanwhile redirects nothing.
///
/// # Errors
/// What `write` says; `Invalid` for a folder, a device, a pipe, a socket, and links in a circle;
/// `NoSpace`, `Io`: `path` is what it was. `Unknown` when the new file is there and its durability
/// could not be had.
pub fn replace_file(
    path: &Path,
    size_hint: Option<u64>,
    write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    replace_on(&Os::default(), path, size_hint, write)
}

pub(super) fn replace_on(
    vfs: &dyn Vfs,
    path: &Path,
    size_hint: Option<u64>,
    mut write: impl FnMut(&mut dyn Upload) -> Result<()>,
) -> Result<()> {
    Staged::write_on(vfs, path, size_hint, &mut write)?.publish()
}

/// A file that is written, durable, and without its name yet: what is in it can be looked at before
/// it replaces anything. Dropped, it is removed.
pub(crate) struct Staged {
    temp: TempFile,
    folder: Arc<Folder>,
    leaf: PathBuf,
}

impl Staged {
    /// Writes it, as [`replace_file`] does.
    ///
    /// # Errors
    /// As [`replace_file`], but for `Unknown`.
    pub(crate) fn write(
        path: &Path,
        size_hint: Option<u64>,
        mut write: impl FnMut(&mut dyn Upload) -> Result<()>,
    ) -> Result<Self> {
        Self::write_on(&Os::default(), path, size_hint, &mut write)
    }

    fn write_on(
        vfs: &dyn Vfs,
        path: &Path,
        size_hint: Option<u64>,
        write: &mut dyn FnMut(&mut dyn Upload) -> Result<()>,
    ) -> Result<Self> {
        let target = to_replace(vfs, path)?;
        let Some(leaf) = target.file_name().map(PathBuf::from) else {
            return Err(Error::invalid("is no name for a file").in_object(path.display()));
        };
        let above = target.parent().unwrap_or(Path::new(""));
        let folder = Arc::new(Folder::open(above, vfs)?);
        let mut attempt = || -> Result<TempFile> {
            let mut replacement = Replacement(TempFile::create_again(Arc::clone(&folder), &leaf, size_hint)?);
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
        Ok(Self { temp, folder, leaf })
    }

    /// Its bytes, as whoever opens it later will read them.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(feature = "convert")]
    pub(crate) fn open(&self) -> Result<Arc<dyn Blob>> {
        self.folder.open_file(&self.temp.path)
    }

    /// Gives it its name, in the place of what has it.
    ///
    /// # Errors
    /// As [`replace_file`].
    pub(crate) fn publish(mut self) -> Result<()> {
        let renamed = self.folder.vfs.rename(&self.temp.path, &self.leaf);
        renamed.map_err(|error| self.folder.error("publishing by rename", &self.leaf, error))?;
        self.temp.unfinished = None;
        self.temp.sync_name(&self.leaf).map_err(|error| error.with_kind(ErrorKind::Unknown))
    }
}

/// As many as Linux follows.
const MOST_LINKS: usize = 40;

/// The path to write for `path`: behind its links, and nothing but a file or a free name.
fn to_replace(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let what = match vfs.lstat(&target).map(|stat| stat.kind) {
            Ok(Kind::Link) => {
                let failed = |error| Error::io("following the link", error).in_object(target.display());
                let next = vfs.read_link(&target).map_err(failed)?;
                target = target.parent().unwrap_or(Path::new("")).join(next);
                continue;
            }
            Ok(Kind::Folder) => "is a folder where a file is to be written",
            Ok(Kind::Other) => "is a device, a pipe or a socket where a file is to be written",
            // What cannot be looked at cannot be replaced, either, and then says why.
            Ok(Kind::File) | Err(_) => return Ok(target),
        };
        return Err(Error::invalid(what).in_object(target.display()).help("name a file"));
    }
    Err(Error::invalid("is a link in a circle").in_object(path.display()).help("name a file"))
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
