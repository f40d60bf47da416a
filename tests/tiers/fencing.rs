//! Only one writer at a time is the newest in both tiers.

use crate::{open, run, save};
use tensorkeep::engine::Memory;
use tensorkeep::{ErrorKind, StoreOptions, Tier};
use test_support::steps_in;

#[test]
fn opening_the_run_elsewhere_fences_the_earlier_writer() {
    let (first_disk, remote, first) = run(StoreOptions::new());
    save(&first, 1).unwrap();
    first.wait_for(Tier::Remote).unwrap();
    let second = open(&Memory::new(), &remote, StoreOptions::new());
    assert_eq!((second.attempt(), second.resume().unwrap().next_step()), (2, 1));
    // The first one still has its own disk and lock; only the remote tier can fence it.
    save(&first, 2).unwrap();
    let error = first.wait_for(Tier::Remote).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(save(&first, 3).unwrap_err().kind(), ErrorKind::Fenced, "for ever, and not once");
    assert_eq!(first.close().unwrap_err().kind(), ErrorKind::Fenced);
    save(&second, 2).unwrap();
    second.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2], "the zombie's step 2 is not there");
    // The zombie's disk does no harm: its newest is an older attempt than the remote tier's.
    let again = open(&first_disk, &remote, StoreOptions::new());
    assert_eq!(again.attempt(), 3);
    let resumed = again.resume().unwrap();
    assert_eq!((resumed.id.unwrap().attempt, resumed.tier), (2, Some(Tier::Remote)));
}

#[test]
fn a_takeover_during_a_promotion_fences_the_promoter() {
    let (_, remote, first) = run(StoreOptions::new());
    remote.set_slow(true);
    save(&first, 1).unwrap();
    remote.wait_for_upload();
    // A writer that takes over now looks for checkpoints before this one is there.
    let second = open(&Memory::new(), &remote, StoreOptions::new());
    assert_eq!(second.resume().unwrap().next_step(), 0);
    remote.set_slow(false);
    assert_eq!(first.wait_for(Tier::Remote).unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn a_takeover_while_the_remote_tier_was_away_fences() {
    let (first_disk, remote, first) = run(StoreOptions::new());
    save(&first, 1).unwrap();
    first.close().unwrap();
    remote.set_down(true);
    let first = open(&first_disk, &remote, StoreOptions::new());
    assert_eq!((first.attempt(), first.resume().unwrap().next_step()), (2, 1));
    remote.set_down(false);
    // The same number, taken by another writer.
    let second = open(&Memory::new(), &remote, StoreOptions::new());
    assert_eq!(second.attempt(), 2);
    second.resume().unwrap();
    save(&second, 5).unwrap();
    save(&first, 9).unwrap();
    assert_eq!(first.wait_for(Tier::Remote).unwrap_err().kind(), ErrorKind::Fenced);
    second.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 5]);
}

// After a lost disk the tiers have different attempts of one number; the listing shows that one.
#[test]
fn a_stale_listing_after_a_lost_disk_fences_no_writer() {
    let (_, remote, first) = run(StoreOptions::new());
    save(&first, 1).unwrap();
    first.close().unwrap();
    let disk = Memory::new();
    let second = open(&disk, &remote, StoreOptions::new());
    assert_eq!((second.attempt(), second.resume().unwrap().next_step()), (2, 1));
    second.close().unwrap();
    remote.set_down(true);
    let third = open(&disk, &remote, StoreOptions::new());
    assert_eq!((third.attempt(), third.resume().unwrap().next_step()), (3, 1));
    remote.set_down(false);
    remote.unlist("attempts/0002");
    save(&third, 2).unwrap();
    third.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2]);
}

// The tier has been reached before: checkpoints of this attempt are there, which a listing without
// the attempt does not make another writer's.
#[test]
fn a_stale_listing_beside_own_checkpoints_fences_no_writer() {
    let (local, remote, first) = run(StoreOptions::new());
    save(&first, 1).unwrap();
    first.close().unwrap();
    let store = open(&local, &remote, StoreOptions::new());
    store.resume().unwrap();
    save(&store, 2).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    remote.set_down(true);
    assert!(store.resume().unwrap().remote_error.is_some());
    remote.set_down(false);
    remote.unlist("attempts/0002");
    save(&store, 3).unwrap();
    let behind = store.wait_for(Tier::Remote).unwrap_err();
    assert_eq!(behind.kind(), ErrorKind::NotPromoted, "{behind}");
    remote.unlist("");
    store.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 2, 3]);
}
