//! Remains of killed processes: bytes of large objects that no commit names, and the probe's
//! objects. Removed on request, and a few behind each commit, taken from listings that were made
//! anyway.

use crate::at_key::AtKey;
use crate::deadline::Deadline;
use crate::probe;
use crate::remote::{DATA, Remote, check_free_key};
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use tensorkeep::engine::Entry;
use tensorkeep::{Error, ErrorKind, Result};

/// Minimum age of objects removed behind a commit: no upload takes that long between its last byte
/// and its commit.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// Limit of objects removed behind one commit.
const AT_A_TIME: usize = 8;

/// Between the requests that delete an object which is there.
const PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(80), Duration::ZERO];

impl Remote {
    /// Records the remains in one listing of all objects under the run. Nothing is old there unless
    /// the store has a newer object: this machine's clock may be days ahead of the store's.
    pub(crate) fn note_left(&self, objects: &[ObjectMeta]) {
        let newest = objects.iter().map(|meta| SystemTime::from(meta.last_modified)).max();
        let now = SystemTime::now();
        let is_old = older_than(OLD, newest.map_or(now, |newest| newest.min(now)));
        let there: HashSet<&str> = objects.iter().map(|meta| meta.location.as_ref()).collect();
        let left = objects.iter().filter(|meta| is_old(meta)).filter_map(|meta| {
            let (key, target) = self.of_data(meta)?;
            (!there.contains(self.path(&key).as_ref())).then_some(target)
        });
        *self.left.0.lock().unwrap_or_else(PoisonError::into_inner) = left.collect();
    }

    /// Removes some of the remains in the background, without waiting; a failure is retried behind
    /// another commit.
    pub(crate) fn sweep_some(&self) {
        let mut left = self.left.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = left.len().min(AT_A_TIME);
        for target in left.drain(..count) {
            let (store, deadline) = (Arc::clone(&self.store), self.deadline());
            let Some((key, _)) = target[DATA.len() + 1..].rsplit_once('/') else { continue };
            let (commit, path) = (self.path(key), self.path(&target));
            self.io.handle().spawn(async move {
                let at = AtKey::look(&*store, &commit, &deadline, |at| at.names(&target)).await;
                if at.is_ok_and(|at| at == AtKey::Nothing) {
                    let _ = deadline.once(0, store.delete(&path)).await;
                }
            });
        }
    }

    /// The key that an object holds the bytes of, and the object's own key under the run.
    fn of_data(&self, meta: &ObjectMeta) -> Option<(String, String)> {
        let data = self.path(DATA);
        let name = meta.location.as_ref().strip_prefix(data.as_ref())?.strip_prefix('/')?;
        // An object there whose name contains no key is another program's.
        let (key, _) = name.rsplit_once('/').filter(|(key, _)| check_free_key(key).is_ok())?;
        Some((key.to_owned(), format!("{DATA}/{name}")))
    }

    /// Removable objects, as keys under the run. An object that is committed meanwhile is safe: the
    /// age tells an upload in flight from an orphan.
    pub(crate) fn orphans(&self, age: Duration) -> Result<Vec<Entry>> {
        let is_old = older_than(age, SystemTime::now());
        let mut orphans = Vec::new();
        for meta in self.list_objects("", true)?.into_iter().filter(&is_old) {
            if let Some(name) = meta.location.filename().filter(|name| name.starts_with(probe::NAME)) {
                orphans.push(Entry { key: name.to_owned(), len: meta.size });
            }
        }
        let data = self.list_objects(DATA, false)?;
        let there: HashSet<&str> = data.iter().map(|meta| meta.location.as_ref()).collect();
        let mut folders: HashMap<String, HashMap<String, u64>> = HashMap::new();
        for meta in data.iter().filter(|meta| is_old(meta)) {
            let Some((key, target)) = self.of_data(meta) else { continue };
            let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
            if !folders.contains_key(folder) {
                let listed = self.list_objects(folder, true)?.into_iter();
                let listed = listed.map(|meta| (meta.location.to_string(), meta.size)).collect();
                folders.insert(folder.to_owned(), listed);
            }
            let listed = folders[folder].get(self.path(&key).as_ref()).copied();
            let named = target.clone();
            let at = self.look_at(&key, &self.deadline(), move |at| at.names(&named))?;
            if at.abandons(&key, &target, listed, |other| there.contains(self.path(other).as_ref())) {
                orphans.push(Entry { key: target, len: meta.size });
            }
        }
        Ok(orphans)
    }

    /// Removes orphans, and returns those that were removed.
    pub(crate) fn sweep(&self, age: Duration) -> Result<Vec<Entry>> {
        let orphans = self.orphans(age)?;
        for orphan in &orphans {
            self.delete_path(&orphan.key, "sweeping", &self.deadline())?;
        }
        Ok(orphans)
    }

    /// Deletes an object; a delete whose reply was lost is sent again, since nothing is created at
    /// the path again. The answer that there is no such object is not believed: the object is
    /// looked for, and where it is not found, in a listing, too. What it names may be deleted
    /// behind it.
    pub(crate) fn delete_path(&self, key: &str, what: &'static str, deadline: &Deadline) -> Result<()> {
        for pause in PAUSES {
            let is_gone = match self.delete_once(key, what, deadline)? {
                Answer::Deleted => true,
                Answer::Nothing => !self.is_listed(key)?,
                Answer::There => false,
            };
            if is_gone {
                return Ok(());
            }
            // A listing may be behind.
            std::thread::sleep(pause);
        }
        let there = "it is there, and requests to delete it are answered that it is not";
        Err(Error::new(ErrorKind::Io, format!("{what}: {there}")).in_object(self.describe(key)))
    }

    fn delete_once(&self, key: &str, what: &'static str, deadline: &Deadline) -> Result<Answer> {
        let (store, path, deadline) = (Arc::clone(&self.store), self.path(key), deadline.clone());
        self.run(what, key, async move {
            match deadline.retry(0, || store.delete(&path)).await {
                Err(StoreError::NotFound { .. }) => {}
                deleted => return deleted.map(|()| Answer::Deleted),
            }
            match deadline.retry(0, || store.head(&path)).await {
                Err(StoreError::NotFound { .. }) => Ok(Answer::Nothing),
                there => there.map(|_| Answer::There),
            }
        })
    }

    /// Whether a listing of its folder has an object.
    pub(crate) fn is_listed(&self, key: &str) -> Result<bool> {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = self.path(key);
        Ok(self.list_objects(folder, true)?.iter().any(|meta| meta.location == path))
    }
}

/// The answer to a request that deletes an object, and to one that looks for it then.
enum Answer {
    Deleted,
    /// Twice that there is none.
    Nothing,
    /// That there is none to delete, and that it is there.
    There,
}

fn older_than(age: Duration, now: SystemTime) -> impl Fn(&ObjectMeta) -> bool {
    let oldest_kept = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    move |meta| SystemTime::from(meta.last_modified) <= oldest_kept
}
