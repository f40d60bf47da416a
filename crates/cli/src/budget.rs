//! How much a file may unfold to: a legal one of a few hundred KiB can claim a terabyte, and nobody
//! waits for that by accident.

use crate::opened::{Meta, Opened};
use crate::output;
use std::path::Path;
use tensorkeep::convert::Foreign;
use tensorkeep::{Error, ErrorKind, OpenOptions, Result};

/// What any file's tensors may decode to: less than half a minute's work, and more than a small
/// model needs.
const VALUES: u64 = 16 << 30;
/// And how many times its length: zeros of an optimizer that has not begun are a large share of
/// some files.
const TIMES: u64 = 64;

/// The `--budget` of a verb, or its defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget(pub Option<u64>);

impl Budget {
    /// For checkpoints: bounds one tensor, one record as values, and the index.
    pub fn options(self) -> OpenOptions {
        self.0.map_or(OpenOptions::new(), |most| OpenOptions::new().budget(most))
    }

    /// A file of any format that is known, told by its content.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Foreign::open`].
    pub fn open(self, path: &Path) -> Result<Opened> {
        match Foreign::sniff(path)? {
            Some(_) => match self.0 {
                Some(most) => Foreign::open_within(path, most),
                None => Foreign::open(path),
            }
            .map(Opened::Foreign),
            // The error of an unknown file lists all formats that can be read.
            None => self.options().open(path).map(Opened::Own).map_err(|error| {
                let told = (error.kind() == ErrorKind::Foreign).then(|| Foreign::open(path).err());
                told.flatten().unwrap_or(error)
            }),
        }
    }

    /// Refuses tensors that decode to more than is allowed, before the first byte of them is read.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn check<'m>(self, opened: &Opened, metas: impl IntoIterator<Item = &'m Meta>) -> Result<()> {
        let own = metas.into_iter().filter(|meta| meta.alias_of.is_none());
        self.check_bytes(opened, own.fold(0, |all, meta| all.saturating_add(meta.byte_len)))
    }

    /// As [`Budget::check`], for so many bytes of values.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn check_bytes(self, opened: &Opened, bytes: u64) -> Result<()> {
        self.check_len(opened.name(), opened.byte_len(), bytes)
    }

    /// As [`Budget::check_bytes`], for a file of this name and length.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn check_len(self, name: &str, len: u64, bytes: u64) -> Result<()> {
        let most = self.0.unwrap_or(VALUES.saturating_add(len.saturating_mul(TIMES)));
        if bytes <= most {
            return Ok(());
        }
        let error = Error::new(ErrorKind::LimitExceeded, "bytes of the values that are asked for")
            .expected(format!("at most the budget of {}", output::size(most)))
            .found(format!("{} in a file of {}", output::size(bytes), output::size(len)));
        Err(error.help("choose some of them, or allow more by --budget").in_object(name))
    }
}
