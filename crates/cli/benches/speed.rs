//! How long a person waits: `ls` of 1,000 checkpoints, `show` of 100,000 tensors, and `stats` and
//! `diff` of 1 GiB beside what the machine gives to as many threads: bytes of memory looked at, and
//! the same bytes read from the file without being looked at. Prints figures; the whole process is
//! timed, start to end.
//!
//! ```text
//! cargo bench -p tensorkeep-cli
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use tensorkeep::engine::Local;
use tensorkeep::{Progress, Snapshot, Store, StoreOptions};

const GIB: usize = 1 << 30;
const TURNS: usize = 5;

fn main() {
    let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
    let folder = std::env::temp_dir().join(format!("tensorkeep-speed-{nonce:032x}"));
    std::fs::create_dir(&folder).expect("a folder to work in");
    let memory = memory_bandwidth();
    println!("memory, read by all threads: {:.1} GB/s", memory / 1e9);
    let run = thousand_checkpoints(&folder);
    println!("ls of 1,000 checkpoints: {:.0} ms", 1e3 * time(&["ls", &text(&run)]));
    let many = many_tensors(&folder);
    println!("show of 100,000 tensors: {:.0} ms", 1e3 * time(&["show", &text(&many)]));
    println!("show --json of 100,000 tensors: {:.0} ms", 1e3 * time(&["show", "--json", &text(&many)]));
    let (run, [a, b, equal]) = large_run(&folder);
    let reading = read_bandwidth(&a);
    println!("the same bytes, read from the cached file by all threads: {:.1} GB/s", reading / 1e9);
    let step = |step: u64| format!("{}@{step}", text(&run));
    let (a, b, equal, first, second, third) = (text(&a), text(&b), text(&equal), step(1), step(2), step(3));
    // Checkpoints of a run are mapped, files by their own paths are read.
    for (what, args, bytes) in [
        ("stats of 1 GiB of f32 of a run", &["stats", &first][..], GIB),
        ("diff of 2 x 1 GiB of a run, all different", &["diff", &first, &second], 2 * GIB),
        ("diff of 2 x 1 GiB of a run, equal", &["diff", &first, &third], 2 * GIB),
        ("stats of the file", &["stats", &a], GIB),
        ("diff of the files, all different", &["diff", &a, &b], 2 * GIB),
        ("diff of the files, equal", &["diff", &a, &equal], 2 * GIB),
        ("verify of 1 GiB", &["verify", &a], GIB),
    ] {
        let rate = bytes as f64 / time(args);
        let (of_memory, of_reading) = (100.0 * rate / memory, 100.0 * rate / reading);
        println!("{what}: {:.1} GB/s, {of_memory:.0} % of memory, {of_reading:.0} % of reading", rate / 1e9);
    }
    let _ = std::fs::remove_dir_all(&folder);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Seconds of the fastest of some turns, warm.
fn time(args: &[&str]) -> f64 {
    let one = || {
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
        let status = command.args(args).stdout(Stdio::null()).status().expect("the binary runs");
        assert!(status.code().is_some_and(|code| code <= 1), "{args:?}: {status}");
        start.elapsed().as_secs_f64()
    };
    (0..TURNS).map(|_| one()).fold(f64::INFINITY, f64::min)
}

fn memory_bandwidth() -> f64 {
    let words = vec![1_u64; GIB / 8];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let turn = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(move || std::hint::black_box(part.iter().fold(0, |sum: u64, word| sum ^ word)));
            }
        });
        GIB as f64 / start.elapsed().as_secs_f64()
    };
    (0..TURNS).map(|_| turn()).fold(0.0, f64::max)
}

/// In pieces that stay in the cache.
fn read_bandwidth(path: &Path) -> f64 {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path).expect("a file");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    const PIECE: usize = 1 << 18;
    let part = GIB / threads / PIECE * PIECE;
    let read = |thread: usize| {
        let mut piece = vec![0; PIECE];
        for at in (thread * part..(thread + 1) * part).step_by(PIECE) {
            file.read_exact_at(&mut piece, at as u64).expect("bytes");
        }
    };
    let turn = || {
        let start = Instant::now();
        std::thread::scope(|scope| (0..threads).for_each(|thread| drop(scope.spawn(move || read(thread)))));
        (part * threads) as f64 / start.elapsed().as_secs_f64()
    };
    (0..TURNS).map(|_| turn()).fold(0.0, f64::max)
}

fn thousand_checkpoints(folder: &Path) -> PathBuf {
    let run = folder.join("run");
    let store = Store::open(Local::create(&run).expect("a run"), StoreOptions::new()).expect("a store");
    let mut snapshot = Snapshot::new()
        .tensor("w", &[1.0_f32; 100][..])
        .expect("a tensor")
        .metric("loss", 0.5)
        .expect("a metric");
    snapshot = snapshot.progress(Progress::new(1));
    store.save(&snapshot).expect("a save");
    // Copies under other names: a thousand durable saves would measure the disk.
    let first = run.join("0001-0000000001.tkeep");
    (2..=1000).for_each(|step| drop(std::fs::copy(&first, run.join(format!("0001-{step:010}.tkeep")))));
    run
}

fn many_tensors(folder: &Path) -> PathBuf {
    // Each its own memory: the same memory would be one tensor with 100,000 names.
    let values = vec![0.5_f32; 6_400_000];
    let mut snapshot = Snapshot::new();
    for (i, values) in values.chunks(64).enumerate() {
        let name = format!("model.layers.{}.block.{}.weight", i / 100, i % 100);
        snapshot = snapshot.tensor(name, (&[8, 8][..], values)).expect("a tensor");
    }
    let path = folder.join("many.tkeep");
    snapshot.save(&path).expect("a save");
    path
}

/// A run of three checkpoints of 1 GiB, and their files: no number of the second is the first's,
/// the third is the first again. Another file: the same one's bytes would be in the processor's
/// cache already.
fn large_run(folder: &Path) -> (PathBuf, [PathBuf; 3]) {
    let run = folder.join("large");
    let store = Store::open(Local::create(&run).expect("a run"), StoreOptions::new()).expect("a store");
    let file = |step: u64| run.join(format!("0001-{step:010}.tkeep"));
    for (step, shift) in [(1, 0.0), (2, 1e-3)] {
        let values: Vec<f32> = (0..GIB / 4 / 16).map(|i| (i % 1013) as f32 * 0.001 - 0.5 + shift).collect();
        let all: Vec<Vec<f32>> = (0..16).map(|_| values.clone()).collect();
        let mut snapshot = Snapshot::new().progress(Progress::new(step));
        for (i, values) in all.iter().enumerate() {
            snapshot = snapshot.tensor(format!("t{i}"), values).expect("a tensor");
        }
        store.save(&snapshot).expect("a save");
    }
    std::fs::copy(file(1), file(3)).expect("a copy");
    let files = [1, 2, 3].map(file);
    (run, files)
}
