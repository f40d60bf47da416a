//! Boxes of tensors: read from wherever their pieces lie, only the ranges that are needed.

use super::Checkpoint;
use super::chunks::Scratch;
use super::entry::{Place, Tensors, WINDOW};
use super::shards::Source;
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Joining, Run, TensorBox, flat_boxes, reads, runs};
use crate::pipeline;
use crate::tensor::Tensor;
use std::ops::Range;
use tensorkeep_memcpy::copy;

/// Bytes between two runs of a piece that are read with them: a request costs more.
const GAP: u64 = 64 << 10;
/// Bytes that are read at once where not all of them are wanted.
const MOST: u64 = 4 << 20;

/// A box of a tensor, and the memory to fill with it.
pub(super) struct WantedBox<'t> {
    pub place: Place,
    pub dtype: Dtype,
    pub tensor_box: TensorBox,
    pub target: &'t mut [u8],
}

impl Checkpoint {
    /// A box of a tensor, in row-major order: the part of a rank, whatever the tensor was saved as.
    /// Reads and verifies only the chunks that it needs. Borrowed if the box is all of a tensor
    /// that is mapped, stored raw and in one piece.
    ///
    /// ```
    /// # use tensorkeep::{Checkpoint, Snapshot, WriteOptions, layout::{Layout, TensorBox}};
    /// # let weights: Vec<f32> = (0..20).map(|i| i as f32).collect();
    /// # let snapshot = Snapshot::new().tensor("w", (&[5, 4][..], &weights[..]))?;
    /// # let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)?;
    /// // The columns of rank 1 of 2, of a tensor of shape [5, 4].
    /// let columns = Layout::sharded(1, 2)?.box_of(&[5, 4], 1).unwrap();
    /// let part = checkpoint.read_box("w", &columns)?;
    /// assert_eq!(part.shape(), [5, 2]);
    /// assert_eq!(part.elements::<f32>()?[..4], [2.0, 3.0, 6.0, 7.0]);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and `Mismatch` when the tensor has no such box.
    pub fn read_box(&self, name: &str, tensor_box: &TensorBox) -> Result<Tensor<'_>> {
        let (place, dtype) = self.find_box(name, tensor_box)?;
        self.with_context(name, || {
            if tensor_box == &TensorBox::whole(&self.shape_of(place))
                && let Some(tensor) = self.borrowed(place, dtype)?
            {
                return Ok(tensor);
            }
            let len = tensor_box.elements().saturating_mul(dtype.size() as u64);
            let mut buffer = Buffer::zeroed(self.within_budget(len)?)?;
            self.fill_box(place, dtype, tensor_box, &mut buffer, &mut Scratch::for_total(len))?;
            // OK to cast: the buffer has as many bytes.
            let shape: Vec<usize> = tensor_box.lens().iter().map(|&len| len as usize).collect();
            Tensor::owned(dtype, &shape, buffer)
        })
    }

    /// Fills memory with boxes of tensors, each in row-major order, on up to
    /// [`OpenOptions::workers`](super::OpenOptions::workers) threads: one thread for a box, or for
    /// what a shard has of it.
    ///
    /// ```
    /// # use tensorkeep::{Checkpoint, Snapshot, WriteOptions, layout::TensorBox};
    /// # let snapshot = Snapshot::new().tensor("pixels", &[1_u8, 2, 3])?;
    /// # let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)?;
    /// let mut last = [0; 2];
    /// checkpoint.read_boxes_into([("pixels", &TensorBox::new([1], [2])?, &mut last[..])])?;
    /// assert_eq!(last, [2, 3]);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::read_box`], and `Mismatch` when a target is not its box's length in bytes.
    /// All names, boxes and lengths are checked before the first byte is read; after a later error
    /// the targets hold a mixture.
    pub fn read_boxes_into<'n, 'b, 't>(
        &self,
        targets: impl IntoIterator<Item = (&'n str, &'b TensorBox, &'t mut [u8])>,
    ) -> Result<()> {
        let mut wanted = Vec::new();
        for (name, tensor_box, target) in targets {
            let (place, dtype) = self.find_box(name, tensor_box)?;
            let len = tensor_box.elements().saturating_mul(dtype.size() as u64);
            if len != target.len() as u64 {
                let error = Error::new(ErrorKind::Mismatch, "bytes to load into").expected(len);
                return Err(error.found(target.len()).in_tensor(name).in_object(self.name()));
            }
            wanted.push((name, WantedBox { place, dtype, tensor_box: tensor_box.clone(), target }));
        }
        self.fill_boxes(wanted)
    }

    fn find_box(&self, name: &str, tensor_box: &TensorBox) -> Result<(Place, Dtype)> {
        let place = self.locate(name)?;
        self.with_context(name, || {
            let (dtype, shape) = (self.dtype_of(place)?, self.shape_of(place));
            if tensor_box.is_within(&shape) {
                return Ok((place, dtype));
            }
            Err(Error::new(ErrorKind::Mismatch, "a box that leaves its tensor")
                .expected(format!("within {}", TensorBox::whole(&shape)))
                .found(tensor_box))
        })
    }

    /// The whole tensor in place, verified, if it is mapped, raw and in one piece.
    pub(super) fn borrowed(&self, place: Place, dtype: Dtype) -> Result<Option<Tensor<'_>>> {
        let whole = TensorBox::whole(&self.shape_of(place));
        let Some(source) = self.only_source(place, &whole)? else { return Ok(None) };
        let in_place = source.container.in_place(source.entry);
        let in_place = in_place.map_err(|error| error.in_object(source.container.name()))?;
        let Some(bytes) = in_place else { return Ok(None) };
        // OK to cast: the bytes are in memory.
        let shape: Vec<usize> = whole.lens().iter().map(|&len| len as usize).collect();
        Tensor::new(dtype, &shape, bytes).map(Some)
    }

    /// Where a tensor lies, if it is one piece.
    fn only_source(&self, place: Place, whole: &TensorBox) -> Result<Option<Source<'_>>> {
        let Tensors::InShards = place.table else { return self.own_source(place).map(Some) };
        let mut pieces = self.pieces_within(place.number, whole);
        match pieces.pop() {
            Some(stored) if pieces.is_empty() => self.source(place.number, stored).map(Some),
            _ => Ok(None),
        }
    }

    fn own_source(&self, place: Place) -> Result<Source<'_>> {
        let tensor_box = TensorBox::whole(&self.shape_of(place));
        Ok(Source { container: self, entry: self.tensor_entry(place.number), tensor_box })
    }

    /// Fills `target` with a box; the caller has compared their lengths.
    fn fill_box(
        &self,
        place: Place,
        dtype: Dtype,
        wanted: &TensorBox,
        target: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Tensors::InShards = place.table else {
            return fill_from(&self.own_source(place)?, dtype, wanted, target, scratch);
        };
        for stored in self.pieces_within(place.number, wanted) {
            let source = self.source(place.number, stored)?;
            fill_from(&source, dtype, wanted, target, scratch)
                .map_err(|error| error.in_object(source.container.name()))?;
        }
        Ok(())
    }

    /// Fills several boxes, on several threads. Names are those of the tensors, for errors.
    pub(super) fn fill_boxes(&self, wanted: Vec<(&str, WantedBox<'_>)>) -> Result<()> {
        let total: u64 = wanted.iter().map(|(_, wanted)| wanted.target.len() as u64).sum();
        let workers = self.workers_for(total);
        let mut jobs = Vec::new();
        for (name, WantedBox { place, dtype, tensor_box, target }) in wanted {
            for (tensor_box, target) in self.in_pieces(place, dtype, tensor_box, target) {
                jobs.push((name, WantedBox { place, dtype, tensor_box, target }));
            }
        }
        pipeline::each(
            workers,
            jobs.into_iter(),
            || Scratch::for_total(total),
            |scratch, (name, WantedBox { place, dtype, tensor_box, target })| {
                self.with_context(name, || self.fill_box(place, dtype, &tensor_box, target, scratch))
            },
        )
    }

    /// A wanted box by the pieces that it lies in, if each is one stretch of the target.
    fn in_pieces<'t>(
        &self,
        place: Place,
        dtype: Dtype,
        wanted: TensorBox,
        target: &'t mut [u8],
    ) -> Vec<(TensorBox, &'t mut [u8])> {
        let Tensors::InShards = place.table else { return vec![(wanted, target)] };
        let mut parts = Vec::new();
        for stored in self.pieces_within(place.number, &wanted) {
            let Some(part) = stored.tensor_box.intersection(&wanted) else { continue };
            let mut runs = runs(&part, &wanted);
            match (runs.next(), runs.next()) {
                (Some(run), None) => parts.push((run.target, part)),
                _ => return vec![(wanted, target)],
            }
        }
        parts.sort();
        let mut rest = target;
        let mut cut = Vec::new();
        for (_, part) in parts {
            // OK to cast: within the target. The pieces tile the tensor, so the parts tile the box.
            let len = part.elements() as usize * dtype.size();
            let Some((here, behind)) = std::mem::take(&mut rest).split_at_mut_checked(len) else { break };
            rest = behind;
            cut.push((part, here));
        }
        cut
    }

    /// Number of windows of a tensor in shards.
    pub(super) fn window_count(byte_len: u64) -> usize {
        // OK to cast: at most 2^60 bytes.
        byte_len.div_ceil(WINDOW) as usize
    }

    /// Calls `visit` with windows of a tensor in shards, as `visit_chunks` does with chunks.
    pub(super) fn walk_windows(
        &self,
        place: Place,
        windows: Range<usize>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (dtype, shape) = (self.dtype_of(place)?, self.shape_of(place));
        let byte_len = self.byte_len_of(place);
        let size = dtype.size() as u64;
        let mut scratch = Scratch::for_total(byte_len);
        let mut window = Buffer::default();
        for number in windows.start..windows.end.min(Self::window_count(byte_len)) {
            let start = number as u64 * WINDOW;
            let end = byte_len.min(start + WINDOW);
            // OK to cast: at most a window.
            let mut rest = window.room((end - start) as usize)?;
            // A window is a multiple of any element's size.
            for tensor_box in flat_boxes(&shape, start / size..end / size) {
                let len = (tensor_box.elements() * size) as usize;
                let target = rest.split_off_mut(..len).unwrap_or_default();
                self.fill_box(place, dtype, &tensor_box, target, &mut scratch)?;
            }
            visit(start, &window[..(end - start) as usize])?;
        }
        Ok(())
    }
}

