//! A file that is open for reading: reads at the kernel's full speed, into memory of any alignment.

use super::readahead::Ahead;
use crate::engine::vfs::{self, VfsFile};
use crate::engine::{Blob, count_read, read_within};
use crate::error::Result;
use std::io;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct FileBlob {
    file: Arc<dyn VfsFile>,
    len: u64,
    name: String,
    ahead: Ahead,
}

impl Blob for FileBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = |buffer: &mut [u8]| {
            if is_copied_slowly(offset, buffer) {
                self.read_by_way_of_a_page(offset, buffer)
            } else {
                self.read_straight(offset, buffer)
            }
        };
        read_within(self.len, offset, buffer, read).map_err(|error| error.in_object(&self.name))
    }

    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        let mut rest = ranges;
        while !rest.is_empty() {
            let (together, later) = rest.split_at_mut(neighbours(rest));
            match together {
                [(offset, buffer)] => self.read_at(*offset, buffer)?,
                several => self.read_together(several)?,
            }
            rest = later;
        }
        Ok(())
    }
}

const PAGE: usize = 4096;

/// Bytes read at a time through an intermediate buffer: as many as stay in a core's cache.
const BY_WAY_OF: usize = 64 << 10;

/// An intermediate buffer, with room to start at any place within a page.
#[repr(align(4096))]
struct Pages([u8; 2 * PAGE + BY_WAY_OF]);

impl Pages {
    const ZEROED: Self = Self([0; 2 * PAGE + BY_WAY_OF]);

    /// Room for `len` bytes from `offset` of a file, two cache lines further into a page than the
    /// file's bytes, which is almost one page from where the kernel would copy slowly.
    fn room(&mut self, offset: u64, len: usize) -> &mut [u8] {
        // OK to cast: only the place within a page counts.
        &mut self.0[offset as usize % PAGE + 128..][..len]
    }
}

/// Whether the intermediate buffer pays.
fn is_copied_slowly(offset: u64, target: &[u8]) -> bool {
    // OK to cast: only the place within a page counts.
    target.len() >= BY_WAY_OF / 4 && tensorkeep_memcpy::is_slow(offset as usize, target)
}

/// How many of the first ranges, at least one, lie so close together that one call reads them all.
fn neighbours(ranges: &[(u64, &mut [u8])]) -> usize {
    let end = |(offset, buffer): &(u64, &mut [u8])| offset.checked_add(buffer.len() as u64);
    let Some(first) = ranges.first().map(|(offset, _)| *offset) else { return 0 };
    let is_next = |pair: &&[(u64, &mut [u8])]| {
        let [before, next] = pair else { return false };
        let gap = end(before).and_then(|end| next.0.checked_sub(end));
        let reach = end(next).and_then(|end| end.checked_sub(first));
        gap.is_some_and(|gap| gap < PAGE as u64) && reach.is_some_and(|reach| reach <= BY_WAY_OF as u64)
    };
    1 + ranges.windows(2).take_while(is_next).count()
}

impl FileBlob {
    pub fn new(file: Arc<dyn VfsFile>, len: u64, name: String) -> Self {
        Self { file, len, name, ahead: Ahead::default() }
    }

    fn read_straight(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.ahead.prepare(&*self.file, offset..offset + buffer.len() as u64, self.len);
        let read = vfs::read_full_at(&*self.file, offset, buffer)?;
        count_read(read);
        Ok(read)
    }

    fn read_by_way_of_a_page(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pages = Pages::ZEROED;
        let mut filled = 0;
        for part in buffer.chunks_mut(BY_WAY_OF) {
            let room = pages.room(offset, part.len());
            let read = self.read_straight(offset + filled as u64, room)?;
            part[..read].copy_from_slice(&room[..read]);
            filled += read;
            if read < part.len() {
                break;
            }
        }
        Ok(filled)
    }

