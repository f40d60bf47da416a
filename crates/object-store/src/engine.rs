//! The engine: the calls of the contract as requests, for plain and large objects. The commit
//! protocol is in `commit.rs`, uploads are in `upload.rs`, listings in `listing.rs`.

use crate::ahead::Ahead;
use crate::blob::ObjectBlob;
use crate::commit::{self, Outcome};
use crate::deadline::{self, Deadline, Limits};
use crate::fetch::fetch_whole;
use crate::listing::Lengths;
use crate::pointer::{Pointer, may_be_pointer};
use crate::probe;
use crate::remote::{DATA, Remote, check_free_key};
use crate::runtime::Io;
use crate::upload::{self, LARGEST_PLAIN, ObjectUpload, already_there};
use crate::url::{self, Opened};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tensorkeep::engine::{Blob, Caps, Engine, Entry, Lock, Nonce, Upload, check_key, fresh_nonce};
use tensorkeep::{Error, ErrorKind, Result};

/// Default deadline of a call that moves no data.
const CALL: Duration = Duration::from_secs(180);

/// Objects in a bucket, under one prefix. Clones share threads and connections.
#[derive(Clone)]
pub struct ObjectStoreEngine(Arc<Shared>);

struct Shared {
    remote: Arc<Remote>,
    /// Whether the store can be written to safely; determined once.
    probed: OnceLock<bool>,
    lengths: Lengths,
    /// There are so many objects under the run that its folders are listed one by one.
    is_wide: AtomicBool,
}

impl ObjectStoreEngine {
    /// The run at a URL: `s3://bucket/run`, `gs://bucket/run`, `az://container/run`, or `memory://`
    /// for tests. Credentials, region and endpoint come from the usual environment variables, which
    /// begin with `AWS_`, `GOOGLE_` and `AZURE_`. Nothing is sent yet.
    ///
    /// The prefix is used verbatim: an object that other programs name `s3://bucket/run%20x` has
    /// that URL here, too.
    ///
    /// # Errors
    /// `Invalid` for a URL that names no store or has credentials in it, and for credentials in the
    /// environment that have spaces or line breaks; `Unsupported` for a store that this build does
    /// not have.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::from_url_with(url, std::iter::empty::<(&str, &str)>())
    }

    /// As [`ObjectStoreEngine::from_url`], with options of the `object_store` crate that override
    /// the environment: `endpoint`, `region`, `allow_http`, `timeout`, `access_key_id`, …
    ///
    /// # Errors
    /// As [`ObjectStoreEngine::from_url`].
    pub fn from_url_with<K: Into<String>, V: Into<String>>(
        url: &str,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let options: Vec<_> = options.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let place = url::Place::parse(url)?;
        let opened = url::store_of(url, &place, &options)?;
        Self::on(opened, url.trim_end_matches('/').to_owned(), place.prefix)
    }

    /// The run under `prefix` of a store that you built: with your own timeouts, credentials or
    /// wrappers, and with your own retries of the parts of an upload. Calls end at the engine's
    /// deadline all the same. The store must keep metadata of objects. Its listings fail where a
    /// key has empty segments or control characters.
    ///
    /// # Errors
    /// `Invalid` for a prefix with empty segments, `.`, `..` or control characters; `Io` when
    /// threads cannot be started.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let prefix = url::parse_prefix(prefix.trim_matches('/'))?;
        let url = format!("{store}/{prefix}");
        Self::on(Opened::of(store), url.trim_end_matches('/').to_owned(), prefix)
    }

    fn on(opened: Opened, url: String, prefix: Path) -> Result<Self> {
        let Opened { store, parts, pages, strays } = opened;
        let (io, limits) = (Arc::new(Io::start()?), Limits::of(CALL));
        Ok(Self::over(
            Remote { store, parts, pages, strays, left: Arc::default(), io, url, prefix, limits },
            OnceLock::new(),
        ))
    }

    fn over(remote: Remote, probed: OnceLock<bool>) -> Self {
        Self(Arc::new(Shared {
            remote: Arc::new(remote),
            probed,
            lengths: Lengths::default(),
            is_wide: AtomicBool::new(false),
        }))
    }

    /// The same engine with calls that end within `deadline`, in any state of the network, instead
    /// of three minutes: all retries of all requests of a call are within it. A call that moves
    /// data has more: an upload as long as its bytes take at 100 kB/s, a read as long as bytes keep
    /// arriving. A page of a listing counts as a call.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        let remote = Remote { limits: Limits::of(deadline), ..Remote::clone(&self.0.remote) };
        Self::over(remote, self.0.probed.clone())
    }

    /// Full keys under the run that no listing of this engine shows because they have empty
    /// segments, `.`, `..` or control characters: mistakes of other programs, which do no harm.
    /// With a store that the caller built none is found.
    ///
    /// # Errors
    /// Those of listing.
    pub fn strays(&self) -> Result<Vec<String>> {
        let remote = &self.0.remote;
        remote.strays.take();
        remote.list_objects("", false)?;
        let prefix = remote.prefix.as_ref();
        let is_under = |key: &String| {
            prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        Ok(remote.strays.take().into_iter().filter(is_under).collect())
    }

    /// Large objects that no commit names and objects of the probe, older than `age`: remains of
    /// killed processes, which [`ObjectStoreEngine::sweep`] would remove. Keys are relative to the
    /// run.
    ///
    /// # Errors
    /// Those of the store.
    pub fn orphans(&self, age: Duration) -> Result<Vec<Entry>> {
        self.0.remote.orphans(age)
    }

    /// Removes [`ObjectStoreEngine::orphans`] and returns those that were removed. Choose an age
    /// longer than any upload, such as a day: a younger object may be about to be committed.
    ///
    /// # Errors
    /// Those of the store.
    pub fn sweep(&self, age: Duration) -> Result<Vec<Entry>> {
        self.0.remote.sweep(age)
    }
}

