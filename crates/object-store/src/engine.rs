//! The engine: the contract's calls as requests. Owns: opening, listing and deleting of plain and large objects alike.
//! The protocol of a commit is in `commit.rs`, uploading in `upload.rs`.

use crate::blob::{Ahead, ObjectBlob};
use crate::commit::{self, Outcome};
use crate::error::is_refusal;
use crate::pointer::{HEADER, Pointer, may_be_pointer};
use crate::probe;
use crate::remote::{DATA, Remote};
use crate::runtime::Io;
use crate::upload::{LARGEST_PLAIN, ObjectUpload, already_there};
use crate::url;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tensorkeep::engine::{Blob, Caps, Engine, Entry, Lock, Nonce, Upload, check_key};
use tensorkeep::{Error, ErrorKind, Result};

/// Requests of one listing at a time.
const LISTING_IN_FLIGHT: usize = 16;
const DELETE_TRIES: u32 = 4;

/// Objects in a bucket, under one prefix. Clones share threads and connections.
#[derive(Clone)]
pub struct ObjectStoreEngine(Arc<Shared>);

struct Shared {
    remote: Arc<Remote>,
    /// Whether the store can be written to safely; found out once.
    probed: OnceLock<bool>,
    /// Lengths of large objects by path and version of their commit objects.
    lengths: Mutex<HashMap<(Path, Option<String>), u64>>,
}

/// An object found at a key.
struct Found {
    meta: ObjectMeta,
    /// All its bytes; none of an object that another program put there and that is too large to be read unasked.
    bytes: Bytes,
}

impl ObjectStoreEngine {
    /// The run at a URL: `s3://bucket/run`, `gs://bucket/run`, `az://container/run`, or `memory://` for tests.
    /// Credentials, region and endpoint come from the usual environment variables, which begin with `AWS_`, `GOOGLE_`
    /// and `AZURE_`. Nothing is sent yet.
    ///
    /// # Errors
    /// `Invalid` for a URL that names no store, `Unsupported` for a store that this build does not have.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::from_url_with(url, std::iter::empty::<(&str, &str)>())
    }

    /// As [`ObjectStoreEngine::from_url`], with options of the `object_store` crate that count more than the
    /// environment: `endpoint`, `region`, `allow_http`, `timeout`, `access_key_id`, …
    ///
    /// # Errors
    /// As [`ObjectStoreEngine::from_url`].
    pub fn from_url_with<K: Into<String>, V: Into<String>>(
        url: &str,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let options: Vec<_> = options.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let place = url::Place::parse(url)?;
        let store = url::store_of(url, &place, &options)?;
        Self::on(store, url.trim_end_matches('/').to_owned(), place.prefix)
    }

    /// The run under `prefix` of a store that you built: with your own retries, timeouts, credentials or wrappers. It
    /// must keep metadata of objects.
    ///
    /// # Errors
    /// `Io` when threads cannot be started.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let prefix = prefix.trim_matches('/');
        let url = format!("{store}/{prefix}");
        Self::on(store, url.trim_end_matches('/').to_owned(), prefix)
    }

    fn on(store: Arc<dyn ObjectStore>, url: String, prefix: &str) -> Result<Self> {
        let remote = Arc::new(Remote { store, io: Io::start()?, url, prefix: prefix.to_owned() });
        Ok(Self(Arc::new(Shared { remote, probed: OnceLock::new(), lengths: Mutex::default() })))
    }

    /// Removes large objects that no commit names and that are older than `age`: what killed uploads left. Returns how
    /// many. Take an age longer than any upload, such as a day: a younger one may be about to be committed.
    ///
    /// # Errors
    /// What the store says.
    pub fn sweep(&self, age: Duration) -> Result<usize> {
        self.0.sweep(age)
    }
}

