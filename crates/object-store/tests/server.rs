//! The engine over the wire, on a server without faults: the contract, the promises of a store, the
//! objects that large checkpoints leave in the bucket, the number of requests, and the errors for
//! bad input.

mod common;

use common::{RUN, by_url, bytes, engine, get, get_raw, put, server, store};
use fake_s3::{Fault, Objects, Server};
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::Engine;
use tensorkeep::testing::{conformance, store_suite};
use tensorkeep::{
    Codec, ErrorKind, Keep, OpenOptions, Progress, Snapshot, Store, StoreOptions, WriteOptions,
};
use tensorkeep_object_store::ObjectStoreEngine;
use tensorkeep_object_store::object_store::{self, ObjectStoreExt};

const LARGE: usize = 20_000_003;

/// Longer than any test.
const PATIENT: Duration = Duration::from_secs(60);

#[test]
fn the_engine_keeps_the_contract() {
    let mut servers = Vec::new();
    conformance::run(|| {
        servers.push(server());
        engine(servers.last().unwrap(), 3)
    })
    .unwrap();
}

#[test]
fn a_store_on_it_keeps_its_promises() {
    let mut servers = Vec::new();
    store_suite::run(|| {
        servers.push(server());
        engine(servers.last().unwrap(), 3)
    });
}

