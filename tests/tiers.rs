//! Two tiers: what is promoted and when, that neither tier ever loses its newest, that no error is lost, that a new
//! machine and a dead network are survived, and that one writer at a time is the newest in both.

mod common;
#[path = "tiers/wire.rs"]
mod wire;

use common::TempFolder;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::{
    Checkpoint, ErrorKind, Keep, Mode, Progress, Reader, Result, Saved, Settings, Snapshot, Store, Tier,
};
use wire::Wire;

fn open(local: &(impl Shared + ?Sized), remote: &Wire, settings: Settings) -> Store {
    Store::open_tiered(local.shared(), remote.clone(), settings).unwrap()
}

/// An engine that another store may open again.
trait Shared {
    fn shared(&self) -> Arc<dyn Engine>;
}

impl Shared for Memory {
    fn shared(&self) -> Arc<dyn Engine> {
        Arc::new(self.clone())
    }
}

impl Shared for Path {
    fn shared(&self) -> Arc<dyn Engine> {
        Arc::new(Local::create(self).unwrap())
    }
}

fn save(store: &Store, step: u64) -> Result<Saved> {
    let weights = vec![step as f32; 5000];
    let mut snapshot = Snapshot::new();
    snapshot.tensor("weights", &weights)?.metric("loss", 1.0 / step as f64)?;
    snapshot.progress(Progress::new(step));
    store.save(&snapshot)
}

fn weight(checkpoint: &Checkpoint) -> f32 {
    checkpoint.tensor("weights").unwrap().elements::<f32>().unwrap()[4999]
}

fn steps(engine: &(impl Engine + Clone + 'static)) -> Vec<u64> {
    Reader::new(engine.clone()).names().unwrap().iter().map(|name| name.step).collect()
}

fn steps_of(store: &Store) -> Vec<u64> {
    store.list().unwrap().iter().map(|info| info.name.step).collect()
}

#[test]
fn a_save_is_durable_near_at_once_and_far_when_waiting_says_so() {
    let (local, remote) = (Memory::new(), Wire::default());
    let store = open(&local, &remote, Settings::new());
    assert!(store.resume().unwrap().checkpoint.is_none());
    remote.set_slow(true);
    save(&store, 1).unwrap();
    save(&store, 2).unwrap();
    assert_eq!(steps(&local), [1, 2], "a save does not wait for the remote tier");
    assert!(steps(&remote.memory).is_empty());
    assert_eq!(store.unpromoted().unwrap().len(), 2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait_for(Tier::Remote));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "nothing can have arrived");
        remote.set_slow(false);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(steps(&remote.memory), [1, 2]);
    assert!(store.unpromoted().unwrap().is_empty());
    let (here, there) =
        (store.latest().unwrap().unwrap(), store.remote_reader().unwrap().latest().unwrap().unwrap());
    assert!(there.is_copy_of(&here));
    there.verify().unwrap();
}

#[test]
fn closing_and_dropping_wait_for_the_remote_tier() {
    let remote = Wire::default();
    let store = open(&Memory::new(), &remote, Settings::new());
    save(&store, 1).unwrap();
    store.close().unwrap();
    assert_eq!(steps(&remote.memory), [1]);
    let store = open(&Memory::new(), &remote, Settings::new());
    let weights = vec![2.0_f32; 100];
    let mut snapshot = Snapshot::new();
    snapshot.tensor("weights", &weights).unwrap().progress(Progress::new(2));
    store.stage(&snapshot).unwrap();
    drop(store);
    assert_eq!(steps(&remote.memory), [1, 2], "a save in the background was dropped on its way");
}

