//! Bytes that are wrong in one answer and right in the next: no intact checkpoint is condemned for
//! it.

use crate::{open, save, save_all};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{Blob, Decorator, Engine, Memory};
use tensorkeep::{Error, ErrorKind, Keep, Reader, Result};
use test_support::steps_in;

/// Memory that flips a bit in reads of one object, for a number of its openings.
#[derive(Clone, Debug)]
struct Flipping {
    inner: Memory,
    key: Arc<Mutex<String>>,
    openings: Arc<AtomicUsize>,
    /// Every byte, rather than one of the weights.
    whole: Arc<AtomicBool>,
    /// Whether the next opening is wrong in the other way.
    alternates: bool,
}

#[derive(Debug)]
struct Flipped(Arc<dyn Blob>, bool);

/// In the weights of the first tensor: header, index and footer stay whole.
const WHERE: u64 = 4096 + 100;

impl Blob for Flipped {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)?;
        if self.1 {
            for byte in buffer.iter_mut() {
                *byte ^= 1;
            }
        } else if let Some(byte) = WHERE.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize)) {
            *byte ^= 1;
        }
        Ok(())
    }
}

impl Decorator for Flipping {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        let blob = Engine::open(&self.inner, key)?;
        if *self.key.lock().unwrap() != key {
            return Ok(blob);
        }
        let left =
            self.openings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let whole = self.whole.fetch_xor(self.alternates, Ordering::Relaxed);
        Ok(if left.is_ok() { Arc::new(Flipped(blob, whole)) } else { blob })
    }
}

fn flipping(openings: usize) -> Flipping {
    let inner = Memory::new();
    save_all(&open(inner.clone(), Keep::all()), 1..=3);
    let key = Arc::new(Mutex::new(String::new()));
    let openings = Arc::new(AtomicUsize::new(openings));
    Flipping { inner, key, openings, whole: Arc::default(), alternates: false }
}

#[test]
fn one_wrong_answer_condemns_nothing() {
    let engine = flipping(1);
    let store = open(engine.clone(), Keep::all());
    *engine.key.lock().unwrap() = "0001-0000000003.tkeep".to_owned();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (3, 0));
    assert_eq!(engine.openings.load(Ordering::Relaxed), 0, "the first answer was wrong");
}

#[test]
fn damage_that_two_answers_agree_on_is_believed() {
    let engine = flipping(2);
    let store = open(engine.clone(), Keep::all());
    *engine.key.lock().unwrap() = "0001-0000000003.tkeep".to_owned();
    let resumed = store.resume().unwrap();
    assert_eq!(resumed.next_step(), 2);
    assert_eq!(resumed.skipped[0].error.kind(), ErrorKind::Damaged);
    assert_eq!(steps_in(&engine.inner), [1, 2]);
}

#[test]
fn damages_that_differ_condemn_nothing() {
    let engine = Flipping { alternates: true, ..flipping(3) };
    let store = open(engine.clone(), Keep::all());
    *engine.key.lock().unwrap() = "0001-0000000003.tkeep".to_owned();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (3, 0));
    assert_eq!(engine.openings.load(Ordering::Relaxed), 0, "three answers were wrong");
}

/// Memory that says once that a checkpoint is damaged, after so many other openings of it.
#[derive(Clone, Debug)]
struct SaysDamaged(Memory, Arc<AtomicUsize>);

impl Decorator for SaysDamaged {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.0
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        if key == "0001-0000000003.tkeep" && self.1.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(Error::new(ErrorKind::Damaged, "the answer was cut short").in_object(key));
        }
        Engine::open(&self.0, key)
    }
}

#[test]
fn damage_told_at_any_opening_of_a_resume_condemns_nothing() {
    for opening in 1..8 {
        let engine = SaysDamaged(flipping(0).inner, Arc::new(AtomicUsize::new(usize::MAX)));
        let store = open(engine.clone(), Keep::all());
        engine.1.store(opening, Ordering::Relaxed);
        let resumed = store.resume().unwrap();
        assert_eq!((resumed.next_step(), resumed.skipped.len()), (3, 0), "opening {opening}");
        assert_eq!(steps_in(&engine.0), [1, 2, 3]);
    }
}

/// Memory that returns other bytes for a number of openings of one object.
fn lying(key: &str, openings: usize) -> Flipping {
    let engine = flipping(openings);
    *engine.key.lock().unwrap() = key.to_owned();
    engine
}

#[test]
fn one_wrong_answer_ends_no_run() {
    let engine = flipping(0);
    let store = open(engine.clone(), Keep::last(2));
    store.resume().unwrap();
    *engine.key.lock().unwrap() = "attempts/0002".to_owned();
    engine.whole.store(true, Ordering::Relaxed);
    engine.openings.store(1, Ordering::Relaxed);
    save(&store, 4).unwrap();
    assert_eq!(engine.openings.load(Ordering::Relaxed), 0, "an answer was wrong");
    engine.openings.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(save(&store, 5).unwrap_err().kind(), ErrorKind::Fenced, "it is another writer's");
}

#[test]
fn one_wrong_answer_makes_no_other_run() {
    let engine = lying("RUN", 0);
    engine.whole.store(true, Ordering::Relaxed);
    let run = Reader::new(engine.clone()).run_id().unwrap();
    engine.openings.store(1, Ordering::Relaxed);
    assert_eq!(Reader::new(engine.clone()).run_id().unwrap(), run);
    assert_eq!(engine.openings.load(Ordering::Relaxed), 0, "the answer was wrong");
}

#[test]
fn one_wrong_answer_makes_no_older_checkpoint_the_latest() {
    let engine = lying("0001-0000000003.tkeep", 1);
    engine.whole.store(true, Ordering::Relaxed);
    let latest = Reader::new(engine.clone()).latest().unwrap().unwrap();
    assert_eq!(latest.progress().unwrap().unwrap().step, 3);
    assert_eq!(engine.openings.load(Ordering::Relaxed), 0, "the answer was wrong");
}
