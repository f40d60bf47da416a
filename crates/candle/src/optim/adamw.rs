//! candle-nn's AdamW, operation by operation, with its state in the open.

use super::{Parameter, moments, moments_mut};
use crate::vars::Vars;
use candle_core::{Tensor, Var, backprop::GradStore};
use candle_nn::{Optimizer, ParamsAdamW, VarMap};
use tensorkeep::{Result, StateDict, StateDictMut, Stateful};

const MOMENTS: [&str; 2] = ["adamw.exp_avg", "adamw.exp_avg_sq"];

/// [`candle_nn::AdamW`] whose state is saved: the step, the hyperparameters with the learning rate
/// of now, and both moments of every parameter, under torch's names (`adamw.exp_avg.fc.weight`).
///
/// Build it with [`AdamW::named`]. [`Optimizer::new`] works, and makes one that cannot be saved: it
/// gets no names, and `VarMap::all_vars` has another order in every process, so that positions
/// would give one parameter the moments of another.
#[derive(Debug)]
pub struct AdamW {
    parameters: Vec<Parameter<2>>,
    params: ParamsAdamW,
    step: u64,
}

impl AdamW {
    /// Over the floating-point variables of a map, by name.
    ///
    /// # Errors
    /// candle's, when moments cannot be allocated.
    pub fn named(vars: &VarMap, params: ParamsAdamW) -> candle_core::Result<Self> {
        let named = Vars::of(vars).named().into_iter().map(|(name, var)| (Some(name), var));
        Ok(Self { parameters: Parameter::all(named)?, params, step: 0 })
    }

    /// Completed updates.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The hyperparameters.
    pub fn params(&self) -> &ParamsAdamW {
        &self.params
    }

    /// Sets the hyperparameters.
    pub fn set_params(&mut self, params: ParamsAdamW) {
        self.params = params;
    }

    /// The first and second moments of a parameter.
    pub fn moments(&self, name: &str) -> Option<(&Tensor, &Tensor)> {
        let parameter = self.parameters.iter().find(|parameter| parameter.name.as_deref() == Some(name))?;
        let [first, second] = &parameter.moments;
        Some((first.as_tensor(), second.as_tensor()))
    }
}

impl Optimizer for AdamW {
    type Config = ParamsAdamW;

    fn new(vars: Vec<Var>, params: ParamsAdamW) -> candle_core::Result<Self> {
        Ok(Self { parameters: Parameter::all(vars.into_iter().map(|var| (None, var)))?, params, step: 0 })
    }

    fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        self.step += 1;
        let ParamsAdamW { lr, beta1, beta2, eps, weight_decay } = self.params;
        // OK to cast: as candle does; both factors are 1 long before 2³¹ steps.
        let power = self.step as i32;
        let scale_first = 1.0 / (1.0 - beta1.powi(power));
        let scale_second = 1.0 / (1.0 - beta2.powi(power));
        for Parameter { var, moments: [first, second], .. } in &self.parameters {
            let Some(grad) = grads.get(var) else { continue };
            let next_first = ((first.as_tensor() * beta1)? + (grad * (1.0 - beta1))?)?;
            let next_second = ((second.as_tensor() * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
            let first_hat = (&next_first * scale_first)?;
            let second_hat = (&next_second * scale_second)?;
            let decayed = (var.as_tensor() * (1.0 - lr * weight_decay))?;
            let adjusted = (first_hat / (second_hat.sqrt()? + eps)?)?;
            let next = (decayed - (adjusted * lr)?)?;
            first.set(&next_first)?;
            second.set(&next_second)?;
            var.set(&next)?;
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

impl Stateful for AdamW {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        let state = StateDict::new()
            .with_field("adamw.step", &self.step)?
            .with_field("adamw.lr", &self.params.lr)?
            .with_field("adamw.beta1", &self.params.beta1)?
            .with_field("adamw.beta2", &self.params.beta2)?
            .with_field("adamw.eps", &self.params.eps)?
            .with_field("adamw.weight_decay", &self.params.weight_decay)?;
        moments(state, MOMENTS, &self.parameters)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let state = StateDictMut::new()
            .with_field("adamw.step", &mut self.step)?
            .with_field("adamw.lr", &mut self.params.lr)?
            .with_field("adamw.beta1", &mut self.params.beta1)?
            .with_field("adamw.beta2", &mut self.params.beta2)?
            .with_field("adamw.eps", &mut self.params.eps)?
            .with_field("adamw.weight_decay", &mut self.params.weight_decay)?;
        moments_mut(state, MOMENTS, &self.parameters)
    }
}
