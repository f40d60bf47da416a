//! The nets whose state is compressed: two small ones with Adam, one with dead units and one
//! without.

use lenet::data::{self, Dataset};
use lenet::layers::{Linear, softmax_cross_entropy};
use lenet::net::{Config, LeNet};
use lenet::optim::{Optimizer, OptimizerKind};
use lenet::rng::Rng;
use ndarray::{Array2, ArrayViewD, ArrayViewMutD};
use std::time::Instant;
use tensorkeep::{Checkpoint, Snapshot, Stateful, WriteOptions};

const STEPS: usize = 400;
const BATCH: usize = 32;
const LR: f64 = 1e-3;

/// f32 values, each kind in one row.
pub struct Trained {
    pub weights: Vec<f32>,
    /// Adam's first moments, as in a checkpoint.
    pub m: Vec<u8>,
    /// Adam's second moments.
    pub v: Vec<u8>,
}

impl Trained {
    fn new<'p>(parameters: impl IntoIterator<Item = ArrayViewD<'p, f32>>, optimizer: &Optimizer) -> Self {
        let snapshot = Snapshot::new().state_dict("optimizer", optimizer.state_dict().unwrap()).unwrap();
        let state = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new()).unwrap()).unwrap();
        let moments = |kind: &str| {
            let wanted = state.names().filter(|name| name.contains(kind));
            wanted.flat_map(|name| state.tensor(name).unwrap().bytes().to_vec()).collect()
        };
        let weights = parameters.into_iter().flat_map(|values| values.into_iter().copied()).collect();
        Self { weights, m: moments("exp_avg."), v: moments("exp_avg_sq.") }
    }
}

/// Takes [`STEPS`] steps, each of which returns its loss, and checks that the net has learned.
fn train(what: &str, at_most: f32, step: impl FnMut(usize) -> f32) {
    let start = Instant::now();
    let losses: Vec<f32> = (0..STEPS).map(step).collect();
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let (first, last) = (mean(&losses[..20]), mean(&losses[STEPS - 20..]));
    assert!(last < first * at_most, "nothing was learned: loss {first} to {last}");
    println!("trained {what} {STEPS} steps in {:.1?}: loss {first:.2} to {last:.3}", start.elapsed());
}

/// A LeNet of 1.4 million parameters on drawn digits. Behind ReLU many of its units never fire, so
/// that 8 % of its moments are 0 and more are next to it.
pub fn lenet() -> Trained {
    let config = Config { conv: [16, 32], hidden: [1024, 512], ..Config::default() };
    let mut net = LeNet::new(config, &mut Rng::new(1)).unwrap();
    let mut optimizer = Optimizer::new(OptimizerKind::ADAM, LR, net.parameters());
    let digits: Dataset = data::drawn(1, 0..(STEPS * BATCH) as u64).unwrap();
    train("a LeNet", 0.25, |step| {
        let indices: Vec<u32> = (0..BATCH as u32).map(|i| (step * BATCH) as u32 + i).collect();
        let (images, labels) = digits.batch(&indices);
        let (loss, gradients) = net.loss_and_gradient(images.view(), &labels);
        optimizer.step(LR, net.parameters_mut(), gradients.parameters());
        loss
    });
    Trained::new(net.parameters().into_iter().map(|(_, values)| values), &optimizer)
}

/// The length of the language model's context, in bytes.
const CONTEXT: usize = 24;
/// Numbers for each of them.
const EMBEDDING: usize = 32;
const HIDDEN: usize = 1024;
/// Bytes that it knows: ASCII.
const VOCABULARY: usize = 128;

/// The next byte of text from those before it: embeddings, one hidden layer of tanh, softmax.
/// Bengio et al., "A Neural Probabilistic Language Model", JMLR 3, 2003, without the direct
/// connections.
struct LanguageModel {
    embedding: Array2<f32>,
    hidden: Linear,
    output: Linear,
}

