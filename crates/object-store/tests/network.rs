//! Bad networks: servers that never answer, are away for a while, or are slow, and objects of other
//! programs. Also the cost of calls in time and in requests.

mod common;

use common::{RUN, by_url, bytes, engine, get, put, save, server, within};
use fake_s3::{Fault, Server};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tensorkeep::engine::{CommitError, Engine};
use tensorkeep::{ErrorKind, Keep, OpenOptions, Progress, Snapshot, Store, StoreOptions};

const URL: &str = "s3://bucket/runs/lenet";
const FOREVER: usize = usize::MAX;
const LARGE: usize = 20_000_003;
const SECOND: Duration = Duration::from_secs(1);

/// Longer than any test, even on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);
/// For tests about deadlines, and the time that calls may take.
const DEADLINE: Duration = Duration::from_secs(1);
const AT_MOST: Duration = Duration::from_millis(1900);

fn shared(server: &Server, deadline: Duration) -> Arc<dyn Engine> {
    Arc::new(by_url(server, URL, deadline))
}

/// Two engines on one prefix, both probed: a patient one, and one with a deadline.
fn patient_and_hasty(server: &Server) -> (Arc<dyn Engine>, Arc<dyn Engine>) {
    let patient = by_url(server, URL, PATIENT);
    assert!(patient.caps().create_only);
    (Arc::new(patient.clone()), Arc::new(patient.with_deadline(DEADLINE)))
}

#[test]
fn a_server_that_is_away_for_seconds_is_waited_for() {
    let mut server = server();
    let engine = shared(&server, 60 * SECOND);
    put(&engine, "object", b"x").unwrap();
    server.kill();
    let waiting = {
        let engine = Arc::clone(&engine);
        std::thread::spawn(move || within(30 * SECOND, move || engine.list("")))
    };
    std::thread::sleep(6 * SECOND);
    server.restart().unwrap();
    let (listed, took) = waiting.join().unwrap();
    assert_eq!(listed.unwrap().len(), 1, "after {took:?}");
}

#[test]
fn a_black_hole_costs_each_call_one_deadline() {
    let server = server();
    let (patient, engine) = patient_and_hasty(&server);
    put(&patient, "object", b"x").unwrap();
    put(&patient, "large", &bytes(LARGE, 1)).unwrap();
    let blob = engine.open("large").unwrap();
    server.faults().fail_after(0, FOREVER, Fault::Hang);
    type Call = Box<dyn FnOnce() -> Option<tensorkeep::Error> + Send>;
    let on = |call: fn(&dyn Engine) -> Option<tensorkeep::Error>| -> Call {
        let engine = Arc::clone(&engine);
        Box::new(move || call(&*engine))
    };
    let fresh = shared(&server, DEADLINE);
    let calls: Vec<(&str, Call)> = vec![
        ("list", on(|engine| engine.list("").err())),
        ("open", on(|engine| engine.open("object").err())),
        ("create", on(|engine| engine.create("new", None).err())),
        ("delete", on(|engine| engine.delete("large").err())),
        ("mark", on(|engine| engine.mark("marked").err())),
        ("probe", Box::new(move || fresh.lock("test").err())),
        ("read", Box::new(move || blob.read_at(9 << 20, &mut [0; 100]).err())),
    ];
    for (name, call) in calls {
        let (error, took) = within(10 * SECOND, call);
        assert!(took < AT_MOST, "{name} took {took:?}");
        let error = error.unwrap_or_else(|| panic!("{name} was answered"));
        assert!(error.object().is_some() && error.to_string().contains(URL), "{name}: {error:?}");
        let says_so = error.to_string().contains("does not answer") || error.kind() == ErrorKind::Unknown;
        assert!(says_so, "{name}: {error}");
    }
}

