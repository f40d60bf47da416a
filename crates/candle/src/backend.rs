//! A `VarBuilder` over a checkpoint: each layer's tensors are read, verified and made when the
//! layer is built.

use crate::dtype;
use crate::error::to_candle;
use crate::memory;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use std::sync::Arc;
use tensorkeep::{Checkpoint, Error, ErrorKind, Result};

/// A [`VarBuilder`] that reads from a group of a checkpoint; the group is empty for all of it.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::linear;
/// use tensorkeep::{Checkpoint, Snapshot};
/// use tensorkeep_candle::var_builder;
///
/// # let path = std::env::temp_dir().join(format!("tensorkeep-candle-doc-{}.tkeep", std::process::id()));
/// # let (weight, bias) = (vec![0.5_f32; 8], vec![0.0_f32; 2]);
/// # let snapshot = Snapshot::new().tensor("model/fc.weight", ([2, 4], &weight))?;
/// # snapshot.tensor("model/fc.bias", &bias)?.save(&path)?;
/// let checkpoint = Checkpoint::open(&path)?; // or `unsafe { Checkpoint::map(&path)? }`
/// let builder = var_builder(checkpoint, "model", DType::F32, &Device::Cpu);
/// let layer = linear(4, 2, builder.pp("fc"))?; // reads and verifies `model/fc.weight` and `.bias`
/// # assert_eq!(layer.weight().dims(), [2, 4]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Strict where candle's own backends are not: a tensor whose dtype is not the builder's is an
/// error. [`CheckpointBackend::cast`] converts.
pub fn var_builder(
    checkpoint: impl Into<Arc<Checkpoint>>,
    group: &str,
    dtype: DType,
    device: &Device,
) -> VarBuilder<'static> {
    CheckpointBackend::new(checkpoint, group).builder(dtype, device)
}

/// Where [`var_builder`]'s tensors come from.
///
/// No tensor takes more memory than the budget that the checkpoint was opened with
/// ([`OpenOptions::budget`](tensorkeep::OpenOptions::budget)).
///
/// A tensor is allocated, and read into from the file by several threads that verify each chunk as
/// they copy it: once, without a buffer in between. Tensors that nobody asks for are not read.
#[derive(Clone)]
pub struct CheckpointBackend {
    checkpoint: Arc<Checkpoint>,
    prefix: String,
    cast: bool,
}

impl CheckpointBackend {
    /// The tensors under `group/`, or all if the group is empty. A group that ends in `/` or `.` is
    /// taken literally, so `"state_dict."` opens names from torch.
    pub fn new(checkpoint: impl Into<Arc<Checkpoint>>, group: &str) -> Self {
        let literal = group.is_empty() || group.ends_with(['/', '.']);
        let prefix = if literal { group.to_owned() } else { format!("{group}/") };
        Self { checkpoint: checkpoint.into(), prefix, cast: false }
    }

    /// Converts a tensor of another dtype to the builder's, as candle's own backends do.
    pub fn cast(self) -> Self {
        Self { cast: true, ..self }
    }

    /// A builder of layers of this dtype on this device.
    pub fn builder(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }

    fn read(&self, shape: Option<&Shape>, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let info = self.checkpoint.info(&name)?;
        let axes = memory::axes(&info.shape);
        if let Some(shape) = shape.filter(|shape| shape.dims() != axes) {
            return Err(Error::new(ErrorKind::Mismatch, "shape")
                .expected(format!("{:?}", shape.dims()))
                .found(format!("{axes:?}"))
                .in_tensor(&name)
                .help("build the model with the sizes that it was saved with"));
        }
        let stored = dtype::of_entry(&info)?;
        if stored != dtype && !self.cast {
            return Err(Error::new(ErrorKind::Mismatch, "dtype")
                .expected(dtype.as_str())
                .found(stored.as_str())
                .in_tensor(&name)
                .help("ask the builder for that dtype, or convert with CheckpointBackend::cast"));
        }
        // A file decides about this memory: `get_unchecked` names no shape to compare.
        let in_memory = info.byte_len.max(element_bytes(&axes, dtype));
        self.checkpoint.inspect().check_budget(in_memory).map_err(|error| error.in_tensor(&name))?;
        let made =
            memory::filled(stored, &axes, |bytes| self.checkpoint.load_into([(name.as_str(), bytes)]))?;
        let moved = made.to_device(device).and_then(|tensor| tensor.to_dtype(dtype));
        moved.map_err(|error| {
            crate::error::from_candle("moving a tensor to its device", error).in_tensor(&name)
        })
    }

    fn get_from(
        &self,
        shape: Option<&Shape>,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.read(shape, name, dtype, device).map_err(|error| {
            to_candle(if error.object().is_some() { error } else { error.in_object(self.checkpoint.name()) })
        })
    }
}

/// Bytes of a tensor in this dtype, which a cast may make the larger one.
fn element_bytes(axes: &[usize], dtype: DType) -> u64 {
    axes.iter().fold(dtype.size_in_bytes() as u64, |bytes, &axis| bytes.saturating_mul(axis as u64))
}

impl SimpleBackend for CheckpointBackend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.get_from(Some(&shape), name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.get_from(None, name, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.checkpoint.info(&format!("{}{name}", self.prefix)).is_ok()
    }
}
