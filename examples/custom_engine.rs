//! An engine of your own: here one that wraps another and counts its calls. Any storage with
//! create-only objects will do; `tensorkeep::testing::conformance` checks that yours fulfils the
//! contract.
//!
//! ```text
//! cargo run --release --example custom_engine --features testing
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tensorkeep::engine::{CommitError, Decorator, Engine, Memory, Nonce, Upload};
use tensorkeep::{Keep, Progress, Result, Snapshot, Store, StoreOptions};

/// Counts the calls and bytes that pass through it.
#[derive(Debug)]
struct Metered<E> {
    inner: E,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    committed: AtomicU64,
    bytes: AtomicU64,
    deleted: AtomicU64,
}

impl<E: Engine> Decorator for Metered<E> {
    type Inner = E;

    fn inner(&self) -> &E {
        &self.inner
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        let inner = self.inner.create(key, size_hint)?;
        Ok(Box::new(MeteredUpload { inner, counts: Arc::clone(&self.counts) }))
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key)?;
        self.counts.deleted.fetch_add(1, Relaxed);
        Ok(())
    }

    fn describe(&self, key: &str) -> String {
        format!("metered {}", self.inner.describe(key))
    }
}

struct MeteredUpload {
    inner: Box<dyn Upload>,
    counts: Arc<Counts>,
}

impl Upload for MeteredUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.counts.bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.inner.append(bytes)
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        self.inner.commit(nonce)?;
        self.counts.committed.fetch_add(1, Relaxed);
        Ok(())
    }
}

fn main() -> Result<()> {
    tensorkeep::testing::conformance::run(|| {
        Arc::new(Metered { inner: Memory::new(), counts: Arc::default() })
    })?;
    println!("the engine keeps the contract");

    let counts = Arc::new(Counts::default());
    let engine = Metered { inner: Memory::new(), counts: Arc::clone(&counts) };
    let store = Store::open(engine, StoreOptions::new().keep(Keep::last(2)))?;
    let weights = vec![0.5_f32; 100_000];
    for step in 1..=5 {
        let snapshot = Snapshot::new().tensor("weights", &weights)?.progress(Progress::new(step));
        store.save(&snapshot)?;
    }
    let [committed, bytes, deleted] =
        [&counts.committed, &counts.bytes, &counts.deleted].map(|n| n.load(Relaxed));
    println!("{committed} objects committed ({bytes} bytes), {deleted} deleted by rotation");
    Ok(())
}
