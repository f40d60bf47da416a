//! What several test files share: a container in memory, opened as if read or as if mapped.

use std::sync::Arc;
use tensorkeep::engine::Blob;
use tensorkeep::{Checkpoint, Error, ErrorKind, OpenOptions, Result, Snapshot, WriteOptions, tensor::Buffer};

/// Bytes as an object: `mapped` decides whether they are handed out in place.
#[derive(Debug)]
struct InMemory {
    bytes: Buffer,
    mapped: bool,
}

impl Blob for InMemory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or_else(|| Error::new(ErrorKind::Damaged, "read past the end"))?);
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        self.mapped.then_some(&self.bytes)
    }
}

/// A snapshot's bytes, opened again.
pub fn saved(snapshot: &Snapshot<'_>, mapped: bool) -> Checkpoint {
    let bytes = Buffer::copy_of(&snapshot.to_bytes(&WriteOptions::new()).unwrap()).unwrap();
    OpenOptions::new().open_blob(Arc::new(InMemory { bytes, mapped }), "memory").unwrap()
}
