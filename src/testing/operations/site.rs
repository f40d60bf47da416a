//! Places where a run lives, processes that use them and may be killed at any call, and an
//! independent view of them that does not use the store.

use super::decode::Place;
use crate::clock::script;
use crate::engine::{
    Blob, Caps, CommitError, Engine, Entry, Local, Lock, Memory, Nonce, Upload, fresh_nonce,
};
use crate::error::{Error, ErrorKind, Result};
use crate::store::CheckpointId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Limit of engine calls in one operation; beyond, it counts as endless.
const MOST_CALLS: u64 = 20_000;

/// The folders of a run.
const FOLDERS: [&str; 4] = ["", "attempts", "pins", "damaged"];

/// Where one tier of a run lives.
#[derive(Debug)]
pub(super) struct Site {
    pub raw: Arc<dyn Engine>,
    pub locks: bool,
    /// Whether it is unreachable.
    pub is_down: AtomicBool,
    /// How many requests for existing objects are answered with "not found".
    pub lies: AtomicU64,
    pub folder: Option<PathBuf>,
}

impl Site {
    fn of_engine(raw: Arc<dyn Engine>, locks: bool, folder: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { raw, locks, is_down: AtomicBool::new(false), lies: AtomicU64::new(0), folder })
    }

    fn memory(locks: bool) -> Arc<Self> {
        Self::of_engine(Arc::new(Memory::new()), locks, None)
    }

    /// A folder in memory if there is one: nothing here waits for a disk.
    fn local() -> Result<Arc<Self>> {
        let shm = PathBuf::from("/dev/shm");
        let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
        // Nonces follow from a script here, the same in every thread.
        static FOLDERS_MADE: AtomicU64 = AtomicU64::new(0);
        let number = FOLDERS_MADE.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("tensorkeep-operations-{}-{number}", std::process::id()));
        Ok(Self::of_engine(Arc::new(Local::create(&folder)?), true, Some(folder)))
    }

    /// The tiers of a place, the local one first.
    pub fn of(place: Place) -> Result<Vec<Arc<Self>>> {
        Ok(match place {
            Place::Memory => vec![Self::memory(true)],
            Place::Lockless => vec![Self::memory(false)],
            Place::Local => vec![Self::local()?],
            Place::Tiers => vec![Self::memory(true), Self::memory(true)],
            Place::LocklessTiers => vec![Self::memory(true), Self::memory(false)],
        })
    }

    /// An object's bytes.
    pub fn read(&self, key: &str) -> Result<Vec<u8>> {
        read(&*self.raw, key)
    }

    /// Replaces an object's bytes, as no store does.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let _ = self.raw.delete(key);
        let mut upload = self.raw.create(key, None)?;
        upload.append(bytes)?;
        Ok(upload.commit(fresh_nonce())?)
    }

    /// Replaces all objects.
    pub fn become_image(&self, image: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        for key in image_of(&*self.raw)?.keys() {
            self.raw.delete(key)?;
        }
        image.iter().try_for_each(|(key, bytes)| self.put(key, bytes))
    }
}

fn read(engine: &dyn Engine, key: &str) -> Result<Vec<u8>> {
    let blob = engine.open(key)?;
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// All objects of a run.
pub(super) fn image_of(engine: &dyn Engine) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut objects = BTreeMap::new();
    for folder in FOLDERS {
        for entry in engine.list(folder)? {
            let bytes = read(engine, &entry.key)?;
            objects.insert(entry.key, bytes);
        }
    }
    Ok(objects)
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// A run as seen without the store's help.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub ids: BTreeSet<CheckpointId>,
    pub pins: BTreeSet<CheckpointId>,
    /// Marked by a deleter.
    pub condemned: BTreeSet<CheckpointId>,
    /// The checkpoints that the newest attempt resumed from.
    pub held: BTreeSet<CheckpointId>,
    pub newest: u32,
    pub set_aside: usize,
}

