//! Bytes that are wrong in one answer and right in the next: nothing whole is condemned for it.

use crate::{open, save_all, steps};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tensorkeep::engine::{Blob, Decorator, Engine, Memory};
use tensorkeep::{ErrorKind, Keep, Result};

/// Memory that flips a bit of what is read of one object, for so many of its openings.
#[derive(Clone, Debug)]
struct Flipping {
    inner: Memory,
    key: Arc<Mutex<String>>,
    openings: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Flipped(Arc<dyn Blob>);

/// In the weights of the first tensor: header, index and footer stay whole.
const WHERE: u64 = 4096 + 100;

impl Blob for Flipped {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)?;
        if let Some(byte) = WHERE.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize)) {
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
        Ok(if left.is_ok() { Arc::new(Flipped(blob)) } else { blob })
    }
}

fn flipping(openings: usize) -> Flipping {
    let inner = Memory::new();
    save_all(&open(inner.clone(), Keep::all()), 1..=3);
    let key = Arc::new(Mutex::new(String::new()));
    Flipping { inner, key, openings: Arc::new(AtomicUsize::new(openings)) }
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
