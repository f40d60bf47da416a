//! Stores of many ranks, as threads: one checkpoint for all, loaded by any number of ranks, and the
//! calls that all of them make at once.

use std::time::Duration;
use tensorkeep::engine::Memory;
use tensorkeep::layout::{Layout, TensorBox};
use tensorkeep::ranks::{Alone, AnotherWorld, Collective, Replica, Tcp};
use tensorkeep::{
    Checkpoint, Error, ErrorKind, Every, Keep, Progress, Reader, Result, SaveReason, Snapshot, Store,
    StoreOptions,
};
use test_support::TempFolder;
use test_support::ranks::{Hooked, job};

fn options() -> StoreOptions {
    StoreOptions::new().rank_deadline(Duration::from_secs(30))
}

/// The whole state at a step: what every rank holds a part of.
#[derive(Clone, Debug, PartialEq)]
struct Whole {
    weights: Vec<f32>,
    /// 13 rows of 6.
    momentum: Vec<f32>,
    /// 7 by 5, flat.
    flat: Vec<f32>,
}

impl Whole {
    fn at(step: u64) -> Self {
        let numbers = |len: u64, seed: u64| (0..len).map(|i| (i * seed + step * 1000) as f32).collect();
        Self { weights: numbers(50, 1), momentum: numbers(78, 3), flat: numbers(35, 5) }
    }

    fn of(checkpoint: &Checkpoint) -> Self {
        let get = |name: &str| checkpoint.tensor(name).unwrap().to_vec::<f32>().unwrap();
        Self { weights: get("weights"), momentum: get("momentum"), flat: get("flat") }
    }

    /// A rank's part of it.
    fn snapshot(&self, rank: u32, world: u32, step: u64) -> Snapshot<'_> {
        let rows = Layout::sharded(0, world).unwrap();
        let own = rows.box_of(&[13, 6], rank).unwrap().range(0);
        let own = own.start as usize * 6..own.end as usize * 6;
        let count = own.len() / 6;
        let cut = |rank: u32| u64::from(rank) * 35 / u64::from(world);
        let range = cut(rank)..cut(rank + 1);
        Snapshot::new()
            .tensor("weights", &self.weights)
            .unwrap()
            .sharded("momentum", ([count, 6], &self.momentum[own]), &[13, 6], &rows)
            .unwrap()
            .flat("flat", &self.flat[range.start as usize..range.end as usize], &[7, 5], range)
            .unwrap()
            .record("lr", &0.5)
            .unwrap()
            .rank_record("rng", &(u64::from(rank) * 10), AnotherWorld::Modulo)
            .unwrap()
            .progress(Progress::new(step))
    }
}

#[test]
fn any_number_of_ranks_goes_on_with_the_same_state() {
    let folder = TempFolder::in_memory("ranks");
    let mut step = 0;
    for world in [8, 3, 5, 1, 8] {
        job(world, |ranks| {
            let rank = ranks.rank();
            let store = Store::open_ranks(folder.path(), ranks, options().least_shard_bytes(0)).unwrap();
            let resumed = store.resume().unwrap();
            assert_eq!(resumed.next_step(), step);
            if let Some(checkpoint) = &resumed.checkpoint {
                assert_eq!(Whole::of(checkpoint), Whole::at(step), "{world} ranks");
                let rows = Layout::sharded(0, world).unwrap().box_of(&[13, 6], rank).unwrap();
                let mine = checkpoint.read_box("momentum", &rows).unwrap();
                let all = Whole::at(step).momentum;
                let from = rows.offsets()[0] as usize * 6;
                assert_eq!(mine.elements::<f32>().unwrap(), &all[from..from + mine.len()]);
                assert!(checkpoint.rank_record::<u64>("rng", rank, world).unwrap().is_some());
                assert_eq!(checkpoint.record::<f64>("lr").unwrap(), 0.5);
            }
            for step in step + 1..step + 3 {
                let saved = store.save(&Whole::at(step).snapshot(rank, world, step)).unwrap();
                assert_eq!((saved.id.step, saved.diverged.len()), (step, 0));
            }
            store.close().unwrap();
        });
        step += 2;
    }
    let reader = Reader::open(folder.path()).unwrap();
    let list = reader.list().unwrap();
    assert_eq!(list.len(), 10);
    for info in list {
        let checkpoint = reader.checkpoint_by_id(info.id).unwrap();
        checkpoint.verify().unwrap();
        assert_eq!(info.byte_len, checkpoint.inspect().byte_len(), "with its shards");
        assert_eq!(Whole::of(&checkpoint), Whole::at(info.id.step));
        let world = info.state.unwrap().world;
        assert_eq!(world, [Some(8), Some(3), Some(5), None, Some(8)][(info.id.attempt - 1) as usize]);
    }
}

