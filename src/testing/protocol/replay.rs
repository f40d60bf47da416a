//! A process as a state machine whose state is its history of replies: runs a program of the real
//! store on an engine that answers from a history and stops the program at the first call after it,
//! so that one call is one step and no thread is needed. Each history is run once. The engine is in
//! `machine.rs`, the knowledge about a process in `replay/known.rs`.

mod known;

pub(super) use known::{Known, Phase};

use super::calls::{Call, Event, Reply};
use super::machine::{Machine, Scene, Stopped, Told};
use super::programs::Program;
use crate::clock::script::Script;
use crate::sync::lock;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

pub(super) type NodeId = u32;

struct Node {
    process: usize,
    came_from: Option<(NodeId, Call, Reply)>,
    next: Option<Call>,
    known: Known,
}

/// All histories, and the state after each.
pub(super) struct Histories {
    programs: Vec<Program>,
    pub(super) scene: Arc<Scene>,
    nodes: Vec<Node>,
    index: HashMap<(NodeId, Reply), NodeId>,
}

impl Histories {
    pub(super) fn new(programs: Vec<Program>, scene: Scene) -> Self {
        Self { programs, scene: Arc::new(scene), nodes: Vec::new(), index: HashMap::new() }
    }

    pub(super) fn program(&self, process: usize) -> &Program {
        &self.programs[process]
    }

    /// Whether any process is a rank of a job.
    pub(super) fn has_ranks(&self) -> bool {
        self.scene.ranks > 0
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The state of a process before its first call.
    pub(super) fn start(&mut self, process: usize) -> NodeId {
        self.add(process, None)
    }

    pub(super) fn next_call(&self, node: NodeId) -> Option<&Call> {
        self.nodes[node as usize].next.as_ref()
    }

    pub(super) fn has_started(&self, node: NodeId) -> bool {
        self.nodes[node as usize].came_from.is_some()
    }

    pub(super) fn known(&self, node: NodeId) -> &Known {
        &self.nodes[node as usize].known
    }

    /// The state of a process after this reply to its next call.
    pub(super) fn after(&mut self, node: NodeId, reply: Reply) -> NodeId {
        let key = (node, reply);
        if let Some(&there) = self.index.get(&key) {
            return there;
        }
        let process = self.nodes[node as usize].process;
        let call = self.nodes[node as usize].next.clone().expect("OK because only a call is answered");
        let added = self.add(process, Some((node, call, key.1.clone())));
        self.index.insert(key, added);
        added
    }

    fn add(&mut self, process: usize, came_from: Option<(NodeId, Call, Reply)>) -> NodeId {
        let mut history = Vec::new();
        let mut at = came_from.as_ref();
        while let Some((from, call, reply)) = at {
            history.push((call.clone(), reply.clone()));
            at = self.nodes[*from as usize].came_from.as_ref();
        }
        history.reverse();
        let (events, next) = run(&self.programs[process], process, &self.scene, history);
        let known = came_from.as_ref().map_or_else(Known::default, |(from, call, reply)| {
            self.nodes[*from as usize].known.clone().behind(call, reply)
        });
        let known = events.into_iter().fold(known, Known::told);
        self.nodes.push(Node { process, came_from, next, known });
        (self.nodes.len() - 1) as NodeId
    }

    pub(super) fn describe(&self, node: NodeId) -> String {
        let node = &self.nodes[node as usize];
        let said = match &*node.known.said {
            [] => String::new(),
            said => format!("   it says {said:?}"),
        };
        match &node.came_from {
            Some((_, call, Reply::Listed(entries))) => {
                let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
                format!("{call:?} -> {keys:?}{said}")
            }
            Some((_, call, reply)) => format!("{call:?} -> {reply:?}{said}"),
            None => "starts".to_owned(),
        }
    }
}

/// Runs a program through its history: the events after the last reply, and the next call.
fn run(
    program: &Program,
    seed: usize,
    scene: &Arc<Scene>,
    history: Vec<(Call, Reply)>,
) -> (Vec<Event>, Option<Call>) {
    let replies = history.len();
    let script = Arc::new(Mutex::new(Told { history, answered: 0, next: None, events: vec![] }));
    let machine = Machine::new(Arc::clone(&script), Arc::clone(scene));
    let outcome = {
        // Nonces and clocks are the same every time: equal histories lead to equal calls.
        let _script = Script::begin(seed as u64);
        let say = |event| machine.say(event);
        catch_unwind(AssertUnwindSafe(|| program.run(&machine, &say)))
    };
    match outcome {
        Err(panic) if !panic.is::<Stopped>() => resume_unwind(panic),
        _ => {}
    }
    let mut told = lock(&script);
    let events = std::mem::take(&mut told.events).into_iter().filter(|(at, _)| *at == replies);
    (events.map(|(_, event)| event).collect(), told.next.take())
}
