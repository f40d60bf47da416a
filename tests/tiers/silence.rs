//! A remote tier that accepts every call and answers none: a run that can continue without it does
//! not wait for it.

use crate::wire::Wire;
use crate::{open, run, save};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Memory};
use tensorkeep::{ErrorKind, Progress, Snapshot, Store, StoreOptions, Tier};
use test_support::steps_in;

const LIMIT: Duration = Duration::from_millis(300);
/// Time for everything else on this machine.
const SLACK: Duration = Duration::from_secs(3);

fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = act();
    assert!(began.elapsed() < LIMIT + SLACK, "{what} took {:?}", began.elapsed());
    result
}

fn settings() -> StoreOptions {
    StoreOptions::new().remote_timeout(LIMIT)
}

/// A run of one step that is in both tiers.
fn promoted() -> (Memory, Wire, Store) {
    let (local, remote, store) = run(settings());
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    (local, remote, store)
}

/// The same, closed.
fn closed() -> (Memory, Wire) {
    let (local, remote, store) = promoted();
    store.close().unwrap();
    (local, remote)
}

/// Answers again when the test ends; otherwise the store would wait for ever.
struct Silence<'w>(&'w Wire);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.set_silent(false);
    }
}

#[test]
fn a_run_is_opened_resumed_and_saved_beside_it() {
    let (local, remote) = closed();
    // Dropped last: it would wait.
    let store;
    remote.set_silent(true);
    let silence = Silence(&remote);
    store = in_time("opening", || open(&local, &remote, settings()));
    let resumed = in_time("resuming", || store.resume().unwrap());
    assert_eq!(resumed.next_step(), 1);
    assert!(resumed.remote_error.unwrap().to_string().contains("cannot be reached"));
    in_time("saving", || save(&store, 2).unwrap());
    in_time("listing", || assert_eq!(store.unpromoted().unwrap().len(), 2));
    drop(silence);
    // It answers again: the saves made meanwhile arrive.
    save(&store, 3).unwrap();
    while store.wait_for(Tier::Remote).is_err() {}
    assert_eq!(steps_in(&remote.memory), [1, 2, 3]);
    store.close().unwrap();
}

#[test]
fn a_tier_that_falls_silent_behind_opening_is_not_waited_for() {
    let (local, remote) = closed();
    let store = open(&local, &remote, settings());
    remote.set_silent(true);
    let silence = Silence(&remote);
    let resumed = in_time("resuming", || store.resume().unwrap());
    assert_eq!((resumed.next_step(), resumed.remote_error.is_some()), (1, true));
    in_time("saving", || save(&store, 2).unwrap());
    drop(silence);
    store.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2], "taken up again with the attempt that was taken");
}

#[test]
fn a_tier_that_answers_again_is_asked_by_the_next_resume() {
    let (local, remote, store) = run(settings());
    save(&store, 1).unwrap();
    save(&store, 2).unwrap();
    store.close().unwrap();
    local.delete("0001-0000000002.tkeep").unwrap();
    remote.set_silent(true);
    let silence = Silence(&remote);
    let store = open(&local, &remote, settings());
    let resumed = in_time("resuming", || store.resume().unwrap());
    assert_eq!((resumed.next_step(), resumed.remote_error.is_some()), (1, true));
    let again = in_time("resuming again", || store.resume().unwrap());
    assert_eq!((again.next_step(), again.remote_error.is_some()), (1, true));
    drop(silence);
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (2, Some(Tier::Remote)));
    assert!(resumed.remote_error.is_none());
    save(&store, 3).unwrap();
    store.close().unwrap();
}

#[test]
fn closing_waits_for_its_limit() {
    let (local, remote, store) = promoted();
    remote.set_silent(true);
    let silence = Silence(&remote);
    save(&store, 2).unwrap();
    let error = in_time("closing", || store.close_within(LIMIT).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::NotPromoted, "{error:?}");
    drop(silence);
    assert_eq!(steps_in(&local), [1, 2]);
}

#[test]
fn closing_in_time_is_closing() {
    let (_, remote, store) = run(settings());
    save(&store, 1).unwrap();
    store.close_within(Duration::from_secs(60)).unwrap();
    assert_eq!(steps_in(&remote.memory), [1]);
}

#[test]
fn closing_retries_an_earlier_failure() {
    let (_, remote, store) = promoted();
    remote.set_down(true);
    save(&store, 2).unwrap();
    remote.wait_for_failure();
    std::thread::sleep(Duration::from_millis(50));
    remote.set_down(false);
    store.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2]);
}

#[test]
fn closing_in_time_ends_after_any_error() {
    let (local, remote, store) = promoted();
    remote.set_silent(true);
    let silence = Silence(&remote);
    save(&store, 2).unwrap();
    // An existing step fails in the background, and the error is not read.
    let snapshot = Snapshot::new().progress(Progress::new(2));
    drop(store.save_async(snapshot).unwrap());
    in_time("closing", || store.close_within(LIMIT).unwrap_err());
    drop(silence);
    assert_eq!(steps_in(&local), [1, 2]);
}

#[test]
fn for_ever_is_a_time() {
    let settings = || StoreOptions::new().remote_timeout(Duration::MAX);
    let (local, remote, store) = run(settings());
    save(&store, 1).unwrap();
    store.close_within(Duration::MAX).unwrap();
    let store = open(&local, &remote, settings());
    assert_eq!(store.resume().unwrap().next_step(), 1);
    store.close().unwrap();
}

#[test]
fn a_skipped_remote_tier_is_reported_if_nothing_verifies() {
    let (local, remote) = closed();
    let store;
    remote.set_silent(true);
    let silence = Silence(&remote);
    store = open(&local, &remote, settings());
    let error = store.resume_at(7).unwrap_err().to_string();
    assert!(error.contains("remote tier was not asked"), "{error}");
    drop(silence);
    drop(store);
}
