//! Exit codes: part of the interface, for scripts.

use std::process::ExitCode;
use tensorkeep::{Error, ErrorKind};

/// The codes, for `--help`.
pub const HELP: &str = "Exit codes: 0 ok, 1 the answer is no, 2 usage, 3 not found, 4 damaged or hostile, 5 locked, \
6 input or output failed, 7 written by a newer version";

/// How a run of the command line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and the answer is yes where there was a question.
    Ok = 0,
    /// Done, and the answer is no.
    No = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// No such file, run, checkpoint, tensor or record.
    NotFound = 3,
    /// Bytes that are not what their checksums say, or are no checkpoint at all.
    Damaged = 4,
    /// Another process holds it.
    Locked = 5,
    /// The operating system refused or failed.
    Io = 6,
    /// A newer version wrote it.
    NewerVersion = 7,
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Damaged | ErrorKind::Foreign | ErrorKind::LimitExceeded => Self::Damaged,
            ErrorKind::Locked | ErrorKind::Fenced | ErrorKind::Busy => Self::Locked,
            ErrorKind::NewerVersion | ErrorKind::Unsupported => Self::NewerVersion,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Mismatch | ErrorKind::AlreadyExists => Self::No,
            _ => Self::Io,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
