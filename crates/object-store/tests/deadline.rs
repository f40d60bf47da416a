//! The deadline of a store's calls holds in any state of the network, for any number of requests.

mod common;

use common::{by_url, save, server};
use fake_s3::{Fault, Server};
use std::time::{Duration, Instant};
use tensorkeep::engine::{CallDeadline, Memory};
use tensorkeep::{Codec, Error, Keep, Reader, Result, Store, StoreOptions, WriteOptions};

const URL: &str = "s3://bucket/runs/lenet";
const FOREVER: usize = usize::MAX;
/// Of a call of the store; the engine's own is much longer.
const DEADLINE: Duration = Duration::from_millis(400);
const ENGINE: Duration = Duration::from_secs(120);
/// Slack for a busy machine.
const SLACK: Duration = Duration::from_secs(2);

fn open(server: &Server, deadline: Duration) -> Result<Store> {
    let raw = WriteOptions::new().codec(Codec::Raw);
    let settings = StoreOptions::new().keep(Keep::last(2)).deadline(deadline).write(raw);
    Store::open(by_url(server, URL, ENGINE), settings)
}

/// A run of two checkpoints, resumed.
fn resumed(server: &Server) -> Store {
    let store = open(server, ENGINE).unwrap();
    for step in 1..=2 {
        save(&store, step, 1000).unwrap();
    }
    drop(store);
    // On a busy machine a server that answers takes longer than the deadline, too.
    let resumed = || open(server, DEADLINE).and_then(|store| store.resume().map(|_| store));
    (0..20).find_map(|_| resumed().ok()).expect("a run of a server that answers")
}

type Call = fn(&Server, &Store) -> Option<Error>;

const CALLS: [(&str, Call); 11] = [
    ("open", |server, _| open(server, DEADLINE).err()),
    ("resume", |_, store| store.resume().err()),
    ("resume_at", |_, store| store.resume_at(1).err()),
    ("save", |_, store| save(store, 3, 1000).err()),
    ("save of a large one", |_, store| save(store, 4, 70_000).err()),
    ("list", |_, store| store.list().err()),
    ("kept", |_, store| store.kept().err()),
    ("latest", |_, store| store.latest().err()),
    ("pin", |_, store| store.pin(1).err()),
    ("unpin", |_, store| store.unpin(1).err()),
    ("delete", |_, store| store.delete(1).err()),
];

#[test]
fn a_black_hole_at_any_request_ends_a_call_at_its_deadline() {
    std::thread::scope(|scope| {
        for (name, call) in CALLS {
            scope.spawn(move || {
                let mut failed = 0;
                for request in 0..12 {
                    let server = server();
                    let store = resumed(&server);
                    server.faults().fail_after(request, FOREVER, Fault::Hang);
                    let begin = Instant::now();
                    let error = call(&server, &store);
                    let took = begin.elapsed();
                    assert!(took < DEADLINE + SLACK, "{name}, request {request}: {took:?}, {error:?}");
                    failed += usize::from(error.is_some());
                }
                assert!(failed > 0, "{name} never met the black hole");
            });
        }
    });
}

#[test]
fn a_durable_save_does_not_wait_for_its_rotation() {
    let server = server();
    let store = open(&server, ENGINE).unwrap();
    for step in 1..=2 {
        save(&store, step, 1000).unwrap();
    }
    server.faults().fail_matching(".deletes.", 0, FOREVER, Fault::Hang);
    let begin = Instant::now();
    let saved = save(&store, 3, 1000).unwrap();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
    assert!(saved.rotation_error.is_some() || !saved.not_deleted.is_empty(), "{saved:?}");
    server.faults().heal();
    // The next save catches up.
    let saved = save(&store, 4, 1000).unwrap();
    assert_eq!(saved.deleted.len(), 2, "{saved:?}");
}

#[test]
fn bytes_that_move_take_their_time() {
    let server = server();
    let store = resumed(&server);
    server.limit_rate(500_000);
    let begin = Instant::now();
    save(&store, 3, 2_000_000).unwrap();
    assert!(begin.elapsed() > 2 * DEADLINE, "the line is not slow");
    let store = open(&server, DEADLINE).unwrap();
    assert_eq!(store.resume().unwrap().next_step(), 3);
}

#[test]
fn a_silent_remote_tier_holds_a_pin_for_the_deadline_at_most() {
    let server = server();
    let settings = StoreOptions::new().deadline(DEADLINE);
    let store = Store::open_tiered(Memory::new(), by_url(&server, URL, ENGINE), settings).unwrap();
    save(&store, 1, 1000).unwrap();
    store.wait_for(tensorkeep::Tier::Remote).unwrap();
    server.faults().fail_after(0, FOREVER, Fault::Hang);
    for (name, call) in [
        ("pin", Store::pin as fn(&Store, u64) -> Result<()>),
        ("unpin", Store::unpin),
        ("delete", Store::delete),
    ] {
        let begin = Instant::now();
        assert!(call(&store, 1).is_err(), "{name}");
        assert!(begin.elapsed() < DEADLINE + SLACK, "{name}: {:?}", begin.elapsed());
    }
    server.faults().heal();
}

#[test]
fn a_reader_keeps_to_the_deadline_that_its_caller_has_entered() {
    let server = server();
    drop(resumed(&server));
    let reader = Reader::new(by_url(&server, URL, ENGINE));
    server.faults().fail_after(1, FOREVER, Fault::Hang);
    let begin = Instant::now();
    let listed = CallDeadline::after(DEADLINE).enter(|| reader.list()).unwrap();
    assert!(begin.elapsed() < DEADLINE + SLACK, "{:?}", begin.elapsed());
    assert_eq!(listed.iter().filter(|info| info.state.is_err()).count(), 2, "{listed:?}");
}
