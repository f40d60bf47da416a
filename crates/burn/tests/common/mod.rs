//! A LeNet in burn, its data, and checkpoints in memory.

#![allow(dead_code, reason = "each test file uses some of it")]

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::MseLoss;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
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

/// Numbers of a seed, below 1. burn's own generator is the process's: tests that run at the same
/// time would draw each other's numbers.
fn numbers<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let mut rng = lenet::Rng::new(seed);
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| rng.uniform_f32()).collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

impl Small {
    /// First weights are functions of the seed.
    pub fn new(seed: u64, device: &Device) -> Self {
        let linear = |seed, out| {
            let zeros = LinearConfig::new(4, out).with_initializer(Initializer::Zeros);
            let weight = numbers(seed, [4, out], device) - 0.5;
            Linear { weight: Param::from_tensor(weight), ..zeros.init(device) }
        };
        let norm = BatchNormConfig::new(4).init(device);
        Self { first: linear(seed, 4), norm, last: linear(seed ^ 1 << 32, 3) }
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let [count, width] = input.dims();
        let hidden = self.first.forward(input).reshape([count, width, 1]);
        self.last.forward(self.norm.forward(hidden).reshape([count, width]))
    }

    /// One update on a batch that the seed determines.
    pub fn step(self, optimizer: &mut ModuleOptimizer, seed: u64, device: &Device) -> Self {
        let input = numbers(seed, [8, 4], device);
        let target = numbers(seed ^ 1 << 32, [8, 3], device);
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
