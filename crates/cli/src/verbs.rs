//! The verbs: one file each, or one for a few that are alike. Each computes an answer, which is
//! printed here.

mod copy;
mod cp;
mod derived;
mod diff;
mod doctor;
mod edit;
mod foreign;
mod gc;
mod get;
mod history;
pub mod ls;
mod merge;
#[cfg(feature = "man")]
mod meta;
mod orphans;
mod pieces;
mod pins;
mod report;
mod serve;
mod show;
mod stats;
mod verify;
mod watch;
mod why;

use crate::Done;
use crate::answer::{Answer, OutputFormat};
use crate::args::{Args, Verb};
use tensorkeep::Codec;

/// Does what the arguments ask for, and prints the answer.
///
/// # Errors
/// What the verb says.
pub fn run(args: &Args) -> Done {
    let format = OutputFormat::of(args.json);
    if args.wide {
        crate::output::be_wide();
    }
    let answer: Box<dyn Answer + '_> = match &args.verb {
        Verb::Ls(args) => ls::run(args)?,
        Verb::Show(args) if args.pieces => Box::new(pieces::run(args)?),
        Verb::Show(args) => Box::new(show::run(args)?),
        Verb::Stats(args) => Box::new(stats::run(args)?),
        Verb::Verify(args) => Box::new(verify::run(args)?),
        Verb::Diff(args) => Box::new(diff::run(args)?),
        Verb::History(args) => Box::new(history::run(args)?),
        Verb::Why { target } => Box::new(why::run(target)?),
        Verb::Gc(args) => gc::run(args, format.may_ask() && !args.yes)?,
        Verb::Pin { target } => Box::new(pins::run(target, true)?),
        Verb::Unpin { target } => Box::new(pins::run(target, false)?),
        Verb::Get(args) => {
            format.check_stdout_is_free(args.output.as_deref(), "file")?;
            Box::new(get::run(args, format)?)
        }
        Verb::Cp { source, target, force } => Box::new(cp::run(source, target, *force)?),
        Verb::Repack { target, output, codec, budget } => {
            Box::new(copy::repack(target, output, (*codec).into(), budget.get())?)
        }
        Verb::Salvage { target, output, budget } => Box::new(copy::salvage(target, output, budget.get())?),
        Verb::Doctor { dir } => Box::new(doctor::run(dir)?),
        Verb::Report(args) => {
            format.check_stdout_is_free(Some(&args.output.output), "page")?;
            Box::new(report::run(args)?)
        }
        Verb::Import { source, options, codec } => {
            let codec = (*codec).into();
            Box::new(foreign::convert(&foreign::Asked { verb: "import", source, options, codec })?)
        }
        Verb::Export { target: source, options } => {
            let codec = Codec::Raw;
            Box::new(foreign::convert(&foreign::Asked { verb: "export", source, options, codec })?)
        }
        Verb::Edit(args) => Box::new(edit::run(args)?),
        Verb::Merge(args) => Box::new(merge::run(args)?),
        // Those that go on after their first answer, and those whose answer is text in any case.
        Verb::Watch { run, interval, count } => return watch::run(run, *interval, *count, format),
        Verb::Serve(args) => return serve::run(args, format),
        #[cfg(feature = "man")]
        Verb::Completions { shell } => return meta::completions(*shell),
        #[cfg(feature = "man")]
        Verb::Man => return meta::man(),
    };
    format.print(&*answer)?;
    answer.end()
}
