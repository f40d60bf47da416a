//! Fetches an object's bytes until they are complete: an answer that breaks off is continued from
//! where it stopped. The deadline moves with every byte that arrives, so a slow line gets its time
//! and a silent one does not.

use crate::deadline::{Deadline, Patience, Tries};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use std::ops::Range;
use std::sync::Arc;

/// An object found at a path.
pub(crate) struct Found {
    pub meta: ObjectMeta,
    /// All its bytes; empty where they were not requested.
    pub bytes: Bytes,
}

/// The bytes of a range; fewer when the object ends before it does.
pub(crate) async fn fetch(
    store: Arc<dyn ObjectStore>,
    path: Path,
    range: Range<u64>,
    patience: Patience,
) -> Result<Bytes, StoreError> {
    let (mut deadline, mut tries) = (patience.begin(0), Tries::default());
    // OK to cast: one request fits in memory.
    let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
    loop {
        let before = bytes.len() as u64;
        let rest = range.start + before..range.end;
        let error = match fetch_some(&*store, &path, rest, &mut bytes, &mut deadline).await {
            Ok(()) => return Ok(bytes.freeze()),
            Err(error) => error,
        };
        if bytes.len() as u64 > before {
            tries = Tries::default();
        }
        if !deadline.again(&mut tries, error).await {
            return Err(tries.gave_up());
        }
    }
}

/// One request; bytes that arrived are kept even when it fails.
async fn fetch_some(
    store: &dyn ObjectStore,
    path: &Path,
    range: Range<u64>,
    bytes: &mut BytesMut,
    deadline: &mut Deadline,
) -> Result<(), StoreError> {
    let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
    let found = deadline.once(0, store.get_opts(path, options)).await?;
    collect(found, bytes, deadline).await
}

/// An object in one request; its bytes if `wanted` returns true.
pub(crate) async fn fetch_whole(
    store: &dyn ObjectStore,
    path: &Path,
    patience: Patience,
    wanted: impl Fn(&ObjectMeta) -> bool,
) -> Result<Found, StoreError> {
    let (mut deadline, mut tries) = (patience.begin(0), Tries::default());
    loop {
        let error = match fetch_once(store, path, &mut deadline, &wanted).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if !deadline.again(&mut tries, error).await {
            return Err(tries.gave_up());
        }
    }
}

async fn fetch_once(
    store: &dyn ObjectStore,
    path: &Path,
    deadline: &mut Deadline,
    wanted: impl Fn(&ObjectMeta) -> bool,
) -> Result<Found, StoreError> {
    let found = deadline.once(0, store.get_opts(path, GetOptions::default())).await?;
    let (meta, mut bytes) = (found.meta.clone(), BytesMut::new());
    // Dropped unread, the answer costs its connection.
    if wanted(&meta) {
        collect(found, &mut bytes, deadline).await?;
    }
    Ok(Found { meta, bytes: bytes.freeze() })
}

/// Appends the bytes of an answer as they arrive.
async fn collect(found: GetResult, bytes: &mut BytesMut, deadline: &mut Deadline) -> Result<(), StoreError> {
    let mut missing = found.range.end - found.range.start;
    let mut stream = found.into_stream();
    while missing > 0 {
        let chunk = deadline.once(0, async { stream.next().await.transpose() }).await?;
        let Some(chunk) = chunk else {
            let source = format!("the answer ended {missing} bytes too early").into();
            return Err(StoreError::Generic { store: "tensorkeep", source });
        };
        deadline.extend(chunk.len() as u64);
        // OK to cast: at most the length of the chunk.
        let count = (chunk.len() as u64).min(missing) as usize;
        bytes.extend_from_slice(&chunk[..count]);
        missing -= count as u64;
    }
    Ok(())
}
