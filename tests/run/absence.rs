//! Objects that a listing names and a request does not find: gone for a new listing, or there
//! despite a single wrong answer.

use crate::hooked::{At, Hooked};
use crate::{open, save, save_all};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{Blob, Decorator, Engine, Memory};
use tensorkeep::{
    Error, ErrorKind, Keep, Mode, Progress, Reader, Result, Snapshot, Store, StoreOptions, Tier,
};
use test_support::{get, put, steps_in};

/// Memory that answers "not there" for some keys, a limited number of times.
#[derive(Clone, Debug)]
struct Hiding {
    inner: Memory,
    hidden: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Hiding {
    fn new(inner: &Memory) -> Self {
        Self { inner: inner.clone(), hidden: Arc::default() }
    }

    fn hide(&self, key: &str, times: usize) {
        self.hidden.lock().unwrap().insert(key.to_owned(), times);
    }
}

impl Decorator for Hiding {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        if let Some(left) = self.hidden.lock().unwrap().get_mut(key).filter(|left| **left > 0) {
            *left -= 1;
            return Err(Error::new(ErrorKind::NotFound, "no such object").in_object(self.inner.describe(key)));
        }
        Engine::open(&self.inner, key)
    }
}

const FOR_EVER: usize = usize::MAX;

fn key(step: u64) -> String {
    format!("0001-{step:010}.tkeep")
}

fn run_of(steps: u64) -> Memory {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=steps);
    engine
}

