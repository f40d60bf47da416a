//! Engines move whole, immutable objects; tensors, steps and checkpoints are unknown to them. The
//! contract is below, in prose; `testing::conformance` is its executable form.
//!
//! # The contract
//! * **Keys** are relative paths of 1 to 4 segments of `[A-Za-z0-9._-]`, none of them `.` or `..`
//!   or starting with a dot.
//! * **Create-only.** An object appears at [`Upload::commit`], whole, or not at all. No committed
//!   key is ever written again: a second commit to it is [`CommitError::Conflict`], also when both
//!   raced, and exactly one of them wins.
//! * **Durable on Ok.** When `commit` returns Ok, the object survives a power cut, as far as
//!   [`Caps::durable`] says.
//! * **An abandoned upload leaves nothing visible.** Dropping an [`Upload`] aborts it. The remains
//!   of a killed one are never listed, never opened, never in the way of a new upload to the same
//!   key, and swept under the next lock if the engine can tell whose they are.
//! * **Three outcomes of a commit**, because a caller acts differently on each: see
//!   [`CommitError`].
//! * **Reads need no lock** and see the object whole while it exists. An open [`Blob`] stays
//!   readable after `delete`, or, on storage that keeps nothing open, gives `NotFound` from then
//!   on, and never other bytes.
//! * **`list`** returns committed objects only, complete for everything committed before the call.
//! * **`delete`** is atomic, durable when it returns Ok, and `NotFound` for an object that does not
//!   exist.
//! * **`lock`** is held by one holder at a time, across processes, and freed by the death of the
//!   holder. An engine that cannot lock says so in [`Caps::lock`] and refuses.
//! * **Calls end.** An engine over a network ends a call by its own limit, and by
//!   [`CallDeadline::current`] if there is one.

mod counted;
mod decorator;
mod into;
pub(crate) mod local;
pub(crate) mod memory;
mod network;
pub(crate) mod vfs;

pub use crate::deadline::CallDeadline;
pub use counted::{bytes_read, count_read};
pub use decorator::Decorator;
pub use into::IntoEngine;
pub use local::{Local, abandon_unfinished_files, replace_file};
pub use memory::Memory;
pub use network::network_file_system;
pub use vfs::MmapPromise;
pub(crate) use vfs::PrivateMap;

use crate::error::{Error, Result};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// 16 bytes that distinguish one upload from every other. The same bytes are in the object (a
/// container's file id), so that an engine can resolve a lost reply by reading them back.
pub type Nonce = [u8; 16];

/// A unique nonce: from the operating system's randomness (by way of std's hasher keys) and a
/// counter.
pub fn fresh_nonce() -> Nonce {
    #[cfg(feature = "testing")]
    if let Some(nonce) = crate::clock::script::nonce() {
        return nonce;
    }
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let half = || RandomState::new().hash_one((count, std::process::id())).to_le_bytes();
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&half());
    nonce[8..].copy_from_slice(&half());
    nonce
}

