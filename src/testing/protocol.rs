//! Model check of the protocols of commit and deletion: a few processes on one run, and all orders
//! in which their calls may reach the engines. This file searches the worlds that these orders lead
//! to. The processes are the real `Store` and `Reader` (`replay.rs`); an engine is a map whose
//! every call is one step; `programs.rs` has the actions of the processes, `fates.rs` the events
//! from outside, `wrong.rs` the mistakes that it must find, and `promises.rs` the conditions on
//! each world.
//!
//! A world is the content of the engines and the history of each process. It is visited once,
//! however many orders lead to it, so that "all orders" is thousands of worlds and not billions of
//! runs. A process that stands still for ever, or wakes up late, is one of the orders; a process
//! that dies frees its lock, which is a step of its own.

mod answers;
mod calls;
mod case;
mod fates;
mod machine;
mod programs;
mod promises;
mod replay;
mod world;
mod wrong;

pub use calls::{Event, Place};
pub use case::{Before, Case, Locks};
pub use programs::{
    Program, Rank, collects, copies, deletes, deletes_while_promoting, goes_back, goes_back_on, job,
    job_that_goes_back, keeper, logs_nan, pins, promotes, reader, saves_twice, tiered, tiered_keeping,
    unpins, writer, writer_that_pins,
};
pub use promises::Broken;
pub use wrong::WrongProtocol;

use crate::error::ErrorKind;
use calls::{Call, Content, Objects, Reply, checkpoint};
use machine::Scene;
use replay::Histories;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use world::{At, World};

/// The number of visited worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different worlds.
    pub worlds: usize,
    /// Different histories of single processes, each of them a run of the real code.
    pub histories: usize,
    /// Worlds in which all processes had ended.
    pub ends: usize,
}

/// A broken promise, and the shortest order of calls that breaks it.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which promise.
    pub broken: Broken,
    /// The details.
    pub detail: String,
    /// The calls in their order, one a line, with their replies.
    pub steps: Vec<String>,
}

/// Checks all orders of the calls of a case, on a protocol with one mistake, or with none.
///
/// # Errors
/// The shortest order that breaks a promise.
pub fn check(case: &Case, wrong: Option<WrongProtocol>) -> Result<Explored, Box<Counterexample>> {
    Search::start(case, wrong)?.run()
}

/// A manifest, and the shards beside it.
type Files = (Content, Vec<(String, Content)>);

struct Search<'c> {
    case: &'c Case,
    wrong: Option<WrongProtocol>,
    histories: Histories,
    /// The objects of the folder once it is replaced.
    foreign: Option<Arc<Objects>>,
    /// Ends that were checked, each with the rotten objects: many orders lead to the same objects.
    looked_at: HashSet<(Arc<Objects>, Vec<String>)>,
    /// Checkpoints of many files, each with all shards beside it, and whether they are whole.
    whole: RefCell<HashMap<Files, bool>>,
    worlds: Vec<Arc<World>>,
    index: HashMap<Arc<World>, usize>,
    came_from: Vec<usize>,
}

impl<'c> Search<'c> {
    fn start(case: &'c Case, wrong: Option<WrongProtocol>) -> Result<Self, Box<Counterexample>> {
        let programs = case.programs();
        let (count, scene) = (programs.len(), case.scene(wrong));
        let histories = Histories::new(programs, scene.clone());
        let mut search = Self {
            case,
            wrong,
            histories,
            foreign: None,
            looked_at: HashSet::new(),
            whole: RefCell::default(),
            worlds: Vec::new(),
            index: HashMap::new(),
            came_from: Vec::new(),
        };
        let mut world = World::default();
        for process in 0..count {
            world.at.push(At::Dead(search.histories.start(process)));
        }
        if case.replaced_by.is_some() {
            let empty = World { at: world.at.clone(), ..World::default() };
            let left = search.runs_alone(empty, count - 1..count)?;
            search.foreign = Some(left.objects);
            world.at.pop();
        }
        let mut process = 0;
        for before in &case.before {
            match before {
                Before::Rotted(key) => world = world::rot(&world, key),
                Before::Ran(_) => {
                    world = search.runs_alone(world, process..process + 1)?;
                    process += 1;
                }
                Before::RanTogether(programs) => {
                    world = search.runs_alone(world, process..process + programs.len())?;
                    process += programs.len();
                }
            }
        }
        let for_ever = |(key, _): &(&String, &Content)| machine::is_for_ever(key);
        let constant = world.objects.iter().filter(for_ever);
        let constant = constant.map(|(key, content)| (key.clone(), content.clone())).collect();
        search.histories.scene = Arc::new(Scene { constant, ..scene });
        for process in process..world.at.len() {
            world.at[process] = At::Alive(search.histories.start(process));
            search.hear(&mut world, process);
        }
        search.remember(world, 0);
        Ok(search)
    }

