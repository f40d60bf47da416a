//! A store in a forked child: an error, never a hang, and no change to the parent's files.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Local, Memory};
use tensorkeep::{Error, ErrorKind, Every, Progress, Snapshot, Store, StoreOptions, Tier};
use test_support::Gated;
use test_support::TempFolder;

/// One test at a time: a child forked by another one has a copy of this one's lock until it ends.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `act` in a forked child. None if it hangs; else whether it succeeded.
#[expect(unsafe_code, reason = "fork has no safe form")]
fn in_a_forked_child(act: impl FnOnce()) -> Option<bool> {
    // SAFETY: the child has this thread only. It runs `act`, which allocates (the C library makes
    // that safe after fork) and calls the store, whose promise not to wait for other threads is
    // under test; then it ends without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let outcome = catch_unwind(AssertUnwindSafe(act));
        // SAFETY: ends the process, and runs nothing of the parent's.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    let child = Pid::from_raw(child).expect("fork failed");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
            return Some(status.exit_status() == Some(0));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(child, Signal::KILL).unwrap();
    waitpid(Some(child), WaitOptions::empty()).unwrap();
    None
}

fn snapshot(step: u64) -> Snapshot<'static> {
    Snapshot::new().record("step", &step).unwrap().progress(Progress::new(step))
}

fn is_refused<T>(outcome: Result<T, Error>) {
    let Err(error) = outcome else { panic!("a forked child used its parent's store") };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("open the run in the child, or fork before"), "{error}");
}

#[test]
fn every_call_in_a_forked_child_is_an_error() {
    let _alone = alone();
    let engine = Gated::default();
    let store = Store::open(engine.clone(), StoreOptions::new().save(Every::steps(1))).unwrap();
    store.save(&snapshot(1)).unwrap();
    engine.set(|gate| gate.closed = true);
    let pending = store.stage(&snapshot(2)).unwrap().unwrap();
    let mut store = Some(store);
    let came_through = in_a_forked_child(|| {
        let store = store.take().unwrap();
        is_refused(store.save(&snapshot(3)));
        is_refused(store.save_during(&snapshot(3), || ()).1);
        is_refused(store.stage(&snapshot(3)));
        is_refused(store.save_async(snapshot(3)));
        is_refused(store.wait());
        is_refused(store.wait_for(Tier::Local));
        is_refused(store.resume());
        is_refused(store.resume_at(1));
        is_refused(store.pin(1));
        is_refused(store.unpin(1));
        is_refused(store.delete(1));
        assert_eq!((store.due(&Progress::new(3)), store.should_stop()), (None, false));
        assert!(!store.has_saved(&Progress::new(2)));
        assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Invalid);
        assert!(pending.outcome().unwrap().is_err());
        is_refused(store.close());
        let own = Store::open(Memory::new(), StoreOptions::new()).unwrap();
        own.stage(&snapshot(1)).unwrap().unwrap().wait().unwrap();
    });
    assert_eq!(came_through, Some(true));
    engine.set(|gate| gate.closed = false);
    assert_eq!(pending.wait().unwrap().id.step, 2);
    store.unwrap().close().unwrap();
}

#[test]
fn a_store_that_a_forked_child_drops_stays_the_parents() {
    let _alone = alone();
    let folder = TempFolder::new("forked");
    let open = || Store::open(Local::create(folder.path()).unwrap(), StoreOptions::new());
    for with_thread in [false, true] {
        let store = open().unwrap();
        let step = 10 * u64::from(store.attempt());
        if !store.list().unwrap().is_empty() {
            store.resume().unwrap();
        }
        if with_thread {
            store.stage(&snapshot(step)).unwrap().unwrap().wait().unwrap();
        }
        let mut store = Some(store);
        assert_eq!(in_a_forked_child(|| drop(store.take())), Some(true));
        assert_eq!(open().unwrap_err().kind(), ErrorKind::Locked, "the child has unlocked it");
        let store = store.unwrap();
        store.save(&snapshot(step + 1)).unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_forked_child_does_not_wait_for_its_parents_promotions() {
    let _alone = alone();
    let store = Store::open_tiered(Memory::new(), Memory::new(), StoreOptions::new()).unwrap();
    store.save(&snapshot(1)).unwrap();
    let mut store = Some(store);
    assert_eq!(in_a_forked_child(|| drop(store.take())), Some(true));
    store.unwrap().close().unwrap();
}

#[test]
fn a_pending_failure_is_reported_in_the_parent_only() {
    let _alone = alone();
    let engine = Gated::default();
    let store = Store::open(engine.clone(), StoreOptions::new()).unwrap();
    engine.set(|gate| gate.fails = true);
    store.stage(&snapshot(1)).unwrap().unwrap().wait().unwrap_err();
    engine.set(|gate| gate.fails = false);
    let pending = store.stage(&snapshot(2)).unwrap().unwrap();
    assert_eq!(in_a_forked_child(|| assert!(pending.earlier_error().is_none())), Some(true));
    assert_eq!(pending.earlier_error().unwrap().kind(), ErrorKind::NoSpace);
    store.close().unwrap();
}