#[test]
fn a_commit_into_a_black_hole_is_unknown_after_one_deadline() {
    let server = server();
    let (patient, engine) = patient_and_hasty(&server);
    for fault in [Fault::Hang, Fault::HangAfter] {
        let key = format!("object-{fault:?}");
        let mut upload = engine.create(&key, None).unwrap();
        upload.append(b"bytes").unwrap();
        server.faults().fail_after(0, FOREVER, fault);
        let (outcome, took) = within(10 * SECOND, move || upload.commit([9; 16]));
        server.faults().heal();
        assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
        assert!(took < AT_MOST, "{took:?}");
    }
    assert_eq!(get(&patient, "object-HangAfter").unwrap(), b"bytes");
}

#[test]
fn a_timed_out_read_asks_for_nothing_else() {
    let server = server();
    let (patient, engine) = patient_and_hasty(&server);
    put(&patient, "large", &bytes(LARGE, 1)).unwrap();
    let blob = engine.open("large").unwrap();
    server.faults().take_calls();
    server.faults().fail_after(0, FOREVER, Fault::Hang);
    let (read, _) = within(10 * SECOND, move || blob.read_at(9 << 20, &mut [0; 100]));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Io);
    let calls = server.faults().take_calls();
    assert!(calls.iter().all(|call| call.starts_with("GET")), "{calls:?}");
}

/// A call survives one request that hangs, an answer that breaks off, and a connection reset.
#[test]
fn transient_failures_are_not_reported() {
    let server = server();
    let engine = shared(&server, 3 * SECOND);
    let content = bytes(LARGE, 1);
    put(&engine, "large", &content).unwrap();
    for fault in [Fault::Hang, Fault::CutBody, Fault::ResetAfter, Fault::SlowDown, Fault::ErrorAfter] {
        server.faults().fail_matching("GET", 1, 1, fault);
        assert!(get(&engine, "large").unwrap() == content, "{fault:?}");
        server.faults().fail_matching("GET", 0, 1, fault);
        assert_eq!(engine.list("").unwrap().len(), 1, "{fault:?}");
        server.faults().heal();
    }
}

#[test]
fn a_full_store_says_so_at_once() {
    let server = server();
    let engine = shared(&server, PATIENT);
    put(&engine, "first", b"x").unwrap();
    server.faults().fail_matching("PUT", 0, FOREVER, Fault::Full);
    let (result, _) = within(10 * SECOND, move || put(&engine, "object", b"x"));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("the store is full"), "{error}");
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_checkpoint_opens_with_its_state_in_one_request() {
    for len in [2_000_000, LARGE] {
        let server = server();
        let engine = engine(&server, 3);
        let values = noise(len);
        let snapshot = Snapshot::new().tensor("values", &values[..]).unwrap().progress(Progress::new(1));
        let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
        store.save(&snapshot).unwrap();
        server.faults().take_calls();
        let blob = engine.open("0001-0000000001.tkeep").unwrap();
        let checkpoint = OpenOptions::new().open_blob(blob, "remote").unwrap();
        assert_eq!(checkpoint.progress().unwrap().unwrap().step, 1);
        let calls = server.faults().take_calls();
        assert_eq!(calls.len(), 1, "{len} bytes: {calls:?}");
    }
}

/// Reads in pieces of 1 MiB; each thread takes 4 MiB at a time, as verifying does.
fn read_by(engine: &Arc<dyn Engine>, threads: usize) -> Duration {
    const BATCH: usize = 4 << 20;
    let blob = engine.open("large").unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let batch = next.fetch_add(BATCH, std::sync::atomic::Ordering::SeqCst);
                    if batch >= blob.len() as usize {
                        break;
                    }
                    for at in (batch..(batch + BATCH).min(blob.len() as usize)).step_by(1 << 20) {
                        let len = (blob.len() as usize - at).min(1 << 20);
                        blob.read_at(at as u64, &mut buffer[..len]).unwrap();
                    }
                }
            });
        }
    });
    begin.elapsed()
}

