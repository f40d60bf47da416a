//! A file that is open for reading. Owns: reading at the speed that the kernel has, into memory of any alignment.

use crate::engine::vfs::{self, VfsFile};
use crate::engine::{Blob, read_within};
use crate::error::Result;
use std::io;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct FileBlob {
    pub file: Arc<dyn VfsFile>,
    pub len: u64,
    pub name: String,
}

impl Blob for FileBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = |buffer: &mut [u8]| {
            if is_copied_slowly(offset, buffer) {
                read_by_way_of_a_page(&*self.file, offset, buffer)
            } else {
                vfs::read_full_at(&*self.file, offset, buffer)
            }
        };
        read_within(self.len, offset, buffer, read).map_err(|error| error.in_object(&self.name))
    }
}

const PAGE: usize = 4096;

/// Whether the kernel would copy these bytes at a sixth of its speed: it does where the target lies up to a cache line
/// further into its page than the file's bytes into theirs (1.8 instead of 11 GB/s on AMD's Zen 3, whose `rep movsb` takes
/// what it has just stored for what it loads next). Large allocations of the C library begin 16 bytes into a page, and
/// tensors at the beginning of one.
fn is_copied_slowly(offset: u64, target: &[u8]) -> bool {
    // OK to cast: only the place within a page counts.
    let ahead = target.as_ptr().addr().wrapping_sub(offset as usize) % PAGE;
    target.len() >= BY_WAY_OF / 4 && (1..64).contains(&ahead)
}

/// Bytes that are read at a time by way of other memory: what stays in a core's cache.
const BY_WAY_OF: usize = 64 << 10;

fn read_by_way_of_a_page(file: &dyn VfsFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    #[repr(align(4096))]
    struct Pages([u8; 2 * PAGE + BY_WAY_OF]);
    let mut pages = Pages([0; 2 * PAGE + BY_WAY_OF]);
    // Further into a page than the file's bytes by more than a cache line, and than the target by almost one page.
    let start = offset as usize % PAGE + 128;
    let mut filled = 0;
    for part in buffer.chunks_mut(BY_WAY_OF) {
        let pages = &mut pages.0[start..][..part.len()];
        let read = vfs::read_full_at(file, offset + filled as u64, pages)?;
        part[..read].copy_from_slice(&pages[..read]);
        filled += read;
        if read < part.len() {
            break;
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::vfs::{Os, Vfs};

    #[test]
    fn reading_gives_the_files_bytes_wherever_they_lie_and_wherever_they_go() {
        let path = std::env::temp_dir().join(format!("tensorkeep-blob-{:?}", crate::engine::fresh_nonce()));
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let (file, name) = (Os.open(&path).unwrap(), path.display().to_string());
        let blob = FileBlob { file, len: bytes.len() as u64, name };
        let mut memory = vec![0; bytes.len() + 2 * PAGE];
        let page = memory.as_ptr().align_offset(PAGE);
        let mut slow = 0;
        for offset in [0, 16, 64, 4000, 4080, 8192, 100_000] {
            for place in [0, 1, 16, 63, 64, 65, 4032, 4095] {
                for len in [1, 1000, BY_WAY_OF / 4, BY_WAY_OF, BY_WAY_OF + 1, 200_000] {
                    let target = &mut memory[page + place..][..len];
                    slow += usize::from(is_copied_slowly(offset, target));
                    target.fill(0x5A);
                    blob.read_at(offset, target).unwrap();
                    assert!(*target == bytes[offset as usize..][..len], "{len} from {offset} to {place}");
                }
            }
        }
        assert!(slow > 20, "only {slow} were read by way of other memory");
        // Past the end, by way of other memory and straight.
        for place in [16, 0] {
            let target = &mut memory[page + place..][..200_000];
            assert!(blob.read_at(100_352, target).unwrap_err().to_string().contains("ends before"));
        }
        std::fs::remove_file(&path).unwrap();
    }
}