impl Engine for ObjectStoreEngine {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        check_free_key(key)?;
        self.0.probe()?;
        if self.0.head(key)?.is_some() {
            return Err(already_there(&self.describe(key)));
        }
        Ok(Box::new(ObjectUpload::start(Arc::clone(&self.0.remote), key, size_hint)))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        check_free_key(key)?;
        self.0.open(key)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        if !folder.is_empty() {
            check_key(folder)?;
        }
        self.0.list(folder)
    }

    fn delete(&self, key: &str) -> Result<()> {
        check_free_key(key)?;
        self.0.delete(key)
    }

    fn rename(&self, from: &str, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "object stores do not rename").in_object(self.describe(from)))
    }

    fn lock(&self, _: &str) -> Result<Box<dyn Lock>> {
        // A wrong URL or wrong credentials show at the start of a run and not at its first checkpoint.
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

/// The contract's grammar, and the folder of large objects is the engine's own.
fn check_free_key(key: &str) -> Result<()> {
    check_key(key)?;
    match key.split('/').next() {
        Some(DATA) => Err(Error::new(ErrorKind::Invalid, format!("object key {key:?}"))
            .expected(format!("not in {DATA}/, where the engine keeps large objects"))),
        _ => Ok(()),
    }
}

impl Remote {
    /// Creates the object of a key, as `commit::create`.
    pub(crate) fn create(&self, key: &str, bytes: Bytes, nonce: Nonce) -> Result<Outcome> {
        let (store, path) = (Arc::clone(&self.store), self.path(key));
        self.io.run(async move { commit::create(&*store, &path, bytes, nonce).await })
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

    fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let (store, path) = (Arc::clone(&self.remote.store), self.remote.path(key));
        let found = self.remote.run("looking for the object", key, async move { store.head(&path).await });
        match found {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        let (store, path) = (Arc::clone(&self.remote.store), self.remote.path(key));
        let at = path.clone();
        let found = self.remote.run("opening", key, async move { read_whole(&*store, &at).await })?;
        let (remote, key, ahead) = (Arc::clone(&self.remote), key.to_owned(), Mutex::new(Ahead::default()));
        let named = |error: Error| error.in_object(self.remote.describe(&key));
        let blob = match Pointer::parse(&found.bytes).map_err(named)? {
            None => {
                let (len, head, tail) = (found.meta.size, Bytes::new(), found.bytes);
                ObjectBlob { path, len, head, tail, remote, key, ahead }
            }
            Some(pointer) => {
                let (head, tail) = pointer.copies(&found.bytes).map_err(named)?;
                let path = self.remote.path(&pointer.target);
                ObjectBlob { path, len: pointer.len, head, tail, remote, key, ahead }
            }
        };
        Ok(Arc::new(blob))
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let (store, path) = (Arc::clone(&self.remote.store), self.remote.path(folder));
        let listed = self.remote.run("listing", folder, async move {
            let prefix = (!path.as_ref().is_empty()).then_some(&path);
            store.list_with_delimiter(prefix).await
        })?;
        let key = |meta: &ObjectMeta| {
            let name = meta.location.filename()?;
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            check_free_key(&key).is_ok().then_some(key)
        };
        let (mut maybe_large, mut entries) = (Vec::new(), Vec::new());
        for meta in listed.objects {
            match key(&meta) {
                Some(key) if may_be_pointer(meta.size) => maybe_large.push((key, meta)),
                Some(key) => entries.push(Entry { key, len: meta.size }),
                None => {}
            }
        }
        entries.extend(self.look_into(maybe_large)?);
        Ok(entries)
    }

    /// Entries of what may be commit objects: each is looked into once and remembered, since none ever changes.
    fn look_into(&self, objects: Vec<(String, ObjectMeta)>) -> Result<Vec<Entry>> {
        let version = |meta: &ObjectMeta| (meta.location.clone(), meta.e_tag.clone());
        let known = self.lengths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unknown = objects.iter().filter(|(_, meta)| !known.contains_key(&version(meta)));
        let unknown: Vec<ObjectMeta> = unknown.map(|(_, meta)| meta.clone()).collect();
        let store = Arc::clone(&self.remote.store);
        let found = self.remote.run("looking into commit objects", "", async move {
            let requests = unknown.into_iter().map(|meta| {
                let store = Arc::clone(&store);
                async move { read_pointer(&*store, &meta.location).await.map(|pointer| (meta, pointer)) }
            });
            stream::iter(requests).buffered(LISTING_IN_FLIGHT).try_collect::<Vec<_>>().await
        })?;
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        for (meta, header) in found {
            let Some(header) = header else { continue };
            // One that does not hold together is listed as it lies there: opening it says what is wrong.
            let pointer = Pointer::parse(&header).ok().flatten();
            lengths.insert(version(&meta), pointer.map_or(meta.size, |pointer| pointer.len));
        }
        // What has no length was deleted since it was listed.
        let entry = |(key, meta)| lengths.get(&version(&meta)).map(|&len| Entry { key, len });
        Ok(objects.into_iter().filter_map(entry).collect())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let Some(meta) = self.head(key)? else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such object")
                .in_object(self.remote.describe(key)));
        };
        let (store, path) = (Arc::clone(&self.remote.store), self.remote.path(key));
        let target = if may_be_pointer(meta.size) { self.target(key)? } else { None };
        let target = target.map(|target| self.remote.path(&target));
        self.remote.run("deleting", key, async move {
            delete_surely(&*store, &path).await?;
            // The commit is gone, so nobody sees the bytes any more; what stays is swept.
            if let Some(target) = target {
                let _ = store.delete(&target).await;
            }
            Ok(())
        })
    }

    /// Where the commit object of a key says that the bytes are.
    fn target(&self, key: &str) -> Result<Option<String>> {
        let (store, path) = (Arc::clone(&self.remote.store), self.remote.path(key));
        let header = self.remote.run("reading", key, async move { read_pointer(&*store, &path).await })?;
        let pointer = header.and_then(|header| Pointer::parse(&header).ok().flatten());
        Ok(pointer.map(|pointer| pointer.target))
    }

    fn sweep(&self, age: Duration) -> Result<usize> {
        let data = self.remote.path(DATA);
        let (store, folder) = (Arc::clone(&self.remote.store), data.clone());
        let found = self.remote.run("listing", DATA, async move {
            store.list(Some(&folder)).try_collect::<Vec<ObjectMeta>>().await
        })?;
        let oldest_kept = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut swept = 0;
        for meta in found.into_iter().filter(|meta| SystemTime::from(meta.last_modified) <= oldest_kept) {
            let name =
                meta.location.as_ref().strip_prefix(data.as_ref()).unwrap_or_default().trim_matches('/');
            let Some((key, _)) = name.rsplit_once('/').filter(|(key, _)| check_free_key(key).is_ok()) else {
                continue;
            };
            if self.target(key)?.is_some_and(|target| target == format!("{DATA}/{name}")) {
                continue;
            }
            let store = Arc::clone(&self.remote.store);
            let path = meta.location.clone();
            self.remote.run("sweeping", key, async move { delete_surely(&*store, &path).await })?;
            swept += 1;
        }
        Ok(swept)
    }
}

/// The text of what may be a commit object; None when nothing is there.
async fn read_pointer(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, StoreError> {
    match store.get_range(path, 0..HEADER as u64).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        // One that is shorter is none.
        Err(error) => match store.head(path).await {
            Ok(meta) if !may_be_pointer(meta.size) => Ok(Some(Bytes::new())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

/// An object in one request: all this engine puts at a key is small.
async fn read_whole(store: &dyn ObjectStore, path: &Path) -> Result<Found, StoreError> {
    let found = store.get_opts(path, GetOptions::default()).await?;
    let meta = found.meta.clone();
    let wanted = meta.size <= LARGEST_PLAIN as u64 || may_be_pointer(meta.size);
    // Dropped unread, the answer costs its connection.
    let bytes = if wanted { found.bytes().await? } else { Bytes::new() };
    Ok(Found { meta, bytes })
}

/// Deletes what is there; a delete whose reply was lost is sent again, since nothing is created at the path again.
async fn delete_surely(store: &dyn ObjectStore, path: &Path) -> Result<(), StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match store.delete(path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) if is_refusal(&error) || tries == DELETE_TRIES => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50 << tries)).await,
        }
    }
}
