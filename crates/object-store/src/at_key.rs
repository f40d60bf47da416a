//! The object at a key: none, a plain one, or a commit object and the bytes that it names. By this
//! answer bytes are deleted, so a surprise is believed only when two answers in a row agree.

use crate::deadline::Deadline;
use crate::pointer::{HEADER, Pointer, may_be_pointer};
use crate::remote::Remote;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use tensorkeep::Result;

/// How often the object is read until two answers agree.
const MOST: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AtKey {
    Nothing,
    /// Too short for a commit object, or with other text at its beginning: a later version's commit
    /// object, too.
    Plain,
    Commit(Pointer),
    /// A commit object whose text is inconsistent, or each answer is another.
    Damaged,
}

impl AtKey {
    /// Looks at an object; the expected answer is believed at once.
    pub(crate) async fn look(
        store: &dyn ObjectStore,
        path: &Path,
        deadline: &Deadline,
        is_expected: impl Fn(&Self) -> bool,
    ) -> Result<Self, StoreError> {
        let mut before = None;
        for _ in 0..MOST {
            let answer = Self::look_once(store, path, deadline).await?;
            if is_expected(&answer) || before.as_ref() == Some(&answer) {
                return Ok(answer);
            }
            before = Some(answer);
        }
        Ok(Self::Damaged)
    }

    async fn look_once(
        store: &dyn ObjectStore,
        path: &Path,
        deadline: &Deadline,
    ) -> Result<Self, StoreError> {
        match deadline.retry(0, || store.get_range(path, 0..HEADER as u64)).await {
            Ok(bytes) => Ok(match Pointer::parse(&bytes) {
                Ok(Some(pointer)) => Self::Commit(pointer),
                Ok(None) => Self::Plain,
                Err(_) => Self::Damaged,
            }),
            Err(StoreError::NotFound { .. }) => Ok(Self::Nothing),
            // The range may lie behind the end of a short object.
            Err(error) => match deadline.retry(0, || store.head(path)).await {
                Ok(meta) if !may_be_pointer(meta.size) => Ok(Self::Plain),
                Err(StoreError::NotFound { .. }) => Ok(Self::Nothing),
                _ => Err(error),
            },
        }
    }

    pub(crate) fn is_commit(&self) -> bool {
        matches!(self, Self::Commit(_))
    }

    /// Whether this is a commit object that names those bytes.
    pub(crate) fn names(&self, target: &str) -> bool {
        matches!(self, Self::Commit(pointer) if pointer.target == target)
    }

    /// Whether bytes that were uploaded for the key belong to no object. `listed` is the length of
    /// the key's object in a listing made after that of the bytes; `is_there` whether that one has
    /// other bytes: a commit object that names none is damaged.
    pub(crate) fn abandons(
        &self,
        key: &str,
        target: &str,
        listed: Option<u64>,
        is_there: impl Fn(&str) -> bool,
    ) -> bool {
        match self {
            Self::Nothing => listed.is_none(),
            Self::Plain => listed.is_some_and(|len| !may_be_pointer(len)),
            Self::Commit(pointer) => {
                pointer.is_of(key) && pointer.target != target && is_there(&pointer.target)
            }
            Self::Damaged => false,
        }
    }
}

impl Remote {
    /// Looks at a key's object; the expected answer is believed at once.
    pub(crate) fn look_at(
        &self,
        key: &str,
        deadline: &Deadline,
        is_expected: impl Fn(&AtKey) -> bool + Send + 'static,
    ) -> Result<AtKey> {
        let (store, path, deadline) = (Arc::clone(&self.store), self.path(key), deadline.clone());
        self.run("reading", key, async move { AtKey::look(&*store, &path, &deadline, is_expected).await })
    }

    /// The path in a key's commit object, if the bytes there are its own.
    pub(crate) fn target(&self, key: &str, deadline: &Deadline) -> Result<Option<String>> {
        Ok(match self.look_at(key, deadline, AtKey::is_commit)? {
            AtKey::Commit(pointer) if pointer.is_of(key) => Some(pointer.target),
            _ => None,
        })
    }
}
