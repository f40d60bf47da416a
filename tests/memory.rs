//! The memory of opening and saving, measured by the kernel: resident pages, mappings and buffers
//! of every thread included.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tensorkeep::engine::{Local, MmapPromise};
use tensorkeep::{Checkpoint, OpenOptions, Progress, Snapshot, Store, StoreOptions};
use test_support::TempFolder;
use test_support::build::{Container, alignment, dtype_id};

/// One test at a time: they share the process's memory.
static ALONE: Mutex<()> = Mutex::new(());

/// A line of /proc/self/status in bytes.
fn status(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Peak of resident memory during `run`, beyond the memory before.
fn peak_of<T>(run: impl FnOnce() -> T) -> (T, u64) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let result = run();
    (result, status("VmHWM:").saturating_sub(before))
}

const TENSORS: u64 = 100;
const TENSOR_LEN: u64 = 1 << 30;

/// 100 tensors of 1 GiB of zeros in a file with holes in their place.
fn sparse(path: &PathBuf) {
    let mut container = Container::new();
    let log2 = 26_u8;
    let chunks = TENSOR_LEN >> log2;
    let zeros = vec![0; 1 << log2];
    let crc = crc32fast::hash(&zeros);
    for i in 0..TENSORS {
        let table = &mut container.tensors;
        table.put("names", format!("layer{i:03}").as_bytes());
        table.put("name_ends", &((i as u32 + 1) * 8).to_le_bytes());
        table.put("dtypes", &dtype_id("f32").to_le_bytes());
        table.put("dims", &(TENSOR_LEN / 4).to_le_bytes());
        table.put("dim_ends", &(i as u32 + 1).to_le_bytes());
        table.put("byte_lens", &TENSOR_LEN.to_le_bytes());
        table.put("offsets", &(alignment(TENSOR_LEN) + i * TENSOR_LEN).to_le_bytes());
        table.put("chunk_log2", &[log2]);
        table.put("chunk_ends", &((i + 1) as u32 * chunks as u32).to_le_bytes());
        for _ in 0..chunks {
            table.put("chunk_crcs", &crc.to_le_bytes());
        }
    }
    let region = container.region();
    let index_offset = 4096 + TENSORS * TENSOR_LEN;
    let end = index_offset + region.len() as u64;
    let file = File::create(path).unwrap();
    file.write_all_at(&container.front, 0).unwrap();
    file.write_all_at(&region, index_offset).unwrap();
    file.write_all_at(&container.footer(&region, index_offset, 0, end), end).unwrap();
}

#[test]
fn opening_a_file_of_100_gib_costs_no_more_than_its_index() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempFolder::new("sparse");
    let path = folder.path().join("sparse.tkeep");
    sparse(&path);
    assert!(std::fs::metadata(&path).unwrap().len() > 100 << 30);
    for mapped in [false, true] {
        let (checkpoint, peak) = peak_of(|| {
            if mapped {
                #[expect(unsafe_code, reason = "mapping rests on a promise")]
                // SAFETY: the file is this test's own and is not changed any more.
                let promise = unsafe { MmapPromise::assume_unchanged() };
                OpenOptions::new().map(&path, promise).unwrap()
            } else {
                Checkpoint::open(&path).unwrap()
            }
        });
        assert!(peak < 2 << 20, "opening (mapped: {mapped}) took {peak} bytes");
        assert_eq!(checkpoint.tensors().map(|info| info.byte_len).sum::<u64>(), 100 << 30);
        // A chunk of this file is 64 MiB: it is verified in a buffer of its own, or in the mapping.
        let (rows, peak) = peak_of(|| {
            checkpoint.slice("layer077", 1_000_000..1_000_100).unwrap().elements::<f32>().unwrap().to_vec()
        });
        assert_eq!(rows, [0.0; 100]);
        assert!(peak < 140 << 20, "100 rows (mapped: {mapped}) took {peak} bytes");
    }
}

#[test]
fn a_save_takes_64_mib_and_a_chunk_per_thread_at_most() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempFolder::new("save-memory");
    let weights: Vec<f32> = (0..64 << 20).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut snapshot = Snapshot::new();
    for (name, part) in ["a", "b", "c", "d"].into_iter().zip(weights.chunks(16 << 20)) {
        snapshot = snapshot.tensor(name, part).unwrap();
    }
    snapshot = snapshot.progress(Progress::new(1));
    let store = Store::open(Local::create(folder.path().join("run")).unwrap(), StoreOptions::new()).unwrap();
    let (written, peak) = peak_of(|| snapshot.save(folder.path().join("plain.tkeep")).unwrap());
    assert!(written.byte_len > 256 << 20);
    let limit = (64 + std::thread::available_parallelism().unwrap().get() as u64) << 20;
    assert!(peak <= limit, "Snapshot::save took {peak} bytes");
    let (_, peak) = peak_of(|| store.save(&snapshot).unwrap());
    assert!(peak <= limit, "Store::save took {peak} bytes");
}
