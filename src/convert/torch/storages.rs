//! The bytes of storages: in members of a zip archive, or consecutive in a file before torch 1.6.

use super::elements::ElementType;
use super::view::{StorageId, unreadable};
use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::convert::blob::{self, Archive};
use crate::engine::Blob;
use crate::error::{Error, Result};
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// All storages of a file, by key.
pub enum Storages {
    /// One member each, named with this prefix.
    Archive { archive: Archive, prefix: String, is_big_endian: bool },
    /// One section of the file each.
    File(HashMap<String, Arc<Storage>>),
}

/// One storage.
#[derive(Debug)]
pub struct Storage {
    /// Its bytes, if they are stored uncompressed in the file.
    pub stored: Option<Arc<dyn Blob>>,
    pub len: u64,
    member: String,
    /// Number of readers made of it. The first costs nothing: most storages have one tensor.
    readers: AtomicU32,
    /// The bytes of a compressed storage with several readers: inflating it for each would take
    /// quadratic time.
    inflated: Mutex<Option<Arc<Buffer>>>,
}

impl Storage {
    pub fn in_file(stored: Arc<dyn Blob>) -> Self {
        Self::new(stored.len(), Some(stored), String::new())
    }

    fn new(len: u64, stored: Option<Arc<dyn Blob>>, member: String) -> Self {
        Self { stored, len, member, readers: AtomicU32::new(0), inflated: Mutex::default() }
    }

    /// Reads `len` bytes of a compressed storage.
    fn inflate(&self, archive: &Archive, start: u64, len: usize) -> Result<Buffer> {
        if self.readers.load(Ordering::Relaxed) < 2 {
            return blob::read(&mut archive.clone(), &self.member, start, len);
        }
        let whole = {
            // A second thread waits for the bytes that the first inflates.
            let mut inflated = lock(&self.inflated);
            match &*inflated {
                Some(whole) => Arc::clone(whole),
                None => {
                    let most = usize::try_from(self.len).unwrap_or(usize::MAX);
                    let whole = Arc::new(blob::read(&mut archive.clone(), &self.member, 0, most)?);
                    Arc::clone(inflated.insert(whole))
                }
            }
        };
        let bytes = usize::try_from(start).ok().and_then(|start| whole.get(start..start.checked_add(len)?));
        Buffer::copy_of(bytes.ok_or_else(|| Error::damaged("a read beyond the end of a storage"))?)
    }
}

/// The storages looked up so far.
pub struct Found<'b> {
    storages: Storages,
    found: HashMap<String, Arc<Storage>>,
    /// In a big-endian file, the bytes of a number of each storage by its first reference.
    swapped: HashMap<String, usize>,
    budget: &'b Budget,
}

impl<'b> Found<'b> {
    pub fn new(storages: Storages, budget: &'b Budget) -> Self {
        Self { storages, found: HashMap::new(), swapped: HashMap::new(), budget }
    }

    pub fn is_big_endian(&self) -> bool {
        matches!(self.storages, Storages::Archive { is_big_endian: true, .. })
    }

    /// Checks that the elements of a view can be brought into this machine's order. torch swaps
    /// the bytes of a whole storage, by the type in its first reference.
    ///
    /// # Errors
    /// `Unsupported` for a view of another type.
    pub fn check_order(&mut self, id: &StorageId, element: ElementType) -> Result<()> {
        if !self.is_big_endian() {
            return Ok(());
        }
        let width = id.element.map_or(1, ElementType::part);
        self.budget.spend((64 + id.key.len()) as u64, "the list of storages")?;
        let first = *self.swapped.entry(id.key.clone()).or_insert(width);
        if first == width && width == element.part() {
            return Ok(());
        }
        Err(unreadable("a view of a storage of another type, in a file of a big-endian machine"))
    }

    /// One storage.
    ///
    /// # Errors
    /// `Damaged` when no storage has this key.
    pub fn get(&mut self, key: &str) -> Result<Arc<Storage>> {
        if let Some(storage) = self.found.get(key) {
            return Ok(Arc::clone(storage));
        }
        self.budget.spend((size_of::<Storage>() + 2 * key.len()) as u64, "the list of storages")?;
        let storage = match &mut self.storages {
            Storages::Archive { archive, prefix, .. } => {
                let member = format!("{prefix}data/{key}");
                let facts = blob::member(archive, &member)?;
                Arc::new(Storage::new(facts.len, facts.stored, member))
            }
            Storages::File(storages) => storages
                .get(key)
                .cloned()
                .ok_or_else(|| Error::damaged(format!("storage {key:?} is not in the file")))?,
        };
        self.found.insert(key.to_owned(), Arc::clone(&storage));
        Ok(storage)
    }

    /// A reader of a storage's bytes, to call with an offset and a length; `in_pieces` if it will
    /// be called many times for one tensor.
    ///
    /// # Errors
    /// `LimitExceeded` when a compressed storage is read more than once, and is larger than the
    /// rest of the budget: its bytes are then held in memory.
    pub fn reader(
        &self,
        storage: &Arc<Storage>,
        in_pieces: bool,
    ) -> Result<impl Fn(u64, usize) -> Result<Buffer> + Send + Sync + 'static> {
        if storage.stored.is_none() {
            let before = storage.readers.fetch_add(if in_pieces { 2 } else { 1 }, Ordering::Relaxed);
            if before < 2 && (in_pieces || before == 1) {
                self.budget.spend(storage.len, "a compressed storage of several tensors")?;
            }
        }
        let storage = Arc::clone(storage);
        let archive = match &self.storages {
            Storages::Archive { archive, .. } => Some(archive.clone()),
            Storages::File(_) => None,
        };
        Ok(move |start: u64, len: usize| match (&storage.stored, &archive) {
            (Some(stored), _) => {
                let mut buffer = Buffer::zeroed(len)?;
                stored.read_at(start, &mut buffer)?;
                Ok(buffer)
            }
            (None, Some(archive)) => storage.inflate(archive, start, len),
            (None, None) => Err(Error::damaged("the storage is not in the file")),
        })
    }
}
