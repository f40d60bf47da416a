//! The checkpoints that each tier keeps, and those that are promoted for it.

use crate::{run, save};
use tensorkeep::{ErrorKind, Keep, Mode, StoreOptions, Tier};
use test_support::steps_in;

#[test]
fn unpromoted_checkpoints_are_not_deleted_locally() {
    let settings =
        StoreOptions::new().keep(Keep::last(1)).keep_remote(Keep::last(2).or(Keep::every_steps(10)));
    let (local, remote, store) = run(settings);
    remote.set_down(true);
    for step in 9..=13 {
        while save(&store, step).is_err() {}
    }
    // 10 is on the grid, 12 and 13 are the last two: none of them is anywhere else.
    assert_eq!(steps_in(&local), [10, 12, 13], "in neither tier would be lost");
    let kept = store.kept().unwrap();
    assert!(kept.iter().any(|(id, why)| id.step == 10 && why.contains("not promoted yet")), "{kept:?}");
    remote.set_down(false);
    while store.wait_for(Tier::Remote).is_err() {}
    assert_eq!(steps_in(&remote.memory), [10, 12, 13]);
    save(&store, 14).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    save(&store, 15).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.memory), [10, 14, 15]);
    save(&store, 16).unwrap();
    assert_eq!(steps_in(&local), [16], "all the others are there");
}

#[test]
fn a_slow_line_skips_outdated_ones_and_never_the_newest() {
    let settings = StoreOptions::new().keep(Keep::last(1));
    let (_, remote, store) = run(settings);
    remote.set_slow(true);
    for step in 1..=6 {
        save(&store, step).unwrap();
    }
    // Any of them may wait at the gate; the others are overtaken.
    remote.set_slow(false);
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.memory), [6]);
    assert!(remote.uploads() <= 3, "{} were uploaded and only the newest counts", remote.uploads());
    store.close().unwrap();
}

#[test]
fn the_best_of_a_metric_is_promoted_also_when_it_is_old() {
    let keep = Keep::last(1).or(Keep::best("loss", Mode::Max, 1));
    let (_, remote, store) = run(StoreOptions::new().keep(Keep::last(1)).keep_remote(keep));
    for step in 1..=4 {
        save(&store, step).unwrap();
    }
    store.close().unwrap();
    assert_eq!(steps_in(&remote.memory), [1, 4]);
}

#[test]
fn pins_and_deletions_are_in_both_tiers() {
    let (local, remote, store) = run(StoreOptions::new().keep(Keep::last(1)));
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    store.pin(1).unwrap();
    save(&store, 2).unwrap();
    store.pin(2).unwrap(); // perhaps before it is promoted
    save(&store, 3).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!((steps_in(&local), steps_in(&remote.memory)), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(store.delete(2).unwrap_err().kind(), ErrorKind::Invalid);
    store.unpin(2).unwrap();
    store.delete(2).unwrap();
    assert_eq!((steps_in(&local), steps_in(&remote.memory)), (vec![1, 3], vec![1, 3]));
    assert_eq!(store.delete(2).unwrap_err().kind(), ErrorKind::NotFound);
}
