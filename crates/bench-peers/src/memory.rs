//! The kernel's figures for this process's memory and for files in the page cache: the peak of
//! resident memory, and evicting a file in the same way for every system.
#![expect(unsafe_code, reason = "mincore has no safe wrapper, and mapping rests on a promise; see SAFETY")]

use crate::Outcome;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::path::Path;

/// Resets the peak, and returns the resident memory, in bytes.
pub fn reset_peak() -> Outcome<u64> {
    fs::write("/proc/self/clear_refs", "5")?;
    status("VmRSS:")
}

/// The peak of resident memory since then, in bytes. Pages of a mapped file count.
pub fn peak() -> Outcome<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such figure")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Evicts a file from the page cache, and checks that it is gone: dropping all caches would need
/// root and slow down every process on the machine.
pub fn make_cold(path: &Path) -> Outcome<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let cached = cached_share(&file)?;
    if cached > 0.01 {
        let share = (cached * 100.0).round();
        return Err(format!("{share} % of {} stays in the page cache", path.display()).into());
    }
    Ok(())
}

/// Reads a file into large pages of the page cache, which the next [`make_cold`] then frees alike
/// for every system.
///
/// The speed of reading a cold file depends on earlier runs, by a factor of four: memory that has
/// been free for a while was taken back by the hypervisor, and memory freed as small pages does not
/// serve requests for large ones.
pub fn settle(path: &Path) -> Outcome<()> {
    make_cold(path)?;
    let map = map(path)?;
    map.advise(memmap2::Advice::HugePage)?;
    crate::workloads::sum([&map]);
    Ok(())
}

/// A measured file, mapped.
pub fn map(path: &Path) -> Outcome<memmap2::Mmap> {
    // SAFETY: the file is in this program's own folder. It is replaced by rename when it is saved
    // again, and never written to or truncated while it is mapped.
    Ok(unsafe { memmap2::Mmap::map(&File::open(path)?) }?)
}

/// The share of a file's pages that are in the page cache.
fn cached_share(file: &File) -> Outcome<f64> {
    const PAGE: usize = 4096;
    // SAFETY: the map is only queried, never read, and lives until the end of this function.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    let mut pages = vec![0_u8; map.len().div_ceil(PAGE)];
    // SAFETY: `pages` has one byte for each page of the range, which is exactly the mapping.
    let failed = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
    if failed != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let there = pages.iter().filter(|&&page| page & 1 == 1).count();
    Ok(there as f64 / pages.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_of_this_process_and_can_be_forgotten() {
        // More than the concurrent tests take.
        const LEN: u64 = 512 << 20;
        let before = reset_peak().unwrap();
        let is_remembered = |_| {
            drop(std::hint::black_box(vec![1_u8; LEN as usize]));
            peak().unwrap() >= before + LEN / 2
        };
        // Several times: a concurrent test may reset the peak in between.
        assert!((0..5).any(is_remembered), "{before} {}", peak().unwrap());
        reset_peak().unwrap();
        assert!(peak().unwrap() < before + LEN / 2);
    }

    #[test]
    fn a_file_that_was_made_cold_is_not_in_the_page_cache() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cold-{}", std::process::id()));
        fs::write(&path, vec![1_u8; 8 << 20]).unwrap();
        let warm = cached_share(&File::open(&path).unwrap()).unwrap();
        let cold = make_cold(&path).and_then(|()| cached_share(&File::open(&path)?));
        let settled = settle(&path).and_then(|()| cached_share(&File::open(&path)?));
        fs::remove_file(&path).unwrap();
        assert_eq!((warm, settled.unwrap()), (1.0, 1.0));
        assert!(cold.unwrap() < 0.01);
    }
}
