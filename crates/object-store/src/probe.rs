//! Finds out what a store can do by doing it: whether a second create of one path is refused, also
//! when many race, and whether metadata comes back. The probe's objects are no keys and are deleted
//! again.

use crate::commit::{self, Outcome};
use crate::deadline::Deadline;
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

/// Creates that race: enough to expose stores that refuse a second create in sequence but are not
/// atomic.
const RACERS: usize = 16;

/// Prefix of the probe's objects. A segment that starts with a dot is no key: never listed, never
/// in the way.
pub(crate) const NAME: &str = ".probe-";

/// Ok when the store's create-if-absent is reliable.
///
/// # Errors
/// `Unsupported` with the observed behaviour; errors of the store, such as wrong credentials or a
/// missing bucket.
pub(crate) fn probe(remote: &Remote) -> Result<()> {
    let store = Arc::clone(&remote.store);
    let name = format!("{NAME}{}", hex(fresh_nonce()));
    let (path, race_path) = (remote.path(&name), remote.path(&format!("{name}-race")));
    let deadline = remote.deadline();
    let failed = |error| {
        explain(
            "this place cannot hold checkpoints: the probe of create, read and delete failed",
            &remote.url,
            error,
        )
    };
    let finding = remote.io.run(async move {
        let finding = match probe_at(&*store, &path, &deadline).await {
            Ok(None) => race(&*store, &race_path, &deadline).await,
            other => other,
        };
        for path in [path, race_path] {
            // A leftover does no harm, and is swept.
            let _ = deadline.once(0, store.delete(&path)).await;
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
async fn probe_at(
    store: &dyn ObjectStore,
    path: &Path,
    deadline: &Deadline,
) -> Result<Option<&'static str>, StoreError> {
    match commit::create(store, path, Bytes::from_static(b"first"), fresh_nonce(), deadline).await {
        Outcome::Committed => {}
        Outcome::Conflict => return Ok(Some("the store does not give back the metadata of an object")),
        Outcome::NotCommitted(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
            return Ok(Some("the store has no conditional put"));
        }
        Outcome::NotCommitted(error) | Outcome::Unknown(error) => return Err(error),
    }
    Ok(match commit::create(store, path, Bytes::from_static(b"second"), fresh_nonce(), deadline).await {
        Outcome::Committed => {
            Some("the store ignores the condition of a conditional put: it overwrote an object")
        }
        Outcome::Conflict => None,
        Outcome::NotCommitted(error) | Outcome::Unknown(error) => return Err(error),
    })
}

/// Many creates at once. None when exactly one won.
async fn race(
    store: &dyn ObjectStore,
    path: &Path,
    deadline: &Deadline,
) -> Result<Option<&'static str>, StoreError> {
    let racer = |_| async {
        let nonce = fresh_nonce();
        let put = || commit::put(store, path, Bytes::from_static(b"race"), nonce);
        (hex(nonce), deadline.retry(0, put).await)
    };
    let (mut racers, mut told_so) = (Vec::new(), Vec::new());
    for (nonce, put) in join_all((0..RACERS).map(racer)).await {
        match put {
            Ok(()) => told_so.push(nonce.clone()),
            Err(error) if commit::is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
        racers.push(nonce);
    }
    // The winner's reply may be lost: it is told that an object is there, its own. Another than one
    // winner is believed when two answers say so.
    for _ in 0..2 {
        let winner = match deadline.retry(0, || commit::nonce_at(store, path)).await {
            Err(StoreError::NotFound { .. }) => None,
            winner => winner?,
        };
        let is_one = |winner: &String| racers.contains(winner) && told_so.iter().all(|told| told == winner);
        if winner.as_ref().is_some_and(is_one) {
            return Ok(None);
        }
    }
    Ok(Some("the store's conditional put is not atomic: of racing creates not exactly one won"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::model::{Put, Scripted};
    use crate::deadline::Limits;
    use std::time::Duration;

    /// The result of a race on a store whose first put is `put`.
    fn race_with(put: Put) -> Option<&'static str> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let store = Scripted::of(&[put]);
            let deadline = Limits::of(Duration::from_secs(60)).patience().begin(0);
            race(&store, &Path::from("race"), &deadline).await.unwrap()
        })
    }

    #[test]
    fn a_race_without_a_winner_fails_as_one_with_two() {
        assert_eq!(race_with(Put::Honest), None);
        assert!(race_with(Put::RivalFirst).unwrap().contains("not exactly one won"));
    }
}
