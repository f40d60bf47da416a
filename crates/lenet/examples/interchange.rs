//! A LeNet to and from Python, for its tests: `python/tests/test_rust.py` has the other side.
//!
//! * `interchange make FILE` trains a few steps and saves the run, with images and the logits that
//!   the net gives for them.
//! * `interchange read FILE OUT` loads a model that torch trained, its optimizer's settings as
//!   serde's structs, and saves the logits of the file's images to OUT.

use lenet::{Config, LeNet, Settings, Trainer, data};
use serde::Deserialize;
use tensorkeep::{Checkpoint, Error, ErrorKind, Result, Snapshot};

const USAGE: &str = "interchange make FILE, or interchange read FILE OUT";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", file] => make(file),
        ["read", file, out] => read(file, out),
        _ => Err(Error::new(ErrorKind::Invalid, "arguments").expected(USAGE)),
    }
}

fn make(file: &str) -> Result<()> {
    let digits = data::drawn(7, 0..256)?;
    let mut trainer = Trainer::new(Settings { batch_size: 32, epochs: 2, ..Settings::default() });
    for _ in 0..10 {
        trainer.step(&digits);
    }
    let logits = trainer.net().forward(digits.images());
    trainer.snapshot()?.tensor("images", digits.images())?.tensor("logits", &logits)?.save(file)?;
    Ok(())
}

/// One of `optimizer.state_dict()["param_groups"]`, as torch's AdamW has it.
#[derive(Debug, Deserialize)]
struct Group {
    lr: f64,
    betas: (f64, f64),
    foreach: Option<bool>,
    params: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct AdamW {
    param_groups: Vec<Group>,
}

fn read(file: &str, out: &str) -> Result<()> {
    let checkpoint = Checkpoint::open(file)?;
    let mut net = LeNet::zeros(Config::default())?;
    let report = checkpoint.load_state_dict("model", &mut net)?;
    let optimizer: AdamW = checkpoint.record("optimizer")?;
    let group = &optimizer.param_groups[0];
    let images = checkpoint.tensor("images")?.to_array::<f32, ndarray::Ix4>()?;
    let logits = net.forward(images.view());
    Snapshot::new()
        .tensor("logits", &logits)?
        .record("loaded", &report.loaded)?
        .record("lr", &group.lr)?
        .record("betas", &group.betas)?
        .record("is_foreach", &group.foreach)?
        .record("params", &group.params.len())?
        .record("seed", &checkpoint.record::<u128>("seed")?.to_string())?
        .save(out)?;
    Ok(())
}
