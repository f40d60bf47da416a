//! Modules: their parameters by name into a snapshot, and out of a checkpoint, all or nothing.

use crate::dtype;
use crate::pack::{PackTensor, Staged};
use crate::record::{Kind, Rest, Taken};
use burn_core::module::Module;
use burn_store::{ModuleAdapter, ModuleSnapshot};
use std::collections::BTreeMap;
use tensorkeep::{
    Checkpoint, Error, ErrorKind, LoadOptions, LoadReport, Result, Snapshot, StateDict, StateDictMut,
    Stateful,
};

/// Adds a module's parameters as tensors `group/path.of.parameter`, and their ids as the record
/// `group`, so that an optimizer's state finds them again.
///
/// Nothing is copied ahead: each parameter is read back from its device when it is written.
///
/// # Errors
/// `Unsupported` for a dtype that checkpoints do not have (quantized); as [`Snapshot::tensor`].
pub fn save_module<'a, M: Module>(snapshot: Snapshot<'a>, group: &str, module: &M) -> Result<Snapshot<'a>> {
    settle(module);
    Taken::of_module(module.collect(None, None, false)).add_to(snapshot, group)
}

/// Makes running means and variances current. burn keeps the newest update of a batch norm beside
/// its value until the next one, and what visits a module sees the value. Of all that a module can
/// do, only going to validation adds the update.
pub(crate) fn settle<M: Module>(module: &M) {
    drop(module.valid());
}

/// Overwrites a module's parameters by those of a group: strictly, and all or nothing. Names,
/// shapes and dtypes are compared, and every byte is read and verified, before the module changes.
///
/// Ids of parameters come back if the group was written by this crate. A group of another origin
/// (candle, the ndarray LeNet, torch) has none, and the module's stay; for PyTorch's names and
/// memory orders see [`load_torch`](crate::load_torch).
///
/// # Errors
/// `Mismatch` listing missing, unexpected and mismatched names, with "did you mean"; `Damaged`,
/// `Unsupported`, `Io`. The module is unchanged then.
pub fn load_module<M: Module>(checkpoint: &Checkpoint, group: &str, module: &mut M) -> Result<LoadReport> {
    let ids = ids(checkpoint, group)?;
    let way = Way {
        wanted: module.collect(None, None, false),
        options: LoadOptions::strict(),
        from: None,
        skip_enum_variants: false,
    };
    load_by(way, checkpoint, group, module, &ids)
}

/// Ids of parameters by name, where there are any.
fn ids(checkpoint: &Checkpoint, group: &str) -> Result<BTreeMap<String, u64>> {
    if !checkpoint.records().any(|record| record == group) {
        return Ok(BTreeMap::new());
    }
    let rest = Rest::read(checkpoint, group, Kind::Module)?;
    Ok(rest.tensors.into_iter().filter_map(|entry| Some((entry.name, entry.id?))).collect())
}

/// How a checkpoint's tensors become a module's parameters.
pub(crate) struct Way {
    /// The parameters as the checkpoint has them.
    pub wanted: Vec<PackTensor>,
    pub options: LoadOptions,
    /// From the checkpoint's form to the module's.
    pub from: Option<Box<dyn ModuleAdapter>>,
    pub skip_enum_variants: bool,
}

/// Reads into memory of its own, and applies it when nothing is missing.
pub(crate) fn load_by<M: Module>(
    way: Way,
    checkpoint: &Checkpoint,
    group: &str,
    module: &mut M,
    ids: &BTreeMap<String, u64>,
) -> Result<LoadReport> {
    let wanted = way.wanted.into_iter().map(|tensor| {
        let dtype = dtype::of_burn(tensor.dtype).map_err(|error| error.in_tensor(&tensor.name))?;
        let id = ids.get(&tensor.name).copied();
        Staged::new(tensor.name, dtype, tensor.shape.to_vec(), id)
    });
    let mut staging = Staging(wanted.collect::<Result<_>>()?);
    // What fails half-way is dropped with its memory: the module was not touched.
    let report = way.options.in_place().load(checkpoint, group, &mut staging)?;
    settle(module); // or an update from before would replace a value that was loaded
    let tensors = staging.0.into_iter().map(Staged::handed_over).collect();
    let result = module.apply(tensors, None, way.from, way.skip_enum_variants);
    if result.errors.is_empty() && result.missing.is_empty() && result.unused.is_empty() {
        return Ok(report);
    }
    // Names, shapes and dtypes were compared: only a module that changes while it is visited.
    Err(Error::new(ErrorKind::Invalid, format!("a module did not take what it asked for: {result}")))
}

/// Memory for all parameters of a module, as a state dict to overwrite.
struct Staging(Vec<Staged>);

impl Stateful for Staging {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        Ok(StateDict::new()) // it is overwritten only
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let mut state = StateDictMut::new();
        for Staged { name, dtype, shape, memory, .. } in &mut self.0 {
            let target = (dtype::of_burn(*dtype)?, &shape[..], memory.bytes_mut());
            state = state.with(name.clone(), target)?;
        }
        Ok(state)
    }
}
