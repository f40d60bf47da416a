//! How the processes of a start find each other. Each leaves a slot with a number of its own; rank
//! 0 waits for all and creates, once, the object that says whom the job consists of. A process that
//! is not in it does not take part, so one process plays each rank.

use super::{Wait, bytes_of, later};
use crate::collective::{hand, lost, take};
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, NoneIf, Result};
use crate::format::records;
use crate::names::hex;
use crate::store::small;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

const FOLDER: &str = "ranks";
/// Of the object that rank 0 creates: 1,024 ranks take 40 KB.
const LONGEST: u64 = 1 << 20;

/// Whom a start consists of.
#[derive(Serialize, Deserialize)]
struct Start {
    /// The numbers of the processes, by rank.
    members: Vec<String>,
    /// An error, as bytes, if it did not begin.
    refusal: Option<Vec<u8>>,
}

/// Joins; returns the folder of the start's messages.
pub(super) fn join(
    engine: &dyn Engine,
    (rank, world): (u32, u32),
    job: &str,
    deadline: Instant,
) -> Result<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if job.is_empty() || job.len() > 64 || !job.bytes().all(is_name) {
        return Err(Error::invalid("name of a start of a job")
            .expected("1 to 64 letters, digits, - and _")
            .found(job));
    }
    let own = hex(&fresh_nonce());
    let joining = Joining { engine, rank, world, job, own };
    let start = if rank == 0 { joining.lead(deadline)? } else { joining.follow(deadline)? };
    if start.members.get(rank as usize) != Some(&joining.own) {
        return Err(joining.refused("it has begun without this process"));
    }
    Ok(format!("{FOLDER}/{}", start.members[0]))
}

/// The folder of the second connection's messages.
pub(super) fn second(folder: &str) -> String {
    format!("{folder}.second")
}

struct Joining<'j> {
    engine: &'j dyn Engine,
    rank: u32,
    world: u32,
    job: &'j str,
    /// This process's number.
    own: String,
}

impl Joining<'_> {
    fn start_key(&self) -> String {
        format!("{FOLDER}/{}.start", self.job)
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Fenced,
            format!("rank {} does not join start {:?} of the job", self.rank, self.job),
        )
        .found(why)
        .help("give each start a name of its own, such as a scheduler's job id and its restart count")
    }

    fn start(&self) -> Result<Option<Start>> {
        let content =
            small::read(self.engine, &self.start_key(), LONGEST, |content| decoded(content).is_ok())
                .none_if(|error| error.kind() == ErrorKind::NotFound)?;
        content.map(|content| decoded(&content)).transpose()
    }

    /// Another rank: leaves its slot, and waits for the start.
    fn follow(&self, deadline: Instant) -> Result<Start> {
        let slot = format!("{FOLDER}/{}.r{:05}.w{:05}.x{}", self.job, self.rank, self.world, self.own);
        let is_unknown = |error: &Error| error.kind() == ErrorKind::Unknown;
        self.engine.mark(&slot).none_if(is_unknown)?;
        let mut wait = Wait::until(later(deadline), self.world);
        let start = loop {
            match self.start() {
                Ok(Some(start)) => break Ok(start),
                Err(error) => break Err(error),
                Ok(None) if wait.pause() => {}
                Ok(None) => break Err(lost(&[0], "joining the job")),
            }
        };
        let _ = self.engine.unmark(&slot);
        let start = start?;
        start.refusal.as_deref().map_or(Ok(()), take)?;
        Ok(start)
    }

    /// Rank 0: waits for everybody, and tells.
    fn lead(&self, deadline: Instant) -> Result<Start> {
        let members = self.members(deadline);
        let refusal = members.as_ref().err().map(hand);
        let start = Start { members: members.as_ref().map(Clone::clone).unwrap_or_default(), refusal };
        // A second rank 0 says that it is one, before it says which ranks are missing.
        self.tell(&start)?;
        members?;
        Ok(start)
    }

    fn tell(&self, start: &Start) -> Result<()> {
        let content = records::encode(start)?;
        let mut upload = self
            .engine
            .create(&self.start_key(), Some(content.len() as u64))
            .map_err(|error| self.taken(error))?;
        upload.append(&content)?;
        match upload.commit(fresh_nonce()).map_err(Error::from) {
            Err(error) if error.kind() == ErrorKind::Unknown => match self.start()? {
                Some(there) if there.members.first() == Some(&self.own) => Ok(()),
                _ => Err(error),
            },
            told => told.map_err(|error| self.taken(error)),
        }
    }

    fn taken(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::AlreadyExists => self.refused("another process is its rank 0").because(error),
            _ => error,
        }
    }

    /// The numbers of all processes, by rank.
    fn members(&self, deadline: Instant) -> Result<Vec<String>> {
        let mut wait = Wait::until(deadline, self.world);
        loop {
            let mut members = BTreeMap::from([(0, self.own.clone())]);
            for entry in self.engine.list(FOLDER)? {
                let Some((rank, world, process)) = self.slot(&entry.key) else { continue };
                if world != self.world || rank >= world || rank == 0 {
                    return Err(self.refused(&format!("rank {rank} of {world}, in a job of {}", self.world)));
                }
                if members.insert(rank, process).is_some() {
                    return Err(self.refused(&format!("two processes are rank {rank}")));
                }
            }
            if members.len() as u64 == u64::from(self.world) {
                return Ok(members.into_values().collect());
            }
            if !wait.pause() {
                let missing: Vec<u32> = (0..self.world).filter(|rank| !members.contains_key(rank)).collect();
                return Err(lost(&missing, "joining the job"));
            }
        }
    }

    /// Rank, world and number of the process of a slot of this start.
    fn slot(&self, key: &str) -> Option<(u32, u32, String)> {
        let mut parts = key
            .strip_prefix(FOLDER)?
            .strip_prefix('/')?
            .strip_prefix(self.job)?
            .strip_prefix('.')?
            .split('.');
        let rank = parts.next()?.strip_prefix('r')?.parse().ok()?;
        let world = parts.next()?.strip_prefix('w')?.parse().ok()?;
        let process = parts.next()?.strip_prefix('x')?;
        bytes_of(process)?;
        Some((rank, world, process.to_owned()))
    }
}

fn decoded(content: &[u8]) -> Result<Start> {
    records::decode_owned(content)
}
