//! The command line of tensorkeep as a library. Owns: flags, exit codes, and what goes where (data on stdout, words on
//! stderr). All it knows of checkpoints it knows through the library's public API. For other programs there is
//! [`report`]: a run as one HTML page.

mod args;
mod compare;
mod exit;
mod lanes;
mod mapped;
mod names;
mod numbers;
mod opened;
mod output;
mod parallel;
mod place;
mod records;
pub mod report;
mod stats;
mod target;
mod tree;
mod verbs;

use exit::Exit;
use std::process::ExitCode;

/// Runs the command line with the process's arguments.
pub fn main() -> ExitCode {
    // clap's own errors are of usage: 2, as its default is.
    let args = <args::Args as clap::Parser>::parse();
    match verbs::run(&args) {
        Ok(exit) => exit.into(),
        Err(error) => output::fail(&error).into(),
    }
}

/// What a verb gives: an exit code, or an error that has one.
type Done = Result<Exit, tensorkeep::Error>;
