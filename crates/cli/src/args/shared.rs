//! Flags of several verbs.

use crate::{budget, units};
use clap::{Args as Group, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

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
    /// times the file, and a record 256 MiB; more is an error, with exit code 8.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    budget: Option<u64>,
}

impl Budget {
    pub fn get(self) -> budget::Budget {
        budget::Budget(self.budget)
    }
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
