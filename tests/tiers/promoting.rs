//! When a checkpoint is in the remote tier, which calls wait for it, and that no error on the way
//! is lost.

use crate::wire::Wire;
use crate::{damage, open, run, save};
use std::time::Duration;
use tensorkeep::engine::Memory;
use tensorkeep::{ErrorKind, Progress, Snapshot, Store, StoreOptions, Tier};
use test_support::{TempFolder, steps_in};

#[test]
fn a_save_is_durable_near_at_once_and_far_when_waiting_says_so() {
    let (local, remote, store) = run(StoreOptions::new());
    assert!(store.resume().unwrap().checkpoint.is_none());
    remote.set_slow(true);
    save(&store, 1).unwrap();
    save(&store, 2).unwrap();
    assert_eq!(steps_in(&local), [1, 2], "a save does not wait for the remote tier");
    assert!(steps_in(&remote.memory).is_empty());
    assert_eq!(store.unpromoted().unwrap().len(), 2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait_for(Tier::Remote));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "nothing can have arrived");
        remote.set_slow(false);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(steps_in(&remote.memory), [1, 2]);
    assert!(store.unpromoted().unwrap().is_empty());
    let (here, there) =
        (store.latest().unwrap().unwrap(), store.remote_reader().unwrap().latest().unwrap().unwrap());
    assert!(there.inspect().is_copy_of(&here));
    there.verify().unwrap();
}

#[test]
fn closing_and_dropping_wait_for_the_remote_tier() {
    let (_, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    store.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1]);
    let store = open(&Memory::new(), &remote, StoreOptions::new());
    store.resume().unwrap();
    let weights = vec![2.0_f32; 100];
    let snapshot = Snapshot::new().tensor("weights", &weights).unwrap().progress(Progress::new(2));
    store.stage(&snapshot).unwrap();
    drop(store);
    assert_eq!(steps_in(&remote.memory), [1, 2], "a save in the background was dropped on its way");
}

#[test]
fn close_returns_the_error_of_a_promotion_under_way() {
    let (_, remote, store) = run(StoreOptions::new());
    remote.set_slow(true);
    save(&store, 1).unwrap();
    remote.wait_for_upload();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| store.close());
        std::thread::sleep(Duration::from_millis(50));
        remote.set_down(true);
        remote.set_slow(false);
        assert_eq!(closing.join().unwrap().unwrap_err().kind(), ErrorKind::NotPromoted);
    });
}

#[test]
fn waiting_for_a_remote_tier_that_is_none_is_refused() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    store.wait_for(Tier::Local).unwrap();
    assert_eq!(store.wait_for(Tier::Remote).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(store.remote_reader().is_none() && store.unpromoted().unwrap().is_empty());
}

#[test]
fn a_failed_promotion_is_reported_once_and_retried() {
    let (_, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    remote.set_down(true);
    save(&store, 2).unwrap();
    remote.wait_for_failure();
    let error = loop {
        // The failed pass may end a moment after the failed call.
        match store.wait() {
            Ok(()) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotPromoted);
    assert!(format!("{error:?}").contains("the network is down"), "{error:?}");
    store.wait().unwrap();
    remote.set_down(false);
    save(&store, 3).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2, 3]);
    store.close().unwrap();
}

#[test]
fn the_last_save_is_made_though_a_promotion_failed() {
    let (local, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    remote.set_down(true);
    save(&store, 2).unwrap();
    remote.wait_for_failure();
    // The failed pass may end a moment after the failed call.
    let told = (3..).find_map(|step| {
        std::thread::sleep(Duration::from_millis(5));
        save(&store, step).unwrap().earlier_error.map(|error| (step, error.kind()))
    });
    let (step, kind) = told.unwrap();
    assert_eq!((kind, steps_in(&local).last()), (ErrorKind::NotPromoted, Some(&step)));
}

#[test]
fn rot_before_promotion_is_reported_once_and_stops_no_others() {
    let (folder, remote) = (TempFolder::new("tiers-rot"), Wire::default());
    let store = open(folder.path(), &remote, StoreOptions::new());
    remote.set_slow(true);
    save(&store, 1).unwrap();
    // At the gate with the first one: the second is not open yet.
    remote.wait_for_upload();
    for step in 2..=3 {
        save(&store, step).unwrap();
    }
    damage(folder.path(), 2);
    remote.set_slow(false);
    let error = store.wait_for(Tier::Remote).unwrap_err();
    assert!(format!("{error:?}").contains("0001-0000000002.tkeep"), "{error:?}");
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 3], "nothing that does not verify is published");
    store.close().unwrap();
}
