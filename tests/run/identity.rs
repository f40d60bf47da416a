//! A writer whose run was removed, replaced or restored under it, and two runs that must not be
//! mixed.

use crate::{open, resumed, save, save_all, shared};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::{ErrorKind, Keep, Reader, Store, StoreOptions};
use test_support::{TempFolder, get, put, steps_in};

fn fails_as_fenced(store: &Store, step: u64) {
    let error = save(store, step).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    let deleting = store.delete(step);
    assert!(deleting.is_err());
}

fn here(run: &Path) -> Local {
    Local::create(run).unwrap()
}

/// The parts of a run, deleted or put there by hand.
fn empty(engine: &Memory) {
    for folder in ["", "attempts", "pins", "damaged"] {
        for entry in engine.list(folder).unwrap() {
            engine.delete(&entry.key).unwrap();
        }
    }
}

// G2 G3 G9
#[test]
fn a_writer_whose_run_was_replaced_commits_and_deletes_nothing() {
    let place = Memory::new();
    let lockless = || crate::hooked::Hooked::lockless(place.clone());
    let old = open(lockless(), Keep::last(2));
    save_all(&old, [100, 200, 300]);
    empty(&place);
    let new = open(lockless(), Keep::last(2));
    save_all(&new, [10, 20, 30]);
    assert_eq!((old.attempt(), new.attempt()), (1, 1), "numbers alone tell nothing");
    fails_as_fenced(&old, 400);
    save(&new, 40).unwrap();
    assert_eq!(steps_in(&place), [30, 40]);
}