#[test]
fn threads_that_read_side_by_side_share_the_readahead() {
    let server = server();
    let engine = engine(&server, 3);
    put(&engine, "large", &bytes(100_000_000, 4)).unwrap();
    server.faults().delay(Duration::from_millis(50));
    server.faults().take_calls();
    let one = read_by(&engine, 1);
    let requests = server.faults().take_calls().len();
    let two = read_by(&engine, 2);
    let requests_of_two = server.faults().take_calls().len();
    println!("one thread {one:?} in {requests} requests, two {two:?} in {requests_of_two}");
    assert!(two < one * 12 / 10 + Duration::from_millis(100), "{two:?} instead of {one:?}");
    assert!(requests_of_two <= requests * 12 / 10 + 4, "{requests_of_two} requests instead of {requests}");
}

#[test]
fn stray_objects_hide_only_themselves() {
    let server = server();
    let engine = shared(&server, PATIENT);
    put(&engine, "object", b"x").unwrap();
    put(&engine, "attempts/0001", b"x").unwrap();
    for stray in
        ["/x", "/", "./x", "../x", "x\u{1}y", "damaged//a", "attempts//a", "attempts/./b", "a&b<c>", "ü"]
    {
        server.objects().place(&format!("/bucket/{RUN}/{stray}"), b"stray").unwrap();
    }
    let keys =
        |folder| -> Vec<String> { engine.list(folder).unwrap().into_iter().map(|entry| entry.key).collect() };
    assert_eq!(keys(""), ["object"]);
    assert_eq!(keys("attempts"), ["attempts/0001"]);
    assert_eq!(keys("damaged"), [""; 0]);
    drop(Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap());
    let strays = by_url(&server, URL, PATIENT).strays().unwrap();
    let told = ["/x", "/", "./x", "../x", "x\u{1}y", "damaged//a", "attempts//a", "attempts/./b"];
    let mut told = told.map(|stray| format!("{RUN}/{stray}"));
    told.sort();
    assert_eq!(strays, told);
}

#[test]
fn a_prefix_is_the_one_that_other_programs_see() {
    let server = server();
    for prefix in ["run%20x", "run x", "runs/ü~[1]"] {
        server.objects().place(&format!("/bucket/{prefix}/object"), b"x").unwrap();
        let engine = by_url(&server, &format!("s3://bucket/{prefix}"), PATIENT);
        assert_eq!(engine.list("").unwrap().len(), 1, "{prefix}");
        assert_eq!(engine.open("object").unwrap().len(), 1, "{prefix}");
    }
    for url in
        ["s3://bucket//x", "s3://bucket/x//y", "s3://bucket/x//", "s3://bucket/x/../y", "s3://bucket/a\nb"]
    {
        let error = tensorkeep_object_store::ObjectStoreEngine::from_url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url:?}: {error}");
    }
}

