//! Containers in memory, opened as if read or as if mapped.

use std::sync::Arc;
use tensorkeep::engine::Blob;
use tensorkeep::{Checkpoint, Error, ErrorKind, OpenOptions, Result, tensor::Buffer};

/// Bytes as an object: `mapped` decides whether they are borrowed in place.
#[derive(Debug)]
pub struct InMemory {
    pub bytes: Buffer,
    pub mapped: bool,
}

impl Blob for InMemory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.bytes.get(start..start.checked_add(buffer.len())?));
        let past_the_end = || Error::new(ErrorKind::Damaged, "read past the end").at_byte(offset);
        buffer.copy_from_slice(bytes.ok_or_else(past_the_end)?);
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        self.mapped.then_some(&self.bytes)
    }
}

pub fn open(bytes: &[u8], mapped: bool) -> Result<Checkpoint> {
    open_with(bytes, mapped, OpenOptions::new())
}

pub fn open_with(bytes: &[u8], mapped: bool, options: OpenOptions) -> Result<Checkpoint> {
    let blob = InMemory { bytes: Buffer::copy_of(bytes)?, mapped };
    options.open_blob(Arc::new(blob), "memory")
}
