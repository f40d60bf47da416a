//! `tensorkeep`: the command line. Owns: flags, exit codes, and what goes where (data on stdout, words on stderr). All it
//! knows of checkpoints it knows through the library's public API.

mod exit;
mod output;
mod target;
mod verbs;

use clap::{Parser, Subcommand};
use exit::Exit;
use std::process::ExitCode;

/// Look at, list and verify tensorkeep checkpoints.
///
/// A TARGET is a checkpoint file, or a run's folder with an optional selector: RUN, RUN@latest, RUN@1200 (a step),
/// RUN@0003-0000001200 (attempt and step), RUN@best:val_loss:min.
#[derive(Parser, Debug)]
#[command(name = "tensorkeep", version, after_help = exit::HELP)]
struct Args {
    /// Machine-readable output: one JSON document on stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// The checkpoints of a run: step, age, size, metrics, why saved, state
    Ls {
        /// The run's folder
        run: String,
    },
    /// One checkpoint: its tensors and records
    Show {
        /// A file, or RUN[@step|latest|best:METRIC:min|max]
        target: String,
    },
    /// Verify every byte of a file, or of every checkpoint of a run
    Verify {
        /// A file, RUN (all its checkpoints), or RUN@… (one)
        target: String,
    },
}

fn main() -> ExitCode {
    // clap's own errors are of usage: 2, as its default is.
    let args = Args::parse();
    let done = match &args.verb {
        Verb::Ls { run } => verbs::ls::run(run, args.json),
        Verb::Show { target } => verbs::show::run(target, args.json),
        Verb::Verify { target } => verbs::verify::run(target, args.json),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => output::fail(&error).into(),
    }
}

/// What a verb gives: an exit code, or an error that has one.
type Done = Result<Exit, tensorkeep::Error>;