#[test]
fn a_copied_commit_object_is_damaged_and_its_bytes_are_anothers() {
    let server = server();
    let engine = shared(&server, PATIENT);
    let content = bytes(LARGE, 3);
    put(&engine, "first", &content).unwrap();
    let mut commit = Vec::new();
    server.objects().tamper(&format!("/bucket/{RUN}/first"), |bytes| {
        commit.clone_from(bytes);
        Some(())
    });
    server.objects().place(&format!("/bucket/{RUN}/second"), &commit).unwrap();
    let error = engine.open("second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert!(error.to_string().contains("second") && error.to_string().contains("objects/first/"), "{error}");
    engine.delete("second").unwrap();
    assert!(get(&engine, "first").unwrap() == content);
}

#[test]
fn sweeping_lists_and_removes_the_remains_of_kills() {
    let server = server();
    let remote = by_url(&server, URL, PATIENT);
    let engine: Arc<dyn Engine> = Arc::new(remote.clone());
    put(&engine, "kept", &bytes(LARGE, 6)).unwrap();
    // A retried upload whose first try left its bytes: the key's commit names others.
    server.objects().place(&format!("/bucket/{RUN}/objects/kept/aa"), b"left").unwrap();
    server.objects().place(&format!("/bucket/{RUN}/objects/gone/bb"), b"left").unwrap();
    server.objects().place(&format!("/bucket/{RUN}/.probe-0123"), b"left").unwrap();
    server.objects().place(&format!("/bucket/{RUN}/.probe-0123-race"), b"left").unwrap();
    server.objects().place(&format!("/bucket/{RUN}/.profile"), b"not ours").unwrap();
    assert!(remote.orphans(Duration::from_secs(3600)).unwrap().is_empty());
    let orphans = remote.orphans(Duration::ZERO).unwrap();
    let mut keys: Vec<&str> = orphans.iter().map(|entry| entry.key.as_str()).collect();
    keys.sort();
    assert_eq!(keys, [".probe-0123", ".probe-0123-race", "objects/gone/bb", "objects/kept/aa"]);
    assert_eq!(remote.sweep(Duration::ZERO).unwrap().len(), 4);
    assert!(get(&engine, "kept").unwrap() == bytes(LARGE, 6));
    assert_eq!(server.objects().paths().len(), 3, "{:?}", server.objects().paths());
}

/// The answers that a look at a commit object can get.
const WRONG_ANSWERS: [(Fault, usize); 5] =
    [(Fault::NotFound, 1), (Fault::NotFound, 9), (Fault::Flip, 1), (Fault::Short, 1), (Fault::CutBody, 1)];

#[test]
fn wrong_answers_make_no_orphans() {
    let server = server();
    let engine = by_url(&server, URL, PATIENT);
    let (shared, content): (Arc<dyn Engine>, _) = (Arc::new(engine.clone()), bytes(LARGE, 7));
    put(&shared, "kept", &content).unwrap();
    for (fault, times) in WRONG_ANSWERS {
        server.faults().fail_matching(&format!("GET /bucket/{RUN}/kept"), 0, times, fault);
        let swept = engine.sweep(Duration::ZERO).unwrap();
        assert!(swept.is_empty(), "{fault:?}, {times} times: {swept:?}");
        server.faults().heal();
        assert!(get(&shared, "kept").unwrap() == content, "{fault:?}, {times} times");
    }
    // A later version's commit object.
    server.objects().tamper(&format!("/bucket/{RUN}/kept"), |bytes| {
        let one = bytes.iter().position(|byte| *byte == b'1')?;
        bytes[one] = b'2';
        Some(())
    });
    assert!(engine.orphans(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn wrong_answers_take_nothing_off_a_listing() {
    let server = server();
    put(&shared(&server, PATIENT), "kept", &bytes(LARGE, 8)).unwrap();
    for (fault, times) in WRONG_ANSWERS {
        let engine = shared(&server, PATIENT);
        server.faults().fail_matching(&format!("GET /bucket/{RUN}/kept"), 0, times, fault);
        let listed = engine.list("").unwrap();
        assert_eq!(listed.len(), 1, "{fault:?}, {times} times");
        server.faults().heal();
        let again = engine.list("").unwrap();
        assert_eq!((again.len(), again[0].len), (1, LARGE as u64), "{fault:?}, {times} times");
    }
}

#[test]
fn absent_commit_objects_do_not_hide_a_run() {
    let server = server();
    let settings = || StoreOptions::new().keep(Keep::last(2));
    let store = Store::open(shared(&server, PATIENT), settings()).unwrap();
    save(&store, 1, LARGE).unwrap();
    store.close().unwrap();
    for times in [1, 2, 3, 1000] {
        let store = Store::open(shared(&server, PATIENT), settings()).unwrap();
        server.faults().fail_matching(&format!("GET /bucket/{RUN}/0001-"), 0, times, Fault::NotFound);
        match store.resume() {
            Ok(resumed) => assert_eq!(resumed.next_step(), 1, "{times} times"),
            Err(error) => assert!(times > 3, "{times} times: {error:?}"),
        }
        server.faults().heal();
    }
}

#[test]
fn a_delete_that_was_not_made_is_sent_again() {
    let server = server();
    let engine = shared(&server, PATIENT);
    put(&engine, "small", b"x").unwrap();
    server.faults().fail_matching("DELETE", 0, 1, Fault::NotFound);
    engine.delete("small").unwrap();
    assert_eq!(engine.list("").unwrap().len(), 0);
    put(&engine, "small", b"x").unwrap();
    server.faults().fail_matching("DELETE", 0, 100, Fault::NotFound);
    assert_eq!(engine.delete("small").unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn an_answer_that_is_no_page_is_no_empty_run() {
    let server = server();
    let engine = shared(&server, Duration::from_secs(1));
    put(&engine, "small", b"x").unwrap();
    server.faults().fail_matching("list-type", 0, 1, Fault::NotAPage);
    assert_eq!(engine.list("").unwrap().len(), 1);
    server.faults().fail_matching("list-type", 0, 1000, Fault::NotAPage);
    assert_eq!(engine.list("").unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_listing_without_an_end_ends() {
    let server = server();
    let engine = shared(&server, PATIENT);
    put(&engine, "small", b"x").unwrap();
    server.faults().fail_matching("list-type", 0, FOREVER, Fault::EndlessList);
    let error = within(AT_MOST, move || engine.list("").unwrap_err()).0;
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
}

/// Two requests for the listing and one for each checkpoint, thirty-two at a time: 1 s of waiting.
#[test]
fn a_thousand_checkpoints_far_away_are_opened_in_seconds() {
    let server = server();
    let engine = shared(&server, PATIENT);
    let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    let snapshot = Snapshot::new().tensor("weights", &[1.0_f32; 100][..]).unwrap().progress(Progress::new(1));
    store.save(&snapshot).unwrap();
    drop(store);
    let first = get(&engine, "0001-0000000001.tkeep").unwrap();
    for step in 2..=1000 {
        server.objects().place(&format!("/bucket/{RUN}/0001-{step:010}.tkeep"), &first).unwrap();
    }
    server.faults().delay(Duration::from_millis(30));
    let store = StoreOptions::new().keep(tensorkeep::Keep::last(2000));
    let (store, took) = within(PATIENT, move || Store::open(engine, store).unwrap());
    println!("opened in {took:?}");
    // Three seconds on an idle machine.
    assert!(took < 8 * SECOND, "{took:?}");
    let (listed, took) = within(PATIENT, move || store.list().unwrap().len());
    assert!(listed == 1000 && took < SECOND, "{listed} in {took:?}");
}

/// Reads an object from its first byte to its last, with the request size of loading.
fn read_in_order(engine: &Arc<dyn Engine>, key: &str) -> Duration {
    let begin = Instant::now();
    let blob = engine.open(key).unwrap();
    let mut buffer = vec![0; 4 << 20];
    for at in (0..blob.len()).step_by(buffer.len()) {
        let count = (blob.len() - at).min(buffer.len() as u64) as usize;
        blob.read_at(at, &mut buffer[..count]).unwrap();
    }
    begin.elapsed()
}

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Resuming opens, reads and verifies every byte.
#[test]
fn a_resume_far_away_takes_little_longer_than_reading() {
    let server = server();
    let engine = shared(&server, PATIENT);
    let raw = tensorkeep::WriteOptions::new().codec(tensorkeep::Codec::Raw);
    let settings = || StoreOptions::new().write(raw.clone());
    let store = Store::open(Arc::clone(&engine), settings()).unwrap();
    let weights = noise(100_000_000);
    let snapshot = Snapshot::new().tensor("weights", &weights[..]).unwrap().progress(Progress::new(1));
    store.save(&snapshot).unwrap();
    drop(store);
    server.faults().delay(ROUND_TRIP);
    let in_order = read_in_order(&engine, "0001-0000000001.tkeep");
    let store = Store::open(shared(&server, PATIENT), settings()).unwrap();
    server.faults().take_calls();
    let begin = Instant::now();
    assert_eq!(store.resume().unwrap().next_step(), 1);
    let resumed = begin.elapsed();
    let calls = server.faults().take_calls();
    let others = calls.iter().filter(|call| !call.contains("/objects/")).count() as u32;
    println!("resumed in {resumed:?} with {others} other requests, read in order in {in_order:?}");
    assert!(others <= 7, "{calls:?}");
    // 1.2 times, besides the other requests, on an idle machine.
    assert!(resumed < in_order * 2 + ROUND_TRIP * others + SECOND, "{resumed:?} against {in_order:?}");
}
