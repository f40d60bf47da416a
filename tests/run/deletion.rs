//! Deletion concurrent with pins, newer writers, tools and kills.

use crate::hooked::{At, Hooked};
use crate::{open, resumed, save, save_all, shared};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::{CheckpointId, ErrorKind, Keep, Reader, Result, Store};
use test_support::{TempFolder, put, steps_in};

const FIRST: CheckpointId = CheckpointId { attempt: 1, step: 1 };
const SECOND: CheckpointId = CheckpointId { attempt: 1, step: 2 };

fn keys(engine: &Memory, folder: &str) -> Vec<String> {
    engine.list(folder).unwrap().into_iter().map(|entry| entry.key).collect()
}

fn marks(engine: &Memory) -> Vec<String> {
    keys(engine, "attempts").into_iter().filter(|key| key.contains(".deletes.")).collect()
}

// G3: a pin's answer during a rotation is true, at any call of the rotation.
#[test]
fn a_pin_beside_a_rotation_holds_or_fails() {
    let mut outcomes = (0, 0);
    for (at, key) in [
        (At::AfterList, "pins"),
        (At::BeforeList, "pins"),
        (At::AfterList, "attempts"),
        (At::BeforeDelete, "0001-0000000001.tkeep"),
        (At::AfterList, ""),
    ] {
        for skip in 0..6 {
            let engine = Hooked::new(Memory::new());
            let store = open(engine.clone(), Keep::last(1));
            save(&store, 1).unwrap();
            let pinned: Arc<Mutex<Option<Result<()>>>> = Arc::default();
            let (told, inner) = (Arc::clone(&pinned), engine.inner.clone());
            engine.set(at, key, skip, move || *told.lock().unwrap() = Some(FIRST.pin(&inner)));
            save(&store, 2).unwrap();
            let Some(pinned) = pinned.lock().unwrap().take() else { continue };
            match pinned {
                Ok(()) => outcomes.0 += 1,
                Err(error) => {
                    outcomes.1 += 1;
                    assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound), "{error}");
                    continue;
                }
            }
            assert_eq!(steps_in(&engine.inner), [1, 2], "pinned at {at:?} {key} {skip}, and deleted");
            assert_eq!(marks(&engine.inner), [""; 0]);
        }
    }
    assert!(outcomes.0 > 3 && outcomes.1 > 0, "{outcomes:?}");
}

