//! The command line's grammar: verbs, flags, help. Knows nothing of what they do.

use crate::budget;
use crate::exit;
use crate::units;
use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Look at, compare, verify and convert tensorkeep checkpoints.
///
/// A TARGET is a checkpoint file, or a run (a folder, or a URL: s3://bucket/run, gs://bucket/run,
/// az://container/run, with the usual environment variables) with an optional selector: RUN,
/// RUN@latest, RUN@1200 (a step), RUN@0003-0000001200 (attempt and step), RUN@best:val_loss:min.
/// Verbs that only look also take safetensors (and their index files), .npy, .npz, .pt and GGUF
/// files.
#[derive(Parser, Debug)]
#[command(name = "tensorkeep", version, after_help = exit::HELP)]
pub struct Args {
    /// Machine-readable output: one JSON document on stdout, errors too; one a line for `watch`.
    /// See docs/json.md
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// The checkpoints of a run: step, age, size, metrics, why saved, why kept, state; or the runs
    /// in a folder
    Ls {
        /// The run's folder or URL, or a folder of runs
        run: OsString,
    },
    /// One checkpoint: its tensors as a tree, and its records
    Show(Show),
    /// Numbers of each tensor: min, max, mean, std, norm, zeros, NaN, Inf, histogram
    Stats(Stats),
    /// Verify a file, or every checkpoint of a run
    Verify(Verify),
    /// Compare two checkpoints; exit code 1 when a tensor differs
    Diff(Diff),
    /// Metrics, and a tensor's numbers, over the checkpoints of a run
    History(History),
    /// Why a checkpoint is kept or when it goes, and what a resume would choose
    Why {
        /// RUN@step, or RUN for the newest
        target: OsString,
    },
    /// Delete what a retention policy no longer protects; without rules, the run's own
    Gc(Gc),
    /// Protect a checkpoint from rotation
    Pin {
        /// RUN@step, or RUN for the newest
        target: OsString,
    },
    /// Take the protection away
    Unpin {
        /// RUN@step, or RUN for the newest
        target: OsString,
    },
    /// One tensor, or a slice of it, as a .npy file
    Get(Get),
    /// Copy a checkpoint or a whole run, verified on the way
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
    /// What is where stands at the end of a file, twice: one that was cut short, by a copy that was
    /// interrupted, has no such list, and nothing can be taken out of it.
    Salvage {
        /// A file, or RUN[@step|latest|best:METRIC:min|max]
        target: OsString,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        budget: Budget,
    },
    /// What a folder's file system, or the store at a URL, can do, and how fast
    Doctor {
        /// An existing folder, or a URL
        dir: String,
    },
    /// A run as it grows: a line for each new checkpoint
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
    /// A run as one HTML page
    Report {
        /// The run's folder or URL
        run: OsString,
        #[command(flatten)]
        output: Output,
        /// Two steps to compare, A:B; without it the first and the newest
        #[arg(long, value_name = "STEP:STEP")]
        diff: Option<String>,
    },
    /// A foreign file as a checkpoint, or as a file of another format, by the output's extension
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
    Export {
        /// A file, or RUN[@step|latest|best:METRIC:min|max]
        target: OsString,
        #[command(flatten)]
        options: Conversion,
    },
    /// Completions for a shell, on stdout
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// The man page, on stdout
    #[command(hide = true)]
    Man,
}

#[derive(Group, Debug)]
pub struct Output {
    /// Where to write; for `report`, - is stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace it if it exists
    #[arg(long)]
    pub force: bool,
}

#[derive(Group, Debug)]
pub struct Conversion {
    #[command(flatten)]
    pub output: Output,
    /// Succeed although something cannot be carried over
    #[arg(long)]
    pub allow_loss: bool,
    /// Several safetensors files and their index, each of at most so many bytes of tensors: 5GB,
    /// 2GiB
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub max_shard_size: Option<u64>,
    /// Only tensors of this pattern; * and ? as in a shell
    #[arg(long, value_name = "GLOB")]
    pub only: Option<String>,
    /// Names that begin with this are written without it: `model/`, `module.`
    #[arg(long, value_name = "PREFIX")]
    pub strip_prefix: Vec<String>,
    /// Names that begin with OLD are written with NEW in its place; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = renamed)]
    pub rename: Vec<(String, String)>,
    #[command(flatten)]
    pub budget: Budget,
}

/// `OLD=NEW`, cut at the first `=`.
fn renamed(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("expected OLD=NEW, such as module.=model.".to_owned()),
    }
}

#[derive(Group, Debug)]
pub struct Selected {
    /// A file, or RUN[@step|latest|best:METRIC:min|max]
    pub target: OsString,
    /// Only tensors of this pattern; * and ? as in a shell
    #[arg(long, value_name = "GLOB")]
    pub only: Option<String>,
    #[command(flatten)]
    pub budget: Budget,
}

