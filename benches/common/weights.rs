//! Values as training produces them: a layer's weights are normal with the layer's own spread,
//! first moments likewise and smaller, second moments are squares. Zeros and counters compress and
//! cache as no weights do, and would measure something else. The shapes are those of the measured
//! models.
#![allow(dead_code, reason = "each bench uses its part")]

use std::f32::consts::TAU;

/// A tensor to be measured: name, shape, elements.
pub struct Weights {
    pub name: String,
    pub shape: Vec<usize>,
    pub elements: Vec<f32>,
}

/// Several tensors.
pub type Model = Vec<Weights>;

/// Bytes of all elements.
pub fn payload(model: &Model) -> u64 {
    model.iter().map(|weights| 4 * weights.elements.len() as u64).sum()
}

/// splitmix64, and from it normal deviates with full mantissas.
pub struct Normal {
    state: u64,
}

impl Normal {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0xD134_2543_DE82_EF95) }
    }

    fn uniform(&mut self) -> (f32, f32) {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mixed = mixed ^ (mixed >> 31);
        // Above 0, so that the logarithm is finite.
        (((mixed >> 40) as f32 + 0.5) / (1 << 24) as f32, (mixed & 0xFF_FFFF) as f32 / (1 << 24) as f32)
    }

    /// `count` deviates with this spread, by Box and Muller.
    pub fn take(&mut self, count: usize, spread: f32) -> Vec<f32> {
        let mut elements = Vec::with_capacity(count + 1);
        while elements.len() < count {
            let (radius, angle) = self.uniform();
            let radius = spread * (-2.0 * radius.ln()).sqrt();
            let (sin, cos) = (angle * TAU).sin_cos();
            elements.extend([radius * sin, radius * cos]);
        }
        elements.truncate(count);
        elements
    }
}

/// The optimizer's tensors beside each weight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Optimizer {
    Momentum,
    Adam,
}

/// Weights of these shapes, with the spread of He initialisation, and the optimizer's tensors.
pub fn model(shapes: &[(String, Vec<usize>)], optimizer: Optimizer) -> Model {
    let mut tensors = Vec::new();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let count: usize = shape.iter().product();
        let fan_in = (count / shape.first().copied().unwrap_or(1)).max(8);
        let spread = (2.0 / fan_in as f32).sqrt();
        let mut normal = Normal::new(i as u64 + 1);
        let mut add = |folder: &str, elements| {
            tensors.push(Weights { name: format!("{folder}.{name}"), shape: shape.clone(), elements });
        };
        add("model", normal.take(count, spread));
        match optimizer {
            Optimizer::Momentum => add("optimizer.momentum", normal.take(count, spread * 1e-2)),
            Optimizer::Adam => {
                add("optimizer.exp_avg", normal.take(count, spread * 1e-2));
                let squares = normal.take(count, spread * 1e-2).iter().map(|value| value * value).collect();
                add("optimizer.exp_avg_sq", squares);
            }
        }
    }
    tensors
}

fn layer(shapes: &mut Vec<(String, Vec<usize>)>, name: &str, shape: &[usize]) {
    shapes.push((format!("{name}.weight"), shape.to_vec()));
    shapes.push((format!("{name}.bias"), vec![shape[0]]));
}

/// LeNet-5 and Adam: 61,706 parameters, 0.74 MB.
pub fn lenet() -> Model {
    let mut shapes = Vec::new();
    layer(&mut shapes, "conv1", &[6, 1, 5, 5]);
    layer(&mut shapes, "conv2", &[16, 6, 5, 5]);
    layer(&mut shapes, "fc1", &[120, 400]);
    layer(&mut shapes, "fc2", &[84, 120]);
    layer(&mut shapes, "fc3", &[10, 84]);
    model(&shapes, Optimizer::Adam)
}

/// The shapes of ResNet-50 and momentum: 25.6 million parameters, 204 MB.
pub fn resnet50() -> Model {
    let mut shapes = Vec::new();
    let mut convolution = |name: String, shape: [usize; 4]| {
        shapes.push((format!("{name}.weight"), shape.to_vec()));
        for part in ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"] {
            shapes.push((format!("{name}.{part}"), vec![shape[0]]));
        }
    };
    convolution("conv1".to_owned(), [64, 3, 7, 7]);
    let mut inputs = 64;
    for (stage, (blocks, width)) in [(3, 64), (4, 128), (6, 256), (3, 512)].into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            convolution(format!("{name}.conv1"), [width, inputs, 1, 1]);
            convolution(format!("{name}.conv2"), [width, width, 3, 3]);
            convolution(format!("{name}.conv3"), [width * 4, width, 1, 1]);
            if block == 0 {
                convolution(format!("{name}.downsample"), [width * 4, inputs, 1, 1]);
            }
            inputs = width * 4;
        }
    }
    layer(&mut shapes, "fc", &[1000, 2048]);
    model(&shapes, Optimizer::Momentum)
}

/// The shapes of GPT-2 medium (width 1024, vocabulary 50,257) with `layers` of its 24 layers, and
/// Adam. 8 layers are 153 million parameters, 1.84 GB.
pub fn gpt2(layers: usize) -> Model {
    let mut shapes =
        vec![("wte.weight".to_owned(), vec![50_257, 1024]), ("wpe.weight".to_owned(), vec![1024, 1024])];
    for block in 0..layers {
        for (name, shape) in [
            ("ln_1", &[1024][..]),
            ("attn.c_attn", &[3072, 1024]),
            ("attn.c_proj", &[1024, 1024]),
            ("ln_2", &[1024]),
            ("mlp.c_fc", &[4096, 1024]),
            ("mlp.c_proj", &[1024, 4096]),
        ] {
            layer(&mut shapes, &format!("h.{block}.{name}"), shape);
        }
    }
    layer(&mut shapes, "ln_f", &[1024]);
    model(&shapes, Optimizer::Adam)
}

/// Very many small tensors: 64 floats each.
pub fn many(count: usize) -> Model {
    let name = |i: usize| format!("model.layers.{}.experts.{}.weight", i / 1000, i % 1000);
    let mut normal = Normal::new(7);
    (0..count)
        .map(|i| Weights { name: name(i), shape: vec![8, 8], elements: normal.take(64, 0.05) })
        .collect()
}