#[test]
fn a_large_object_is_listed_with_its_length_and_deleted_whole() {
    let server = server();
    let engine = engine(&server, 3);
    let content = bytes(LARGE, 1);
    put(&engine, "large", &content).unwrap();
    put(&engine, "small", b"small").unwrap();
    assert!(get(&engine, "large").unwrap() == content);
    let blob = engine.open("large").unwrap();
    for (offset, len) in
        [(0, 10), (4090, 20), (8 << 20, 1 << 20), (LARGE - 5, 5), (LARGE - (1 << 20) - 3, 10)]
    {
        let mut buffer = vec![0; len];
        blob.read_at(offset as u64, &mut buffer).unwrap();
        assert!(buffer == content[offset..offset + len], "{len} bytes at {offset}");
    }
    let mut entries = engine.list("").unwrap();
    entries.sort();
    let listed: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.len)).collect();
    assert_eq!(listed, [("large", LARGE as u64), ("small", 5)]);
    assert!(engine.list("objects").unwrap().is_empty());
    engine.delete("large").unwrap();
    engine.delete("small").unwrap();
    assert!(server.objects().paths().is_empty(), "{:?}", server.objects().paths());
    assert_eq!(blob.read_at(9 << 20, &mut [0; 100]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn lengths_around_every_threshold_come_back() {
    let server = server();
    let engine = engine(&server, 3);
    for len in
        [0, 1, 1533, 4096 + 1533, 1 << 20, (1 << 20) + 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 16 << 20]
    {
        let (key, content) = (format!("object-{len}"), bytes(len, 2));
        put(&engine, &key, &content).unwrap();
        assert!(get(&engine, &key).unwrap() == content, "{len}");
        assert!(engine.list("").unwrap().iter().any(|entry| entry.key == key && entry.len == len as u64));
    }
}

#[test]
fn a_checkpoint_that_another_program_put_there_opens_as_it_is() {
    let server = server();
    let engine = engine(&server, 3);
    let values = bytes(LARGE, 10);
    let snapshot = Snapshot::new().tensor("values", &values[..]).unwrap().progress(Progress::new(1));
    let file = snapshot.to_bytes(&WriteOptions::new()).unwrap();
    let path = object_store::path::Path::from(format!("{RUN}/0001-0000000001.tkeep"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store(&server, 3).put(&path, file.into())).unwrap();
    let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    let checkpoint = store.resume().unwrap().checkpoint.unwrap();
    assert!(checkpoint.tensor("values").unwrap().bytes() == &values[..]);
}

#[test]
fn an_object_like_a_commit_object_comes_back_unchanged() {
    let server = server();
    let engine = engine(&server, 3);
    put(&engine, "large", &bytes(LARGE, 3)).unwrap();
    let stored = get_raw(&server, &format!("/bucket/{RUN}/large"));
    put(&engine, "copy", &stored).unwrap();
    assert!(get(&engine, "copy").unwrap() == stored);
    assert_eq!(
        engine.list("").unwrap().iter().find(|entry| entry.key == "copy").unwrap().len,
        stored.len() as u64
    );
}

#[test]
fn an_upload_that_is_dropped_leaves_neither_parts_nor_objects() {
    let server = server();
    let engine = engine(&server, 3);
    put(&engine, "taken", b"taken").unwrap();
    let mut upload = engine.create("large", None).unwrap();
    upload.append(&bytes(LARGE, 4)).unwrap();
    assert_eq!(server.objects().unfinished_uploads(), 1);
    drop(upload);
    assert_eq!(server.objects().unfinished_uploads(), 0);
    // The loser of a race has completed its parts before it loses.
    let mut late = engine.create("raced", None).unwrap();
    late.append(&bytes(LARGE, 5)).unwrap();
    put(&engine, "raced", b"first").unwrap();
    late.commit([5; 16]).unwrap_err();
    assert_eq!((server.objects().unfinished_uploads(), server.objects().paths().len()), (0, 2));
}

#[test]
fn bytes_that_no_commit_names_are_swept_and_others_are_not() {
    let server = server();
    let remote = ObjectStoreEngine::new(store(&server, 3), RUN).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(remote.clone());
    put(&engine, "kept", &bytes(LARGE, 6)).unwrap();
    put(&engine, "killed", &bytes(LARGE, 7)).unwrap();
    server.objects().tamper(&format!("/bucket/{RUN}/killed"), |_| None);
    assert_eq!(remote.sweep(Duration::from_secs(3600)).unwrap().len(), 0);
    assert_eq!(remote.sweep(Duration::ZERO).unwrap().len(), 1);
    assert!(get(&engine, "kept").unwrap() == bytes(LARGE, 6));
    assert_eq!(server.objects().paths().len(), 2);
}

#[test]
fn opening_100_000_tensors_is_one_request() {
    let server = server();
    let engine = engine(&server, 3);
    let (values, mut snapshot) = (bytes(100_000 * 64, 9), Snapshot::new());
    for (number, values) in values.chunks(64).enumerate() {
        snapshot = snapshot.tensor(format!("layer.{number}.weight"), values).unwrap();
    }
    snapshot = snapshot.progress(Progress::new(1));
    let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    store.save(&snapshot).unwrap();
    server.faults().take_calls();
    let blob = engine.open("0001-0000000001.tkeep").unwrap();
    let checkpoint = OpenOptions::new().open_blob(blob, "remote").unwrap();
    let opening = server.faults().take_calls();
    let tensor = checkpoint.tensor("layer.54321.weight").unwrap();
    assert!(tensor.bytes() == &values[54_321 * 64..54_322 * 64]);
    let loading = server.faults().take_calls();
    println!("opening: {opening:?}\nloading one tensor: {loading:?}");
    assert_eq!((opening.len(), loading.len()), (1, 1), "{opening:?} {loading:?}");
    let all = checkpoint.load(checkpoint.names()).unwrap();
    let places = checkpoint.names().map(|name| name.split('.').nth(1).unwrap().parse::<usize>().unwrap());
    assert!(places.zip(&all).all(|(i, tensor)| tensor.bytes() == &values[i * 64..][..64]));
    let loading = server.faults().take_calls();
    assert!(loading.len() <= 4, "{} requests: {loading:?}", loading.len());
}

#[test]
fn a_small_checkpoint_is_opened_and_loaded_in_one_request() {
    let server = server();
    let engine = engine(&server, 3);
    let values = vec![0.5_f32; 60_000];
    let snapshot = Snapshot::new().tensor("weight", &values[..]).unwrap().progress(Progress::new(1));
    let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    store.save(&snapshot).unwrap();
    server.faults().take_calls();
    let blob = engine.open("0001-0000000001.tkeep").unwrap();
    let checkpoint = OpenOptions::new().open_blob(blob, "remote").unwrap();
    checkpoint.verify().unwrap();
    assert_eq!(server.faults().take_calls().len(), 1);
}

#[test]
fn a_store_without_conditional_put_is_refused_with_a_reason() {
    let server = Server::start_without_conditions(Objects::in_memory()).unwrap();
    let engine = engine(&server, 3);
    assert!(!engine.caps().create_only);
    let error = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("overwrite each other"), "{error}");
    let error = put(&engine, "object", b"x").unwrap_err();
    assert!(error.to_string().contains("ignores the condition"), "{error}");
    assert!(server.objects().paths().is_empty(), "the probe left {:?}", server.objects().paths());
}

#[test]
fn errors_of_bad_input_name_the_object_and_help() {
    let server = server();
    let at = |url: &str, options: &[(&str, &str)]| {
        let own = [("endpoint", server.endpoint()), ("allow_http", "true".into()), ("region", "x".into())];
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let keys = [("access_key_id", "key"), ("secret_access_key", "secret")];
        let options: Vec<_> = own.chain(keys).chain(options.iter().copied()).collect();
        ObjectStoreEngine::from_url_with(url, options)
            .and_then(|engine| Store::open(engine, StoreOptions::new()))
    };
    drop(at("s3://bucket/run", &[]).unwrap());
    let missing = at("s3://nowhere/run", &[]).unwrap_err().to_string();
    assert!(missing.contains("s3://nowhere/run") && missing.contains("no such bucket"), "{missing}");
    server.faults().fail_after(0, 1000, Fault::ClockSkew);
    let skewed = at("s3://bucket/run", &[]).unwrap_err().to_string();
    assert!(skewed.contains("s3://bucket/run") && skewed.contains("clock"), "{skewed}");
    server.faults().heal();
    server.faults().fail_after(0, 1000, Fault::WrongSecret);
    let wrong = at("s3://bucket/run", &[]).unwrap_err().to_string();
    assert!(wrong.contains("s3://bucket/run") && wrong.contains("AWS_SECRET_ACCESS_KEY"), "{wrong}");
    server.faults().heal();
    let unknown = at("ftp://bucket/run", &[]).unwrap_err().to_string();
    assert!(unknown.contains("ftp://bucket/run") && unknown.contains("expected s3://"), "{unknown}");
    let http = at("s3://bucket/run", &[("allow_http", "false")]).unwrap_err().to_string();
    assert!(http.contains("AWS_ALLOW_HTTP"), "{http}");
}

#[test]
fn resume_falls_back_past_damage_and_marks_it() {
    let server = server();
    let engine = engine(&server, 3);
    let open = || Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    let store = open();
    for (step, len) in [(1, 1000), (2, LARGE), (3, 1000)] {
        let values = bytes(len, step);
        let snapshot = Snapshot::new().tensor("values", &values[..]).unwrap().progress(Progress::new(step));
        store.save(&snapshot).unwrap();
    }
    for path in server.objects().paths() {
        if path.contains("-0000000003") || (path.contains("-0000000002") && path.contains("/objects/")) {
            server.objects().tamper(&path, |bytes| {
                bytes[5000] ^= 1;
                Some(())
            });
        }
    }
    let resumed = store.resume().unwrap();
    let skipped: Vec<u64> = resumed.skipped.iter().map(|skipped| skipped.id.step).collect();
    assert_eq!((resumed.next_step(), skipped), (1, vec![3, 2]));
    let again = open().resume().unwrap();
    assert!(again.next_step() == 1 && again.skipped.is_empty(), "the marks were not seen");
}

#[test]
fn a_writer_sweeps_day_old_remains_of_a_killed_one() {
    let server = server();
    let url = format!("s3://bucket/{RUN}");
    let settings = StoreOptions::new().keep(Keep::last(2)).write(WriteOptions::new().codec(Codec::Raw));
    let store = Store::open(by_url(&server, &url, PATIENT), settings).unwrap();
    let save = |step: u64, len: usize| {
        let weights = bytes(len, step);
        let snapshot = Snapshot::new().tensor("weights", &weights[..]).unwrap().progress(Progress::new(step));
        store.save(&snapshot).unwrap();
    };
    save(1, LARGE);
    let data = |server: &Server| -> Vec<String> {
        server.objects().paths().into_iter().filter(|path| path.contains("/objects/")).collect()
    };
    let [committed] = &data(&server)[..] else { panic!("one large object: {:?}", data(&server)) };
    let at = |name: &str| format!("/bucket/{RUN}/objects/{name}/0123456789abcdef0123456789abcdef");
    let (left, young, foreign) = (at("0001-0000000009.tkeep"), at("0001-0000000008.tkeep"), at("not a key"));
    for path in [&left, &young, &foreign] {
        server.objects().place(path, b"left").unwrap();
    }
    for path in [committed, &left, &foreign] {
        server.objects().age(path, Duration::from_secs(25 * 3600));
    }
    // The first save lists, the second commits after that.
    save(2, 1000);
    save(3, 1000);
    let until = std::time::Instant::now() + PATIENT;
    while data(&server).contains(&left) && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Rotation removed step 1, and its bytes with it.
    let mut stays = vec![young, foreign];
    stays.sort();
    assert_eq!(data(&server), stays);
}

/// A replica of another bucket, where the commit object may arrive before the bytes that it names.
#[test]
fn a_replica_that_has_the_commit_object_first_is_waited_for() {
    let server = server();
    let store = Store::open(engine(&server, 3), StoreOptions::new()).unwrap();
    for step in 1..=2 {
        let weights = bytes(LARGE, step);
        let snapshot = Snapshot::new().tensor("weights", &weights[..]).unwrap().progress(Progress::new(step));
        store.save(&snapshot).unwrap();
    }
    drop(store);
    let is_data = |path: &&String| path.contains("/objects/") && path.contains("-0000000002");
    let data = server.objects().paths().iter().find(is_data).unwrap().clone();
    let bytes = get_raw(&server, &data);
    server.objects().tamper(&data, |_| None);
    let store = Store::open(engine(&server, 3), StoreOptions::new()).unwrap();
    // They never arrive: the checkpoint is skipped, and not condemned for it.
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (1, 1));
    assert!(resumed.skipped[0].set_aside.is_none(), "{:?}", resumed.skipped[0]);
    drop(store);
    let store = Store::open(engine(&server, 3), StoreOptions::new()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            server.objects().place(&data, &bytes).unwrap();
        });
        let resumed = store.resume().unwrap();
        assert_eq!((resumed.next_step(), resumed.skipped.len()), (2, 0));
    });
}

#[test]
fn a_short_large_object_is_damaged_and_a_missing_one_not_found() {
    let server = server();
    let engine = engine(&server, 3);
    put(&engine, "large", &bytes(LARGE, 8)).unwrap();
    let blob = engine.open("large").unwrap();
    let data = server.objects().paths().into_iter().find(|path| path.contains("/objects/")).unwrap();
    server.objects().tamper(&data, |bytes| {
        bytes.truncate(10_000_000);
        Some(())
    });
    let short = blob.read_at(9_999_000, &mut [0; 2000]).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::Damaged);
    assert!(short.to_string().contains("large: ") && short.to_string().contains("10000000"), "{short}");
    server.objects().tamper(&data, |_| None);
    let missing = blob.read_at(9_999_000, &mut [0; 2000]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("objects/large/"), "{missing}");
    server.objects().tamper(&format!("/bucket/{RUN}/large"), |bytes| {
        bytes[100] ^= 1;
        Some(())
    });
    assert_eq!(engine.open("large").unwrap_err().kind(), ErrorKind::Damaged);
}
