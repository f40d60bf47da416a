//! Inputs of fuzzers on every compiler: the corpus of fuzz/, each input through the code of its
//! fuzz target, within a second and 64 MiB.

use std::path::Path;
use std::time::{Duration, Instant};
use test_support::counting::{Counting, peak_of};
use test_support::targets::TARGETS;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_MEMORY: usize = 64 << 20;
const MOST_TIME: Duration = Duration::from_secs(1);
/// Limit of files, to keep clones of the repository small.
const MOST_FILES: usize = 360;
const MOST_BYTES: usize = 2 << 20;

#[test]
fn every_kept_input_stays_within_its_time_and_memory() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"));
    let (mut files, mut bytes) = (0, 0);
    for (name, target) in TARGETS {
        let mut paths: Vec<_> =
            std::fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 10, "{name} has {} inputs", paths.len());
        // A fuzzer's first input. A target's one-time setup is not charged to an input.
        target(&[]);
        target(&[0; 16]);
        for path in paths {
            let input = std::fs::read(&path).unwrap();
            (files, bytes) = (files + 1, bytes + input.len());
            let start = Instant::now();
            let ((), peak) = peak_of(|| target(&input));
            let elapsed = start.elapsed();
            assert!(elapsed < MOST_TIME, "{}: {elapsed:?}", path.display());
            assert!(peak < MOST_MEMORY, "{}: {peak} bytes were held", path.display());
        }
    }
    assert!(files <= MOST_FILES && bytes <= MOST_BYTES, "{files} files, {bytes} bytes");
}
