//! The kernel's own calls fail, or kill the process, one after the other: a trainer runs under
//! `strace`, which injects the fault at the N-th call of a name, for N = 1, 2, … until a run is
//! clean. It saves small files, large ones (in blocks, by direct I/O), in the background, and
//! mapped. Skipped, with a message, where strace is missing.
//!
//! The trainer is this test's own binary, started again with environment variables.
#![expect(unsafe_code, reason = "mapping takes a promise, which these tests keep")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use tensorkeep::engine::{Local, MmapPromise};
use tensorkeep::{Keep, Result, Store, StoreOptions};
use test_support::{TempFolder, snapshot};

const CHILD: &str = "TENSORKEEP_REAL_FAULTS_RUN";
const WAY: &str = "TENSORKEEP_REAL_FAULTS_WAY";
/// Calls of a life, by their system call names.
const CALLS: [&str; 8] =
    ["openat", "pwrite64", "fsync", "renameat2", "unlinkat", "fchmod", "flock", "mkdirat"];
/// Calls of a large save alone: its space is reserved, and its last block is cut.
const CALLS_OF_BLOCKS: [&str; 2] = ["ftruncate", "fallocate"];
/// Calls of a save in a life that has the others' calls as well.
const CALLS_OF_A_SAVE: [&str; 4] = ["pwrite64", "fsync", "renameat2", "fchmod"];
const ERRORS: [&str; 7] = ["EIO", "ENOSPC", "EDQUOT", "EINTR", "EACCES", "EROFS", "EMFILE"];
/// More calls of one name than a life has: an endless loop fails here.
const MOST_CALLS: usize = 400;

/// How the child saves, and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// One write.
    Small,
    /// Blocks of 4 MiB by direct I/O, on several threads.
    Large,
    /// Staged, saved by another thread.
    Background,
    /// On a file system that cannot rename without replacing: by link and unlink.
    Linked,
    /// Resumed from a mapped file.
    Mapped,
}

const WAYS: [Way; 5] = [Way::Small, Way::Large, Way::Background, Way::Linked, Way::Mapped];

fn open(run: &Path) -> Result<Store> {
    open_in(Way::Small, run)
}

fn open_in(way: Way, run: &Path) -> Result<Store> {
    let settings = StoreOptions::new().keep(Keep::last(1));
    // SAFETY: the files of a run are never changed in place.
    let mapped = || settings.clone().map(unsafe { MmapPromise::assume_unchanged() });
    Store::open(Local::create(run)?, if way == Way::Mapped { mapped() } else { settings })
}

fn save(store: &Store, step: u64, way: Way) -> Result<()> {
    // One write, or blocks in space that was reserved.
    let snapshot = snapshot(step, if way == Way::Large { 1_300_000 } else { 80_000 });
    if way == Way::Background {
        store.stage(&snapshot)?;
        return store.wait();
    }
    store.save(&snapshot).map(drop)
}

/// The process under strace; returns at once when not started as one.
#[test]
fn child_whose_calls_fail() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let way = std::env::var(WAY).unwrap();
    let way = WAYS.into_iter().find(|known| format!("{known:?}") == way).unwrap();
    let say = |words: &str| {
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{words}").and_then(|()| out.flush());
    };
    let train = || -> Result<()> {
        let store = open_in(way, Path::new(&run))?;
        say("@opened");
        let mut step = store.resume()?.next_step();
        for _ in 0..2 {
            step += 1;
            save(&store, step, way).inspect_err(|error| say(&format!("@failed {step} {error}")))?;
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

/// A life under strace with these arguments.
fn child_under_strace(run: &Path, way: Way, call: &str, arguments: &[String]) -> Option<Output> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("trace=renameat2,{call}")]);
    if way == Way::Linked {
        strace.args(["-e", "inject=renameat2:error=EINVAL"]);
    }
    if call == "mmap" {
        // Of this file only: memory is mapped, too.
        strace.arg("-P").arg(run.join("0001-0000000010.tkeep"));
    }
    strace.args(arguments).arg(std::env::current_exe().unwrap());
    strace.args(["--exact", "child_whose_calls_fail", "--nocapture", "--test-threads=1"]);
    let output = strace.env(CHILD, run).env(WAY, format!("{way:?}")).output();
    output.map_err(|error| println!("skipped: no strace ({error})")).ok()
}

/// The run after a life with one fault: every printed promise holds, and the run continues.
fn check(run: &Path, words: &str, what: &str) {
    let saved = words.lines().filter_map(|line| line.strip_prefix("@saved ")?.parse::<u64>().ok()).max();
    let store = open(run).unwrap_or_else(|error| panic!("{what}: {error}"));
    let resumed = store.resume().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(resumed.skipped.is_empty(), "{what}: {:?}", resumed.skipped);
    assert!(resumed.next_step() >= saved.unwrap_or(10), "{what} lost step {saved:?}: {words}");
    save(&store, resumed.next_step() + 1, Way::Small).unwrap_or_else(|error| panic!("{what}: {error}"));
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".tmp")).collect();
    assert!(left.is_empty(), "{what} left {left:?}");
}

/// An error names its file and step.
fn check_words(words: &str, what: &str) {
    if let Some(error) = words.lines().find_map(|line| line.strip_prefix("@error ")) {
        // The run's own path, or that of the folder that holds its name.
        assert!(error.contains("/tensorkeep-real-"), "{what}: no path in {error:?}");
    }
    for failed in words.lines().filter_map(|line| line.strip_prefix("@failed ")) {
        let (step, error) = failed.split_once(' ').unwrap();
        assert!(error.contains(&format!("saving step {step}: ")), "{what}: no step in {error:?}");
    }
}

