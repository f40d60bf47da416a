//! Runs of two tiers: promotion concurrent with deletion, damage and newer writers.

use crate::hooked::{At, Hooked};
use crate::{rot, save, save_all};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tensorkeep::engine::{Decorator, Engine, Memory, Upload};
use tensorkeep::{Error, ErrorKind, Keep, Result, Store, StoreOptions, Tier};
use test_support::{ends_in_time, steps_in};

fn open(local: &Memory, remote: &Hooked, keep: Keep) -> Store {
    Store::open_tiered(local.clone(), remote.clone(), StoreOptions::new().keep(keep)).unwrap()
}

// G3: a pass tries no name twice.
#[test]
fn a_promotion_ends_beside_a_copy_that_is_marked_as_damaged() {
    let (disk, remote) = (Memory::new(), Hooked::lockless(Memory::new()));
    let first = open(&disk, &remote, Keep::all());
    save_all(&first, 1..=2);
    first.close().unwrap();
    rot(&remote.inner, 2);
    // Another machine finds it damaged, marks it, and continues from step 1.
    let other = open(&Memory::new(), &remote, Keep::all());
    let resumed = other.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (1, 1));
    other.close().unwrap();
    // The first one has a whole step 2.
    let first = open(&disk, &remote, Keep::all());
    assert_eq!(first.resume().unwrap().next_step(), 2);
    let told_by_waiting: Vec<_> = (0..3).filter_map(|_| first.wait_for(Tier::Remote).err()).collect();
    assert_eq!(told_by_waiting.len(), 3, "the newest is never there");
    let told_by_save = save(&first, 3).unwrap().earlier_error;
    ends_in_time("closing", move || first.close()).unwrap();
    assert!(told_by_save.is_none(), "an older one is told once");
    let error = &told_by_waiting[0];
    let cause = std::error::Error::source(error).unwrap().to_string();
    assert!(error.kind() == ErrorKind::NotPromoted && cause.contains("marked as damaged"), "{error:?}");
    assert_eq!(steps_in(&remote.inner), [1, 3], "what is marked counts for nothing");
}

#[test]
fn a_checkpoint_deleted_during_promotion_stays_deleted() {
    let (disk, remote) = (Memory::new(), Hooked::lockless(Memory::new()));
    let store = Arc::new(open(&disk, &remote, Keep::all()));
    save(&store, 1).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    let deleted: Arc<Mutex<Option<std::thread::JoinHandle<Result<()>>>>> = Arc::default();
    let (told, deleting) = (Arc::clone(&deleted), Arc::clone(&store));
    remote.set(At::BeforeCreate, "0001-0000000002.tkeep", 0, move || {
        *told.lock().unwrap() = Some(std::thread::spawn(move || deleting.delete(2)));
        // Long enough for the deletion to have begun.
        std::thread::sleep(Duration::from_millis(200));
    });
    save(&store, 2).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    deleted.lock().unwrap().take().unwrap().join().unwrap().unwrap();
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!((steps_in(&disk), steps_in(&remote.inner)), (vec![1], vec![1]));
}

// G6: each tier's copy is judged by its own bytes.
#[test]
fn a_damaged_local_copy_condemns_no_whole_remote_one() {
    let (disk, remote) = (Hooked::lockless(Memory::new()), Hooked::lockless(Memory::new()));
    let open =
        || Store::open_tiered(disk.clone(), remote.clone(), StoreOptions::new().keep(Keep::all())).unwrap();
    let store = open();
    save_all(&store, 1..=2);
    store.close().unwrap();
    // Without renames it is marked, and stays under its name.
    rot(&disk.inner, 2);
    let resumed = open().resume().unwrap();
    let skipped: Vec<_> = resumed.skipped.iter().map(|skipped| (skipped.id.step, skipped.tier)).collect();
    assert_eq!((resumed.next_step(), resumed.tier, skipped), (2, Some(Tier::Remote), vec![(2, Tier::Local)]));
    assert_eq!(steps_in(&remote.inner), [1, 2]);
}

