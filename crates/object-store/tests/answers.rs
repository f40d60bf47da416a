//! Answers that are whole, well-formed and not true, as of a cache that takes one object or listing
//! for another: one of them does no harm.

mod common;

use common::{RUN, by_url, bytes, put, save, server};
use fake_s3::{Fault, Server};
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::{CommitError, Engine};
use tensorkeep::store::Presence;
use tensorkeep::{ErrorKind, Keep, Reader, Store, StoreOptions};
use tensorkeep_object_store::ObjectStoreEngine;

const SMALL: usize = 1_000;
/// Uploaded in parts.
const LARGE: usize = 9_000_000;
const FOREVER: usize = usize::MAX;

fn engine(server: &Server) -> ObjectStoreEngine {
    by_url(server, &format!("s3://bucket/{RUN}"), Duration::from_secs(60))
}

fn open(server: &Server) -> Store {
    Store::open(engine(server), StoreOptions::new().keep(Keep::last(5))).unwrap()
}

/// A store with checkpoints of so many steps.
fn saved(server: &Server, steps: u64) -> Store {
    let store = open(server);
    for step in 1..=steps {
        save(&store, step, SMALL).unwrap();
    }
    store
}

#[test]
fn a_listing_of_another_place_is_asked_for_again() {
    let server = server();
    let engine = engine(&server);
    let shared: Arc<dyn Engine> = Arc::new(engine.clone());
    put(&shared, "object", b"x").unwrap();
    put(&shared, "pins/pin", b"x").unwrap();
    server.objects().place("/bucket/runs/other/0001-0000000001.tkeep", b"x").unwrap();
    server.objects().place("/bucket/at-the-top", b"x").unwrap();
    for (folder, key) in [("", "object"), ("pins", "pins/pin")] {
        server.faults().fail_matching("list-type", 0, 1, Fault::Elsewhere);
        let keys: Vec<String> = engine.list(folder).unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, [key]);
    }
    let hasty = engine.with_deadline(Duration::from_millis(300));
    server.faults().fail_matching("list-type", 0, FOREVER, Fault::Elsewhere);
    let error = hasty.list("").unwrap_err();
    let words = format!("{error:?}");
    assert!(error.kind() == ErrorKind::Io && words.contains("another place"), "{words}");
}

#[test]
fn a_resume_does_not_take_one_checkpoint_for_another() {
    let server = server();
    let store = saved(&server, 3);
    drop(store);
    let store = open(&server);
    let newest = format!("GET /bucket/{RUN}/0001-0000000003");
    server.faults().fail_matching(&newest, 0, 1, Fault::Neighbour);
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (3, 0));
    common::assert_is(&resumed.checkpoint.unwrap(), 3, SMALL);
}

#[test]
fn another_objects_answer_fences_no_writer() {
    let server = server();
    let store = Store::open(engine(&server), StoreOptions::new()).unwrap();
    save(&store, 1, SMALL).unwrap();
    for (step, at) in [(2, 0), (3, 1)] {
        server.faults().fail_matching(&format!("/{RUN}/attempts/0002"), at, 1, Fault::Neighbour);
        save(&store, step, SMALL).unwrap();
        server.faults().heal();
    }
}

#[test]
fn an_answer_without_metadata_is_no_other_writer() {
    let server = server();
    let engine = engine(&server);
    let shared: Arc<dyn Engine> = Arc::new(engine.clone());
    put(&shared, "first", b"x").unwrap();
    let mut upload = engine.create("large", None).unwrap();
    upload.append(&bytes(LARGE, 1)).unwrap();
    server.faults().fail_matching(" create", 0, 1, Fault::ErrorAfter);
    server.faults().fail_matching(&format!("HEAD /bucket/{RUN}/large"), 0, 1, Fault::Bare);
    let outcome = upload.commit([7; 16]);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(common::get(&shared, "large").unwrap() == bytes(LARGE, 1));
    // A real conflict is one, however it is answered.
    let mut late = engine.create("second", None).unwrap();
    late.append(b"late").unwrap();
    put(&shared, "second", b"first").unwrap();
    server.faults().fail_matching(&format!("HEAD /bucket/{RUN}/second"), 0, FOREVER, Fault::Bare);
    assert!(matches!(late.commit([8; 16]), Err(CommitError::Conflict(_))));
}

