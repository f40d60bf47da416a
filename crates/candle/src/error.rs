//! Errors of one library as errors of the other.

use tensorkeep::{Error, ErrorKind};

/// An error of candle, as the cause of one of tensorkeep.
pub(crate) fn from_candle(what: &'static str, error: candle_core::Error) -> Error {
    Error::new(ErrorKind::Invalid, what).because(error)
}

/// An error of tensorkeep with its causes, for a caller that knows candle's only.
pub(crate) fn to_candle(error: Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}
