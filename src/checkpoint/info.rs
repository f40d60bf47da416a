//! Tensors as the index describes them: names, dtypes, shapes, offsets. No tensor bytes are read.

use super::Checkpoint;
use super::entry::{Place, Tensors, WINDOW};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::pieces::Pieces;
use crate::format::table::{Columns, Row};
use crate::tensor::Shape;
use std::iter::Peekable;

/// A tensor's entry in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo<'c> {
    /// Name.
    pub name: &'c str,
    /// Element type, or its id if this version does not know it.
    pub dtype: Result<Dtype, u16>,
    /// Lengths of the axes.
    pub shape: Shape,
    /// Raw length in bytes.
    pub byte_len: u64,
    /// Stored length in bytes. In pieces it is not known without opening their shards, and this is
    /// the raw length.
    pub stored_len: u64,
    /// Absolute offset of the first stored byte; 0 in pieces.
    pub offset: u64,
    /// Number of chunks; in pieces, of windows over its raw bytes.
    pub chunks: usize,
    /// Raw bytes of each chunk or window; the last may have fewer.
    pub chunk_len: u64,
    /// Whether it is stored uncompressed and contiguous, so that it can be mapped.
    pub raw: bool,
    /// The tensor that owns the bytes, if this is an alias.
    pub alias_of: Option<&'c str>,
    /// Number of pieces in shards that it lies in: 0 for a tensor of this file, and for one without
    /// elements.
    pub pieces: usize,
}

impl Checkpoint {
    /// All tensors sorted by name, then the aliases.
    #[inline]
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        let columns = self.index.tensors.columns();
        let own = Own { columns, names: columns.joined_names(), rows: columns.rows() };
        let pieces = self.pieces().map(|pieces| (0..pieces.len()).map(|i| in_pieces(pieces, i)).peekable());
        let all = Merged { own, next: None, pieces, name: name_of };
        all.chain(self.index.aliases.iter().map(move |(name, &target)| {
            let place = self.by_number(target);
            TensorInfo { name, alias_of: Some(self.own_name(place)), ..self.describe(place) }
        }))
    }

    /// Names of all tensors, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.index.tensors.columns().names();
        let pieces = self.pieces().map(|pieces| (0..pieces.len()).map(|i| pieces.name(i)).peekable());
        let all = Merged { own, next: None, pieces, name: itself };
        all.chain(self.index.aliases.keys().map(String::as_str))
    }

    /// A tensor's entry in the index, without reading its bytes.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn info(&self, name: &str) -> Result<TensorInfo<'_>> {
        let place = self.locate(name)?;
        let info = self.describe(place);
        Ok(match self.index.aliases.get_key_value(name) {
            Some((alias, _)) => TensorInfo { name: alias, alias_of: Some(info.name), ..info },
            None => info,
        })
    }

    fn describe(&self, Place { table, number }: Place) -> TensorInfo<'_> {
        let columns = self.index.tensors.columns();
        match (table, self.pieces()) {
            (Tensors::InShards, Some(pieces)) => in_pieces(pieces, number),
            _ => describe(columns, columns.name(number), columns.row(number)),
        }
    }

    /// The name that a tensor is stored under.
    pub(super) fn own_name(&self, Place { table, number }: Place) -> &str {
        match (table, self.pieces()) {
            (Tensors::InShards, Some(pieces)) => pieces.name(number),
            _ => self.index.tensors.name(number),
        }
    }
}

fn name_of<'c>(info: &TensorInfo<'c>) -> &'c str {
    info.name
}

fn itself<'c>(name: &&'c str) -> &'c str {
    name
}

/// Two tables as one, in the order of their names. A file that is no manifest has one.
struct Merged<I: Iterator, P: Iterator, N> {
    own: I,
    /// The next of `own`, once there are two.
    next: Option<I::Item>,
    pieces: Option<Peekable<P>>,
    name: N,
}

impl<'c, T, I, P, N> Iterator for Merged<I, P, N>
where
    I: Iterator<Item = T>,
    P: Iterator<Item = T>,
    N: Fn(&T) -> &'c str,
{
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        let Some(pieces) = &mut self.pieces else { return self.own.next() };
        self.next = self.next.take().or_else(|| self.own.next());
        let is_own = match (&self.next, pieces.peek()) {
            (Some(own), Some(piece)) => (self.name)(own) < (self.name)(piece),
            (own, _) => own.is_some(),
        };
        if is_own { self.next.take() } else { pieces.next() }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let more = usize::from(self.next.is_some());
        let pieces = self.pieces.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        let (least, most) = self.own.size_hint();
        (least + pieces.0 + more, most.zip(pieces.1).map(|(own, pieces)| own + pieces + more))
    }
}

#[cold]
fn in_pieces<B: AsRef<[u8]>>(pieces: &Pieces<B>, i: usize) -> TensorInfo<'_> {
    let (dtype, byte_len) = (pieces.dtype(i), pieces.byte_len(i));
    TensorInfo {
        name: pieces.name(i),
        dtype,
        shape: pieces.shape(i).into_iter().into(),
        byte_len,
        stored_len: byte_len,
        offset: 0,
        chunks: Checkpoint::window_count(byte_len),
        chunk_len: WINDOW,
        raw: false,
        alias_of: None,
        pieces: pieces.piece_count(i),
    }
}

/// The tensors of a table. A named iterator instead of `rows.map(..)`: only this form inlines,
/// which lets the compiler skip fields that the caller ignores.
struct Own<'c, R> {
    columns: Columns<'c>,
    names: &'c str,
    rows: R,
}

impl<'c, R: Iterator<Item = Row>> Iterator for Own<'c, R> {
    type Item = TensorInfo<'c>;

    #[inline(always)]
    fn next(&mut self) -> Option<TensorInfo<'c>> {
        let row = self.rows.next()?;
        let name = self.names.get(row.name.clone()).unwrap_or_default();
        Some(describe(self.columns, name, row))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

#[inline(always)]
fn describe<'c>(table: Columns<'c>, name: &'c str, row: Row) -> TensorInfo<'c> {
    TensorInfo {
        name,
        dtype: Dtype::from_id(row.dtype).ok_or(row.dtype),
        byte_len: row.byte_len,
        stored_len: table.stored_len(&row),
        offset: row.offset,
        chunks: row.chunks.len(),
        // OK to shift: bounded when the index was validated.
        chunk_len: 1 << (row.chunk_log2 & 63),
        raw: table.are_raw(row.chunks),
        shape: table.axes(row.dims).into(),
        alias_of: None,
        pieces: 0,
    }
}