// Else the local tier's rotation deletes a checkpoint that the remote one needs now.
#[test]
fn a_deletion_makes_room_in_the_remote_tier() {
    let (disk, remote) = (Memory::new(), Hooked::lockless(Memory::new()));
    let settings = StoreOptions::new().keep(Keep::all()).keep_remote(Keep::last(2));
    let store = Store::open_tiered(disk, remote.clone(), settings).unwrap();
    save_all(&store, 1..=3);
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.inner), [2, 3]);
    store.delete(3).unwrap();
    assert_eq!(store.unpromoted().unwrap().iter().map(|id| id.step).collect::<Vec<_>>(), [1]);
    store.wait_for(Tier::Remote).unwrap();
    assert_eq!(steps_in(&remote.inner), [1, 2]);
}

// G3 G9: the remote tier's rotation of a zombie.
#[test]
fn a_zombies_remote_rotation_spares_a_newer_writers_run() {
    for skip in 0..8 {
        let (disk, other, remote) = (Memory::new(), Memory::new(), Hooked::lockless(Memory::new()));
        let store = open(&disk, &remote, Keep::all());
        save_all(&store, 1..=4);
        store.close().unwrap();
        let zombie = open(&disk, &remote, Keep::last(1));
        zombie.resume().unwrap();
        zombie.wait_for(Tier::Remote).unwrap();
        let newer: Arc<Mutex<Option<Result<Store>>>> = Arc::default();
        let (told, there) = (Arc::clone(&newer), Hooked::lockless(remote.inner.clone()));
        remote.set(At::AfterList, "attempts", skip, move || {
            let store = open(&other, &there, Keep::all());
            let went_back = store.resume_at(2).and_then(|_| {
                save(&store, 3)?;
                store.wait_for(Tier::Remote)
            });
            *told.lock().unwrap() = Some(went_back.map(|()| store));
        });
        let saved = save(&zombie, 5);
        let _ = zombie.wait_for(Tier::Remote);
        let there = steps_in(&remote.inner);
        match newer.lock().unwrap().take() {
            None => continue,
            Some(Ok(_newer)) => {
                assert!(there.contains(&2) && there.contains(&3), "call {skip}: {there:?}, {saved:?}");
            }
            Some(Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound), "{skip}: {error}");
            }
        }
    }
}

/// The remote tier refuses one checkpoint, for a while.
#[derive(Clone, Debug)]
struct Refusing {
    inner: Memory,
    key: &'static str,
    refuses: Arc<AtomicBool>,
}

impl Decorator for Refusing {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        if self.refuses.load(Ordering::SeqCst) && key == self.key {
            return Err(Error::new(ErrorKind::Io, "the network is away"));
        }
        Engine::create(&self.inner, key, size_hint)
    }
}

#[test]
fn each_error_of_a_promotion_is_returned_once() {
    let (disk, refuses) = (Memory::new(), Arc::new(AtomicBool::new(true)));
    let key = "0001-0000000001.tkeep";
    let remote = Refusing { inner: Memory::new(), key, refuses: Arc::clone(&refuses) };
    save_all(&crate::open(disk.clone(), Keep::all()), 1..=2);
    rot(&disk, 2);
    let store = Store::open_tiered(disk, remote.clone(), StoreOptions::new()).unwrap();
    let cause = |error: Error| std::error::Error::source(&error).unwrap().to_string();
    // One pass meets two: the damaged one, which never arrives, and the network.
    let told =
        [store.wait_for(Tier::Remote), store.wait_for(Tier::Remote)].map(|told| cause(told.unwrap_err()));
    assert!(told[0].contains("0002") && told[0].contains("checksum"), "{told:?}");
    assert!(told[1].contains("network"), "{told:?}");
    refuses.store(false, Ordering::SeqCst);
    store.wait_for(Tier::Remote).or_else(|_| store.wait_for(Tier::Remote)).unwrap();
    assert_eq!(steps_in(&remote.inner), [1]);
}
