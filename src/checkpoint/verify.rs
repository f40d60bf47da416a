//! Verifying a whole file: every chunk, every byte of padding, index and mirror. With header and footer, which opening
//! verifies, no byte of the file is left out.

use super::Checkpoint;
use super::stretch::{Stretch, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use std::sync::{Mutex, PoisonError};

/// Bytes that a thread draws at a time.
const BATCH: u64 = 4 << 20;

/// What verifying a whole file found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Tensors looked at, ties counted once.
    pub tensors: usize,
    /// Records looked at.
    pub records: usize,
    /// Chunks verified.
    pub chunks: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is damaged, in the order of the file. Empty means: every byte is as it was written.
    pub damage: Vec<Error>,
}

impl Checkpoint {
    /// Verifies every byte of the file, whatever was verified before.
    ///
    /// # Errors
    /// `Damaged` with the first damage, `Io`.
    pub fn verify(&self) -> Result<Report> {
        let mut report = self.report()?;
        if report.damage.is_empty() { Ok(report) } else { Err(report.damage.swap_remove(0)) }
    }

    /// As [`Checkpoint::verify`], but damage is collected, all of it.
    ///
    /// # Errors
    /// `Io`.
    pub fn report(&self) -> Result<Report> {
        let damage = Mutex::new(Vec::new());
        let len = |stretch: &Stretch| stretch.range.end - stretch.range.start;
        let batches = pipeline::batches(self.stretches(), BATCH, len).enumerate();
        pipeline::each(
            self.workers_for(self.len_bytes()),
            batches,
            Window::default,
            |window, (batch, all)| {
                window.ahead_to = all.last().map_or(0, |last| last.range.end);
                all.into_iter().try_for_each(|stretch| match self.verified_bytes(&stretch, window) {
                    Err(error) if error.kind() == ErrorKind::Damaged => {
                        damage.lock().unwrap_or_else(PoisonError::into_inner).push((batch, error));
                        Ok(())
                    }
                    verified => verified.map(drop),
                })
            },
        )?;
        let mut damage = damage.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Stable: within a batch one thread went through the file in order.
        damage.sort_by_key(|(batch, _)| *batch);
        Ok(Report {
            tensors: self.index.tensors.len(),
            records: self.index.records.len(),
            chunks: self.index.tensors.chunk_count() + self.index.records.chunk_count(),
            bytes: self.len_bytes(),
            damage: damage.into_iter().map(|(_, error)| error).collect(),
        })
    }
}