impl Seen {
    pub fn of(site: &Site) -> Result<Self> {
        let mut seen = Self::default();
        let mut held = Vec::new();
        for entry in site.raw.list("attempts")? {
            let key = entry.key.trim_start_matches("attempts/");
            if let Some((_, id)) = key.split_once(".deletes.") {
                seen.condemned.extend(id.parse::<CheckpointId>());
            } else if let Some((attempt, id)) = key.split_once(".resumed.") {
                held.extend(attempt.parse::<u32>().ok().zip(id.parse::<CheckpointId>().ok()));
            } else if let Ok(attempt) = key.parse::<u32>() {
                seen.newest = seen.newest.max(attempt);
            }
        }
        let newest = seen.newest;
        seen.held.extend(held.into_iter().filter(|(attempt, _)| *attempt == newest).map(|(_, id)| id));
        let damaged: BTreeSet<String> =
            site.raw.list("damaged")?.into_iter().map(|entry| entry.key).collect();
        seen.set_aside = damaged.len();
        for entry in site.raw.list("")? {
            let Some(Ok(id)) = entry.key.strip_suffix(".tkeep").map(str::parse::<CheckpointId>) else {
                continue;
            };
            if !damaged.contains(&format!("damaged/{id}.mark")) {
                seen.ids.insert(id);
            }
        }
        let pins = site.raw.list("pins")?;
        seen.pins = pins.iter().filter_map(|entry| entry.key.strip_prefix("pins/")?.parse().ok()).collect();
        Ok(seen)
    }
}

/// The life of a process, counted in calls; its threads share it.
#[derive(Debug)]
pub(super) struct Life {
    seed: u64,
    clock: Arc<AtomicU64>,
    threads: AtomicU64,
    calls: AtomicU64,
    dies_at: AtomicU64,
    since: AtomicU64,
}

impl Life {
    pub fn new(seed: u64, clock: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            seed,
            clock: Arc::clone(clock),
            threads: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            dies_at: AtomicU64::new(u64::MAX),
            since: AtomicU64::new(0),
        })
    }

    /// Kills it after this many more calls.
    pub fn end_after(&self, calls: u64) {
        self.dies_at.store(self.calls.load(Ordering::SeqCst) + calls, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.dies_at.load(Ordering::SeqCst)
    }

    /// Begins to count the calls of an operation.
    pub fn begin(&self) {
        self.since.store(self.calls.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    pub fn is_stuck(&self) -> bool {
        self.calls.load(Ordering::SeqCst) - self.since.load(Ordering::SeqCst) > MOST_CALLS
    }

    fn call(&self) -> Result<()> {
        script::join(|| self.seed ^ self.threads.fetch_add(1, Ordering::SeqCst));
        script::set_seconds(self.clock.load(Ordering::SeqCst));
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_over() {
            return Err(Error::new(ErrorKind::Io, "the process was killed"));
        }
        if self.is_stuck() {
            return Err(Error::new(ErrorKind::Io, "the operation does not end"));
        }
        Ok(())
    }
}

/// A site, as one process uses it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub site: Arc<Site>,
    pub life: Arc<Life>,
    /// Takes the lock although another process has it, as on storage whose locks do not hold.
    pub breaks_locks: bool,
}

impl Process {
    fn call(&self) -> Result<()> {
        self.life.call()?;
        if self.site.is_down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "the network is away"));
        }
        Ok(())
    }
}

impl Engine for Process {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        self.call()?;
        let inner = self.site.raw.create(key, size_hint)?;
        Ok(Box::new(Carried { inner, by: self.clone() }))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.call()?;
        let found = self.site.raw.open(key)?;
        let lies = &self.site.lies;
        match lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::new(ErrorKind::NotFound, "the storage says that it is not there")),
            Err(_) => Ok(found),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        self.call()?;
        self.site.raw.list(folder)
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.call()?;
        self.site.raw.delete(key)
    }

    fn mark(&self, key: &str) -> Result<()> {
        self.call()?;
        self.site.raw.mark(key)
    }

    fn unmark(&self, key: &str) -> Result<()> {
        self.call()?;
        self.site.raw.unmark(key)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.call()?;
        if !self.site.locks {
            return Err(Error::new(ErrorKind::Unsupported, "no renames here"));
        }
        self.site.raw.rename(from, to)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        self.call()?;
        if !self.site.locks {
            return Err(Error::new(ErrorKind::Unsupported, "no locks here"));
        }
        match self.site.raw.lock(holder) {
            Err(error) if error.kind() == ErrorKind::Locked && self.breaks_locks => Ok(Box::new(Nothing)),
            locked => locked,
        }
    }

    fn caps(&self) -> Caps {
        Caps { lock: self.site.locks, map: false, ..self.site.raw.caps() }
    }

    fn describe(&self, key: &str) -> String {
        // The first call of a thread that a store starts, so that it has the script's clock from
        // its beginning.
        let _ = self.life.call();
        self.site.raw.describe(key)
    }
}

/// A lock that excludes no other process.
#[derive(Debug)]
struct Nothing;

impl Lock for Nothing {}

/// An upload that dies with its process.
struct Carried {
    inner: Box<dyn Upload>,
    by: Process,
}

impl Upload for Carried {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.by.call()?;
        self.inner.append(bytes)
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        self.by.call().map_err(CommitError::NotCommitted)?;
        self.inner.commit(nonce)
    }
}
