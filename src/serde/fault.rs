//! The error type of the serializers: a message of serde or of a type, or an error of this library
//! that keeps its kind and facts.

use crate::error::{Error, ErrorKind};
use std::fmt::{self, Display};

pub(super) enum Fault {
    Said(String),
    Ours(Error),
}

impl Fault {
    /// Converts it to an error of this library, with the path within the value.
    pub fn at(self, path: &str, kind: ErrorKind) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Said(text) if path.is_empty() => Error::new(kind, text),
            Self::Said(text) => Error::new(kind, format!("{path}: {text}")),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// Writing MessagePack into memory does not fail; this converts the error all the same.
impl From<rmp::encode::ValueWriteError> for Fault {
    fn from(error: rmp::encode::ValueWriteError) -> Self {
        Self::Said(error.to_string())
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(text) => f.write_str(text),
            Self::Ours(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Fault {}

impl serde::ser::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::Said(text.to_string())
    }
}

impl serde::de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::Said(text.to_string())
    }
}