impl Engine for ObjectStoreEngine {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        check_free_key(key)?;
        self.0.probe()?;
        if self.0.head(key, &self.0.remote.deadline(), Option::is_none)?.is_some() {
            return Err(already_there(&self.describe(key)));
        }
        Ok(Box::new(ObjectUpload::start(Arc::clone(&self.0.remote), key, size_hint, 0)))
    }

    fn create_shard(&self, key: &str, size_hint: Option<u64>, save_len: u64) -> Result<Box<dyn Upload>> {
        check_free_key(key)?;
        self.0.probe()?;
        Ok(Box::new(ObjectUpload::start(Arc::clone(&self.0.remote), key, size_hint, save_len)))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        check_free_key(key)?;
        self.0.open(key)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        if !folder.is_empty() {
            check_key(folder)?;
        }
        self.0.remote.list(folder, &self.0.lengths)
    }

    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        folders.iter().filter(|folder| !folder.is_empty()).try_for_each(|folder| check_key(folder))?;
        if folders.len() > 1 && !self.0.is_wide.load(Ordering::Relaxed) {
            match self.0.remote.list_together(folders, &self.0.lengths)? {
                Some(each) => return Ok(each),
                None => self.0.is_wide.store(true, Ordering::Relaxed),
            }
        }
        folders.iter().map(|folder| self.0.remote.list(folder, &self.0.lengths)).collect()
    }

    fn delete(&self, key: &str) -> Result<()> {
        check_free_key(key)?;
        self.0.delete(key)
    }

    /// One request: a look at the key would save no upload.
    fn mark(&self, key: &str) -> Result<()> {
        check_free_key(key)?;
        self.0.probe()?;
        let outcome = self.0.remote.create(key, Bytes::new(), fresh_nonce())?;
        upload::committed(&self.0.remote, key, outcome).map_err(Error::from)
    }

    fn rename(&self, from: &str, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "object stores do not rename").in_object(self.describe(from)))
    }

    fn lock(&self, _: &str) -> Result<Box<dyn Lock>> {
        // A wrong URL or wrong credentials show at the start of a run and not at its first
        // checkpoint.
        match self.0.probe() {
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
            _ => {
                Err(Error::new(ErrorKind::Unsupported, "object stores do not lock")
                    .in_object(self.describe("")))
            }
        }
    }

    fn caps(&self) -> Caps {
        let mut caps = Caps::NONE;
        caps.create_only = self.0.probe().is_ok();
        caps.durable = true;
        caps.over_network = true;
        caps
    }

    fn describe(&self, key: &str) -> String {
        self.0.remote.describe(key)
    }
}