#[test]
fn a_writer_whose_folder_was_replaced_is_fenced() {
    let folder = TempFolder::new("replaced");
    let run = folder.path().join("run");
    for replace in [
        |run: &Path| std::fs::remove_dir_all(run).unwrap(),
        |run: &Path| std::fs::rename(run, run.with_extension("moved")).unwrap(),
    ] {
        let old = open(here(&run), Keep::last(2));
        save_all(&old, [100, 200, 300]);
        replace(&run);
        let new = open(here(&run), Keep::last(2));
        save_all(&new, [10, 20, 30]);
        let outcome = save(&old, 400);
        assert_eq!(steps_in(&here(&run)), [20, 30], "the old writer was in the new run: {outcome:?}");
        save(&new, 40).unwrap();
        assert_eq!(steps_in(&here(&run)), [30, 40]);
        drop((old, new));
        std::fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn a_writer_whose_folder_was_restored_is_fenced() {
    let folder = TempFolder::new("restored");
    let (run, backup) = (folder.path().join("run"), folder.path().join("backup"));
    save_all(&open(here(&run), Keep::all()), [1, 2]);
    assert!(Command::new("cp").arg("-r").args([&run, &backup]).status().unwrap().success());
    let old = resumed(here(&run), Keep::last(1));
    save(&old, 3).unwrap();
    // Restored in place: the folder is the same, its content is older.
    assert!(
        Command::new("sh")
            .arg("-c")
            .arg("rm -rf \"$1\"/* && cp -r \"$2\"/* \"$1\"/")
            .arg("sh")
            .args([&run, &backup])
            .status()
            .unwrap()
            .success()
    );
    fails_as_fenced(&old, 4);
    assert_eq!(steps_in(&here(&run)), [1, 2]);
}

#[test]
fn every_checkpoint_says_which_run_it_belongs_to() {
    let engine = Memory::new();
    save(&open(engine.clone(), Keep::all()), 1).unwrap();
    let reader = Reader::new(engine.clone());
    let run = reader.run_id().unwrap().unwrap();
    assert_eq!(get(&engine, "RUN"), format!("{run}\n").into_bytes());
    assert_eq!(reader.list().unwrap()[0].state.as_ref().unwrap().run, Some(run));
    // The object may be lost: a checkpoint has a copy, and the next writer writes it again.
    engine.delete("RUN").unwrap();
    assert_eq!(reader.run_id().unwrap(), Some(run));
    save(&resumed(engine.clone(), Keep::all()), 2).unwrap();
    assert_eq!(get(&engine, "RUN"), format!("{run}\n").into_bytes());
    let other = Memory::new();
    save(&open(other.clone(), Keep::all()), 1).unwrap();
    assert_ne!(Reader::new(other).run_id().unwrap(), Some(run));
}

#[test]
fn two_runs_are_not_mixed() {
    let (one, other, empty) = (Memory::new(), Memory::new(), Memory::new());
    for engine in [&one, &other] {
        save(&open(engine.clone(), Keep::all()), 1).unwrap();
    }
    let run = Reader::new(one.clone()).run_id().unwrap().unwrap();
    let error = Reader::new(other.clone()).belong_to(run).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    Reader::new(one.clone()).belong_to(run).unwrap();
    Reader::new(empty.clone()).belong_to(run).unwrap();
    assert_eq!(Reader::new(empty).run_id().unwrap(), Some(run));
    // Nor as the two tiers of one store.
    let error = Store::open_tiered(one, other.clone(), StoreOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("another run"), "{error}");
    // A new machine takes the identity of the existing run.
    let disk = Memory::new();
    drop(Store::open_tiered(disk.clone(), other.clone(), StoreOptions::new()).unwrap());
    assert_eq!(Reader::new(disk).run_id().unwrap(), Reader::new(other).run_id().unwrap());
}

#[test]
fn a_run_without_an_identity_gets_one_the_same_in_both_tiers() {
    let (disk, bucket) = (Memory::new(), Memory::new());
    let store = Store::open_tiered(disk.clone(), bucket.clone(), StoreOptions::new()).unwrap();
    save(&store, 1).unwrap();
    store.close().unwrap();
    // As left by version 0.1: no object, and no identity in attempts and checkpoints.
    for engine in [&disk, &bucket] {
        empty(engine);
        put(engine, "attempts/0001", ATTEMPT_OF_0_1);
    }
    drop(Store::open(bucket.clone(), StoreOptions::new()).unwrap());
    drop(Store::open_tiered(disk.clone(), bucket.clone(), StoreOptions::new()).unwrap());
    let ids = [disk, bucket].map(|engine| Reader::new(shared(&engine)).run_id().unwrap());
    assert!(ids[0].is_some() && ids[0] == ids[1], "{ids:?}");
}

/// `{host: "h", pid: 7, started_at: 1, id: [1; 16]}` in MessagePack, as version 0.1 wrote it.
const ATTEMPT_OF_0_1: &[u8] = b"\x84\xa4host\xa1h\xa3pid\x07\xaastarted_at\x01\xa2id\xdc\x00\x10\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01";

#[test]
fn a_writer_whose_folder_was_removed_is_fenced() {
    let folder = TempFolder::new("removed");
    let run = folder.path().join("run");
    let store = open(here(&run), Keep::last(1));
    save(&store, 1).unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    fails_as_fenced(&store, 2);
    assert!(!run.exists(), "and nothing is made anew at its path");
}

// The folder is held, not its path.
#[test]
fn a_relative_folder_outlives_a_change_of_directory() {
    let folder = TempFolder::new("chdir");
    std::fs::create_dir_all(folder.path().join("elsewhere/run")).unwrap();
    let here = std::env::current_dir().unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    let store = open(Local::create("run").unwrap(), Keep::last(1));
    save(&store, 1).unwrap();
    std::env::set_current_dir("elsewhere").unwrap();
    let saved = save(&store, 2);
    std::env::set_current_dir(here).unwrap();
    saved.unwrap();
    assert_eq!(steps_in(&Local::open(folder.path().join("run")).unwrap()), [2]);
    assert!(std::fs::read_dir(folder.path().join("elsewhere/run")).unwrap().next().is_none());
}

#[test]
fn no_two_checkpoints_of_a_run_have_the_same_id() {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=3);
    save_all(&resumed(engine.clone(), Keep::all()), 4..=6);
    let reader = Reader::new(engine);
    let ids = reader.ids().unwrap().into_iter();
    let ids: BTreeSet<_> = ids.map(|id| reader.checkpoint_by_id(id).unwrap().inspect().file_id()).collect();
    assert_eq!(ids.len(), 6);
}
