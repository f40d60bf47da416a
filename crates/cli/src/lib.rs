//! The command line of tensorkeep as a library. Owns: flags, exit codes, and what goes where (data
//! on stdout, words on stderr). All it knows of checkpoints it knows through the library's public
//! API. For other programs there is
//! [`report`]: a run as one HTML page.

mod args;
mod budget;
mod compare;
mod exit;
mod interrupt;
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
mod scaled;
mod stats;
mod target;
mod tree;
mod units;
mod verbs;

use exit::Exit;
use std::io::Write;
use std::process::ExitCode;

/// Runs the command line with the process's arguments.
pub fn main() -> ExitCode {
    let args = match <args::Args as clap::Parser>::try_parse() {
        Ok(args) => args,
        Err(error) => return no_verb(&error).into(),
    };
    interrupt::remove_unfinished_files_on_signals();
    match verbs::run(&args) {
        Ok(exit) => exit.into(),
        Err(error) => output::fail(&error, args.json).into(),
    }
}

/// Help and versions, which are answers, and wrong usage, which is an error like others.
fn no_verb(error: &clap::Error) -> Exit {
    let json = std::env::args_os().any(|arg| arg == "--json");
    if error.use_stderr() {
        if json {
            return output::fail_usage(&error.to_string(), json);
        }
        // Nowhere is left to say that stderr is closed.
        let _ = error.print();
        return Exit::Usage;
    }
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            output::fail(&tensorkeep::Error::io("writing to stdout", error), json)
        }
        _ => Exit::Ok,
    }
}

/// What a verb gives: an exit code, or an error that has one.
type Done = Result<Exit, tensorkeep::Error>;
