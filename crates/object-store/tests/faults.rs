//! Every fault at every request of a save, with and without the crate's retries; the server killed
//! and restarted in the middle; and races. After each, the promises are checked: acknowledged saves
//! are there, visible ones are whole, failures were reported, and the next save succeeds.

mod common;

use common::{RUN, assert_is, by_url, bytes, engine, get, put, save, server};
use fake_s3::{Fault, Server};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use tensorkeep::engine::{CommitError, Engine, fresh_nonce};
use tensorkeep::{ErrorKind, Keep, Store, StoreOptions};
use test_support::steps;

/// Plain, and uploaded in parts.
const SMALL: usize = 1_000;
const LARGE: usize = 10_000_000;

fn open(engine: &Arc<dyn Engine>) -> Store {
    Store::open(Arc::clone(engine), StoreOptions::new().keep(Keep::last(2))).unwrap()
}

/// A run with two checkpoints, a third one saved while request number `at` of it fails. False when
/// there is no such request.
fn save_with_fault(at: usize, fault: Fault, retries: usize, len: usize) -> bool {
    let mut server = server();
    let engine = engine(&server, retries);
    let store = open(&engine);
    save(&store, 1, SMALL).unwrap();
    save(&store, 2, len).unwrap();
    server.faults().take_calls();
    server.faults().fail_after(at, 1, fault);
    let reviving = matches!(fault, Fault::KilledBefore | Fault::KilledAfter);
    let outcome = std::thread::scope(|scope| {
        let saving = scope.spawn(|| save(&store, 3, len));
        while reviving && !saving.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
            if server.is_dead() {
                server.restart().unwrap();
            }
        }
        saving.join().unwrap()
    });
    server.faults().heal();
    let failed = server.faults().take_calls().get(at).cloned();
    let what = format!("{fault:?} at request {at} {failed:?}, {retries} retries");
    let there = steps(&store);
    match &outcome {
        Ok(_) => assert!(there.ends_with(&[3]), "{what}: acknowledged and not there: {there:?}"),
        Err(error) if error.kind() == ErrorKind::Unknown => {}
        Err(_) => assert!(there.ends_with(&[2]), "{what}: an error, and yet there: {there:?}: {outcome:?}"),
    }
    assert!(there.contains(&2), "{what}: an older checkpoint is lost: {there:?}");
    if let Err(error) = &outcome {
        assert!(error.object().is_some(), "{what}: no object in {error}");
    }
    save(&store, 4, SMALL).unwrap_or_else(|error| panic!("{what}: the next save fails: {error:?}"));
    drop(store);
    let store = open(&engine);
    let resumed = store.resume().unwrap();
    assert!(resumed.skipped.is_empty(), "{what}: {:?}", resumed.skipped);
    assert_eq!(resumed.next_step(), 4, "{what}");
    for step in steps(&store) {
        assert_is(&store.checkpoint(step).unwrap(), step, if step == 3 || step == 2 { len } else { SMALL });
    }
    failed.is_some()
}

fn every_request_of_a_save(faults: &[Fault], retries: usize) {
    for &fault in faults {
        for len in [SMALL, LARGE] {
            let mut at = 0;
            while save_with_fault(at, fault, retries, len) {
                at += 1;
            }
            println!("{fault:?}, {len} bytes, {retries} retries: {at} requests, no promise broken");
            assert!(at > 5, "only {at} requests were seen");
        }
    }
}

#[test]
fn every_fault_at_every_request_of_a_save_with_retries() {
    every_request_of_a_save(&Fault::SURVIVABLE, 3);
}

#[test]
fn every_fault_at_every_request_of_a_save_without_retries() {
    every_request_of_a_save(&Fault::SURVIVABLE, 0);
}

#[test]
fn the_server_dies_at_every_request_of_a_save() {
    every_request_of_a_save(&[Fault::KilledBefore, Fault::KilledAfter], 10);
}

// The situations that the protocol is made for, one by one, in their smallest form.
#[test]
fn a_create_that_was_applied_and_answered_with_an_error_is_ours() {
    for fault in [Fault::ErrorAfter, Fault::ResetAfter, Fault::KilledAfter] {
        for retries in [0, 5] {
            let mut server = server();
            let engine = engine(&server, retries);
            put(&engine, "first", b"x").unwrap();
            server.faults().fail_matching("create", 0, 1, fault);
            std::thread::scope(|scope| {
                let putting = scope.spawn(|| put(&engine, "object", b"ours"));
                while !putting.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                    if server.is_dead() {
                        server.restart().unwrap();
                    }
                }
                putting
                    .join()
                    .unwrap()
                    .unwrap_or_else(|error| panic!("{fault:?}, {retries} retries: {error:?}"));
            });
            assert_eq!(get(&engine, "object").unwrap(), b"ours");
        }
    }
}

#[test]
fn a_409_with_nothing_behind_it_is_tried_again_and_no_conflict() {
    let server = server();
    let engine = engine(&server, 0);
    put(&engine, "first", b"x").unwrap();
    server.faults().fail_matching("create", 0, 2, Fault::Conflict);
    put(&engine, "object", b"ours").unwrap();
}

