//! A run that is restarted again and again, or keeps everything: the cost of a save does not grow
//! with it.

use crate::hooked::Hooked;
use crate::{open, resumed, save, save_all};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{CommitError, Decorator, Engine, Entry, Memory, Nonce, Upload};
use tensorkeep::{CheckpointInfo, Error, ErrorKind, Keep, Mode, Progress, Reader, Result, Snapshot};
use test_support::{get, put};

/// Memory that counts its listings and their entries.
#[derive(Clone, Debug)]
struct Counting {
    inner: Memory,
    calls: Arc<AtomicUsize>,
    entries: Arc<AtomicUsize>,
}

impl Counting {
    fn new(inner: &Memory) -> Self {
        Self { inner: inner.clone(), calls: Arc::default(), entries: Arc::default() }
    }

    /// Listings since the last call, and the entries of all.
    fn take(&self) -> (usize, usize) {
        (self.calls.swap(0, Ordering::Relaxed), self.entries.swap(0, Ordering::Relaxed))
    }
}

impl Decorator for Counting {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        Ok(Decorator::list_each(self, &[folder])?.remove(0))
    }

    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        let listed = Engine::list_each(&self.inner, folders)?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(listed.iter().map(Vec::len).sum(), Ordering::Relaxed);
        Ok(listed)
    }
}

/// The entries listed by one save.
fn cost(engine: &Memory, keep: Keep, step: u64) -> usize {
    let counting = Counting::new(engine);
    let store = resumed(counting.clone(), keep);
    save(&store, step).unwrap();
    counting.take();
    save(&store, step + 1).unwrap();
    counting.take().1
}

#[test]
fn a_save_lists_once_and_once_more_where_it_deletes() {
    for (keep, expected) in [(Keep::all(), 0), (Keep::last(1000), 1), (Keep::last(2), 2)] {
        let counting = Counting::new(&Memory::new());
        let store = open(counting.clone(), keep.clone());
        save_all(&store, 1..=3);
        counting.take();
        save(&store, 4).unwrap();
        assert_eq!(counting.take().0, expected, "{keep}");
    }
}

#[test]
fn attempt_numbers_are_taken_without_gaps() {
    let engine = Hooked::lockless(Memory::new());
    let old = open(engine.clone(), Keep::all());
    save(&old, 1).unwrap();
    // Copied in from elsewhere.
    put(&engine.inner, "0007-0000000001.tkeep", &get(&engine.inner, "0001-0000000001.tkeep"));
    assert_eq!(resumed(engine.clone(), Keep::all()).attempt(), 8);
    assert_eq!(save(&old, 2).unwrap_err().kind(), ErrorKind::Fenced);
    assert!(engine.inner.open("0001-0000000002.tkeep").is_err(), "and nothing was committed");
    let numbers: Vec<u32> = Reader::new(engine).attempts().unwrap().iter().map(|it| it.number).collect();
    assert_eq!(numbers, [1, 2, 8]);
}

#[test]
fn a_thousand_starts_cost_a_save_no_more_than_a_hundred() {
    let engine = Memory::new();
    let start = || drop(open(engine.clone(), Keep::last(1)));
    for _ in 0..100 {
        start();
    }
    let few = cost(&engine, Keep::last(1), 1);
    for _ in 0..1000 {
        start();
    }
    let many = cost(&engine, Keep::last(1), 3);
    assert!(many <= few + 8, "{few}, and a thousand starts later {many}");
    let attempts = Reader::new(engine.clone()).attempts().unwrap();
    assert_eq!(attempts.last().unwrap().number, 1102, "no number comes back");
    assert!(attempts.len() <= 65, "{}", attempts.len());
}

#[test]
fn an_old_writer_is_fenced_though_its_attempt_was_forgotten() {
    // Without locks, or no other writer could open the run.
    let engine = Hooked::lockless(Memory::new());
    let old = open(engine.clone(), Keep::all());
    save(&old, 1).unwrap();
    for _ in 0..200 {
        drop(open(engine.clone(), Keep::all()));
    }
    assert!(engine.inner.open("attempts/0001").is_err(), "it was forgotten");
    assert_eq!(save(&old, 2).unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn a_run_that_keeps_all_lists_none_of_it_for_a_save() {
    let engine = Memory::new();
    save_all(&open(engine.clone(), Keep::all()), 1..=10);
    let few = cost(&engine, Keep::all(), 11);
    save_all(&resumed(engine.clone(), Keep::all()), 13..=500);
    assert_eq!(cost(&engine, Keep::all(), 501), few);
}

/// Memory whose first commit of a checkpoint is lost with an unknown outcome; and the nonces that
/// checkpoints were committed with.
#[derive(Clone, Debug)]
struct Losing(Memory, Arc<Mutex<Vec<Nonce>>>);

impl Decorator for Losing {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.0
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        let upload = Engine::create(&self.0, key, size_hint)?;
        if !key.ends_with(".tkeep") {
            return Ok(upload);
        }
        Ok(Box::new(Losable(upload, self.clone())))
    }
}

struct Losable(Box<dyn Upload>, Losing);

impl Upload for Losable {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.append(bytes)
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        let mut nonces = self.1.1.lock().unwrap();
        nonces.push(nonce);
        match nonces.len() {
            1 => Err(CommitError::Unknown(Error::new(ErrorKind::Io, "no answer"))),
            _ => self.0.commit(nonce),
        }
    }
}

#[test]
fn a_step_saved_again_after_unknown_is_told_from_the_first() {
    let engine = Losing(Memory::new(), Arc::default());
    let store = open(engine.clone(), Keep::all());
    assert_eq!(save(&store, 1).unwrap_err().kind(), ErrorKind::Unknown);
    save(&store, 1).unwrap();
    let nonces = engine.1.lock().unwrap().clone();
    assert!(nonces.len() == 2 && nonces[0] != nonces[1], "{nonces:?}");
}

#[test]
fn a_saves_memory_matches_its_checkpoint() {
    let engine = Memory::new();
    drop(open(engine.clone(), Keep::last(2)));
    save_all(&open(engine.clone(), Keep::last(2)), 1..=2);
    let store = resumed(engine.clone(), Keep::last(2).or(Keep::best("loss", Mode::Min, 1)));
    for step in 3..=5 {
        let weights = vec![step as f32; 64];
        let mut snapshot =
            Snapshot::new().tensor("weights", &weights).unwrap().alias("head", "weights").unwrap();
        snapshot = snapshot.metric("loss", 1.0 / step as f64).unwrap().progress(Progress::new(step).epoch(2));
        store.save(&snapshot).unwrap();
    }
    let states =
        |infos: Vec<CheckpointInfo>| infos.into_iter().map(|info| info.state.unwrap()).collect::<Vec<_>>();
    let remembered = states(store.list().unwrap());
    assert_eq!(remembered, states(Reader::new(engine).list().unwrap()));
    assert_eq!(remembered.last().map(|state| state.tensors), Some(2));
}
