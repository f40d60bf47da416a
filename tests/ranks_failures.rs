//! What goes wrong in a job of many ranks, and what every rank is told: nothing that was committed
//! is lost, no call hangs, and the words are those of the rank that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tensorkeep::engine::Engine;
use tensorkeep::layout::{Layout, TensorBox};
use tensorkeep::ranks::{Alone, AnotherWorld, Collective, Replica, Tcp};
use tensorkeep::{
    Error, ErrorKind, Every, Keep, Progress, Reader, Result, Saved, Snapshot, Store, StoreOptions,
};
use test_support::ranks::{Hooked, job, job_that_may_die};

fn options() -> StoreOptions {
    StoreOptions::new().rank_deadline(Duration::from_secs(20)).least_shard_bytes(0)
}

/// Rows of a momentum of 8 rows and 4 columns.
fn rows(rank: u32, world: u32, step: u64) -> Snapshot<'static> {
    let layout = Layout::sharded(0, world).unwrap();
    let len = layout.box_of(&[8, 4], rank).unwrap().lens()[0] as usize;
    let bytes: Arc<Vec<u8>> = Arc::new(vec![step as u8; len * 4]);
    let tensor = tensorkeep::Tensor::shared(tensorkeep::Dtype::U8, &[len, 4], bytes).unwrap();
    Snapshot::new().sharded("momentum", tensor, &[8, 4], &layout).unwrap().progress(Progress::new(step))
}

fn open(engine: &Hooked, ranks: Tcp) -> Store {
    let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
    store.resume().unwrap();
    store
}

/// Saves what `make` makes as 4 ranks; the error that all of them get, which has these words.
fn all_fail<'a>(make: impl Fn(u32) -> Result<Snapshot<'a>> + Sync, kind: ErrorKind, words: &[&str]) {
    let engine = Hooked::new();
    let saved = job(4, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.save(&rows(rank, 4, 1)).unwrap();
        let error = make(rank).and_then(|snapshot| store.save(&snapshot.progress(Progress::new(2))));
        // The ranks are still together.
        store.save(&rows(rank, 4, 3)).unwrap();
        error
    });
    for (rank, error) in saved.into_iter().enumerate() {
        let error = error.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "rank {rank}: {text}");
        for word in words {
            assert!(text.contains(word), "rank {rank}: {text}");
        }
    }
    let reader = Reader::new(engine.clone());
    let steps: Vec<u64> = reader.ids().unwrap().iter().map(|id| id.step).collect();
    assert_eq!(steps, [1, 3]);
    assert_eq!(engine.shards().len(), 8, "those of the save that failed are gone: {:?}", engine.shards());
    for step in steps {
        reader.checkpoint(step).unwrap().verify().unwrap();
    }
}

#[test]
fn ranks_that_disagree_are_told_of_the_tensor_and_ranks() {
    let one_other = |other: u32, theirs: &'static [u8], shape: [usize; 2], rank: u32| {
        let own = if rank == other { theirs } else { &[0; 8][..] };
        let shape = if rank == other { shape } else { [4, 2] };
        Snapshot::new().tensor("w", (shape, own))
    };
    let disagree = ["tensor w", "ranks disagree", "[4, 2]", "rank 2 of 4"];
    all_fail(|rank| one_other(2, &[0; 6], [3, 2], rank), ErrorKind::Mismatch, &disagree);
    all_fail(
        |rank| {
            if rank == 3 {
                return Snapshot::new().tensor("w", ([4, 2], &[0_i8; 8][..]));
            }
            one_other(9, &[], [0, 0], rank)
        },
        ErrorKind::Mismatch,
        &["tensor w", "u8 [4, 2]", "i8 [4, 2]", "rank 3 of 4"],
    );
    // Two layouts, a rank that lacks it, and a shape that the layout does not give.
    all_fail(
        |rank| {
            let layout = if rank == 1 { Layout::sharded(1, 4) } else { Layout::sharded(0, 4) }?;
            let shape = if rank == 1 { [4, 1] } else { [1, 4] };
            Snapshot::new().sharded("w", (shape, &[0_u8; 4][..]), &[4, 4], &layout)
        },
        ErrorKind::Mismatch,
        &["tensor w", "rank 1 of 4"],
    );
    all_fail(
        |rank| {
            if rank == 2 {
                return Ok(Snapshot::new());
            }
            Snapshot::new().sharded("w", ([1, 4], &[0_u8; 4][..]), &[4, 4], &Layout::sharded(0, 4)?)
        },
        ErrorKind::Mismatch,
        &["tensor w", "rank 2 of 4", "does not have"],
    );
    all_fail(
        |rank| {
            let shape = if rank == 3 { [2, 2] } else { [1, 4] };
            Snapshot::new().sharded("w", (shape, &[0_u8; 4][..]), &[4, 4], &Layout::sharded(0, 4)?)
        },
        ErrorKind::Invalid,
        &["w", "[3:4, 0:4]", "[2, 2]"],
    );
    all_fail(
        |rank| {
            let snapshot = Snapshot::new().tensor("w", &[0_u8; 4][..])?;
            if rank == 1 { snapshot.record("mine", &1) } else { Ok(snapshot) }
        },
        ErrorKind::Mismatch,
        &["record mine", "rank 1 of 4", "rank_record"],
    );
    all_fail(
        |rank| {
            let rule = if rank == 3 { AnotherWorld::All } else { AnotherWorld::First };
            Snapshot::new().rank_record("rng", &rank, rule)
        },
        ErrorKind::Mismatch,
        &["record rng", "rank 3 of 4", "All"],
    );
}

