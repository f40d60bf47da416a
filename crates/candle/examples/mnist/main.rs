//! candle's MNIST convnet with checkpoints: trained, killed, resumed.
//!
//! ```sh
//! cargo run --release -p tensorkeep-candle --example mnist                # trains; the same command goes on
//! cargo run --release -p tensorkeep-candle --example mnist -- --prove    # kills it again and again, compares
//! ```

mod net;
mod prove;
mod train;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Trains candle's MNIST convnet.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Kills a run again and again, and compares its end with a run that was never killed
    #[arg(long)]
    prove: bool,
    /// The run's folder
    #[arg(long, value_name = "DIR", default_value = "runs/candle-mnist")]
    run: PathBuf,
    /// MNIST in this folder; without it ../shared/data/mnist if it is there, else drawn digits
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Epochs to train
    #[arg(long, default_value_t = 2)]
    epochs: u64,
    /// Decides first weights, shuffles, dropout and drawn digits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Train as the proof's child: events on stdout, few images
    #[arg(long, hide = true)]
    child: bool,
}

impl Args {
    fn data_folder(&self) -> Option<PathBuf> {
        let beside = PathBuf::from("../shared/data/mnist");
        self.data.clone().or_else(|| beside.is_dir().then_some(beside))
    }
}

/// Errors of candle and of tensorkeep.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

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
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
