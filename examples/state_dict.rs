//! Parameters only: saves a state dict, prints its keys, and loads it into a new net with other
//! values.
//!
//! ```text
//! cargo run --release --example state_dict
//! ```

use lenet::{Config, LeNet, Rng};
use tensorkeep::{Checkpoint, Result, Snapshot, Stateful};

fn main() -> Result<()> {
    let path = std::env::temp_dir().join("tensorkeep-state-dict.tkeep");
    let trained = LeNet::new(Config::default(), &mut Rng::new(1))?;
    let snapshot = Snapshot::new().state_dict("", trained.state_dict()?)?;
    snapshot.save(&path)?;

    let checkpoint = Checkpoint::open(&path)?;
    for info in checkpoint.tensors() {
        println!("{:<14} {:?}", info.name, info.shape);
    }
    let mut net = LeNet::new(Config::default(), &mut Rng::new(2))?;
    println!("first kernel of the new net:\n{}", first_kernel(&net));
    let report = checkpoint.load_state_dict("", &mut net)?;
    println!("after loading {} tensors:\n{}", report.loaded.len(), first_kernel(&net));
    assert!(net == trained, "the new net is the saved one, bit for bit");
    Ok(())
}

fn first_kernel(net: &LeNet) -> String {
    let parameters = net.parameters();
    let (_, weight) = &parameters[0];
    let kernel: Vec<f32> = weight.iter().take(25).copied().collect();
    let row = |row: &[f32]| row.iter().map(|value| format!("{value:8.4}")).collect::<Vec<_>>().join(" ");
    kernel.chunks(5).map(row).collect::<Vec<_>>().join("\n")
}
