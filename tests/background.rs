//! Background saves: the state is saved as it was when handed over, no error is lost, memory is
//! bounded, and saves complete in order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tensorkeep::engine::Memory;
use tensorkeep::{
    Checkpoint, Dtype, Error, ErrorKind, Every, Keep, LazyTensor, Progress, Result, SaveReason, Snapshot,
    Store, StoreOptions, Tensor, store::SaveCost, store::WhenFull,
};
use test_support::{Gated, TempFolder};

fn gated(settings: StoreOptions) -> (Gated, Store) {
    let engine = Gated::default();
    let store = Store::open(engine.clone(), settings).unwrap();
    (engine, store)
}

fn snapshot(weights: &[f32], step: u64) -> Snapshot<'_> {
    Snapshot::new().tensor("weights", weights).unwrap().progress(Progress::new(step))
}

fn weights(checkpoint: &Checkpoint) -> Vec<f32> {
    checkpoint.tensor("weights").unwrap().elements::<f32>().unwrap().to_vec()
}

#[test]
fn a_staged_save_holds_the_state_at_the_call() {
    let (engine, store) = gated(StoreOptions::new().in_flight(2, WhenFull::Wait));
    engine.set(|gate| gate.closed = true);
    let mut live = vec![1.0_f32; 5_000_000];
    let first = store.stage(&snapshot(&live, 1)).unwrap().unwrap();
    live.fill(2.0);
    let second = store.stage(&snapshot(&live, 2)).unwrap().unwrap();
    live.fill(3.0);
    assert!(first.outcome().is_none(), "nothing can have passed the gate");
    assert!(first.wait_for(Duration::from_millis(5)).is_none(), "nor within a time");
    engine.set(|gate| gate.closed = false);
    assert_eq!(first.wait_for(Duration::from_secs(600)).unwrap().unwrap().id.step, 1);
    assert_eq!((first.wait().unwrap().id.step, second.wait().unwrap().id.step), (1, 2));
    store.wait().unwrap();
    for step in [1, 2] {
        assert!(weights(&store.checkpoint(step).unwrap()).iter().all(|&weight| weight == step as f32));
    }
}

#[test]
fn shared_arrays_are_saved_in_the_background_without_a_copy() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    let mut array = ndarray::ArcArray::from_elem((10, 20), 0.5_f64);
    let snapshot = Snapshot::new().tensor("shared", array.clone()).unwrap().progress(Progress::new(1));
    let pending = store.save_async(snapshot).unwrap().unwrap();
    array[[0, 0]] = 9.0; // copies on write: the snapshot keeps the old values
    pending.wait().unwrap();
    let checkpoint = store.latest().unwrap().unwrap();
    assert_eq!(checkpoint.tensor("shared").unwrap().elements::<f64>().unwrap(), [0.5; 200]);
}

#[test]
fn save_during_overlaps_and_gives_back_both_results() {
    let (engine, store) = gated(StoreOptions::new());
    engine.set(|gate| gate.closed = true);
    let live = vec![0.25_f32; 1000];
    let (sum, saved) = store.save_during(&snapshot(&live, 1), || {
        // The save cannot complete earlier: it waits at the gate.
        let sum: f32 = live.iter().sum();
        engine.set(|gate| gate.closed = false);
        sum
    });
    assert_eq!((sum, saved.unwrap().id.step), (250.0, 1));
    engine.set(|gate| gate.fails = true);
    let (result, saved) = store.save_during(&snapshot(&live, 2), || "the work is not lost");
    assert_eq!((result, saved.unwrap_err().kind()), ("the work is not lost", ErrorKind::NoSpace));
}

// G7
#[test]
fn a_failed_background_save_is_reported_once_by_the_next() {
    let (engine, store) = gated(StoreOptions::new().save(Every::steps(10)));
    engine.set(|gate| gate.fails = true);
    let live = [1.0_f32; 10];
    assert_eq!(store.due(&Progress::new(10)), Some(SaveReason::Steps(10)));
    let pending = store.stage(&snapshot(&live, 10)).unwrap().unwrap();
    assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(store.due(&Progress::new(11)), Some(SaveReason::Again), "what failed is due again at once");
    engine.set(|gate| gate.fails = false);
    let saved = store.save(&snapshot(&live, 11)).unwrap();
    let error = saved.earlier_error.unwrap();
    assert_eq!((saved.id.step, error.kind(), error.step()), (11, ErrorKind::NoSpace, Some(10)));
    assert!(format!("{error:?}").contains("the disk is full"), "{error:?}");
    assert_eq!(store.due(&Progress::new(12)), None);
    assert!(store.save(&snapshot(&live, 12)).unwrap().earlier_error.is_none());
    assert_eq!(pending.outcome().unwrap().unwrap_err().kind(), ErrorKind::NoSpace);
    store.close().unwrap();
}

