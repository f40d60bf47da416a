//! Shared by the engine's tests: a server of their own, and engines on it with short pauses between
//! retries.
#![allow(dead_code, reason = "each test file uses its part")]

use fake_s3::{Objects, Server};
use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::Engine;
use tensorkeep::{Checkpoint, Progress, Result, Saved, Snapshot, Store};
use tensorkeep_object_store::{ObjectStoreEngine, object_store};

pub const RUN: &str = "runs/lenet";

pub fn server() -> Server {
    Server::start(Objects::in_memory()).unwrap()
}

/// A store on the server, with `retries` of the crate's own for each request.
pub fn store(server: &Server, retries: usize) -> Arc<dyn ObjectStore> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(200),
        base: 2.0,
    };
    let retry = RetryConfig { backoff, max_retries: retries, retry_timeout: Duration::from_secs(20) };
    let s3 = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(server.bucket())
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_disable_bulk_delete(true)
        .with_retry(retry);
    Arc::new(s3.build().unwrap())
}

pub fn engine(server: &Server, retries: usize) -> Arc<dyn Engine> {
    Arc::new(ObjectStoreEngine::new(store(server, retries), RUN).unwrap())
}

/// Options that point at the server. The system's certificates, of which plain HTTP needs none,
/// would take most of the time of opening.
pub fn options(server: &Server) -> Vec<(&'static str, String)> {
    vec![
        ("endpoint", server.endpoint()),
        ("allow_http", "true".to_owned()),
        ("disable_system_certificates", "true".to_owned()),
        ("region", "us-east-1".to_owned()),
        ("access_key_id", "key".to_owned()),
        ("secret_access_key", "secret".to_owned()),
    ]
}

/// The engine as users build it, by URL, whose calls end after `deadline`.
pub fn by_url(server: &Server, url: &str, deadline: Duration) -> ObjectStoreEngine {
    ObjectStoreEngine::from_url_with(url, options(server)).unwrap().with_deadline(deadline)
}

/// The result of `call`, if it ends in time.
pub fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> (T, Duration) {
    let (send, receive) = std::sync::mpsc::channel();
    let begin = std::time::Instant::now();
    std::thread::spawn(move || send.send(call()));
    let result = receive.recv_timeout(limit).unwrap_or_else(|_| panic!("no end within {limit:?}"));
    (result, begin.elapsed())
}

/// Bytes that vary.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let byte = |i: usize| ((i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..len).map(byte).collect()
}

pub fn put(engine: &Arc<dyn Engine>, key: &str, bytes: &[u8]) -> tensorkeep::Result<()> {
    let mut upload = engine.create(key, Some(bytes.len() as u64))?;
    upload.append(bytes)?;
    Ok(upload.commit(tensorkeep::engine::fresh_nonce())?)
}

pub fn get(engine: &Arc<dyn Engine>, key: &str) -> tensorkeep::Result<Vec<u8>> {
    let blob = engine.open(key)?;
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// An object as it is stored.
pub fn get_raw(server: &Server, path: &str) -> Vec<u8> {
    let mut found = Vec::new();
    server.objects().tamper(path, |bytes| {
        found = bytes.clone();
        Some(())
    });
    found
}

/// Saves a checkpoint of `len` bytes that only this step has.
pub fn save(store: &Store, step: u64, len: usize) -> Result<Saved> {
    let weights = bytes(len, step);
    store.save(&Snapshot::new().tensor("weights", &weights)?.progress(Progress::new(step)))
}

/// Checks that a checkpoint is the one from [`save`].
pub fn assert_is(checkpoint: &Checkpoint, step: u64, len: usize) {
    let found = checkpoint.tensor("weights").unwrap();
    assert!(found.bytes() == bytes(len, step), "step {step} has other bytes");
}