impl fmt::Debug for ObjectStoreEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStoreEngine({})", self.0.remote.url)
    }
}

impl Remote {
    /// Creates the object of a key, as `commit::create`.
    pub(crate) fn create(&self, key: &str, bytes: Bytes, nonce: Nonce) -> Result<Outcome> {
        let (store, path) = (Arc::clone(&self.store), self.path(key));
        let patience = self.patience();
        if patience.is_over() {
            return Ok(Outcome::NotCommitted(deadline::passed()));
        }
        let deadline = patience.begin(bytes.len() as u64);
        self.io.run(async move { commit::create(&*store, &path, bytes, nonce, &deadline).await })
    }
}

impl Shared {
    fn probe(&self) -> Result<()> {
        if self.probed.get() != Some(&true) {
            probe::probe(&self.remote)?;
            let _ = self.probed.set(true);
        }
        Ok(())
    }

    /// Looks for an object. The expected answer is believed at once, another when two agree.
    fn head(
        &self,
        key: &str,
        deadline: &Deadline,
        is_expected: fn(&Option<ObjectMeta>) -> bool,
    ) -> Result<Option<ObjectMeta>> {
        let (store, path, deadline) =
            (Arc::clone(&self.remote.store), self.remote.path(key), deadline.clone());
        self.remote.run("looking for the object", key, async move {
            match head_once(&*store, &path, &deadline).await {
                Ok(found) if !is_expected(&found) => head_once(&*store, &path, &deadline).await,
                found => found,
            }
        })
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        let (store, path) = (Arc::clone(&self.remote.store), self.remote.path(key));
        let (at, patience) = (path.clone(), self.remote.patience());
        let found = self.remote.run("opening", key, async move {
            // Everything that this engine puts at a key is small; objects of other programs may not
            // be.
            let wanted = |meta: &ObjectMeta| meta.size <= LARGEST_PLAIN as u64 || may_be_pointer(meta.size);
            fetch_whole(&*store, &at, patience, wanted).await
        })?;
        let (remote, key, ahead) = (Arc::clone(&self.remote), key.to_owned(), Arc::new(Ahead::default()));
        let named = |error: Error| error.in_object(self.remote.describe(&key));
        let blob = match Pointer::parse(&found.bytes).map_err(named)? {
            None => {
                let (len, head, tail) = (found.meta.size, Bytes::new(), found.bytes);
                ObjectBlob { path, len, head, tail, remote, key, ahead }
            }
            Some(pointer) if !pointer.is_of(&key) => {
                return Err(named(
                    Error::new(ErrorKind::Damaged, "a commit object of another object, copied here")
                        .expected(format!("bytes under {DATA}/{key}/"))
                        .found(&pointer.target)
                        .help(
                            "copy checkpoints with tensorkeep cp: the bytes go when the other one is deleted",
                        ),
                ));
            }
            Some(pointer) => {
                let (head, tail) = pointer.copies(&found.bytes).map_err(named)?;
                let path = self.remote.path(&pointer.target);
                ObjectBlob { path, len: pointer.len, head, tail, remote, key, ahead }
            }
        };
        Ok(Arc::new(blob))
    }

    fn delete(&self, key: &str) -> Result<()> {
        let deadline = self.remote.deadline();
        let Some(meta) = self.head(key, &deadline, Option::is_some)? else {
            // What belongs to it would be deleted behind it.
            let (kind, what) = if self.remote.is_listed(key)? {
                (ErrorKind::Io, "deleting: it is listed, and answers are that it is not there")
            } else {
                (ErrorKind::NotFound, "there is no such object")
            };
            return Err(Error::new(kind, what).in_object(self.remote.describe(key)));
        };
        let target = if may_be_pointer(meta.size) { self.remote.target(key, &deadline)? } else { None };
        self.remote.delete_path(key, "deleting", &deadline)?;
        // The commit is gone, so the bytes are unreachable; a remainder is swept.
        if let Some(target) = target {
            let _ = self.remote.delete_path(&target, "deleting", &deadline);
        }
        Ok(())
    }
}

async fn head_once(
    store: &dyn ObjectStore,
    path: &Path,
    deadline: &Deadline,
) -> Result<Option<ObjectMeta>, StoreError> {
    match deadline.retry(0, || store.head(path)).await {
        Err(StoreError::NotFound { .. }) => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests;
