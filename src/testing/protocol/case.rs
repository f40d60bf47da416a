//! What a model check looks at: the processes, and what may happen to them and to the run.

use super::WrongProtocol;
use super::calls::Objects;
use super::machine::Scene;
use super::programs::Program;

/// Which processes get the writer's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// None: the engine has no locks, and only attempts fence.
    None,
    /// One at a time; freed by death. Processes may die at any step.
    Honest,
    /// All: the lock's file was removed while its holder stood still.
    Stolen,
}

/// An event before the processes of a case began.
#[derive(Clone, Debug)]
pub enum Before {
    /// A process ran, alone and to its end.
    Ran(Program),
    /// The ranks of a job ran, alone and to their ends.
    RanTogether(Vec<Program>),
    /// A byte of this object rotted.
    Rotted(&'static str),
}

/// Processes on one run.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which processes get the lock.
    pub locks: Locks,
    /// Whether a commit may also be done and answered "unknown", or not done and answered "failed".
    pub lost_replies: bool,
    /// Whether a rank may give up waiting for the others, at any time.
    pub late: bool,
    /// The events before, in order.
    pub before: Vec<Before>,
    /// How many listings of each process may be of an earlier moment, by up to three changes.
    pub stale: usize,
    /// The processes that run now.
    pub processes: Vec<Program>,
    /// An object that may rot at any moment.
    pub rots: Option<&'static str>,
    /// Whether the engine can rename: damaged checkpoints are then set aside, else marked.
    pub renames: bool,
    /// A program whose objects in an empty folder may replace all objects at any moment.
    pub replaced_by: Option<Program>,
}

impl Case {
    /// A case without locks and without events from outside.
    pub fn new(before: Vec<Program>, processes: Vec<Program>) -> Self {
        let before = before.into_iter().map(Before::Ran).collect();
        Self {
            locks: Locks::None,
            lost_replies: false,
            late: false,
            before,
            stale: 0,
            processes,
            rots: None,
            renames: true,
            replaced_by: None,
        }
    }

    pub(super) fn programs(&self) -> Vec<Program> {
        let ran = |before: &Before| match before {
            Before::Ran(program) => vec![program.clone()],
            Before::RanTogether(programs) => programs.clone(),
            Before::Rotted(_) => vec![],
        };
        let before = self.before.iter().flat_map(ran);
        before.chain(self.processes.iter().cloned()).chain(self.replaced_by.clone()).collect()
    }

    pub(super) fn scene(&self, wrong: Option<WrongProtocol>) -> Scene {
        let ranks = self.programs().iter().filter_map(Program::rank).map(|rank| rank.world).max();
        Scene {
            locks: self.locks != Locks::None,
            renames: self.renames,
            joint: self.stale > 0,
            pins: self.programs().iter().any(Program::pins),
            ranks: ranks.unwrap_or(0),
            // Hidden checkpoints are in the folder of damaged ones.
            damage: self.rots.is_some()
                || ranks.is_some()
                || self.before.iter().any(|before| matches!(before, Before::Rotted(_))),
            replaced: self.replaced_by.is_some(),
            wrong,
            constant: Objects::new(),
        }
    }
}
