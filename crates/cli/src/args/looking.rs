//! Flags of the verbs that look at checkpoints and change none.

use super::{Budget, Output, Selected};
use crate::units;
use clap::{Args as Group, ValueEnum};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

#[derive(Group, Debug)]
pub struct Ls {
    /// The run's folder or URL, or a folder of runs
    pub run: OsString,
    /// The newest so many checkpoints; in a folder of runs, the runs that were saved to last
    #[arg(short = 'n', value_name = "COUNT")]
    pub newest: Option<usize>,
    /// The metrics to show, by name, with commas between
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub metrics: Vec<String>,
}

#[derive(Group, Debug)]
pub struct Report {
    /// A run's folder or URL; several, or a folder of runs, for their curves on one page; a file,
    /// ours or of another format
    #[arg(required = true)]
    pub targets: Vec<OsString>,
    #[command(flatten)]
    pub output: Output,
    /// Two steps to compare first, A:B; without it the first and the newest
    #[arg(long, value_name = "STEP:STEP")]
    pub diff: Option<String>,
    /// Verify every byte of every checkpoint; without it, of the newest and of all that is drawn
    #[arg(long, conflicts_with = "quick")]
    pub verify_all: bool,
    /// Verify nothing and read no tensor
    #[arg(long)]
    pub quick: bool,
}

#[derive(Group, Debug)]
pub struct Serve {
    /// A run's folder or URL, or a folder of runs
    #[arg(default_value = ".")]
    pub target: OsString,
    /// The port; 0 takes any that is free
    #[arg(long, default_value_t = 7007)]
    pub port: u16,
    /// Another address than this machine's own, for others to reach, who then see the runs
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    pub address: IpAddr,
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
    /// Modules so many levels deep, deeper ones in one line each
    #[arg(long, value_name = "N")]
    pub depth: Option<usize>,
    /// Modules that repeat one by one, not as layers.{0..31}; and the library's own records
    #[arg(long)]
    pub all: bool,
    /// Of a checkpoint of many ranks, the boxes that tensors lie in and the shards that have them,
    /// and whether these are there
    #[arg(long, conflicts_with_all = ["values", "depth", "all"])]
    pub pieces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    Name,
    Size,
    Dtype,
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
    /// Only this metric, with every point that was logged
    #[arg(long)]
    pub metric: Option<String>,
    /// The numbers of this tensor in each checkpoint
    #[arg(long)]
    pub tensor: Option<String>,
    #[command(flatten)]
    pub budget: Budget,
}

#[derive(Group, Debug)]
pub struct Get {
    /// A file, or RUN[@step|latest|best:METRIC:min|max]
    pub target: OsString,
    /// A tensor, with an optional slice as in NumPy: fc.weight[3], fc.weight[0:10,5],
    /// fc.weight[::2], fc.weight[...,-1]; steps backwards are refused
    pub tensor: String,
    /// A .npy file to write, or text, one value a line, where it ends in .txt; - is stdout.
    /// Without it they are printed as NumPy prints
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace it if it exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub budget: Budget,
}
