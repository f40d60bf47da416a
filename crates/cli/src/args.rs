//! The command line's grammar: the verbs and their help. Flags that several verbs share are in
//! args/shared.rs, those of verbs that look in args/looking.rs, those of verbs that write or delete
//! in args/writing.rs.

mod looking;
mod shared;
mod surgery;
mod writing;

pub use looking::{Diff, Get, History, Ls, Report, Serve, Show, Sort, Stats, Verify};
pub use shared::{Budget, CodecName, Output, Selected};
pub use surgery::{Cast, Renaming};
pub use writing::{Conversion, Edit, Gc, Merge};

use crate::exit;
use clap::{Parser, Subcommand};
use std::ffi::OsString;

/// Look at, compare, verify and convert tensorkeep checkpoints.
///
/// A TARGET is a checkpoint file, or a run (a folder, or a URL: s3://bucket/run, gs://bucket/run,
/// az://container/run, with the usual environment variables) with an optional selector: RUN,
/// RUN@latest, RUN@latest~1 or RUN@-2 (the one before), RUN@1200 (a step), RUN@0003-0000001200
/// (attempt and step), RUN@best:val_loss:min.
/// Verbs that only look also take safetensors (and their index files), .npy, .npz, .pt and GGUF
/// files.
#[derive(Parser, Debug)]
#[command(name = "tensorkeep", version, after_help = exit::HELP)]
pub struct Args {
    /// Machine-readable output: one JSON document on stdout, errors too; one a line for `watch`.
    /// See docs/json.md
    #[arg(long, global = true)]
    pub json: bool,
    /// Lines as wide as they are, also on a terminal
    #[arg(long, global = true)]
    pub wide: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// The checkpoints of a run: step, age, size, metrics, why saved, why kept, state; or the runs
    /// in a folder
    #[command(
        after_help = "Examples:\n  tensorkeep ls runs/lenet -n 20 --metrics loss,accuracy\n  tensorkeep ls runs                      the runs in a folder"
    )]
    Ls(Ls),
    /// One checkpoint: its tensors as a tree, and its records
    #[command(
        after_help = "Examples:\n  tensorkeep show runs/lenet@latest --depth 2\n  tensorkeep show model.safetensors --sort size\n  tensorkeep show runs/job@latest --pieces --only 'model/*'"
    )]
    Show(Show),
    /// Numbers of each tensor: min, max, mean, std, norm, zeros, NaN, Inf, histogram
    #[command(after_help = "Examples:\n  tensorkeep stats runs/lenet@-2 --only 'model/*'")]
    Stats(Stats),
    /// Verify a file, or every checkpoint of a run
    #[command(
        after_help = "Examples:\n  tensorkeep verify runs/lenet\n  tensorkeep verify model.tkeep --deep"
    )]
    Verify(Verify),
    /// Compare two checkpoints; exit code 1 when a tensor differs
    #[command(
        after_help = "Examples:\n  tensorkeep diff runs/lenet@latest~1 runs/lenet@latest\n  tensorkeep diff a.safetensors b.tkeep --rtol 1e-3"
    )]
    Diff(Diff),
    /// Metrics, and a tensor's numbers, over the checkpoints of a run
    #[command(
        after_help = "Examples:\n  tensorkeep history runs/lenet --metric loss\n  tensorkeep history runs/lenet --tensor model/fc1.weight"
    )]
    History(History),
    /// Why a checkpoint is kept, when it goes if that is known, and what a resume would choose
    #[command(after_help = "Examples:\n  tensorkeep why runs/lenet")]
    Why {
        /// RUN@step, or RUN for the newest
        target: OsString,
    },
    /// Delete what a retention policy no longer protects; without rules, the run's own
    #[command(after_help = "Examples:\n  tensorkeep gc runs/lenet --dry-run --keep-last 3")]
    Gc(Gc),
    /// Protect a checkpoint from rotation
    #[command(after_help = "Examples:\n  tensorkeep pin runs/lenet@400")]
    Pin {
        /// RUN@step, or RUN for the newest
        target: OsString,
    },
    /// Take the protection away
    #[command(after_help = "Examples:\n  tensorkeep unpin runs/lenet@400")]
    Unpin {
        /// RUN@step, or RUN for the newest
        target: OsString,
    },
    /// One tensor, or a slice of it, as a .npy file
    #[command(after_help = "Examples:\n  tensorkeep get runs/lenet model/fc1.weight -o fc1.npy")]
    Get(Get),
    /// Copy a checkpoint or a whole run, verified on the way
    #[command(
        after_help = "Examples:\n  tensorkeep cp runs/lenet s3://bucket/lenet\n  tensorkeep cp runs/lenet@best:accuracy:max best.tkeep"
    )]
    Cp {
        /// A file, a RUN (all its checkpoints) or RUN@… (one)
        source: OsString,
        /// A run (a folder or a URL), made where missing, for a run or one of its checkpoints; a
        /// file for a file, and for one checkpoint if it ends in .tkeep
        target: OsString,
        /// Replace a file that exists, and put checkpoints of another run beside those of a run
        #[arg(long)]
        force: bool,
    },
    /// Write a checkpoint again with another codec
    #[command(after_help = "Examples:\n  tensorkeep repack runs/lenet@latest -o small.tkeep --codec max")]
    Repack {
        /// A file, or RUN[@step|latest|best:METRIC:min|max]
        target: OsString,
        #[command(flatten)]
        output: Output,
        /// How tensors and records are stored
        #[arg(long, value_enum, default_value_t = CodecName::Balanced)]
        codec: CodecName,
        #[command(flatten)]
        budget: Budget,
    },
    /// Every intact tensor and record out of a damaged file
    ///
    /// The list of contents is at the end of a file, in two copies. A file that was cut short, as
    /// by an interrupted copy, has none, and nothing can be taken out of it.
    #[command(
        after_help = "Examples:\n  tensorkeep salvage runs/lenet@400 -o rescued.tkeep\n  tensorkeep salvage runs/job/shards/0/0004-0000001200-1-5b7711e0-r00000.tkeep -o rescued.tkeep\n\nOf a checkpoint of many ranks whose manifest is lost, name any of its shards: all that are beside it are put together."
    )]
    Salvage {
        /// A file, or RUN[@step|latest|best:METRIC:min|max]
        target: OsString,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        budget: Budget,
    },
    /// What a folder's file system, or the store at a URL, can do, and how fast
    #[command(after_help = "Examples:\n  tensorkeep doctor /mnt/ckpt")]
    Doctor {
        /// An existing folder, or a URL
        dir: String,
    },
    /// A run as it grows: a line for each new checkpoint
    #[command(after_help = "Examples:\n  tensorkeep watch runs/lenet --interval 5")]
    Watch {
        /// The run's folder or URL
        run: OsString,
        /// Seconds between two looks
        #[arg(long, default_value_t = 2.0)]
        interval: f64,
        /// Looks before it ends; without it, until interrupted
        #[arg(long)]
        count: Option<u64>,
    },
    /// A run, several runs or one file as one HTML page
    #[command(
        after_help = "Examples:\n  tensorkeep report runs/lenet -o report.html\n  tensorkeep report runs -o runs.html       all runs in a folder\n  tensorkeep report model.safetensors -o model.html"
    )]
    Report(Report),
    /// The pages of a run, or of the runs in a folder, live in a browser on this machine
    #[command(
        after_help = "Examples:\n  tensorkeep serve runs                     then open what it prints in a browser"
    )]
    Serve(Serve),
    /// A foreign file as a checkpoint, or as a file of another format, by the output's extension
    #[command(after_help = "Examples:\n  tensorkeep import model.pt -o model.tkeep")]
    Import {
        /// safetensors or an index of shards, .npy, .npz, .pt, a folder of torch's distributed
        /// checkpoints, GGUF
        source: OsString,
        #[command(flatten)]
        options: Conversion,
        /// How a checkpoint's tensors and records are stored
        #[arg(long, value_enum, default_value_t = CodecName::Raw)]
        codec: CodecName,
    },
    /// A checkpoint, or a foreign file, as safetensors, .npz or .npy, by the output's extension
    #[command(
        after_help = "Examples:\n  tensorkeep export runs/lenet@best:accuracy:max -o model.safetensors"
    )]
    Export {
        /// A file, or RUN[@step|latest|best:METRIC:min|max]
        target: OsString,
        #[command(flatten)]
        options: Conversion,
    },
    /// Some tensors of a checkpoint or a foreign file, under other names or in another width
    #[command(after_help = EDIT_EXAMPLES)]
    Edit(Edit),
    /// The average of checkpoints or foreign files, summed in f64
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(Merge),
    /// Completions for a shell, on stdout
    #[cfg(feature = "man")]
    Completions { shell: clap_complete::Shell },
    /// The man page, of all verbs, on stdout
    #[cfg(feature = "man")]
    Man,
}

const EDIT_EXAMPLES: &str = "\
Examples:
  tensorkeep edit runs/lenet@latest -o weights.tkeep --only 'model/*' --cast bf16
  tensorkeep edit ddp.pt -o plain.tkeep --strip-prefix module.
  tensorkeep edit model.safetensors -o new.tkeep --rename '^layers\\.(\\d+)\\.=>blocks.$1.' --set license=MIT";

const MERGE_EXAMPLES: &str = "\
Examples:
  tensorkeep merge runs/a@latest runs/b@latest -o soup.tkeep
  tensorkeep merge a.safetensors b.safetensors -o soup.tkeep --weights 0.7,0.3
  tensorkeep merge run@100 run@200 run@300 -o ema.tkeep --ema 0.9";
