//! One save of a job of many ranks, for `tensorkeep/dcp.py`: the shard of a rank, and the manifest
//! that makes all shards one checkpoint. Who stores what is planned by the caller's framework.

use crate::errors::detached;
use crate::memory::State;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use tensorkeep::layout::{Layout, Positions, TensorBox};
use tensorkeep::ranks::files::{self, ShardRef};
use tensorkeep::{Dtype, Error, ErrorKind, Result};

/// Offsets and lengths of a box, and the rank that stores it.
type Piece = (Vec<u64>, Vec<u64>, u32);
/// Name, dtype, shape, and all pieces.
type Global = (String, String, Vec<u64>, Vec<Piece>);
/// Rank, file id, length, and checksum of the index.
type Shard = (u32, [u8; 16], u64, u32);

/// What a job of many ranks saves.
#[pyclass(frozen, module = "tensorkeep._tensorkeep")]
pub struct Job(files::Job);

#[pymethods]
impl Job {
    /// A plan that is the same on every rank; the names of its shards begin with `save`. Refuses
    /// pieces that overlap, leave a hole, or are beyond the world.
    #[new]
    fn new(py: Python<'_>, save: &str, world: u32, tensors: Vec<Global>) -> PyResult<Self> {
        detached(py, || planned(save, world, tensors)).map(Self)
    }

    /// Writes the shard of a rank beside a manifest, durably. `tensors` are its pieces, as
    /// `_state.encode` gives tensors, and `offsets` the offsets of each.
    fn write_shard(
        &self,
        manifest: PathBuf,
        rank: u32,
        tensors: &Bound<'_, PyList>,
        offsets: Vec<Vec<u64>>,
        codecs: Vec<(String, String)>,
    ) -> PyResult<Shard> {
        let py = tensors.py();
        let state = State::new(tensors, &PyDict::new(py), py.None().bind(py))?;
        detached(py, || {
            let numbers: HashMap<(&str, Vec<u64>), usize> =
                state.names().zip(offsets).enumerate().map(|(number, key)| (key, number)).collect();
            let options = crate::options::write(&codecs)?;
            let written = self.0.write_shard(&manifest, rank, &options, |part| {
                let key = (part.name.as_str(), part.tensor_box.offsets().to_vec());
                let missing = || {
                    let what = format!("rank {rank} was given no such part: {}", part.tensor_box);
                    Error::new(ErrorKind::Mismatch, what).in_tensor(&part.name)
                };
                numbers.get(&key).and_then(|&number| state.source(number)).ok_or_else(missing)
            })?;
            Ok((written.rank, written.file_id, written.len, written.index_crc))
        })
    }

    /// Writes the manifest, which is the commit: (length, tensors stored in it, seconds).
    #[expect(clippy::too_many_arguments, reason = "one call of `dcp.py`, named there")]
    fn write_manifest<'py>(
        &self,
        py: Python<'py>,
        path: PathBuf,
        tensors: &Bound<'py, PyList>,
        records: &Bound<'py, PyDict>,
        types: &Bound<'py, PyAny>,
        shards: Vec<Shard>,
        codecs: Vec<(String, String)>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let state = State::new(tensors, records, types)?;
        let written = detached(py, || {
            let options = crate::options::write(&codecs)?;
            let shards = shards.into_iter().map(|(rank, file_id, len, index_crc)| ShardRef {
                rank,
                file_id,
                len,
                index_crc,
            });
            self.0.write_manifest(&path, &state.snapshot()?, &options, shards.collect())
        })?;
        (written.byte_len, written.tensors, written.timings.total.as_secs_f64()).into_pyobject(py)
    }
}

fn planned(save: &str, world: u32, tensors: Vec<Global>) -> Result<files::Job> {
    let mut job = files::Job::new(save, world)?;
    for (name, dtype, shape, pieces) in tensors {
        let dtype: Dtype = dtype.parse().map_err(|error: Error| error.in_tensor(&name))?;
        let boxes =
            pieces.into_iter().map(|(offsets, lens, rank)| Ok((TensorBox::new(offsets, lens)?, rank)));
        let boxes: Vec<(TensorBox, u32)> =
            boxes.collect::<Result<_>>().map_err(|error| error.in_tensor(&name))?;
        match layout_of(&shape, &boxes, world) {
            Some(layout) => job.layout(&name, dtype, &shape, &layout)?,
            None => job.boxes(&name, dtype, &shape, boxes)?,
        }
    }
    Ok(job)
}

/// The layout of whole tensors, and of one axis cut among all ranks in their order: a manifest has
/// it once for all tensors, and boxes for each.
fn layout_of(shape: &[u64], boxes: &[(TensorBox, u32)], world: u32) -> Option<Layout> {
    if let [(only, rank)] = boxes {
        let is_whole = *only == TensorBox::whole(shape) && *rank < world;
        return is_whole.then(|| Layout::new(Positions::progression(1, *rank, 1).ok()?, Vec::new()).ok())?;
    }
    let is_cut = |axis: &usize| boxes.iter().any(|(piece, _)| piece.lens().get(*axis) != shape.get(*axis));
    let axis = u8::try_from((0..shape.len()).find(is_cut)?).ok()?;
    let layout = Layout::sharded(axis, world).ok()?;
    let pieces = layout.pieces(shape).into_iter().map(|piece| (piece.tensor_box, piece.position));
    let given: BTreeSet<_> = boxes.iter().cloned().collect();
    (given.len() == boxes.len() && given == pieces.collect()).then_some(layout)
}
