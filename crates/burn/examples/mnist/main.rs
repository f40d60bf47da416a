//! A convnet on MNIST by burn's learner with checkpoints: trained, killed, resumed.
//!
//! ```sh
//! cargo run --release -p tensorkeep-burn --example mnist                # trains; the same command goes on
//! cargo run --release -p tensorkeep-burn --example mnist -- --prove    # kills it again and again, compares
//! ```

mod data;
mod net;
mod prove;

use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::LossMetric;
use burn::train::{Learner, SupervisedTraining};
use clap::Parser;
use data::{Batches, samples};
use net::ConvNet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tensorkeep::{Every, Keep, Mode, StoreOptions};
use tensorkeep_burn::{Run, ShuffledLoader};

/// Trains a convnet on MNIST.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Kills a run again and again, and compares its end with a run that was never killed
    #[arg(long)]
    prove: bool,
    /// The run's folder
    #[arg(long, value_name = "DIR", default_value = "runs/burn-mnist")]
    run: PathBuf,
    /// MNIST in this folder; without it ../shared/data/mnist if it is there, else drawn digits
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Epochs to train
    #[arg(long, default_value_t = 4)]
    epochs: usize,
    /// Decides first weights, shuffles, dropout and drawn digits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images to train on; a quarter as many to validate
    #[arg(long, default_value_t = 4_000)]
    images: usize,
    /// Train as the proof's child: a line on stdout for each batch
    #[arg(long, hide = true)]
    child: bool,
}

impl Args {
    fn data_folder(&self) -> Option<PathBuf> {
        let beside = PathBuf::from("../shared/data/mnist");
        self.data.clone().or_else(|| beside.is_dir().then_some(beside))
    }
}

/// Errors of burn and of tensorkeep.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.prove { prove::prove(&args) } else { open(&args).and_then(|run| train(&args, run)) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> StoreOptions {
    StoreOptions::new().save(Every::epochs(1).or_on_signal()).keep(Keep::last(2).or(Keep::best(
        "valid_loss",
        Mode::Min,
        1,
    )))
}

fn open(args: &Args) -> Result<Run> {
    Ok(Run::open(&args.run, options())?)
}

/// Trains to the end, or to a signal. False when burn stopped on an error.
fn train(args: &Args, run: Run) -> Result<bool> {
    let device = Device::default();
    device.seed(args.seed);
    let (train, valid) = samples(args)?;
    let batches = || Batches { says: args.child };
    let completed = run.completed_epochs();
    let train = ShuffledLoader::new(train, batches(), 32, args.seed, completed);
    let valid = burn::data::dataloader::DataLoaderBuilder::new(batches()).batch_size(100).build(valid);

    let scheduler = ExponentialLrSchedulerConfig::new(1e-3, 0.999).init()?;
    let adam = AdamConfig::new();
    let learner = Learner::new(ConvNet::new(&device.autodiff()), adam.init(), scheduler);
    let training = SupervisedTraining::new(logs(&args.run), Arc::new(train), valid)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .with_application_logger(None)
        .num_epochs(args.epochs);
    let training = run.attach(training, &learner, &adam)?; // instead of `.with_default_checkpointers()`
    if completed < args.epochs as u64 {
        let result = training.launch(learner);
        if let Some(error) = result.error {
            eprintln!("error: {error}");
            return Ok(false);
        }
    } else {
        drop((training, learner));
    }
    run.close()?;
    Ok(true)
}

/// burn's own logs, beside the run.
fn logs(run: &Path) -> PathBuf {
    run.with_extension("burn-logs")
}
