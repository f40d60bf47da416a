//! A record as MessagePack: in memory, or read when it is written, because the records of another
//! checkpoint may be gigabytes in all.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::format::{crc32, records};
use serde::Serialize;
use std::sync::Arc;

#[derive(Clone)]
pub(crate) enum Record<'a> {
    Here(Vec<u8>),
    Lazy(Arc<LazyRecord<'a>>),
}

/// A record that was read and checked once.
pub(crate) struct LazyRecord<'a> {
    len: usize,
    crc: u32,
    read: Box<dyn Fn() -> Result<Buffer> + Send + Sync + 'a>,
}

impl<'a> Record<'a> {
    /// A value as MessagePack, in memory.
    ///
    /// # Errors
    /// As [`records::encode`].
    pub(crate) fn encoded<T: Serialize>(value: &T) -> Result<Self> {
        records::encode(value).map(Self::Here)
    }

    /// A record of these bytes, which `read` returns again.
    pub(crate) fn deferred(bytes: &[u8], read: impl Fn() -> Result<Buffer> + Send + Sync + 'a) -> Self {
        Self::Lazy(Arc::new(LazyRecord { len: bytes.len(), crc: crc32(bytes), read: Box::new(read) }))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Lazy(record) => record.len,
        }
    }

    pub(crate) fn crc32(&self) -> u32 {
        match self {
            Self::Here(bytes) => crc32(bytes),
            Self::Lazy(record) => record.crc,
        }
    }

    /// The same record, in memory.
    ///
    /// # Errors
    /// As [`LazyRecord::draw`].
    pub(crate) fn drawn<'b>(&self) -> Result<Record<'b>> {
        Ok(Record::Here(match self {
            Self::Here(bytes) => bytes.clone(),
            Self::Lazy(record) => record.draw()?.to_vec(),
        }))
    }
}

impl LazyRecord<'_> {
    /// The bytes.
    ///
    /// # Errors
    /// Errors of reading; `Invalid` when the bytes have changed.
    pub(crate) fn draw(&self) -> Result<Buffer> {
        let bytes = (self.read)()?;
        if bytes.len() == self.len && crc32(&bytes) == self.crc {
            return Ok(bytes);
        }
        Err(Error::invalid("a record changed while it was written").expected(self.len).found(bytes.len()))
    }
}