// G3: the other way round, a whole rotation between two calls of the pin.
#[test]
fn a_pin_that_a_rotation_overtakes_fails_and_is_not_left() {
    let engine = Hooked::new(Memory::new());
    let store = open(engine.clone(), Keep::last(1));
    save(&store, 1).unwrap();
    engine.set(At::BeforeCreate, "pins/0001-0000000001", 0, move || drop(save(&store, 2).unwrap()));
    assert_eq!(FIRST.pin(&engine).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(keys(&engine.inner, "pins"), [""; 0]);
    assert_eq!(steps_in(&engine.inner), [2]);
}

// G3, on a real disk.
#[test]
fn a_pin_beside_a_real_rotation_holds_or_fails() {
    let folder = TempFolder::new("pin");
    let run = folder.path().join("run");
    let store = open(Local::create(&run).unwrap(), Keep::all());
    save_all(&store, 1..=60);
    drop(store);
    let store = resumed(Local::create(&run).unwrap(), Keep::last(1));
    let pinned = std::thread::scope(|scope| {
        let pinning = scope.spawn(|| {
            let engine = Local::open(&run).unwrap();
            let reader = Reader::new(engine.clone());
            while reader.ids().unwrap().len() > 58 {
                std::thread::yield_now();
            }
            (2..60)
                .map(|step| CheckpointId { attempt: 1, step })
                .filter(|id| id.pin(&engine).is_ok())
                .collect()
        });
        save(&store, 100).unwrap();
        let pinned: Vec<CheckpointId> = pinning.join().unwrap();
        pinned
    });
    let there = store.reader().ids().unwrap();
    let gone: Vec<&CheckpointId> = pinned.iter().filter(|name| !there.contains(name)).collect();
    assert!(gone.is_empty(), "pinned and deleted: {gone:?}");
}

// G3 G9: one writer rotates, a newer one has just resumed from a checkpoint that it deletes.
#[test]
fn a_zombies_rotation_spares_what_a_newer_writer_resumed() {
    for skip in 0..8 {
        let engine = Hooked::lockless(Memory::new());
        save_all(&open(engine.clone(), Keep::all()), 1..=4);
        let zombie = resumed(engine.clone(), Keep::last(1));
        let newer: Arc<Mutex<Option<Result<Store>>>> = Arc::default();
        let (told, inner) = (Arc::clone(&newer), Hooked::lockless(engine.inner.clone()));
        engine.set(At::AfterList, "attempts", skip, move || {
            let store = open(inner, Keep::last(1));
            *told.lock().unwrap() = Some(store.resume_at(2).map(|_| store));
        });
        let saved = save(&zombie, 5);
        match newer.lock().unwrap().take() {
            None => continue,
            Some(Ok(store)) => {
                assert!(store.checkpoint(2).is_ok(), "call {skip}: {:?}", steps_in(&engine.inner));
                save(&store, 3).unwrap();
                assert!(steps_in(&engine.inner).contains(&2));
            }
            // Its deletion had begun before.
            Some(Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound), "{skip}: {error}");
            }
        }
        drop(saved);
    }
}

const CHILD: &str = "TENSORKEEP_CUT_OFF";

/// A process of its own that dies in the middle of a deletion.
#[test]
fn child_that_dies_in_a_deletion() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let engine = Local::create(run).unwrap();
    save_all(&open(engine.clone(), Keep::all()), 1..=3);
    engine.mark("attempts/0001.deletes.0001-0000000001").unwrap();
    std::process::abort();
}

#[test]
fn a_deletion_that_was_cut_off_is_no_obstacle_under_the_lock() {
    let folder = TempFolder::new("cut-off");
    let run = folder.path().join("run");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "deletion::child_that_dies_in_a_deletion"])
        .env(CHILD, &run)
        .output()
        .unwrap();
    assert!(!child.status.success());
    let engine = Local::create(&run).unwrap();
    assert_eq!(FIRST.pin(&engine).unwrap_err().kind(), ErrorKind::Busy);
    let store = open(engine.clone(), Keep::all());
    FIRST.pin(&engine).unwrap();
    assert_eq!(store.resume_at(1).unwrap().id, Some(FIRST));
    save(&store, 2).unwrap();
    assert_eq!(steps_in(&engine), [1, 2, 3, 2]);
}

// The lock's file may have been removed while its holder was stopped between looking and deleting.
#[test]
fn the_mark_of_a_process_that_lives_stays_also_under_the_lock() {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=3);
    put(&engine, "attempts/0001.deletes.0001-0000000001", b"");
    let store = open(engine.clone(), Keep::last(2));
    assert_eq!(store.resume_at(1).unwrap_err().kind(), ErrorKind::Busy);
    // A rotation that deletes it completes the deletion, and removes both marks.
    store.resume().unwrap();
    save(&store, 4).unwrap();
    assert_eq!((steps_in(&engine), marks(&engine).len()), (vec![3, 4], 0));
}

#[test]
fn marks_of_deleted_checkpoints_are_removed() {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=2);
    for maker in ["0001", "tool-1-00", "anything"] {
        put(&engine, &format!("attempts/{maker}.deletes.0001-0000000009"), b"");
    }
    drop(open(Hooked::lockless(engine.clone()), Keep::all()));
    assert_eq!(marks(&engine), [""; 0]);
}

