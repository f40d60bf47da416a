//! A small model.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};
use tensorkeep::{Model, Result, StateDict, StateDictMut, Stateful};

/// One fully connected layer. Its traits are implemented by hand, as by a user without the derives.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    pub weight: Array2<f32>,
    pub bias: Array1<f32>,
}

#[derive(Serialize, Deserialize)]
pub struct LinearConfig {
    pub inputs: usize,
    pub outputs: usize,
}

impl Linear {
    /// All parameters are `value`.
    pub fn new(inputs: usize, outputs: usize, value: f32) -> Self {
        Self { weight: Array2::from_elem((outputs, inputs), value), bias: Array1::from_elem(outputs, value) }
    }
}

impl Stateful for Linear {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        StateDict::new().with("weight", &self.weight)?.with("bias", &self.bias)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        StateDictMut::new().with("weight", &mut self.weight)?.with("bias", &mut self.bias)
    }
}

impl Model for Linear {
    const KIND: &'static str = "linear";
    type Config = LinearConfig;

    fn config(&self) -> LinearConfig {
        LinearConfig { inputs: self.weight.ncols(), outputs: self.weight.nrows() }
    }

    fn from_config(config: &LinearConfig) -> Result<Self> {
        Ok(Self::new(config.inputs, config.outputs, 0.0))
    }
}
