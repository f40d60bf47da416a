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
use crate::args::{Args, Conversion, Verb};

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
        Verb::Repack { target, output, codec } => copy::repack(target, output, (*codec).into(), json),
        Verb::Salvage { target, output } => copy::salvage(target, output, json),
        Verb::Doctor { dir } => doctor::run(dir, json),
        Verb::Watch { run, interval, count } => watch::run(run, *interval, *count, json),
        Verb::Report { run, output, diff } => report::run(run, output, diff.as_deref(), json),
        Verb::Import { source, options, codec } => {
            foreign::convert(&asked("import", source, options, (*codec).into(), json))
        }
        Verb::Export { target, options } => {
            foreign::convert(&asked("export", target, options, tensorkeep::Codec::Raw, json))
        }
        Verb::Completions { shell } => meta::completions(*shell),
        Verb::Man => meta::man(),
    }
}

fn asked<'a>(
    verb: &'static str,
    source: &'a str,
    options: &'a Conversion,
    codec: tensorkeep::Codec,
    json: bool,
) -> foreign::Asked<'a> {
    let Conversion { output, allow_loss, max_shard_size } = options;
    let max_shard_size = max_shard_size.as_deref();
    foreign::Asked { verb, source, output, allow_loss: *allow_loss, codec, max_shard_size, json }
}