#[test]
fn waiting_for_a_remote_tier_that_is_none_is_refused() {
    let store = Store::open(Memory::new(), Settings::new()).unwrap();
    store.wait_for(Tier::Local).unwrap();
    assert_eq!(store.wait_for(Tier::Remote).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(store.remote_reader().is_none() && store.unpromoted().unwrap().is_empty());
}

#[test]
fn a_new_machine_goes_on_from_the_remote_tier_and_has_it_locally_from_then_on() {
    let (lost, remote) = (Memory::new(), Wire::default());
    let store = open(&lost, &remote, Settings::new());
    save(&store, 1).unwrap();
    save(&store, 2).unwrap();
    store.close().unwrap();
    let new = Memory::new();
    let store = open(&new, &remote, Settings::new().keep(Keep::last(1)));
    assert_eq!(store.attempt(), 2, "newer than all in the remote tier");
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (2, Some(Tier::Remote)));
    assert_eq!(weight(&resumed.checkpoint.unwrap()), 2.0);
    assert_eq!(steps(&new), [2]);
    save(&store, 3).unwrap();
    store.close().unwrap();
    assert_eq!(
        steps(&remote.memory),
        [2, 3],
        "resumed from, and the newest: the retention of one is that of both"
    );
}

#[test]
fn a_checkpoint_damaged_here_is_taken_from_there_and_one_damaged_in_both_is_passed_over() {
    let (folder, there) = (TempFolder::new("tiers"), TempFolder::new("tiers-remote"));
    let open = || Store::open_tiered(folder.path().shared(), there.path().shared(), Settings::new()).unwrap();
    let store = open();
    (1..=3).for_each(|step| drop(save(&store, step).unwrap()));
    store.close().unwrap();
    let damage = |folder: &Path, step: u64| {
        let path = folder.join(format!("0001-{step:010}.tkeep"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5000] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    };
    damage(folder.path(), 3);
    let store = open();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (3, Some(Tier::Remote)));
    let skipped: Vec<_> = resumed.skipped.iter().map(|skipped| (skipped.name.step, skipped.tier)).collect();
    assert_eq!(skipped, [(3, Tier::Local)]);
    assert_eq!(steps_of(&store), [1, 2, 3], "the good copy is in the place of the damaged one");
    store.close().unwrap();
    damage(folder.path(), 3);
    damage(there.path(), 3);
    let store = open();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (2, Some(Tier::Local)));
    let skipped: Vec<_> = resumed.skipped.iter().map(|skipped| (skipped.name.step, skipped.tier)).collect();
    assert_eq!(skipped, [(3, Tier::Local), (3, Tier::Remote)]);
    store.close().unwrap();
}

#[test]
fn a_run_goes_on_without_the_remote_tier_says_so_and_promotes_when_it_answers() {
    let (local, remote) = (Memory::new(), Wire::default());
    let store = open(&local, &remote, Settings::new());
    save(&store, 1).unwrap();
    store.close().unwrap();
    remote.set_down(true);
    let store = open(&local, &remote, Settings::new());
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier), (1, Some(Tier::Local)));
    let told = resumed.remote_error.expect("the trainer must hear of it");
    assert!(told.to_string().starts_with("wire:"), "{told}");
    save(&store, 2).unwrap();
    // Once: then the trainer, which was told, goes on saving.
    let error = store.wait_for(Tier::Remote).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPromoted);
    remote.set_down(false);
    save(&store, 3).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps(&remote.memory), [1, 2, 3]);
    let attempts = store.remote_reader().unwrap().attempts().unwrap();
    assert_eq!(attempts.last().unwrap().number, store.attempt(), "the attempt is taken there, too");
    store.close().unwrap();
}

#[test]
fn without_a_local_checkpoint_a_remote_tier_that_is_down_is_an_error_and_no_fresh_start() {
    let remote = Wire::default();
    remote.set_down(true);
    let opened = Store::open_tiered(Memory::new(), remote.clone(), Settings::new());
    let error = opened.unwrap_err().to_string();
    assert!(error.starts_with("wire:") && error.contains("not known"), "{error}");
}

#[test]
fn a_failed_promotion_is_returned_by_the_next_call_exactly_once_and_made_good_by_the_next_save() {
    let (local, remote) = (Memory::new(), Wire::default());
    let store = open(&local, &remote, Settings::new());
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
    assert_eq!(steps(&remote.memory), [1, 2, 3]);
    store.close().unwrap();
}

