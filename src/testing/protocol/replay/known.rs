//! The knowledge about a process: how each of its calls and events changes it.

use crate::engine::Entry;
use crate::store::CheckpointId;
use crate::testing::protocol::calls::{Call, Content, Event, Reply, checkpoint};
use crate::testing::protocol::machine::is_for_ever;

/// The present activity of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::testing::protocol) enum Phase {
    #[default]
    Opening,
    Saving,
    Committed,
    /// In `delete`, or cleaning up.
    Deleting,
    Promoting,
}

#[derive(Clone, Debug, Default)]
pub(in crate::testing::protocol) struct Known {
    pub attempt: Option<u32>,
    /// The object by which it took its attempt.
    pub attempt_object: Option<(String, Content)>,
    /// The checkpoint that it resumed from, once it has.
    pub resumed: Option<Option<CheckpointId>>,
    /// It chose the checkpoint to resume from, whatever was newer.
    pub went_back: bool,
    /// Saves that returned Ok.
    pub acknowledged: Vec<CheckpointId>,
    /// Saves that are covered by a promotion that returned Ok.
    pub promoted: Vec<CheckpointId>,
    /// Checkpoints that it begins to delete on purpose.
    pub gives_up: Vec<CheckpointId>,
    /// Checkpoints whose deletion returned Ok.
    pub deleted: Vec<CheckpointId>,
    pub looked: Option<CheckpointId>,
    /// The checkpoint that a reader had seen before it saw an older one.
    pub looked_back_from: Option<CheckpointId>,
    /// A metric is better than every saved one, and no save is due.
    pub best_is_not_due: bool,
    /// Calls since the present promotion began.
    pub calls_of_pass: Option<u32>,
    /// Its events at this very step.
    pub said: Vec<Event>,
    pub phase: Phase,
    /// Marks of deletion that it has set and not removed.
    pub marks: Vec<String>,
    /// Keys that it has committed or marked.
    pub written: Vec<String>,
    /// The pins that it saw before it set a mark.
    pub pins_before_marks: Vec<String>,
    /// The checkpoints that it saw first.
    pub listed_first: Option<Vec<Entry>>,
    /// Its messages to other ranks.
    pub posted: Vec<(String, Content)>,
}

impl Known {
    /// Whether a save, a deletion or a promotion began at this very step.
    pub fn begins(&self) -> bool {
        self.said.iter().any(|event| {
            matches!(event, Event::Saving | Event::Deleting(_) | Event::Collecting | Event::Promoting)
        })
    }

    pub fn behind(mut self, call: &Call, reply: &Reply) -> Self {
        self.said.clear();
        self.calls_of_pass = self.calls_of_pass.map(|calls| calls + 1);
        if let (Call::Commit(key, _) | Call::Mark(key), Reply::Done) = (call, reply) {
            self.written.push(key.clone());
        }
        match (call, reply) {
            (Call::Commit(key, content), Reply::Done) if is_for_ever(key) && key.contains("attempts/") => {
                self.attempt_object = Some((key.clone(), content.clone()));
            }
            (Call::Commit(key, _), Reply::Done)
                if self.phase == Phase::Saving && checkpoint(key).is_some() =>
            {
                self.phase = Phase::Committed;
            }
            (Call::Post(key, message), _) => self.posted.push((key.clone(), message.clone())),
            (Call::List(folder), Reply::Listed(entries)) if folder.is_empty() => {
                self.listed_first.get_or_insert_with(|| entries.clone());
            }
            (Call::Mark(key), Reply::Done) if key.contains(".deletes.") => self.marks.push(key.clone()),
            (Call::Unmark(key), _) => self.marks.retain(|mark| mark != key),
            (Call::List(folder), Reply::Listed(pins))
                if self.marks.is_empty() && folder.ends_with("pins") =>
            {
                self.pins_before_marks = pins.iter().map(|pin| pin.key.clone()).collect();
            }
            _ => {}
        }
        self
    }

    pub fn told(mut self, event: Event) -> Self {
        match event {
            Event::Opened(attempt) => self.attempt = Some(attempt),
            Event::Resumed(id) => self.resumed = Some(id),
            Event::WentBack(id) => (self.resumed, self.went_back) = (Some(Some(id)), true),
            Event::Saving => self.phase = Phase::Saving,
            Event::Saved(id) => self.acknowledged.push(id),
            Event::Promoting => (self.phase, self.calls_of_pass) = (Phase::Promoting, Some(0)),
            Event::Promoted(id) => {
                self.calls_of_pass = None;
                self.promoted.extend(id);
            }
            Event::Deleting(id) => {
                self.phase = Phase::Deleting;
                self.gives_up.push(id);
            }
            Event::Collecting => self.phase = Phase::Deleting,
            Event::Deleted(id) => self.deleted.push(id),
            Event::Looked(id) => {
                if id < self.looked {
                    self.looked_back_from = self.looked;
                }
                self.looked = id;
            }
            Event::BestIsNotDue => self.best_is_not_due = true,
            Event::Failed(_) => self.calls_of_pass = None,
            Event::Pinned(_) | Event::Unpinning(_) => {}
        }
        self.said.push(event);
        self
    }
}
