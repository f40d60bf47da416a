//! The bytes of a pickle, read from front to back.

use super::text::bad;
use crate::error::Result;

pub struct Input<'p> {
    bytes: &'p [u8],
    /// Offset of the next byte.
    pub at: usize,
}

impl<'p> Input<'p> {
    pub fn new(bytes: &'p [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn take(&mut self, len: u64) -> Result<&'p [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or_else(|| bad("cut short"))?;
        self.at += taken.len();
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<&'p [u8; N]> {
        self.take(N as u64)?.first_chunk().ok_or_else(|| bad("cut short"))
    }

    pub fn number(&mut self, width: usize) -> Result<u64> {
        Ok(self.take(width as u64)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    pub fn counted(&mut self, width: usize) -> Result<&'p [u8]> {
        let len = self.number(width)?;
        self.take(len)
    }

    pub fn line(&mut self) -> Result<&'p [u8]> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| bad("a line without an end"))?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    pub fn text_line(&mut self) -> Result<&'p str> {
        std::str::from_utf8(self.line()?).map_err(|error| bad("a line that is no text").because(error))
    }
}
