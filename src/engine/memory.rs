//! The engine in memory, for tests, and for state that need not outlive the process: objects in a
//! map, with the same contract as on disk, except durability.

use super::{
    Blob, Caps, CommitError, Engine, Entry, Lock, MmapPromise, Nonce, Upload, check_key, ends_early,
};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use std::collections::{BTreeMap, btree_map};
use std::sync::{Arc, Mutex, MutexGuard};

/// Objects in memory. Clones share them, as two processes share a folder.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Objects>>);

#[derive(Debug, Default)]
struct Objects {
    committed: BTreeMap<String, Arc<MemoryBlob>>,
    holder: Option<String>,
}

impl Memory {
    /// No objects yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        // Every change is one call on the map: a panic elsewhere leaves nothing half done.
        lock(&self.0)
    }
}

fn not_found(key: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such object").in_object(describe(key))
}

fn already_there(key: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "is committed already and never written again")
        .in_object(describe(key))
}

fn describe(key: &str) -> String {
    format!("memory:{key}")
}

impl Engine for Memory {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        check_key(key)?;
        if self.objects().committed.contains_key(key) {
            return Err(already_there(key));
        }
        let mut bytes = Vec::new();
        let wanted = usize::try_from(size_hint.unwrap_or(0)).unwrap_or(usize::MAX);
        bytes.try_reserve(wanted).map_err(|error| {
            Error::new(ErrorKind::NoSpace, format!("no memory for {wanted} bytes")).because(error)
        })?;
        Ok(Box::new(MemoryUpload { engine: self.clone(), key: key.to_owned(), bytes }))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        check_key(key)?;
        let blob = self.objects().committed.get(key).cloned();
        Ok(blob.ok_or_else(|| not_found(key))?)
    }

    fn map(&self, key: &str, _: MmapPromise) -> Result<Arc<dyn Blob>> {
        self.open(key)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let objects = self.objects();
        let directly = objects
            .committed
            .iter()
            .filter(|(key, _)| key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')));
        Ok(directly.map(|(key, blob)| Entry { key: key.clone(), len: blob.len() }).collect())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let removed = self.objects().committed.remove(key);
        removed.map(drop).ok_or_else(|| not_found(key))
    }

    fn mark(&self, key: &str) -> Result<()> {
        check_key(key)?;
        match self.objects().committed.entry(key.to_owned()) {
            btree_map::Entry::Occupied(_) => Err(already_there(key)),
            btree_map::Entry::Vacant(free) => {
                free.insert(Arc::new(MemoryBlob(Buffer::zeroed(0)?)));
                Ok(())
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_key(to)?;
        let mut objects = self.objects();
        if objects.committed.contains_key(to) {
            return Err(already_there(to));
        }
        let blob = objects.committed.remove(from).ok_or_else(|| not_found(from))?;
        objects.committed.insert(to.to_owned(), blob);
        Ok(())
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        let mut objects = self.objects();
        if let Some(holder) = &objects.holder {
            return Err(Error::new(ErrorKind::Locked, "another writer holds this run")
                .found(holder)
                .help("close it first"));
        }
        objects.holder = Some(holder.to_owned());
        Ok(Box::new(MemoryLock(self.clone())))
    }

    fn caps(&self) -> Caps {
        Caps { create_only: true, lock: true, map: true, ..Caps::NONE }
    }

    fn describe(&self, key: &str) -> String {
        describe(key)
    }
}

struct MemoryUpload {
    engine: Memory,
    key: String,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        // A copy into aligned memory: readers view tensors in place.
        let bytes = Buffer::copy_of(&self.bytes).map_err(CommitError::NotCommitted)?;
        let mut objects = self.engine.objects();
        if objects.committed.contains_key(&self.key) {
            return Err(CommitError::Conflict(already_there(&self.key)));
        }
        objects.committed.insert(self.key, Arc::new(MemoryBlob(bytes)));
        Ok(())
    }
}

/// An object's bytes in memory.
#[derive(Debug)]
pub(crate) struct MemoryBlob(pub(crate) Buffer);

impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.0.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or_else(|| ends_early(offset, buffer.len(), self.len()))?);
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }
}

#[derive(Debug)]
struct MemoryLock(Memory);

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.objects().holder = None;
    }
}
