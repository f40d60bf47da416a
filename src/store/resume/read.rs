//! Reads one checkpoint to resume from, byte for byte, in its tier.

use crate::checkpoint::Checkpoint;
use crate::error::{ErrorKind, Result};
use crate::snapshot::Progress;
use crate::store::copy::CopyOutcome;
use crate::store::core::Core;
use crate::store::damage::is_damage;
use crate::store::naming::CheckpointId;
use crate::store::tiers::Tier;

/// How often a checkpoint is read whose fault is another one each time.
const MOST_READS: usize = 5;

impl Core {
    /// Reads and verifies a checkpoint, and again if the bytes are at fault, until two reads in a
    /// row find the same fault: a checkpoint set aside for wrong answers, of a proxy, a network
    /// card or a bad page of memory, would be lost to this run for good.
    pub(super) fn read_until_agreed(&self, id: CheckpointId, tier: Tier) -> Result<(Checkpoint, Progress)> {
        let read = || self.open_in(tier, id).and_then(|checkpoint| self.verified(checkpoint, id));
        let mut before = None;
        for _ in 1..MOST_READS {
            match read() {
                Err(error) if is_damage(&error) && error.kind() != ErrorKind::Io => {
                    let fault = Some(error.to_string());
                    if fault == before {
                        return Err(error);
                    }
                    before = fault;
                }
                verified => return verified,
            }
        }
        read()
    }

    /// Opens a checkpoint in its tier, for reading. If only the remote tier has it, it is fetched
    /// to the local one on the way: one read over the network is enough.
    fn open_in(&self, tier: Tier, id: CheckpointId) -> Result<Checkpoint> {
        let remote = match self.reader_of(tier) {
            Some(remote) if tier == Tier::Remote => remote,
            _ => return self.reader.open_to_read(id),
        };
        match remote.copy_to(id, &self.reader, |_| ()) {
            Ok(CopyOutcome::Written(_)) => self.reader.open_to_read(id),
            // The local copy was tried before, and is damaged or about to be deleted: its bytes say
            // nothing about the remote ones.
            Ok(CopyOutcome::AlreadyThere) => remote.checkpoint_by_id(id),
            Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => Err(error),
            // If there is no room for it in the local tier, read it from the remote one.
            Err(_) => remote.checkpoint_by_id(id),
        }
    }

    /// Verifies by reading, even if the file is then mapped: a bad sector fails a read, but kills
    /// the process under a mapping.
    fn verified(&self, read: Checkpoint, id: CheckpointId) -> Result<(Checkpoint, Progress)> {
        match &self.ranks {
            None => drop(read.verify()?),
            Some(ranks) => ranks.verify_together(&read, id)?,
        }
        let progress = read.progress()?.unwrap_or(Progress::new(id.step));
        Ok((self.reader.map_verified(read, id)?, progress))
    }
}
