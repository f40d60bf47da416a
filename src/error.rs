//! The one error of this crate: a kind that tells a caller how to react ([`ErrorKind`]), and the
//! facts for the person at 3 a.m.: which object, which tensor, which byte, what was expected, what
//! was found, what to do next. Each layer above adds the facts that it has.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. A kind exists only where the next step differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such file, checkpoint, tensor or record: look at what exists.
    NotFound,
    /// The name is taken by something committed, which is never overwritten: use another step.
    AlreadyExists,
    /// Another writer holds this run: stop it, or wait.
    Locked,
    /// A newer attempt has taken over this run: this process must stop writing.
    Fenced,
    /// Bytes do not match their checksum or are not valid: restore the file or resume from an older
    /// checkpoint.
    Damaged,
    /// The file is something other than a tensorkeep container.
    Foreign,
    /// Written by a newer version in a way that this one cannot read: update.
    NewerVersion,
    /// Valid, but not possible here: an unknown codec, a mapping of compressed bytes, an engine
    /// without a capability.
    Unsupported,
    /// The caller's argument is wrong.
    Invalid,
    /// Dtype, shape or names of checkpoint and model differ.
    Mismatch,
    /// A limit of the format or the caller's memory budget would be exceeded.
    LimitExceeded,
    /// The disk or quota is full: free space; the next save can succeed.
    NoSpace,
    /// The operating system refused or failed a call; see [`source`](StdError::source).
    Io,
    /// The bytes may or may not have become durable; look again before relying on either.
    Unknown,
    /// The engine met a failure after which it must not write: reopen it.
    Poisoned,
    /// Everything saved is durable in the local tier, but not yet in the remote one: log it and go
    /// on.
    NotPromoted,
    /// The limit of saves in flight is reached and the caller asked not to wait.
    Busy,
}

impl ErrorKind {
    /// The kind as one stable word, for logs and `--json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Locked => "locked",
            Self::Fenced => "fenced",
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
            Self::NewerVersion => "newer-version",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Mismatch => "mismatch",
            Self::LimitExceeded => "limit-exceeded",
            Self::NoSpace => "no-space",
            Self::Io => "io",
            Self::Unknown => "unknown-outcome",
            Self::Poisoned => "poisoned",
            Self::NotPromoted => "not-promoted",
            Self::Busy => "busy",
        }
    }
}

/// An error and its facts.
///
/// `Display` prints one level: object, step, tensor, what is wrong, where, expected and found, what
/// to do. The cause from below, if there is one, is the [`source`](StdError::source).
pub struct Error(Box<Facts>);

struct Facts {
    kind: ErrorKind,
    object: Option<String>,
    step: Option<u64>,
    entry: Option<(&'static str, String)>,
    what: Cow<'static, str>,
    byte: Option<u64>,
    expected: Option<String>,
    found: Option<String>,
    help: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error: its kind, and what is wrong in a few words (lowercase, no full stop).
    pub fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Facts {
            kind,
            object: None,
            step: None,
            entry: None,
            what: what.into(),
            byte: None,
            expected: None,
            found: None,
            help: None,
            source: None,
        }))
    }

    /// An operating system's error, its kind derived from its code; `what` names the step that
    /// failed.
    pub fn io(what: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        let error = Self::new(kind, what);
        match kind {
            ErrorKind::NoSpace => error.help("free some space; everything committed before is intact"),
            _ => error,
        }
        .because(source)
    }

    pub(crate) fn damaged(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Damaged, what)
    }

    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, what)
    }

    /// Names the object (a path, a URL) unless a layer below already did.
    pub fn in_object(mut self, object: impl fmt::Display) -> Self {
        self.0.object.get_or_insert_with(|| object.to_string());
        self
    }

    /// Names the step whose save it was.
    pub fn in_save_of_step(mut self, step: u64) -> Self {
        self.0.step.get_or_insert(step);
        self
    }

    /// Names the object and the step that `other` names.
    pub(crate) fn of_the_same_save_as(mut self, other: &Self) -> Self {
        self.0.object.clone_from(&other.0.object);
        self.0.step = other.0.step;
        self
    }

    /// Names the tensor unless a layer below already did.
    pub fn in_tensor(mut self, name: impl fmt::Display) -> Self {
        self.0.entry.get_or_insert_with(|| ("tensor", name.to_string()));
        self
    }

    /// Names the record unless a layer below already did.
    pub fn in_record(mut self, name: impl fmt::Display) -> Self {
        self.0.entry.get_or_insert_with(|| ("record", name.to_string()));
        self
    }

    /// The absolute byte offset in the object at which it was seen.
    pub fn at_byte(mut self, byte: u64) -> Self {
        self.0.byte.get_or_insert(byte);
        self
    }

    /// The expected value.
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.0.expected = Some(expected.to_string());
        self
    }

    /// The value that was found.
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.0.found = Some(found.to_string());
        self
    }

    /// What to do next.
    pub fn help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// The underlying error.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// As [`Error::because`], with an error that others keep, too.
    pub(crate) fn because_shared(self, source: Arc<Self>) -> Self {
        self.because(Shared(source))
    }

    /// The same facts under another kind, where a layer knows better what the caller should do.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The kind, which determines the next step.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The path or URL concerned, if known.
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// The completed steps of the snapshot whose save failed, for errors of a store's save.
    pub fn step(&self) -> Option<u64> {
        self.0.step
    }

    /// The tensor concerned, if there is one.
    pub fn tensor(&self) -> Option<&str> {
        self.0.entry.as_ref().filter(|(what, _)| *what == "tensor").map(|(_, name)| name.as_str())
    }

    /// The record concerned, if it is about one.
    pub fn record(&self) -> Option<&str> {
        self.0.entry.as_ref().filter(|(what, _)| *what == "record").map(|(_, name)| name.as_str())
    }

    /// The absolute byte offset concerned, if known.
    pub fn byte(&self) -> Option<u64> {
        self.0.byte
    }

    /// What should have been there, in words.
    pub fn expected_value(&self) -> Option<&str> {
        self.0.expected.as_deref()
    }

    /// What was there, in words.
    pub fn found_value(&self) -> Option<&str> {
        self.0.found.as_deref()
    }

    /// What to do next, in words.
    pub fn advice(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The underlying code of the operating system, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        let mut causes = std::iter::successors(self.source(), |&cause| cause.source());
        causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
    }
}