impl LanguageModel {
    fn new(rng: &mut Rng) -> Self {
        let mut normal = |rows: usize, columns: usize, spread: f64| {
            Array2::from_shape_simple_fn((rows, columns), || (rng.normal() * spread) as f32)
        };
        let inputs = CONTEXT * EMBEDDING;
        let embedding = normal(VOCABULARY, EMBEDDING, 1.0);
        let mut linear = |outputs: usize, inputs: usize| Linear {
            weight: normal(outputs, inputs, (inputs as f64).powf(-0.5)),
            bias: normal(1, outputs, 0.01).remove_axis(ndarray::Axis(0)),
        };
        Self { embedding, hidden: linear(HIDDEN, inputs), output: linear(VOCABULARY, HIDDEN) }
    }

    fn parameters(&self) -> [(&'static str, ArrayViewD<'_, f32>); 5] {
        [
            ("embedding.weight", self.embedding.view().into_dyn()),
            ("hidden.weight", self.hidden.weight.view().into_dyn()),
            ("hidden.bias", self.hidden.bias.view().into_dyn()),
            ("output.weight", self.output.weight.view().into_dyn()),
            ("output.bias", self.output.bias.view().into_dyn()),
        ]
    }

    fn parameters_mut(&mut self) -> [(&'static str, ArrayViewMutD<'_, f32>); 5] {
        [
            ("embedding.weight", self.embedding.view_mut().into_dyn()),
            ("hidden.weight", self.hidden.weight.view_mut().into_dyn()),
            ("hidden.bias", self.hidden.bias.view_mut().into_dyn()),
            ("output.weight", self.output.weight.view_mut().into_dyn()),
            ("output.bias", self.output.bias.view_mut().into_dyn()),
        ]
    }

    /// Of windows of [`CONTEXT`] bytes and the byte that follows.
    fn loss_and_gradient(&self, windows: &[&[u8]]) -> (f32, Self) {
        let input = Array2::from_shape_fn((windows.len(), CONTEXT * EMBEDDING), |(sample, column)| {
            self.embedding[(usize::from(windows[sample][column / EMBEDDING]), column % EMBEDDING)]
        });
        let hidden = self.hidden.forward(input.view()).mapv_into(f32::tanh);
        let next: Vec<u8> = windows.iter().map(|window| window[CONTEXT]).collect();
        let (loss, of_logits) = softmax_cross_entropy(&self.output.forward(hidden.view()), &next);
        let of_hidden = self.output.input_gradient(&of_logits) * hidden.mapv(|tanh| 1.0 - tanh * tanh);
        let of_input = self.hidden.input_gradient(&of_hidden);
        let mut embedding = Array2::zeros(self.embedding.raw_dim());
        for ((sample, column), gradient) in of_input.indexed_iter() {
            embedding[(usize::from(windows[sample][column / EMBEDDING]), column % EMBEDDING)] += gradient;
        }
        let gradient = Self {
            embedding,
            hidden: self.hidden.parameter_gradient(input.view(), &of_hidden),
            output: self.output.parameter_gradient(hidden.view(), &of_logits),
        };
        (loss, gradient)
    }
}

/// A language model of 0.9 million parameters on this project's own prose. All its units are alive,
/// as those of a transformer are: its moments are dense.
pub fn language_model() -> Trained {
    let prose = [
        include_str!("../../SPEC.md"),
        include_str!("../../ARCHITECTURE.md"),
        include_str!("../../README.md"),
    ];
    let text: Vec<u8> = prose.concat().bytes().filter(u8::is_ascii).collect();
    let mut rng = Rng::new(2);
    let mut model = LanguageModel::new(&mut rng);
    let mut optimizer = Optimizer::new(OptimizerKind::ADAM, LR, model.parameters());
    train("a language model", 0.75, |_| {
        let start = |_| rng.below((text.len() - CONTEXT) as u64) as usize;
        let windows: Vec<&[u8]> = (0..BATCH).map(start).map(|start| &text[start..=start + CONTEXT]).collect();
        let (loss, gradient) = model.loss_and_gradient(&windows);
        optimizer.step(LR, model.parameters_mut(), gradient.parameters());
        loss
    });
    Trained::new(model.parameters().into_iter().map(|(_, values)| values), &optimizer)
}