#[test]
fn a_job_of_one_rank_asks_the_storage_for_nothing_more() {
    let calls = |open: &dyn Fn(Hooked) -> Store| {
        let engine = Hooked::new();
        for _ in 0..2 {
            let store = open(engine.clone());
            let from = store.resume().unwrap().next_step();
            for step in from + 1..from + 4 {
                let snapshot = Snapshot::new().tensor("w", &[1.0_f32; 9][..]).unwrap();
                store.save(&snapshot.progress(Progress::new(step))).unwrap();
            }
            store.delete(from + 2).unwrap();
            store.close().unwrap();
        }
        engine.take_log()
    };
    let keep = || options().keep(Keep::last(2));
    let today = calls(&|engine| Store::open(engine, keep()).unwrap());
    let alone = calls(&|engine| Store::open_ranks(engine, Alone, keep()).unwrap());
    assert_eq!(alone, today);
    assert!(today.iter().all(|call| !call.contains("shards") && !call.contains("hidden")), "{today:?}");
    // One more would be a cost for every job of one rank.
    assert_eq!(today.len(), 131, "{today:#?}");
}

#[test]
fn a_small_state_that_all_hold_is_one_plain_file() {
    let engine = Hooked::new();
    let saved = job(4, |ranks| {
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        let weights = vec![0.5_f32; 1000];
        let snapshot = Snapshot::new().tensor("w", &weights).unwrap().tensor("tied", &weights).unwrap();
        store.save(&snapshot.progress(Progress::new(1))).unwrap()
    });
    assert!(saved.iter().all(|saved| saved.byte_len == engine.len_of(&saved.id)));
    assert!(engine.shards().is_empty());
    let checkpoint = Reader::new(engine).checkpoint(1).unwrap();
    assert_eq!((checkpoint.inspect().shards(), checkpoint.info("w").unwrap().pieces), (0, 0));
    assert_eq!(checkpoint.info("w").unwrap().alias_of, Some("tied"));
}

#[test]
fn the_rank_that_has_everything_writes_the_plain_file() {
    let engine = Hooked::new();
    let ids = job(3, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        let mut snapshot = Snapshot::new();
        if rank == 0 {
            snapshot = snapshot.record("lr", &0.25).unwrap().metric("loss", 0.5).unwrap();
        }
        if rank == 2 {
            snapshot = snapshot.tensor("w", &[7_u8; 20][..]).unwrap();
        }
        store.save(&snapshot.progress(Progress::new(4))).unwrap().id
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert!(engine.shards().is_empty());
    let checkpoint = Reader::new(engine).checkpoint(4).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().bytes(), [7; 20]);
    assert_eq!(checkpoint.record::<f64>("lr").unwrap(), 0.25);
    assert_eq!(checkpoint.metrics().unwrap()["loss"], 0.5);
    checkpoint.verify().unwrap();
}

#[test]
fn aliases_of_parts_are_aliases_of_the_whole() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, options().least_shard_bytes(0)).unwrap();
        let layout = Layout::sharded(0, 2).unwrap();
        let rows = vec![f32::from(rank as u8); 6];
        let snapshot = Snapshot::new()
            .sharded("embedding", ([2, 3], &rows), &[4, 3], &layout)
            .unwrap()
            // The same memory, and another tensor.
            .sharded("other", ([2, 3], &rows), &[4, 3], &layout)
            .unwrap()
            .alias("head", "embedding")
            .unwrap();
        store.save(&snapshot.progress(Progress::new(1))).unwrap();
    });
    let checkpoint = Reader::new(engine).checkpoint(1).unwrap();
    assert_eq!(checkpoint.info("head").unwrap().alias_of, Some("embedding"));
    assert_eq!(checkpoint.info("other").unwrap().alias_of, None);
    let all = [[0.0_f32; 6], [1.0; 6]].concat();
    for name in ["head", "embedding", "other"] {
        assert_eq!(checkpoint.tensor(name).unwrap().elements::<f32>().unwrap(), all);
    }
}

