//! Power cuts on a real file system: a trainer saves, the power goes, the disk is mounted again and
//! the oracle checks every acknowledgement that the trainer received. Three kinds of fault:
//!
//! * `powercut --fs ext4 --cuts 100`: a live file system is cut at a random moment ([`cuts`]);
//! * `powercut replay --fs ext4 --states 1000`: every block write is logged, and disks that a cut
//!   may have left are built from the log ([`blocks::replay`]);
//! * `powercut eio --fs ext4 --faults 100`: one block write fails, and the power stays
//!   ([`blocks::eio`]).
//!
//! Exits 1 when a promise was broken, and 0 with `"skipped"` in the report where it cannot run: it
//! needs root, loop devices, the file system's `mkfs`, and FUSE for the last two.

mod blocks;
mod cuts;
mod mounting;
mod random;
mod subject;
mod tally;
mod trainer;

use clap::{Parser, ValueEnum};
use mounting::Fs;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use subject::{Life, Subject};

/// Runs power cuts against a checkpoint writer.
#[derive(Clone, Debug, Parser)]
#[command(about)]
struct Options {
    /// The kind of fault.
    #[arg(value_enum, default_value = "cuts")]
    what: What,
    /// File system of the disk.
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Fs,
    /// Number of cuts, states or faults.
    #[arg(long = "cuts", visible_aliases = ["states", "faults"], default_value_t = 100)]
    count: u64,
    /// Options of mount, such as data=writeback,nobarrier.
    #[arg(long, default_value = "")]
    mount_options: String,
    /// Seed of the moments; from the clock where missing.
    #[arg(long)]
    seed: Option<u64>,
    /// The checkpoint writer under test.
    #[arg(long, value_enum, default_value = "tensorkeep")]
    subject: Subject,
    /// Fails unless a promise is broken: for subjects with a known bug.
    #[arg(long)]
    expect_broken: bool,
    /// File for the report, besides standard output.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for images: fast storage with a few hundred MiB.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// The latest moment of a cut, in milliseconds after the trainer was started.
    #[arg(long, default_value_t = 60)]
    max_ms: u64,
    /// States that are built from the log of one trainer; 0 for every prefix and as many others.
    #[arg(long, default_value_t = 100)]
    per_life: usize,
    /// Trains in this folder, as the process that is cut.
    #[arg(long, hide = true)]
    train: Option<PathBuf>,
    /// Ends after this many saves, and continues after one that fails.
    #[arg(long, hide = true)]
    saves: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// A live file system is cut at a random moment.
    Cuts,
    /// Disks are built from a log of block writes.
    Replay,
    /// One block write fails.
    Eio,
}

/// Errors of the harness itself, as text: it is a program for developers.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(folder) = &options.train {
        let life = options.saves.map_or(Life::UntilThePowerGoes, Life::Saves);
        return match options.subject.train(folder, life) {
            Ok(()) => ExitCode::SUCCESS,
            // The power went: a trainer sees an error.
            Err(_) => ExitCode::from(3),
        };
    }
    let needs_blocks = options.what != What::Cuts;
    let skipped = mounting::why_not(options.fs, options.what == What::Cuts)
        .or_else(|| needs_blocks.then(blocks::device::why_not).flatten());
    let outcome = match (skipped, options.what) {
        (Some(reason), _) => Ok(json!({ "fs": options.fs.name(), "skipped": reason })),
        (None, What::Cuts) => cuts::run(&options),
        (None, What::Replay) => blocks::replay::run(&options),
        (None, What::Eio) => blocks::eio::run(&options),
    };
    match outcome {
        Ok(report) => finish(&options, &report),
        Err(error) => {
            eprintln!("powercut: {error}");
            ExitCode::from(2)
        }
    }
}

fn finish(options: &Options, report: &Value) -> ExitCode {
    println!("{report}");
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, format!("{report:#}\n"))
    {
        eprintln!("powercut: {}: {error}", path.display());
        return ExitCode::from(2);
    }
    let Some(broken) = report["broken"].as_u64() else { return ExitCode::SUCCESS };
    // A peer that loses data is a row of a table; a protocol that claims safety and breaks is a
    // failure.
    let failed = if options.expect_broken { broken == 0 } else { broken > 0 && options.subject.must_hold() };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