#[test]
fn what_was_not_promoted_by_one_process_is_promoted_by_the_next() {
    let (local, remote) = (Memory::new(), Wire::default());
    let store = open(&local, &remote, Settings::new());
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    remote.set_down(true);
    save(&store, 2).unwrap();
    drop(store);
    remote.set_down(false);
    let store = open(&local, &remote, Settings::new());
    assert_eq!(store.resume().unwrap().next_step(), 2);
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps(&remote.memory), [1, 2]);
}

#[test]
fn each_tier_has_its_own_retention_and_what_is_not_there_yet_is_not_deleted_here() {
    let (local, remote) = (Memory::new(), Wire::default());
    let settings = Settings::new().keep(Keep::last(1)).keep_remote(Keep::last(2).and_every_steps(10));
    let store = open(&local, &remote, settings);
    remote.set_down(true);
    for step in 9..=13 {
        while save(&store, step).is_err() {}
    }
    // 10 is on the grid, 12 and 13 are the last two: none of them is anywhere else.
    assert_eq!(steps(&local), [10, 12, 13], "in neither tier would be lost");
    let kept = store.kept().unwrap();
    assert!(kept.iter().any(|(name, why)| name.step == 10 && why.contains("not promoted yet")), "{kept:?}");
    remote.set_down(false);
    while store.wait_for(Tier::Remote).is_err() {}
    assert_eq!(steps(&remote.memory), [10, 12, 13]);
    save(&store, 14).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    save(&store, 15).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps(&remote.memory), [10, 14, 15]);
    save(&store, 16).unwrap();
    assert_eq!(steps(&local), [16], "all the others are there");
}

#[test]
fn a_slow_line_skips_what_is_overtaken_and_never_the_newest() {
    let (local, remote) = (Memory::new(), Wire::default());
    let settings = Settings::new().keep(Keep::last(1));
    let store = open(&local, &remote, settings);
    remote.set_slow(true);
    (1..=6).for_each(|step| drop(save(&store, step).unwrap()));
    // The one that waits at the gate may be any; the others are overtaken.
    remote.set_slow(false);
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps(&remote.memory), [6]);
    assert!(remote.uploads() <= 3, "{} were uploaded and only the newest counts", remote.uploads());
    store.close().unwrap();
}

#[test]
fn the_best_of_a_metric_is_promoted_also_when_it_is_old() {
    let (local, remote) = (Memory::new(), Wire::default());
    let keep = Keep::last(1).and_best("loss", Mode::Max, 1);
    let store = open(&local, &remote, Settings::new().keep(Keep::last(1)).keep_remote(keep));
    (1..=4).for_each(|step| drop(save(&store, step).unwrap()));
    store.close().unwrap();
    assert_eq!(steps(&remote.memory), [1, 4]);
}

