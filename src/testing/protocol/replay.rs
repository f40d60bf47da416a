//! A process as a state machine: where it stands is what it has seen. Owns: running a program of the real store on an
//! engine that answers from a history and stops it at the first call behind, so that one call is one step and no thread
//! is needed. Each history is run once.

use super::programs::{Event, Program};
use super::wrong::Phase;
use crate::buffer::Buffer;
use crate::engine::memory::MemoryBlob;
use crate::engine::vfs::scripted::Script;
use crate::engine::{Blob, Caps, CommitError, Engine, Entry, Lock, Nonce, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Name;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) type NodeId = u32;

/// Bytes of an object; equal ones are one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Content(pub(super) Arc<[u8]>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// One call that reaches the engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Lock,
    Unlock,
    Create(String),
    Commit(String, Content),
    Open(String),
    List(String),
    Delete(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Done,
    Failed(ErrorKind),
    /// A commit's: done or not, nobody knows.
    Unknown,
    Opened(Content),
    Listed(Vec<Entry>),
}

/// What a process has said and done so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub attempt: Option<u32>,
    /// What it resumed from, once it has.
    pub resumed: Option<Option<Name>>,
    pub acknowledged: Vec<Name>,
    pub looked: Option<Name>,
    /// What a reader saw was older than what it had seen before.
    pub looked_back: bool,
    /// A save began at this very step.
    pub begins_a_save: bool,
    pub phase: Phase,
}

struct Node {
    process: usize,
    came_from: Option<(NodeId, Call, Reply)>,
    next: Option<Call>,
    known: Known,
}

/// All histories seen, and where each led.
pub(super) struct Histories {
    programs: Vec<Program>,
    locks: bool,
    nodes: Vec<Node>,
    index: HashMap<(NodeId, Reply), NodeId>,
}

impl Histories {
    pub(super) fn new(programs: Vec<Program>, locks: bool) -> Self {
        let (nodes, index) = Default::default();
        let mut histories = Self { programs, locks, nodes, index };
        for process in 0..histories.programs.len() {
            histories.add(process, None);
        }
        histories
    }

    pub(super) fn processes(&self) -> usize {
        self.programs.len()
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where a process stands before its first call.
    pub(super) fn start(&self, process: usize) -> NodeId {
        process as NodeId
    }

    pub(super) fn next_call(&self, node: NodeId) -> Option<Call> {
        self.nodes[node as usize].next.clone()
    }

    pub(super) fn known(&self, node: NodeId) -> &Known {
        &self.nodes[node as usize].known
    }

    /// Where a process stands once its next call was answered so.
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
        let (events, next) = run(&self.programs[process], process, self.locks, history);
        let known = came_from.as_ref().map_or_else(Known::default, |(from, call, reply)| {
            self.nodes[*from as usize].known.clone().behind(call, reply)
        });
        let known = events.iter().fold(known, Known::told);
        self.nodes.push(Node { process, came_from, next, known });
        (self.nodes.len() - 1) as NodeId
    }

    pub(super) fn describe(&self, node: NodeId) -> String {
        match &self.nodes[node as usize].came_from {
            Some((_, call, Reply::Listed(entries))) => {
                let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
                format!("{call:?} -> {keys:?}")
            }
            Some((_, call, reply)) => format!("{call:?} -> {reply:?}"),
            None => "starts".to_owned(),
        }
    }
}

impl Known {
    fn behind(mut self, call: &Call, reply: &Reply) -> Self {
        self.begins_a_save = false;
        if let (Call::Commit(..), Reply::Done, Phase::Saving) = (call, reply, self.phase) {
            self.phase = Phase::Committed;
        }
        self
    }

    fn told(mut self, event: &Event) -> Self {
        match *event {
            Event::Opened(attempt) => self.attempt = Some(attempt),
            Event::Resumed(name) => self.resumed = Some(name),
            Event::Saving => (self.begins_a_save, self.phase) = (true, Phase::Saving),
            Event::Saved(name) => self.acknowledged.push(name),
            Event::Looked(name) => {
                self.looked_back |= name < self.looked;
                self.looked = name;
            }
            Event::WentBack | Event::Failed(_) => {}
        }
        self
    }
}

/// Ends a program at the call behind its history.
struct Stopped;

