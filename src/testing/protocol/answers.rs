//! The replies of an engine, of the right protocol and of wrong ones.

use super::calls::{Call, Content, Objects, Reply, checkpoint};
use super::case::Locks;
use super::programs::REMOTE;
use super::replay::{Known, Phase};
use super::world::World;
use super::{Search, WrongProtocol};
use crate::engine::Entry;
use crate::error::ErrorKind;
use std::sync::Arc;

type Answer = (Arc<Objects>, Reply);

impl Search<'_> {
    /// Whether a commit to a taken key replaces the object.
    pub(super) fn replaces(&self, key: &str) -> bool {
        match self.wrong {
            Some(WrongProtocol::CommitReplaces) => checkpoint(key).is_some(),
            Some(WrongProtocol::AttemptsAreShared) => key.starts_with("attempts/"),
            Some(WrongProtocol::ShardsOfAllAttempts) => key.starts_with("shards/"),
            _ => false,
        }
    }

    /// The objects of the engine after a call, and the reply to it.
    pub(super) fn answer(&self, world: &World, process: usize, call: &Call) -> Answer {
        let unchanged = |reply| (Arc::clone(&world.objects), reply);
        let changed = |change: &dyn Fn(&mut Objects)| {
            let mut objects = (*world.objects).clone();
            change(&mut objects);
            (Arc::new(objects), Reply::Done)
        };
        let there = |key: &String| world.objects.get(key);
        let taken = unchanged(Reply::Failed(ErrorKind::AlreadyExists));
        match call {
            Call::Create(key) if there(key).is_some() && !self.replaces(key) => taken,
            Call::Create(key) => match self.wrong {
                Some(WrongProtocol::DeleteBeforeCommit) if checkpoint(key).is_some() => {
                    changed(&|objects| objects.retain(|key, _| checkpoint(key).is_none()))
                }
                Some(WrongProtocol::ReserveKey) => {
                    changed(&|objects| drop(objects.insert(key.clone(), Content::new(&[]))))
                }
                _ => unchanged(Reply::Done),
            },
            Call::Commit(key, content) => {
                let reserved = self.wrong == Some(WrongProtocol::ReserveKey)
                    && there(key).is_some_and(|content| content.bytes.is_empty());
                if there(key).is_some() && !reserved && !self.replaces(key) {
                    return taken;
                }
                changed(&|objects| self.put(objects, key, content))
            }
            Call::Mark(key) | Call::Unmark(key) if self.is_lost(key) => unchanged(Reply::Done),
            Call::Mark(key) if there(key).is_some() => taken,
            Call::Mark(key) => changed(&|objects| self.mark(objects, key)),
            Call::Delete(key) | Call::Unmark(key) if there(key).is_some() => {
                changed(&|objects| drop(objects.remove(key)))
            }
            Call::Open(key) => unchanged(match self.content(world, process, key) {
                Some(content) => Reply::Opened(content.clone()),
                None => Reply::Failed(ErrorKind::NotFound),
            }),
            Call::Rename(_, to) if there(to).is_some() => taken,
            Call::Rename(from, to) if there(from).is_some() => changed(&|objects| {
                let moved = objects.remove(from).map(|content| (to.clone(), content));
                objects.extend(moved);
            }),
            Call::Delete(_) | Call::Unmark(_) | Call::Rename(..) => {
                unchanged(Reply::Failed(ErrorKind::NotFound))
            }
            Call::List(_) | Call::ListEach(_) => {
                unchanged(Reply::Listed(self.listings(&world.objects, world, process, call)))
            }
            Call::Lock => unchanged(match world.holder {
                Some(_) if self.lock_is_honest() => Reply::Failed(ErrorKind::Locked),
                _ => Reply::Done,
            }),
            Call::Unlock | Call::Choose(_) | Call::Post(..) | Call::Await(_) => unchanged(Reply::Done),
        }
    }

    /// Carries out the setting of a mark.
    fn mark(&self, objects: &mut Objects, key: &str) {
        objects.insert(key.to_owned(), Content::new(&[]));
        let id = key.split_once(".deletes.").map(|(_, id)| format!("/{id}-"));
        if let (Some(WrongProtocol::ShardsDeletedFirst), Some(id)) = (self.wrong, id) {
            objects.retain(|key, _| !(key.starts_with("shards/") && key.contains(&id)));
        }
    }

    /// Carries out a commit.
    fn put(&self, objects: &mut Objects, key: &str, content: &Content) {
        if self.wrong == Some(WrongProtocol::ShardsAfterTheReceipt) && key.starts_with("shards/") {
            return;
        }
        objects.insert(key.to_owned(), content.clone());
        if self.wrong == Some(WrongProtocol::HiddenForAWhile) && checkpoint(key).is_some() {
            objects.retain(|key, _| !key.contains(".hidden."));
        }
        if self.wrong == Some(WrongProtocol::LockClearsMarks) && key.starts_with("attempts/") {
            objects.retain(|key, _| !key.contains(".deletes."));
        }
    }

    fn lock_is_honest(&self) -> bool {
        self.case.locks == Locks::Honest && self.wrong != Some(WrongProtocol::LockForEverybody)
    }

    /// The reply to a commit that was done, and whose reply is lost.
    pub(super) fn lost_reply(&self) -> Reply {
        match self.wrong {
            Some(WrongProtocol::UnknownIsFailed) => Reply::Failed(ErrorKind::Io),
            _ => Reply::Unknown,
        }
    }

    /// Whether a mark is silently not set.
    fn is_lost(&self, key: &str) -> bool {
        match self.wrong {
            Some(WrongProtocol::NoMark) => key.contains(".deletes."),
            Some(WrongProtocol::ResumeLeavesNoMark) => key.contains(".resumed."),
            Some(WrongProtocol::SweptNotHidden) => key.contains(".hidden."),
            _ => false,
        }
    }

    fn content<'w>(&'w self, world: &'w World, process: usize, key: &str) -> Option<&'w Content> {
        let known = self.histories.known(world.at[process].node());
        let as_written = || world.past.rotten.get(key);
        let own = || known.attempt_object.as_ref().filter(|(own, _)| own == key);
        match self.wrong {
            Some(WrongProtocol::GcTrustsUnverified) if known.phase == Phase::Deleting => {
                as_written().filter(|_| world.objects.contains_key(key)).or(world.objects.get(key))
            }
            Some(WrongProtocol::AttemptComparedByNumberOnly) if own().is_some() => {
                known.attempt_object.as_ref().map(|(_, content)| content)
            }
            Some(WrongProtocol::NoCheckBeforeCommit) if known.phase == Phase::Saving => {
                world.objects.get(key).filter(|_| !is_newer(key, known))
            }
            _ => world.objects.get(key),
        }
    }

    /// Stale listings, each different from the honest one and from each other.
    pub(super) fn stale_answers(
        &self,
        world: &World,
        process: usize,
        call: &Call,
        honest: &Reply,
    ) -> Vec<Reply> {
        let misled = world.past.misled.get(&process).copied().unwrap_or_default();
        let Reply::Listed(now) = honest else { return vec![] };
        let mut answers = Vec::new();
        for earlier in world.earlier.iter().take(if misled < self.case.stale { World::LAG } else { 0 }) {
            let mut then = self.listings(earlier, world, process, call);
            if self.wrong == Some(WrongProtocol::StaleListingsBelieved) {
                // As if there were no check for them.
                let written = &self.histories.known(world.at[process].node()).written;
                let lacks = |entry: &&Entry| written.contains(&entry.key) && !then.contains(entry);
                let own: Vec<Entry> = now.iter().filter(lacks).cloned().collect();
                then.extend(own);
            }
            let answer = Reply::Listed(then);
            if answer != *honest && !answers.contains(&answer) {
                answers.push(answer);
            }
        }
        answers
    }

    /// The listing that a call returns, of these objects.
    fn listings(&self, objects: &Objects, world: &World, process: usize, call: &Call) -> Vec<Entry> {
        match call {
            Call::List(folder) => self.listing(objects, world, process, folder),
            Call::ListEach(folders) => {
                folders.iter().flat_map(|folder| self.listing(objects, world, process, folder)).collect()
            }
            _ => vec![],
        }
    }

    fn listing(&self, objects: &Objects, world: &World, process: usize, folder: &str) -> Vec<Entry> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let known = self.histories.known(world.at[process].node());
        let listed_first = known.listed_first.as_ref().filter(|_| {
            self.wrong == Some(WrongProtocol::ListedBeforeAttempt)
                && folder.is_empty()
                && known.phase == Phase::Opening
        });
        if let Some(listed_first) = listed_first {
            return listed_first.clone();
        }
        let directly = objects.iter().filter(|(key, _)| {
            key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'))
                && self.shows(known, folder, key)
        });
        directly.map(|(key, content)| Entry { key: key.clone(), len: content.bytes.len() as u64 }).collect()
    }

    /// Whether a process is shown an object of a folder.
    fn shows(&self, known: &Known, folder: &str, key: &str) -> bool {
        let Some(wrong) = self.wrong else { return true };
        let is_remote = folder.starts_with(REMOTE);
        let has_marked = !known.marks.is_empty();
        let hides_newer = match wrong {
            WrongProtocol::NoCheckBeforeCommit => known.phase == Phase::Saving,
            WrongProtocol::NoCheckAfterCommit => known.phase == Phase::Committed && !has_marked,
            WrongProtocol::RotationWithoutAttemptCheck => has_marked && !is_remote,
            WrongProtocol::RemoteRotationWithoutGuard => has_marked && is_remote,
            _ => false,
        };
        let hides_marks = match wrong {
            WrongProtocol::PinIgnoresMarks => known.attempt_object.is_none(),
            WrongProtocol::MarksIgnoredByResume => {
                known.attempt_object.is_some() && known.phase == Phase::Opening
            }
            _ => false,
        };
        if folder.ends_with("attempts") {
            let hides = hides_newer && is_newer(key, known) || hides_marks && key.contains(".deletes.");
            return !hides;
        }
        let is_old_pin = || known.pins_before_marks.iter().any(|pin| pin == key);
        let looks_once = wrong == WrongProtocol::PinsListedOnce && has_marked && folder.ends_with("pins");
        !looks_once || is_old_pin()
    }
}

/// Whether an object belongs to a newer attempt than the process's own.
fn is_newer(key: &str, known: &Known) -> bool {
    let file = key.rsplit_once("attempts/").map_or("", |(_, file)| file);
    file.parse::<u32>().is_ok_and(|attempt| Some(attempt) > known.attempt)
}
