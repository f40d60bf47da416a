//! Bytes that are wrong in one answer and right in the next: nothing whole is condemned for it.

use crate::{open, save, save_all, steps};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{Blob, Decorator, Engine, Memory};
use tensorkeep::{ErrorKind, Keep, Reader, Result};

/// Memory that flips a bit of what is read of one object, for so many of its openings.
#[derive(Clone, Debug)]
struct Flipping {
    inner: Memory,
    key: Arc<Mutex<String>>,
    openings: Arc<AtomicUsize>,
    /// Every byte, rather than one of the weights.
    whole: Arc<AtomicBool>,
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
            buffer.iter_mut().for_each(|byte| *byte ^= 1);
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
        Ok(if left.is_ok() { Arc::new(Flipped(blob, self.whole.load(Ordering::Relaxed))) } else { blob })
    }
}

fn flipping(openings: usize) -> Flipping {
    let inner = Memory::new();
    save_all(&open(inner.clone(), Keep::all()), 1..=3);
    let key = Arc::new(Mutex::new(String::new()));
    Flipping { inner, key, openings: Arc::new(AtomicUsize::new(openings)), whole: Arc::default() }
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
fn what_two_answers_say_is_believed() {
    let engine = flipping(2);
    let store = open(engine.clone(), Keep::all());
    *engine.key.lock().unwrap() = "0001-0000000003.tkeep".to_owned();
    let resumed = store.resume().unwrap();
    assert_eq!(resumed.next_step(), 2);
    assert_eq!(resumed.skipped[0].error.kind(), ErrorKind::Damaged);
    assert_eq!(steps(engine.inner), [1, 2]);
}

/// Memory that answers a reading of one object, and so many of them, with other bytes.
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
