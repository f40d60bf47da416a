//! Flags of the verbs that write checkpoints and other files, or delete them.

use super::surgery::{Cast, Renaming};
use super::{Budget, CodecName, Output};
use crate::provenance::is_provenance;
use crate::units;
use clap::Args as Group;
use std::ffi::OsString;
use std::time::Duration;

#[derive(Group, Debug)]
pub struct Edit {
    /// A file, ours or foreign, or RUN[@step|latest|best:METRIC:min|max]
    pub target: OsString,
    #[command(flatten)]
    pub output: Output,
    /// Only tensors and records of this pattern; * and ? as in a shell; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// No tensors and records of this pattern
    #[arg(long, value_name = "GLOB")]
    pub drop: Vec<String>,
    /// Names that begin with this are written without it: `model/`, `module.`
    #[arg(long, value_name = "PREFIX")]
    pub strip_prefix: Vec<String>,
    /// What fits the regular expression in a name is replaced; $1 is its first group
    #[arg(long, value_name = "REGEX=>REPL", value_parser = Renaming::parse)]
    pub rename: Vec<Renaming>,
    /// Floats as f16, bf16, f32 or f64, rounded to nearest; those of a pattern, or all
    #[arg(long, value_name = "DTYPE[:GLOB]", value_parser = Cast::parse)]
    pub cast: Vec<Cast>,
    /// A line of metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = set)]
    pub set: Vec<(String, String)>,
    /// How tensors and records are stored
    #[arg(long, value_enum, default_value_t = CodecName::Raw)]
    pub codec: CodecName,
    #[command(flatten)]
    pub budget: Budget,
}

#[derive(Group, Debug)]
pub struct Merge {
    /// Two or more files, ours or foreign, or RUN[@step|latest|best:METRIC:min|max]
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<OsString>,
    #[command(flatten)]
    pub output: Output,
    /// The share of each, which add up to 1; without it, equal ones
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', allow_negative_numbers = true)]
    pub weights: Vec<f64>,
    /// An exponential moving average, the oldest first: of each step, so much is what was before
    #[arg(long, value_name = "DECAY", value_parser = decay, conflicts_with = "weights")]
    pub ema: Option<f64>,
    /// How tensors and records are stored
    #[arg(long, value_enum, default_value_t = CodecName::Raw)]
    pub codec: CodecName,
    #[command(flatten)]
    pub budget: Budget,
}

/// `KEY=VALUE`, cut at the first `=`.
fn set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, _)) if is_provenance(key) => {
            Err(format!("{key} says where the result comes from, and is written by the verb itself"))
        }
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as license=MIT".to_owned()),
    }
}

fn decay(text: &str) -> Result<f64, String> {
    let decay = text.parse::<f64>().ok().filter(|decay| (0.0..1.0).contains(decay));
    decay.ok_or_else(|| "expected a number from 0 to below 1".to_owned())
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
    /// Instead: remove shards of saves that many ranks did not end and, at a URL, what killed
    /// uploads left and no checkpoint names, if it is older than this
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
