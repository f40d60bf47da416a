//! Resuming from either tier, and from the remainder of a damaged one.

use crate::wire::Wire;
use crate::{Shared, damage, open, run, save, weight};
use tensorkeep::engine::{Decorator, Engine, Memory, Upload};
use tensorkeep::{Error, ErrorKind, Keep, Result, Resumed, Store, StoreOptions, Tier};
use test_support::{TempFolder, steps, steps_in};

fn skipped(resumed: &Resumed) -> Vec<(u64, Tier)> {
    resumed.skipped.iter().map(|skipped| (skipped.id.step, skipped.tier)).collect()
}

#[test]
fn a_new_machine_resumes_from_the_remote_tier() {
    let (_lost, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    save(&store, 2).unwrap();
    store.close().unwrap();
    let new = Memory::new();
    let store = open(&new, &remote, StoreOptions::new().keep(Keep::last(1)));
    assert_eq!(store.attempt(), 2, "newer than all in the remote tier");
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (2, Some(Tier::Remote)));
    assert_eq!(weight(&resumed.checkpoint.unwrap()), 2.0);
    assert_eq!(steps_in(&new), [2]);
    save(&store, 3).unwrap();
    store.close().unwrap();
    assert_eq!(
        steps_in(&remote.memory),
        [2, 3],
        "resumed from, and the newest: the retention of one is that of both"
    );
}

/// Memory without room for a checkpoint.
#[derive(Debug)]
struct Full(Memory);

impl Decorator for Full {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.0
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        if key.ends_with(".tkeep") {
            return Err(Error::new(ErrorKind::NoSpace, "the disk is full"));
        }
        Engine::create(&self.0, key, size_hint)
    }
}

#[test]
fn a_new_machine_without_room_resumes_from_the_remote_tier() {
    let (_lost, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    store.close().unwrap();
    let here = Memory::new();
    let store = Store::open_tiered(Full(here.clone()), remote.clone(), StoreOptions::new()).unwrap();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (1, Some(Tier::Remote)));
    assert_eq!((skipped(&resumed), steps_in(&here)), (vec![], vec![]));
    assert_eq!(weight(&resumed.checkpoint.unwrap()), 1.0);
}

#[test]
fn a_damaged_local_checkpoint_is_taken_from_the_remote_tier() {
    let (folder, there) = (TempFolder::new("tiers"), TempFolder::new("tiers-remote"));
    let open =
        || Store::open_tiered(folder.path().shared(), there.path().shared(), StoreOptions::new()).unwrap();
    let store = open();
    for step in 1..=3 {
        save(&store, step).unwrap();
    }
    store.close().unwrap();
    damage(folder.path(), 3);
    let store = open();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (3, Some(Tier::Remote)));
    assert_eq!(skipped(&resumed), [(3, Tier::Local)]);
    assert_eq!(steps(&store), [1, 2, 3], "the good copy is in the place of the damaged one");
    store.close().unwrap();
    damage(folder.path(), 3);
    damage(there.path(), 3);
    let store = open();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (2, Some(Tier::Local)));
    assert_eq!(skipped(&resumed), [(3, Tier::Local), (3, Tier::Remote)]);
    store.close().unwrap();
}

#[test]
fn a_run_continues_without_the_remote_tier_and_promotes_later() {
    let (local, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    store.close().unwrap();
    remote.set_down(true);
    let store = open(&local, &remote, StoreOptions::new());
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (1, Some(Tier::Local)));
    let told = resumed.remote_error.expect("the trainer must hear of it");
    assert!(told.to_string().starts_with("wire:"), "{told}");
    save(&store, 2).unwrap();
    // Once: the trainer, which has the error, continues to save.
    let error = store.wait_for(Tier::Remote).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPromoted);
    remote.set_down(false);
    save(&store, 3).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2, 3]);
    let attempts = store.remote_reader().unwrap().attempts().unwrap();
    assert_eq!(attempts.last().unwrap().number, store.attempt(), "the attempt is taken there, too");
    store.close().unwrap();
}

#[test]
fn a_remote_tier_that_is_down_is_no_fresh_start() {
    let remote = Wire::default();
    remote.set_down(true);
    let opened = Store::open_tiered(Memory::new(), remote.clone(), StoreOptions::new());
    let error = opened.unwrap_err().to_string();
    assert!(error.starts_with("wire:") && error.contains("not known"), "{error}");
}

#[test]
fn the_next_process_promotes_the_rest_of_an_earlier_one() {
    let (local, remote, store) = run(StoreOptions::new());
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    remote.set_down(true);
    save(&store, 2).unwrap();
    drop(store);
    remote.set_down(false);
    let store = open(&local, &remote, StoreOptions::new());
    assert_eq!(store.resume().unwrap().next_step(), 2);
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2]);
}

#[test]
fn a_thousand_seeded_outages_lose_nothing_that_was_promised() {
    let (local, remote) = (Memory::new(), Wire::default());
    let (mut disk, mut seed, mut promised, mut promises, mut step) = (local, 7_u64, 0, 0, 0);
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let settings = || StoreOptions::new().keep(Keep::last(2)).keep_remote(Keep::last(3));
    for life in 0..200 {
        remote.set_down(false);
        let store = open(&disk, &remote, settings());
        let resumed = store.resume().unwrap();
        assert!(resumed.next_step() >= promised, "life {life}: {} is lost", promised);
        step = resumed.next_step();
        for _ in 0..1 + draw(5) {
            // A promotion is more than twelve calls: if all were cut within them, hardly any
            // checkpoint would be promoted.
            remote.fail_after(draw(24), 1 + draw(4));
            step += 1;
            // The first answer is mostly that of the outage.
            let arrives = || (0..3).any(|_| store.wait_for(Tier::Remote).is_ok());
            if save(&store, step).is_ok() && draw(2) == 0 && arrives() {
                (promised, promises) = (step, promises + 1);
            }
        }
        drop(store);
        remote.fail_after(u64::MAX, 0);
        // The machine is lost with its disk: checkpoints promised in the remote tier must be there.
        if draw(3) == 0 {
            disk = Memory::new();
        }
    }
    assert!(promises > 50, "only {promises} promises were made");
    assert!(step >= promised);
}