#[test]
fn close_waits_and_returns_an_unreported_error() {
    let (engine, store) = gated(StoreOptions::new());
    engine.set(|gate| gate.fails = true);
    store.stage(&snapshot(&[1.0], 1)).unwrap();
    assert_eq!(store.close().unwrap_err().kind(), ErrorKind::NoSpace);
    let store = Store::open(engine.clone(), StoreOptions::new()).unwrap();
    engine.set(|gate| gate.fails = false);
    store.stage(&snapshot(&[1.0], 2)).unwrap();
    drop(store);
    let store = Store::open(engine, StoreOptions::new()).unwrap();
    assert_eq!(store.resume().unwrap().next_step(), 2, "drop waits");
}

#[test]
fn a_lazy_tensor_that_panics_fails_only_its_own_save() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    let mut bad = Snapshot::new();
    let panics = LazyTensor::new(Dtype::F32, &[1], || -> Result<Tensor<'static>> { panic!("on purpose") });
    bad = bad.tensor("bad", panics).unwrap().progress(Progress::new(1));
    let pending = store.save_async(bad).unwrap().unwrap();
    assert!(pending.wait().unwrap_err().to_string().contains("panicked"));
    let saved = store.save(&snapshot(&[1.0], 2)).unwrap();
    assert!(format!("{:?}", saved.earlier_error.unwrap()).contains("panicked"));
    store.close().unwrap();
}

// G8
#[test]
fn a_full_queue_waits_skips_or_fails_as_configured() {
    for when_full in [WhenFull::Skip, WhenFull::Error] {
        let (engine, store) = gated(StoreOptions::new().in_flight(2, when_full));
        engine.set(|gate| gate.closed = true);
        for step in [1, 2] {
            assert!(store.stage(&snapshot(&[1.0], step)).unwrap().is_some());
        }
        match store.stage(&snapshot(&[1.0], 3)) {
            Ok(None) => assert_eq!(when_full, WhenFull::Skip),
            Err(error) => assert_eq!((error.kind(), when_full), (ErrorKind::Busy, WhenFull::Error)),
            Ok(Some(_)) => panic!("a third save was taken"),
        }
        engine.set(|gate| gate.closed = false);
        store.wait().unwrap();
        assert!(store.stage(&snapshot(&[1.0], 4)).unwrap().is_some());
        store.wait().unwrap();
        assert_eq!(engine.uploads.load(Ordering::SeqCst), 3);
    }
    let (engine, store) = gated(StoreOptions::new().in_flight(1, WhenFull::Wait));
    engine.set(|gate| gate.closed = true);
    store.stage(&snapshot(&[1.0], 1)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.stage(&snapshot(&[1.0], 2)).unwrap().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "it must wait for its place");
        engine.set(|gate| gate.closed = false);
        waiting.join().unwrap().wait().unwrap();
    });
}

#[test]
fn a_save_that_could_not_be_staged_frees_its_place() {
    let store =
        Arc::new(Store::open(Memory::new(), StoreOptions::new().in_flight(1, WhenFull::Wait)).unwrap());
    let (fail, told) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let failing = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            let mut bad = Snapshot::new();
            let deferred = LazyTensor::new(Dtype::F32, &[1], move || -> Result<Tensor<'static>> {
                told.lock().unwrap().recv().unwrap();
                Err(Error::new(ErrorKind::Io, "on purpose"))
            });
            bad = bad.tensor("bad", deferred).unwrap().progress(Progress::new(1));
            store.stage(&bad).map(drop).unwrap_err().kind()
        })
    };
    std::thread::sleep(Duration::from_millis(50));
    let (done, waited) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(store.stage(&snapshot(&[1.0], 2)).map(drop)));
    std::thread::sleep(Duration::from_millis(50));
    fail.send(()).unwrap();
    assert_eq!(failing.join().unwrap(), ErrorKind::Io);
    waited.recv_timeout(Duration::from_secs(10)).expect("the place was never given on").unwrap();
}

