//! A net with one list of names, an optimizer through serde, and a whole model rebuilt from its
//! file.
//!
//! ```text
//! cargo run --example derive --features derive
//! ```

use serde::{Deserialize, Serialize};
use tensorkeep::{Checkpoint, Model, Result, Snapshot, Stateful};

#[derive(Stateful, Debug, PartialEq)]
struct Linear {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

#[derive(Clone, Serialize, Deserialize, Debug, PartialEq)]
struct Sizes {
    width: usize,
    depth: usize,
}

#[derive(Stateful, Model, Debug, PartialEq)]
#[model(kind = "mlp", build = Mlp::zeros)]
struct Mlp {
    #[model(config)]
    sizes: Sizes,
    layers: Vec<Linear>,
    head: Linear,
    #[stateful(skip)]
    training: bool,
}

impl Mlp {
    fn zeros(sizes: &Sizes) -> Result<Self> {
        let hidden =
            || Linear { weight: vec![0.0; sizes.width * sizes.width], bias: Some(vec![0.0; sizes.width]) };
        let layers = (0..sizes.depth).map(|_| hidden()).collect();
        let head = Linear { weight: vec![0.0; sizes.width], bias: None };
        Ok(Self { sizes: sizes.clone(), layers, head, training: false })
    }
}

/// Only serde's derives: large arrays become tensors, the rest a record.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Adam {
    lr: f64,
    step: u64,
    moments: Vec<[Vec<f32>; 2]>,
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join("tensorkeep-derive.tkeep");
    let mut net = Mlp::zeros(&Sizes { width: 32, depth: 2 })?;
    net.layers[1].weight.fill(0.5);
    let adam = Adam { lr: 1e-3, step: 100, moments: vec![[vec![0.1; 1024], vec![0.2; 1024]]; 2] };
    Snapshot::new().model(&net)?.state("optimizer", &adam)?.save(&path)?;

    let checkpoint = Checkpoint::open(&path)?;
    for info in checkpoint.tensors() {
        println!("{:<24} {:?}", info.name, info.shape);
    }
    assert_eq!(checkpoint.build::<Mlp>()?, net);
    assert_eq!(checkpoint.state::<Adam>("optimizer")?, adam);
    Ok(())
}
