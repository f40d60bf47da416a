//! The seam under the local engine: every call that reaches the file system, one method each, and the real calls. Owns
//! no protocol: the order of calls is `local.rs`'s. Behind this trait tests put file systems that fail and lose power.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod failing;
#[cfg(feature = "testing")]
pub(crate) mod power_cut;
#[cfg(feature = "testing")]
mod power_cut_files;
#[cfg(feature = "testing")]
pub(crate) mod scripted;
#[cfg(feature = "testing")]
pub(crate) mod simulated;
#[cfg(feature = "testing")]
pub(crate) mod wrong;

use super::map::{MappedFile, PrivateMap};
use super::{Blob, Lock, Unchanging};
use crate::error::Result;
use rustix::fs::{CWD, OFlags, RenameFlags};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// The most bytes that one `write` is asked to take: Linux takes 2 GiB minus a page, others less.
const LARGEST_CALL: usize = 1 << 30;

/// Calls on paths.
pub(crate) trait Vfs: Send + Sync + fmt::Debug {
    /// `open(O_CREAT | O_EXCL | O_NOFOLLOW)` for writing, with the mode that the umask leaves of 0666.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// `open` for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// `open` for reading, then `mmap`.
    fn map(&self, path: &Path, promise: Unchanging) -> Result<Arc<dyn Blob>>;
    /// The name of the network file system that holds `path`, if one does, by `statfs`.
    fn network(&self, _path: &Path) -> Option<&'static str> {
        None
    }
    /// `lstat`.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// `renameat2(RENAME_NOREPLACE)`: fails with `AlreadyExists` instead of replacing.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// `rename`, which replaces.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// `link`, which never replaces.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// `unlink`.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// `unlink` of a file whose writer is dead: nobody [holds](VfsFile::hold) it. Does nothing else.
    fn unlink_if_dead(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// `mkdir`.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// `fsync` of a directory: its entries.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// `readdir`, without `.` and `..`.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, Stat)>>;
    /// `flock` without waiting of a file that is created where missing, and its content set to `holder`. `Err` within
    /// `Ok` is what the present holder wrote.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, String>>;
}

/// Calls on an open file.
pub(crate) trait VfsFile: Send + Sync + fmt::Debug {
    /// `fstat`.
    fn stat(&self) -> io::Result<Stat>;
    /// `pread`, once: may fill less than `buffer`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// `preadv2(RWF_NOWAIT)`: the first bytes that are in the page cache. Where that cannot be told, it is none.
    fn read_cached_at(&self, _offset: u64, _buffer: &mut [u8]) -> usize {
        0
    }
    /// `posix_fadvise(WILLNEED)`: `range` will be read. Only advice.
    fn read_ahead(&self, _range: Range<u64>) {}
    /// `pwrite`, once: may write less than `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// `fcntl(O_DIRECT)`: further writes pass the page cache by, and must be aligned. May be refused.
    fn set_direct(&self, _direct: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// `fallocate` of the first `len` bytes.
    fn preallocate(&self, len: u64) -> io::Result<()>;
    /// `ftruncate`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// `fchmod` that takes every write permission away.
    fn set_read_only(&self) -> io::Result<()>;
    /// `fsync`.
    fn sync(&self) -> io::Result<()>;
    /// `flock` without waiting, until the file is closed: says to [`Vfs::unlink_if_dead`] that its writer lives.
    fn hold(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Whether it is a regular file (not a folder, not a link).
    pub is_file: bool,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length in bytes.
    pub len: u64,
    /// Device and inode: which file it is, whatever its name.
    pub id: (u64, u64),
}

/// The operating system's own file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Os;

impl Vfs for Os {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let no_follow = OFlags::NOFOLLOW.bits() as i32;
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(no_follow).open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(OsFile(open_without_waiting(path)?)))
    }

    fn map(&self, path: &Path, promise: Unchanging) -> Result<Arc<dyn Blob>> {
        let (file, name) = open_to_map(path)?;
        Ok(Arc::new(MappedFile::new(file, name, promise)?))
    }