/// For errors that are an answer: a missing object need not be deleted.
pub(crate) trait NoneIf<T> {
    /// None in the place of an error of which `is_answer` holds.
    fn none_if(self, is_answer: impl FnOnce(&Error) -> bool) -> Result<Option<T>>;
}

impl<T> NoneIf<T> for Result<T> {
    fn none_if(self, is_answer: impl FnOnce(&Error) -> bool) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_answer(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &*self.0;
        if let Some(object) = &facts.object {
            write!(f, "{object}: ")?;
        }
        if let Some(step) = facts.step {
            write!(f, "saving step {step}: ")?;
        }
        if let Some((what, name)) = &facts.entry {
            write!(f, "{what} {name}: ")?;
        }
        f.write_str(&facts.what)?;
        if let Some(byte) = facts.byte {
            write!(f, " at byte {byte}")?;
        }
        match (&facts.expected, &facts.found) {
            (Some(expected), Some(found)) => write!(f, ": expected {expected}, found {found}")?,
            (Some(expected), None) => write!(f, ": expected {expected}")?,
            (None, Some(found)) => write!(f, ": found {found}")?,
            (None, None) => {}
        }
        match &facts.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `unwrap` and a `main` that returns an error print Debug, where the whole readable chain
        // is worth more.
        write!(f, "{self} [{}]", self.0.kind.as_str())?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

/// A cause that others keep, too; it prints as the error itself.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_what_expected_found_and_what_to_do() {
        let error = Error::damaged("checksum of chunk 3")
            .at_byte(81920)
            .expected("5b7711e0")
            .found("9f1c02aa")
            .help("resume from an older checkpoint")
            .in_tensor("conv1.weight")
            .in_object("runs/lenet/0001-0000001200.tkeep");
        assert_eq!(
            error.to_string(),
            "runs/lenet/0001-0000001200.tkeep: tensor conv1.weight: checksum of chunk 3 at byte 81920: \
             expected 5b7711e0, found 9f1c02aa; resume from an older checkpoint"
        );
        assert_eq!((error.tensor(), error.record()), (Some("conv1.weight"), None));
        assert_eq!((error.expected_value(), error.found_value()), (Some("5b7711e0"), Some("9f1c02aa")));
        assert_eq!(error.advice(), Some("resume from an older checkpoint"));
        assert_eq!(Error::invalid("x").in_record("optimizer").record(), Some("optimizer"));
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures_and_keeps_its_code() {
        let error = Error::io("write", io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.raw_os_error(), Some(28));
        assert!(!error.to_string().contains("os error"), "the source is not printed twice: {error}");
    }

    #[test]
    fn a_failed_save_says_which_step_and_which_call() {
        let error =
            Error::io("fsync", io::Error::from_raw_os_error(5)).in_save_of_step(1200).in_object("run");
        assert_eq!(error.to_string(), "run: saving step 1200: fsync");
        assert_eq!((error.step(), error.raw_os_error()), (Some(1200), Some(5)));
    }

    #[test]
    fn the_layer_nearest_to_the_fault_names_the_object() {
        let error = Error::invalid("x").in_object("inner").in_object("outer");
        assert_eq!(error.object(), Some("inner"));
    }
}
