//! A LeNet in burn, its data, and checkpoints in memory.

#![allow(dead_code, reason = "each test file uses some of it")]

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::MseLoss;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use tensorkeep::{Checkpoint, Snapshot, WriteOptions};

/// The layers of crates/lenet.
#[derive(Module, Debug)]
pub struct BurnLeNet {
    pub conv1: Conv2d,
    pub conv2: Conv2d,
    pub fc1: Linear,
    pub fc2: Linear,
    pub fc3: Linear,
    pool: MaxPool2d,
}

impl BurnLeNet {
    pub fn new(device: &Device) -> Self {
        let padded = PaddingConfig2d::Explicit(2, 2, 2, 2);
        Self {
            conv1: Conv2dConfig::new([1, 6], [5, 5]).with_padding(padded).init(device),
            conv2: Conv2dConfig::new([6, 16], [5, 5]).init(device),
            fc1: LinearConfig::new(400, 120).init(device),
            fc2: LinearConfig::new(120, 84).init(device),
            fc3: LinearConfig::new(84, 10).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let pooled = self.pool.forward(relu(self.conv1.forward(images)));
        let pooled = self.pool.forward(relu(self.conv2.forward(pooled)));
        let hidden = relu(self.fc1.forward(pooled.flatten(1, 3)));
        self.fc3.forward(relu(self.fc2.forward(hidden)))
    }
}

/// A linear layer that is square, a batch norm, and another linear layer.
#[derive(Module, Debug)]
pub struct Small {
    pub first: Linear,
    pub norm: BatchNorm,
    pub last: Linear,
}

impl Small {
    /// First weights are drawn from the seed.
    pub fn new(seed: u64, device: &Device) -> Self {
        device.seed(seed);
        let small = Self {
            first: LinearConfig::new(4, 4).init(device),
            norm: BatchNormConfig::new(4).init(device),
            last: LinearConfig::new(4, 3).init(device),
        };
        values(&small); // draws them now
        small
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let [count, width] = input.dims();
        let hidden = self.first.forward(input).reshape([count, width, 1]);
        self.last.forward(self.norm.forward(hidden).reshape([count, width]))
    }

    /// One update on a batch that the seed determines.
    pub fn step(self, optimizer: &mut ModuleOptimizer, seed: u64, device: &Device) -> Self {
        device.seed(seed);
        let input = Tensor::<2>::random([8, 4], Distribution::Default, device);
        let target = Tensor::<2>::random([8, 3], Distribution::Default, device);
        let loss = MseLoss::new().forward(self.forward(input), target, burn::nn::loss::Reduction::Mean);
        let gradients = GradientsParams::from_grads(loss.backward(), &self);
        optimizer.step(0.01, self, gradients)
    }
}

/// All values of all parameters, by name.
pub fn values<M: Module>(module: &M) -> Vec<(String, Vec<u8>)> {
    use burn_store::ModuleSnapshot;
    let tensors = module.collect(None, None, false);
    tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor.to_bytes().unwrap().to_vec())).collect()
}

pub fn stored(snapshot: Snapshot<'_>) -> Checkpoint {
    Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new()).unwrap()).unwrap()
}
