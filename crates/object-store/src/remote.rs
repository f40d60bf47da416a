//! State shared by an engine, its uploads and its open objects: the store, the runtime, the time
//! limits of calls, and the run's prefix. Turns keys into paths and errors of the store into this
//! library's.

use crate::deadline::{Deadline, Limits, Patience};
use crate::error::explain;
use crate::runtime::Io;
use crate::strays::Strays;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use tensorkeep::engine::check_key;
use tensorkeep::{Error, ErrorKind, Result};

/// The folder of large objects' bytes. No key may lie in it.
pub(crate) const DATA: &str = "objects";

/// Bytes that no commit named in the last listing of the whole run, as keys under it.
#[derive(Debug, Default)]
pub(crate) struct Left(pub Mutex<Vec<String>>);

impl Left {
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }
}

/// A place in a store.
#[derive(Clone)]
pub(crate) struct Remote {
    pub store: Arc<dyn ObjectStore>,
    /// Uploads whose parts can be retried one by one; None on a store that the caller built.
    pub parts: Option<Arc<dyn MultipartStore>>,
    /// Listings page by page; None on a store that the caller built.
    pub pages: Option<Arc<dyn PaginatedListStore>>,
    /// Keys that listings omit.
    pub strays: Strays,
    /// Remains of killed processes.
    pub left: Arc<Left>,
    pub io: Arc<Io>,
    /// For messages, without a trailing slash.
    pub url: String,
    /// Before every key; may be empty.
    pub prefix: Path,
    pub limits: Limits,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

impl Remote {
    /// The path of a key, or of the run itself for `""`.
    pub(crate) fn path(&self, key: &str) -> Path {
        if key.is_empty() {
            return self.prefix.clone();
        }
        let path =
            if self.prefix.as_ref().is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        // Keys and the prefix were parsed before, and are used as they are: `from` would escape the
        // prefix once more.
        Path::parse(&path).unwrap_or_else(|_| Path::from(path))
    }

    /// The object's URL.
    pub(crate) fn describe(&self, key: &str) -> String {
        if key.is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) }
    }

    /// The deadline of a call that begins now and moves no data.
    pub(crate) fn deadline(&self) -> Deadline {
        self.patience().begin(0)
    }

    /// The limits of a call that this thread makes now.
    pub(crate) fn patience(&self) -> Patience {
        self.limits.patience()
    }

    /// Runs a request on the object of `key`; `what` describes it in errors.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        key: &str,
        request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T> {
        self.io.run(request)?.map_err(|error| explain(what, &self.describe(key), error))
    }
}

/// Checks the contract's grammar; the folder of large objects is reserved for the engine.
pub(crate) fn check_free_key(key: &str) -> Result<()> {
    check_key(key)?;
    match key.split('/').next() {
        Some(DATA) => Err(Error::new(ErrorKind::Invalid, format!("object key {key:?}"))
            .expected(format!("not in {DATA}/, where the engine keeps large objects"))),
        _ => Ok(()),
    }
}