#[test]
fn boxes_that_do_not_tile_are_told_with_their_ranks() {
    let part = |from: u64, len: u64| {
        let own = TensorBox::new([from], [len])?;
        let bytes: &'static [u8] = &[0; 9];
        Snapshot::new().part("w", &bytes[..len as usize], &[8], &own)
    };
    let cuts = |cuts: [(u64, u64); 4]| move |rank: u32| part(cuts[rank as usize].0, cuts[rank as usize].1);
    all_fail(
        cuts([(0, 2), (2, 3), (4, 2), (6, 2)]),
        ErrorKind::Invalid,
        &["tensor w", "overlap", "[2:5] of rank 1", "[4:6] of rank 2"],
    );
    all_fail(cuts([(0, 2), (2, 2), (4, 1), (6, 2)]), ErrorKind::Invalid, &["tensor w", "hole", "[5:6]"]);
}

#[test]
fn one_ranks_failing_disk_is_everybodys_error() {
    let engine = Hooked::new();
    let errors = job(4, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.save(&rows(rank, 4, 1)).unwrap();
        if rank == 0 {
            engine.hook(|call, key| {
                if call == "create" && key.ends_with("-r00003.tkeep") && key.contains("-0000000002-") {
                    return Err(Error::new(ErrorKind::NoSpace, "the disk is full").in_object(key));
                }
                Ok(())
            });
        }
        store.due(&Progress::new(2));
        let error = store.save(&rows(rank, 4, 2)).unwrap_err();
        // Training goes on.
        store.save(&rows(rank, 4, 3)).unwrap();
        error
    });
    for (rank, error) in errors.iter().enumerate() {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        let text = error.to_string();
        assert!(text.contains("step 2") && text.contains("the disk is full"), "{text}");
        assert!(rank == 3 || text.contains("rank 3 of 4"), "{text}");
    }
    assert_eq!(Reader::new(engine.clone()).ids().unwrap().len(), 2);
    assert_eq!(engine.shards().len(), 8);
}

#[test]
fn a_rank_that_panics_is_everybodys_error() {
    all_fail(
        |rank| {
            let bytes = [0_u8; 4];
            let produce = move || match rank {
                2 => panic!("no tensor here"),
                _ => tensorkeep::Tensor::shared(tensorkeep::Dtype::U8, &[1, 4], Arc::new(bytes)),
            };
            let lazy = tensorkeep::LazyTensor::new(tensorkeep::Dtype::U8, &[1, 4], produce);
            Snapshot::new().sharded("w", lazy, &[4, 4], &Layout::sharded(0, 4)?)
        },
        ErrorKind::Io,
        &["part of the save panicked"],
    );
}

