//! What a store can do, found out by doing it: whether a second create of one path is refused, also when many race, and
//! whether metadata comes back. Owns: the probe's objects, which are no keys and are deleted again.

use crate::commit::{self, Outcome};
use crate::error::explain;
use crate::pointer::hex;
use crate::remote::Remote;
use bytes::Bytes;
use futures_util::future::join_all;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use tensorkeep::engine::fresh_nonce;
use tensorkeep::{Error, ErrorKind, Result};

/// Creates that race: as many as showed stores to be not atomic that refuse a second create one after the other.
const RACERS: usize = 16;

/// Ok when the store's create-if-absent can be relied on.
///
/// # Errors
/// `Unsupported` with what it did instead; what the store says, such as wrong credentials or a missing bucket.
pub(crate) fn probe(remote: &Remote) -> Result<()> {
    let store = Arc::clone(&remote.store);
    // A segment that starts with a dot is no key: never listed, never in the way.
    let path = remote.path(&format!(".probe-{}", hex(fresh_nonce())));
    let failed = |error| {
        explain(
            "this place cannot hold checkpoints: the probe of create, read and delete failed",
            &remote.url,
            error,
        )
    };
    let finding = remote.io.run(async move {
        let finding = probe_at(&*store, &path).await;
        let race_path = Path::from(format!("{path}-race"));
        let finding = match finding {
            Ok(None) => race(&*store, &race_path).await,
            other => other,
        };
        for path in [path, race_path] {
            // Left over it is in nobody's way.
            let _ = store.delete(&path).await;
        }
        finding
    })?;
    match finding.map_err(failed)? {
        None => Ok(()),
        Some(what) => Err(Error::new(ErrorKind::Unsupported, what)
            .in_object(&remote.url)
            .help("two writers would overwrite each other unseen; use a store with conditional puts (If-None-Match)")),
    }
}

/// Two creates, one after the other. None when the second was refused.
async fn probe_at(store: &dyn ObjectStore, path: &Path) -> Result<Option<&'static str>, StoreError> {
    match commit::create(store, path, Bytes::from_static(b"first"), fresh_nonce()).await {
        Outcome::Committed => {}
        Outcome::Conflict => return Ok(Some("the store does not give back the metadata of an object")),
        Outcome::NotCommitted(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
            return Ok(Some("the store has no conditional put"));
        }
        Outcome::NotCommitted(error) | Outcome::Unknown(error) => return Err(error),
    }
    Ok(match commit::create(store, path, Bytes::from_static(b"second"), fresh_nonce()).await {
        Outcome::Committed => {
            Some("the store ignores the condition of a conditional put: it overwrote an object")
        }
        Outcome::Conflict => None,
        Outcome::NotCommitted(error) | Outcome::Unknown(error) => return Err(error),
    })
}

/// Many creates at once. None when exactly one won.
async fn race(store: &dyn ObjectStore, path: &Path) -> Result<Option<&'static str>, StoreError> {
    let racers = (0..RACERS).map(|_| commit::create(store, path, Bytes::from_static(b"race"), fresh_nonce()));
    let outcomes = join_all(racers).await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Committed)).count();
    for outcome in outcomes {
        if let Outcome::NotCommitted(error) | Outcome::Unknown(error) = outcome {
            return Err(error);
        }
    }
    Ok((won != 1)
        .then_some("the store's conditional put is not atomic: of racing creates not exactly one won"))
}
