//! Cuts tensors and records into chunks. Owns: drawing deferred tensors one at a time, and keeping a drawn one alive
//! until its last chunk is encoded. Knows neither codecs nor offsets.

use crate::dtype::Dtype;
use crate::error::Result;
use crate::snapshot::Source;
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::ops::Range;
use std::sync::Arc;

/// Part of a tensor's or record's bytes.
pub(super) enum Piece<'p> {
    Borrowed(&'p [u8]),
    Held(Arc<Tensor<'p>>, Range<usize>),
}

impl Piece<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Held(tensor, range) => &tensor.bytes()[range.clone()],
        }
    }
}

/// One chunk to encode, and the entry that begins with it.
pub(super) struct Job<'s, 'p> {
    pub start: Option<Start<'s>>,
    pub name: &'s str,
    pub dtype: Dtype,
    pub piece: Piece<'p>,
}

/// What the table needs to know when an entry begins: which table (0 tensors, 1 records) and the whole's shape.
pub(super) struct Start<'s> {
    pub table: usize,
    pub shape: Cow<'s, [usize]>,
    pub byte_len: u64,
}

/// Cuts tensors, then records, into chunks; draws deferred tensors one at a time.
pub(super) struct Jobs<'s, 'a> {
    tensors: std::slice::Iter<'s, (&'s str, &'s Source<'a>)>,
    records: btree_map::Iter<'s, &'s str, Cow<'s, [u8]>>,
    chunk_log2: u8,
    current: Option<Current<'s, 'a>>,
}

struct Current<'s, 'a> {
    name: &'s str,
    dtype: Dtype,
    bytes: Bytes<'s, 'a>,
    len: usize,
    at: usize,
    start: Option<Start<'s>>,
}

enum Bytes<'s, 'a> {
    Record(&'s [u8]),
    Borrowed(&'a [u8]),
    Held(Arc<Tensor<'a>>),
}

impl Bytes<'_, '_> {
    fn len(&self) -> usize {
        match self {
            Self::Record(bytes) => bytes.len(),
            Self::Borrowed(bytes) => bytes.len(),
            Self::Held(tensor) => tensor.bytes().len(),
        }
    }
}

impl<'s, 'a: 's> Jobs<'s, 'a> {
    pub(super) fn new(
        tensors: &'s [(&'s str, &'s Source<'a>)],
        records: &'s BTreeMap<&'s str, Cow<'s, [u8]>>,
        chunk_log2: u8,
    ) -> Self {
        Self { tensors: tensors.iter(), records: records.iter(), chunk_log2, current: None }
    }

    fn next_entry(&mut self) -> Result<Option<Current<'s, 'a>>> {
        if let Some(&(name, source)) = self.tensors.next() {
            let bytes = match source.borrowed() {
                Some(bytes) => Bytes::Borrowed(bytes),
                None => Bytes::Held(Arc::new(source.produce().map_err(|error| error.in_tensor(name))?)),
            };
            let (dtype, len) = (source.dtype(), bytes.len());
            let start = Start { table: 0, shape: Cow::Borrowed(source.shape()), byte_len: len as u64 };
            return Ok(Some(Current { name, dtype, bytes, len, at: 0, start: Some(start) }));
        }
        Ok(self.records.next().map(|(name, bytes)| {
            let start =
                Start { table: 1, shape: Cow::Owned(vec![bytes.len()]), byte_len: bytes.len() as u64 };
            Current {
                name,
                dtype: Dtype::Opaque,
                bytes: Bytes::Record(bytes),
                len: bytes.len(),
                at: 0,
                start: Some(start),
            }
        }))
    }
}

impl<'s, 'a: 's> Iterator for Jobs<'s, 'a> {
    type Item = Result<Job<'s, 's>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current
                && (current.start.is_some() || current.at < current.len)
            {
                let range = current.at..current.len.min(current.at + (1 << self.chunk_log2));
                current.at = range.end;
                let piece = match &current.bytes {
                    Bytes::Record(bytes) => Piece::Borrowed(&bytes[range]),
                    Bytes::Borrowed(bytes) => Piece::Borrowed(&bytes[range]),
                    Bytes::Held(tensor) => Piece::Held(Arc::clone(tensor), range),
                };
                return Some(Ok(Job {
                    start: current.start.take(),
                    name: current.name,
                    dtype: current.dtype,
                    piece,
                }));
            }
            self.current = None;
            match self.next_entry() {
                Ok(Some(current)) => self.current = Some(current),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
