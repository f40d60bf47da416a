//! Failures of background saves: each is reported exactly once, none prevents a later save, and
//! none leaves a call hanging, even if the trainer's code panics or no thread can be started.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tensorkeep::engine::Memory;
use tensorkeep::{
    Dtype, ErrorKind, Every, LazyTensor, Mode, Progress, Snapshot, Store, StoreOptions, Tensor,
    store::WhenFull, tensor::Buffer, tensor::SharedBytes,
};
use test_support::{Gated, ends_in_time};

fn snapshot(weights: &[f32], step: u64) -> Snapshot<'_> {
    Snapshot::new().tensor("weights", weights).unwrap().progress(Progress::new(step))
}

/// A store whose background save of step 1 has failed.
fn failed_once() -> (Gated, Store) {
    let engine = Gated::default();
    let store = Store::open(engine.clone(), StoreOptions::new()).unwrap();
    engine.set(|gate| gate.fails = true);
    let pending = store.stage(&snapshot(&[1.0], 1)).unwrap().unwrap();
    pending.wait().unwrap_err();
    engine.set(|gate| gate.fails = false);
    (engine, store)
}

#[test]
fn a_staged_save_is_made_and_tells_the_earlier_failure() {
    let (_, store) = failed_once();
    let pending = store.stage(&snapshot(&[1.0], 2)).unwrap().unwrap();
    let error = pending.clone().earlier_error().unwrap();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NoSpace, Some(1)));
    assert!(pending.earlier_error().is_none(), "it was told already");
    assert_eq!(pending.wait().unwrap().id.step, 2);
    drop(pending);
    store.close().unwrap();
}

#[test]
fn a_failure_that_was_overlooked_is_an_error_of_the_next_stage() {
    let (_, store) = failed_once();
    drop(store.stage(&snapshot(&[1.0], 2)).unwrap());
    let error = store.stage(&snapshot(&[1.0], 3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("on its way all the same"), "{error}");
    store.wait().unwrap();
    let steps: Vec<u64> = store.list().unwrap().iter().map(|info| info.id.step).collect();
    assert_eq!(steps, [2, 3]);
    store.close().unwrap();
}

#[test]
fn a_failure_that_was_overlooked_is_an_error_of_close() {
    let (_, store) = failed_once();
    drop(store.stage(&snapshot(&[1.0], 2)).unwrap());
    assert_eq!(store.close().unwrap_err().kind(), ErrorKind::NoSpace);
}

#[test]
fn a_save_that_fails_leaves_the_earlier_failure_to_the_next() {
    let (engine, store) = failed_once();
    engine.set(|gate| gate.fails = true);
    assert_eq!(store.save(&snapshot(&[1.0], 2)).unwrap_err().step(), Some(2));
    let (_, saved) = store.save_during(&snapshot(&[1.0], 3), || ());
    assert_eq!(saved.unwrap_err().step(), Some(3));
    engine.set(|gate| gate.fails = false);
    let (_, saved) = store.save_during(&snapshot(&[1.0], 4), || ());
    assert_eq!(saved.unwrap().earlier_error.unwrap().step(), Some(1));
    store.close().unwrap();
}

#[test]
fn two_failures_are_returned_by_successive_calls() {
    let engine = Gated::default();
    let store = Store::open(engine.clone(), StoreOptions::new().in_flight(2, WhenFull::Wait)).unwrap();
    engine.set(|gate| (gate.fails, gate.closed) = (true, true));
    for step in [1, 2] {
        store.stage(&snapshot(&[1.0], step)).unwrap();
    }
    engine.set(|gate| gate.closed = false);
    while engine.uploads.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    assert_eq!(store.wait().unwrap_err().step(), Some(1));
    engine.set(|gate| gate.fails = false);
    assert_eq!(store.save(&snapshot(&[1.0], 3)).unwrap().earlier_error.unwrap().step(), Some(2));
    store.close().unwrap();
}

#[test]
fn a_panic_while_staging_gives_its_place_back() {
    let store = Store::open(Memory::new(), StoreOptions::new().in_flight(1, WhenFull::Error)).unwrap();
    let mut bad = Snapshot::new();
    let panics =
        LazyTensor::new(Dtype::F32, &[1], || -> tensorkeep::Result<Tensor<'static>> { panic!("on purpose") });
    bad = bad.tensor("bad", panics).unwrap().progress(Progress::new(1));
    let panic = catch_unwind(AssertUnwindSafe(|| store.stage(&bad))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"), "the trainer's panic is the trainer's");
    store.stage(&snapshot(&[1.0], 2)).unwrap().unwrap();
    ends_in_time("closing", move || store.close()).unwrap();
}

/// Bytes whose destructor panics, or is slow.
struct Bytes {
    panics: bool,
    freed: Arc<AtomicBool>,
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &[7; 4]
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        assert!(!self.panics, "a destructor panics on purpose");
        std::thread::sleep(Duration::from_millis(200));
        self.freed.store(true, Ordering::SeqCst);
    }
}

fn with_bytes(panics: bool, freed: &Arc<AtomicBool>) -> Snapshot<'static> {
    let bytes: SharedBytes = Arc::new(Bytes { panics, freed: Arc::clone(freed) });
    let mut snapshot = Snapshot::new();
    let tensor = Tensor::shared(Dtype::U8, &[4], bytes).unwrap();
    snapshot = snapshot.tensor("bytes", tensor).unwrap().progress(Progress::new(1));
    snapshot
}

#[test]
fn a_destructor_that_panics_is_an_error_and_no_hang() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    let pending = store.save_async(with_bytes(true, &Arc::default())).unwrap().unwrap();
    let store = ends_in_time("saving", move || {
        let error = store.wait().unwrap_err();
        assert!(format!("{error:?}").contains("panicked"), "{error:?}");
        store
    });
    assert_eq!(pending.outcome().unwrap().unwrap().id.step, 1, "the checkpoint is durable");
    store.stage(&snapshot(&[1.0], 2)).unwrap().unwrap().wait().unwrap();
    store.close().unwrap();
}

