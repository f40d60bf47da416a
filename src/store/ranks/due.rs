//! Whether a save is due, as all ranks ask at once: rank 0 decides, and a signal at any rank counts
//! as if every rank had received it. So all ranks save, and stop, at the same step.

use super::Ranks;
use crate::error::Result;
use crate::format::records;
use crate::snapshot::Progress;
use crate::store::core::Core;
use crate::store::schedule::SaveReason;
use crate::store::signals::Asked;
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Rank 0's answer.
#[derive(Serialize, Deserialize)]
struct Answer {
    reason: Option<SaveReason>,
    asked: Asked,
}

impl Ranks {
    /// What rank 0 decides. A failure is returned by the next save, which is due at once.
    pub(in crate::store) fn due(&self, core: &Core, progress: Progress) -> Option<SaveReason> {
        self.ask(core, progress).unwrap_or_else(|error| {
            lock(&self.failure).get_or_insert(error);
            Some(SaveReason::Again)
        })
    }

    fn ask(&self, core: &Core, progress: Progress) -> Result<Option<SaveReason>> {
        let call = format!("whether to save at step {}, epoch {}", progress.step, progress.epoch);
        let own = records::encode(&core.lock_schedule().asked_here());
        let now = Instant::now();
        let answer = self.exchange(&*self.training, &call, own, |all| {
            let mut schedule = core.lock_schedule();
            let asked: Result<Vec<Asked>> = all.iter().map(|bytes| records::decode_owned(bytes)).collect();
            let asked = schedule.asked_by_all(&asked?);
            schedule.learn(|| core.last_save.cost(), core.options.in_flight);
            let reason = schedule.due(progress, now);
            records::encode(&Answer { reason, asked })
        })?;
        let Answer { reason, asked } = records::decode_owned(&answer)?;
        if !self.is_root() {
            let mut schedule = core.lock_schedule();
            schedule.agree(asked);
            schedule.due_as_decided(progress, now, reason.clone());
        }
        Ok(reason)
    }
}
