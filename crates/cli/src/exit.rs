//! Exit codes: part of the interface, for scripts.

use tensorkeep::{Error, ErrorKind};

/// The codes, for `--help`.
pub const HELP: &str = "Exit codes: 0 ok, 1 the answer is no, 2 usage, 3 not found, 4 damaged or hostile, 5 locked, \
6 input or output failed, 7 written by a newer version, 8 whole but not for this tool: unsupported, or beyond --budget";

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
    /// Nothing is wrong with the bytes, and this version, or this budget, cannot read them.
    Unsupported = 8,
}

impl Exit {
    /// How a verb ends that showed all it could: by the worst of its errors. Damage is worse than
    /// missing support, and both are worse than any answer.
    pub fn worst(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let rank = |exit: &Self| match exit {
            Self::Ok => 0,
            Self::No => 1,
            Self::Unsupported => 2,
            Self::NewerVersion => 3,
            Self::Damaged => 5,
            _ => 4,
        };
        errors.into_iter().max_by_key(rank)
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Damaged | ErrorKind::Foreign => Self::Damaged,
            ErrorKind::Locked | ErrorKind::Fenced | ErrorKind::Busy => Self::Locked,
            ErrorKind::NewerVersion => Self::NewerVersion,
            ErrorKind::Unsupported | ErrorKind::LimitExceeded => Self::Unsupported,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Mismatch | ErrorKind::AlreadyExists => Self::No,
            _ => Self::Io,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_outranks_what_is_only_unsupported() {
        assert_eq!(Exit::worst([Exit::No, Exit::Unsupported, Exit::Damaged, Exit::Ok]), Some(Exit::Damaged));
        assert_eq!(Exit::worst([Exit::Unsupported, Exit::No]), Some(Exit::Unsupported));
        assert_eq!(Exit::worst([]), None);
    }
}
