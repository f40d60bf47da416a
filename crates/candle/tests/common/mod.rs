//! A small model of every kind of layer, and checkpoints in memory.

#![allow(dead_code, reason = "each test file uses some of it")]

use candle_core::{DType, Device, Tensor};
use candle_nn::{BatchNorm, Conv2d, Linear, ModuleT, VarMap, batch_norm, conv2d, linear};
use tensorkeep::{Checkpoint, Snapshot, WriteOptions};
use tensorkeep_candle::{Generator, seeded_var_builder};

pub const CPU: &Device = &Device::Cpu;

/// A convolution, a batch norm and a linear layer.
pub struct Net {
    pub vars: VarMap,
    conv: Conv2d,
    norm: BatchNorm,
    fc: Linear,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let vars = VarMap::new();
        let builder = seeded_var_builder(&vars, &Generator::seeded(seed), DType::F32, CPU);
        Self {
            conv: conv2d(1, 3, 3, Default::default(), builder.pp("conv")).unwrap(),
            norm: batch_norm(3, 1e-5, builder.pp("norm")).unwrap(),
            fc: linear(3 * 4 * 4, 5, builder.pp("fc")).unwrap(),
            vars,
        }
    }

    pub fn forward(&self, images: &Tensor, train: bool) -> Tensor {
        let features = images.apply(&self.conv).unwrap();
        let features = self.norm.forward_t(&features, train).unwrap().relu().unwrap();
        features.flatten_from(1).unwrap().apply(&self.fc).unwrap()
    }

    /// A loss of a batch that the seed determines.
    pub fn loss(&self, seed: u64) -> Tensor {
        let images = Tensor::from_vec(Generator::seeded(seed).uniform(8 * 36), (8, 1, 6, 6), CPU).unwrap();
        let labels = Tensor::from_vec((0..8_u32).map(|i| i % 5).collect::<Vec<_>>(), 8, CPU).unwrap();
        candle_nn::loss::cross_entropy(&self.forward(&images, true), &labels).unwrap()
    }
}

pub fn stored(snapshot: Snapshot<'_>) -> Checkpoint {
    Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new()).unwrap()).unwrap()
}

/// All values of all variables, by name.
pub fn values(vars: &VarMap) -> Vec<(String, Vec<f32>)> {
    let named = tensorkeep_candle::Vars::of(vars).named();
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    named.iter().map(|(name, var)| (name.clone(), flat(var))).collect()
}
