//! The seam under the local engine: every call that reaches the file system, one method each.
//! `local.rs` decides the order of the calls; `vfs/os.rs` makes the real ones. Tests put file
//! systems that fail and lose power behind these traits.

pub(crate) mod file;
mod map;
pub(crate) mod os;

use super::{Blob, Lock};
use crate::error::{Error, Result};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use map::MmapPromise;
pub(crate) use map::PrivateMap;
pub(crate) use os::{Os, map_twice};

/// The held folder, as a path in it.
pub(crate) const HERE: &str = ".";

/// Which step failed when a file could not be opened, to be read or to be mapped.
pub(crate) fn not_opened(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file",
        _ => "opening for reading",
    }
}

/// Calls on paths. A relative path starts at the held folder or, without one, at the process's
/// working directory.
pub(crate) trait Vfs: Send + Sync + fmt::Debug {
    /// `open(O_DIRECTORY)`: the same calls, with relative paths that start at this very folder,
    /// even if its path later names another.
    fn hold(&self, folder: &Path) -> io::Result<Arc<dyn Vfs>>;
    /// Whether the held folder was removed: it is empty and stays so.
    fn is_removed(&self) -> bool {
        false
    }
    /// `open(O_CREAT | O_EXCL | O_NOFOLLOW)` for writing, with the mode that the umask leaves of
    /// 0666.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// `open` for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// `open` for reading, then `mmap`. `name` is the path for people.
    fn map(&self, path: &Path, name: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>>;
    /// The name of the network file system that holds `path`, if one does, by `fstatfs`.
    fn network(&self, _path: &Path) -> Option<&'static str> {
        None
    }
    /// `lstat`.
    fn lstat(&self, path: &Path) -> io::Result<Stat>;
    /// `stat`, which follows links.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// `readlink`.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// `renameat2(RENAME_NOREPLACE)`: fails with `AlreadyExists` instead of replacing.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// `rename`, which replaces.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// `link`, which never replaces.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// `unlink`.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// `unlink` of a file whose writer is dead: no process [holds](VfsFile::hold) it. Otherwise
    /// does nothing.
    fn unlink_if_dead(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// `mkdir`.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// `fsync` of a directory: its entries.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// `readdir`, without `.` and `..`, and without names that are not UTF-8, which cannot be keys.
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;
    /// `flock` without waiting of a file that is created if missing, and its content set to
    /// `holder` if there is room. `Err` within `Ok` is the present holder.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, Holder>>;
}

/// The holder of a lock, from the lock file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holder {
    /// The holder's description of itself.
    pub words: String,
    /// The age of that description.
    pub age: Option<Duration>,
}

/// Calls on an open file.
pub(crate) trait VfsFile: Send + Sync + fmt::Debug {
    /// `fstat`.
    fn stat(&self) -> io::Result<Stat>;
    /// `pread`, once: may fill less than `buffer`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// `preadv2(RWF_NOWAIT)`: the first bytes that are in the page cache; none if that is unknown.
    fn read_cached_at(&self, _offset: u64, _buffer: &mut [u8]) -> usize {
        0
    }
    /// `posix_fadvise(WILLNEED)`: `range` will be read. Only advice.
    fn read_ahead(&self, _range: Range<u64>) {}
    /// `pwrite`, once: may write less than `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// `fcntl(O_DIRECT)`: further writes bypass the page cache, and must be aligned. May be
    /// refused.
    fn set_direct(&self, _direct: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// `fallocate` of the first `len` bytes.
    fn preallocate(&self, len: u64) -> io::Result<()>;
    /// `ftruncate`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// `fchmod` that removes every write permission.
    fn set_read_only(&self) -> io::Result<()>;
    /// `fsync`.
    fn sync(&self) -> io::Result<()>;
    /// `flock` without waiting, until the file is closed: shows to [`Vfs::unlink_if_dead`] that its
    /// writer lives.
    fn hold(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The result of `stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The kind of file.
    pub kind: Kind,
    /// Length in bytes.
    pub len: u64,
    /// Device and inode: the file's identity, independent of its name.
    pub id: (u64, u64),
}

/// The kind of an entry in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A symbolic link; only `lstat` returns it.
    Link,
    /// A pipe, a socket, a device.
    Other,
}

impl Stat {
    pub(crate) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// # Errors
    /// `Invalid` for a folder, a pipe, a device.
    pub(crate) fn check_is_file(&self, name: &str) -> Result<()> {
        match self.kind {
            Kind::File => Ok(()),
            Kind::Folder => Err(Error::invalid("is a folder where a checkpoint file is needed")
                .in_object(name)
                .help("name a file in it, or open the folder as a store")),
            _ => {
                Err(Error::invalid("is a pipe or a device where a checkpoint file is needed").in_object(name))
            }
        }
    }
}

/// Writes all of `bytes`, through short writes and interruptions.
pub(crate) fn write_all_at(file: &dyn VfsFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` through short reads and interruptions; fewer bytes than wanted only at the end of
/// the file.
pub(crate) fn read_full_at(file: &dyn VfsFile, mut offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
