//! Tensors as the index describes them: names, dtypes, shapes, offsets. No tensor bytes are read.

use super::Checkpoint;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::format::table::{Columns, Row};
use crate::tensor::Shape;

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
    /// Stored length in bytes.
    pub stored_len: u64,
    /// Absolute offset of the first stored byte.
    pub offset: u64,
    /// Number of chunks.
    pub chunks: usize,
    /// Raw bytes of each chunk; the last may have fewer.
    pub chunk_len: u64,
    /// Whether it is stored uncompressed and contiguous, so that it can be mapped.
    pub raw: bool,
    /// The tensor that owns the bytes, if this is an alias.
    pub alias_of: Option<&'c str>,
}

impl Checkpoint {
    /// All tensors sorted by name, then the aliases.
    #[inline]
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        let columns = self.index.tensors.columns();
        let own = Own { columns, names: columns.joined_names(), rows: columns.rows() };
        own.chain(self.index.aliases.iter().map(move |(name, &target)| {
            let i = target as usize;
            describe(columns, name, columns.row(i), Some(columns.name(i)))
        }))
    }

    /// Names of all tensors, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.index.tensors.columns().names();
        own.chain(self.index.aliases.keys().map(String::as_str))
    }

    /// A tensor's entry in the index, without reading its bytes.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn info(&self, name: &str) -> Result<TensorInfo<'_>> {
        let i = self.find(name)?;
        let own = self.index.tensors.name(i);
        let (name, alias_of) = match self.index.aliases.get_key_value(name) {
            Some((alias, _)) => (alias.as_str(), Some(own)),
            None => (own, None),
        };
        let columns = self.index.tensors.columns();
        Ok(describe(columns, name, columns.row(i), alias_of))
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
        Some(describe(self.columns, name, row, None))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

#[inline(always)]
fn describe<'c>(table: Columns<'c>, name: &'c str, row: Row, alias_of: Option<&'c str>) -> TensorInfo<'c> {
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
        alias_of,
    }
}
