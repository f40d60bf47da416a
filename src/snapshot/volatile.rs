//! Tensors whose memory may be written while they are saved: how their bytes are copied out, once.

use super::source::{IntoTensorSource, TensorSource};
use crate::dtype::Dtype;
use crate::error::Result;
use std::sync::Arc;

/// Fills a buffer with a tensor's bytes from an offset on.
pub(crate) type Fill<'a> = dyn Fn(usize, &mut [u8]) -> Result<()> + Send + Sync + 'a;

/// A tensor whose memory may be written while it is saved: by training that does not wait, by
/// another language's threads, by a GPU.
///
/// It says how to copy its bytes instead of lending them out. A save asks for each byte once, a
/// chunk at a time ([`WriteOptions::chunk_log2`](crate::WriteOptions::chunk_log2)), and takes the
/// checksum from the copy that it writes: whatever is written to the memory meanwhile, the file
/// verifies. What is copied is what `fill` read, so a tensor that is written meanwhile is saved
/// partly as it was and partly as it became; a caller to whom that matters has to make writers
/// wait.
///
/// Memory behind a `&[u8]` must not change in Rust: that is undefined behaviour, whoever writes it.
/// `fill` decides by itself how it reads (atomics, a lock, a copy that the other language's runtime
/// makes), which is why this is sound and lending a slice of such memory is not.
///
/// The bytes of the file are the same as those of a tensor that was lent, and the memory that a
/// save takes is one chunk for each encoding thread. Two of them are tied when they are clones of
/// one [`TensorSource`], or by [`Snapshot::tie`](crate::Snapshot::tie).
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use tensorkeep::{Dtype, Snapshot, snapshot::Volatile};
///
/// // Training goes on in these while they are saved.
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
    /// A tensor of this dtype and shape whose little-endian, row-major bytes `fill(offset, buffer)`
    /// copies: all of `buffer`, from byte `offset` on. Both are whole elements. What `buffer` holds
    /// before is unspecified.
    ///
    /// It is called from several threads at a time, also from others than the one that saves.
    /// [`Store::stage`](crate::Store::stage) calls it before it returns; a save in the foreground
    /// that failed to sync starts again and asks for everything again. An error of it is the save's
    /// error.
    pub fn new(
        dtype: Dtype,
        shape: &[usize],
        fill: impl Fn(usize, &mut [u8]) -> Result<()> + Send + Sync + 'a,
    ) -> Self {
        Self { dtype, shape: shape.into(), fill: Arc::new(fill) }
    }
}

impl<'a> IntoTensorSource<'a> for Volatile<'a> {
    fn into_source(self) -> Result<TensorSource<'a>> {
        TensorSource::volatile(self)
    }
}
