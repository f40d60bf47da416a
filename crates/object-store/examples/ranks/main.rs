//! Trains a LeNet on several processes that save one checkpoint together, and kills and stops them
//! at random moments, rank 0 most of all.
//!
//! ```text
//! cargo run --release -p tensorkeep-object-store --example ranks -- --prove [--ranks 8] [--kills 8] [--s3] [--through-store]
//! ```
//!
//! The proof runs in a folder of its own, with `--s3` on a server of its own on loopback that tells
//! requests to slow down; with `--through-store` the store's ranks meet by the run's storage alone.
//! Exit code 1: a promise is broken.

mod fates;
mod prove;
mod rank;
mod state;

use std::process::ExitCode;

/// What the command line says, by the names of its options.
#[derive(Clone, Debug)]
pub struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|there| there == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|there| there == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    if arguments.has("--rank") {
        return rank::run(&arguments);
    }
    if !arguments.has("--prove") {
        eprintln!("usage: ranks --prove [--ranks N] [--kills N] [--seed N] [--s3] [--through-store]");
        return ExitCode::from(2);
    }
    match prove::prove(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("A PROMISE IS BROKEN: {error}");
            ExitCode::FAILURE
        }
    }
}
