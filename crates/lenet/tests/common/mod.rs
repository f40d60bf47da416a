//! Shared by several test files.

use tensorkeep::{Checkpoint, Snapshot, WriteOptions};

/// A snapshot's bytes, opened again, as if read or as if mapped.
pub fn saved(snapshot: &Snapshot<'_>, mapped: bool) -> Checkpoint {
    test_support::open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), mapped).unwrap()
}
