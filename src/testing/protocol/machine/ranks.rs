//! The connection of a replayed rank with the others of its job. A message, once posted, stays; to
//! wait for messages is one step, which nobody can take before they are there. After a wait that
//! failed every later call fails.

use super::Replayed;
use crate::collective::{Collective, lost};
use crate::error::Result;
use crate::sync::lock;
use crate::testing::protocol::calls::{Call, Content, Reply};
use std::sync::Mutex;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct ReplayedRanks {
    process: Replayed,
    job: &'static str,
    rank: u32,
    world: u32,
    /// Calls so far; None after a failure.
    calls: Mutex<Option<u32>>,
}

impl ReplayedRanks {
    pub fn new(process: Replayed, job: &'static str, rank: u32, world: u32) -> Self {
        Self { process, job, rank, world, calls: Mutex::new(Some(0)) }
    }

    /// The keys of the messages of these ranks at the next call.
    fn next(&self, of: impl Iterator<Item = u32>) -> Result<Vec<String>> {
        let mut calls = lock(&self.calls);
        let call = calls.ok_or_else(|| lost(&[], "at this call, after an earlier one failed"))?;
        *calls = Some(call + 1);
        Ok(of.map(|rank| format!("{} call {call} rank {rank}", self.job)).collect())
    }

    fn post(&self, bytes: &[u8]) -> Result<()> {
        for key in self.next([self.rank].into_iter())? {
            self.process.ask(Call::Post(key, Content::new(bytes)));
        }
        Ok(())
    }

    fn hear(&self, from: impl Iterator<Item = u32> + Clone) -> Result<Vec<Vec<u8>>> {
        match self.process.ask(Call::Await(self.next(from.clone())?)) {
            Reply::Heard(messages) => Ok(messages.iter().map(|message| message.bytes.to_vec()).collect()),
            _ => {
                *lock(&self.calls) = None;
                Err(lost(&from.collect::<Vec<_>>(), "at this call"))
            }
        }
    }
}

impl Collective for ReplayedRanks {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn gather(&self, bytes: &[u8], _: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        if self.rank != 0 {
            return self.post(bytes).map(|()| None);
        }
        let others = self.hear(1..self.world)?;
        Ok(Some([vec![bytes.to_vec()], others].concat()))
    }

    fn broadcast(&self, bytes: Option<&[u8]>, _: Instant) -> Result<Vec<u8>> {
        match bytes {
            Some(bytes) => self.post(bytes).map(|()| bytes.to_vec()),
            None => Ok(self.hear([0].into_iter())?.concat()),
        }
    }
}
