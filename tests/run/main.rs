//! A run and everybody who deletes, pins, resumes or replaces it at the same time: who is fenced,
//! what stays, and that nothing whole goes while what stays is damaged. What happens at the same
//! time is made to happen at one call of the engine.

#[path = "../common/mod.rs"]
mod common;

mod absence;
mod damage;
mod deletion;
mod doubt;
mod hooked;
mod identity;
mod marks;
mod restarts;
mod tiers;

use std::sync::Arc;
use tensorkeep::engine::{Engine, Memory, fresh_nonce};
use tensorkeep::{Keep, Progress, Reader, Result, Saved, Snapshot, Store, StoreOptions};

fn open(engine: impl Engine + 'static, keep: Keep) -> Store {
    Store::open(engine, StoreOptions::new().keep(keep)).unwrap()
}

fn resumed(engine: impl Engine + 'static, keep: Keep) -> Store {
    let store = open(engine, keep);
    store.resume().unwrap();
    store
}

fn save(store: &Store, step: u64) -> Result<Saved> {
    let weights = vec![step as f32; 4096];
    let snapshot = Snapshot::new().tensor("weights", &weights)?.progress(Progress::new(step));
    store.save(&snapshot)
}

fn save_all(store: &Store, steps: impl IntoIterator<Item = u64>) {
    for step in steps {
        save(store, step).unwrap();
    }
}

fn steps(engine: impl Engine + 'static) -> Vec<u64> {
    Reader::new(engine).names().unwrap().iter().map(|name| name.step).collect()
}

/// An object's bytes.
fn read(engine: &Memory, key: &str) -> Vec<u8> {
    let blob = engine.open(key).unwrap();
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes).unwrap();
    bytes
}

fn put(engine: &Memory, key: &str, bytes: &[u8]) {
    let _ = engine.delete(key);
    let mut upload = engine.create(key, None).unwrap();
    upload.append(bytes).unwrap();
    upload.commit(fresh_nonce()).unwrap();
}

/// One bit of the weights of attempt 1's checkpoint at `step` changes: header, index and footer
/// stay whole.
fn rot(engine: &Memory, step: u64) {
    let key = format!("0001-{step:010}.tkeep");
    let mut bytes = read(engine, &key);
    bytes[4096 + 100] ^= 1;
    put(engine, &key, &bytes);
}

fn shared(engine: &Memory) -> Arc<dyn Engine> {
    Arc::new(engine.clone())
}
