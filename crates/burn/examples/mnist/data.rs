//! MNIST or drawn digits for burn's loaders.

use crate::{Args, Result};
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lenet::data;
use std::io::Write;

#[derive(Clone, Debug)]
pub struct Sample {
    image: Vec<f32>,
    label: u8,
}

#[derive(Clone, Debug)]
pub struct Batch {
    pub images: Tensor<4>,
    pub targets: Tensor<1, Int>,
}

/// Makes batches, and says so where a parent counts them.
pub struct Batches {
    pub says: bool,
}

impl Batcher<Sample, Batch> for Batches {
    fn batch(&self, items: Vec<Sample>, device: &Device) -> Batch {
        if self.says {
            let mut out = std::io::stdout().lock();
            // The parent is gone only when the proof is over.
            let _ = writeln!(out, "\nbatch").and_then(|()| out.flush());
        }
        let count = items.len();
        let labels: Vec<i64> = items.iter().map(|sample| i64::from(sample.label)).collect();
        let pixels: Vec<f32> = items.into_iter().flat_map(|sample| sample.image).collect();
        Batch {
            images: Tensor::from_data(TensorData::new(pixels, [count, 1, 28, 28]), device),
            targets: Tensor::from_data(TensorData::new(labels, [count]), device),
        }
    }
}

/// To train and to validate.
pub fn samples(args: &Args) -> Result<(InMemDataset<Sample>, InMemDataset<Sample>)> {
    let count = args.images + (args.images / 4).max(1);
    let all = match args.data_folder() {
        Some(folder) => data::mnist(&folder)?,
        None => data::drawn(args.seed, 0..count as u64 + 1)?,
    };
    let images = all.images();
    let mut samples: Vec<Sample> = all
        .labels()
        .iter()
        .enumerate()
        .take(count)
        .map(|(i, &label)| {
            let image = images.index_axis(ndarray::Axis(0), i).iter().copied().collect();
            Sample { image, label }
        })
        .collect();
    let valid = samples.split_off(args.images.min(samples.len() / 2 + samples.len() / 4));
    Ok((InMemDataset::new(samples), InMemDataset::new(valid)))
}