#[test]
fn a_rank_that_does_not_come_is_named_by_the_deadline() {
    let engine = Hooked::new();
    let started = Instant::now();
    let outcomes = job(4, |ranks| {
        let rank = ranks.rank();
        let limit = Duration::from_secs(2);
        let store = Store::open_ranks(engine.clone(), ranks, options().rank_deadline(limit)).unwrap();
        store.save(&rows(rank, 4, 1)).unwrap();
        if rank == 2 {
            // Alive, and elsewhere.
            std::thread::sleep(Duration::from_secs(4));
            return None;
        }
        Some(store.save(&rows(rank, 4, 2)).unwrap_err().to_string())
    });
    assert!(started.elapsed() < Duration::from_secs(60));
    let texts: Vec<String> = outcomes.into_iter().flatten().collect();
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|text| text.contains("rank 2")), "{texts:?}");
    assert_eq!(Reader::new(engine).ids().unwrap().len(), 1);
}

#[test]
fn a_rank_that_saves_once_more_is_told_apart() {
    let engine = Hooked::new();
    let errors = job(3, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        if rank == 1 {
            store.save(&rows(rank, 3, 1))?;
            return store.save(&rows(rank, 3, 2)).map(|_| ());
        }
        store.save(&rows(rank, 3, 1))?;
        store.save(&rows(rank, 3, 3)).map(|_| ())
    });
    for error in errors {
        let text = error.unwrap_err().to_string();
        assert!(text.contains("rank 1 of 3 is at another call"), "{text}");
        assert!(text.contains("the save of step 3") && text.contains("the save of step 2"), "{text}");
    }
    // One that saves when the others have closed.
    let engine = Hooked::new();
    let outcomes = job(3, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.save(&rows(rank, 3, 1)).unwrap();
        if rank == 1 {
            return Some(store.save(&rows(rank, 3, 2)).unwrap_err());
        }
        store.close().unwrap();
        None
    });
    let error = outcomes.into_iter().flatten().next().unwrap();
    assert!(error.to_string().contains("rank 0"), "{error}");
    assert_eq!(Reader::new(engine).ids().unwrap().len(), 1);
}

/// A connection that says what it is told to.
struct Odd(u32, u32);

impl Collective for Odd {
    fn rank(&self) -> u32 {
        self.0
    }
    fn world(&self) -> u32 {
        self.1
    }
    fn gather(&self, bytes: &[u8], deadline: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        Alone.gather(bytes, deadline)
    }
    fn broadcast(&self, bytes: Option<&[u8]>, deadline: Instant) -> Result<Vec<u8>> {
        Alone.broadcast(bytes, deadline)
    }
}

#[test]
fn a_world_of_none_and_a_rank_beyond_it_are_refused() {
    for (rank, world) in [(0, 0), (3, 3), (1, 1)] {
        let error = Store::open_ranks(Hooked::new(), Odd(rank, world), options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("rank {rank} of {world}")), "{error}");
    }
}

#[test]
fn of_two_jobs_on_one_run_one_saves() {
    // Under a lock the second one does not open, on any rank.
    let engine = Hooked::new();
    let store = Store::open(engine.clone(), options()).unwrap();
    let errors = job(3, |ranks| Store::open_ranks(engine.clone(), ranks, options()).unwrap_err());
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    }
    drop(store);
    // Without locks the older one is fenced, on every rank.
    let engine = Hooked::new().without_locks();
    let errors = job(2, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.save(&rows(rank, 2, 1)).unwrap();
        if rank == 0 {
            let newer = engine.clone();
            job(2, |ranks| {
                let rank = ranks.rank();
                let store = open(&newer, ranks);
                store.save(&rows(rank, 2, 2)).unwrap();
            });
        }
        store.save(&rows(rank, 2, 3)).unwrap_err()
    });
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }
    let steps: Vec<u64> = Reader::new(engine).ids().unwrap().iter().map(|id| id.step).collect();
    assert_eq!(steps, [1, 2]);
}

#[test]
fn a_rank_of_another_folder_does_not_join() {
    let (engine, other) = (Hooked::new(), Hooked::new());
    let errors = job(3, |ranks| {
        let engine = if ranks.rank() == 2 { other.clone() } else { engine.clone() };
        Store::open_ranks(engine, ranks, options()).unwrap_err()
    });
    for error in errors {
        assert!(error.to_string().contains("does not see the attempt"), "{error}");
        assert!(error.to_string().contains("a folder that they share"), "{error}");
    }
}