#[test]
fn a_damaged_commit_object_does_not_orphan_its_bytes() {
    let server = server();
    let engine = engine(&server);
    let shared: Arc<dyn Engine> = Arc::new(engine.clone());
    put(&shared, "kept", &bytes(LARGE, 2)).unwrap();
    let commit = format!("/bucket/{RUN}/kept");
    // Another name of the same form.
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.iter().position(|byte| *byte == b'/')? + b"/kept/".len();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        Some(())
    };
    let before = common::get_raw(&server, &commit);
    server.objects().tamper(&commit, flip);
    assert!(common::get_raw(&server, &commit) != before);
    assert_eq!(engine.open("kept").unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(engine.sweep(Duration::ZERO).unwrap(), []);
    server.objects().place(&commit, &before).unwrap();
    assert!(common::get(&shared, "kept").unwrap() == bytes(LARGE, 2));
}

#[test]
fn a_marked_checkpoint_is_not_deleted_by_one_answer() {
    let server = server();
    let store = saved(&server, 2);
    drop(store);
    server.objects().place(&format!("/bucket/{RUN}/damaged/0001-0000000002.mark"), b"").unwrap();
    let reader = Reader::new(engine(&server));
    let marked = reader.listed().unwrap().into_iter().find(|listed| listed.is_marked);
    let id = marked.expect("a mark").id;
    server.faults().fail_matching(&format!("GET /bucket/{RUN}/0001-0000000002"), 0, 1, Fault::NotFound);
    let asked = reader.ask_listed(id, || reader.checkpoint_by_id(id)).unwrap();
    assert!(matches!(asked, Presence::There(_)), "{asked:?}");
}

#[test]
fn a_deletion_is_not_believed_to_be_made_by_one_answer() {
    let server = server();
    let store = saved(&server, 2);
    server.faults().fail_matching(&format!("HEAD /bucket/{RUN}/0001-0000000001"), 0, 1, Fault::NotFound);
    store.delete(1).unwrap();
    assert!(server.objects().paths().iter().all(|path| !path.contains("0000000001")));
}

// A proxy says of a deletion that there was nothing to delete, and once more when it is looked for.
#[test]
fn bytes_are_not_deleted_behind_an_object_that_is_listed() {
    let server = server();
    let engine = engine(&server);
    let shared: Arc<dyn Engine> = Arc::new(engine.clone());
    put(&shared, "large", &bytes(LARGE, 2)).unwrap();
    let of_large = format!("/bucket/{RUN}/large");
    // Behind a look at it and a read of what it names.
    server.faults().fail_matching(&of_large, 2, 2, Fault::NotFound);
    // It is listed, and deleted again.
    engine.delete("large").unwrap();
    assert!(server.objects().paths().iter().all(|path| !path.contains("large")));
    put(&shared, "large", &bytes(LARGE, 2)).unwrap();
    server.faults().fail_matching(&of_large, 2, FOREVER, Fault::NotFound);
    let error = engine.delete("large").unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("it is there"), "{error}");
    // Nor is it believed before anything is deleted.
    server.faults().fail_matching(&of_large, 0, 2, Fault::NotFound);
    let error = engine.delete("large").unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("it is listed"), "{error}");
    server.faults().heal();
    assert!(common::get(&shared, "large").unwrap() == bytes(LARGE, 2));
    engine.delete("large").unwrap();
    assert!(server.objects().paths().iter().all(|path| !path.contains("large")));
}

#[test]
fn a_pin_is_not_believed_to_be_there_by_one_answer() {
    let server = server();
    let store = open(&server);
    save(&store, 1, SMALL).unwrap();
    server.faults().fail_matching(&format!("HEAD /bucket/{RUN}/pins/"), 0, 1, Fault::Neighbour);
    store.pin(1).unwrap();
    assert!(server.objects().paths().contains(&format!("/bucket/{RUN}/pins/0001-0000000001")));
}
