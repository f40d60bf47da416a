//! What killed processes left: bytes of large objects that no commit names, and the probe's
//! objects. Removed when it is asked for, and a little of it behind each commit, out of what the
//! listings showed anyway.

use crate::deadline::Deadline;
use crate::engine::check_free_key;
use crate::listing::read_pointer;
use crate::pointer::Pointer;
use crate::probe;
use crate::remote::{DATA, Remote};
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tensorkeep::Result;
use tensorkeep::engine::Entry;

/// What is removed behind a commit is older: no upload takes that long between its last byte and
/// its commit.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// So many are removed behind a commit.
const AT_A_TIME: usize = 8;

/// Bytes that no commit named in the last listing of the whole run, as keys under it.
#[derive(Debug, Default)]
pub(crate) struct Left(Mutex<Vec<String>>);

impl Remote {
    /// Takes note of what all objects under the run, in one listing, show to be left.
    pub(crate) fn note_left(&self, objects: &[ObjectMeta]) {
        let is_old = older_than(OLD);
        let there: HashSet<&str> = objects.iter().map(|meta| meta.location.as_ref()).collect();
        let left = objects.iter().filter(|meta| is_old(meta)).filter_map(|meta| {
            let (key, target) = self.of_data(meta)?;
            (!there.contains(self.path(&key).as_ref())).then_some(target)
        });
        *self.left.0.lock().unwrap_or_else(PoisonError::into_inner) = left.collect();
    }

    /// Removes some of what is left, in the background: nobody waits for it, and what stays is
    /// tried behind another commit.
    pub(crate) fn sweep_some(&self) {
        let mut left = self.left.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = left.len().min(AT_A_TIME);
        for target in left.drain(..count) {
            let (store, deadline) = (Arc::clone(&self.store), self.deadline());
            let Some((key, _)) = target[DATA.len() + 1..].rsplit_once('/') else { continue };
            let (commit, path) = (self.path(key), self.path(&target));
            self.io.handle().spawn(async move {
                let named = match read_pointer(&*store, &commit, &deadline).await {
                    Ok(None) => None,
                    Ok(Some(header)) => Pointer::parse(&header).ok().flatten().map(|pointer| pointer.target),
                    Err(_) => return,
                };
                if named.as_ref() != Some(&target) {
                    let _ = deadline.once(0, store.delete(&path)).await;
                }
            });
        }
    }

    /// The key whose bytes an object has, and the object's own under the run.
    fn of_data(&self, meta: &ObjectMeta) -> Option<(String, String)> {
        let data = self.path(DATA);
        let name = meta.location.as_ref().strip_prefix(data.as_ref())?.strip_prefix('/')?;
        // What lies there under a name that no key has is another program's.
        let (key, _) = name.rsplit_once('/').filter(|(key, _)| check_free_key(key).is_ok())?;
        Some((key.to_owned(), format!("{DATA}/{name}")))
    }

    /// What may go, as keys under the run. Objects that came with a commit in the meantime are not
    /// among them: the age is what tells an upload on its way from one that was left.
    pub(crate) fn orphans(&self, age: Duration) -> Result<Vec<Entry>> {
        let is_old = older_than(age);
        let mut orphans = Vec::new();
        for meta in self.list_objects("", true)?.into_iter().filter(&is_old) {
            if let Some(name) = meta.location.filename().filter(|name| name.starts_with(probe::NAME)) {
                orphans.push(Entry { key: name.to_owned(), len: meta.size });
            }
        }
        for meta in self.list_objects(DATA, false)?.into_iter().filter(&is_old) {
            let Some((key, target)) = self.of_data(&meta) else { continue };
            if self.target(&key, &self.deadline())?.as_ref() != Some(&target) {
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

    /// Deletes what is there; a delete whose reply was lost is sent again, since nothing is created
    /// at the path again.
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

fn older_than(age: Duration) -> impl Fn(&ObjectMeta) -> bool {
    let oldest_kept = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    move |meta| SystemTime::from(meta.last_modified) <= oldest_kept
}
