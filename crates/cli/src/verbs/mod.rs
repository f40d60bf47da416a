//! One file for each verb, or few. Owns: which verb is done where.

mod copy;
mod cp;
mod diff;
mod doctor;
mod foreign;
mod gc;
mod get;
mod history;
pub mod ls;
mod meta;
mod orphans;
mod pins;
mod report;
mod show;
mod stats;
mod verify;
mod watch;
mod why;

use crate::Done;
use crate::args::{Args, Verb};

/// Does what the arguments ask for.
///
/// # Errors
/// What the verb says.
pub fn run(args: &Args) -> Done {
    let json = args.json;
    match &args.verb {
        Verb::Ls { run } => ls::run(run, json),
        Verb::Show(args) => show::run(args, json),
        Verb::Stats(args) => stats::run(args, json),
        Verb::Verify(args) => verify::run(args, json),
        Verb::Diff(args) => diff::run(args, json),
        Verb::History(args) => history::run(args, json),
        Verb::Why { target } => why::run(target, json),
        Verb::Gc(args) => gc::run(args, json),
        Verb::Pin { target } => pins::run(target, true, json),
        Verb::Unpin { target } => pins::run(target, false, json),
        Verb::Get(args) => get::run(args, json),
        Verb::Cp { source, target, force } => cp::run(source, target, *force, json),
        Verb::Repack { target, output, codec, budget } => {
            copy::repack(target, output, (*codec).into(), budget.get(), json)
        }
        Verb::Salvage { target, output, budget } => copy::salvage(target, output, budget.get(), json),
        Verb::Doctor { dir } => doctor::run(dir, json),
        Verb::Watch { run, interval, count } => watch::run(run, *interval, *count, json),
        Verb::Report { run, output, diff } => report::run(run, output, diff.as_deref(), json),
        Verb::Import { source, options, codec } => {
            let codec = (*codec).into();
            foreign::convert(&foreign::Asked { verb: "import", source, options, codec, json })
        }
        Verb::Export { target: source, options } => {
            let codec = tensorkeep::Codec::Raw;
            foreign::convert(&foreign::Asked { verb: "export", source, options, codec, json })
        }
        Verb::Completions { shell } => meta::completions(*shell),
        Verb::Man => meta::man(),
    }
}