/// Moves whole objects. See the [module](self) for the contract.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Starts an upload to `key`. `size_hint` is the final length in bytes if it is known: an
    /// engine may reserve the space and fail early.
    ///
    /// # Errors
    /// `AlreadyExists` when the key is committed already (a race may still end in
    /// [`CommitError::Conflict`]), and errors of the storage.
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>>;

    /// As [`Engine::create`], of one of many objects by which many ranks save `save_len` bytes in
    /// all, at a key that no other upload ever has. An engine over a network need not look whether
    /// the key is free, and may make its requests larger, so that those of all ranks stay few.
    ///
    /// # Errors
    /// As [`Engine::create`]; a key that is taken all the same is a
    /// [`Conflict`](CommitError::Conflict) at the commit.
    fn create_shard(&self, key: &str, size_hint: Option<u64>, _save_len: u64) -> Result<Box<dyn Upload>> {
        self.create(key, size_hint)
    }

    /// Opens a committed object for reading.
    ///
    /// # Errors
    /// `NotFound`, and errors of the storage.
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>>;

    /// As [`Engine::open`], but mapped into memory if the engine can; it may read instead where
    /// mapping is unsafe, as [`Local`] does on network file systems.
    ///
    /// # Errors
    /// As [`Engine::open`], and `Unsupported` if the engine has nothing to map.
    fn map(&self, key: &str, _promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        Err(Error::new(crate::ErrorKind::Unsupported, "this engine cannot map objects")
            .in_object(self.describe(key))
            .help("open it for reading instead"))
    }

    /// The committed objects directly under `folder` (`""` is the top), in no particular order.
    /// Objects in folders below it are not listed, and a folder that does not exist is empty.
    ///
    /// # Errors
    /// Errors of the storage.
    fn list(&self, folder: &str) -> Result<Vec<Entry>>;

    /// As [`Engine::list`] of each of these folders, in their order. Storage that lists all keys
    /// under a prefix in one request does so; each folder is listed at some moment of the call.
    ///
    /// # Errors
    /// As [`Engine::list`].
    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        folders.iter().map(|folder| self.list(folder)).collect()
    }

    /// Deletes a committed object.
    ///
    /// # Errors
    /// `NotFound`, and errors of the storage; then the object is still whole or gone, never half.
    fn delete(&self, key: &str) -> Result<()>;

    /// Creates an empty object at a key that is free: a mark for others to see. It need not survive
    /// a power cut, and an engine should create it without a disk write if it can, so that it works
    /// on a full disk as long as an empty file fits there. It is listed, and opens as an object of
    /// no bytes.
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken, `Unknown` when it may or may not be there, and errors
    /// of the storage.
    fn mark(&self, key: &str) -> Result<()> {
        Ok(self.create(key, Some(0))?.commit(fresh_nonce())?)
    }

    /// Deletes what [`Engine::mark`] created; after a power cut it may be back.
    ///
    /// # Errors
    /// As [`Engine::delete`].
    fn unmark(&self, key: &str) -> Result<()> {
        self.delete(key)
    }

    /// Moves a committed object to a key that is free, atomically; durable when it returns Ok.
    /// Called under the lock.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `Unsupported` where the storage has no such operation.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Takes the exclusive writer lock, without waiting, and removes the remains of killed uploads.
    /// `holder` is shown to processes that are refused.
    ///
    /// # Errors
    /// `Locked` with the holder's words; `Unsupported` if the engine has no locks.
    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>>;

    /// The engine's capabilities here, probed and not assumed.
    fn caps(&self) -> Caps;

    /// The object's name for people: a path or a URL.
    fn describe(&self, key: &str) -> String;
}

/// One committed object in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The whole key, with its folder.
    pub key: String,
    /// Length in bytes.
    pub len: u64,
}

/// An object being written. Dropping it aborts: nothing becomes visible.
pub trait Upload: Send {
    /// Appends bytes. An engine may hold them back or write them in parallel; an error may surface
    /// later, at the latest in `commit`.
    ///
    /// # Errors
    /// After an error the upload is dead: every later call fails too, and it can only be dropped.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// As [`Upload::append`], of bytes whose CRC-32 is known: an engine that needs one of the whole
    /// object can combine it with this instead of reading all bytes once more.
    ///
    /// # Errors
    /// As [`Upload::append`].
    fn append_with_crc(&mut self, bytes: &[u8], _crc32: u32) -> Result<()> {
        self.append(bytes)
    }

    /// Tells the engine that readers need the rest of the object first: an engine for which every
    /// read is a round trip may keep it where opening finds it. The object itself does not change.
    fn begin_tail(&mut self) {}

    /// Publishes the object. Consumes the upload: a published object can no longer be written.
    ///
    /// # Errors
    /// One of three outcomes, see [`CommitError`].
    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError>;
}

