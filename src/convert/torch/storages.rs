//! Where the bytes of storages lie: in members of a zip archive, or one behind the other in a file of before torch 1.6.

use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::convert::blob::{self, Archive};
use crate::engine::Blob;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// All storages of a file, by their keys.
pub enum Storages {
    /// A member each, behind this prefix.
    Archive { archive: Archive, prefix: String },
    /// A stretch of the file each.
    File(HashMap<String, Arc<Storage>>),
}

/// One storage.
#[derive(Debug)]
pub struct Storage {
    /// Its bytes, where they lie in the file as they are.
    pub stored: Option<Arc<dyn Blob>>,
    pub len: u64,
    member: String,
}

impl Storage {
    pub fn in_file(stored: Arc<dyn Blob>) -> Self {
        Self { len: stored.len(), stored: Some(stored), member: String::new() }
    }
}

/// The storages that were asked for.
pub struct Found<'b> {
    storages: Storages,
    found: HashMap<String, Arc<Storage>>,
    budget: &'b Budget,
}

impl<'b> Found<'b> {
    pub fn new(storages: Storages, budget: &'b Budget) -> Self {
        Self { storages, found: HashMap::new(), budget }
    }

    /// One storage.
    ///
    /// # Errors
    /// `Damaged` when there is none of this key.
    pub fn get(&mut self, key: &str) -> Result<Arc<Storage>> {
        if let Some(storage) = self.found.get(key) {
            return Ok(Arc::clone(storage));
        }
        self.budget.spend((size_of::<Storage>() + 2 * key.len()) as u64, "the list of storages")?;
        let storage = match &mut self.storages {
            Storages::Archive { archive, prefix } => {
                let member = format!("{prefix}data/{key}");
                let facts = blob::member(archive, &member)?;
                Arc::new(Storage { stored: facts.stored, len: facts.len, member })
            }
            Storages::File(storages) => storages
                .get(key)
                .cloned()
                .ok_or_else(|| Error::damaged(format!("storage {key:?} is not in the file")))?,
        };
        self.found.insert(key.to_owned(), Arc::clone(&storage));
        Ok(storage)
    }

    /// What reads `len` bytes of a storage from `start` on, whenever it is called.
    pub fn reader(
        &self,
        storage: &Arc<Storage>,
        start: u64,
        len: usize,
    ) -> impl Fn() -> Result<Buffer> + Send + Sync + 'static {
        let storage = Arc::clone(storage);
        let archive = match &self.storages {
            Storages::Archive { archive, .. } => Some(archive.clone()),
            Storages::File(_) => None,
        };
        move || match (&storage.stored, &archive) {
            (Some(stored), _) => {
                let mut buffer = Buffer::zeroed(len)?;
                stored.read_at(start, &mut buffer)?;
                Ok(buffer)
            }
            (None, Some(archive)) => blob::read(&mut archive.clone(), &storage.member, start, len),
            (None, None) => Err(Error::damaged("the storage is not in the file")),
        }
    }
}
