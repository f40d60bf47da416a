//! Creating an object once, and knowing whether it was us. Owns: what each answer to a conditional
//! put means, and the reading back that settles it. Knows nothing of what is in the object.
//!
//! An error says little: a put that was applied may be answered 500, by a reset or not at all;
//! retried by the layer below, our own object then answers "exists already"; and a 409 may mean
//! that nothing exists. So the object carries a nonce, and *every* error is settled by reading it
//! back:
//!
//! | there is | it is | so |
//! |---|---|---|
//! | an object with our nonce | ours: the reply was lost | committed |
//! | an object with another nonce | theirs | conflict |
//! | nothing | not yet: a request may still be on its way | create again, the same bytes under the same nonce |
//!
//! Creating again is safe because only one of all these requests can win, and whichever of ours
//! does, it is ours.

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
/// How a commit ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Committed,
    /// Somebody else's object is there.
    Conflict,
    /// Nothing is there, and none of our requests is on its way.
    NotCommitted(StoreError),
    /// Nobody could tell.
    Unknown(StoreError),
}

/// Whose object is at a path.
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
    let (mut in_doubt, mut tries) = (false, Tries::default());
    loop {
        let put = deadline.once(bytes.len() as u64, put(store, path, bytes.clone(), nonce));
        let Err(error) = put.await else { return Outcome::Committed };
        let refused = is_refusal(&error);
        in_doubt |= !refused;
        match deadline.once(0, owner(store, path, nonce)).await {
            Ok(Owner::Us) => return Outcome::Committed,
            Ok(Owner::Others) => return Outcome::Conflict,
            Ok(Owner::Nobody) if !in_doubt => return Outcome::NotCommitted(error),
            Ok(Owner::Nobody) | Err(_) => {}
        }
        // A conflict with nobody there may pass.
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

/// Whether the store said that something is in the way.
fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })
}

async fn put(store: &dyn ObjectStore, path: &Path, bytes: Bytes, nonce: Nonce) -> Result<(), StoreError> {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(NONCE.into()), hex(nonce).into());
    let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
    store.put_opts(path, PutPayload::from(bytes), options).await.map(drop)
}

async fn owner(store: &dyn ObjectStore, path: &Path, nonce: Nonce) -> Result<Owner, StoreError> {
    let found = match store.get_opts(path, GetOptions::new().with_head(true)).await {
        Err(StoreError::NotFound { .. }) => return Ok(Owner::Nobody),
        found => found?,
    };
    Ok(match found.attributes.get(&Attribute::Metadata(NONCE.into())) {
        Some(there) if there.as_ref() == hex(nonce) => Owner::Us,
        // None: put there by another program. The probe has seen that this store keeps metadata.
        _ => Owner::Others,
    })
}

#[cfg(test)]
pub(crate) mod model;
