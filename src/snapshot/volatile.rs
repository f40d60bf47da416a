//! Tensors whose memory may be written while they are saved: each byte is copied out once.

use crate::dtype::Dtype;
use crate::error::Result;
use std::sync::Arc;

/// Fills a buffer with a tensor's bytes from an offset on.
pub(crate) type Fill<'a> = dyn Fn(usize, &mut [u8]) -> Result<()> + Send + Sync + 'a;

/// A tensor whose memory may be written while it is saved: by training that does not wait, by
/// another language's threads, by a GPU.
///
/// It copies its bytes on request instead of lending them out. A save requests each byte once, a
/// chunk at a time ([`WriteOptions::chunk_log2`](crate::WriteOptions::chunk_log2)), and checksums
/// the copy that it writes, so that the file verifies even if the memory is written meanwhile. A
/// tensor that is written during the save is then saved partly old, partly new; to avoid that, make
/// writers wait.
///
/// Memory behind a `&[u8]` must not change in Rust: that is undefined behaviour, no matter who
/// writes it. `fill` chooses how it reads (atomics, a lock, a copy by the other language's
/// runtime), which is why this is sound and lending a slice of such memory is not.
///
/// The bytes in the file are the same as for a borrowed tensor, and a save takes one chunk of
/// memory for each encoding thread. Two volatile tensors are aliases if they are clones of one
/// [`TensorSource`](super::TensorSource), or by [`Snapshot::alias`](crate::Snapshot::alias).
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use tensorkeep::{Dtype, Snapshot, snapshot::Volatile};
///
/// // Training updates these while they are saved.
/// let weights: Arc<Vec<AtomicU32>> = Arc::new((0..1000).map(|_| AtomicU32::new(1.5_f32.to_bits())).collect());
/// let lent = Arc::clone(&weights);
/// let fill = move |offset: usize, buffer: &mut [u8]| {
///     for (bytes, weight) in buffer.chunks_exact_mut(4).zip(&lent[offset / 4..]) {
///         bytes.copy_from_slice(&weight.load(Relaxed).to_le_bytes());
///     }
///     Ok(())
/// };
/// let mut snapshot = Snapshot::new().tensor("weights", Volatile::new(Dtype::F32, &[1000], fill))?;
/// # let bytes = snapshot.to_bytes(&tensorkeep::WriteOptions::new())?;
/// # assert_eq!(tensorkeep::Checkpoint::from_bytes(&bytes)?.tensor("weights")?.elements::<f32>()?, [1.5; 1000]);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
pub struct Volatile<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Box<[usize]>,
    pub(super) fill: Arc<Fill<'a>>,
}

impl<'a> Volatile<'a> {
    /// A tensor of this dtype and shape. `fill(offset, buffer)` copies its little-endian, row-major
    /// bytes from byte `offset` on, and fills all of `buffer`. Both are whole elements. The
    /// previous contents of `buffer` are unspecified.
    ///
    /// `fill` is called from several threads at a time, also from others than the saving one.
    /// [`Store::stage`](crate::Store::stage) calls it before it returns; a foreground save that
    /// failed to sync starts again and requests everything again. An error of `fill` is the save's
    /// error.
    pub fn new(
        dtype: Dtype,
        shape: &[usize],
        fill: impl Fn(usize, &mut [u8]) -> Result<()> + Send + Sync + 'a,
    ) -> Self {
        Self { dtype, shape: shape.into(), fill: Arc::new(fill) }
    }
}