/// Why a commit failed: three outcomes that a caller acts on differently.
#[derive(Debug)]
pub enum CommitError {
    /// The key was committed by another writer. Ours is not visible.
    Conflict(Error),
    /// Ours is not visible and never will be. Trying again with a new upload is safe.
    NotCommitted(Error),
    /// Ours may or may not be visible, now or after a power cut. Read back before relying on
    /// either.
    Unknown(Error),
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(error) => error.with_kind(crate::ErrorKind::AlreadyExists),
            CommitError::NotCommitted(error) => error,
            CommitError::Unknown(error) => error.with_kind(crate::ErrorKind::Unknown),
        }
    }
}

/// A committed object, open for reading from several threads.
pub trait Blob: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `Damaged` when the object ends before the buffer is full, and errors of the storage.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Fills several buffers from their offsets: in one round trip if the engine can.
    ///
    /// # Errors
    /// As [`Blob::read_at`].
    fn read_ranges(&self, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        ranges.iter_mut().try_for_each(|(offset, buffer)| self.read_at(*offset, buffer))
    }

    /// All bytes, if they are in memory already: mapped, or in an engine that lives in memory.
    fn as_bytes(&self) -> Option<&[u8]> {
        None
    }
}

/// The exclusive writer lock; dropping it frees it.
pub trait Lock: Send + Sync + fmt::Debug {}

/// The capabilities of an engine at its location.
///
/// Later versions may ask for more, so an engine begins with [`Caps::NONE`]:
///
/// ```
/// use tensorkeep::engine::Caps;
///
/// let mut caps = Caps::NONE;
/// caps.durable = true;
/// caps.lock = true;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// Committed objects survive a power cut, on storage that honours fsync.
    pub durable: bool,
    /// The storage itself refuses a second commit to a key, by any process, even without the lock.
    pub create_only: bool,
    /// [`Engine::lock`] works.
    pub lock: bool,
    /// [`Engine::map`] works, and maps.
    pub map: bool,
    /// Bytes travel over a network, so compressing them pays.
    pub over_network: bool,
}

impl Caps {
    /// No capabilities; set those that the engine has.
    pub const NONE: Self =
        Self { durable: false, create_only: false, lock: false, map: false, over_network: false };
}

/// Checks a key against the contract's grammar.
///
/// # Errors
/// `Invalid`, with the reason.
pub fn check_key(key: &str) -> Result<()> {
    let segment_is_valid = |segment: &str| {
        !segment.is_empty()
            && segment.len() <= 200
            && !segment.starts_with('.')
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if key.split('/').count() <= 4 && key.split('/').all(segment_is_valid) {
        return Ok(());
    }
    Err(Error::invalid(format!("object key {key:?}"))
        .expected("1 to 4 segments of letters, digits, dot, dash and underscore, none starting with a dot"))
}

/// Fills `buffer` from `offset` of a file of `len` bytes by `read`, which returns how many bytes
/// there were.
pub(crate) fn read_within(
    len: u64,
    offset: u64,
    buffer: &mut [u8],
    read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> Result<()> {
    if offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= len) {
        let filled = read(buffer).map_err(|error| Error::io("reading", error).at_byte(offset))?;
        if filled == buffer.len() {
            return Ok(());
        }
    }
    Err(ends_early(offset, buffer.len(), len))
}

/// The error of a read past the end.
pub(crate) fn ends_early(offset: u64, wanted: usize, len: u64) -> Error {
    Error::damaged(format!("the object ends before the {wanted} bytes wanted"))
        .at_byte(offset)
        .found(format!("{len} bytes in all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_folder_are_refused() {
        for key in ["a", "0001-0000000012.tkeep", "attempts/0003", "shards/a/b/c"] {
            check_key(key).unwrap();
        }
        for key in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            ".tmp",
            "a/.hidden",
            "a b",
            "a\\b",
            "a/b/c/d/e",
            "é",
        ] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn no_nonce_comes_twice() {
        let nonces: std::collections::HashSet<_> = (0..10_000).map(|_| fresh_nonce()).collect();
        assert_eq!(nonces.len(), 10_000);
    }
}
