//! What fuzzers thought of, on every compiler: the corpus of fuzz/, each input through the code
//! that the fuzz target runs, within a second and 64 MiB.
#![expect(unsafe_code, reason = "an allocator that counts can only be an unsafe impl")]

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/edits.rs"]
mod edits;
#[path = "common/reseal.rs"]
mod reseal;
#[path = "common/targets.rs"]
mod targets;

use counting::peak_of;
use std::path::Path;
use std::time::{Duration, Instant};

const MOST_MEMORY: usize = 64 << 20;
const MOST_TIME: Duration = Duration::from_secs(1);
/// What a clone of the repository is spared.
const MOST_FILES: usize = 330;
const MOST_BYTES: usize = 2 << 20;

#[test]
fn every_kept_input_stays_within_its_time_and_memory() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"));
    let (mut files, mut bytes) = (0, 0);
    for (name, target) in targets::TARGETS {
        let mut paths: Vec<_> =
            std::fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 10, "{name} has {} inputs", paths.len());
        // What a target builds once is not an input's.
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