#[test]
fn saves_and_their_rotations_share_one_order() {
    let store =
        Store::open(Memory::new(), StoreOptions::new().keep(Keep::last(1)).in_flight(3, WhenFull::Wait))
            .unwrap();
    let reader = store.reader();
    for step in 1..=50 {
        store.stage(&snapshot(&[step as f32], 10 * step)).unwrap();
        if step % 7 == 0 {
            store.save(&snapshot(&[0.5], 10 * step + 5)).unwrap();
        }
        assert!(step < 8 || !reader.ids().unwrap().is_empty(), "the run was empty while a save was queued");
    }
    store.wait().unwrap();
    assert_eq!(reader.ids().unwrap().len(), 1);
}

#[test]
fn no_places_at_all_is_refused() {
    let error = Store::open(Memory::new(), StoreOptions::new().in_flight(0, WhenFull::Wait)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// The niceness of the calling thread, and of others by a prefix of their name, from /proc.
#[cfg(target_os = "linux")]
fn niceness(of: &str) -> Vec<i32> {
    let nice = |stat: std::io::Result<String>| {
        // After the name, which is in parentheses, niceness is the 17th field.
        stat.ok()?.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
    };
    if of.is_empty() {
        return nice(std::fs::read_to_string("/proc/thread-self/stat")).into_iter().collect();
    }
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let named = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with(of))
    };
    tasks.filter(named).filter_map(|task| nice(std::fs::read_to_string(task.join("stat")))).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn background_saves_are_nice_and_training_is_not() {
    let folder = TempFolder::new("nice");
    let local = tensorkeep::engine::Local::create(folder.path()).unwrap();
    let write = tensorkeep::WriteOptions::new().codec(tensorkeep::Codec::Balanced).workers(2);
    let store = Store::open(local, StoreOptions::new().background_nice(7).write(write)).unwrap();
    let here = niceness("")[0];
    let mix = |i: u32| (i ^ (i >> 15)).wrapping_mul(0x2c1b_3c6d).rotate_left(13).wrapping_mul(0x297a_2d39);
    let live: Vec<u32> = (0..8_000_000_u32).map(|i| mix(mix(i.wrapping_mul(2_654_435_761)))).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let snapshot = |step| {
        let (seen, live) = (Arc::clone(&seen), live.clone());
        let mut snapshot = Snapshot::new().tensor("a.large", ndarray::ArcArray::from_vec(live)).unwrap();
        // Drawn by the saving thread after 32 MB that do not compress: encoders and block writers
        // are running.
        let look = LazyTensor::new(Dtype::U8, &[1], move || {
            let threads = ["", "tensorkeep-enc", "tensorkeep-wri"].map(niceness);
            seen.lock().unwrap().push(threads);
            Tensor::owned(Dtype::U8, &[1], tensorkeep::tensor::Buffer::copy_of(&[1])?)
        });
        snapshot = snapshot.tensor("b.look", look).unwrap().progress(Progress::new(step));
        snapshot
    };
    store.save_async(snapshot(1)).unwrap().unwrap().wait().unwrap();
    let (_, saved) = store.save_during(&snapshot(2), || niceness("")[0]);
    saved.unwrap();
    assert_eq!(niceness("")[0], here, "the trainer's own thread was made nicer");
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 2);
    for [saving, encoding, writing] in seen {
        let nicer = (here + 7).min(19);
        assert_eq!(saving, [nicer]);
        assert_eq!((encoding.len(), writing.len()), (2, 2));
        assert!(encoding.iter().chain(&writing).all(|&nice| nice == nicer), "{encoding:?} {writing:?}");
    }
    store.close().unwrap();
}

