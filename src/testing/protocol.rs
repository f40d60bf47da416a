//! The commit protocol, model checked: a few processes on one run, and all orders in which their calls may reach the
//! engine. Owns: the worlds that these orders lead to, and what must be true of each. The processes are the real `Store`
//! and `Reader` (`replay.rs`); the engine is a map whose every call is one step; what they do is in `programs.rs`.
//!
//! A world is what the engine holds and what each process has seen so far. It is visited once, however many orders lead
//! to it, so that "all orders" is thousands of worlds and not billions of runs. A process that stands still for ever, or
//! wakes up late, is one of the orders; a process that dies frees its lock, which is a step of its own.

mod programs;
mod promises;
mod replay;
mod wrong;

pub use programs::{Event, Program, goes_back, reader, saves_twice, writer};
pub use promises::Broken;
pub use wrong::WrongProtocol;

use crate::error::ErrorKind;
use replay::{Call, Content, Histories, NodeId, Reply};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Who gets the writer's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// Nobody: the engine has no locks, and attempts alone fence.
    None,
    /// One at a time; freed by death. Processes may die at any step.
    Honest,
    /// Everybody: somebody removed the lock's file while its holder stood still.
    Stolen,
}

/// Processes on one run.
#[derive(Clone, Debug)]
pub struct Case {
    /// Who gets the lock.
    pub locks: Locks,
    /// Whether a commit may also be done and answered "unknown", or not done and answered "failed".
    pub lost_replies: bool,
    /// What ran, alone and to its end, before the others began.
    pub before: Option<Program>,
    /// Who runs now.
    pub processes: Vec<Program>,
}

/// What was visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different worlds.
    pub worlds: usize,
    /// Different histories of single processes, each of them a run of the real code.
    pub histories: usize,
    /// Worlds in which everybody had ended.
    pub ends: usize,
}

/// A broken promise, and the shortest order of calls that breaks it.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which promise.
    pub broken: Broken,
    /// What was found.
    pub detail: String,
    /// The calls in their order, one a line, with their replies.
    pub steps: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Alive(NodeId),
    Dead(NodeId),
}

impl At {
    fn node(self) -> NodeId {
        match self {
            Self::Alive(node) | Self::Dead(node) => node,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    at: Vec<At>,
    objects: Arc<BTreeMap<String, Content>>,
    holder: Option<usize>,
    /// Bit by bit: processes whose present save began when a newer attempt had been taken.
    fenced: u32,
    /// Whether there has ever been a checkpoint.
    any_committed: bool,
}

/// All orders of the calls of a case, on a protocol that does one thing wrong, or nothing.
///
/// # Errors
/// The shortest order that breaks a promise.
pub fn check(case: &Case, wrong: Option<WrongProtocol>) -> Result<Explored, Box<Counterexample>> {
    Search::start(case, wrong).run()
}

struct Search<'c> {
    case: &'c Case,
    wrong: Option<WrongProtocol>,
    histories: Histories,
    worlds: Vec<Arc<World>>,
    index: HashMap<Arc<World>, usize>,
    came_from: Vec<usize>,
}

impl<'c> Search<'c> {
    fn start(case: &'c Case, wrong: Option<WrongProtocol>) -> Self {
        let mut programs: Vec<Program> = case.before.iter().cloned().collect();
        programs.extend(case.processes.iter().cloned());
        let histories = Histories::new(programs, case.locks != Locks::None);
        let at = (0..histories.processes()).map(|process| At::Alive(histories.start(process))).collect();
        let (objects, holder, fenced, any_committed) = Default::default();
        let mut world = World { at, objects, holder, fenced, any_committed };
        let (worlds, index, came_from) = Default::default();
        let mut search = Self { case, wrong, histories, worlds, index, came_from };
        while case.before.is_some() && search.next_call(&world, 0).is_some() {
            // Alone and without faults, a process has one way to go.
            world = search.steps(&world, 0, false).remove(0).0;
        }
        search.remember(world, 0);
        search
    }

    fn remember(&mut self, world: World, from: usize) {
        if !self.index.contains_key(&world) {
            let world = Arc::new(world);
            self.index.insert(Arc::clone(&world), self.worlds.len());
            self.worlds.push(world);
            self.came_from.push(from);
        }
    }

