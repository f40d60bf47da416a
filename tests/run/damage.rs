//! Damage in the newest checkpoints: resuming falls back, and no intact checkpoint is deleted while
//! the remaining ones are damaged.

use crate::{open, resumed, rot, save, save_all};
use tensorkeep::engine::{Local, Memory, MmapPromise};
use tensorkeep::testing::{Fault, Faults, failing_local};
use tensorkeep::{ErrorKind, Keep, Mode, Progress, Reader, Snapshot, Store, StoreOptions};
use test_support::{TempFolder, steps_in};

/// EIO, EBADMSG, EILSEQ, ESTALE, and on Linux EUCLEAN, ENODATA, EREMOTEIO.
const ROT: [i32; 7] = [5, 74, 84, 116, 117, 61, 121];

fn promise() -> MmapPromise {
    // SAFETY: the files of these runs are never changed in place.
    #[expect(unsafe_code, reason = "mapping is what is tested")]
    unsafe {
        MmapPromise::assume_unchanged()
    }
}

// G6: also where the store maps verified files.
#[test]
#[cfg(target_os = "linux")]
fn every_errno_of_rot_falls_back_to_an_older_checkpoint() {
    for errno in ROT {
        for (call, maps) in [("open", false), ("read", false), ("read", true)] {
            let folder = TempFolder::new("rot");
            save_all(&open(Local::create(folder.path()).unwrap(), Keep::all()), 1..=2);
            let faults = Faults::new();
            let settings = if maps { StoreOptions::new().map(promise()) } else { StoreOptions::new() };
            let store = Store::open(failing_local(folder.path(), &faults).unwrap(), settings).unwrap();
            faults.fail_leaf(call, "0001-0000000002.tkeep", Fault::Errno(errno));
            let resumed = store.resume().unwrap_or_else(|error| panic!("{errno} at {call}: {error:?}"));
            assert_eq!((resumed.next_step(), resumed.skipped.len()), (1, 1), "{errno} at {call}");
            faults.heal();
            assert_eq!(steps_in(&Local::open(folder.path()).unwrap()), [1, 2], "not the bytes are at fault");
        }
    }
}

#[test]
fn gc_keeps_what_a_resume_would_choose() {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=3);
    rot(&engine, 3);
    let plan = Reader::new(engine.clone()).plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    assert_eq!(plan.damaged.iter().map(|(id, _)| id.step).collect::<Vec<_>>(), [3]);
    assert_eq!(plan.delete().unwrap().deleted.iter().map(|id| id.step).collect::<Vec<_>>(), [1]);
    assert_eq!(steps_in(&engine), [2, 3]);
    assert_eq!(open(engine, Keep::all()).resume().unwrap().next_step(), 2);
}

#[test]
fn gc_counts_on_no_damaged_best() {
    let engine = Memory::new();
    let store = open(engine.clone(), Keep::all());
    for (step, loss) in [(1, 0.3), (2, 0.1), (3, 0.2), (4, 0.9)] {
        let weights = vec![step as f32; 4096];
        let snapshot = Snapshot::new().tensor("weights", &weights).unwrap().metric("loss", loss).unwrap();
        store.save(&snapshot.progress(Progress::new(step))).unwrap();
    }
    drop(store);
    rot(&engine, 2);
    let keep = Keep::last(1).or(Keep::best("loss", Mode::Min, 1));
    Reader::new(engine.clone()).plan_deletion(&keep, 0, |_| true).unwrap().delete().unwrap();
    assert_eq!(steps_in(&engine), [2, 3, 4], "2 is damaged, and 3 is the best that is whole");
}

#[test]
fn the_last_whole_checkpoint_cannot_be_deleted() {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=3);
    rot(&engine, 3);
    rot(&engine, 1);
    let store = open(engine.clone(), Keep::all());
    let error = store.delete(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    store.delete(1).unwrap();
    assert_eq!(steps_in(&engine), [2, 3]);
}

#[test]
fn a_policy_with_an_unknown_metric_is_reported() {
    let engine = Memory::new();
    let keep = Keep::last(1).or(Keep::best("val_acuracy", Mode::Max, 1));
    let store = open(engine.clone(), keep.clone());
    for step in 1..=2 {
        let snapshot = Snapshot::new().metric("val_accuracy", 0.5).unwrap().progress(Progress::new(step));
        let saved = store.save(&snapshot).unwrap();
        assert!(saved.warnings.iter().any(|words| words.contains("val_acuracy")), "{saved:?}");
    }
    let error = Reader::new(engine.clone()).plan_deletion(&keep, 0, |_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("did you mean \"val_accuracy\""), "{error}");
    drop(store);
    let store = resumed(engine, Keep::last(1).or(Keep::best("val_accuracy", Mode::Max, 1)));
    let snapshot = Snapshot::new().metric("val_accuracy", 0.4).unwrap().progress(Progress::new(3));
    assert!(store.save(&snapshot).unwrap().warnings.is_empty());
}

#[test]
fn policies_that_protect_nothing_are_refused() {
    let none = std::time::Duration::ZERO;
    for keep in [
        Keep::last(0),
        Keep::newest_within_bytes(0),
        Keep::last(1).or(Keep::younger_than(none)),
        Keep::last(1).or(Keep::best("loss", Mode::Min, 0)),
        Keep::last(1).or(Keep::best("", Mode::Min, 1)),
        Keep::last(1).or(Keep::every_epochs(0)),
    ] {
        let error = Store::open(Memory::new(), StoreOptions::new().keep(keep)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[test]
fn a_step_is_saved_in_the_order_of_the_run_only() {
    let engine = Memory::new();
    let store = open(engine.clone(), Keep::last(2));
    save_all(&store, [100, 200, 300]);
    let error = save(&store, 1).unwrap_err();
    assert!(error.to_string().contains("a step after 300"), "{error}");
    assert_eq!(steps_in(&engine), [200, 300]);
    drop(store);
    // Forgetting to resume deletes nothing.
    let store = open(engine.clone(), Keep::last(1));
    let error = save(&store, 50).unwrap_err();
    assert!(error.to_string().contains("start_over()"), "{error}");
    assert_eq!(steps_in(&engine), [200, 300]);
}

// git-annex, DVC, `cp -rs`: a checkpoint may be a link, and its target may not have been fetched.
#[test]
fn dangling_links_to_checkpoints_are_skipped() {
    let folder = TempFolder::new("links");
    let (run, annex) = (folder.path().join("run"), folder.path().join("annex"));
    save_all(&open(Local::create(&run).unwrap(), Keep::all()), 1..=3);
    std::fs::create_dir(&annex).unwrap();
    for step in 1..=3 {
        let name = format!("0001-{step:010}.tkeep");
        std::fs::rename(run.join(&name), annex.join(&name)).unwrap();
        std::os::unix::fs::symlink(annex.join(&name), run.join(&name)).unwrap();
    }
    assert!(resumed(Local::create(&run).unwrap(), Keep::all()).latest().unwrap().is_some());
    std::fs::remove_file(annex.join("0001-0000000003.tkeep")).unwrap();
    let store = open(Local::create(&run).unwrap(), Keep::all());
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (2, 1), "{:?}", resumed.skipped);
}