#[test]
fn pins_and_deletions_are_in_both_tiers() {
    let (local, remote) = (Memory::new(), Wire::default());
    let store = open(&local, &remote, Settings::new().keep(Keep::last(1)));
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    store.pin(1).unwrap();
    save(&store, 2).unwrap();
    store.pin(2).unwrap(); // perhaps before it is promoted
    save(&store, 3).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!((steps(&local), steps(&remote.memory)), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(store.delete(2).unwrap_err().kind(), ErrorKind::Invalid);
    store.unpin(2).unwrap();
    store.delete(2).unwrap();
    assert_eq!((steps(&local), steps(&remote.memory)), (vec![1, 3], vec![1, 3]));
    assert_eq!(store.delete(2).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn whoever_opens_the_run_elsewhere_fences_the_one_before() {
    let (first_disk, second_disk, remote) = (Memory::new(), Memory::new(), Wire::default());
    let first = open(&first_disk, &remote, Settings::new());
    save(&first, 1).unwrap();
    first.wait_for(Tier::Remote).unwrap();
    let second = open(&second_disk, &remote, Settings::new());
    assert_eq!((second.attempt(), second.resume().unwrap().next_step()), (2, 1));
    // The first one still has its own disk and its own lock; only the remote tier can tell it.
    save(&first, 2).unwrap();
    let error = first.wait_for(Tier::Remote).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(save(&first, 3).unwrap_err().kind(), ErrorKind::Fenced, "for ever, and not once");
    assert_eq!(first.close().unwrap_err().kind(), ErrorKind::Fenced);
    save(&second, 2).unwrap();
    second.close().unwrap();
    assert_eq!(steps(&remote.memory), [1, 2], "the zombie's step 2 is not there");
    // The zombie's disk is no trap: its newest is an older attempt than the remote tier's.
    let again = open(&first_disk, &remote, Settings::new());
    assert_eq!(again.attempt(), 3);
    let resumed = again.resume().unwrap();
    assert_eq!((resumed.name.unwrap().attempt, resumed.tier), (2, Some(Tier::Remote)));
}

#[test]
fn a_run_taken_over_while_the_remote_tier_was_away_is_fenced_when_it_is_back() {
    let (first_disk, remote) = (Memory::new(), Wire::default());
    let first = open(&first_disk, &remote, Settings::new());
    save(&first, 1).unwrap();
    first.close().unwrap();
    remote.set_down(true);
    let first = open(&first_disk, &remote, Settings::new());
    assert_eq!(first.attempt(), 2);
    remote.set_down(false);
    // The same number, taken by somebody else.
    let second = open(&Memory::new(), &remote, Settings::new());
    assert_eq!(second.attempt(), 2);
    save(&second, 5).unwrap();
    save(&first, 9).unwrap();
    assert_eq!(first.wait_for(Tier::Remote).unwrap_err().kind(), ErrorKind::Fenced);
    second.close().unwrap();
    assert_eq!(steps(&remote.memory), [1, 5]);
}

#[test]
fn a_checkpoint_that_rots_here_before_it_is_promoted_is_told_once_and_does_not_stop_the_others() {
    let (folder, remote) = (TempFolder::new("tiers-rot"), Wire::default());
    let store = open(folder.path(), &remote, Settings::new());
    remote.set_slow(true);
    (1..=3).for_each(|step| drop(save(&store, step).unwrap()));
    let path = folder.path().join("0001-0000000002.tkeep");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[6000] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    remote.set_slow(false);
    let error = store.wait_for(Tier::Remote).unwrap_err();
    assert!(format!("{error:?}").contains("0001-0000000002.tkeep"), "{error:?}");
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps(&remote.memory), [1, 3], "nothing that does not verify is published");
    store.close().unwrap();
}

#[test]
fn a_thousand_seeded_outages_lose_nothing_that_was_promised() {
    let (local, remote) = (Memory::new(), Wire::default());
    let (mut disk, mut seed, mut promised, mut step) = (local, 7_u64, 0, 0);
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let settings = || Settings::new().keep(Keep::last(2)).keep_remote(Keep::last(3));
    for life in 0..200 {
        remote.set_down(false);
        let store = open(&disk, &remote, settings());
        let resumed = store.resume().unwrap();
        assert!(resumed.next_step() >= promised, "life {life}: {} is lost", promised);
        step = resumed.next_step();
        for _ in 0..1 + draw(5) {
            remote.fail_after(draw(12), 1 + draw(4));
            step += 1;
            if save(&store, step).is_ok() && draw(2) == 0 && store.wait_for(Tier::Remote).is_ok() {
                promised = step;
            }
        }
        drop(store);
        remote.fail_after(u64::MAX, 0);
        // The machine is lost with its disk: what was promised in the remote tier must be there.
        if draw(3) == 0 {
            disk = Memory::new();
        }
    }
    assert!(promised > 50, "only {promised} steps were promised");
    assert!(step >= promised);
}
