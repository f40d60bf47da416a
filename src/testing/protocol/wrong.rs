//! What the engine answers, and protocols that are wrong on purpose: each does one thing that a hurried author does.
//! A model that lets one of these pass proves nothing of the right one.

use super::replay::{Call, Content, Reply};
use super::{Locks, Search, World, promises};
use crate::engine::Entry;
use crate::error::ErrorKind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WrongProtocol {
    /// The commit of a checkpoint replaces what has the name already.
    CommitReplaces,
    /// Taking an attempt number is no create-once: the last one to write it has it, and so has the first.
    AttemptsAreShared,
    /// Whether a newer attempt was taken is not asked before the commit.
    NoCheckBeforeCommit,
    /// Whether a newer attempt was taken is not asked behind the commit.
    NoCheckAfterCommit,
    /// The old checkpoints are deleted before the new one is committed.
    DeleteBeforeCommit,
    /// The name is taken by an empty object while the content is being written.
    ReserveKey,
    /// The lock is given to everybody.
    LockForEverybody,
}

impl WrongProtocol {
    /// Every mistake there is.
    pub const ALL: [Self; 7] = [
        Self::CommitReplaces,
        Self::AttemptsAreShared,
        Self::NoCheckBeforeCommit,
        Self::NoCheckAfterCommit,
        Self::DeleteBeforeCommit,
        Self::ReserveKey,
        Self::LockForEverybody,
    ];
}

/// How far a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Opening,
    Saving,
    Committed,
}

type Answer = (Arc<BTreeMap<String, Content>>, Reply);

impl Search<'_> {
    /// Whether a commit to a taken key replaces what is there.
    pub(super) fn replaces(&self, key: &str) -> bool {
        match self.wrong {
            Some(WrongProtocol::CommitReplaces) => promises::name(key).is_some(),
            Some(WrongProtocol::AttemptsAreShared) => key.starts_with("attempts/"),
            _ => false,
        }
    }

    /// What the engine holds behind a call, and what it says to it.
    pub(super) fn answer(&self, world: &World, process: usize, call: &Call) -> Answer {
        let unchanged = |reply| (Arc::clone(&world.objects), reply);
        let changed = |change: &dyn Fn(&mut BTreeMap<String, Content>)| {
            let mut objects = (*world.objects).clone();
            change(&mut objects);
            (Arc::new(objects), Reply::Done)
        };
        let there = |key: &String| world.objects.get(key);
        match call {
            Call::Create(key) if there(key).is_some() && !self.replaces(key) => {
                unchanged(Reply::Failed(ErrorKind::AlreadyExists))
            }
            Call::Create(key) => match self.wrong {
                Some(WrongProtocol::DeleteBeforeCommit) if promises::name(key).is_some() => {
                    changed(&|objects| objects.retain(|key, _| promises::name(key).is_none()))
                }
                Some(WrongProtocol::ReserveKey) => {
                    changed(&|objects| drop(objects.insert(key.clone(), Content(Arc::default()))))
                }
                _ => unchanged(Reply::Done),
            },
            Call::Commit(key, content) => {
                let reserved = there(key).is_some_and(|content| content.0.is_empty());
                if there(key).is_some() && !reserved && !self.replaces(key) {
                    return unchanged(Reply::Failed(ErrorKind::AlreadyExists));
                }
                changed(&|objects| drop(objects.insert(key.clone(), content.clone())))
            }
            Call::Delete(key) if there(key).is_some() => changed(&|objects| drop(objects.remove(key))),
            Call::Open(key) if there(key).is_some() => {
                unchanged(there(key).map_or(Reply::Done, |content| Reply::Opened(content.clone())))
            }
            Call::Delete(_) | Call::Open(_) => unchanged(Reply::Failed(ErrorKind::NotFound)),
            Call::List(folder) => unchanged(Reply::Listed(self.listing(world, process, folder))),
            Call::Lock => unchanged(match world.holder {
                Some(_) if self.lock_is_honest() => Reply::Failed(ErrorKind::Locked),
                _ => Reply::Done,
            }),
            Call::Unlock => unchanged(Reply::Done),
        }
    }

    fn lock_is_honest(&self) -> bool {
        self.case.locks == Locks::Honest && self.wrong != Some(WrongProtocol::LockForEverybody)
    }

    fn listing(&self, world: &World, process: usize, folder: &str) -> Vec<Entry> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let known = self.histories.known(world.at[process].node());
        let is_blind = match known.phase {
            Phase::Opening => false,
            Phase::Saving => self.wrong == Some(WrongProtocol::NoCheckBeforeCommit),
            Phase::Committed => self.wrong == Some(WrongProtocol::NoCheckAfterCommit),
        };
        let seen = |key: &str| {
            let attempt = key.strip_prefix("attempts/").and_then(|number| number.parse::<u32>().ok());
            !is_blind || attempt <= known.attempt
        };
        let directly = world.objects.iter().filter(|(key, _)| {
            key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')) && seen(key)
        });
        directly.map(|(key, content)| Entry { key: key.clone(), len: content.0.len() as u64 }).collect()
    }
}
