//! The promises of a store, on any engine: an engine author calls [`run`] as the conformance suite.
//! These tests need only the contract of their engine. A broken promise panics with a description.

use crate::checkpoint::Checkpoint;
use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::store::{CheckpointId, Every, Keep, Mode, SaveReason, Saved, Store, StoreOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A test: the sentence that it proves, and the proof on an engine without objects.
type Test = (&'static str, fn(&Arc<dyn Engine>));

/// The tests, each for an engine without objects.
pub const TESTS: &[Test] = &[
    ("progress counts completed updates and the next step follows", progress),
    ("no committed name is ever written twice", never_twice),
    ("a step that is not after the newest is refused", in_order),
    ("rotation keeps the union and never the newest, best, pinned or resumed from", rotation),
    ("a second writer is refused, or fences the first", second_writer),
    ("a zombie is fenced and deletes nothing", zombie),
    ("a reader beside the writer sees whole checkpoints and takes no lock", reader_beside),
    ("schedules drive the saves and say why", schedules),
    ("finding, deleting and their refusals", finding),
    ("a large checkpoint comes back bit for bit", large),
];

/// Runs every test, each on a new engine made by `make`.
///
/// # Panics
/// When a promise is broken.
pub fn run(mut make: impl FnMut() -> Arc<dyn Engine>) {
    for (sentence, test) in TESTS {
        eprintln!("store: {sentence}");
        test(&make());
    }
}

fn open(engine: &Arc<dyn Engine>, options: StoreOptions) -> Store {
    Store::open(Arc::clone(engine), options).unwrap()
}

fn save(store: &Store, step: u64, loss: f64) -> Result<Saved> {
    let weights = [step as f32; 100];
    let mut snapshot = Snapshot::new().tensor("weight", &weights[..])?.metric("loss", loss)?;
    snapshot = snapshot.progress(Progress::new(step).epoch(step / 100));
    store.save(&snapshot)
}

fn steps(store: &Store) -> Vec<u64> {
    store.list().unwrap().iter().map(|info| info.id.step).collect()
}

fn weight(checkpoint: &Checkpoint) -> f32 {
    checkpoint.tensor("weight").unwrap().elements::<f32>().unwrap()[0]
}

// G10
fn progress(engine: &Arc<dyn Engine>) {
    let store = open(engine, StoreOptions::new());
    let fresh = store.resume().unwrap();
    assert_eq!((fresh.next_step(), fresh.checkpoint.is_none()), (0, true));
    save(&store, 7, 0.5).unwrap();
    store.close().unwrap();
    let store = open(engine, StoreOptions::new());
    let resumed = store.resume().unwrap();
    assert_eq!(resumed.next_step(), 7, "seven updates are completed: the next is number 7, counted from 0");
    assert_eq!(weight(&resumed.checkpoint.unwrap()), 7.0);
    assert_eq!(store.due(&Progress::new(7)), None);
}

// G4
fn never_twice(engine: &Arc<dyn Engine>) {
    let store = open(engine, StoreOptions::new());
    save(&store, 1, 0.5).unwrap();
    assert_eq!(save(&store, 1, 0.4).unwrap_err().kind(), ErrorKind::AlreadyExists);
    store.close().unwrap();
    let store = open(engine, StoreOptions::new());
    // Forgetting to resume would begin the run anew and rotate all of it away.
    assert_eq!(save(&store, 1, 0.3).unwrap_err().kind(), ErrorKind::Invalid);
    store.start_over();
    let again = save(&store, 1, 0.3).unwrap();
    assert_eq!(again.id, CheckpointId { attempt: 2, step: 1 });
    assert_eq!(steps(&store), [1, 1]);
    assert_eq!(store.latest().unwrap().unwrap().metrics().unwrap()["loss"], 0.3);
}

// G3
fn in_order(engine: &Arc<dyn Engine>) {
    let store = open(engine, StoreOptions::new().keep(Keep::last(2)));
    for step in [100, 200, 300] {
        save(&store, step, 0.5).unwrap();
    }
    for step in [1, 299, u64::MAX] {
        let error = save(&store, step, 0.5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(save(&store, 300, 0.5).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(steps(&store), [200, 300]);
    // A deleted step is not free again.
    store.delete(300).unwrap();
    assert_eq!(save(&store, 300, 0.5).unwrap_err().kind(), ErrorKind::AlreadyExists);
    save(&store, 301, 0.5).unwrap();
    assert_eq!(steps(&store), [200, 301]);
}

// G3
fn rotation(engine: &Arc<dyn Engine>) {
    let keep = Keep::last(2).or(Keep::best("loss", Mode::Min, 1)).or(Keep::every_steps(500));
    let store = open(engine, StoreOptions::new().keep(keep.clone()));
    for (step, loss) in [(100, 5.0), (200, 1.0), (300, 4.0), (400, 3.0), (500, 3.0), (600, 3.0)] {
        save(&store, step, loss).unwrap();
    }
    assert_eq!(steps(&store), [200, 500, 600]);
    store.pin(200).unwrap();
    let deleted = save(&store, 700, 0.5).unwrap().deleted;
    assert!(deleted.is_empty(), "500 is on the grid, 600 and 700 are the last, 200 is pinned: {deleted:?}");
    save(&store, 800, 0.9).unwrap();
    assert_eq!(steps(&store), [200, 500, 700, 800]);
    store.close().unwrap();
    // The policy's memory is in the checkpoints: a restart forgets nothing.
    let store = open(engine, StoreOptions::new().keep(Keep::last(1)));
    store.resume_at(500).unwrap();
    save(&store, 600, 9.0).unwrap();
    assert_eq!(steps(&store), [200, 500, 600], "pinned, resumed from, newest");
    let kept = store.kept().unwrap();
    assert_eq!(kept[&CheckpointId { attempt: 1, step: 500 }].iter().next().unwrap(), "resumed from");
    store.unpin(200).unwrap();
    save(&store, 700, 9.0).unwrap();
    assert_eq!(steps(&store), [500, 700]);
}

// G9
fn second_writer(engine: &Arc<dyn Engine>) {
    let first = open(engine, StoreOptions::new());
    save(&first, 1, 0.5).unwrap();
    let second = Store::open(Arc::clone(engine), StoreOptions::new());
    if engine.caps().lock {
        let error = second.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        save(&first, 2, 0.5).unwrap();
    } else {
        let second = second.unwrap();
        second.resume().unwrap();
        save(&second, 2, 0.5).unwrap();
        assert_eq!(save(&first, 3, 0.5).unwrap_err().kind(), ErrorKind::Fenced);
    }
    drop(first);
    assert_eq!(open(engine, StoreOptions::new()).attempt(), if engine.caps().lock { 2 } else { 3 });
}

// G9
fn zombie(engine: &Arc<dyn Engine>) {
    let zombie = open(engine, StoreOptions::new().keep(Keep::last(1)));
    save(&zombie, 100, 0.5).unwrap();
    // The effect of a stolen lock or a network partition: a newer attempt exists while the old
    // writer lives.
    engine.create("attempts/0002", None).unwrap().commit([2; 16]).unwrap();
    for outcome in [save(&zombie, 200, 0.1).map(drop), zombie.delete(100)] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Fenced);
    }
    assert_eq!(steps(&zombie), [100]);
}

// G1
fn reader_beside(engine: &Arc<dyn Engine>) {
    let store = open(engine, StoreOptions::new().keep(Keep::last(2)));
    let reader = store.reader();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                if let Some(checkpoint) = reader.latest().unwrap() {
                    let step = checkpoint.progress().unwrap().unwrap().step;
                    assert_eq!(weight(&checkpoint), step as f32);
                    assert!(step >= seen, "the newest went back from {seen} to {step}");
                    seen = step;
                }
                reader.list().unwrap();
            }
            seen
        });
        for step in 1..=60 {
            save(&store, step, 0.5).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
    assert_eq!(store.reader().latest().unwrap().unwrap().progress().unwrap().unwrap().step, 60);
}

fn schedules(engine: &Arc<dyn Engine>) {
    let every = Every::steps(10).or(Every::interval(Duration::from_secs(3600))).or_on_best("loss", Mode::Min);
    let store = open(engine, StoreOptions::new().save(every));
    let mut saved = Vec::new();
    for step in 1..=25 {
        store.observe("loss", if step == 13 { 0.1 } else { 1.0 });
        if let Some(why) = store.due(&Progress::new(step)) {
            save(&store, step, if step == 13 { 0.1 } else { 1.0 }).unwrap();
            saved.push((step, why));
        }
    }
    let best = SaveReason::Best("loss".to_owned());
    assert_eq!(
        saved,
        [(1, best.clone()), (10, SaveReason::Steps(10)), (13, best), (20, SaveReason::Steps(10))]
    );
    let whys: Vec<String> = store.list().unwrap().into_iter().map(|info| info.state.unwrap().why).collect();
    assert_eq!(whys, ["best loss", "every 10 steps", "best loss", "every 10 steps"]);
    let best = store.best("loss", Mode::Min).unwrap().unwrap();
    assert_eq!(best.progress().unwrap().unwrap().step, 13);
}

fn finding(engine: &Arc<dyn Engine>) {
    let store = open(engine, StoreOptions::new());
    let error = store.checkpoint(5).unwrap_err();
    assert!(error.to_string().contains("no checkpoints yet"), "{error}");
    save(&store, 100, 0.5).unwrap();
    assert!(store.delete(100).unwrap_err().to_string().contains("only checkpoint"));
    save(&store, 200, 0.5).unwrap();
    let error = store.checkpoint(150).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("[100, 200]"), "{error}");
    store.pin(100).unwrap();
    store.pin(100).unwrap();
    assert!(store.delete(100).unwrap_err().to_string().contains("unpin"));
    store.unpin(100).unwrap();
    store.delete(100).unwrap();
    assert_eq!(steps(&store), [200]);
}

/// Larger than the pieces in which engines send or read.
fn large(engine: &Arc<dyn Engine>) {
    let value = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32;
    let (a, b): (Vec<f32>, Vec<f32>) =
        ((0..3_000_000).map(value).collect(), (7..2_000_007).map(value).collect());
    let store = open(engine, StoreOptions::new().keep(Keep::last(1)));
    for step in [1, 2] {
        let mut snapshot = Snapshot::new().tensor("a", &a[..]).unwrap().tensor("b", &b[..]).unwrap();
        snapshot = snapshot.progress(Progress::new(step));
        store.save(&snapshot).unwrap();
    }
    let infos = store.list().unwrap();
    assert_eq!(steps(&store), [2]);
    let checkpoint = store.resume().unwrap().checkpoint.unwrap();
    assert_eq!(infos[0].byte_len, checkpoint.inspect().byte_len());
    for (name, expected) in [("a", &a), ("b", &b)] {
        assert!(*checkpoint.tensor(name).unwrap().elements::<f32>().unwrap() == expected[..], "{name}");
    }
}