fn new_run(folder: &TempFolder) -> std::path::PathBuf {
    let run = folder.path().join("run");
    save(&open(&run).unwrap(), 10, Way::Small).unwrap();
    run
}

/// Injects the fault at the first, second, … call of this name, until one life is clean. Returns
/// the number of lives it ended.
fn count_through(way: Way, call: &str, fault: &str) -> Option<usize> {
    let mut ended = 0;
    let calls = calls_of_a_clean_life(way, call)?;
    for number in 1..MOST_CALLS {
        let folder = TempFolder::new("real");
        let run = new_run(&folder);
        let what = format!("{way:?}: {call} {number} with {fault}");
        let injected = format!("inject={call}:{fault}:when={number}");
        let output =
            child_under_strace(&run, way, call, &["-o/dev/null", "-e", &injected].map(str::to_owned))?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ended += usize::from(!words.contains("@done"));
        check_words(&words, &what);
        check(&run, &words, &what);
        if words.contains("@done") && number > calls {
            return Some(ended);
        }
    }
    panic!("{call}: a life has no more than {MOST_CALLS} calls of a name");
}

/// Counted once, with a harmless injection.
fn calls_of_a_clean_life(way: Way, call: &str) -> Option<usize> {
    static COUNTED: Mutex<BTreeMap<(Way, String), usize>> = Mutex::new(BTreeMap::new());
    if let Some(&counted) = COUNTED.lock().unwrap().get(&(way, call.to_owned())) {
        return Some(counted);
    }
    let folder = TempFolder::new("real-count");
    let (run, log) = (new_run(&folder), folder.path().join("log"));
    let output = child_under_strace(&run, way, call, &[format!("-o{}", log.display())])?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if words.contains("ptrace") || words.contains("strace: ") {
        println!("skipped: strace cannot trace here: {words}");
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    let log = std::fs::read_to_string(&log).unwrap();
    let counted = log.lines().filter(|line| line.contains(&format!("{call}("))).count();
    // The folders of a run are made in its first life.
    assert!(counted > 0 || call == "mkdirat", "{way:?}: {call} is never called");
    COUNTED.lock().unwrap().insert((way, call.to_owned()), counted);
    Some(counted)
}

fn each(way: Way, calls: &[&str], fault: &str) {
    for call in calls {
        let Some(ended) = count_through(way, call, fault) else { return };
        println!("{way:?}, {call}, {fault}: {ended} lives ended by it");
    }
}

// G1 G2 G3
#[test]
fn every_call_of_the_kernel_fails_once() {
    each(Way::Small, &CALLS, "error=EIO");
    each(Way::Small, &CALLS[..4], "error=ENOSPC");
}

// G1 G2 G3
#[test]
fn every_call_of_a_large_background_or_mapped_life_fails() {
    each(Way::Large, &["pwrite64", "fsync", "fcntl"], "error=EIO");
    each(Way::Large, &CALLS_OF_BLOCKS, "error=ENOSPC");
    each(Way::Background, &["pwrite64", "fsync"], "error=ENOSPC");
    each(Way::Linked, &["linkat"], "error=EIO");
    each(Way::Mapped, &["mmap"], "error=ENOMEM");
}

// G1 G2 G3
#[test]
#[ignore = "a quarter of an hour: cargo test --all-features --test every_call_for_real -- --ignored --nocapture"]
fn every_call_fails_with_every_error_in_every_way() {
    for error in ERRORS {
        let fault = format!("error={error}");
        each(Way::Small, &CALLS, &fault);
        each(Way::Large, &CALLS_OF_A_SAVE, &fault);
        each(Way::Large, &CALLS_OF_BLOCKS, &fault);
        each(Way::Background, &CALLS_OF_A_SAVE, &fault);
        each(Way::Linked, &["linkat", "unlinkat", "fsync"], &fault);
        each(Way::Mapped, &["mmap", "openat"], &fault);
    }
    each(Way::Large, &CALLS_OF_A_SAVE, "signal=SIGKILL");
    each(Way::Large, &CALLS_OF_BLOCKS, "signal=SIGKILL");
    each(Way::Background, &CALLS_OF_A_SAVE, "signal=SIGKILL");
    each(Way::Linked, &["linkat", "unlinkat", "fsync"], "signal=SIGKILL");
}

// G1 G2 G3
#[test]
fn the_process_is_killed_at_every_call_of_the_save_path() {
    for call in ["pwrite64", "fsync", "renameat2", "unlinkat", "fchmod"] {
        let Some(ended) = count_through(Way::Small, call, "signal=SIGKILL") else { return };
        assert!(ended > 0, "{call} was never called");
    }
    each(Way::Small, &["mkdirat"], "signal=SIGKILL");
    each(Way::Large, &["pwrite64", "fcntl", "ftruncate", "fallocate"], "signal=SIGKILL");
    each(Way::Background, &["fsync", "renameat2"], "signal=SIGKILL");
    each(Way::Linked, &["linkat"], "signal=SIGKILL");
}

// G2: interrupted calls are repeated.
#[test]
fn interrupted_writes_are_made_again() {
    for way in [Way::Small, Way::Large, Way::Background] {
        let Some(ended) = count_through(way, "pwrite64", "error=EINTR") else { return };
        assert_eq!(ended, 0, "{way:?}: an interrupted write ended a life");
    }
}
