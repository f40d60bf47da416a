//! The command line of tensorkeep as a library: flags, exit codes, data on stdout and words on
//! stderr. It uses the library's public API only. Other programs use [`report`], a run as one HTML
//! page, and [`differences`] between two checkpoints.

mod answer;
mod args;
mod budget;
mod compare;
mod differences;
mod exit;
mod interrupt;
mod kept;
mod lanes;
mod lives;
mod mapped;
mod metrics;
mod names;
mod numbers;
mod opened;
mod output;
mod parallel;
mod place;
mod progress;
mod provenance;
mod records;
pub mod report;
mod scaled;
mod stats;
mod target;
mod told;
mod tree;
mod units;
mod verbs;

pub use differences::{Difference, differences};

use answer::OutputFormat;
use exit::Exit;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs the command line with the process's arguments.
pub fn main() -> ExitCode {
    main_from(std::env::args_os()).into()
}

/// Runs the command line with these arguments, the first of which is the program's name, and
/// returns the exit code: for programs that have it inside, such as the Python package.
///
/// It prints to the process's stdout and stderr, and from then on SIGINT and SIGTERM end the
/// process, after they have removed unfinished files.
///
/// ```
/// assert_eq!(tensorkeep_cli::main_from(["tensorkeep", "--version"]), 0);
/// assert_eq!(tensorkeep_cli::main_from(["tensorkeep", "show", "no/such/file"]), 3);
/// ```
pub fn main_from<T: Into<OsString>>(args: impl IntoIterator<Item = T>) -> u8 {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let parsed = match <args::Args as clap::Parser>::try_parse_from(&args) {
        Ok(parsed) => parsed,
        Err(error) => return no_verb(&error, &args) as u8,
    };
    interrupt::remove_unfinished_files_on_signals();
    let exit = match verbs::run(&parsed) {
        Ok(exit) => exit,
        Err(error) => OutputFormat::of(parsed.json).fail(&error),
    };
    exit as u8
}

/// Help and versions, which are answers, and wrong usage, which is an error like others.
fn no_verb(error: &clap::Error, args: &[OsString]) -> Exit {
    let format = OutputFormat::of_unparsed(args);
    if error.use_stderr() {
        if format == OutputFormat::Json {
            return format.fail_usage(&error.to_string());
        }
        // Nowhere is left to say that stderr is closed.
        let _ = error.print();
        return Exit::Usage;
    }
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            format.fail(&tensorkeep::Error::io("writing to stdout", error))
        }
        _ => Exit::Ok,
    }
}

/// What a verb gives: an exit code, or an error that has one.
type Done = Result<Exit, tensorkeep::Error>;
