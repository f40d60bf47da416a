//! Trains a LeNet with its checkpoints on an object store, and kills everything that can be killed.
//!
//! ```text
//! cargo run --release -p tensorkeep-object-store --example remote -- --prove [SEED]
//! cargo run --release -p tensorkeep-object-store --example remote -- s3://bucket/runs/lenet
//! ```
//!
//! The proof runs on a server of its own on loopback; the other form trains on a store of yours,
//! whose credentials come from the environment.

mod prove;
mod trainer;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let seed = |text: Option<&&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let done = match &arguments[..] {
        ["--prove", rest @ ..] => prove::prove(seed(rest.first())),
        ["--server", port, folder] => prove::serve(port, folder),
        ["--child", endpoint, rest @ ..] => return trainer::child(endpoint, seed(rest.first())),
        [url] if !url.starts_with('-') => trainer::train(url).map(|()| true),
        _ => {
            eprintln!("usage: remote --prove [SEED] | remote URL");
            return ExitCode::from(2);
        }
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
