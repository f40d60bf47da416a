//! Optimizers whose state can be seen and saved: candle's AdamW, and SGD with momentum. Their
//! moments are named after the parameters.

mod adamw;
mod sgd;

pub use adamw::AdamW;
pub use sgd::{ParamsSgd, Sgd};

use crate::memory;
use candle_core::Var;
use tensorkeep::{Error, ErrorKind, Result, StateDict, StateDictMut};

/// A parameter and the tensors that an optimizer keeps for it.
#[derive(Debug)]
struct Parameter<const N: usize> {
    /// None for one of a list without names.
    name: Option<String>,
    var: Var,
    moments: [Var; N],
}

impl<const N: usize> Parameter<N> {
    /// Those of a floating-point dtype, with moments of zero.
    fn all(vars: impl IntoIterator<Item = (Option<String>, Var)>) -> candle_core::Result<Vec<Self>> {
        let floats = vars.into_iter().filter(|(_, var)| var.dtype().is_float());
        let with_moments = floats.map(|(name, var)| {
            let zeros = || Var::zeros(var.shape(), var.dtype(), var.device());
            let mut moments = Vec::new();
            for _ in 0..N {
                moments.push(zeros()?);
            }
            let moments = moments.try_into().map_err(|_| candle_core::Error::Msg("moments".into()))?;
            Ok(Self { name, var, moments })
        });
        with_moments.collect()
    }

    fn name(&self) -> Result<&str> {
        self.name.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "an optimizer whose parameters have no names cannot be saved")
                .help("VarMap::all_vars has another order in every process: build it with `named`")
        })
    }
}

/// Adds `kind.moment.parameter` for all of them.
fn moments<'a, const N: usize>(
    mut state: StateDict<'a>,
    names: [&str; N],
    parameters: &'a [Parameter<N>],
) -> Result<StateDict<'a>> {
    for (i, moment) in names.into_iter().enumerate() {
        for parameter in parameters {
            let name = format!("{moment}.{}", parameter.name()?);
            let source = memory::source(&parameter.moments[i]).map_err(|error| error.in_tensor(&name))?;
            state = state.with(name, source)?;
        }
    }
    Ok(state)
}

/// Like [`moments`], mutable.
fn moments_mut<'a, const N: usize>(
    mut state: StateDictMut<'a>,
    names: [&str; N],
    parameters: &[Parameter<N>],
) -> Result<StateDictMut<'a>> {
    for (i, moment) in names.into_iter().enumerate() {
        for parameter in parameters {
            let name = format!("{moment}.{}", parameter.name()?);
            let target = memory::target(&parameter.moments[i]).map_err(|error| error.in_tensor(&name))?;
            state = state.with(name, target)?;
        }
    }
    Ok(state)
}
