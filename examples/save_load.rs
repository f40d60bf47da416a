//! A whole model, saved and loaded: its architecture travels with its weights, so that loading
//! names no sizes.
//!
//! ```text
//! cargo run --release --example save_load
//! ```

use lenet::{Config, LeNet, Rng};
use tensorkeep::{Checkpoint, Result, Snapshot};

fn main() -> Result<()> {
    let path = std::env::temp_dir().join("tensorkeep-save-load.tkeep");
    let net = LeNet::new(Config::default(), &mut Rng::new(0))?;

    let snapshot = Snapshot::new().model(&net)?.metadata("trained on", "nothing yet")?;
    let written = snapshot.save(&path)?;
    println!("saved {} tensors, {} bytes, to {}", written.tensors, written.byte_len, path.display());

    let checkpoint = Checkpoint::open(&path)?;
    let loaded: LeNet = checkpoint.build()?;
    println!("loaded a {}:\n{loaded}", checkpoint.inspect().model_kind()?);
    assert!(loaded == net, "the loaded net is the saved one, bit for bit");
    Ok(())
}
