//! PyTorch's names and memory orders for burn's modules, by burn-store's adapters, and what they
//! did.

use crate::module::{Way, load_by, settle};
use crate::pack::{PackTensor, source};
use burn_core::module::Module;
use burn_core::tensor::Bytes;
use burn_store::{BurnToPyTorchAdapter, ModuleAdapter, ModuleContext, ModuleSnapshot, PyTorchToBurnAdapter};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tensorkeep::{Checkpoint, LoadOptions, LoadReport, Result, Snapshot};

/// What was done with a module's tensors on their way to or from PyTorch's form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adapted {
    /// burn's names and torch's, where they differ: `norm.gamma` is `norm.weight`.
    pub renamed: Vec<(String, String)>,
    /// Weights whose axes were swapped, by torch's names: linear layers are (in, out) in burn and
    /// (out, in) in torch.
    pub transposed: Vec<String>,
}

impl fmt::Display for Adapted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renamed: Vec<String> =
            self.renamed.iter().map(|(burn, torch)| format!("{burn} = {torch}")).collect();
        let mut parts = Vec::new();
        for (what, names) in [("renamed", &renamed), ("transposed", &self.transposed)] {
            if !names.is_empty() {
                parts.push(format!("{what} {}", names.join(", ")));
            }
        }
        f.write_str(if parts.is_empty() { "nothing to adapt" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// Adds a module's parameters in PyTorch's form: its names, and linear weights as (out, in). torch,
/// candle and Rust's LeNet read the group as it is. It has no ids, so to resume training save the
/// module with [`save_module`](crate::save_module).
///
/// # Errors
/// As [`save_module`](crate::save_module).
pub fn save_torch<'a, M: Module>(
    mut snapshot: Snapshot<'a>,
    group: &str,
    module: &M,
) -> Result<(Snapshot<'a>, Adapted)> {
    settle(module);
    let telling = Telling::default();
    for tensor in module.collect(None, Some(Box::new(telling.clone())), true) {
        let name = format!("{group}/{}", tensor.name);
        let source = source(tensor).map_err(|error| error.in_tensor(&name))?;
        snapshot = snapshot.tensor(name, source)?;
    }
    Ok((snapshot, telling.told()))
}

/// Overwrites a module's parameters by those of a group in PyTorch's form, strictly and all or
/// nothing: a state dict that torch wrote (imported with `tensorkeep import`, or saved by the
/// Python package), candle's, or Rust's LeNet. What torch's state dicts have and burn's modules do
/// not is passed over, and the report says so: [`LoadOptions::from_torch`].
///
/// # Errors
/// As [`load_module`](crate::load_module), in torch's names.
pub fn load_torch<M: Module>(
    checkpoint: &Checkpoint,
    group: &str,
    module: &mut M,
) -> Result<(LoadReport, Adapted)> {
    let telling = Telling::default();
    let way = Way {
        wanted: module.collect(None, Some(Box::new(telling.clone())), true),
        options: LoadOptions::strict().from_torch(),
        from: Some(Box::new(PyTorchToBurnAdapter)),
        skip_enum_variants: true,
    };
    let report = load_by(way, checkpoint, group, module, &Default::default())?;
    Ok((report, telling.told()))
}

/// burn-store's adapter to PyTorch's form, which notes what it does.
#[derive(Clone, Default)]
struct Telling(Arc<Mutex<Adapted>>);

impl Telling {
    fn told(&self) -> Adapted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ModuleAdapter for Telling {
    fn adapt(&self, tensor: PackTensor, context: ModuleContext<'_>) -> PackTensor {
        // Whether it transposes cannot be seen in a square weight: it can in a row of one.
        let row = vec![0; 2 * tensor.dtype.size()];
        let row =
            PackTensor::new(tensor.name.clone(), tensor.dtype, vec![1, 2], None, Bytes::from_bytes_vec(row));
        let is_matrix = tensor.shape.to_vec().len() == 2;
        let transposes = is_matrix && BurnToPyTorchAdapter.adapt(row, context).shape.to_vec() == [2, 1];
        let name = tensor.name.clone();
        let adapted = BurnToPyTorchAdapter.adapt(tensor, context);
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if transposes {
            told.transposed.push(adapted.name.clone());
        }
        if adapted.name != name {
            told.renamed.push((name, adapted.name.clone()));
        }
        adapted
    }

    fn get_alternative_param_name(&self, name: &str, container: &str) -> Option<String> {
        BurnToPyTorchAdapter.get_alternative_param_name(name, container)
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}
