//! Maps a file into memory, shared and read-only or private and copy-on-write. This file has the
//! engine's unsafe blocks, and the promise that they rest on.
#![expect(
    unsafe_code,
    reason = "mapping a file is sound only under a promise that the caller gives; see `MmapPromise`"
)]

use super::file::OsFile;
use super::read_full_at;
use crate::engine::{Blob, read_within};
use crate::error::{Error, Result};
use std::fs::File;
use std::ops::{Deref, DerefMut};

/// The promise that mapped files stay as they are while they are mapped.
///
/// The store's own protocol keeps it: checkpoints are published read-only, never written again, and
/// deleted by unlink, which leaves a mapping intact. Other programs can break it: truncating a
/// mapped file makes the next touch of the lost pages a `SIGBUS` that ends the process, and
/// overwriting it in place changes bytes under a `&[u8]`, which is undefined behaviour. Where
/// others may do that (shared folders), open for reading instead. On network file systems (NFS,
/// SMB, 9p, FUSE, Lustre, Ceph, GPFS, AFS and others, detected by `statfs`) files are read instead
/// of mapped, even under the promise, and a truncated file is an error. `MappedCopy::open`,
/// whose memory is the mapping, is refused there.
#[derive(Clone, Copy, Debug)]
pub struct MmapPromise(());

impl MmapPromise {
    /// Gives the promise.
    ///
    /// # Safety
    /// For as long as any blob, checkpoint, tensor or view made under this promise lives, no
    /// process truncates the mapped file or writes to it. Unlinking or renaming it is allowed.
    pub unsafe fn assume_unchanged() -> Self {
        Self(())
    }
}

/// The unit in which the kernel reads and, if it can, maps after `MADV_HUGEPAGE`.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// A whole file, mapped, and open: small pieces are read, because touching a page that is not
/// mapped yet costs more than reading a few.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: memmap2::Mmap,
    file: OsFile,
    path: String,
}

impl MappedFile {
    /// Maps `file`, whose path is for messages.
    pub(crate) fn new(file: File, path: String, _promise: MmapPromise) -> Result<Self> {
        // SAFETY: `Mmap::map` is unsafe because any process may change or truncate the file while
        // the map lives. `_promise` exists only if a caller of `MmapPromise::assume_unchanged` has
        // promised, in an unsafe block of their own, that no process does. The mapping is private
        // to this struct, read-only, and lives as long as every `&[u8]` given out, because those
        // borrow from it. Empty files are mapped as an empty slice by memmap2.
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|error| {
            Error::io("mapping the file failed", error).in_object(&path).help("open it for reading instead")
        })?;
        #[cfg(target_os = "linux")]
        if map.len() >= HUGE_PAGE {
            // Advice only. The kernel then reads 4 MiB at a fault instead of 128 KiB, and keeps
            // reading ahead; and it keeps the data in large pages. A readahead request would not:
            // it costs 20 times the kernel's time, and twice as long whenever the file is mapped
            // again.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, file: OsFile(file), path })
    }
}

/// A whole file, mapped privately: changes stay in this process's memory, and the file does not
/// change.
#[derive(Debug)]
pub(crate) struct PrivateMap(memmap2::MmapMut);

impl PrivateMap {
    /// Maps `file`, whose path is for messages.
    pub(crate) fn new(file: &File, path: &str, _promise: MmapPromise) -> Result<Self> {
        // SAFETY: `map_copy` is unsafe because pages that were not yet written to are the file's
        // own: a process that changes or truncates the file changes them under a `&mut [u8]`.
        // `_promise` exists only if a caller of `MmapPromise::assume_unchanged` has promised that
        // no process does. Writes through this mapping never reach the file (MAP_PRIVATE), so they
        // break no promise given for another mapping of it. The mapping is owned by this struct,
        // and every slice of it borrows from it, mutably once or shared.
        let map = unsafe { memmap2::MmapOptions::new().map_copy(file) };
        map.map(Self).map_err(|error| {
            Error::io("mapping the file copy-on-write failed", error)
                .in_object(path)
                .help("load it into memory instead")
        })
    }
}

impl Deref for PrivateMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for PrivateMap {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Blob for MappedFile {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        // Fewer than wanted if the file was truncated in spite of the promise.
        let read = |buffer: &mut [u8]| read_full_at(&self.file, offset, buffer);
        read_within(self.len(), offset, buffer, read).map_err(|error| error.in_object(&self.path))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(&self.map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn reads_past_the_end_are_damage_in_a_mapped_file_too() {
        let path = std::env::temp_dir().join(format!("tensorkeep-map-{:?}", crate::engine::fresh_nonce()));
        std::fs::write(&path, [7; 8192]).unwrap();
        // SAFETY: the file is this test's own. It is truncated below, and no byte of the mapping is
        // touched.
        let promise = unsafe { MmapPromise::assume_unchanged() };
        let name = path.display().to_string();
        let mapped = MappedFile::new(File::open(&path).unwrap(), name, promise).unwrap();
        let mut buffer = [0; 4096];
        mapped.read_at(4096, &mut buffer).unwrap();
        assert_eq!(buffer, [7; 4096]);
        assert_eq!(mapped.read_at(4097, &mut buffer).unwrap_err().kind(), ErrorKind::Damaged);
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        let error = mapped.read_at(4096, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}
