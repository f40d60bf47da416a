//! SGD, which candle-nn has without momentum: with it, as torch.

use super::{Parameter, moments, moments_mut};
use crate::vars::Vars;
use candle_core::{Tensor, Var, backprop::GradStore};
use candle_nn::{Optimizer, VarMap};
use tensorkeep::{Result, StateDict, StateDictMut, Stateful};

const MOMENTS: [&str; 1] = ["sgd.momentum_buffer"];

/// Hyperparameters of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct ParamsSgd {
    /// Learning rate.
    pub lr: f64,
    /// Share of the last update that is kept, 0 for none.
    pub momentum: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
}

impl Default for ParamsSgd {
    fn default() -> Self {
        Self { lr: 0.01, momentum: 0.0, weight_decay: 0.0 }
    }
}

/// Stochastic gradient descent with momentum as `torch.optim.SGD` (without dampening and Nesterov):
/// g ← g + weight_decay · p; b ← momentum · b + g; p ← p − lr · b. Without momentum and weight
/// decay it is [`candle_nn::SGD`], bit for bit.
///
/// Its state is saved as `sgd.momentum_buffer.fc.weight`, its hyperparameters beside it. See
/// [`AdamW`](super::AdamW) for what names are for.
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<Parameter<1>>,
    params: ParamsSgd,
    step: u64,
}

impl Sgd {
    /// Over the floating-point variables of a map, by name.
    ///
    /// # Errors
    /// candle's, when moments cannot be allocated.
    pub fn named(vars: &VarMap, params: ParamsSgd) -> candle_core::Result<Self> {
        let named = Vars::of(vars).named().into_iter().map(|(name, var)| (Some(name), var));
        Ok(Self { parameters: Parameter::all(named)?, params, step: 0 })
    }

    /// Completed updates.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The hyperparameters.
    pub fn params(&self) -> &ParamsSgd {
        &self.params
    }

    /// The last update of a parameter, before the learning rate.
    pub fn momentum_buffer(&self, name: &str) -> Option<&Tensor> {
        let parameter = self.parameters.iter().find(|parameter| parameter.name.as_deref() == Some(name))?;
        Some(parameter.moments[0].as_tensor())
    }
}

impl Optimizer for Sgd {
    type Config = ParamsSgd;

    fn new(vars: Vec<Var>, params: ParamsSgd) -> candle_core::Result<Self> {
        Ok(Self { parameters: Parameter::all(vars.into_iter().map(|var| (None, var)))?, params, step: 0 })
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        self.step += 1;
        let ParamsSgd { lr, momentum, weight_decay } = self.params;
        for Parameter { var, moments: [buffer], .. } in &self.parameters {
            let Some(grad) = grads.get(var) else { continue };
            let mut update = grad.clone();
            if weight_decay != 0.0 {
                update = (update + (var.as_tensor() * weight_decay)?)?;
            }
            if momentum != 0.0 {
                update = ((buffer.as_tensor() * momentum)? + update)?;
                buffer.set(&update)?;
            }
            var.set(&var.sub(&(update * lr)?)?)?;
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.params.lr
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.params.lr = lr;
    }
}

impl Stateful for Sgd {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        let state = StateDict::new()
            .with_field("sgd.step", &self.step)?
            .with_field("sgd.lr", &self.params.lr)?
            .with_field("sgd.momentum", &self.params.momentum)?
            .with_field("sgd.weight_decay", &self.params.weight_decay)?;
        moments(state, MOMENTS, &self.parameters)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let state = StateDictMut::new()
            .with_field("sgd.step", &mut self.step)?
            .with_field("sgd.lr", &mut self.params.lr)?
            .with_field("sgd.momentum", &mut self.params.momentum)?
            .with_field("sgd.weight_decay", &mut self.params.weight_decay)?;
        moments_mut(state, MOMENTS, &self.parameters)
    }
}