#[test]
fn another_shard_under_a_shards_name_is_damage_and_passed_over() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.save(&rows(rank, 2, 1)).unwrap();
        store.save(&rows(rank, 2, 2)).unwrap();
        store.close().unwrap();
    });
    // The shard of rank 1 of the second save is that of the first.
    let shard = |step: u64| {
        let has = |key: &&String| key.contains(&format!("-{step:010}-")) && key.ends_with("-r00001.tkeep");
        engine.shards().iter().find(has).unwrap().clone()
    };
    engine.replace(&shard(2), &engine.bytes(&shard(1)));
    let resumed = job(3, |ranks| {
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        let resumed = store.resume().unwrap();
        (
            resumed.next_step(),
            resumed.skipped.iter().map(|skipped| skipped.error.to_string()).collect::<Vec<_>>(),
        )
    });
    assert!(resumed.iter().all(|(step, _)| *step == 1));
    assert!(resumed[0].1[0].contains("another file in place of the shard of rank 1"), "{resumed:?}");
}

#[test]
fn replicas_that_differ_are_reported_with_tensor_and_ranks() {
    let save = |replica: Replica, compare: bool| -> Vec<Result<Saved>> {
        let engine = Hooked::new();
        job(4, |ranks| {
            let rank = ranks.rank();
            let options = options().compare_replicas(compare);
            let store = Store::open_ranks(engine.clone(), ranks, options).unwrap();
            let mut weights = vec![0.5_f32; 300];
            if rank == 2 {
                weights[17] = f32::from_bits(weights[17].to_bits() ^ 1);
            }
            let same = [1_u8; 10];
            let snapshot = Snapshot::new().replica("w", ([100, 3], &weights), replica).unwrap();
            // Halves that two ranks each hold.
            let layout = Layout::mesh(&[
                (2, tensorkeep::layout::Placement::Replicate),
                (2, tensorkeep::layout::Placement::Shard(0)),
            ])
            .unwrap();
            let half = [u8::from(rank == 3); 4];
            let snapshot = snapshot.tensor("same", &same[..]).unwrap();
            let snapshot = snapshot.sharded("half", &half[..], &[8], &layout).unwrap();
            let snapshot = snapshot.record("seed", &(rank / 3)).unwrap();
            store.save(&snapshot.progress(Progress::new(1)))
        })
    };
    for saved in save(Replica::Same, true) {
        let words: Vec<String> = saved.unwrap().diverged.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "record seed: ranks 0, 1, 2 differ from ranks 3",
                "tensor half [4:8]: ranks 1 differ from ranks 3",
                "tensor w [0:100, 0:3]: ranks 0, 1, 3 differ from ranks 2",
            ]
        );
    }
    for error in save(Replica::Required, true) {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().contains("ranks 0, 1, 3 differ from ranks 2"), "{error}");
    }
    for saved in save(Replica::OfRank(2), true) {
        let names: Vec<String> = saved.unwrap().diverged.into_iter().map(|diverged| diverged.name).collect();
        assert_eq!(names, ["seed", "half"], "w is not compared");
    }
    for saved in save(Replica::Same, false) {
        assert_eq!(saved.unwrap().diverged.len(), 1, "the record alone");
    }
}

