//! The machine of a process: an engine that answers from a history, and decides which calls are
//! steps. A call whose reply no process of the case can change is answered at once.

mod ranks;

use super::WrongProtocol;
use super::calls::{Call, Content, Event, Place, Reply};
use crate::buffer::Buffer;
use crate::collective::Collective;
use crate::engine::memory::MemoryBlob;
use crate::engine::{Blob, Caps, CommitError, Engine, Entry, Lock, Nonce, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use ranks::ReplayedRanks;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

/// Facts about all processes of a case. Fewer steps are fewer orders, so a call whose reply is the
/// same in all of them is no step: it commutes with every call of every process, and the process's
/// next action was seen with that reply.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    pub locks: bool,
    /// Whether a damaged checkpoint can be set aside; else it is marked.
    pub renames: bool,
    /// Whether several folders are one listing, as over a network; else one after the other.
    pub joint: bool,
    /// Whether any process pins. If not, there are no pins, and listing them is no step.
    pub pins: bool,
    /// Whether an object rots. If not, no checkpoint is set aside, and looking for one is no step.
    pub damage: bool,
    /// Whether the folder is replaced. If not, an attempt's object and the run's identity never
    /// change once they exist: reading one that a process has written or read before is no step,
    /// nor is reading a constant.
    pub replaced: bool,
    /// How many ranks the largest job has: no other rank has a shard.
    pub ranks: u32,
    /// The mistake.
    pub wrong: Option<WrongProtocol>,
    /// Objects that existed before the processes of the case began, and that no process changes or
    /// deletes.
    pub constant: BTreeMap<String, Content>,
}

/// Ends a program at the call after its history.
pub(super) struct Stopped;

#[derive(Debug)]
pub(super) struct Told {
    pub history: Vec<(Call, Reply)>,
    pub answered: usize,
    pub next: Option<Call>,
    pub events: Vec<(usize, Event)>,
}

/// A program's machine: the places that it can reach, and its nondeterministic choices.
#[derive(Clone, Debug)]
pub(super) struct Machine(Replayed);

impl Machine {
    pub(super) fn new(told: Arc<Mutex<Told>>, scene: Arc<Scene>) -> Self {
        Self(Replayed { told, scene, place: "" })
    }

    /// The engine of a place.
    pub fn at(&self, place: Place) -> Arc<dyn Engine> {
        Arc::new(Replayed { place, ..self.0.clone() })
    }

    /// Reports an event, except while the program is being stopped.
    pub fn say(&self, event: Event) {
        let mut told = lock(&self.0.told);
        if told.next.is_none() {
            let answered = told.answered;
            told.events.push((answered, event));
        }
    }

    /// Whether the case has this mistake, for mistakes of a process itself.
    pub fn does(&self, wrong: WrongProtocol) -> bool {
        self.0.scene.wrong == Some(wrong)
    }

