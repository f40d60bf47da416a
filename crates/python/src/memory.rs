//! Tensors that lie in Python's memory: as a snapshot's volatile sources, whose bytes are copied
//! once, while other threads may write them, and as memory to load into.
#![expect(
    unsafe_code,
    reason = "the memory of tensors comes from Python as addresses; see `Lent` and `Room`"
)]

use crate::records::Plain;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tensorkeep::layout::TensorBox;
use tensorkeep::snapshot::Volatile;
use tensorkeep::{Checkpoint, Dtype, Error, ErrorKind, Progress, Result, Snapshot};
use tensorkeep_memcpy::Copier;

/// Where a tensor lies: row-major, little-endian, `len` bytes from `address` on.
///
/// The promise that this rests on is kept by `tensorkeep/_state.py`, the only caller: address and
/// length are those of an object (a torch tensor, a numpy array) which the list that was handed
/// over refers to, so that it lives as long as the call that saves, and its memory does, too. To
/// free it in another thread meanwhile (`Tensor.set_`, `resize_`) is as wrong as in any other call
/// of those libraries.
struct Lent {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    address: usize,
    len: usize,
}

/// What a call that saves was given, as Rust values.
///
/// Its snapshot refers to no lifetime, and must not outlive the call: its tensors are addresses.
pub struct State {
    tensors: Vec<Lent>,
    snapshot: Snapshot<'static>,
    /// Bytes copied out of the tensors, where somebody wants to know.
    copied: Option<Arc<AtomicU64>>,
}

impl State {
    /// Takes what `_state.encode` gave: `tensors` is a list of (name, dtype, shape, address,
    /// owner), `records` a dict of plain values, `types` the record `tensorkeep.python` or None.
    pub fn new(
        tensors: &Bound<'_, PyList>,
        records: &Bound<'_, PyDict>,
        types: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let tensors = tensors.iter().map(|tensor| Lent::new(&tensor)).collect::<PyResult<_>>()?;
        let failed = |error: Error| crate::errors::exception(records.py(), &error);
        let mut snapshot = Snapshot::new();
        for (name, value) in records {
            snapshot = snapshot.record(name.extract::<String>()?, &Plain(&value)).map_err(failed)?;
        }
        if !types.is_none() {
            snapshot = snapshot.python_types(&Plain(types)).map_err(failed)?;
        }
        Ok(Self { tensors, snapshot, copied: None })
    }

    /// Bytes of all tensors.
    pub fn byte_len(&self) -> u64 {
        self.tensors.iter().map(|lent| lent.len as u64).sum()
    }

    /// Counts the bytes that are copied out of the tensors from now on.
    pub fn counting(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.copied.get_or_insert_default())
    }

    /// With what a checkpoint says of itself.
    pub fn described(
        self,
        progress: Option<Progress>,
        metrics: Vec<(String, f64)>,
        metadata: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut snapshot = self.snapshot;
        for (name, value) in metrics {
            snapshot = snapshot.metric(name, value)?;
        }
        for (key, value) in metadata {
            snapshot = snapshot.metadata(key, value)?;
        }
        if let Some(progress) = progress {
            snapshot = snapshot.progress(progress);
        }
        Ok(Self { snapshot, ..self })
    }

    /// Names of the tensors, in the order in which they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|lent| lent.name.as_str())
    }

    /// One of the tensors, by its number in that order.
    pub fn source(&self, number: usize) -> Option<Volatile<'static>> {
        let copier = Copier::for_total(self.byte_len());
        self.tensors.get(number).map(|lent| lent.source(copier, self.copied.clone()))
    }

    /// All of it. Tensors over the memory of an earlier one, of the same dtype and shape, are its
    /// aliases.
    pub fn snapshot(&self) -> Result<Snapshot<'static>> {
        let copier = Copier::for_total(self.byte_len());
        let mut firsts = HashMap::new();
        let mut snapshot = self.snapshot.clone();
        for lent in &self.tensors {
            let first = match firsts.entry((lent.address, lent.dtype, &lent.shape)) {
                Entry::Occupied(first) if lent.len > 0 => Some(*first.get()),
                Entry::Occupied(_) => None,
                Entry::Vacant(free) => {
                    free.insert(&*lent.name);
                    None
                }
            };
            snapshot = match first {
                Some(first) => snapshot.alias(&lent.name, first)?,
                None => snapshot.tensor(&lent.name, lent.source(copier, self.copied.clone()))?,
            };
        }
        Ok(snapshot)
    }
}

