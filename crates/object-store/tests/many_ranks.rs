//! 256 ranks, as threads, on one server that tells them to slow down: how long the commit takes
//! once the last shard is stored.

mod common;

use common::{by_url, server};
use fake_s3::Server;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tensorkeep::engine::{CommitError, Decorator, Engine, Memory, Nonce, Upload};
use tensorkeep::layout::Layout;
use tensorkeep::ranks::Collective;
use tensorkeep::{Keep, Progress, Reader, Result, Snapshot, Store, StoreOptions};
use test_support::ranks::job;

const RANKS: u32 = 256;
/// What the server takes each second: fewer writes than there are shards.
const WRITES: u32 = 200;
const READS: u32 = 400;

/// Knows when the newest shard was stored.
#[derive(Clone)]
struct Watched {
    inner: Arc<dyn Engine>,
    stored: Arc<Mutex<Option<Instant>>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Decorator for Watched {
    type Inner = dyn Engine;

    fn inner(&self) -> &(dyn Engine + 'static) {
        &*self.inner
    }

    fn create_shard(&self, key: &str, size_hint: Option<u64>, save_len: u64) -> Result<Box<dyn Upload>> {
        let upload = Engine::create_shard(&*self.inner, key, size_hint, save_len)?;
        Ok(Box::new(Shard { upload, stored: Arc::clone(&self.stored) }))
    }

    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<tensorkeep::engine::Entry>>> {
        Engine::list_each(&*self.inner, folders)
    }
}

struct Shard {
    upload: Box<dyn Upload>,
    stored: Arc<Mutex<Option<Instant>>>,
}

impl Upload for Shard {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.upload.append(bytes)
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        self.upload.commit(nonce)?;
        *self.stored.lock().unwrap() = Some(Instant::now());
        Ok(())
    }
}

/// Saves three times; returns the median time from the last stored shard until every rank knew.
fn commit_time(engine: Arc<dyn Engine>, world: u32) -> Duration {
    let stored: Arc<Mutex<Option<Instant>>> = Arc::default();
    let engine = Watched { inner: engine, stored: Arc::clone(&stored) };
    let ends = job(world, |ranks| {
        let rank = ranks.rank();
        let options = StoreOptions::new()
            .keep(Keep::last(2))
            .rank_deadline(Duration::from_secs(60))
            .least_shard_bytes(0);
        let store = Store::open_ranks(engine.clone(), ranks, options).unwrap();
        let layout = Layout::sharded(0, world).unwrap();
        let row = [rank as f32; 64];
        let ends: Vec<(Instant, Instant)> = (1..=3)
            .map(|step| {
                let snapshot = Snapshot::new()
                    .sharded("w", ([1, 64], &row), &[u64::from(world), 64], &layout)
                    .unwrap()
                    .progress(Progress::new(step));
                store.save(&snapshot).unwrap();
                // No rank stores the next shard before it has heard of this save.
                (stored.lock().unwrap().unwrap(), Instant::now())
            })
            .collect();
        store.close().unwrap();
        ends
    });
    let commit = |step: usize| {
        let known = ends.iter().map(|ends| ends[step].1).max().unwrap();
        // A rank that has begun the next save has seen a shard of it.
        let stored = ends.iter().map(|ends| ends[step].0).min().unwrap();
        known.saturating_duration_since(stored)
    };
    let mut took: Vec<Duration> = (0..3).map(commit).collect();
    took.sort_unstable();
    took[1]
}

/// All rows are there, of the last two saves.
fn check(reader: &Reader) {
    assert_eq!(reader.ids().unwrap().iter().map(|id| id.step).collect::<Vec<_>>(), [2, 3]);
    let checkpoint = reader.latest().unwrap().unwrap();
    let w = checkpoint.tensor("w").unwrap().to_vec::<f32>().unwrap();
    assert!(w.chunks(64).enumerate().all(|(rank, row)| row == [rank as f32; 64]));
}

#[test]
fn many_ranks_commit_in_memory() {
    let memory = Memory::new();
    let took = commit_time(Arc::new(memory.clone()), RANKS);
    println!("{RANKS} ranks, memory: {took:?}");
    check(&Reader::new(memory));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn many_ranks_commit_on_a_throttling_server() {
    let server: Server = server();
    server.faults().throttle(WRITES, READS);
    let engine = by_url(&server, "s3://bucket/runs/ranks", Duration::from_secs(60));
    let took = commit_time(Arc::new(engine.clone()), RANKS);
    println!("{RANKS} ranks, server: {took:?}; told to slow down: {}", server.faults().throttled());
    assert!(server.faults().throttled() > 0);
    check(&Reader::new(engine));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_shard_is_stored_by_one_request() {
    let server: Server = server();
    let engine = by_url(&server, "s3://bucket/runs/ranks", Duration::from_secs(60));
    commit_time(Arc::new(engine), 2);
    let calls = server.faults().take_calls();
    // Its name is nobody else's: nobody looks whether it is free. Those of step 1 are deleted
    // again.
    let newest = calls.iter().filter(|call| call.contains("/shards/") && call.contains("-0000000003-"));
    let methods: Vec<&str> = newest.filter_map(|call| call.split(' ').next()).collect();
    assert_eq!(methods, ["PUT", "PUT"]);
}
