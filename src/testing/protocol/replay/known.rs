//! What a process has said and done. Owns: how each call and each event changes that.

use super::{Call, Content, Reply, is_for_ever};
use crate::store::CheckpointId;
use crate::testing::protocol::programs::Event;

/// How far a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::testing::protocol) enum Phase {
    #[default]
    Opening,
    Saving,
    Committed,
    /// In `delete`, or in what cleans up.
    Deleting,
    Promoting,
}

#[derive(Clone, Debug, Default)]
pub(in crate::testing::protocol) struct Known {
    pub attempt: Option<u32>,
    /// The object that it took an attempt by.
    pub attempt_object: Option<(String, Content)>,
    /// What it resumed from, once it has.
    pub resumed: Option<Option<CheckpointId>>,
    /// It chose what it resumed from, whatever was newer.
    pub went_back: bool,
    /// Saves that returned Ok.
    pub acknowledged: Vec<CheckpointId>,
    /// Saves that a promotion which returned Ok stands for.
    pub promoted: Vec<CheckpointId>,
    /// What it begins to delete on purpose.
    pub gives_up: Vec<CheckpointId>,
    /// What it was told is deleted.
    pub deleted: Vec<CheckpointId>,
    pub looked: Option<CheckpointId>,
    /// What a reader had seen before it saw something older.
    pub looked_back_from: Option<CheckpointId>,
    /// A metric that is better than every saved one is not due.
    pub best_is_not_due: bool,
    /// Calls since the promotion began that is under way.
    pub calls_of_pass: Option<u32>,
    /// What it said at this very step.
    pub said: Vec<Event>,
    pub phase: Phase,
    /// Marks of deletion that it has set and not taken away.
    pub marks: Vec<String>,
    /// What it has committed and marked.
    pub written: Vec<String>,
    /// The pins that it saw before it set a mark.
    pub pins_before_marks: Vec<String>,
}

impl Known {
    /// Whether one of its calls from now on belongs to what began at this very step.
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
            (Call::Commit(..), Reply::Done) if self.phase == Phase::Saving => self.phase = Phase::Committed,
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
            Event::Resumed(name) => self.resumed = Some(name),
            Event::WentBack(name) => (self.resumed, self.went_back) = (Some(Some(name)), true),
            Event::Saving => self.phase = Phase::Saving,
            Event::Saved(name) => self.acknowledged.push(name),
            Event::Promoting => (self.phase, self.calls_of_pass) = (Phase::Promoting, Some(0)),
            Event::Promoted(name) => {
                self.calls_of_pass = None;
                self.promoted.extend(name);
            }
            Event::Deleting(name) => {
                self.phase = Phase::Deleting;
                self.gives_up.push(name);
            }
            Event::Collecting => self.phase = Phase::Deleting,
            Event::Deleted(name) => self.deleted.push(name),
            Event::Looked(name) => {
                if name < self.looked {
                    self.looked_back_from = self.looked;
                }
                self.looked = name;
            }
            Event::BestIsNotDue => self.best_is_not_due = true,
            Event::Failed(_) => self.calls_of_pass = None,
            Event::Pinned(_) | Event::Unpinning(_) => {}
        }
        self.said.push(event);
        self
    }
}