#[test]
fn orphans_of_a_dead_coordinator_are_invisible_and_swept() {
    let engine = Hooked::new();
    job(4, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        store.save(&rows(rank, 4, 1)).unwrap();
        store.close().unwrap();
    });
    let died = job_that_may_die(4, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        if rank == 0 {
            engine.hook(|call, key| {
                assert!(call != "create" || key != "0002-0000000002.tkeep", "rank 0 dies here");
                Ok(())
            });
        }
        store.due(&Progress::new(2));
        store.save(&rows(rank, 4, 2)).unwrap_err()
    });
    for (rank, outcome) in died.into_iter().enumerate() {
        match outcome {
            Ok(error) => {
                assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
                assert!(error.to_string().contains("rank"), "{error}");
            }
            Err(_) => assert_eq!(rank, 0),
        }
    }
    engine.hook(|_, _| Ok(()));
    assert_eq!(engine.shards().len(), 8);
    assert_eq!(Reader::new(engine.clone()).ids().unwrap().len(), 1, "no manifest, no checkpoint");
    // The next start resumes from the first, and sweeps behind its own commit.
    let swept = Arc::new(AtomicBool::new(false));
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        assert_eq!(engine.shards().len(), 8, "not at open");
        store.due(&Progress::new(2));
        let saved = store.save(&rows(rank, 2, 2)).unwrap();
        assert!(saved.warnings.is_empty(), "{:?}", saved.warnings);
        if rank == 0 {
            let left = engine.shards();
            assert!(left.iter().all(|key| !key.contains("0002-0000000002")), "{left:?}");
            assert_eq!(left.len(), 6);
            swept.store(true, Ordering::Relaxed);
        }
        store.due(&Progress::new(3));
        store.save(&rows(rank, 2, 3)).unwrap();
    });
    assert!(swept.load(Ordering::Relaxed));
    // A zombie's manifest that arrives now is listed by nobody.
    engine.put("0002-0000000002.tkeep", &engine.bytes("0001-0000000001.tkeep"));
    let ids: Vec<String> = Reader::new(engine).ids().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["0001-0000000001", "0003-0000000002", "0003-0000000003"]);
}

#[test]
fn a_tool_deletes_orphans_of_earlier_attempts_alone() {
    let engine = Hooked::new();
    let save = |step| {
        job(2, |ranks| {
            let rank = ranks.rank();
            let store = open(&engine, ranks);
            store.save(&rows(rank, 2, step)).unwrap();
            store.close().unwrap();
        });
    };
    save(1);
    save(2);
    let orphan = |attempt, rank| {
        let key = format!("shards/{rank}/000{attempt}-0000000009-0-00c0ffee-r0000{rank}.tkeep");
        engine.put(&key, b"what a killed rank has written");
        key
    };
    let [first, second, newest] = [orphan(1, 0), orphan(1, 1), orphan(2, 1)];
    let before = engine.shards();
    let orphans = || Reader::new(engine.clone()).orphaned_shards().unwrap();
    let keys: Vec<String> = orphans().objects().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, [first.clone(), second.clone()], "a save of the newest attempt may go on");
    assert_eq!(engine.shards(), before, "looking deletes nothing");
    // A manifest that arrives in the meantime keeps its shards.
    let planned = orphans();
    engine.put("0001-0000000009.tkeep", &engine.bytes("0001-0000000001.tkeep"));
    assert_eq!(planned.delete().unwrap().len(), 0);
    assert_eq!((engine.shards(), Reader::new(engine.clone()).ids().unwrap().len()), (before, 3));
    Engine::delete(&engine, "0001-0000000009.tkeep").unwrap();
    assert_eq!(orphans().delete().unwrap().len(), 2);
    assert!(engine.shards().len() == 5 && engine.shards().contains(&newest));
    // One that arrives afterwards is listed by nobody.
    engine.put("0001-0000000009.tkeep", &engine.bytes("0001-0000000001.tkeep"));
    assert_eq!(Reader::new(engine.clone()).ids().unwrap().len(), 2);
    Reader::new(engine.clone()).latest().unwrap().unwrap().verify().unwrap();
    // While the newest attempt has nothing, none is touched.
    orphan(1, 1);
    job(2, |ranks| open(&engine, ranks).close().unwrap());
    let error = orphans().delete().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
}