    #[cfg(target_os = "linux")]
    fn network(&self, path: &Path) -> Option<&'static str> {
        // Some file systems have magics with the highest bit set: the type's width and sign differ by machine.
        super::network::name(rustix::fs::statfs(path).ok()?.f_type as u32)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        path.symlink_metadata().map(|metadata| Stat::of(&metadata))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn unlink_if_dead(&self, path: &Path) -> io::Result<()> {
        // Not followed and not waited for: anything may have this name.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        file.try_lock()?;
        // Held from here on: whoever creates this name now and cannot hold it takes another name.
        let (held, named) = (Stat::of(&file.metadata()?), self.stat(path)?);
        if held.is_file && held.id == named.id { self.unlink(path) } else { Ok(()) }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, Stat)>> {
        let mut found = Vec::new();
        for entry in path.read_dir()? {
            let entry = entry?;
            // A name that is not UTF-8 is nobody's key, and what vanished since is not there.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) => found.push((name, Stat::of(&metadata))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, String>> {
        // Not followed: in a folder that came from elsewhere LOCK may be a link, and what it points to would be emptied.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
        let mut file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(holder.as_bytes())?;
                Ok(Ok(Box::new(OsLock { _file: file })))
            }
            Err(TryLockError::WouldBlock) => {
                let mut words = String::new();
                // For the message only: whatever can be read of it.
                let _ = file.take(4096).read_to_string(&mut words);
                Ok(Err(words))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// One and the same file, mapped to read and mapped to change privately.
pub(crate) fn map_twice(path: &Path, promise: Unchanging) -> Result<(Arc<dyn Blob>, PrivateMap)> {
    let (file, name) = open_to_map(path)?;
    let private = PrivateMap::new(&file, &name, promise)?;
    Ok((Arc::new(MappedFile::new(file, name, promise)?), private))
}

fn open_to_map(path: &Path) -> Result<(File, String)> {
    let name = path.display().to_string();
    let opened = open_without_waiting(path);
    let failed = |error| crate::Error::io("opening for mapping", error).in_object(&name);
    let file = opened.map_err(failed)?;
    Stat::of(&file.metadata().map_err(failed)?).check_is_file(path)?;
    Ok((file, name))
}

/// A pipe would be waited for, for ever; a regular file knows no waiting.
fn open_without_waiting(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

impl Stat {
    /// # Errors
    /// `Invalid` for a folder, a pipe, a device.
    pub(crate) fn check_is_file(&self, path: &Path) -> Result<()> {
        if self.is_dir {
            return Err(crate::Error::invalid("is a folder where a checkpoint file is needed")
                .in_object(path.display())
                .help("name a file in it, or open the folder as a store"));
        }
        if !self.is_file {
            return Err(crate::Error::invalid("is a pipe or a device where a checkpoint file is needed")
                .in_object(path.display()));
        }
        Ok(())
    }

    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            is_file: metadata.is_file(),
            is_dir: metadata.is_dir(),
            len: metadata.len(),
            id: (metadata.dev(), metadata.ino()),
        }
    }
}

/// As much as the kernel reads for one request where nobody set another bound. What is beyond it, it leaves out.
const READ_AHEAD: usize = 128 << 10;

/// An open file of the operating system.
#[derive(Debug)]
pub(super) struct OsFile(pub File);

impl VfsFile for OsFile {
    fn stat(&self) -> io::Result<Stat> {
        self.0.metadata().map(|metadata| Stat::of(&metadata))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let no_wait = rustix::io::ReadWriteFlags::NOWAIT;
        rustix::io::preadv2(&self.0, &mut [io::IoSliceMut::new(buffer)], offset, no_wait).unwrap_or(0)
    }

    fn read_ahead(&self, range: Range<u64>) {
        for start in range.clone().step_by(READ_AHEAD) {
            let len = NonZeroU64::new((READ_AHEAD as u64).min(range.end - start));
            let _ = rustix::fs::fadvise(&self.0, start, len, rustix::fs::Advice::WillNeed);
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(&bytes[..bytes.len().min(LARGEST_CALL)], offset)
    }

    #[cfg(target_os = "linux")]
    fn set_direct(&self, direct: bool) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.0)?;
        let wanted = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
        Ok(rustix::fs::fcntl_setfl(&self.0, wanted)?)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn set_read_only(&self) -> io::Result<()> {
        let mut permissions = self.0.metadata()?.permissions();
        permissions.set_readonly(true);
        self.0.set_permissions(permissions)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn hold(&self) -> io::Result<()> {
        Ok(self.0.try_lock()?)
    }
}

/// Freed when the file is closed, by whatever closes it: drop, exit or a kill.
#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl Lock for OsLock {}

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

/// Fills `buffer` through short reads and interruptions; fewer bytes than wanted only at the end of the file.
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
