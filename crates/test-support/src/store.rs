//! Small checkpoints of stores: saved, listed, damaged.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;
use tensorkeep::engine::{Engine, fresh_nonce};
use tensorkeep::{Progress, Reader, Result, Saved, Snapshot, Store};

/// A snapshot at `step`: the f32 tensor `weight` holds it `elements` times.
pub fn snapshot(step: u64, elements: usize) -> Snapshot<'static> {
    let weight = vec![step as f32; elements];
    Snapshot::new().tensor("weight", weight).unwrap().progress(Progress::new(step))
}

/// Saves a [`snapshot`] of 100 elements.
pub fn save(store: &Store, step: u64) -> Result<Saved> {
    save_elements(store, step, 100)
}

/// Saves a [`snapshot`].
pub fn save_elements(store: &Store, step: u64, elements: usize) -> Result<Saved> {
    store.save(&snapshot(step, elements))
}

/// The steps of all checkpoints in order.
pub fn steps(store: &Store) -> Vec<u64> {
    steps_of(&store.reader())
}

/// The steps of all checkpoints in an engine, in order.
pub fn steps_in(engine: &(impl Engine + Clone + 'static)) -> Vec<u64> {
    steps_of(&Reader::new(engine.clone()))
}

fn steps_of(reader: &Reader) -> Vec<u64> {
    reader.ids().unwrap().iter().map(|name| name.step).collect()
}

/// An object's bytes.
pub fn get(engine: &(impl Engine + ?Sized), key: &str) -> Vec<u8> {
    let blob = engine.open(key).unwrap();
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Creates an object, in place of an existing one.
pub fn put(engine: &(impl Engine + ?Sized), key: &str, bytes: &[u8]) {
    let _ = engine.delete(key);
    let mut upload = engine.create(key, None).unwrap();
    upload.append(bytes).unwrap();
    upload.commit(fresh_nonce()).unwrap();
}

/// Flips a bit of a published file, in the tensors of a small checkpoint.
pub fn flip_on_disk(path: &Path) {
    flip_byte_on_disk(path, 4096 + 64);
}

/// Flips the lowest bit of a published file's byte.
pub fn flip_byte_on_disk(path: &Path, byte: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1;
    // Published files are read-only.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The result of `act`; fails if it takes 20 s, which is long enough for any machine.
pub fn ends_in_time<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    std::thread::spawn(move || done.send(act()));
    result.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{what} hangs, or has panicked"))
}