    /// Neighbours, in one call.
    fn read_together(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        let (Some(first), Some((last, buffer))) = (ranges.first().map(|range| range.0), ranges.last()) else {
            return Ok(());
        };
        let mut pages = Pages::ZEROED;
        // OK to cast, here and below: neighbours reach no farther than the room.
        let room = pages.room(first, (last - first) as usize + buffer.len());
        let read = |room: &mut [u8]| self.read_straight(first, room);
        read_within(self.len, first, room, read).map_err(|error| error.in_object(&self.name))?;
        for (offset, buffer) in ranges {
            buffer.copy_from_slice(&room[(*offset - first) as usize..][..buffer.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::vfs::{Os, Vfs};
    use std::ops::Range;
    use std::sync::Mutex;

    #[test]
    fn reads_give_the_files_bytes_at_every_alignment() {
        let path = std::env::temp_dir().join(format!("tensorkeep-blob-{:?}", crate::engine::fresh_nonce()));
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let (file, name) = (Os::default().open(&path).unwrap(), path.display().to_string());
        let blob = FileBlob::new(file, bytes.len() as u64, name);
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

    /// A file that is partly in the page cache, and a log of the calls it received.
    #[derive(Debug, Default)]
    struct Asked {
        cached_to: u64,
        /// From here on the file is cached, too: opening reads the end.
        cached_from: u64,
        reads: Mutex<Vec<(u64, usize)>>,
        ahead: Mutex<Vec<Range<u64>>>,
    }

    impl VfsFile for Asked {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads.lock().unwrap().push((offset, buffer.len()));
            fill(buffer, offset);
            Ok(buffer.len())
        }

        fn read_cached_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
            if offset >= self.cached_from {
                return buffer.len();
            }
            let here = self.cached_to.saturating_sub(offset).min(buffer.len() as u64) as usize;
            fill(&mut buffer[..here], offset);
            here
        }

        fn read_ahead(&self, range: Range<u64>) {
            self.ahead.lock().unwrap().push(range);
        }

        fn stat(&self) -> io::Result<vfs::Stat> {
            unimplemented!()
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<usize> {
            unimplemented!()
        }
        fn preallocate(&self, _: u64) -> io::Result<()> {
            unimplemented!()
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            unimplemented!()
        }
        fn set_read_only(&self) -> io::Result<()> {
            unimplemented!()
        }
        fn sync(&self) -> io::Result<()> {
            unimplemented!()
        }
    }

    fn fill(buffer: &mut [u8], offset: u64) {
        for (byte, at) in buffer.iter_mut().zip(offset..) {
            *byte = (at % 251) as u8;
        }
    }

    fn asked(cached_to: u64, len: u64) -> (Arc<Asked>, FileBlob) {
        let file = Arc::new(Asked { cached_to, cached_from: len - (64 << 10), ..Asked::default() });
        (Arc::clone(&file), FileBlob::new(file, len, "asked".to_owned()))
    }

    #[test]
    fn neighbours_are_read_in_one_call_and_nothing_else_is() {
        let (file, blob) = asked(0, 10 << 20);
        let apart = 64;
        let near: Vec<(u64, usize)> = (0..1000).map(|i| (4096 + i * (256 + apart), 256)).collect();
        let far = [(2 << 20, 100), ((2 << 20) + 100 + PAGE as u64, 100), (1 << 20, 100), (3 << 20, 10_000)];
        let wanted: Vec<(u64, usize)> = near.iter().copied().chain(far).collect();
        let mut memory: Vec<Vec<u8>> = wanted.iter().map(|&(_, len)| vec![0; len]).collect();
        let mut ranges: Vec<(u64, &mut [u8])> =
            wanted.iter().zip(&mut memory).map(|(&(offset, _), memory)| (offset, &mut memory[..])).collect();
        blob.read_ranges(&mut ranges).unwrap();
        for ((offset, _), memory) in wanted.iter().zip(&memory) {
            assert!(memory.iter().zip(*offset..).all(|(&byte, at)| u64::from(byte) == at % 251), "{offset}");
        }
        let reads = std::mem::take(&mut *file.reads.lock().unwrap());
        // 320,000 bytes by windows of 64 KiB, and each of the others by itself.
        assert_eq!(reads.len(), 5 + far.len(), "{reads:?}");
        assert_eq!(&reads[5..], &far);
        assert_eq!(neighbours(&[]), 0);
        let (mut a, mut b) = ([0; 8], [0; 8]);
        assert!(blob.read_ranges(&mut [((10 << 20) - 8, &mut a), ((10 << 20) - 4, &mut b)]).is_err());
        assert!(blob.read_ranges(&mut [(u64::MAX - 16, &mut a), (u64::MAX - 8, &mut b)]).is_err());
    }

    #[test]
    fn readahead_requests_each_uncached_range_once() {
        const MIB: u64 = 1 << 20;
        let len = 128 * MIB;
        // Aligned to a page, like the file's bytes: read directly.
        let mut memory = vec![0; MIB as usize + PAGE];
        let page = memory.as_ptr().align_offset(PAGE);
        let buffer = &mut memory[page..][..MIB as usize];
        let mut read_all = |cached_to: u64| {
            let (file, blob) = asked(cached_to, len);
            for at in (0..128).map(|i| i * MIB) {
                blob.read_at(at, buffer).unwrap();
                assert!(buffer.iter().zip(at..).all(|(&byte, at)| u64::from(byte) == at % 251), "{at}");
            }
            assert_eq!(file.reads.lock().unwrap().len(), 128);
            std::mem::take(&mut *file.ahead.lock().unwrap())
        };
        assert!(read_all(len).is_empty());
        let ahead = read_all(40 * MIB);
        assert!(ahead.len() < 20, "{ahead:?}");
        assert_eq!(ahead[0], 40 * MIB..41 * MIB);
        assert!(ahead.windows(2).all(|pair| pair[1].start == pair[0].end), "{ahead:?}");
        assert_eq!(ahead.last().map(|last| last.end), Some(len));
    }

    #[test]
    fn reads_beyond_the_kernels_bound_for_one_request_are_whole() {
        const LEN: u64 = 32 << 20;
        let path = std::env::temp_dir().join(format!("tensorkeep-ahead-{:?}", crate::engine::fresh_nonce()));
        std::fs::write(&path, vec![7; LEN as usize]).unwrap();
        let written = std::fs::File::open(&path).unwrap();
        written.sync_all().unwrap();
        let file = Os::default().open(&path).unwrap();
        let mut last = vec![0; 1 << 20];
        let last_start = LEN - last.len() as u64;
        // Probing makes the kernel read, so there is one probe for each request, and the reads that
        // it started are waited for.
        let was_read = [10, 100, 1000, 10_000].into_iter().any(|milliseconds| {
            rustix::fs::fadvise(&written, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            file.read_ahead(0..LEN);
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
            let found = file.read_cached_at(last_start, &mut last);
            vfs::read_full_at(&*file, last_start, &mut last).unwrap();
            found == last.len()
        });
        let can_look = file.read_cached_at(last_start, &mut last) > 0;
        std::fs::remove_file(&path).unwrap();
        if !can_look {
            return eprintln!("skipped: this file system does not say what it has in memory");
        }
        assert!(was_read);
    }
}
