//! Protocols that lose data, as decorators: each does one thing that a hurried author does. A
//! harness that lets one of these pass proves nothing of the right one.

use crate::engine::vfs::{HERE, Holder, Stat, Vfs, VfsFile};
use crate::engine::{Blob, Lock, MmapPromise};
use crate::error::Result;
use crate::sync::lock;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Wrong {
    /// No fsync of a file at all.
    NoFileSync,
    /// The file is renamed first and synced afterwards.
    RenameBeforeFileSync,
    /// No fsync of a folder at all.
    NoFolderSync,
    /// One fsync of the folder for every two changes of names in it.
    OneFolderSyncForTwo,
    /// A new folder's own name is not synced.
    NoParentFolderSync,
    /// No second fsync of the file after the folder's.
    NoSecondFileSync,
    /// An fsync that failed is tried again on the same file.
    RetryFailedSync,
    /// The old checkpoints are deleted before the new one is written.
    DeleteBeforeWrite,
    /// The old checkpoints are deleted between the rename and the fsync of the folder.
    DeleteBeforeFolderSync,
    /// The folder is not synced after a deletion.
    NoFolderSyncAfterDelete,
    /// The file is written under its final name.
    WriteInPlace,
    /// The final name is taken by an empty file while the content is being written.
    ReserveName,
    /// The finished file is copied to its final name instead of renamed.
    CopyInsteadOfRename,
    /// The file's tail is written after the rename.
    TailAfterRename,
    /// The file is cut to its length after the rename.
    TruncateAfterRename,
    /// A rename replaces an existing file.
    ReplaceExisting,
    /// Every process gets the lock, and each sweeps.
    SweepWithoutLock,
    /// Remains of killed uploads are not removed.
    NeverSweep,
}

impl Wrong {
    /// Every mistake.
    pub const ALL: [Self; 18] = [
        Self::NoFileSync,
        Self::RenameBeforeFileSync,
        Self::NoFolderSync,
        Self::OneFolderSyncForTwo,
        Self::NoParentFolderSync,
        Self::NoSecondFileSync,
        Self::RetryFailedSync,
        Self::DeleteBeforeWrite,
        Self::DeleteBeforeFolderSync,
        Self::NoFolderSyncAfterDelete,
        Self::WriteInPlace,
        Self::ReserveName,
        Self::CopyInsteadOfRename,
        Self::TailAfterRename,
        Self::TruncateAfterRename,
        Self::ReplaceExisting,
        Self::SweepWithoutLock,
        Self::NeverSweep,
    ];
}

/// A file system with one mistake.
#[derive(Debug)]
pub(crate) struct WrongVfs {
    right: Arc<dyn Vfs>,
    wrong: Wrong,
    seen: Arc<Seen>,
}

/// The events so far, shared by all held folders.
#[derive(Debug, Default)]
struct Seen {
    folder_syncs: AtomicUsize,
    /// The folder that contains the last new one.
    new_folder: Mutex<Option<PathBuf>>,
    deleted: AtomicBool,
}

impl WrongVfs {
    pub(crate) fn new(right: Arc<dyn Vfs>, wrong: Wrong) -> Self {
        Self { right, wrong, seen: Arc::default() }
    }

    fn file(&self, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(WrongFile {
            right: file,
            wrong: self.wrong,
            syncs: AtomicUsize::new(0),
            tail: Mutex::default(),
        })
    }

    fn delete_checkpoints_but(&self, stays: &Path) -> io::Result<()> {
        let folder = above(stays);
        for name in self.right.names(&folder)? {
            if name.ends_with(".tkeep") && !name.starts_with('.') && Path::new(&name) != stays {
                self.right.unlink(&folder.join(name))?;
            }
        }
        Ok(())
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.wrong {
            Wrong::WriteInPlace if final_name(from).as_deref() == Some(to) => Ok(()),
            Wrong::ReserveName | Wrong::ReplaceExisting => self.right.rename(from, to),
            Wrong::CopyInsteadOfRename if is_checkpoint(to) => self.copy(from, to),
            Wrong::DeleteBeforeFolderSync if is_checkpoint(to) => {
                self.right.rename_noreplace(from, to)?;
                self.delete_checkpoints_but(to)
            }
            _ => self.right.rename_noreplace(from, to),
        }
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let source = self.right.open(from)?;
        let mut bytes = vec![0; source.stat()?.len as usize];
        crate::engine::vfs::read_full_at(&*source, 0, &mut bytes)?;
        let target = self.right.create_new(to)?;
        crate::engine::vfs::write_all_at(&*target, 0, &bytes)?;
        target.sync()?;
        self.right.unlink(from)
    }
}

/// The folder that holds `path`: the held one if `path` is a bare name.
fn above(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => HERE.into(),
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tkeep")
}

/// The final name of a temporary file, if it is a checkpoint's.
fn final_name(temp: &Path) -> Option<PathBuf> {
    let name = temp.file_name()?.to_str()?;
    let (leaf, _) = name.strip_prefix(".tmp-")?.rsplit_once('-')?;
    leaf.ends_with(".tkeep").then(|| temp.with_file_name(leaf))
}

