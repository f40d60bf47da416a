//! An open file of the operating system.

use super::{Kind, Stat, VfsFile};
#[cfg(target_os = "linux")]
use rustix::fs::OFlags;
use rustix::fs::{FileType, RawMode};
use rustix::io::retry_on_intr;
use std::fs::{File, Metadata};
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

/// The most bytes of one `write`: Linux takes 2 GiB minus a page, others less.
const LARGEST_CALL: usize = 1 << 30;

impl Kind {
    pub(super) fn of(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let kind = Kind::of(FileType::from_raw_mode(metadata.mode() as RawMode));
        Self { kind, len: metadata.len(), id: (metadata.dev(), metadata.ino()) }
    }
}

/// Default `read_ahead_kb`. The kernel silently truncates longer `WILLNEED` requests.
#[cfg(target_os = "linux")]
const READ_AHEAD: usize = 128 << 10;

/// An open file of the operating system.
#[derive(Debug)]
pub(crate) struct OsFile(pub File);

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

    #[cfg(target_os = "linux")]
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
        let flags = rustix::fs::FallocateFlags::empty();
        Ok(retry_on_intr(|| rustix::fs::fallocate(&self.0, flags, 0, len))?)
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
