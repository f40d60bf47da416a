//! Verifying a whole file: every chunk, every byte of padding, index and mirror. With header and footer, which opening
//! verifies, no byte of the file is left out. And handing on what was verified to a mapping of the same file.

use super::Checkpoint;
use super::stretch::{Stretch, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use std::sync::atomic::Ordering;
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

    /// The same checkpoint with every chunk remembered as verified, if `read` is the same file: same id, length and
    /// index. For a file that was verified by reading before it is mapped, so that a sector that cannot be read was an
    /// error there and is no signal here. The caller has verified all of `read` and opened both under one name; of another
    /// file nothing is remembered, and its chunks are verified on touch.
    pub(crate) fn trusting(self, read: &Self) -> Self {
        if self.is_copy_of(read) {
            self.verified.iter().for_each(|chunks| chunks.store(u64::MAX, Ordering::Relaxed));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::{Checkpoint, Codec, ErrorKind, Snapshot, WriteOptions};

    fn bytes(first: f32) -> Vec<u8> {
        let values: Vec<f32> = (0..50_000).map(|i| first + i as f32).collect();
        let mut snapshot = Snapshot::new();
        snapshot.tensor("w", &values).unwrap().record("r", &[7; 20]).unwrap();
        snapshot.to_bytes(&WriteOptions::new().chunk_log2(16).codec(Codec::Raw)).unwrap()
    }

    #[test]
    fn a_mapping_of_a_file_that_was_verified_verifies_no_more() {
        let read = Checkpoint::from_bytes(&bytes(0.0)).unwrap();
        read.verify().unwrap();
        // Changed behind the verification, which nothing but another verification can show.
        let mut changed = bytes(0.0);
        let at = read.info("w").unwrap().offset as usize;
        changed[at + 100_000] ^= 1;
        let untrusting = Checkpoint::from_bytes(&changed).unwrap();
        assert_eq!(untrusting.tensor("w").unwrap_err().kind(), ErrorKind::Damaged);
        let trusting = Checkpoint::from_bytes(&changed).unwrap().trusting(&read);
        assert!(trusting.tensor("w").unwrap().bytes() == &changed[at..at + 200_000]);
        assert_eq!(trusting.record::<[u8; 20]>("r").unwrap(), [7; 20]);
        assert_eq!(trusting.verify().unwrap_err().kind(), ErrorKind::Damaged, "asked for, it verifies");
        // Of another file nothing is taken on trust.
        let other = Checkpoint::from_bytes(&bytes(1.0)).unwrap();
        let untrusting = Checkpoint::from_bytes(&changed).unwrap().trusting(&other);
        assert_eq!(untrusting.tensor("w").unwrap_err().kind(), ErrorKind::Damaged);
    }
}
