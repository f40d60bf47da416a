//! The operating system's own file system: the calls of `vfs.rs`, each relative to a folder's
//! descriptor.

use super::file::OsFile;
use super::map::{MappedFile, MmapPromise, PrivateMap};
use super::{HERE, Holder, Kind, Stat, Vfs, VfsFile, not_opened};
use crate::engine::{Blob, Lock};
use crate::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, RenameFlags};
use rustix::io::retry_on_intr;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensorkeep_forklock::NotInherited;

/// The limit for a lock's description, which is one line.
const LONGEST_WORDS: u64 = 4096;

/// The operating system's file system, seen from a folder or from the working directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Os(Option<Arc<File>>);

impl Os {
    fn at(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or(CWD, |folder| folder.as_fd())
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let opened =
            retry_on_intr(|| rustix::fs::openat(self.at(), path, flags | OFlags::CLOEXEC, 0o666.into()));
        Ok(File::from(opened?))
    }

    fn open_folder(&self, path: &Path) -> io::Result<File> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Nonblocking, because opening a pipe would wait for ever; a regular file never blocks.
    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)
    }

    fn open_to_map(&self, path: &Path, name: &str) -> Result<File> {
        let failed = |error| Error::io(not_opened(&error), error).in_object(name);
        let file = self.open_to_read(path).map_err(failed)?;
        Stat::of(&file.metadata().map_err(failed)?).check_is_file(name)?;
        Ok(file)
    }

    fn stat_with(&self, path: &Path, flags: AtFlags) -> io::Result<Stat> {
        let stat = rustix::fs::statat(self.at(), path, flags)?;
        let kind = Kind::of(FileType::from_raw_mode(stat.st_mode as RawMode));
        // The widths and signs of these differ by system; the same number always becomes the same.
        Ok(Stat { kind, len: stat.st_size as u64, id: (stat.st_dev as u64, stat.st_ino as u64) })
    }
}

impl Vfs for Os {
    fn hold(&self, folder: &Path) -> io::Result<Arc<dyn Vfs>> {
        Ok(Arc::new(Self(Some(Arc::new(self.open_folder(folder)?)))))
    }

    fn is_removed(&self) -> bool {
        let links = |folder: &Arc<File>| folder.metadata().map(|metadata| metadata.nlink());
        self.0.as_ref().is_some_and(|folder| matches!(links(folder), Ok(0)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok(Arc::new(OsFile(self.open_at(path, flags)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(OsFile(self.open_to_read(path)?)))
    }

    fn map(&self, path: &Path, name: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        Ok(Arc::new(MappedFile::new(self.open_to_map(path, name)?, name.to_owned(), promise)?))
    }

    #[cfg(target_os = "linux")]
    fn network(&self, path: &Path) -> Option<&'static str> {
        let file = self.open_at(path, OFlags::PATH).ok()?;
        // Some file systems have magics with the highest bit set: the type's width and sign differ
        // by machine.
        crate::engine::network_file_system(rustix::fs::fstatfs(&file).ok()?.f_type as u32)
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        self.stat_with(path, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.stat_with(path, AtFlags::empty())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(self.at(), path, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(self.at(), from, self.at(), to, RenameFlags::NOREPLACE)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat(self.at(), from, self.at(), to)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::linkat(self.at(), from, self.at(), to, AtFlags::empty())?)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.at(), path, AtFlags::empty())?)
    }

    fn unlink_if_dead(&self, path: &Path) -> io::Result<()> {
        // Neither followed nor waited for: anything may have this name.
        let file = self.open_at(path, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
        file.try_lock()?;
        // Held from here on: a process that creates this name now and cannot hold it takes another
        // name.
        let (held, named) = (Stat::of(&file.metadata()?), self.lstat(path)?);
        if held.is_file() && held.id == named.id { self.unlink(path) } else { Ok(()) }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self.at(), path, Mode::from(0o777))?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            Some(folder) if path == Path::new(HERE) => folder.sync_all(),
            _ => self.open_folder(path)?.sync_all(),
        }
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.open_folder(path)?)? {
            let entry = entry?;
            let name = entry.file_name().to_str();
            names.extend(name.ok().filter(|name| !matches!(*name, "." | "..")).map(str::to_owned));
        }
        Ok(names)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, Holder>> {
        // Not followed: in a folder that came from elsewhere LOCK may be a link, and its target
        // would be emptied.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        // Before it is locked: a child that is forked from here on does not keep it.
        let file = NotInherited::new(self.open_at(path, flags)?)?;
        match file.try_lock() {
            Ok(()) => {
                // For the message only; a disk without room for it may still be emptied.
                let _ = write_words(&file, holder);
                Ok(Ok(Box::new(OsLock { file, process: std::process::id() })))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(holder_of(&file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn write_words(mut file: &File, words: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(words.as_bytes())
}

/// The holder, as far as the file can be read.
fn holder_of(file: &File) -> Holder {
    let mut words = String::new();
    let _ = file.take(LONGEST_WORDS).read_to_string(&mut words);
    let written = file.metadata().and_then(|metadata| metadata.modified());
    Holder { words, age: written.ok().and_then(|written| written.elapsed().ok()) }
}

/// The same file, mapped to read and mapped to change privately.
pub(crate) fn map_twice(path: &Path, promise: MmapPromise) -> Result<(Arc<dyn Blob>, PrivateMap)> {
    let name = path.display().to_string();
    let file = Os::default().open_to_map(path, &name)?;
    let private = PrivateMap::new(&file, &name, promise)?;
    Ok((Arc::new(MappedFile::new(file, name, promise)?), private))
}

/// Freed when the process that took it drops it, exits or is killed, even if it has children.
#[derive(Debug)]
struct OsLock {
    file: NotInherited,
    process: u32,
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Not by closing alone, since a child of a bare `clone` has a copy; and not by such a
        // child, since unlocking affects all copies.
        if self.process == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

impl Lock for OsLock {}
