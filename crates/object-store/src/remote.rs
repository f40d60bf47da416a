//! What an engine, its uploads and its open objects share: the store, the runtime, and where in the store the run is.
//! Owns: keys to paths, and the words of errors. Knows no protocol.

use crate::error::explain;
use crate::runtime::Io;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore};
use std::future::Future;
use std::sync::Arc;
use tensorkeep::Result;

/// The folder of large objects' bytes. No key may lie in it.
pub(crate) const DATA: &str = "objects";

/// A place in a store.
#[derive(Debug)]
pub(crate) struct Remote {
    pub store: Arc<dyn ObjectStore>,
    pub io: Io,
    /// For people, without a slash at the end.
    pub url: String,
    /// Before every key, without slashes around it; may be empty.
    pub prefix: String,
}

impl Remote {
    /// The path of a key, or of the run itself for `""`.
    pub(crate) fn path(&self, key: &str) -> Path {
        // Empty segments are dropped; those of keys need no escaping, and those of the prefix were parsed before.
        Path::from(format!("{}/{key}", self.prefix))
    }

    /// The object's URL.
    pub(crate) fn describe(&self, key: &str) -> String {
        if key.is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) }
    }

    /// Runs a request; `what` it is for, on the object of `key`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        key: &str,
        request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T> {
        self.io.run(request)?.map_err(|error| explain(what, &self.describe(key), error))
    }
}
