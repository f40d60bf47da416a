//! Trains a LeNet that is stopped or killed, and resumes bit for bit.
//!
//! ```text
//! cargo run --release --example lenet -- --prove            kill a training run 24 times, compare it with one never killed
//! cargo run --release --example lenet -- --run runs/lenet   train; start it again to resume; Ctrl-C saves and ends
//! ```

mod prove;
mod train;

use clap::{Parser, ValueEnum};
use lenet::{OptimizerKind, Settings};
use std::path::PathBuf;
use std::process::ExitCode;

/// Trains LeNet-5 with checkpoints, or proves that kills lose nothing.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// Kill a training run at random moments until it is done, and compare it with one that was
    /// never killed
    #[arg(long)]
    prove: bool,
    /// Folder of the run's checkpoints; resumed if there are any
    #[arg(long, value_name = "DIR", default_value = "runs/lenet")]
    run: PathBuf,
    /// Folder with MNIST's IDX files, gzipped or not; without it digits are drawn
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Epochs to train
    #[arg(long, default_value_t = 5)]
    epochs: u64,
    /// Decides first weights, shuffles and drawn digits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Optimizer
    #[arg(long, value_enum, default_value_t = OptimizerName::Adam)]
    optimizer: OptimizerName,
    /// Steps between two checkpoints
    #[arg(long, value_name = "STEPS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Train as the proof's child: events on stdout, small data
    #[arg(long, hide = true)]
    child: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adam,
}

impl Args {
    fn training(&self) -> Settings {
        let (optimizer, lr) = match self.optimizer {
            OptimizerName::Sgd => (OptimizerKind::SGD, 0.02),
            OptimizerName::Adam => (OptimizerKind::ADAM, 2e-3),
        };
        let scheduler = lenet::Schedule::Cosine { t_max: self.epochs.max(1), eta_min: 1e-5 };
        Settings { seed: self.seed, optimizer, lr, epochs: self.epochs, scheduler, ..Settings::default() }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.child {
        prove::child(&args).map(|()| true)
    } else if args.prove {
        prove::prove(&args)
    } else {
        train::train(&args).map(|()| true)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}
