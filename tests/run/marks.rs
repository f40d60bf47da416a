//! Marks of damage, on storage that cannot rename: shown by listings, counted by rotation, and
//! removed from checkpoints that verify.

use crate::hooked::Hooked;
use crate::{open, resumed, rot, save, save_all};
use tensorkeep::engine::{Engine, Memory};
use tensorkeep::{CheckpointId, ErrorKind, Keep, Mode, Reader};
use test_support::{get, put, steps_in};

/// A run of `newest` steps whose newest is damaged and marked, and the newest's original bytes.
fn marked(newest: u64) -> (Hooked, Vec<u8>) {
    let engine = Hooked::lockless(Memory::new());
    save_all(&open(engine.clone(), Keep::all()), 1..=newest);
    let whole = get(&engine.inner, &key(newest));
    rot(&engine.inner, newest);
    let store = open(engine.clone(), Keep::all());
    let before = newest > 1;
    assert_eq!(store.resume().is_ok(), before);
    (engine, whole)
}

fn key(step: u64) -> String {
    format!("0001-{step:010}.tkeep")
}

fn marks(engine: &Hooked) -> usize {
    Reader::new(engine.clone()).set_aside().unwrap().len()
}

#[test]
fn listings_show_them_and_only_a_request_opens_them() {
    let (engine, _) = marked(3);
    let reader = Reader::new(engine.clone());
    let infos = reader.list().unwrap();
    let told: Vec<_> = infos.iter().map(|info| (info.id.step, info.is_marked, info.state.is_ok())).collect();
    assert_eq!(told, [(1, false, true), (2, false, true), (3, true, false)]);
    assert_eq!(infos[2].state.as_ref().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(steps_in(&engine), [1, 2]);
    assert_eq!(reader.latest().unwrap().unwrap().progress().unwrap().unwrap().step, 2);
}

#[test]
fn a_run_of_nothing_but_marks_is_not_empty() {
    let (engine, _) = marked(1);
    let reader = Reader::new(engine.clone());
    assert_eq!(reader.latest().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(reader.list().unwrap().len(), 1);
    let store = open(engine, Keep::all());
    assert_eq!(store.resume().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(save(&store, 2).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn rotation_counts_them_and_takes_the_mark_with_the_checkpoint() {
    let (engine, _) = marked(3);
    let store = resumed(engine.clone(), Keep::last(2));
    save(&store, 4).unwrap();
    assert_eq!(
        (engine.inner.open(&key(3)).is_ok(), marks(&engine)),
        (true, 1),
        "younger than step 2, which stays"
    );
    save_all(&store, 5..=6);
    drop(store);
    let store = resumed(engine.clone(), Keep::last(2));
    save_all(&store, 7..=8);
    assert_eq!((engine.inner.open(&key(3)).is_ok(), marks(&engine)), (false, 0));
}

#[test]
fn gc_counts_them() {
    let (engine, _) = marked(3);
    save_all(&resumed(engine.clone(), Keep::all()), 4..=6);
    // Not while the run depends on the checkpoint that was resumed from because of the mark.
    let plan = Reader::new(engine.clone()).plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    assert!(plan.going.iter().all(|info| info.id.step != 3), "{:?}", plan.going);
    save_all(&resumed(engine.clone(), Keep::all()), 7..=8);
    let plan = Reader::new(engine.clone()).plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    assert!(plan.going.iter().any(|info| info.id.step == 3), "{:?}", plan.going);
    plan.delete().unwrap();
    assert_eq!((engine.inner.open(&key(3)).is_ok(), marks(&engine)), (false, 0));
}

#[test]
fn a_mark_is_removed_only_from_a_checkpoint_that_verifies() {
    let (engine, whole) = marked(3);
    let (reader, name) = (Reader::new(engine.clone()), CheckpointId { attempt: 1, step: 3 });
    assert_eq!(reader.heal(name).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(marks(&engine), 1);
    // As if the storage had answered wrongly.
    put(&engine.inner, &key(3), &whole);
    assert!(reader.heal(name).unwrap() && !reader.heal(name).unwrap(), "once");
    assert_eq!(marks(&engine), 0);
    assert_eq!(open(engine, Keep::all()).resume().unwrap().next_step(), 3);
}

#[test]
fn none_goes_before_it_would_if_it_were_whole() {
    for keep in [
        Keep::last(3),
        Keep::last(1).or(Keep::best("loss", Mode::Min, 2)),
        Keep::last(1).or(Keep::every_steps(1)),
    ] {
        let (engine, _) = marked(3);
        let store = resumed(engine.clone(), keep.clone());
        save(&store, 4).unwrap();
        assert!(engine.inner.open(&key(3)).is_ok(), "{keep}: it is newer than what was resumed from");
    }
    // Started over, over a run that was marked whole.
    let (engine, _) = marked(1);
    let store = open(engine.clone(), Keep::last(3));
    let error = store.resume().unwrap_err().to_string();
    assert!(error.contains("--heal-marks"), "{error}");
    store.start_over();
    save(&store, 2).unwrap();
    assert!(engine.inner.open(&key(1)).is_ok());
}