impl Lent {
    fn new(tensor: &Bound<'_, PyAny>) -> PyResult<Self> {
        type Given<'py> = (String, String, Vec<usize>, usize, Bound<'py, PyAny>);
        let (name, dtype, shape, address, _owner): Given<'_> = tensor.extract()?;
        let described = || {
            let dtype: Dtype = dtype.parse()?;
            let elements = tensorkeep::tensor::byte_len(dtype, &shape)?;
            if elements > 0 && address == 0 {
                return Err(Error::new(ErrorKind::Invalid, "a tensor without memory"));
            }
            Ok((dtype, elements))
        };
        let described = described().map_err(|error: Error| error.in_tensor(&name));
        let (dtype, len) = described.map_err(|error| crate::errors::exception(tensor.py(), &error))?;
        Ok(Self { name, dtype, shape, address, len })
    }

    fn source(&self, copier: Copier, copied: Option<Arc<AtomicU64>>) -> Volatile<'static> {
        let (address, len) = (self.address, self.len);
        let fill = move |offset: usize, to: &mut [u8]| {
            let inside = offset.checked_add(to.len()).is_some_and(|end| end <= len);
            if !inside {
                return Err(Error::new(ErrorKind::Invalid, "bytes outside of a tensor"));
            }
            if to.is_empty() {
                return Ok(());
            }
            let from = std::ptr::with_exposed_provenance::<u8>(address + offset);
            // SAFETY: `offset + to.len()` is within the tensor's memory, which lives: see `Lent`.
            // Another thread of the trainer may write to it, which a `&[u8]` does not allow. It is
            // handed only to the two copies of `tensorkeep_memcpy`, which are calls of the C
            // library's memcpy and a block of assembly: neither reads a byte twice or decides
            // anything by one, so that what such a write can change is the values that are copied.
            // The checksum is taken from the copy. `to` is the library's own, and no part of it.
            copier.copy(unsafe { std::slice::from_raw_parts(from, to.len()) }, to);
            if let Some(copied) = &copied {
                copied.fetch_add(to.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        };
        Volatile::new(self.dtype, &self.shape, fill)
    }
}

/// Memory to fill with a box of a tensor: `len` bytes from `address` on, row-major.
///
/// `tensorkeep/_dcp_read.py`, the only caller, gives the address and length of a torch tensor of
/// the CPU, contiguous and held by its storage, to which the list that was handed over refers. To
/// free it, read it or write it in another thread meanwhile is as wrong as beside torch's `copy_`.
pub struct Room {
    name: String,
    tensor_box: TensorBox,
    address: usize,
    len: usize,
}

impl Room {
    /// Takes (name, offsets, lengths, address, bytes, owner).
    pub fn new(room: &Bound<'_, PyAny>) -> PyResult<Self> {
        type Given<'py> = (String, Vec<u64>, Vec<u64>, usize, usize, Bound<'py, PyAny>);
        let (name, offsets, lens, address, len, _owner): Given<'_> = room.extract()?;
        let described = || {
            if len > 0 && address == 0 {
                return Err(Error::new(ErrorKind::Invalid, "a tensor without memory"));
            }
            TensorBox::new(offsets, lens)
        };
        let described = described().map_err(|error| error.in_tensor(&name));
        let tensor_box = described.map_err(|error| crate::errors::exception(room.py(), &error))?;
        Ok(Self { name, tensor_box, address, len })
    }

    fn target(&mut self) -> (&str, &TensorBox, &mut [u8]) {
        let bytes: &mut [u8] = if self.len == 0 {
            &mut []
        } else {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(self.address);
            // SAFETY: not null, by `new`. `len` bytes from here on are a tensor's, which lives, and
            // which nobody else uses: see `Room`. Two rooms over the same bytes are not filled at
            // the same time: see `fill`.
            unsafe { std::slice::from_raw_parts_mut(start, self.len) }
        };
        (&self.name, &self.tensor_box, bytes)
    }
}

/// Which rooms have bytes that another one has, too.
fn shared(rooms: &[Room]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..rooms.len()).filter(|&number| rooms[number].len > 0).collect();
    order.sort_unstable_by_key(|&number| rooms[number].address);
    let mut shared = vec![false; rooms.len()];
    // The room that reaches farthest, and where to.
    let mut farthest = (0, 0);
    for number in order {
        let Room { address, len, .. } = rooms[number];
        if farthest.1 > address {
            (shared[farthest.0], shared[number]) = (true, true);
        }
        if address.saturating_add(len) > farthest.1 {
            farthest = (number, address.saturating_add(len));
        }
    }
    shared
}

/// Fills memory with boxes of tensors, on several threads; tied tensors, which share memory, one
/// after the other behind all others.
pub fn fill(checkpoint: &Checkpoint, rooms: Vec<Room>) -> Result<()> {
    let is_shared = shared(&rooms);
    let (shared, alone): (Vec<_>, Vec<_>) = rooms.into_iter().zip(is_shared).partition(|(_, is)| *is);
    let mut alone: Vec<Room> = alone.into_iter().map(|(room, _)| room).collect();
    checkpoint.read_boxes_into(alone.iter_mut().map(Room::target))?;
    shared.into_iter().try_for_each(|(mut room, _)| checkpoint.read_boxes_into([room.target()]))
}