#[test]
fn niceness_beyond_the_nicest_is_refused() {
    let error = Store::open(Memory::new(), StoreOptions::new().background_nice(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("expected 0 to 19, found 20"), "{error}");
}

/// The cost of the previous save, as recorded in the newest checkpoint.
fn previous(store: &Store) -> Option<SaveCost> {
    store.list().unwrap().pop().unwrap().state.unwrap().previous
}

#[test]
fn each_save_records_the_cost_of_the_one_before() {
    let engine = Memory::new();
    for _attempt in 0..2 {
        let store = Store::open(engine.clone(), StoreOptions::new()).unwrap();
        store.resume().unwrap();
        let step = store.list().unwrap().len() as u64;
        let took = store.save(&snapshot(&[1.0], step + 1)).unwrap().timings.total;
        assert_eq!(previous(&store), None);
        store.save(&snapshot(&[1.0], step + 2)).unwrap();
        let cost = previous(&store).unwrap();
        assert_eq!(cost.step, step + 1);
        // A foreground save stalls training for its whole duration. In microseconds, so they may be
        // equal.
        assert!(cost.took + Duration::from_micros(1) >= took && cost.stall >= cost.took, "{cost:?}");
    }
}

/// Long enough to tell a wait from none on a busy machine.
const LONG: Duration = Duration::from_millis(300);

/// Runs `act` while the gate is closed, and opens it after a while.
fn while_closed(engine: &Gated, act: impl FnOnce()) {
    std::thread::scope(|scope| {
        engine.set(|gate| gate.closed = true);
        scope.spawn(|| {
            std::thread::sleep(LONG);
            engine.set(|gate| gate.closed = false);
        });
        act();
    });
}

#[test]
fn the_stall_is_the_call_and_not_the_background_write() {
    let (engine, store) = gated(StoreOptions::new());
    engine.set(|gate| gate.closed = true);
    store.stage(&snapshot(&[1.0], 1)).unwrap();
    std::thread::sleep(LONG);
    engine.set(|gate| gate.closed = false);
    store.wait().unwrap();
    let (_, saved) = store.save_during(&snapshot(&[1.0], 2), || std::thread::sleep(LONG));
    saved.unwrap();
    let staged = previous(&store).unwrap();
    assert!((staged.step, staged.took >= LONG / 2, staged.stall < LONG / 2) == (1, true, true), "{staged:?}");

    // The work ends long before the save does.
    while_closed(&engine, || drop(store.save_during(&snapshot(&[1.0], 3), || ()).1.unwrap()));
    let beside = previous(&store).unwrap();
    assert!((beside.step, beside.stall < LONG) == (2, true), "{beside:?}");
    store.save(&snapshot(&[1.0], 4)).unwrap();
    let waited = previous(&store).unwrap();
    assert!((waited.step, waited.stall >= LONG / 2) == (3, true), "{waited:?}");
}

#[test]
fn waiting_for_an_earlier_save_is_part_of_a_saves_cost() {
    let (engine, store) = gated(StoreOptions::new().in_flight(1, WhenFull::Wait));
    let after_a_staged_one = |step: u64, save: &dyn Fn(&Snapshot<'_>)| {
        while_closed(&engine, || {
            store.stage(&snapshot(&[1.0], step)).unwrap();
            save(&snapshot(&[1.0], step + 1));
        });
        store.save(&snapshot(&[1.0], step + 2)).unwrap();
        let cost = previous(&store).unwrap();
        assert!(
            (cost.step, cost.stall >= LONG / 2, cost.took < LONG / 2) == (step + 1, true, true),
            "{cost:?}"
        );
    };
    after_a_staged_one(1, &|snapshot| drop(store.save(snapshot).unwrap()));
    after_a_staged_one(11, &|snapshot| drop(store.save_during(snapshot, || ()).1.unwrap()));
    after_a_staged_one(21, &|snapshot| drop(store.stage(snapshot).unwrap()));
}

#[test]
fn rotation_counts_as_stall_and_not_as_save_time() {
    let (engine, store) = gated(StoreOptions::new().keep(Keep::last(1)));
    store.save(&snapshot(&[1.0], 1)).unwrap();
    engine.set(|gate| gate.deleting = LONG);
    store.save(&snapshot(&[1.0], 2)).unwrap();
    engine.set(|gate| gate.deleting = Duration::ZERO);
    store.save(&snapshot(&[1.0], 3)).unwrap();
    let cost = previous(&store).unwrap();
    assert!((cost.step, cost.took < LONG / 2, cost.stall >= LONG) == (2, true, true), "{cost:?}");
}

#[test]
fn a_failed_save_has_no_recorded_cost() {
    let (engine, store) = gated(StoreOptions::new());
    store.save(&snapshot(&[1.0], 1)).unwrap();
    engine.set(|gate| gate.fails = true);
    store.save(&snapshot(&[1.0], 2)).unwrap_err();
    engine.set(|gate| gate.fails = false);
    store.save(&snapshot(&[1.0], 3)).unwrap();
    assert_eq!(previous(&store).unwrap().step, 1, "the last one that became durable");
}
