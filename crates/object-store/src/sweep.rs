//! What killed processes left: bytes of large objects that no commit names, and the probe's objects.

use crate::deadline::Deadline;
use crate::engine::check_free_key;
use crate::probe;
use crate::remote::{DATA, Remote};
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tensorkeep::Result;
use tensorkeep::engine::Entry;

impl Remote {
    /// What may go, as keys under the run. Objects that came with a commit in the meantime are not among them: the age
    /// is what tells an upload on its way from one that was left.
    pub(crate) fn orphans(&self, age: Duration) -> Result<Vec<Entry>> {
        let oldest_kept = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_old = |meta: &ObjectMeta| SystemTime::from(meta.last_modified) <= oldest_kept;
        let mut orphans = Vec::new();
        for meta in self.list_objects("", true)?.into_iter().filter(is_old) {
            if let Some(name) = meta.location.filename().filter(|name| name.starts_with(probe::NAME)) {
                orphans.push(Entry { key: name.to_owned(), len: meta.size });
            }
        }
        let data = self.path(DATA);
        for meta in self.list_objects(DATA, false)?.into_iter().filter(is_old) {
            let Some(name) = meta.location.as_ref().strip_prefix(data.as_ref()) else { continue };
            let name = name.trim_start_matches('/');
            // What lies there under a name that no key has is another program's.
            let Some((key, _)) = name.rsplit_once('/').filter(|(key, _)| check_free_key(key).is_ok()) else {
                continue;
            };
            let target = format!("{DATA}/{name}");
            if self.target(key, &self.deadline())?.as_ref() != Some(&target) {
                orphans.push(Entry { key: target, len: meta.size });
            }
        }
        Ok(orphans)
    }

    /// Removes orphans; how many.
    pub(crate) fn sweep(&self, age: Duration) -> Result<usize> {
        let orphans = self.orphans(age)?;
        for orphan in &orphans {
            self.delete_path(&orphan.key, "sweeping", &self.deadline())?;
        }
        Ok(orphans.len())
    }

    /// Deletes what is there; a delete whose reply was lost is sent again, since nothing is created at the path again.
    pub(crate) fn delete_path(&self, key: &str, what: &'static str, deadline: &Deadline) -> Result<()> {
        let (store, path, deadline) = (Arc::clone(&self.store), self.path(key), deadline.clone());
        self.run(what, key, async move {
            match deadline.retry(0, || store.delete(&path)).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}
