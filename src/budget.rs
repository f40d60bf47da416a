//! The bytes of memory that reading one untrusted file may take beyond the file itself.
//!
//! Small files can describe large values: a pickle recalls one text a million times, a header names
//! a tensor of a terabyte. Readers therefore charge an allocation *before* they make it, in bytes
//! and not in objects, and stop where the budget ends.

use crate::error::{Error, ErrorKind, Result};
use std::cell::Cell;

/// The base that any file may take, however small it is.
const BASE: u64 = 64 << 20;
/// The bytes that a file may take for each of its own bytes.
const PER_BYTE: u64 = 8;

/// Bytes that may still be taken. It is shared by reference between the readers of one file.
#[derive(Debug)]
pub struct Budget {
    total: Cell<u64>,
    spent: Cell<u64>,
    /// Whether the total follows from the lengths of the files, rather than from the caller.
    is_default: bool,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(total: u64) -> Self {
        Self { total: Cell::new(total), spent: Cell::new(0), is_default: false }
    }

    /// The caller's budget, or the default for a file of `len` bytes: 64 MiB, and 8 for each byte
    /// of the file.
    pub fn for_file(asked: Option<u64>, len: u64) -> Self {
        let default = BASE.saturating_add(len.saturating_mul(PER_BYTE));
        Self { is_default: asked.is_none(), ..Self::new(asked.unwrap_or(default)) }
    }

    /// Opens another file of the same model: the default grows by 8 for each of its bytes. A budget
    /// set by the caller stays as it is.
    pub fn add_file(&self, len: u64) {
        if self.is_default {
            self.total.set(self.total.get().saturating_add(len.saturating_mul(PER_BYTE)));
        }
    }

    /// Takes `bytes` for `what`, which the error names if the budget is too small.
    ///
    /// # Errors
    /// `LimitExceeded` with the budget, what would be needed, and what to do.
    pub fn spend(&self, bytes: u64, what: &'static str) -> Result<()> {
        let spent = self.spent.get().saturating_add(bytes);
        if spent > self.total.get() {
            return Err(self.exceeded(spent, what));
        }
        self.spent.set(spent);
        Ok(())
    }

    /// As [`Budget::spend`], for `count` values of type `T`.
    ///
    /// # Errors
    /// As [`Budget::spend`].
    pub fn spend_values<T>(&self, count: usize, what: &'static str) -> Result<()> {
        self.spend((count as u64).saturating_mul(size_of::<T>() as u64), what)
    }

    /// Whether this many bytes could be spent.
    pub fn has(&self, bytes: u64) -> bool {
        bytes <= self.rest()
    }

    /// Bytes that are left.
    pub fn rest(&self) -> u64 {
        self.total.get().saturating_sub(self.spent.get())
    }

    /// Bytes that were taken.
    pub fn spent(&self) -> u64 {
        self.spent.get()
    }

    fn exceeded(&self, needed: u64, what: &'static str) -> Error {
        Error::new(ErrorKind::LimitExceeded, format!("{what} would take more memory than the budget"))
            .expected(format!("at most {} bytes", self.total.get()))
            .found(format!("{needed} bytes so far"))
            .help("if the file is trusted, open it with a larger budget")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_to_its_last_byte_and_not_further() {
        let budget = Budget::new(16);
        budget.spend_values::<u64>(1, "a number").unwrap();
        let error = budget.spend(9, "a text").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("a text") && error.to_string().contains("17 bytes"), "{error}");
        assert!(budget.has(8) && !budget.has(9));
        budget.spend(8, "the rest").unwrap();
        assert!(budget.spend(u64::MAX, "anything").is_err());
        assert_eq!(Budget::for_file(None, u64::MAX).rest(), u64::MAX);
    }
}