/// Copies what a piece has of the wanted box into its place.
fn fill_from(
    source: &Source<'_>,
    dtype: Dtype,
    wanted: &TensorBox,
    target: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let Source { container, entry, tensor_box } = source;
    let size = dtype.size() as u64;
    let joining = Joining { gap: GAP / size, most: MOST / size };
    let in_place = container.raw_bytes(*entry);
    for read in reads(tensor_box, wanted, joining) {
        let bytes = read.source.start * size..read.source.end * size;
        let at = |run: &Run| (run.target * size) as usize..((run.target + run.len) * size) as usize;
        let beyond = || Error::damaged("length of a piece");
        match (in_place, &read.runs[..]) {
            (None, [run]) => {
                let target = target.get_mut(at(run)).ok_or_else(beyond)?;
                container.read_into(*entry, dtype, bytes, target)?;
                continue;
            }
            (None, _) => {
                let stored = scratch.stored.room((bytes.end - bytes.start) as usize)?;
                container.read_into(*entry, dtype, bytes.clone(), stored)?;
            }
            (Some(_), _) => container.verify_range(*entry, bytes.clone())?,
        }
        let all =
            in_place.map_or(Some(&*scratch.stored), |all| all.get(bytes.start as usize..bytes.end as usize));
        for run in &read.runs {
            let from = ((run.source - read.source.start) * size) as usize;
            let bytes =
                all.and_then(|all| all.get(from..from + (run.len * size) as usize)).ok_or_else(beyond)?;
            copy(bytes, target.get_mut(at(run)).ok_or_else(beyond)?);
        }
    }
    Ok(())
}
