//! Cuts tensors and records into chunks, and reads each chunk's bytes once. Lazy ones are drawn one
//! at a time, and a drawn one is kept alive until its last chunk is encoded.

use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::table::Kind;
use crate::snapshot::{Drawn, Fill, Record, TensorSource};
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::ops::Range;
use std::sync::Arc;

/// A tensor's or record's bytes.
#[derive(Clone)]
enum Bytes<'p> {
    Borrowed(&'p [u8]),
    Held(Arc<Tensor<'p>>),
    Volatile(&'p Fill<'p>),
}

/// Part of a tensor's or record's bytes.
pub(super) struct Piece<'p> {
    bytes: Bytes<'p>,
    range: Range<usize>,
    /// Whether the borrowed bytes may change and are copied first.
    copied: bool,
}

impl Piece<'_> {
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// Reads the bytes, once; bytes that may change are copied into `room`.
    ///
    /// # Errors
    /// Errors of a volatile source; `Invalid` when there are fewer bytes than the tensor had.
    pub(super) fn read<'e>(&'e self, room: &'e mut Buffer) -> Result<&'e [u8]> {
        let whole = match &self.bytes {
            _ if self.range.is_empty() => return Ok(&[]),
            Bytes::Volatile(fill) => {
                let room = room.room(self.len())?;
                fill(self.range.start, room)?;
                return Ok(room);
            }
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Held(tensor) => tensor.bytes(),
        };
        let part = whole.get(self.range.clone()).ok_or_else(|| {
            Error::invalid("a shared tensor's bytes became fewer").expected(self.range.end).found(whole.len())
        })?;
        if !self.copied {
            return Ok(part);
        }
        let room = room.room(part.len())?;
        room.copy_from_slice(part);
        Ok(room)
    }
}

/// One chunk to encode, and the entry that begins with it.
pub(super) struct Job<'s, 'p> {
    pub start: Option<Start<'s>>,
    pub name: &'s str,
    pub dtype: Dtype,
    pub piece: Piece<'p>,
}

/// The entry that begins with a chunk.
pub(super) struct Start<'s> {
    pub kind: Kind,
    pub shape: Cow<'s, [usize]>,
    pub byte_len: u64,
}

/// Cuts tensors, then records, into chunks; draws lazy tensors one at a time.
pub(super) struct Jobs<'s, 'a> {
    tensors: std::slice::Iter<'s, (&'s str, &'s TensorSource<'a>)>,
    records: btree_map::Iter<'s, &'s str, Cow<'s, Record<'a>>>,
    chunk_log2: u8,
    /// Whether borrowed tensors may change.
    volatile: bool,
    current: Option<Current<'s>>,
}

struct Current<'s> {
    name: &'s str,
    dtype: Dtype,
    bytes: Bytes<'s>,
    copied: bool,
    len: usize,
    at: usize,
    start: Option<Start<'s>>,
}

impl<'s, 'a: 's> Jobs<'s, 'a> {
    pub(super) fn new(
        tensors: &'s [(&'s str, &'s TensorSource<'a>)],
        records: &'s BTreeMap<&'s str, Cow<'s, Record<'a>>>,
        chunk_log2: u8,
        volatile: bool,
    ) -> Self {
        Self { tensors: tensors.iter(), records: records.iter(), chunk_log2, volatile, current: None }
    }

    fn next_entry(&mut self) -> Result<Option<Current<'s>>> {
        if let Some(&(name, source)) = self.tensors.next() {
            let bytes = bytes_of(source).map_err(|error| error.in_tensor(name))?;
            let len = source.byte_len();
            let shape = Cow::Borrowed(source.shape());
            let start = Start { kind: Kind::Tensors, shape, byte_len: len as u64 };
            return Ok(Some(Current {
                name,
                dtype: source.dtype(),
                bytes,
                copied: self.volatile,
                len,
                at: 0,
                start: Some(start),
            }));
        }
        let Some((name, record)) = self.records.next() else { return Ok(None) };
        let len = record.len();
        let bytes = match &**record {
            Record::Here(bytes) => Bytes::Borrowed(bytes),
            Record::Lazy(record) => {
                let bytes = record.draw().map_err(|error| error.in_record(*name))?;
                Bytes::Held(Arc::new(Tensor::owned(Dtype::Opaque, &[len], bytes)?))
            }
        };
        let start = Start { kind: Kind::Records, shape: Cow::Owned(vec![len]), byte_len: len as u64 };
        Ok(Some(Current { name, dtype: Dtype::Opaque, bytes, copied: false, len, at: 0, start: Some(start) }))
    }
}

fn bytes_of<'s, 'a: 's>(source: &'s TensorSource<'a>) -> Result<Bytes<'s>> {
    if let Some(bytes) = source.borrowed() {
        return Ok(Bytes::Borrowed(bytes));
    }
    Ok(match source.draw()? {
        Drawn::Tensor(tensor) => Bytes::Held(Arc::new(tensor)),
        Drawn::Volatile(fill) => Bytes::Volatile(fill),
    })
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
                let piece = Piece { bytes: current.bytes.clone(), range, copied: current.copied };
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