/// Runs a program through its history: what it said behind the last reply, and the call it makes then.
fn run(
    program: &Program,
    seed: usize,
    locks: bool,
    history: Vec<(Call, Reply)>,
) -> (Vec<Event>, Option<Call>) {
    let replies = history.len();
    let script = Arc::new(Mutex::new(Told { history, answered: 0, next: None, events: vec![] }));
    let engine: Arc<dyn Engine> = Arc::new(Replayed { told: Arc::clone(&script), locks });
    let outcome = {
        // Nonces and clocks are the same every time: equal histories lead to equal calls.
        let _script = Script::begin(seed as u64);
        let say = |event| {
            let mut told = lock(&script);
            // What it says while it is being stopped, it never said.
            if told.next.is_none() {
                let answered = told.answered;
                told.events.push((answered, event));
            }
        };
        catch_unwind(AssertUnwindSafe(|| program.run(engine, &say)))
    };
    match outcome {
        Err(panic) if !panic.is::<Stopped>() => resume_unwind(panic),
        _ => {}
    }
    let mut told = lock(&script);
    let events = std::mem::take(&mut told.events).into_iter().filter(|(at, _)| *at == replies);
    (events.map(|(_, event)| event).collect(), told.next.take())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Told {
    history: Vec<(Call, Reply)>,
    answered: usize,
    next: Option<Call>,
    events: Vec<(usize, Event)>,
}

/// An engine that answers from a history.
#[derive(Clone, Debug)]
struct Replayed {
    told: Arc<Mutex<Told>>,
    locks: bool,
}

impl Replayed {
    fn ask(&self, call: Call) -> Reply {
        let mut told = lock(&self.told);
        if told.next.is_some() {
            // The program is being unwound: what its destructors call is not a step of it.
            return Reply::Failed(ErrorKind::Io);
        }
        let Some((asked, reply)) = told.history.get(told.answered).cloned() else {
            told.next = Some(call);
            drop(told);
            // Not `panic!`: nothing is wrong, and no hook shall print.
            resume_unwind(Box::new(Stopped));
        };
        assert_eq!(asked, call, "a program must be the same every time it is run");
        told.answered += 1;
        reply
    }

    fn ask_done(&self, call: Call, key: &str) -> Result<()> {
        match self.ask(call) {
            Reply::Failed(kind) => Err(Error::new(kind, "as the model says").in_object(key)),
            _ => Ok(()),
        }
    }
}

/// Nothing is pinned and nothing damaged in a model: these folders stay empty, and looking there is no step.
const ALWAYS_EMPTY: [&str; 2] = ["pins", "damaged"];

impl Engine for Replayed {
    fn create(&self, key: &str, _: Option<u64>) -> Result<Box<dyn Upload>> {
        self.ask_done(Call::Create(key.to_owned()), key)?;
        Ok(Box::new(ReplayedUpload { engine: self.clone(), key: key.to_owned(), bytes: vec![] }))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        match self.ask(Call::Open(key.to_owned())) {
            Reply::Opened(Content(bytes)) => Ok(Arc::new(MemoryBlob(Buffer::copy_of(&bytes)?))),
            _ => Err(Error::new(ErrorKind::NotFound, "there is no such object").in_object(key)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        if ALWAYS_EMPTY.contains(&folder) {
            return Ok(vec![]);
        }
        match self.ask(Call::List(folder.to_owned())) {
            Reply::Listed(entries) => Ok(entries),
            _ => Err(Error::new(ErrorKind::Io, "as the model says").in_object(folder)),
        }
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.ask_done(Call::Delete(key.to_owned()), key)
    }

    fn rename(&self, from: &str, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "no model has damage").in_object(from))
    }

    fn lock(&self, _: &str) -> Result<Box<dyn Lock>> {
        if !self.locks {
            return Err(Error::new(ErrorKind::Unsupported, "this model has no locks"));
        }
        self.ask_done(Call::Lock, "LOCK")?;
        Ok(Box::new(ReplayedLock(self.clone())))
    }

    fn caps(&self) -> Caps {
        Caps { create_only: true, lock: self.locks, ..Caps::NONE }
    }

    fn describe(&self, key: &str) -> String {
        format!("model:{key}")
    }
}

struct ReplayedUpload {
    engine: Replayed,
    key: String,
    bytes: Vec<u8>,
}

impl Upload for ReplayedUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        let error = |kind| Error::new(kind, "as the model says").in_object(&self.key);
        match self.engine.ask(Call::Commit(self.key.clone(), Content(Arc::from(&*self.bytes)))) {
            Reply::Failed(ErrorKind::AlreadyExists) => {
                Err(CommitError::Conflict(error(ErrorKind::AlreadyExists)))
            }
            Reply::Failed(kind) => Err(CommitError::NotCommitted(error(kind))),
            Reply::Unknown => Err(CommitError::Unknown(error(ErrorKind::Unknown))),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct ReplayedLock(Replayed);

impl Lock for ReplayedLock {}

impl Drop for ReplayedLock {
    fn drop(&mut self) {
        self.0.ask(Call::Unlock);
    }
}