#[derive(Group, Clone, Copy, Debug)]
pub struct Budget {
    /// The most that a file may unfold to: its tensors' values together, and each record in memory
    ///
    /// A small file can legally claim to hold terabytes. Without this, values may be 16 GiB and 64
    /// times the file, and a record 256 MiB; what is beyond is told, by exit code 8.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    budget: Option<u64>,
}

impl Budget {
    pub fn get(self) -> budget::Budget {
        budget::Budget(self.budget)
    }
}

#[derive(Group, Debug)]
pub struct Stats {
    #[command(flatten)]
    pub selected: Selected,
}

#[derive(Group, Debug)]
pub struct Show {
    #[command(flatten)]
    pub selected: Selected,
    /// A flat list in this order instead of a tree
    #[arg(long, value_enum)]
    pub sort: Option<Sort>,
    /// The first N values of each tensor
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub values: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    Name,
    Size,
    Dtype,
}

/// [`tensorkeep::Codec`], as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CodecName {
    /// As they are, to be mapped
    Raw,
    /// Smaller at little cost
    Balanced,
    /// As small as can be had, slow to write
    Max,
}

impl From<CodecName> for tensorkeep::Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Raw => Self::Raw,
            CodecName::Balanced => Self::Balanced,
            CodecName::Max => Self::Max,
        }
    }
}

#[derive(Group, Debug)]
pub struct Verify {
    /// A file, RUN (all its checkpoints), or RUN@… (one)
    pub target: OsString,
    /// Only header, footer, index and records
    #[arg(long, conflicts_with = "deep")]
    pub quick: bool,
    /// Also decode everything and look for NaN and Inf
    #[arg(long)]
    pub deep: bool,
    /// Take the mark of damage off checkpoints of a run that verify: an object store may have
    /// answered wrongly once
    #[arg(long, conflicts_with = "quick")]
    pub heal_marks: bool,
    #[command(flatten)]
    pub budget: Budget,
}

#[derive(Group, Debug)]
pub struct Diff {
    /// A file, or RUN[@step|latest|best:METRIC:min|max]
    pub left: OsString,
    /// Likewise
    pub right: OsString,
    /// Only tensors of this pattern
    #[arg(long, value_name = "GLOB")]
    pub only: Option<String>,
    /// Close is: |a - b| <= atol + rtol * |b|
    #[arg(long, default_value_t = 1e-5, value_parser = units::tolerance, allow_negative_numbers = true)]
    pub rtol: f64,
    /// See --rtol
    #[arg(long, default_value_t = 1e-8, value_parser = units::tolerance, allow_negative_numbers = true)]
    pub atol: f64,
    /// List equal tensors too
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub budget: Budget,
}

#[derive(Group, Debug)]
pub struct History {
    /// The run's folder or URL
    pub run: OsString,
    /// Only this metric
    #[arg(long)]
    pub metric: Option<String>,
    /// The numbers of this tensor in each checkpoint
    #[arg(long)]
    pub tensor: Option<String>,
    #[command(flatten)]
    pub budget: Budget,
}

#[derive(Group, Debug)]
pub struct Gc {
    /// The run's folder or URL
    pub run: OsString,
    /// Say what would go and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask, also on a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Count on what stays without reading it: a damaged checkpoint may then be all that is left
    #[arg(long)]
    pub no_verify: bool,
    /// Instead: remove what killed uploads left at a URL and no checkpoint names, if it is older
    /// than this
    #[arg(long, value_name = "AGE", num_args = 0..=1, default_missing_value = "1d")]
    pub orphans: Option<String>,
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<usize>,
    /// Keep the N best by a metric; may be given several times
    #[arg(long, value_name = "METRIC:min|max[:N]")]
    pub keep_best: Vec<String>,
    /// Keep the first at or after each multiple of N steps
    #[arg(long, value_name = "N")]
    pub keep_every_steps: Option<u64>,
    /// Keep the first at or after each multiple of N epochs
    #[arg(long, value_name = "N")]
    pub keep_every_epochs: Option<u64>,
    /// Keep what is younger: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = units::age)]
    pub keep_younger_than: Option<Duration>,
    /// Keep the newest that fit into so many bytes: 500MiB, 20GiB
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub keep_within: Option<u64>,
}

#[derive(Group, Debug)]
pub struct Get {
    /// A file, or RUN[@step|latest|best:METRIC:min|max]
    pub target: OsString,
    /// A tensor, with an optional slice: fc.weight, fc.weight[3], fc.weight[0:10,5]
    pub tensor: String,
    /// A .npy file to write, or text where it ends in .txt; - is stdout. Without it the first
    /// values are printed
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace it if it exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub budget: Budget,
}
