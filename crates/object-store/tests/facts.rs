//! The facts that the engine's promises rest on, one by one in their smallest form: retries, the
//! order of deletes, and which answers are believed. Each test fails when its line of the engine is
//! broken.

mod common;

use common::{RUN, by_url, bytes, get, get_raw, put, server};
use fake_s3::{Fault, Server};
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::{CommitError, Engine};
use tensorkeep::{ErrorKind, Keep, Progress, Snapshot, Store, StoreOptions};

const FOREVER: usize = usize::MAX;
/// Uploaded in parts.
const LARGE: usize = 9_000_000;

fn engine(server: &Server) -> Arc<dyn Engine> {
    Arc::new(by_url(server, "s3://bucket/runs/lenet", Duration::from_secs(60)))
}

fn data_of(server: &Server) -> String {
    server.objects().paths().into_iter().find(|path| path.contains("/objects/")).unwrap()
}

#[test]
fn a_delete_whose_reply_was_lost_is_sent_again() {
    for fault in [Fault::ResetAfter, Fault::ErrorAfter, Fault::SlowDown] {
        let server = server();
        let engine = engine(&server);
        put(&engine, "object", b"x").unwrap();
        server.faults().fail_matching("DELETE", 0, 1, fault);
        engine.delete("object").unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert!(server.objects().paths().is_empty());
    }
}

#[test]
fn a_delete_that_fails_leaves_the_object_whole() {
    let server = server();
    let engine = engine(&server);
    put(&engine, "large", &bytes(LARGE, 1)).unwrap();
    // The first delete is refused, and a second one would not be.
    server.faults().fail_matching("DELETE", 0, 1, Fault::WrongSecret);
    engine.delete("large").unwrap_err();
    assert!(get(&engine, "large").unwrap() == bytes(LARGE, 1));
}

#[test]
fn the_bytes_of_an_unknown_commit_stay() {
    let server = server();
    let patient = engine(&server);
    put(&patient, "first", b"x").unwrap();
    let hasty: Arc<dyn Engine> =
        Arc::new(by_url(&server, "s3://bucket/runs/lenet", Duration::from_millis(1500)));
    let mut upload = hasty.create("large", None).unwrap();
    upload.append(&bytes(LARGE, 2)).unwrap();
    server.faults().fail_matching(" create", 0, FOREVER, Fault::ResetAfter);
    server.faults().fail_matching("HEAD", 0, FOREVER, Fault::ResetBefore);
    let outcome = upload.commit([3; 16]);
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    server.faults().heal();
    assert!(get(&patient, "large").unwrap() == bytes(LARGE, 2), "it was committed");
}

#[test]
fn a_completed_upload_of_another_length_is_not_ours() {
    let server = server();
    let engine = engine(&server);
    let mut upload = engine.create("large", None).unwrap();
    server.faults().take_calls();
    upload.append(&bytes(LARGE, 4)).unwrap();
    let started = server.faults().take_calls().into_iter().find(|call| call.contains("?uploads")).unwrap();
    let path = started.strip_prefix("POST ").unwrap().split('?').next().unwrap();
    server.objects().place(path, b"another length").unwrap();
    server.faults().fail_matching("POST", 0, FOREVER, Fault::WrongSecret);
    let outcome = upload.commit([5; 16]);
    assert!(matches!(outcome, Err(CommitError::NotCommitted(_))), "{outcome:?}");
    assert!(engine.list("").unwrap().is_empty());
}

#[test]
fn a_completed_upload_whose_reply_was_lost_is_ours() {
    for fault in [Fault::ResetAfter, Fault::ErrorAfter] {
        let server = server();
        let engine = engine(&server);
        let mut upload = engine.create("large", None).unwrap();
        upload.append(&bytes(LARGE, 4)).unwrap();
        server.faults().fail_matching("POST", 0, 1, fault);
        upload.commit([5; 16]).unwrap();
        assert!(get(&engine, "large").unwrap() == bytes(LARGE, 4));
    }
}

#[test]
fn an_upload_that_the_store_ended_is_no_missing_object() {
    let server = server();
    let engine = engine(&server);
    let mut upload = engine.create("large", None).unwrap();
    upload.append(&bytes(LARGE, 6)).unwrap();
    server.objects().end_uploads();
    let Err(CommitError::NotCommitted(error)) = upload.commit([7; 16]) else { panic!("committed") };
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.to_string().contains("life cycle"), "{error}");
}

#[test]
fn a_commit_to_a_place_that_is_gone_is_not_made() {
    let server = server();
    let engine = engine(&server);
    let mut upload = engine.create("object", None).unwrap();
    upload.append(b"bytes").unwrap();
    server.faults().take_calls();
    server.faults().fail_matching(" create", 0, FOREVER, Fault::NotFound);
    let outcome = upload.commit([8; 16]);
    assert!(matches!(outcome, Err(CommitError::NotCommitted(_))), "{outcome:?}");
    assert_eq!(server.faults().take_calls().len(), 2, "tried again");
}

#[test]
fn a_tail_behind_sent_parts_is_read_with_opening() {
    const TAIL: usize = 300_000;
    let server = server();
    let engine = engine(&server);
    let content = bytes(2 * LARGE, 9);
    let mut upload = engine.create("large", None).unwrap();
    upload.append(&content[..2 * LARGE - TAIL]).unwrap();
    upload.begin_tail();
    upload.append(&content[2 * LARGE - TAIL..]).unwrap();
    upload.commit([9; 16]).unwrap();
    server.faults().take_calls();
    let blob = engine.open("large").unwrap();
    // The records lie before the index.
    let mut tail = vec![0; TAIL + 60_000];
    blob.read_at((2 * LARGE - tail.len()) as u64, &mut tail).unwrap();
    assert!(tail == content[2 * LARGE - tail.len()..]);
    assert_eq!(server.faults().take_calls().len(), 1);
}

