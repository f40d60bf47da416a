//! A checkpoint mapped copy-on-write, to train on: [`MappedCopy`], whose mutable tensors never
//! overlap.

use super::Checkpoint;
use super::entry::FoundTensor;
use crate::buffer::Buffer;
use crate::engine::PrivateMap;
use crate::error::{Error, ErrorKind, Result};
use crate::state_dict::TensorMut;
use crate::tensor::Tensor;
use std::fmt;

/// A checkpoint whose tensors can be changed in place: a private, copy-on-write mapping of its
/// file. A resume reads and copies nothing at first. The kernel copies a page when it is first
/// written to; tensors that never change, such as frozen layers, stay shared with the page cache.
/// The file never changes.
///
/// Every byte was verified when the mapping was made, on several threads. Tensors that are not
/// stored raw are decoded into their own memory.
///
/// ```
/// # use tensorkeep::{MappedCopy, Snapshot};
/// # let path = std::env::temp_dir().join(format!("tensorkeep-doc-map-copy-{}.tkeep", std::process::id()));
/// # let mut snapshot = Snapshot::new().tensor("w", &[1.0_f32, 2.0][..])?.tensor("w.grad", &[0.5_f32, 0.5][..])?;
/// # snapshot.save(&path)?;
/// // SAFETY: published checkpoints are never written again, and no other program writes to this folder.
/// let mut resumed = unsafe { MappedCopy::open(&path) }?;
/// let Ok([(_, weights), (_, gradient)]) = <[_; 2]>::try_from(resumed.tensors_mut()) else { unreachable!() };
/// let (mut weights, gradient) = (weights.into_view::<f32>()?, gradient.into_view::<f32>()?);
/// weights.scaled_add(-0.1, &gradient); // a step of SGD, in the mapping
/// assert_eq!(resumed.tensors()[0].1.elements::<f32>()?, [0.95, 1.95]);
/// assert_eq!(resumed.checkpoint().tensor("w")?.elements::<f32>()?, [1.0, 2.0]); // the file is unchanged
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
pub struct MappedCopy {
    checkpoint: Checkpoint,
    memory: PrivateMap,
    /// Tensors with bytes that are not stored raw, in the order of the table.
    decoded: Vec<Buffer>,
}

/// The place of a tensor's current bytes.
#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    Mapped { start: usize, len: usize },
    Decoded,
}

impl MappedCopy {
    /// Verifies all of a checkpoint over a private mapping, and decodes the tensors not stored raw.
    pub(super) fn new(checkpoint: Checkpoint, memory: PrivateMap) -> Result<Self> {
        if checkpoint.pieces().is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a checkpoint of many files is not mapped to be changed",
            )
            .help("map it to read, or load its tensors")
            .in_object(checkpoint.name()));
        }
        let table = checkpoint.index.tensors.columns();
        // Verified on the read-only mapping of the file, whose pages the copy shares until it
        // changes them. After a change, a tensor's checksum means nothing, so this is the only
        // chance.
        let raw = (0..table.len()).map(|i| checkpoint.tensor_entry(i));
        checkpoint.verify_in_place(raw.filter(|entry| checkpoint.raw_bytes(*entry).is_some()).collect())?;
        let mut buffers = Vec::new();
        for i in 0..table.len() {
            let name = table.name(i);
            let FoundTensor { dtype, shape, .. } = checkpoint.find_tensor(name)?;
            if matches!(checkpoint.place(i), Place::Decoded) {
                let len = crate::tensor::byte_len(dtype, &shape)?;
                let room = || Buffer::zeroed(checkpoint.within_budget(len as u64)?);
                buffers.push((i, checkpoint.with_context(name, room)?));
            }
        }
        checkpoint.load_into(buffers.iter_mut().map(|(i, buffer)| (table.name(*i), &mut **buffer)))?;
        let decoded = buffers.into_iter().map(|(_, buffer)| buffer).collect();
        Ok(Self { checkpoint, memory, decoded })
    }
}

impl Checkpoint {
    fn place(&self, number: usize) -> Place {
        let table = self.index.tensors.columns();
        match table.byte_len(number) {
            0 => Place::Nowhere,
            // OK to cast: the extent lies within the file, which is mapped.
            len if table.is_raw(number) => {
                Place::Mapped { start: table.offset(number) as usize, len: len as usize }
            }
            _ => Place::Decoded,
        }
    }
}

impl MappedCopy {
    /// The checkpoint as it is in the file: records, progress, and tensors as saved.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// All tensors, mutable, sorted by name, none overlapping another. A tensor with
    /// aliases comes once, under its first name; theirs are those with
    /// [`TensorInfo::alias_of`](super::TensorInfo::alias_of).
    pub fn tensors_mut(&mut self) -> Vec<(&str, TensorMut<'_>)> {
        let table = self.checkpoint.index.tensors.columns();
        let (mut rest, mut rest_start) = (&mut *self.memory, 0);
        let mut decoded = self.decoded.iter_mut();
        let mut bytes_of = |place| match place {
            Place::Nowhere => Some(<&mut [u8]>::default()),
            Place::Decoded => decoded.next().map(|buffer| &mut **buffer),
            Place::Mapped { start, len } => {
                // Extents are disjoint and in the order of the table: the index was checked for
                // that.
                let (_, from_start) = std::mem::take(&mut rest).split_at_mut_checked(start - rest_start)?;
                let (bytes, later) = from_start.split_at_mut_checked(len)?;
                (rest, rest_start) = (later, start + len);
                Some(bytes)
            }
        };
        let tensor = |i| {
            let bytes = bytes_of(self.checkpoint.place(i))?;
            // OK: `new` has found all dtypes known.
            let dtype = table.dtype(i).ok()?;
            let shape = table.dims(i).map(|dim| dim as usize).collect();
            Some((table.name(i), TensorMut::over(dtype, shape, bytes)))
        };
        (0..table.len()).filter_map(tensor).collect()
    }

    /// All tensors as they are now, aliases last: for the next snapshot.
    pub fn tensors(&self) -> Vec<(&str, Tensor<'_>)> {
        let table = self.checkpoint.index.tensors.columns();
        let mut decoded = self.decoded.iter();
        let tensor = |i| {
            let bytes = match self.checkpoint.place(i) {
                Place::Nowhere => &[],
                Place::Decoded => &**decoded.next()?,
                Place::Mapped { start, len } => self.memory.get(start..start + len)?,
            };
            let shape: Vec<usize> = table.dims(i).map(|dim| dim as usize).collect();
            Tensor::new(table.dtype(i).ok()?, &shape, bytes).ok()
        };
        let own: Vec<Option<Tensor<'_>>> = (0..table.len()).map(tensor).collect();
        let aliases = self.checkpoint.index.aliases.iter();
        let further = aliases.map(|(name, &target)| (name.as_str(), own.get(target as usize)));
        let named = table.names().zip(own.iter().map(Some)).chain(further);
        named.filter_map(|(name, tensor)| Some((name, tensor?.clone()?))).collect()
    }
}

impl fmt::Debug for MappedCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MappedCopy").field(&self.checkpoint).finish()
    }
}