#[test]
fn a_checkpoint_is_deleted_manifest_first_and_with_its_shards() {
    let engine = Hooked::new();
    let keep = || options().keep(Keep::last(2));
    for _ in 0..2 {
        job(3, |ranks| {
            let rank = ranks.rank();
            let store = Store::open_ranks(engine.clone(), ranks, keep()).unwrap();
            let from = store.resume().unwrap().next_step();
            for step in from + 1..from + 4 {
                store.due(&Progress::new(step));
                let saved = store.save(&rows(rank, 3, step)).unwrap();
                assert!(saved.not_deleted.is_empty() && saved.rotation_error.is_none(), "{saved:?}");
                assert!(rank == 0 || saved.deleted.is_empty(), "rank 0 rotates");
            }
            store.close().unwrap();
        });
    }
    let reader = Reader::new(engine.clone());
    let ids: Vec<String> = reader.ids().unwrap().iter().map(ToString::to_string).collect();
    // The one that was resumed from stays, too.
    assert_eq!(ids, ["0001-0000000003", "0002-0000000005", "0002-0000000006"]);
    assert_eq!(engine.shards().len(), 9);
    for id in reader.ids().unwrap() {
        reader.checkpoint_by_id(id).unwrap().verify().unwrap();
    }
    let log = engine.take_log();
    let at =
        |call: &str| log.iter().position(|there| there.starts_with(call)).unwrap_or_else(|| panic!("{call}"));
    let deleted = at("delete 0001-0000000002.tkeep");
    assert!(at("mark attempts/0002.deletes.0001-0000000002") < deleted);
    assert!(at("mark damaged/0001-0000000002.hidden.0002") < deleted);
    let shards = log
        .iter()
        .enumerate()
        .filter(|(_, call)| call.starts_with("delete shards/") && call.contains("/0001-0000000002-"));
    assert_eq!(shards.filter(|(at, _)| *at > deleted).count(), 3);
    // By a tool.
    let plan = reader.plan_deletion(&Keep::last(1), 0, |_| true).unwrap();
    let collected = plan.delete().unwrap();
    assert_eq!(collected.deleted.len(), 1, "{collected:?}");
    assert_eq!(engine.shards().len(), 6);
    // On another rank than 0 nothing is deleted.
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        store.resume().unwrap();
        store.due(&Progress::new(7));
        store.save(&rows(rank, 2, 7)).unwrap();
        let deleted = store.delete(3);
        assert_eq!(deleted.is_ok(), rank == 0, "{deleted:?}");
    });
    assert_eq!(engine.shards().len(), 5);
}

#[test]
fn a_kill_between_manifest_and_shards_leaves_no_half_checkpoint() {
    let engine = Hooked::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = open(&engine, ranks);
        for step in 1..3 {
            store.due(&Progress::new(step));
            store.save(&rows(rank, 2, step)).unwrap();
        }
    });
    let keep = || options().keep(Keep::last(1));
    let died = job_that_may_die(2, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, keep()).unwrap();
        store.resume().unwrap();
        if rank == 0 {
            engine.hook(|call, key| {
                assert!(call != "delete" || !key.starts_with("shards/"), "killed here");
                Ok(())
            });
        }
        store.due(&Progress::new(3));
        store.save(&rows(rank, 2, 3)).map(drop)
    });
    assert!(died[0].is_err(), "{died:?}");
    engine.hook(|_, _| Ok(()));
    let reader = Reader::new(engine.clone());
    for id in reader.ids().unwrap() {
        reader.checkpoint_by_id(id).unwrap().verify().unwrap();
    }
    assert_eq!(engine.shards().len(), 6, "two of them without a manifest");
    job(2, |ranks| {
        let rank = ranks.rank();
        let store = Store::open_ranks(engine.clone(), ranks, options()).unwrap();
        assert_eq!(store.resume().unwrap().next_step(), 3);
        store.due(&Progress::new(4));
        store.save(&rows(rank, 2, 4)).unwrap();
    });
    assert_eq!(engine.shards().len(), 6, "the orphans went, and two came");
}

#[test]
fn every_rank_stops_at_the_step_of_any_ranks_signal() {
    // All threads share the process, so the signal is everybody's: they stop together all the same.
    let engine = Hooked::new();
    let steps = job(3, |ranks| {
        let rank = ranks.rank();
        let every = options().save(Every::steps(1000).or_on_signal());
        let store = Store::open_ranks(engine.clone(), ranks, every).unwrap();
        for step in 1..100 {
            if rank == 1 && step == 5 {
                signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
            }
            let progress = Progress::new(step);
            if store.due(&progress).is_some() {
                store.save(&rows(rank, 3, step)).unwrap();
            }
            if store.should_stop() {
                return step;
            }
        }
        0
    });
    assert!(steps[0] >= 5 && steps.iter().all(|step| *step == steps[0]), "{steps:?}");
}
