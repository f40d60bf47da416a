//! A snapshot with every kind of tensor.

use tensorkeep::{Codec, Dtype, Progress, Snapshot, Tensor};

/// All ways to store chunks: tests and fuzzers go through every one. A new codec is one more line
/// here.
pub const CODECS: &[Codec] = &[Codec::Raw, Codec::Balanced, Codec::Max];

/// Elements that no codec takes for noise or for constants.
pub fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin() * 0.05).collect()
}

/// Small and large, empty and scalar, aliased and constant tensors, and records.
pub struct Zoo {
    pub large: Vec<f32>,
    pub small: Vec<i16>,
    pub constant: Vec<f64>,
}

impl Zoo {
    pub fn new() -> Self {
        Self { large: wave(100_000), small: (0..37).collect(), constant: vec![0.25; 20_000] }
    }

    pub fn snapshot(&self) -> Snapshot<'_> {
        let mut snapshot = Snapshot::new();
        snapshot = snapshot.tensor("large", ([100, 1000], &self.large)).unwrap();
        snapshot = snapshot.tensor("tied", ([100, 1000], &self.large)).unwrap();
        snapshot = snapshot.tensor("small", &self.small).unwrap();
        snapshot = snapshot.tensor("constant", &self.constant).unwrap();
        snapshot = snapshot.tensor("empty", Tensor::new(Dtype::Bf16, &[3, 0, 2], &[]).unwrap()).unwrap();
        snapshot = snapshot.tensor("scalar", Tensor::new(Dtype::Bool, &[], &[1]).unwrap()).unwrap();
        snapshot = snapshot.tensor("fp8", Tensor::new(Dtype::F8E4M3Fn, &[3], &[1, 2, 255]).unwrap()).unwrap();
        snapshot = snapshot.record("optimizer", &("adam", 0.001, vec![0.9, 0.999])).unwrap();
        snapshot = snapshot.metric("loss", 0.125).unwrap().metadata("run", "zoo").unwrap();
        snapshot = snapshot.progress(Progress::new(1200).epoch(3));
        snapshot
    }
}
