//! The identity of a run: 128 random bits, that distinguish two runs even if their
//! folders have the same name.

use crate::engine::{Nonce, fresh_nonce};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which run a checkpoint belongs to. Prints as 32 lowercase hexadecimal digits.
///
/// It is created with the run, in an object of its own, and recorded in every checkpoint, so that a
/// copy of a run is the same run and another run in the same folder is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Nonce);

impl RunId {
    pub(super) fn fresh() -> Self {
        Self(fresh_nonce())
    }

    pub(super) fn of(nonce: Nonce) -> Self {
        Self(nonce)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let number = (text.len() == 32 && text.bytes().all(is_hex)).then(|| u128::from_str_radix(text, 16));
        match number {
            Some(Ok(number)) => Ok(Self(number.to_be_bytes())),
            _ => Err(Error::damaged("is no identity of a run").expected("32 lowercase hexadecimal digits")),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}