#[test]
fn the_memory_of_a_save_is_free_before_its_place_is() {
    let store = Store::open(Memory::new(), StoreOptions::new().in_flight(1, WhenFull::Wait)).unwrap();
    let freed = Arc::new(AtomicBool::new(false));
    store.save_async(with_bytes(false, &freed)).unwrap();
    // Drawn as soon as a slot is free.
    let was_free = Arc::new(AtomicBool::new(false));
    let look = {
        let was_free = Arc::clone(&was_free);
        LazyTensor::new(Dtype::U8, &[1], move || {
            was_free.store(freed.load(Ordering::SeqCst), Ordering::SeqCst);
            Tensor::owned(Dtype::U8, &[1], Buffer::copy_of(&[1])?)
        })
    };
    let second = Snapshot::new().tensor("look", look).unwrap().progress(Progress::new(2));
    store.stage(&second).unwrap();
    store.close().unwrap();
    assert!(was_free.load(Ordering::SeqCst), "two saves were in memory with one place");
}

#[test]
fn after_waiting_there_is_an_outcome_and_a_free_slot() {
    let store = Store::open(Memory::new(), StoreOptions::new().in_flight(1, WhenFull::Skip)).unwrap();
    for step in 1..=2000 {
        let pending =
            store.stage(&snapshot(&[1.0], step)).unwrap().expect("the outcome was there, not the place");
        match step % 2 {
            0 => drop(pending.wait().unwrap()),
            _ => store.wait().unwrap(),
        }
        assert!(pending.outcome().is_some(), "step {step}");
    }
}

#[test]
fn a_thread_that_cannot_be_had_is_an_error() {
    const TEST: &str = "a_thread_that_cannot_be_had_is_an_error";
    // More than the address space: no thread can be started.
    let (key, value) = ("RUST_MIN_STACK", "99999999999999");
    if std::env::var(key).is_ok_and(|now| now == value) {
        let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
        let live = vec![1.0_f32; 4 << 20];
        let (worked, saved) = store.save_during(&snapshot(&live, 1), || 5);
        assert_eq!((worked, saved.unwrap_err().kind()), (5, ErrorKind::Io));
        assert_eq!(store.stage(&snapshot(&live, 2)).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(store.save_async(with_bytes(false, &Arc::default())).unwrap_err().kind(), ErrorKind::Io);
        store.wait().unwrap();
        assert_eq!(store.save(&snapshot(&[1.0], 3)).unwrap().id.step, 3);
        return;
    }
    // With one test thread, tests run on the main thread.
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", TEST, "--test-threads=1", "--nocapture"]).env(key, value);
    let output = child.output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{output:?}"
    );
}

#[test]
fn a_background_save_reports_what_its_snapshot_lacks() {
    let store =
        Store::open(Memory::new(), StoreOptions::new().save(Every::on_best("loss", Mode::Min))).unwrap();
    store.observe("loss", 0.5);
    let pending = store.stage(&snapshot(&[1.0], 1)).unwrap().unwrap();
    let saved = pending.wait().unwrap();
    assert!(saved.warnings.iter().any(|warning| warning.contains("\"loss\"")), "{saved:?}");
    store.observe("loss", 0.4);
    assert_eq!(store.save(&snapshot(&[1.0], 2)).unwrap().warnings.len(), 1);
}
