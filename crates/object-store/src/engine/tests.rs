//! Internals that cannot be observed from outside: the remembered lengths and remains, and a line
//! too slow for the limits.

use super::*;
use fake_s3::{Objects, Server};

fn engine(server: &Server) -> ObjectStoreEngine {
    let options = [
        ("endpoint", server.endpoint()),
        ("allow_http", "true".to_owned()),
        ("region", "us-east-1".to_owned()),
        ("access_key_id", "key".to_owned()),
        ("secret_access_key", "secret".to_owned()),
    ];
    ObjectStoreEngine::from_url_with("s3://bucket/run", options).unwrap()
}

fn with_limits(engine: &ObjectStoreEngine, limits: Limits) -> ObjectStoreEngine {
    ObjectStoreEngine::over(Remote { limits, ..Remote::clone(&engine.0.remote) }, engine.0.probed.clone())
}

fn put(engine: &ObjectStoreEngine, key: &str, len: usize) -> Result<()> {
    put_while(engine, key, len, |_| {})
}

/// Puts an object; `appended` is called with the number of bytes so far.
fn put_while(engine: &ObjectStoreEngine, key: &str, len: usize, appended: impl Fn(usize)) -> Result<()> {
    let mut upload = engine.create(key, Some(len as u64))?;
    for (number, piece) in vec![7; len].chunks(1 << 20).enumerate() {
        upload.append(piece)?;
        appended((number + 1) << 20);
    }
    Ok(upload.commit([1; 16])?)
}

/// 100 kB/s, three minutes and 30 s, forty times faster: parts have 2.75 s each. Eight of them that
/// share a line of 16 MiB/s would take 4 s.
const FASTER: Limits =
    Limits { call: Duration::from_millis(4500), request: Duration::from_millis(750), rate: 4 << 20 };

#[test]
fn a_slow_line_takes_its_time_and_is_not_given_up() {
    let server = Server::start(Objects::in_memory()).unwrap();
    let engine = engine(&server);
    put(&engine, "first", 10).unwrap();
    let engine = with_limits(&engine, FASTER);
    server.limit_rate(16 << 20);
    server.faults().take_calls();
    put(&engine, "large", 72 << 20).unwrap();
    let parts = server.faults().take_calls().iter().filter(|call| call.contains("partNumber")).count();
    assert_eq!(parts, 9, "a part was cut and sent again");
    let blob = engine.open("large").unwrap();
    let mut bytes = vec![0; 40 << 20];
    blob.read_at(8 << 20, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn a_line_that_becomes_slow_carries_fewer_parts() {
    let server = Server::start(Objects::in_memory()).unwrap();
    let engine = engine(&server);
    put(&engine, "first", 10).unwrap();
    // Slow enough that all requests in flight are cut.
    let engine = with_limits(&engine, FASTER);
    put_while(&engine, "large", 144 << 20, |appended| {
        if appended == 64 << 20 {
            server.limit_rate(16 << 20);
        }
    })
    .unwrap();
    assert_eq!(engine.open("large").unwrap().len(), 144 << 20);
}

#[test]
fn lengths_are_forgotten_with_their_objects() {
    let server = Server::start(Objects::in_memory()).unwrap();
    let engine = engine(&server);
    for step in 0..20 {
        put(&engine, &format!("object-{step}"), (1 << 20) + 1).unwrap();
        if step >= 2 {
            engine.delete(&format!("object-{}", step - 2)).unwrap();
        }
        assert_eq!(engine.list("").unwrap().len(), (step + 1).min(2));
    }
    assert_eq!(engine.0.lengths.count(), 2);
}

#[test]
fn a_clock_that_is_days_ahead_makes_nothing_old() {
    let server = Server::start(Objects::in_memory()).unwrap();
    let engine = engine(&server);
    for path in ["/bucket/run/objects/large/aa", "/bucket/run/first"] {
        server.objects().place(path, b"x").unwrap();
        server.objects().age(path, Duration::from_secs(48 * 3600));
    }
    let left = || {
        engine.list_each(&["", "pins"]).unwrap();
        engine.0.remote.left.count()
    };
    assert_eq!(left(), 0, "an upload of now, by the store's clock");
    server.objects().place("/bucket/run/second", b"x").unwrap();
    assert_eq!(left(), 1);
}
