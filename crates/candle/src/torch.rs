//! Names of PyTorch's modules and of candle's, and how one becomes the other.

use crate::vars::Vars;
use tensorkeep::{Checkpoint, LoadOptions, LoadReport, Result};

/// Loads a module's state dict that PyTorch wrote (imported with `tensorkeep import`, or saved by
/// the Python package) into a map's variables: strictly, and all or nothing.
///
/// candle's layers have PyTorch's names and memory orders: a linear layer's weight is (out, in), a
/// convolution's (out, in, height, width), norms have `weight`, `bias`, `running_mean` and
/// `running_var`. So nothing is transposed, and the other way needs nothing at all: torch loads
/// what [`Vars`] saved. Two things differ, and the report says which of them was met: the prefix of
/// a wrapper (`DistributedDataParallel`, `torch.compile`), and `num_batches_tracked`; see
/// [`LoadOptions::from_torch`].
///
/// # Errors
/// As [`Checkpoint::load_state_dict`]; nothing is changed then.
pub fn load_torch(checkpoint: &Checkpoint, group: &str, vars: &mut Vars) -> Result<LoadReport> {
    LoadOptions::strict().from_torch().load(checkpoint, group, vars)
}