#[test]
fn a_tail_that_is_too_long_to_copy_is_read_from_the_object() {
    const TAIL: usize = (64 << 20) + 5;
    let server = server();
    let engine = engine(&server);
    let content = bytes(1 << 20, 10);
    let mut upload = engine.create("large", Some(TAIL as u64)).unwrap();
    upload.begin_tail();
    for _ in 0..65 {
        upload.append(&content).unwrap();
    }
    upload.commit([9; 16]).unwrap();
    let commit = get_raw(&server, &format!("/bucket/{RUN}/large")).len();
    assert!(commit < 100_000, "{commit} bytes were copied");
    let blob = engine.open("large").unwrap();
    let mut last = vec![0; 1 << 20];
    blob.read_at(64 << 20, &mut last).unwrap();
    assert!(last == content);
}

#[test]
fn a_name_that_another_program_replaced_has_its_new_length() {
    let server = server();
    let engine = engine(&server);
    put(&engine, "large", &bytes(LARGE, 11)).unwrap();
    assert_eq!(engine.list("").unwrap()[0].len, LARGE as u64);
    // As long as a commit object may be, but none.
    server.objects().place(&format!("/bucket/{RUN}/large"), &[0; 1533 + 4096]).unwrap();
    assert_eq!(engine.list("").unwrap()[0].len, 1533 + 4096);
}

#[test]
fn no_more_than_eight_parts_are_in_flight() {
    const PART: usize = 8 << 20;
    let server = server();
    let engine = engine(&server);
    let content = bytes(PART, 12);
    let mut upload = engine.create("large", None).unwrap();
    server.faults().delay(Duration::from_millis(250));
    server.faults().watch("partNumber");
    for _ in 0..25 {
        upload.append(&content).unwrap();
    }
    upload.commit([13; 16]).unwrap();
    assert_eq!(
        server.faults().most_at_once(),
        8,
        "the README says ten parts of memory: two are on this side"
    );
    assert!(data_of(&server).contains("/large/"));
}

#[test]
fn a_reader_in_order_has_no_more_than_its_share_on_the_way() {
    let server = server();
    let engine = engine(&server);
    let content = bytes(80 << 20, 14);
    put(&engine, "large", &content).unwrap();
    let blob = engine.open("large").unwrap();
    server.faults().delay(Duration::from_millis(20));
    server.faults().watch("GET");
    let mut buffer = vec![0; 1 << 20];
    for at in (0..content.len()).step_by(1 << 20) {
        blob.read_at(at as u64, &mut buffer).unwrap();
        assert!(buffer == content[at..at + (1 << 20)]);
    }
    let most = server.faults().most_at_once();
    assert!((3..=5).contains(&most), "{most} requests of 4 MiB at a time");
}

#[test]
fn folders_that_are_listed_together_are_one_request() {
    let server = server();
    let engine = engine(&server);
    for key in ["a", "pins/b", "attempts/c", "attempts/deep/d"] {
        put(&engine, key, b"x").unwrap();
    }
    put(&engine, "large", &bytes(LARGE, 1)).unwrap();
    engine.list("").unwrap();
    server.faults().take_calls();
    let each = engine.list_each(&["pins", "", "attempts", "damaged"]).unwrap();
    assert_eq!(server.faults().take_calls().len(), 1);
    let keys: Vec<Vec<&str>> =
        each.iter().map(|entries| entries.iter().map(|entry| &*entry.key).collect()).collect();
    assert_eq!(keys, [vec!["pins/b"], vec!["a", "large"], vec!["attempts/c"], vec![]]);
    assert_eq!(each[1][1].len, LARGE as u64);
}

#[test]
fn a_run_with_much_below_it_is_listed_folder_by_folder() {
    let server = server();
    let engine = engine(&server);
    put(&engine, "a", b"x").unwrap();
    for number in 0..3001 {
        server.objects().place(&format!("/bucket/{RUN}/below/{number}"), b"x").unwrap();
    }
    let listed = |engine: &Arc<dyn Engine>| engine.list_each(&["", "pins"]).unwrap().concat().len();
    assert_eq!(listed(&engine), 1);
    server.faults().take_calls();
    assert_eq!((listed(&engine), server.faults().take_calls().len()), (1, 2), "it is known now");
}

#[test]
fn a_save_that_rotates_lists_twice() {
    let server = server();
    let store = Store::open(engine(&server), StoreOptions::new().keep(Keep::last(2))).unwrap();
    let save = |step: u64| {
        let weights = bytes(LARGE, step);
        let snapshot = Snapshot::new().tensor("weights", &weights[..]).unwrap().progress(Progress::new(step));
        assert_eq!(store.save(&snapshot).unwrap().deleted.len(), usize::from(step > 2));
    };
    for step in 1..=4 {
        save(step);
    }
    server.faults().take_calls();
    save(5);
    let calls = server.faults().take_calls();
    let listings = calls.iter().filter(|call| call.contains("list-type")).count();
    assert_eq!(listings, 2, "{calls:#?}");
}