impl Vfs for WrongVfs {
    fn hold(&self, folder: &Path) -> io::Result<Arc<dyn Vfs>> {
        let right = self.right.hold(folder)?;
        Ok(Arc::new(Self { right, wrong: self.wrong, seen: Arc::clone(&self.seen) }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let target = final_name(path);
        let created = match (self.wrong, target) {
            (Wrong::WriteInPlace, Some(target)) => self.right.create_new(&target),
            (Wrong::ReserveName, Some(target)) => {
                self.right.create_new(&target)?;
                self.right.create_new(path)
            }
            (Wrong::DeleteBeforeWrite, Some(target)) => {
                self.delete_checkpoints_but(&target)?;
                self.right.create_new(path)
            }
            _ => self.right.create_new(path),
        };
        created.map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.right.open(path)
    }

    fn map(&self, path: &Path, name: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        self.right.map(path, name, promise)
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        match self.wrong {
            Wrong::ReplaceExisting if is_checkpoint(path) => Err(io::ErrorKind::NotFound.into()),
            _ => self.right.lstat(path),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.right.stat(path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.right.read_link(path)
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.publish(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.right.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.right.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.seen.deleted.store(is_checkpoint(path), Ordering::Relaxed);
        self.right.unlink(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        *lock(&self.seen.new_folder) = Some(above(path));
        self.right.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let new_folder = lock(&self.seen.new_folder).take();
        let deleted = self.seen.deleted.swap(false, Ordering::Relaxed);
        match self.wrong {
            Wrong::NoFolderSync => Ok(()),
            Wrong::NoFolderSyncAfterDelete if deleted => Ok(()),
            Wrong::NoParentFolderSync if new_folder.as_deref() == Some(path) => Ok(()),
            Wrong::OneFolderSyncForTwo
                if self.seen.folder_syncs.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) =>
            {
                Ok(())
            }
            _ => self.right.sync_dir(path),
        }
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut listed = self.right.names(path)?;
        if self.wrong == Wrong::NeverSweep {
            listed.retain(|name| !name.starts_with(".tmp-"));
        }
        Ok(listed)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, Holder>> {
        match self.right.lock(path, holder)? {
            Err(_) if self.wrong == Wrong::SweepWithoutLock => Ok(Ok(Box::new(NoLock))),
            locked => Ok(locked),
        }
    }
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

/// A file with one mistake.
#[derive(Debug)]
struct WrongFile {
    right: Arc<dyn VfsFile>,
    wrong: Wrong,
    syncs: AtomicUsize,
    /// The tail that is written, or cut, after the rename: where the file ends, and the bytes from
    /// there.
    tail: Mutex<Option<(u64, Vec<u8>)>>,
}

impl WrongFile {
    fn set_tail(&self, at: u64, bytes: &[u8]) {
        *lock(&self.tail) = Some((at, bytes.to_vec()));
    }

    fn take_tail(&self) -> Option<(u64, Vec<u8>)> {
        lock(&self.tail).take()
    }

    fn first_sync(&self) -> io::Result<()> {
        match self.wrong {
            Wrong::RenameBeforeFileSync => return Ok(()),
            Wrong::TruncateAfterRename => {
                let len = self.right.stat()?.len;
                self.set_tail(len, &[]);
                self.right.set_len(len + 4096)?;
            }
            _ => {}
        }
        match self.right.sync() {
            Err(_) if self.wrong == Wrong::RetryFailedSync => self.right.sync(),
            synced => synced,
        }
    }

    fn second_sync(&self) -> io::Result<()> {
        match (self.wrong, self.take_tail()) {
            (Wrong::NoSecondFileSync, _) => return Ok(()),
            (Wrong::TailAfterRename, Some((at, bytes))) => {
                crate::engine::vfs::write_all_at(&*self.right, at, &bytes)?
            }
            (Wrong::TruncateAfterRename, Some((len, _))) => self.right.set_len(len)?,
            _ => {}
        }
        self.right.sync()
    }
}

impl VfsFile for WrongFile {
    fn stat(&self) -> io::Result<Stat> {
        self.right.stat()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.right.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if self.wrong != Wrong::TailAfterRename {
            return self.right.write_at(offset, bytes);
        }
        let (now, later) = bytes.split_at(bytes.len() / 2);
        self.set_tail(offset + now.len() as u64, later);
        crate::engine::vfs::write_all_at(&*self.right, offset, now)?;
        Ok(bytes.len())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.right.preallocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.right.set_len(len)
    }

    fn set_read_only(&self) -> io::Result<()> {
        self.right.set_read_only()
    }

    fn sync(&self) -> io::Result<()> {
        match self.syncs.fetch_add(1, Ordering::Relaxed) {
            _ if self.wrong == Wrong::NoFileSync => Ok(()),
            0 => self.first_sync(),
            _ => self.second_sync(),
        }
    }
}
