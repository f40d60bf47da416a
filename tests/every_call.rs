//! Every call of a life fails: opening, resuming, saving, rotating, closing. Once, or from some
//! call on for ever. When the fault is gone, every promise must hold, no remains may be left, and
//! saving must work.
//!
//! Faults that hit one call of one save are in `store.rs`; the same through the kernel is in
//! `every_call_for_real.rs`, and real disks that are full or read-only are in `real_disks.rs`.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tensorkeep::engine::Local;
use tensorkeep::testing::{Fault, Faults, failing_local};
use tensorkeep::{Error, Keep, Result, Store, StoreOptions};
use test_support::{TempFolder, leftovers, save, save_elements, snapshot};

/// How a life saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One write.
    Small,
    /// Its space is reserved first.
    Reserved,
    /// In blocks by direct I/O, on several threads.
    Large,
    /// Staged, by another thread.
    Staged,
}

impl Way {
    fn elements(self) -> usize {
        match self {
            Self::Small | Self::Staged => 100,
            Self::Reserved => 300_000,
            Self::Large => 1_100_000,
        }
    }
}

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

/// Open files are counted, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn open(folder: &Path, keep: usize) -> Result<Store> {
    Store::open(Local::create(folder)?, StoreOptions::new().keep(Keep::last(keep)))
}

/// A whole life on a file system with faults: the last saved step, and the first error.
fn life(folder: &Path, faults: &Faults, way: Way) -> (Option<u64>, Option<Error>) {
    let mut saved = None;
    let mut run = || -> Result<()> {
        let store = Store::open(failing_local(folder, faults)?, StoreOptions::new().keep(Keep::last(2)))?;
        let mut step = store.resume()?.next_step().max(200);
        for _ in 0..2 {
            step += 100;
            let outcome = match way {
                Way::Staged => store.stage(&snapshot(step, way.elements())).and_then(|_| store.wait()),
                _ => save_elements(&store, step, way.elements()).map(drop),
            };
            outcome.inspect_err(|error| assert_eq!(error.step(), Some(step), "no step in {error}"))?;
            saved = Some(step);
        }
        store.close()
    };
    let error = run().err();
    (saved, error)
}

/// Lets the calls from `step` on fail `times` times; false when the life ended before any failed.
fn life_with_faults(way: Way, step: usize, times: usize, fault: Fault) -> bool {
    let folder = TempFolder::in_memory("life");
    let store = open(folder.path(), 2).unwrap();
    for step in [100, 200] {
        save(&store, step).unwrap();
    }
    drop(store);
    let before = descriptors();
    let faults = Faults::new();
    faults.fail_after(step, times, fault);
    let (saved, error) = life(folder.path(), &faults, way);
    let failed = faults.take_calls().get(step).cloned();
    assert_eq!(descriptors(), before, "{failed:?} leaks a descriptor");
    if let Some(error) = &error {
        assert!(error.object().is_some(), "{failed:?}: no path in {error}");
    }
    let damaged = std::fs::read_dir(folder.path().join("damaged")).map_or(0, Iterator::count);
    assert_eq!(damaged, 0, "{failed:?}: a whole checkpoint was set aside for a fault of the device");
    // Healed: the run is unchanged, or further.
    let store = open(folder.path(), 2).unwrap();
    let resumed = store.resume().unwrap();
    assert!(resumed.skipped.is_empty(), "{failed:?}: {:?}", resumed.skipped);
    assert!(
        resumed.next_step() >= saved.unwrap_or(200),
        "{failed:?} lost {saved:?}: {}",
        resumed.next_step()
    );
    save(&store, resumed.next_step() + 100).unwrap_or_else(|error| panic!("{failed:?}: {error}"));
    assert!(leftovers(folder.path()).is_empty(), "{failed:?} left {:?}", leftovers(folder.path()));
    assert!(failed.is_some() || error.is_none(), "an error without a fault: {error:?}");
    failed.is_some()
}

fn count_through(way: Way, times: usize, fault: Fault) {
    let mut step = 0;
    while life_with_faults(way, step, times, fault) {
        step += 1;
    }
    assert!(step > 40, "{fault:?}: only {step} calls were seen");
}

// G1 G2 G3
#[test]
fn every_call_of_a_life_fails_once() {
    let _alone = alone();
    for errno in [EIO, EACCES, EMFILE, ENOSPC, EROFS, EDQUOT] {
        count_through(if errno == ENOSPC { Way::Reserved } else { Way::Small }, 1, Fault::Errno(errno));
    }
    count_through(Way::Small, 1, Fault::Short);
    count_through(Way::Small, 1, Fault::DoneButErrno(EIO));
}

// G1 G2 G3 G7
#[test]
fn every_call_of_a_life_with_large_or_background_saves_fails() {
    let _alone = alone();
    for fault in [Fault::Errno(EIO), Fault::Errno(ENOSPC), Fault::Errno(EINTR), Fault::Short] {
        count_through(Way::Large, 1, fault);
        count_through(Way::Staged, 1, fault);
    }
}

// G1 G2 G3
#[test]
fn from_every_call_of_a_life_on_everything_fails_until_it_heals() {
    let _alone = alone();
    for errno in [EIO, EACCES, EMFILE, ENOSPC, EROFS, EDQUOT] {
        count_through(
            if errno == ENOSPC { Way::Reserved } else { Way::Small },
            usize::MAX,
            Fault::Errno(errno),
        );
    }
}

// G3: the space runs out exactly while the old checkpoint is being deleted.
#[test]
fn a_rotation_on_a_full_disk_keeps_the_save() {
    let _alone = alone();
    for call in ["unlink", "list"] {
        let folder = TempFolder::new("full-rotation");
        let faults = Faults::new();
        let settings = StoreOptions::new().keep(Keep::last(1));
        let store = Store::open(failing_local(folder.path(), &faults).unwrap(), settings).unwrap();
        save(&store, 1).unwrap();
        faults.take_calls();
        save(&store, 2).unwrap();
        // The same calls are repeated: the last listing is the one after the commit.
        let calls = faults.take_calls().iter().filter(|seen| seen.name == call).count();
        match call {
            "unlink" => faults.fail_leaf(call, "0001-0000000002.tkeep", Fault::Errno(ENOSPC)),
            _ => faults.fail_named(call, calls - 1, 1, Fault::Errno(ENOSPC)),
        }
        let saved = save(&store, 3).unwrap();
        assert!(saved.rotation_error.is_some() || !saved.not_deleted.is_empty(), "{call}: {saved:?}");
        assert_eq!(store.resume().unwrap().next_step(), 3);
        faults.heal();
        save(&store, 4).unwrap();
        let steps: Vec<u64> = store.list().unwrap().iter().map(|info| info.id.step).collect();
        assert_eq!(steps, [3, 4], "{call}: 3 was resumed from, 4 is the newest");
    }
}