    /// The connection of a rank with the others of its job.
    pub fn ranks(&self, job: &'static str, rank: u32, world: u32) -> impl Collective + 'static {
        ReplayedRanks::new(self.0.clone(), job, rank, world)
    }

    /// One of `0..count`: each is one of the orders.
    pub fn choose(&self, count: usize) -> usize {
        match self.0.ask(Call::Choose(count)) {
            Reply::Chosen(chosen) => chosen,
            _ => 0,
        }
    }
}

/// An engine that answers from a history.
#[derive(Clone, Debug)]
pub(super) struct Replayed {
    told: Arc<Mutex<Told>>,
    scene: Arc<Scene>,
    /// The prefix of its keys in the world.
    place: Place,
}

impl Replayed {
    pub(super) fn ask(&self, call: Call) -> Reply {
        let mut told = lock(&self.told);
        if told.next.is_some() {
            // The program is being unwound: calls of its destructors are not steps.
            return Reply::Failed(ErrorKind::Io);
        }
        let Some((asked, reply)) = told.history.get(told.answered).cloned() else {
            told.next = Some(call);
            drop(told);
            // Not `panic!`: nothing is wrong, and no hook should print.
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

    /// The key in the world.
    fn whole(&self, key: &str) -> String {
        if self.scene.wrong == Some(WrongProtocol::ShardsOfAllAttempts) && key.starts_with("shards/") {
            return without_attempt(key);
        }
        match (self.place, key) {
            ("", key) => key.to_owned(),
            (place, "") => place.to_owned(),
            (place, key) => format!("{place}/{key}"),
        }
    }

    /// The content of an object whose reading is no step.
    fn at_once(&self, key: &str) -> Option<Content> {
        if self.scene.replaced {
            return None;
        }
        if let Some(content) = self.scene.constant.get(key) {
            return Some(content.clone());
        }
        if !is_for_ever(key) {
            return None;
        }
        let told = lock(&self.told);
        told.history[..told.answered].iter().find_map(|(call, reply)| match (call, reply) {
            (Call::Commit(committed, content), Reply::Done) if committed == key => Some(content.clone()),
            (Call::Open(opened), Reply::Opened(content)) if opened == key => Some(content.clone()),
            _ => None,
        })
    }

    fn is_always_empty(&self, folder: &str) -> bool {
        let has_no_rank = |digit| u32::from_str_radix(digit, 16).is_ok_and(|rank| rank >= self.scene.ranks);
        (folder == "pins" && !self.scene.pins)
            || (folder == "damaged" && !self.scene.damage)
            || folder.strip_prefix("shards/").is_some_and(has_no_rank)
    }

    fn listed(&self, call: Call) -> Result<Vec<Entry>> {
        let skip = if self.place.is_empty() { 0 } else { self.place.len() + 1 };
        match self.ask(call) {
            Reply::Listed(entries) => Ok(entries
                .into_iter()
                .map(|entry| Entry { key: entry.key[skip..].to_owned(), len: entry.len })
                .collect()),
            _ => Err(Error::new(ErrorKind::Io, "as the model says").in_object(self.describe(""))),
        }
    }

    /// Checks that the case declares the folder of a key.
    fn check_said(&self, key: &str) {
        assert!(self.scene.pins || !key.starts_with("pins/"), "a program that pins must say so: {key}");
        assert!(
            self.scene.damage || !key.starts_with("damaged/"),
            "damage that the case does not have: {key}"
        );
    }
}

/// The name of a shard as a hurried author has it: the folder, the step, and the rank.
pub(super) fn without_attempt(key: &str) -> String {
    let mut parts = key.split('/');
    let (folder, name) = (parts.nth(1).unwrap_or(""), parts.next().unwrap_or(""));
    let mut words = name.split('-');
    let (step, rank) = (words.nth(1).unwrap_or(""), words.next_back().unwrap_or(""));
    if step.is_empty() { key.to_owned() } else { format!("shards/{folder}/{step}-{rank}") }
}

/// Whether an object never changes once it exists: the run's identity, and an attempt's object.
pub(super) fn is_for_ever(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    name == "RUN" || (key.contains("attempts/") && name.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Engine for Replayed {
    fn create(&self, key: &str, _: Option<u64>) -> Result<Box<dyn Upload>> {
        self.check_said(key);
        let key = self.whole(key);
        self.ask_done(Call::Create(key.clone()), &key)?;
        Ok(Box::new(ReplayedUpload { engine: self.clone(), key, bytes: vec![] }))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        let key = self.whole(key);
        let reply = self.at_once(&key).map_or_else(|| self.ask(Call::Open(key.clone())), Reply::Opened);
        match reply {
            Reply::Opened(content) => Ok(Arc::new(MemoryBlob(Buffer::copy_of(&content.bytes)?))),
            _ => Err(Error::new(ErrorKind::NotFound, "there is no such object").in_object(key)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        if self.is_always_empty(folder) {
            return Ok(vec![]);
        }
        self.listed(Call::List(self.whole(folder)))
    }

    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        if !self.scene.joint {
            return folders.iter().map(|folder| self.list(folder)).collect();
        }
        let asked = folders.iter().filter(|folder| !self.is_always_empty(folder));
        let all = self.listed(Call::ListEach(asked.map(|folder| self.whole(folder)).collect()))?;
        let folder_of =
            |entry: &Entry| entry.key.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let of = |folder: &&str| all.iter().filter(|entry| folder_of(entry) == **folder).cloned().collect();
        Ok(folders.iter().map(of).collect())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let key = self.whole(key);
        assert!(!is_for_ever(&key), "the model takes it for granted that {key} stays");
        self.ask_done(Call::Delete(key.clone()), &key)
    }

    fn mark(&self, key: &str) -> Result<()> {
        let key = self.whole(key);
        self.ask_done(Call::Mark(key.clone()), &key)
    }

    fn unmark(&self, key: &str) -> Result<()> {
        let key = self.whole(key);
        self.ask_done(Call::Unmark(key.clone()), &key)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.check_said(to);
        if !self.scene.renames {
            return Err(Error::new(ErrorKind::Unsupported, "this model cannot rename").in_object(from));
        }
        self.ask_done(Call::Rename(self.whole(from), self.whole(to)), from)
    }

    fn lock(&self, _: &str) -> Result<Box<dyn Lock>> {
        if !self.scene.locks || !self.place.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "this model has no locks"));
        }
        self.ask_done(Call::Lock, "LOCK")?;
        Ok(Box::new(ReplayedLock(self.clone())))
    }

    fn caps(&self) -> Caps {
        Caps { create_only: true, lock: self.scene.locks && self.place.is_empty(), ..Caps::NONE }
    }

    fn describe(&self, key: &str) -> String {
        format!("model:{}", self.whole(key))
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
        match self.engine.ask(Call::Commit(self.key.clone(), Content::new(&self.bytes))) {
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