    fn run(mut self) -> Result<Explored, Box<Counterexample>> {
        let (mut at, mut ends) = (0, 0);
        while at < self.worlds.len() {
            let world = Arc::clone(&self.worlds[at]);
            if let Err((broken, detail)) = self.look(&world) {
                return Err(self.counterexample(at, None, broken, detail));
            }
            let mut ended = true;
            for process in 0..world.at.len() {
                for (next, broken) in self.steps(&world, process, self.case.lost_replies) {
                    ended = false;
                    if let Some((broken, detail)) = broken {
                        return Err(self.counterexample(at, Some(&next), broken, detail));
                    }
                    self.remember(next, at);
                }
                if let Some(dead) = self.death(&world, process) {
                    self.remember(dead, at);
                }
            }
            if ended {
                ends += 1;
                if let Err((broken, detail)) = self.look_at_end(&world) {
                    return Err(self.counterexample(at, None, broken, detail));
                }
            }
            at += 1;
        }
        Ok(Explored { worlds: self.worlds.len(), histories: self.histories.len(), ends })
    }

    fn next_call(&self, world: &World, process: usize) -> Option<Call> {
        match world.at[process] {
            At::Alive(node) => self.histories.next_call(node),
            At::Dead(_) => None,
        }
    }

    /// Only where it changes anything: a process that never takes another step is one of the orders already.
    fn death(&self, world: &World, process: usize) -> Option<World> {
        let holds = self.case.locks == Locks::Honest && world.holder == Some(process);
        self.next_call(world, process).filter(|_| holds)?;
        let mut next = world.clone();
        next.at[process] = At::Dead(world.at[process].node());
        next.holder = None;
        Some(next)
    }

    /// The worlds behind the next call of a process, and what doing it breaks by itself.
    fn steps(
        &mut self,
        world: &World,
        process: usize,
        faults: bool,
    ) -> Vec<(World, Option<promises::Found>)> {
        let Some(call) = self.next_call(world, process) else { return vec![] };
        let broken = self.breaks(world, process, &call);
        let mut answers = vec![self.answer(world, process, &call)];
        if let (true, Call::Commit(..)) = (faults, &call) {
            let (done, reply) = &answers[0];
            if *reply == Reply::Done {
                let done = done.clone();
                answers.push((done, Reply::Unknown));
                answers.push((Arc::clone(&world.objects), Reply::Failed(ErrorKind::Io)));
            }
        }
        let arrive = |(objects, reply): (Arc<BTreeMap<String, Content>>, Reply)| {
            let node = self.histories.after(world.at[process].node(), reply.clone());
            let mut next = world.clone();
            next.at[process] = At::Alive(node);
            next.any_committed |= objects.keys().any(|key| promises::name(key).is_some());
            next.objects = objects;
            match call {
                Call::Lock if reply == Reply::Done => next.holder = Some(process),
                Call::Unlock if next.holder == Some(process) => next.holder = None,
                _ => {}
            }
            if self.histories.known(node).begins_a_save {
                let stale = promises::newest_attempt(&next) > self.histories.known(node).attempt;
                next.fenced = next.fenced & !(1 << process) | u32::from(stale) << process;
            }
            (next, broken.clone())
        };
        answers.into_iter().map(arrive).collect()
    }

    fn counterexample(
        &self,
        at: usize,
        last: Option<&World>,
        broken: Broken,
        detail: String,
    ) -> Box<Counterexample> {
        let mut path = vec![at];
        while let Some(&from) = path.last().map(|&at| &self.came_from[at]).filter(|from| !path.contains(from))
        {
            path.push(from);
        }
        let mut way: Vec<&World> = path.iter().rev().map(|&at| &*self.worlds[at]).collect();
        way.extend(last);
        let steps = way.windows(2).map(|pair| self.describe(pair[0], pair[1])).collect();
        Box::new(Counterexample { broken, detail, steps })
    }

    fn describe(&self, before: &World, after: &World) -> String {
        let process = (0..after.at.len()).find(|&process| before.at[process] != after.at[process]);
        match process.map(|process| (process, after.at[process])) {
            Some((process, At::Alive(node))) => {
                format!("process {process}: {}", self.histories.describe(node))
            }
            Some((process, At::Dead(_))) => format!("process {process} dies"),
            None => "nothing".to_owned(),
        }
    }
}
