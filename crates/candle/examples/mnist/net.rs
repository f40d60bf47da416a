//! The convnet of candle's MNIST example, and its trainer: a step, and the state of a run.

use crate::Result;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Conv2d, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap, conv2d, linear, loss, ops};
use lenet::Dataset;
use tensorkeep::{Checkpoint, Progress, Snapshot, Stateful};
use tensorkeep_candle::{AdamW, Dropout, Generator, Shuffle, Vars, seeded_var_builder};

pub struct ConvNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    dropout: Dropout,
}

impl ConvNet {
    pub fn new(builder: &VarBuilder<'_>, dropout: Dropout) -> candle_core::Result<Self> {
        Ok(Self {
            conv1: conv2d(1, 32, 5, Default::default(), builder.pp("conv1"))?,
            conv2: conv2d(32, 64, 5, Default::default(), builder.pp("conv2"))?,
            fc1: linear(1024, 1024, builder.pp("fc1"))?,
            fc2: linear(1024, 10, builder.pp("fc2"))?,
            dropout,
        })
    }

    pub fn forward(&self, images: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let pooled = images.apply(&self.conv1)?.max_pool2d(2)?.apply(&self.conv2)?.max_pool2d(2)?;
        let hidden = pooled.flatten_from(1)?.apply(&self.fc1)?.relu()?;
        self.dropout.forward(&hidden, train)?.apply(&self.fc2)
    }
}

/// Everything that the next step reads, and that a checkpoint has to hold.
#[derive(Stateful)]
struct State {
    model: Vars,
    optimizer: AdamW,
    dropout: Generator,
    data: Shuffle,
}

pub struct Trainer {
    net: ConvNet,
    state: State,
    batch: usize,
    pub progress: Progress,
}

impl Trainer {
    pub fn new(seed: u64, samples: usize, batch: usize) -> Result<Self> {
        let vars = VarMap::new();
        let dropout = Generator::seeded(seed);
        let builder = seeded_var_builder(&vars, &Generator::seeded(seed), DType::F32, &Device::Cpu);
        let net = ConvNet::new(&builder, Dropout::new(0.5, &dropout))?;
        let state = State {
            optimizer: AdamW::named(&vars, ParamsAdamW { lr: 1e-3, ..Default::default() })?,
            model: Vars::of(&vars),
            dropout,
            data: Shuffle::new(u32::try_from(samples)?, &Generator::seeded(seed + 1)),
        };
        Ok(Self { net, state, batch, progress: Progress::default() })
    }

    /// Takes everything over from a checkpoint, or nothing.
    pub fn restore(&mut self, checkpoint: &Checkpoint, progress: Progress) -> Result<()> {
        checkpoint.load_state_dict("", &mut self.state)?;
        self.progress = progress;
        Ok(())
    }

    pub fn snapshot(&self) -> tensorkeep::Result<Snapshot<'_>> {
        Ok(Snapshot::new().state_dict("", self.state.state_dict()?)?.progress(self.progress))
    }

    /// One update, and the loss before it.
    pub fn step(&mut self, data: &Dataset) -> Result<f32> {
        let indices = self.state.data.next_batch(self.batch);
        let (images, labels) = batch(data, &indices)?;
        let loss = loss::cross_entropy(&self.net.forward(&images, true)?, &labels)?;
        self.state.optimizer.backward_step(&loss)?;
        self.progress.step += 1;
        self.progress.epoch = self.state.data.epoch();
        Ok(loss.to_scalar()?)
    }

    /// Share of the images whose class is found.
    pub fn accuracy(&self, data: &Dataset) -> Result<f64> {
        let mut right = 0.0;
        for indices in Vec::from_iter(0..data.len() as u32).chunks(250) {
            let (images, labels) = batch(data, indices)?;
            let classes = ops::softmax(&self.net.forward(&images, false)?, D::Minus1)?.argmax(D::Minus1)?;
            right += f64::from(classes.eq(&labels)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(right / data.len() as f64)
    }
}

fn batch(data: &Dataset, indices: &[u32]) -> candle_core::Result<(Tensor, Tensor)> {
    let (images, labels) = data.batch(indices);
    let shape = images.dim();
    let images = Tensor::from_vec(images.into_raw_vec_and_offset().0, shape, &Device::Cpu)?;
    let count = labels.len();
    let labels: Vec<u32> = labels.into_iter().map(u32::from).collect();
    Ok((images, Tensor::from_vec(labels, count, &Device::Cpu)?))
}