#[test]
fn without_a_lock_a_condemned_checkpoint_is_resumed_from_last() {
    let engine = Memory::new();
    save_all(&open(Hooked::lockless(engine.clone()), Keep::all()), 1..=2);
    put(&engine, "attempts/0001.deletes.0001-0000000002", b"");
    let store = open(Hooked::lockless(engine.clone()), Keep::all());
    assert_eq!(store.resume_at(2).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(store.resume().unwrap().id, Some(FIRST));
    // Better than nothing.
    engine.delete("0001-0000000001.tkeep").unwrap();
    let store = open(Hooked::lockless(engine.clone()), Keep::all());
    assert_eq!(store.resume().unwrap().id, Some(SECOND));
    assert_eq!(steps_in(&engine), [2], "a policy that keeps all finishes nobody's deletion");
}

#[test]
fn the_resumed_checkpoint_is_spared_by_tools_and_delete() {
    let engine = Memory::new();
    save_all(&open(Hooked::lockless(engine.clone()), Keep::all()), 1..=4);
    let store = open(Hooked::lockless(engine.clone()), Keep::all());
    store.resume_at(2).unwrap();
    let reader = Reader::new(Hooked::lockless(engine.clone()));
    let plan = reader.plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    let done = plan.delete().unwrap();
    assert_eq!(done.spared, [SECOND]);
    assert_eq!(steps_in(&engine), [2, 4]);
    assert_eq!(store.delete(2).unwrap_err().kind(), ErrorKind::Invalid);
    // The mark of an earlier attempt does not protect any more, and goes when a later one has
    // saved.
    let next = resumed(Hooked::lockless(engine.clone()), Keep::all());
    let plan = reader.plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    assert_eq!(plan.delete().unwrap().deleted, [SECOND]);
    save_all(&next, 5..=5);
    drop(next);
    drop(open(Hooked::lockless(engine.clone()), Keep::all()));
    assert!(keys(&engine, "attempts").iter().all(|key| !key.starts_with("attempts/0002.resumed")));
}

#[test]
fn a_tool_withdraws_when_a_writer_opens_the_run() {
    let engine = Memory::new();
    save_all(&open(Hooked::lockless(engine.clone()), Keep::all()), 1..=4);
    let reader = Reader::new(Hooked::lockless(engine.clone()));
    let plan = reader.plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    let writer = open(Hooked::lockless(engine.clone()), Keep::all());
    assert_eq!(plan.delete().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!((steps_in(&engine).len(), marks(&engine).len()), (4, 0));
    writer.resume_at(2).unwrap();
}

#[test]
fn a_failed_deletion_leaves_its_mark_and_is_made_up_for() {
    let engine = Hooked::new(Memory::new());
    let store = open(engine.clone(), Keep::last(1));
    save(&store, 1).unwrap();
    let inner = engine.inner.clone();
    // Deleted during the rotation.
    engine.set(At::BeforeDelete, "0001-0000000001.tkeep", 0, move || {
        Engine::delete(&inner, "0001-0000000001.tkeep").unwrap();
    });
    let saved = save(&store, 2).unwrap();
    assert!(saved.deleted.is_empty() && saved.not_deleted.is_empty(), "{saved:?}");
    assert_eq!(marks(&engine.inner), [""; 0]);
    assert_eq!(save(&store, 3).unwrap().deleted, [SECOND]);
}

#[test]
fn a_number_in_the_way_of_an_attempt_is_passed_over() {
    let folder = TempFolder::new("number");
    let run = folder.path().join("run");
    std::fs::create_dir_all(run.join("attempts")).unwrap();
    std::os::unix::fs::symlink("/nowhere", run.join("attempts/0001")).unwrap();
    let store = open(Local::create(&run).unwrap(), Keep::all());
    assert_eq!(store.attempt(), 2);
    save(&store, 1).unwrap();
    drop(store);
    assert_eq!(resumed(Local::create(&run).unwrap(), Keep::all()).attempt(), 3);
    let _ = shared;
}