    /// Alone and without faults, a process has exactly one order of calls; of several, the first
    /// that can go on does.
    fn runs_alone(
        &mut self,
        mut world: World,
        processes: Range<usize>,
    ) -> Result<World, Box<Counterexample>> {
        for process in processes.clone() {
            world.at[process] = At::Alive(world.at[process].node());
            self.hear(&mut world, process);
        }
        while let Some((next, broken)) =
            processes.clone().find_map(|process| self.steps(&world, process, false).into_iter().next())
        {
            if let Some((broken, detail)) = broken {
                return Err(Box::new(Counterexample { broken, detail, steps: vec![] }));
            }
            world = next;
        }
        Ok(world)
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
            // One call that commutes with all others is enough: the others follow it in any order.
            let alone = (0..world.at.len()).find(|process| self.commutes(&world, *process));
            for process in alone.map_or(0..world.at.len(), |process| process..process + 1) {
                for (next, broken) in self.steps(&world, process, true) {
                    ended = false;
                    if let Some((broken, detail)) = broken {
                        return Err(self.counterexample(at, Some(&next), broken, detail));
                    }
                    self.remember(next, at);
                }
            }
            if alone.is_none() {
                for fate in self.fates(&world) {
                    self.remember(fate, at);
                }
            }
            if ended {
                ends += 1;
                let rotten = world.past.rotten.keys().cloned().collect();
                let is_new = self.looked_at.insert((Arc::clone(&world.objects), rotten));
                if let Err((broken, detail)) = if is_new { self.look_at_end(&world) } else { Ok(()) } {
                    return Err(self.counterexample(at, None, broken, detail));
                }
            }
            at += 1;
        }
        Ok(Explored { worlds: self.worlds.len(), histories: self.histories.len(), ends })
    }

    /// Whether the next call of a process changes nothing, has the same reply whatever the others
    /// do, and is visible to none of them: the start of an upload to a name of its own attempt,
    /// which no other process writes, deletes or lets rot before it is there. Not if another run
    /// may replace the folder, nor for a protocol with a mistake. A message to other ranks, and one
    /// that is there to be heard, is seen by no engine and stays whatever the others do.
    fn commutes(&self, world: &World, process: usize) -> bool {
        let key = match self.next_call(world, process) {
            Some(Call::Create(key)) => key,
            Some(Call::Post(..)) => return true,
            Some(Call::Await(keys)) => return self.heard(world, keys).is_some(),
            _ => return false,
        };
        let attempt = self.histories.known(world.at[process].node()).attempt;
        let is_own =
            || checkpoint(key).is_some_and(|(place, name)| place.is_empty() && Some(name.attempt) == attempt);
        self.foreign.is_none() && self.wrong.is_none() && (key.starts_with("shards/") || is_own())
    }

    /// The messages of other ranks, once all of them are there.
    fn heard(&self, world: &World, keys: &[String]) -> Option<Reply> {
        let message = |key: &String| {
            self.all_known(world).find_map(|(_, known)| {
                known.posted.iter().find(|(posted, _)| posted == key).map(|(_, message)| message.clone())
            })
        };
        keys.iter().map(message).collect::<Option<Vec<_>>>().map(Reply::Heard)
    }

    /// The worlds after the next call of a process, each with the promise that the call itself
    /// breaks.
    fn steps(
        &mut self,
        world: &World,
        process: usize,
        faults: bool,
    ) -> Vec<(World, Option<promises::Found>)> {
        let Some(call) = self.next_call(world, process).cloned() else { return vec![] };
        let broken = self.breaks(world, process, &call);
        let unchanged = |reply| (Arc::clone(&world.objects), reply);
        let mut answers = match &call {
            Call::Choose(count) => (0..*count).map(|chosen| unchanged(Reply::Chosen(chosen))).collect(),
            Call::Await(keys) => self.heard(world, keys).into_iter().map(unchanged).collect(),
            _ => vec![self.answer(world, process, &call)],
        };
        match (&call, answers.first().cloned()) {
            (Call::Commit(..), Some((done, Reply::Done))) if faults && self.case.lost_replies => {
                answers.push((done, self.lost_reply()));
                answers.push(unchanged(Reply::Failed(ErrorKind::Io)));
            }
            (Call::Await(_), _) if faults && self.case.late => {
                answers.push(unchanged(Reply::Failed(ErrorKind::Io)));
            }
            _ => {}
        }
        let honest = answers.len();
        let stale = answers.first().map(|(_, reply)| self.stale_answers(world, process, &call, reply));
        let stale = stale.unwrap_or_default();
        answers.extend(stale.into_iter().map(|reply| (Arc::clone(&world.objects), reply)));
        let arrive = |(at, (objects, reply)): (usize, (Arc<Objects>, Reply))| {
            let node = self.histories.after(world.at[process].node(), reply.clone());
            let mut next = world.clone();
            next.at[process] = At::Alive(node);
            next.becomes(objects, self.case.stale > 0);
            if at >= honest {
                *Arc::make_mut(&mut next.past).misled.entry(process).or_default() += 1;
            }
            self.note(&mut next, process, &call, &reply);
            let heard = self.hear(&mut next, process);
            (next, broken.clone().or(heard))
        };
        answers.into_iter().enumerate().map(arrive).collect()
    }

    /// Records the lock's holder and the places that have had a checkpoint.
    fn note(&self, world: &mut World, process: usize, call: &Call, reply: &Reply) {
        match call {
            // The holder of a lock that all processes get changes nothing.
            Call::Lock if *reply == Reply::Done && self.case.locks == Locks::Honest => {
                world.holder = Some(process);
            }
            Call::Unlock if world.holder == Some(process) => world.holder = None,
            Call::Commit(key, _) if world.objects.contains_key(key) => {
                let Some((place, _)) = checkpoint(key) else { return };
                if !world.past.committed.contains(place) {
                    Arc::make_mut(&mut world.past).committed.insert(place.to_owned());
                }
            }
            _ => {}
        }
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
}
