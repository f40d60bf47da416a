//! What one rank meets alone must not leave the others at another call: failures before a save
//! begins, panics, damage that only one rank sees; and what must not be deleted or hidden.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tensorkeep::engine::Engine;
use tensorkeep::layout::{Layout, TensorBox};
use tensorkeep::ranks::{Collective, Replica, Tcp};
use tensorkeep::{
    Dtype, Error, ErrorKind, LazyTensor, Progress, Reader, Result, Snapshot, Store, StoreOptions, Tensor,
};
use test_support::ranks::{Hooked, job};

fn options() -> StoreOptions {
    StoreOptions::new().rank_deadline(Duration::from_secs(20)).least_shard_bytes(0)
}

fn open(engine: &Hooked, ranks: Tcp) -> Store {
    Store::open_ranks(engine.clone(), ranks, options()).unwrap()
}

/// A row of a tensor that has one for each rank; that of `failing` cannot be produced.
fn rows(rank: u32, world: u32, failing: Option<u32>, step: u64) -> Snapshot<'static> {
    let produce = move || {
        if failing == Some(rank) {
            return Err(Error::new(ErrorKind::NoSpace, "the device is out of memory"));
        }
        Tensor::shared(Dtype::U8, &[1, 4], Arc::new([step as u8; 4]))
    };
    let row = LazyTensor::new(Dtype::U8, &[1, 4], produce);
    let layout = Layout::sharded(0, world).unwrap();
    let snapshot = Snapshot::new().sharded("rows", row, &[u64::from(world), 4], &layout).unwrap();
    snapshot.progress(Progress::new(step))
}

fn steps(engine: &Hooked) -> Vec<u64> {
    Reader::new(engine.clone()).ids().unwrap().iter().map(|id| id.step).collect()
}

#[test]
fn a_copy_that_fails_on_one_rank_is_everybodys_error() {
    let engine = Hooked::new();
    let errors = job(3, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        let staged = |failing, step| -> Result<(), String> {
            let staged = store.stage(&rows(rank, 3, failing, step)).map_err(|error| error.to_string())?;
            staged.unwrap().wait().map(drop).map_err(|error| error.to_string())
        };
        staged(None, 1).unwrap();
        let error = staged(Some(1), 2).unwrap_err();
        // Misuse is told in the same way, and nobody is a save behind.
        let earlier = if rank == 2 { 0 } else { 3 };
        let misused = staged(None, earlier).unwrap_err();
        // What was returned by the saves themselves is due in other calls, too.
        (0..3).for_each(|_| drop(store.wait()));
        staged(None, 4).unwrap();
        store.save(&rows(rank, 3, None, 5)).unwrap();
        let _ = store.close();
        (error, misused)
    });
    for (rank, (error, _)) in errors.iter().enumerate() {
        assert!(error.contains("the device is out of memory"), "rank {rank}: {error}");
        assert!(rank == 1 || error.contains("rank 1 of 3"), "rank {rank}: {error}");
    }
    assert_eq!(steps(&engine), [1, 4, 5]);
}

#[test]
fn a_panic_of_the_rank_that_has_everything_ends_the_save() {
    for owner in [0, 2] {
        let engine = Hooked::new();
        let started = Instant::now();
        let errors = job(3, |ranks| {
            let rank = ranks.rank();
            let store = open(&engine, ranks);
            let save = |panics: bool, step| {
                let mut snapshot = Snapshot::new();
                if rank == owner {
                    let produce = move || -> Result<Tensor<'static>> {
                        assert!(!panics, "on purpose");
                        Tensor::shared(Dtype::U8, &[4], Arc::new([7; 4]))
                    };
                    let lazy = LazyTensor::new(Dtype::U8, &[4], produce);
                    snapshot = snapshot.replica("w", lazy, Replica::OfRank(owner)).unwrap();
                }
                store.save(&snapshot.progress(Progress::new(step)))
            };
            let error = save(true, 1).unwrap_err().to_string();
            save(false, 2).unwrap();
            error
        });
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        assert!(errors.iter().all(|error| error.contains("panicked")), "{errors:?}");
        assert_eq!(steps(&engine), [2]);
    }
}

#[test]
fn a_rank_that_writes_everything_has_time_for_it() {
    let engine = Hooked::new();
    engine.hook(|call, key| {
        if call == "create" && key == "0001-0000000001.tkeep" {
            std::thread::sleep(Duration::from_secs(4));
        }
        Ok(())
    });
    job(2, |ranks| {
        let rank = ranks.rank();
        let limits = options().rank_deadline(Duration::from_secs(2)).deadline(Duration::from_secs(20));
        let store = Store::open_ranks(engine.clone(), ranks, limits).unwrap();
        let mut snapshot = Snapshot::new();
        if rank == 1 {
            snapshot = snapshot.replica("w", &[1_u8; 4], Replica::OfRank(1)).unwrap();
        }
        store.save(&snapshot.progress(Progress::new(1))).unwrap();
    });
    assert_eq!(steps(&engine), [1]);
}