#[test]
fn ranks_own_records_are_loaded_by_their_rule() {
    let engine = Hooked::new();
    job(3, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        let mut snapshot = Snapshot::new().progress(Progress::new(1));
        for (name, rule) in [
            ("fail", AnotherWorld::Fail),
            ("modulo", AnotherWorld::Modulo),
            ("first", AnotherWorld::First),
            ("none", AnotherWorld::None),
            ("all", AnotherWorld::All),
        ] {
            snapshot = snapshot.rank_record(name, &rank, rule).unwrap();
        }
        store.save(&snapshot).unwrap();
    });
    let checkpoint = Reader::new(engine).checkpoint(1).unwrap();
    let get = |name: &str, rank, world| checkpoint.rank_record::<u32>(name, rank, world);
    for name in ["fail", "modulo", "first", "none", "all"] {
        assert_eq!(get(name, 2, 3).unwrap(), Some(2), "{name}: as many ranks");
        assert_eq!(checkpoint.rank_records::<u32>(name).unwrap(), [0, 1, 2]);
    }
    assert_eq!((get("modulo", 4, 5).unwrap(), get("first", 4, 5).unwrap()), (Some(1), Some(0)));
    assert_eq!(get("none", 0, 5).unwrap(), None);
    for name in ["fail", "all"] {
        let error = get(name, 0, 5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let text = error.to_string();
        assert!(text.contains(&format!("record {name}")) && text.contains("3 ranks"), "{text}");
    }
    assert_eq!(get("missing", 0, 3).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn rank_0_decides_whether_a_save_is_due() {
    let engine = Hooked::new();
    let steps = job(4, |ranks| {
        let rank = ranks.rank();
        // Only rank 0's rules count.
        let every = if rank == 0 { Every::steps(3) } else { Every::never() };
        let store = Store::open_ranks(engine.clone(), ranks, options().save(every)).unwrap();
        let mut saved = Vec::new();
        for step in 1..=10 {
            let progress = Progress::new(step);
            if let Some(reason) = store.due(&progress) {
                assert_eq!(reason, SaveReason::Steps(3));
                store.save(&Snapshot::new().tensor("w", &[0_u8][..]).unwrap().progress(progress)).unwrap();
                saved.push(step);
            }
        }
        saved
    });
    assert_eq!(steps, vec![vec![3, 6, 9]; 4]);
}

#[test]
fn saves_in_the_background_go_over_a_second_connection() {
    let engine = Hooked::new();
    job(3, |ranks| {
        let rank = ranks.rank();
        let every = options().save(Every::steps(2)).least_shard_bytes(0);
        let store = Store::open_ranks(engine.clone(), ranks, every).unwrap();
        for step in 1..=8 {
            let whole = Whole::at(step);
            if store.due(&Progress::new(step)).is_some() {
                let snapshot = whole.snapshot(rank, 3, step);
                if step % 4 == 0 {
                    let (_, saved) = store.save_during(&snapshot, || store.has_saved(&Progress::new(step)));
                    saved.unwrap();
                } else {
                    store.stage(&snapshot).unwrap().unwrap();
                }
            }
        }
        store.close().unwrap();
    });
    let reader = Reader::new(engine);
    let ids = reader.ids().unwrap();
    assert_eq!(ids.iter().map(|id| id.step).collect::<Vec<_>>(), [2, 4, 6, 8]);
    for id in ids {
        assert_eq!(Whole::of(&reader.checkpoint_by_id(id).unwrap()), Whole::at(id.step));
    }
}

/// A connection that has no second one.
struct Single(Tcp);

impl Collective for Single {
    fn rank(&self) -> u32 {
        self.0.rank()
    }
    fn world(&self) -> u32 {
        self.0.world()
    }
    fn gather(&self, bytes: &[u8], deadline: std::time::Instant) -> Result<Option<Vec<Vec<u8>>>> {
        self.0.gather(bytes, deadline)
    }
    fn broadcast(&self, bytes: Option<&[u8]>, deadline: std::time::Instant) -> Result<Vec<u8>> {
        self.0.broadcast(bytes, deadline)
    }
}

#[test]
fn without_a_second_connection_saves_are_in_the_foreground() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), Single(ranks), options()).unwrap();
        let whole = Whole::at(1);
        let error = store.stage(&whole.snapshot(rank, 2, 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        store.save(&whole.snapshot(rank, 2, 1)).unwrap();
    });
    assert_eq!(Whole::of(&Reader::new(engine).checkpoint(1).unwrap()), Whole::at(1));
}