#[test]
fn a_checkpoint_deleted_while_opened_does_not_empty_the_run() {
    let engine = Hooked::new(run_of(1));
    let store = open(engine.clone(), Keep::all());
    let inner = engine.inner.clone();
    // After the listing that chooses it.
    engine.set(At::AfterList, "", 0, move || inner.delete(&key(1)).unwrap());
    let error = store.resume_at(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_eq!(save(&store, 2).unwrap_err().kind(), ErrorKind::Invalid, "nothing was resumed from");
}

#[test]
fn a_checkpoint_newer_than_a_stale_listing_is_resumed() {
    let engine = Hooked::new(run_of(2));
    let (inner, newest) = (engine.inner.clone(), get(&engine.inner, &key(2)));
    inner.delete(&key(2)).unwrap();
    let store = open(engine.clone(), Keep::all());
    engine.set(At::AfterList, "", 0, move || {
        put(&inner, &key(2), &newest);
        inner.delete(&key(1)).unwrap();
    });
    assert_eq!(store.resume().unwrap().next_step(), 2);
}

#[test]
fn answers_that_pass_hide_nothing() {
    let engine = Hiding::new(&run_of(3));
    for times in 1..=3 {
        let store = open(engine.clone(), Keep::last(1));
        for step in 1..=3 {
            engine.hide(&key(step), times);
        }
        let resumed = store.resume().unwrap();
        assert_eq!((resumed.next_step(), resumed.skipped.len()), (3, 0), "{times}");
    }
    engine.hide(&key(3), 3);
    let reader = Reader::new(engine.clone());
    assert!(reader.list().unwrap().iter().all(|info| info.state.is_ok()));
    engine.hide(&key(3), 3);
    assert_eq!(reader.latest().unwrap().unwrap().progress().unwrap().unwrap().step, 3);
}

#[test]
fn a_run_that_is_listed_does_not_begin_from_nothing() {
    let engine = Hiding::new(&run_of(3));
    for step in 1..=3 {
        engine.hide(&key(step), FOR_EVER);
    }
    let store = open(engine.clone(), Keep::last(1));
    assert_eq!(save(&store, 4).unwrap_err().kind(), ErrorKind::Invalid);
    let error = store.resume().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert_eq!(save(&store, 4).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(steps_in(&engine.inner), [1, 2, 3]);
}

#[test]
fn nothing_is_deleted_behind_an_absence() {
    let engine = Hiding::new(&run_of(3));
    engine.hide(&key(3), FOR_EVER);
    let store = open(engine.clone(), Keep::last(1));
    let resumed = store.resume().unwrap();
    assert_eq!(resumed.next_step(), 2);
    let [skipped] = &resumed.skipped[..] else { panic!("{:?}", resumed.skipped) };
    assert_eq!((skipped.id.step, skipped.error.kind()), (3, ErrorKind::Io));
    assert!(skipped.set_aside.is_none() && skipped.error.to_string().contains("is listed"));
    save(&store, 4).unwrap();
    assert_eq!(steps_in(&engine.inner), [2, 3, 4], "what was resumed from, what is hidden, the newest");
    engine.hide(&key(3), 0);
    save(&store, 5).unwrap();
    assert_eq!(steps_in(&engine.inner), [2, 5], "it can be read again, and the policy has its way");
}

#[test]
fn an_attempt_that_is_listed_is_not_ended_by_one_answer() {
    let engine = Hiding::new(&Memory::new());
    let store = open(engine.clone(), Keep::all());
    engine.hide("attempts/0001", 3);
    save(&store, 1).unwrap();
    engine.hide("attempts/0001", FOR_EVER);
    assert_eq!(save(&store, 2).unwrap_err().kind(), ErrorKind::Io, "not fenced: it is listed");
    engine.hide("attempts/0001", 0);
    save(&store, 2).unwrap();
}

#[test]
fn a_missing_checkpoint_is_waited_for_once() {
    let engine = Hiding::new(&run_of(2));
    engine.hide(&key(1), FOR_EVER);
    let store = open(engine, Keep::all());
    store.resume().unwrap();
    let began = std::time::Instant::now();
    save_all(&store, 3..=30);
    assert!(began.elapsed().as_secs() < 5, "28 saves beside it took {:?}", began.elapsed());
}

#[test]
fn the_newest_of_a_reader_never_goes_back() {
    let engine = Hooked::new(run_of(2));
    let reader = Reader::new(engine.clone());
    let newest = || reader.latest().unwrap().unwrap().progress().unwrap().unwrap().step;
    assert_eq!(newest(), 2);
    // A listing that was read while step 3 was added and step 2 removed: it has neither.
    let (inner, bytes) = (engine.inner.clone(), get(&engine.inner, &key(2)));
    engine.inner.delete(&key(2)).unwrap();
    engine.set(At::AfterList, "", 0, move || put(&inner, &key(3), &bytes));
    let name = reader.latest().unwrap().unwrap().name().to_owned();
    assert!(name.contains("0003"), "{name}");
    // Deleted by hand, it is not waited for.
    engine.inner.delete(&key(3)).unwrap();
    assert_eq!(newest(), 1);
}

#[test]
fn a_name_that_comes_back_is_read_anew() {
    let run_with = |loss: f64| {
        let engine = Memory::new();
        let snapshot = Snapshot::new().metric("loss", loss).unwrap().progress(Progress::new(1));
        open(engine.clone(), Keep::all()).save(&snapshot).unwrap();
        engine
    };
    let (engine, restored) = (run_with(0.5), run_with(0.25));
    let reader = Reader::new(engine.clone());
    let loss = || reader.list().unwrap().first().map(|info| info.state.as_ref().unwrap().metrics["loss"]);
    assert_eq!(loss(), Some(0.5));
    engine.delete(&key(1)).unwrap();
    assert_eq!(loss(), None);
    put(&engine, &key(1), &get(&restored, &key(1)));
    assert_eq!(loss(), Some(0.25));
}

#[test]
fn a_reader_ends_however_many_are_absent() {
    let engine = Hiding::new(&run_of(12));
    for step in 2..=12 {
        engine.hide(&key(step), FOR_EVER);
    }
    let began = std::time::Instant::now();
    let reader = Reader::new(engine.clone());
    assert_eq!(reader.latest().unwrap().unwrap().progress().unwrap().unwrap().step, 1);
    assert!(reader.best("loss", Mode::Min).unwrap().is_none());
    assert_eq!(open(engine, Keep::all()).resume().unwrap().next_step(), 1);
    assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
}

#[test]
fn an_absence_here_is_none_there() {
    let (local, remote) = (Hiding::new(&Memory::new()), Hiding::new(&Memory::new()));
    let open = || Store::open_tiered(local.clone(), remote.clone(), StoreOptions::new()).unwrap();
    let store = open();
    save_all(&store, 1..=2);
    store.close().unwrap();
    let store = open();
    local.hide(&key(2), FOR_EVER);
    remote.hide(&key(2), 1);
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (2, Some(Tier::Remote)));
}