#[test]
fn damage_that_one_rank_sees_costs_one_checkpoint() {
    let io = |_: &str| Err(Error::io("reading", std::io::Error::from_raw_os_error(5)));
    let engine = Hooked::new();
    job(3, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        (1..=2).for_each(|step| drop(store.save(&rows(rank, 3, None, step)).unwrap()));
        store.close().unwrap();
    });
    // A bad sector in the newest shard of rank 1, which rank 1 verifies.
    engine.hook(move |call, key| match (call, key) {
        ("open", key) if key.contains("0001-0000000002-") && key.contains("r00001") => io(key),
        _ => Ok(()),
    });
    let resumed = job(3, |ranks| {
        let store = open(&engine, ranks);
        let resumed = store.resume().unwrap();
        let skipped: Vec<String> = resumed.skipped.iter().map(|skipped| skipped.error.to_string()).collect();
        (resumed.next_step(), skipped)
    });
    assert!(resumed.iter().all(|(step, _)| *step == 1), "{resumed:?}");
    assert!(resumed[0].1[0].contains("rank 1 of 3"), "{resumed:?}");
    // A sector that cannot be read today may be read tomorrow: nothing was set aside.
    engine.hook(|_, _| Ok(()));
    assert_eq!(steps(&engine), [1, 2]);
    // Wrong bytes are set aside, whoever finds them.
    let key = engine.shards().into_iter().find(|key| key.contains("0000000002") && key.contains("r00001"));
    let key = key.unwrap();
    let mut bytes = engine.bytes(&key);
    bytes[4096] ^= 1;
    engine.replace(&key, &bytes);
    let resumed = job(3, |ranks| open(&engine, ranks).resume().unwrap().next_step());
    assert_eq!((resumed, steps(&engine)), (vec![1, 1, 1], vec![1]));
}

#[test]
fn boxes_of_which_one_is_the_whole_are_boxes() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        for (step, cut) in [(1, 3), (2, 0), (3, 4)] {
            let (from, until) = if rank == 0 { (0, cut) } else { (cut, 4) };
            let own: Vec<u8> = (from..until).flat_map(|row| [row as u8; 2]).collect();
            let part = TensorBox::new(&[from, 0][..], &[until - from, 2][..]).unwrap();
            let shape = [(until - from) as usize, 2];
            let snapshot = Snapshot::new().part("experts", (shape, &own), &[4, 2], &part).unwrap();
            store.save(&snapshot.progress(Progress::new(step))).unwrap();
        }
    });
    let reader = Reader::new(engine);
    for step in 1..=3 {
        let found = reader.checkpoint(step).unwrap().tensor("experts").unwrap().to_vec::<u8>().unwrap();
        assert_eq!(found, [0, 0, 1, 1, 2, 2, 3, 3], "step {step}");
    }
}

#[test]
fn a_copy_to_where_a_mark_hides_it_is_refused() {
    let (here, there) = (Hooked::new(), Hooked::new());
    job(2, |ranks| {
        let rank = ranks.rank();
        open(&here, ranks).save(&rows(rank, 2, None, 1)).unwrap();
    });
    let id = Reader::new(here.clone()).ids().unwrap()[0];
    let copy = || Reader::new(here.clone()).copy_to(id, &Reader::new(there.clone()), |_| ());
    let mark = format!("damaged/{id}.hidden.0002");
    there.put(&mark, &[]);
    let error = copy().unwrap_err();
    assert!(error.kind() == ErrorKind::Busy && format!("{error:?}").contains(&mark), "{error:?}");
    Engine::delete(&there, &mark).unwrap();
    // Swept while it is copied: not reported as there.
    let hides = there.clone();
    there.hook(move |call, key| {
        if call == "create" && key.ends_with("0000000001.tkeep") {
            hides.put(&mark, &[]);
        }
        Ok(())
    });
    assert_eq!(copy().unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn a_sweep_leaves_what_it_has_shown_again() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        open(&engine, ranks).save(&rows(rank, 2, None, 1)).unwrap();
    });
    // A save of that attempt whose manifest arrives when the sweep has hidden its name.
    for key in engine.shards() {
        engine.put(&key.replace("0000000001", "0000000009"), b"a shard");
    }
    let (late, manifest) = (engine.clone(), engine.bytes("0001-0000000001.tkeep"));
    engine.hook(move |call, key| {
        if call == "mark" && key.starts_with("damaged/0001-0000000009.hidden.") {
            late.put("0001-0000000009.tkeep", &manifest);
        }
        Ok(())
    });
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.resume().unwrap();
        store.save(&rows(rank, 2, None, 2)).unwrap();
    });
    assert_eq!(steps(&engine), [1, 9, 2], "it is there, and nothing hides it");
    assert_eq!(engine.shards().len(), 6);
}

#[test]
fn limits_without_an_end_are_limits() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let endless = options().rank_deadline(Duration::MAX).deadline(Duration::MAX);
        let store = Store::open_ranks(engine.clone(), ranks, endless).unwrap();
        store.resume().unwrap();
        store.save(&rows(rank, 2, None, 1)).unwrap();
    });
    assert_eq!(steps(&engine), [1]);
}