#[test]
fn what_killed_ranks_left_unfinished_is_swept_under_the_lock() {
    let folder = TempFolder::in_memory("ranks");
    let of = |place: &str| folder.path().join(place).join(format!(".tmp-shard-{:032x}", 7));
    for place in ["shards/3", "shards/longer/x"] {
        std::fs::create_dir_all(folder.path().join(place)).unwrap();
        std::fs::write(of(place), b"half a shard").unwrap();
    }
    drop(Store::open(folder.path(), options()).unwrap());
    assert!(!of("shards/3").exists() && of("shards/longer/x").exists());
}

#[test]
fn large_replicas_are_cut_among_their_ranks() {
    let engine = Memory::new();
    let weights: Vec<u8> = (0..72 << 20).map(|i: u32| (i / 4096) as u8).collect();
    job(2, |ranks| {
        let store = Store::open_ranks(engine.clone(), ranks, options().least_shard_bytes(0)).unwrap();
        let snapshot = Snapshot::new().tensor("w", ([72, 1 << 20], &weights)).unwrap();
        store.save(&snapshot.progress(Progress::new(1))).unwrap();
    });
    let checkpoint = Reader::new(engine).checkpoint(1).unwrap();
    assert_eq!(checkpoint.info("w").unwrap().pieces, 2);
    assert!(checkpoint.tensor("w").unwrap().bytes() == weights);
}

#[test]
fn equal_boxes_of_several_ranks_are_stored_once() {
    let engine = Hooked::new();
    job(4, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        // Ranks 0 and 2 hold the first rows, 1 and 3 the others.
        let first = rank.is_multiple_of(2);
        let (from, len) = if first { (0, 3) } else { (3, 5) };
        let own = TensorBox::new([from, 0], [len, 2]).unwrap();
        let bytes = vec![u8::from(first); len as usize * 2];
        let snapshot = Snapshot::new().part("w", ([len as usize, 2], &bytes), &[8, 2], &own).unwrap();
        let own = [rank];
        let snapshot = snapshot.replica("own", &own[..], Replica::OfRank(3)).unwrap();
        let saved = store.save(&snapshot.progress(Progress::new(1))).unwrap();
        assert!(saved.diverged.is_empty(), "{:?}", saved.diverged);
    });
    let checkpoint = Reader::new(engine.clone()).checkpoint(1).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().bytes(), [[1; 6].to_vec(), vec![0; 10]].concat());
    assert_eq!(checkpoint.tensor("own").unwrap().elements::<u32>().unwrap(), [3]);
    assert!(engine.shards().len() <= 4);
    checkpoint.verify().unwrap();
}

#[test]
fn a_second_tier_takes_checkpoints_of_many_files_whole() {
    let (local, remote) = (Hooked::new(), Hooked::new());
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(local.clone(), ranks, options().keep(Keep::all()).least_shard_bytes(0))
            .unwrap();
        for step in 1..=2 {
            store.save(&Whole::at(step).snapshot(rank, 2, step)).unwrap();
        }
        store.close().unwrap();
    });
    let open = || {
        let keep = options().keep(Keep::last(3)).keep_remote(Keep::last(1));
        Store::open_tiered(local.clone(), remote.clone(), keep).unwrap()
    };
    // Killed behind the first shard: there is no checkpoint in the remote tier.
    remote.hook(|call, key| match (call, key.contains("r00001")) {
        ("create", true) => Err(Error::new(ErrorKind::Io, "the line is down")),
        _ => Ok(()),
    });
    let store = open();
    assert_eq!(store.resume().unwrap().next_step(), 2);
    assert!(store.close().is_err());
    assert_eq!((remote.shards().len(), Reader::new(remote.clone()).ids().unwrap().len()), (1, 0));
    remote.hook(|_, _| Ok(()));
    let store = open();
    store.resume().unwrap();
    store.close().unwrap();
    let newest = Reader::new(remote.clone()).latest().unwrap().unwrap();
    newest.verify().unwrap();
    assert_eq!((Whole::of(&newest), remote.shards().len()), (Whole::at(2), 2));
    // Once nobody goes on from it, rotation deletes it there, and its shards with it.
    for step in 3..=4 {
        let store = open();
        store.resume().unwrap();
        store.save(&Snapshot::new().tensor("w", &[1.0_f32]).unwrap().progress(Progress::new(step))).unwrap();
        store.close().unwrap();
    }
    assert!(Reader::new(remote.clone()).ids().unwrap().iter().all(|id| id.attempt > 1));
    assert_eq!(remote.shards(), Vec::<String>::new());
}
