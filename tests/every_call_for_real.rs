//! The kernel's own calls fail, or kill the process, one after the other: a trainer runs under `strace`, which injects the
//! fault at the N-th call of a name, for N = 1, 2, … until a run is clean. Skipped, with a word, where strace is missing.
//!
//! The trainer is this test's own binary, started again with an environment variable.

mod common;

use common::TempFolder;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Progress, Result, Settings, Snapshot, Store};

const CHILD: &str = "TENSORKEEP_REAL_FAULTS_RUN";
/// Calls of a life, by the names that the kernel has for them.
const CALLS: [&str; 10] = [
    "openat",
    "pwrite64",
    "fsync",
    "renameat2",
    "unlink",
    "ftruncate",
    "fallocate",
    "fchmod",
    "flock",
    "mkdir",
];
/// More calls of one name than a life has: a loop that never ends is a mistake here.
const MOST_CALLS: usize = 150;

fn open(run: &Path) -> Result<Store> {
    Store::open(Local::create(run)?, Settings::new().keep(Keep::last(1)))
}

fn save(store: &Store, step: u64) -> Result<()> {
    // Large enough to be preallocated.
    let weights = vec![step as f32; 80_000];
    let mut snapshot = Snapshot::new();
    snapshot.tensor("weight", &weights)?;
    snapshot.progress(Progress::new(step));
    store.save(&snapshot).map(drop)
}

/// What is run under strace: at once over when it was not started so.
#[test]
fn child_whose_calls_fail() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let say = |words: &str| {
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{words}").and_then(|()| out.flush());
    };
    let train = || -> Result<()> {
        let store = open(Path::new(&run))?;
        say("@opened");
        let mut step = store.resume()?.next_step();
        for _ in 0..2 {
            step += 1;
            save(&store, step)?;
            say(&format!("@saved {step}"));
        }
        store.close()
    };
    match train() {
        Ok(()) => say("@done"),
        Err(error) => {
            say(&format!("@error {error}"));
            std::process::exit(3);
        }
    }
}

fn child_under_strace(run: &Path, injected: &str) -> Option<Output> {
    let name = injected.split(':').next().unwrap();
    let output = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={name}"),
            "-e",
            &format!("inject={injected}"),
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_whose_calls_fail", "--nocapture", "--test-threads=1"])
        .env(CHILD, run)
        .output();
    output.map_err(|error| println!("skipped: no strace ({error})")).ok()
}

/// The run after a life with one fault: everything that was said is true, and it goes on.
fn check(run: &Path, words: &str, what: &str) {
    let saved = words.lines().filter_map(|line| line.strip_prefix("@saved ")?.parse::<u64>().ok()).max();
    let store = open(run).unwrap_or_else(|error| panic!("{what}: {error}"));
    let resumed = store.resume().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(resumed.skipped.is_empty(), "{what}: {:?}", resumed.skipped);
    assert!(resumed.next_step() >= saved.unwrap_or(10), "{what} lost step {saved:?}: {words}");
    save(&store, resumed.next_step() + 1).unwrap_or_else(|error| panic!("{what}: {error}"));
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".tmp")).collect();
    assert!(left.is_empty(), "{what} left {left:?}");
}

/// The fault at the first, second, … call of this name, until one life is clean. Returns how many calls were hit.
fn count_through(call: &str, fault: &str) -> Option<usize> {
    let mut hit_in_life = 0;
    for number in 1..MOST_CALLS {
        let folder = TempFolder::new("real");
        let run = folder.path().join("run");
        let store = open(&run).unwrap();
        save(&store, 10).unwrap();
        drop(store);
        let what = format!("{call} {number} with {fault}");
        let output = child_under_strace(&run, &format!("{call}:{fault}:when={number}"))?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if words.contains("ptrace") || words.contains("strace: ") {
            println!("skipped: strace cannot trace here: {words}");
            return None;
        }
        hit_in_life += usize::from(!words.contains("@done"));
        if let Some(error) = words.lines().find_map(|line| line.strip_prefix("@error ")) {
            assert!(error.contains("run"), "{what}: no path in {error:?}");
        }
        check(&run, &words, &what);
        if words.contains("@done") && number > calls_of_a_clean_life(call) {
            return Some(hit_in_life);
        }
    }
    panic!("{call}: a life has no more than {MOST_CALLS} calls of a name");
}

/// Counted once with nothing injected that could matter.
fn calls_of_a_clean_life(call: &str) -> usize {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    static COUNTED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut counted = COUNTED.lock().unwrap();
    *counted.entry(call.to_owned()).or_insert_with(|| {
        let folder = TempFolder::new("real-count");
        let (run, log) = (folder.path().join("run"), folder.path().join("log"));
        save(&open(&run).unwrap(), 10).unwrap();
        let status = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={call}"), "-o"])
            .arg(&log)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child_whose_calls_fail", "--nocapture", "--test-threads=1"])
            .env(CHILD, &run)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains(call)).count()
    })
}

// G1 G2 G3
#[test]
fn every_call_of_the_kernel_fails_once() {
    for (fault, calls) in [("error=EIO", &CALLS[..]), ("error=ENOSPC", &CALLS[..4])] {
        for call in calls {
            let Some(hits) = count_through(call, fault) else { return };
            println!("{call} {fault}: {hits} lives ended by it");
        }
    }
}

// G1 G2 G3
#[test]
fn the_process_is_killed_at_every_call_of_the_save_path() {
    for call in ["pwrite64", "fsync", "renameat2", "unlink", "ftruncate", "fallocate", "fchmod", "mkdir"] {
        let Some(hits) = count_through(call, "signal=SIGKILL") else { return };
        println!("{call} SIGKILL: {hits} lives ended by it");
        assert!(hits > 0 || call == "mkdir", "{call} was never called");
    }
}

// G2: interrupted calls are made again.
#[test]
fn interrupted_writes_are_made_again() {
    let Some(hits) = count_through("pwrite64", "error=EINTR") else { return };
    assert_eq!(hits, 0, "an interrupted write ended a life");
}
