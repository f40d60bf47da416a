//! What cannot be seen from outside: how much is remembered, and a line that is slow for the limits.

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
    let mut upload = engine.create(key, Some(len as u64))?;
    for piece in vec![7; len].chunks(1 << 20) {
        upload.append(piece)?;
    }
    Ok(upload.commit([1; 16])?)
}

#[test]
fn a_slow_line_takes_its_time_and_is_not_given_up() {
    let server = Server::start(Objects::in_memory()).unwrap();
    // 100 kB/s, three minutes and a line of 400 kB/s, all forty times faster: parts have 2 s each, eight that share the
    // line would take 4 s.
    let limits = Limits { call: Duration::from_secs(1), request: Duration::from_millis(200), rate: 4 << 20 };
    let engine = engine(&server);
    put(&engine, "first", 10).unwrap();
    let engine = with_limits(&engine, limits);
    server.limit_rate(16 << 20);
    put(&engine, "large", 72 << 20).unwrap();
    let blob = engine.open("large").unwrap();
    let mut bytes = vec![0; 40 << 20];
    blob.read_at(8 << 20, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
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
