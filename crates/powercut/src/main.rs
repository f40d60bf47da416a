//! Power cuts on a real file system: a trainer saves in a loop-mounted image, the power goes at a random moment, the
//! image is mounted again and the oracle asked whether everything that the trainer was told is true.
//!
//! `powercut --fs ext4 --cuts 100 --json report.json` exits 1 when a promise was broken, and 0 with `"skipped"` in the
//! report where it cannot run: it needs root, loop devices and the file system's `mkfs`.

mod disk;
mod run;
mod shutdown;
mod subject;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use subject::Subject;

/// What is cut, and how often.
#[derive(Clone, Debug, Parser)]
#[command(about)]
struct Options {
    /// File system of the image.
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Fs,
    /// How many cuts.
    #[arg(long, default_value_t = 100)]
    cuts: u64,
    /// Options of mount, such as data=writeback,nobarrier.
    #[arg(long, default_value = "")]
    mount_options: String,
    /// Seed of the moments; from the clock where missing.
    #[arg(long)]
    seed: Option<u64>,
    /// Who saves.
    #[arg(long, value_enum, default_value = "tensorkeep")]
    subject: Subject,
    /// Where the report goes, besides standard output.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where images are made: fast storage with a few hundred MiB.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// The latest moment of a cut, in milliseconds after the trainer was started.
    #[arg(long, default_value_t = 60)]
    max_ms: u64,
    /// Trains in this folder, as the process that is cut.
    #[arg(long, hide = true)]
    train: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fs {
    Ext4,
    Xfs,
    Btrfs,
}

impl Fs {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

/// Errors of the harness itself, for people: it is a program for developers.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(folder) = &options.train {
        return match options.subject.train(folder) {
            Ok(()) => ExitCode::SUCCESS,
            // The power went: what a trainer sees of that is an error.
            Err(_) => ExitCode::from(3),
        };
    }
    let report = match disk::why_not(options.fs) {
        Some(reason) => json!({ "fs": options.fs.name(), "skipped": reason }),
        None => match run::run(&options) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("powercut: {error}");
                return ExitCode::from(2);
            }
        },
    };
    finish(&options, &report)
}

fn finish(options: &Options, report: &Value) -> ExitCode {
    println!("{report}");
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, format!("{report:#}\n"))
    {
        eprintln!("powercut: {}: {error}", path.display());
        return ExitCode::from(2);
    }
    let broken = report["broken"].as_u64().unwrap_or(0) > 0;
    // A peer that loses data is a row of a table; tensorkeep that does is a failure.
    if broken && options.subject == Subject::Tensorkeep { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
