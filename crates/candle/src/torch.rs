//! Names of PyTorch's modules and of candle's, and how one becomes the other.

use crate::memory;
use crate::vars::Vars;
use std::fmt;
use tensorkeep::{
    Checkpoint, Dtype, LoadOptions, LoadReport, Result, StateDict, StateDictMut, Stateful, TensorMut,
};

/// What torch's wrappers put before the names of a module.
const WRAPPERS: [&str; 4] = ["module._orig_mod.", "_orig_mod.module.", "module.", "_orig_mod."];
/// The one tensor of torch's layers that candle's do not have: how many batches a norm has seen.
const COUNT: &str = "num_batches_tracked";

/// What [`load_torch`] did with names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adapted {
    /// What the load itself reports, in candle's names.
    pub report: LoadReport,
    /// The wrapper's prefix that was taken away, such as `module.`.
    pub stripped: Option<&'static str>,
    /// Tensors of the checkpoint that candle's layers do not have: the counts of batch norms.
    pub left_out: Vec<String>,
}

impl fmt::Display for Adapted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        if let Some(prefix) = self.stripped {
            write!(f, "; {prefix:?} was taken from all names")?;
        }
        if !self.left_out.is_empty() {
            write!(f, "; left out, since candle has none: {}", self.left_out.join(", "))?;
        }
        Ok(())
    }
}

/// Loads a module's state dict that PyTorch wrote (imported with `tensorkeep import`, or saved by
/// the Python package) into a map's variables: strictly, and all or nothing.
///
/// candle's layers have PyTorch's names and memory orders: a linear layer's weight is (out, in), a
/// convolution's (out, in, height, width), norms have `weight`, `bias`, `running_mean` and
/// `running_var`. So nothing is transposed, and the other way needs nothing at all: torch loads
/// what [`Vars`] saved. Two things differ, and the result says which of them was met: the prefix of
/// a wrapper (`DistributedDataParallel`, `torch.compile`), and `num_batches_tracked`.
///
/// # Errors
/// As [`Checkpoint::load_state_dict`]; nothing is changed then.
pub fn load_torch(checkpoint: &Checkpoint, group: &str, vars: &mut Vars) -> Result<Adapted> {
    let members = members(checkpoint, group);
    let stripped = WRAPPERS
        .into_iter()
        .find(|prefix| !members.is_empty() && members.iter().all(|(name, ..)| name.starts_with(prefix)));
    let mut left_out: Vec<Counted> = Vec::new();
    let known = vars.named();
    for (name, dtype, shape) in members {
        let name = stripped.and_then(|prefix| name.strip_prefix(prefix)).unwrap_or(&name).to_owned();
        let is_count = name == COUNT || name.ends_with(&format!(".{COUNT}"));
        if is_count && !known.contains_key(&name) {
            left_out.push(Counted { name, dtype, shape });
        }
    }
    let options = match stripped {
        Some(prefix) => LoadOptions::strict().strip_prefix(prefix),
        None => LoadOptions::strict(),
    };
    let mut target = WithCounts { vars, counts: &left_out };
    let mut report = options.load(checkpoint, group, &mut target)?;
    report.loaded.retain(|name| left_out.iter().all(|count| count.name != *name));
    Ok(Adapted { report, stripped, left_out: left_out.into_iter().map(|count| count.name).collect() })
}

/// Names within the group, as [`Checkpoint::load_state_dict`] understands groups.
fn members(checkpoint: &Checkpoint, group: &str) -> Vec<(String, Dtype, Vec<usize>)> {
    let literal = group.is_empty() || group.ends_with(['/', '.']);
    let prefixes =
        if literal { vec![group.to_owned()] } else { vec![format!("{group}/"), format!("{group}.")] };
    let of = |prefix: &String| -> Vec<_> {
        let tensors = checkpoint.tensors().filter_map(|info| {
            Some((
                info.name.strip_prefix(prefix.as_str())?.to_owned(),
                info.dtype.ok()?,
                memory::axes(&info.shape),
            ))
        });
        tensors.collect()
    };
    prefixes.iter().map(of).find(|members| !members.is_empty()).unwrap_or_default()
}

struct Counted {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// The variables, and places for the counts, which are read and dropped.
struct WithCounts<'v> {
    vars: &'v mut Vars,
    counts: &'v [Counted],
}

impl Stateful for WithCounts<'_> {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        self.vars.state_dict()
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let mut state = self.vars.state_dict_mut()?;
        for Counted { name, dtype, shape } in self.counts {
            state = state.with(name.clone(), TensorMut::written_by(*dtype, shape, |_| Ok(())))?;
        }
        Ok(state)
    }
}
