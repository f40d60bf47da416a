//! The variables of a model by name, to save and to load.

use crate::memory;
use candle_core::{TensorId, Var};
use candle_nn::VarMap;
use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use tensorkeep::{Result, StateDict, StateDictMut, Stateful, TensorSource};

/// All variables of a [`VarMap`], by name: what `VarMap::save` and `VarMap::load` are for, with
/// checksums, and all or nothing.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarBuilder, VarMap, linear};
/// use tensorkeep::{Checkpoint, Snapshot, Stateful};
/// use tensorkeep_candle::Vars;
///
/// let varmap = VarMap::new();
/// let builder = VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu);
/// let layer = linear(4, 2, builder.pp("fc"))?;
/// let mut model = Vars::of(&varmap);
/// let snapshot = Snapshot::new().state_dict("model", model.state_dict()?)?;
/// # let bytes = snapshot.to_bytes(&Default::default())?;
/// # let checkpoint = Checkpoint::from_bytes(&bytes)?;
/// # drop(snapshot);
/// // … saved, and opened again as `checkpoint` …
/// let report = checkpoint.load_state_dict("model", &mut model)?; // `layer` has the values now
/// assert_eq!(report.loaded, ["fc.bias", "fc.weight"]);
/// # let _ = layer;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// **Loading is all or nothing.** Names, shapes and dtypes are compared, and every tensor is read
/// and verified, before the first variable changes. `VarMap::load` and `VarMap::set` stop in the
/// middle.
///
/// **Saving copies nothing ahead.** Bytes are copied under candle's lock, a chunk at a time, when
/// they are written. `Store::save` and `Store::stage` have copied them when they return; a save
/// that reads them later than the next update of the weights would save some of both.
///
/// Names are listed in order, whatever order the map's hash has in this process. Variables that are
/// one tensor (tied weights) are stored once.
#[derive(Clone)]
pub struct Vars(VarMap);

impl Vars {
    /// The variables of this map, also those that are added to it later.
    pub fn of(vars: &VarMap) -> Self {
        Self(vars.clone())
    }

    /// The map.
    pub fn map(&self) -> &VarMap {
        &self.0
    }

    /// Variables and their names, in order of names.
    pub fn named(&self) -> BTreeMap<String, Var> {
        let vars = self.0.data().lock().unwrap_or_else(PoisonError::into_inner);
        vars.iter().map(|(name, var)| (name.clone(), var.clone())).collect()
    }
}

impl Stateful for Vars {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        let mut state = StateDict::new();
        let mut tied: HashMap<TensorId, TensorSource<'_>> = HashMap::new();
        for (name, var) in self.named() {
            let source = match tied.get(&var.id()) {
                Some(source) => source.clone(),
                None => memory::source(&var).map_err(|error| error.in_tensor(&name))?,
            };
            tied.insert(var.id(), source.clone());
            state = state.with(name, source)?;
        }
        Ok(state)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let mut state = StateDictMut::new();
        for (name, var) in self.named() {
            let target = memory::target(&var).map_err(|error| error.in_tensor(&name))?;
            state = state.with(name, target)?;
        }
        Ok(state)
    }
}
