//! Ranks resume from the same checkpoint: rank 0 chooses as a store of one rank does, and each
//! candidate is verified by all of them, a share of its shards each. Nobody chooses by itself.

use super::{Ranks, copy_of};
use crate::checkpoint::Checkpoint;
use crate::collective::{hand, take};
use crate::deadline::CallDeadline;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records;
use crate::snapshot::Progress;
use crate::store::core::Core;
use crate::store::damage::is_damage;
use crate::store::naming::CheckpointId;
use crate::store::resumed::Resumed;
use crate::store::tiers::Tier;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What rank 0 says while it resumes.
#[derive(Serialize, Deserialize)]
enum Step {
    /// Verify a share of this checkpoint: attempt and step.
    Verify(u32, u64),
    /// Go on from this one, or from nothing.
    Go(Option<(u32, u64)>, Progress),
}

impl Ranks {
    /// Resumes as every rank does at once; `alone` is how rank 0 chooses.
    pub(in crate::store) fn resume(
        &self,
        core: &Core,
        step: Option<u64>,
        alone: impl FnOnce() -> Result<Resumed>,
    ) -> Result<Resumed> {
        let call = step.map_or_else(|| "resuming".to_owned(), |step| format!("resuming at step {step}"));
        let on = &*self.training;
        let resumed = match self.collect(on, &call, &Ok(vec![]))? {
            Some(all) => {
                let resumed = all.and_then(|_| alone());
                let go = |resumed: &Resumed| {
                    records::encode(&Step::Go(resumed.id.map(|id| (id.attempt, id.step)), resumed.progress))
                };
                let told = match &resumed {
                    Ok(resumed) => go(resumed),
                    Err(error) => Err(copy_of(error)),
                };
                self.announce(on, &told)?;
                resumed?
            }
            None => {
                let (id, progress) = self.verify_until_told(core)?;
                let resumed = core.timed(|| follow(core, id, progress));
                let told = resumed.as_ref().map(|_| vec![]).map_err(copy_of);
                self.exchange(on, OPENED, told, |_| Ok(vec![]))?;
                return resumed;
            }
        };
        self.exchange(on, OPENED, Ok(vec![]), |_| Ok(vec![]))?;
        Ok(resumed)
    }

    /// Verifies a checkpoint by all ranks. On rank 0, which chooses.
    pub(in crate::store) fn verify_together(&self, checkpoint: &Checkpoint, id: CheckpointId) -> Result<()> {
        if checkpoint.shard_refs().is_none() {
            return checkpoint.verify().map(drop);
        }
        let on = &*self.training;
        self.announce(on, &records::encode(&Step::Verify(id.attempt, id.step)))?;
        let own = checkpoint.verify_share(self.rank(), self.world());
        let told = own.as_ref().map(|()| vec![]).or_else(told_of);
        let waiting = Instant::now();
        let all = self.collect(on, VERIFYING, &told)?;
        if let Some(deadline) = CallDeadline::current() {
            // The others were busy, not the storage.
            deadline.extend(waiting.elapsed());
        }
        own?;
        let all = all.unwrap_or_else(|| Ok(vec![]))?;
        let damage = all.iter().enumerate().find(|(_, found)| !found.is_empty());
        damage.map_or(Ok(()), |(rank, found)| Err(damage_on(rank, self.world(), found)))
    }

    fn verify_until_told(&self, core: &Core) -> Result<(Option<CheckpointId>, Progress)> {
        let on = &*self.training;
        loop {
            match records::decode_owned(&self.hear(on)??)? {
                Step::Go(id, progress) => {
                    return Ok((id.map(|(attempt, step)| CheckpointId { attempt, step }), progress));
                }
                Step::Verify(attempt, step) => {
                    let id = CheckpointId { attempt, step };
                    let verified =
                        core.timed(|| core.reader.open_to_read(id)?.verify_share(self.rank(), self.world()));
                    let told = verified.map(|()| vec![]).or_else(|error| told_of(&error));
                    self.collect(on, VERIFYING, &told)?;
                }
            }
        }
    }
}

/// What a rank tells of an error in its share. Damage costs this checkpoint, and not the resume.
fn told_of(error: &Error) -> Result<Vec<u8>> {
    if is_damage(error) { Ok(hand(error)) } else { Err(copy_of(error)) }
}

/// The damage that a rank has found. That of a device stays one: what cannot be read today is
/// passed over, and not set aside.
fn damage_on(rank: usize, world: u32, found: &[u8]) -> Error {
    let error = take(found).err().unwrap_or_else(|| Error::damaged("a shard"));
    let words = format!("rank {rank} of {world}: {error}");
    match error.kind() {
        ErrorKind::Io => {
            let code = rustix::io::Errno::IO.raw_os_error();
            Error::io(words, std::io::Error::from_raw_os_error(code))
        }
        kind => Error::new(kind, words),
    }
}

const VERIFYING: &str = "verifying a checkpoint";
const OPENED: &str = "going on from the same checkpoint";

/// Goes on from what rank 0 chose.
fn follow(core: &Core, id: Option<CheckpointId>, progress: Progress) -> Result<Resumed> {
    let checkpoint = id.map(|id| core.reader.checkpoint_by_id(id)).transpose()?;
    core.known().resumed_from = id;
    core.begin();
    if id.is_some() {
        core.schedule_from(progress);
    }
    Ok(Resumed {
        checkpoint,
        id,
        tier: id.map(|_| Tier::Local),
        progress,
        skipped: vec![],
        remote_error: None,
    })
}