#[test]
fn an_error_behind_a_lost_race_is_a_conflict() {
    for fault in [Fault::ErrorAfter, Fault::ResetAfter, Fault::ResetBefore, Fault::SlowDown, Fault::Conflict]
    {
        let server = server();
        let engine = engine(&server, 0);
        let mut late = engine.create("object", None).unwrap();
        late.append(b"late").unwrap();
        put(&engine, "object", b"first").unwrap();
        server.faults().fail_matching("create", 0, 1, fault);
        assert!(matches!(late.commit([9; 16]), Err(CommitError::Conflict(_))), "{fault:?}");
        assert_eq!(get(&engine, "object").unwrap(), b"first");
    }
}

#[test]
fn a_server_that_stays_silent_makes_the_outcome_unknown() {
    let server = server();
    let url = format!("s3://bucket/{RUN}");
    let engine: Arc<dyn Engine> = Arc::new(by_url(&server, &url, Duration::from_secs(2)));
    let mut upload = engine.create("object", None).unwrap();
    upload.append(b"bytes").unwrap();
    server.faults().fail_after(0, 1000, Fault::ResetAfter);
    let outcome = upload.commit([9; 16]);
    server.faults().heal();
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    assert_eq!(get(&engine, "object").unwrap(), b"bytes", "unknown was the truth: it was applied");
}

const RACES: usize = 1_000;
const RACERS: usize = 16;

/// Each race has one key and sixteen writers with bytes of their own; every third has faults.
#[test]
fn of_sixteen_racing_commits_exactly_one_wins_a_thousand_times() {
    let server = server();
    let engine = engine(&server, 2);
    let (start, won, faulty) = (Barrier::new(RACERS), AtomicUsize::new(0), AtomicUsize::new(0));
    put(&engine, "warm", b"up").unwrap();
    std::thread::scope(|scope| {
        for racer in 0..RACERS {
            let (engine, server, start, won, faulty) = (&engine, &server, &start, &won, &faulty);
            scope.spawn(move || {
                for race in 0..RACES {
                    let key = format!("race-{race}");
                    // A late one finds the key taken when it starts, and has lost.
                    let upload = engine.create(&key, None).ok().map(|mut upload| {
                        upload.append(&[racer as u8; 100]).unwrap();
                        upload
                    });
                    if start.wait().is_leader() && race % 3 == 0 {
                        let fault = Fault::SURVIVABLE[race / 3 % 5];
                        server.faults().fail_matching("create", race % 16, 1 + race % 4, fault);
                        faulty.fetch_add(1, Ordering::Relaxed);
                    }
                    match upload.map(|upload| upload.commit(fresh_nonce())) {
                        Some(Ok(())) => {
                            won.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(
                                get(engine, &key).unwrap(),
                                [racer as u8; 100],
                                "race {race}: not the winner's"
                            );
                        }
                        Some(Err(CommitError::Conflict(_))) | None => {}
                        Some(Err(error)) => panic!("race {race}: {error:?}"),
                    }
                    if start.wait().is_leader() {
                        assert_eq!(
                            won.load(Ordering::Relaxed),
                            race + 1,
                            "race {race}: not exactly one winner"
                        );
                        server.faults().heal();
                    }
                    start.wait();
                }
            });
        }
    });
    let (won, faulty) = (won.into_inner(), faulty.into_inner());
    println!("{RACES} races of {RACERS}, {faulty} of them with faults: {won} winners");
    assert_eq!(won, RACES);
}

#[test]
fn large_objects_race_as_well_and_losers_leave_nothing() {
    let server: Server = server();
    let engine = engine(&server, 2);
    for race in 0..5 {
        let (key, start) = (format!("race-{race}"), Barrier::new(4));
        let winners: usize = std::thread::scope(|scope| {
            let racer = |racer: u64| {
                let (engine, key, start) = (&engine, &key, &start);
                scope.spawn(move || {
                    let mut upload = engine.create(key, None).unwrap();
                    upload.append(&bytes(LARGE, racer)).unwrap();
                    start.wait();
                    usize::from(upload.commit(fresh_nonce()).is_ok())
                })
            };
            let threads: Vec<_> = (0..4).map(racer).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
    }
    assert_eq!(server.objects().unfinished_uploads(), 0);
    assert_eq!(server.objects().paths().len(), 10, "a commit and its bytes for each race");
}

#[test]
fn another_object_of_that_length_completes_no_upload() {
    let server = server();
    let engine: Arc<dyn Engine> =
        Arc::new(by_url(&server, "s3://bucket/runs/lenet", Duration::from_secs(20)));
    let (first, second) = (bytes(LARGE, 1), bytes(LARGE, 2));
    put(&engine, "first", &first).unwrap();
    // The request to assemble the second one is lost, and the look for it is answered with the
    // first one.
    server.faults().fail_matching("POST", 1, 1, Fault::ResetBefore);
    server.faults().fail_matching("HEAD /bucket/runs/lenet/objects/", 0, 1, Fault::Neighbour);
    put(&engine, "second", &second).unwrap();
    assert!(get(&engine, "second").unwrap() == second);
}
