//! Creates an object exactly once and finds out whether it was us: the meaning of each answer to a
//! conditional put, and the read that settles it.
//!
//! An error alone proves little: a put that was applied may be answered 500, by a reset or not at
//! all; retried by the layer below, our own object then answers "exists already"; and a 409 may
//! mean that nothing exists. So the object carries a nonce, and *every* error is settled by reading
//! it back:
//!
//! | found | it is | so |
//! |---|---|---|
//! | an object with our nonce | ours: the reply was lost | committed |
//! | an object with another nonce | theirs | conflict, once two answers say so |
//! | nothing | not yet: a request may be in flight | create the same bytes again, same nonce |
//!
//! Creating again is safe because only one of all these requests can win, and any of ours that wins
//! is ours.

use crate::deadline::{Deadline, Tries};
use crate::error::is_refusal;
use crate::pointer::hex;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload,
};
use tensorkeep::engine::Nonce;

/// The metadata key of the nonce (on S3 the header `x-amz-meta-tensorkeepnonce`). No dash: Azure's
/// rules are those of C# identifiers.
const NONCE: &str = "tensorkeepnonce";

/// The outcome of a commit.
#[derive(Debug)]
pub(crate) enum Outcome {
    Committed,
    /// Another writer's object is there.
    Conflict,
    /// Nothing is there, and none of our requests is in flight.
    NotCommitted(StoreError),
    /// It could not be determined.
    Unknown(StoreError),
}

/// The owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    Others,
}

/// Creates an object that does not exist yet, by the deadline.
pub(crate) async fn create(
    store: &dyn ObjectStore,
    path: &Path,
    bytes: Bytes,
    nonce: Nonce,
    deadline: &Deadline,
) -> Outcome {
    let mut in_doubt = false;
    let mut tries = Tries::default();
    loop {
        let put = deadline.once(bytes.len() as u64, put(store, path, bytes.clone(), nonce));
        let Err(error) = put.await else { return Outcome::Committed };
        let ask = || deadline.once(0, owner(store, path, nonce));
        let found = match ask().await {
            // One answer may lack the nonce or be of another object, and a conflict may be with
            // our own put that a proxy has sent twice. The bytes of an upload that has lost are
            // deleted, so it is asked again.
            Ok(Owner::Others) => ask().await,
            found => found,
        };
        in_doubt |= !is_refusal(&error);
        match found {
            Ok(Owner::Us) => return Outcome::Committed,
            Ok(Owner::Others) => return Outcome::Conflict,
            Ok(Owner::Nobody) if !in_doubt => return Outcome::NotCommitted(error),
            Ok(Owner::Nobody) | Err(_) => {}
        }
        // A conflict without an object may pass.
        let again = if is_conflict(&error) {
            tries.failed(error);
            deadline.pause(&mut tries).await
        } else {
            deadline.again(&mut tries, error).await
        };
        if !again {
            return Outcome::Unknown(tries.gave_up());
        }
    }
}

/// Whether the store reported that an object is in the way.
pub(crate) fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })
}

/// Creates an object that names its writer.
pub(crate) async fn put(
    store: &dyn ObjectStore,
    path: &Path,
    bytes: Bytes,
    nonce: Nonce,
) -> Result<(), StoreError> {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(NONCE.into()), hex(nonce).into());
    let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
    store.put_opts(path, PutPayload::from(bytes), options).await.map(drop)
}

async fn owner(store: &dyn ObjectStore, path: &Path, nonce: Nonce) -> Result<Owner, StoreError> {
    let there = match nonce_at(store, path).await {
        Err(StoreError::NotFound { .. }) => return Ok(Owner::Nobody),
        there => there?,
    };
    // None: created by another program. The probe has shown that this store keeps metadata.
    Ok(if there == Some(hex(nonce)) { Owner::Us } else { Owner::Others })
}

/// The nonce of an object's writer, as [`hex`] has it.
pub(crate) async fn nonce_at(store: &dyn ObjectStore, path: &Path) -> Result<Option<String>, StoreError> {
    let found = store.get_opts(path, GetOptions::new().with_head(true)).await?;
    Ok(found.attributes.get(&Attribute::Metadata(NONCE.into())).map(|there| there.to_string()))
}

#[cfg(test)]
pub(crate) mod model;
