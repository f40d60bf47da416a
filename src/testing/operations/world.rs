//! A run, its writers, and the expected state.

use super::decode::{Header, Operation};
use super::model::{Known, Policy, Shelf};
use super::site::{Life, Process, Seen, Site};
use crate::clock::script;
use crate::engine::Memory;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{CheckpointId, Reader, RunId, Store, Tier};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The result of an operation; the error describes a broken promise.
pub(super) type Judged<T = ()> = Result<T, String>;

/// One writer.
#[derive(Debug)]
pub(super) struct Handle {
    pub store: Store,
    pub life: Arc<Life>,
    /// Whether it holds the lock, if there is one.
    pub is_locked: bool,
    pub attempt: u32,
    /// The content of its attempt's object when the run had been opened.
    pub own: Vec<u8>,
    pub has_begun: bool,
    /// The newest step that it saved.
    pub saved: Option<u64>,
    pub resumed: Option<CheckpointId>,
    /// Completed steps.
    pub step: u64,
    /// The best loss of the run that it knows, and the last observed one.
    pub best: Option<f64>,
    pub observed: Option<f64>,
    /// A save was due and failed: what is due afterwards is not predicted.
    pub has_failed: bool,
}

/// The changes that an operation may make, besides those of the promoter.
#[derive(Debug)]
pub(super) enum Effect {
    /// No checkpoint.
    Nothing,
    /// Adds this checkpoint and rotates.
    Saved { id: CheckpointId, known: Known, answer: Answer, resumed: Option<CheckpointId> },
    /// Deletes this checkpoint.
    Deleted { id: CheckpointId, is_ok: bool },
    /// Deletes the checkpoints of one tier that a policy does not protect.
    Collected { tier: usize, policy: Policy },
    /// Sets damaged checkpoints aside, and fetches.
    Resumed,
    /// Made by the test itself.
    Outside,
}

/// The outcome of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is saved, and rotation ran.
    Whole,
    /// It is saved.
    Saved,
    Failed,
    /// The process was killed.
    Unknown,
}

/// A run and its expected state.
#[derive(Debug)]
pub(super) struct World {
    pub policies: [Policy; 2],
    pub sites: Vec<Arc<Site>>,
    pub known: Vec<Shelf>,
    /// The values of the checkpoints that `delete` deleted.
    pub deleted: BTreeSet<u32>,
    /// Checkpoints that the remote tier has, or had until they were deleted or lost there.
    pub promoted: BTreeSet<CheckpointId>,
    pub writers: Vec<Handle>,
    pub before: Vec<Seen>,
    pub clock: Arc<AtomicU64>,
    pub image: Option<Image>,
    pub backup: Memory,
    pub backed_up: BTreeMap<CheckpointId, u32>,
    pub backup_run: Option<RunId>,
    /// Attempt objects or the identity differ from those that a store wrote.
    pub is_tampered: bool,
    /// Checkpoints that left the local tier during a promotion.
    pub left_behind: Shelf,
    pub has_rotted: bool,
    /// The remote tier has lost a checkpoint, by a tool or by storage, unknown to its writer.
    pub has_lost_there: bool,
    pub is_unsettled: bool,
    pub was_unsettled: bool,
    /// The file of a killed upload lies there.
    pub has_junk: bool,
    tags: u32,
    seed: u64,
}

/// A copy of a run.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub objects: BTreeMap<String, Vec<u8>>,
    pub known: Shelf,
    pub deleted: BTreeSet<u32>,
}

impl World {
    pub fn new(header: &Header) -> Result<Self> {
        let sites = Site::of(header.place)?;
        let (known, before) = sites.iter().map(|_| (Shelf::new(), Seen::default())).unzip();
        Ok(Self {
            policies: header.policies,
            sites,
            known,
            deleted: BTreeSet::new(),
            promoted: BTreeSet::new(),
            writers: Vec::new(),
            before,
            clock: Arc::new(AtomicU64::new(script::seconds().unwrap_or_default())),
            image: None,
            backup: Memory::new(),
            backed_up: BTreeMap::new(),
            backup_run: None,
            is_tampered: false,
            left_behind: Shelf::new(),
            has_rotted: false,
            has_lost_there: false,
            is_unsettled: false,
            was_unsettled: false,
            has_junk: false,
            tags: 0,
            seed: 1,
        })
    }

    pub fn has_tiers(&self) -> bool {
        self.sites.len() > 1
    }

    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn fresh_tag(&mut self) -> u32 {
        self.tags += 1;
        self.tags
    }

    /// A live process, with its view of each tier.
    pub fn process(&mut self, breaks_locks: bool) -> Vec<Process> {
        self.seed = self.seed.wrapping_add(1 << 32);
        let life = Life::new(self.seed, &self.clock);
        let has =
            |site: &Arc<Site>| Process { site: Arc::clone(site), life: Arc::clone(&life), breaks_locks };
        self.sites.iter().map(has).collect()
    }

    pub fn reader(&self, tier: usize) -> Reader {
        Reader::new(Arc::clone(&self.sites[tier].raw))
    }

    /// Whether a newer writer has taken over, or a writer's own attempt is not what it wrote.
    pub fn is_fenced(&self, writer: usize) -> bool {
        let handle = &self.writers[writer];
        let own = self.sites[0].read(&format!("attempts/{:04}", handle.attempt));
        self.before[0].newest > handle.attempt || !own.is_ok_and(|own| own == handle.own)
    }

    /// One operation, and its judgement.
    pub fn step(&mut self, operation: Operation) -> Judged {
        for handle in &self.writers {
            handle.life.begin();
        }
        self.before = self.look()?;
        if self.is_unsettled && !operation.is_by_a_writer() {
            self.settle()?;
            self.before = self.look()?;
            self.was_unsettled = true;
            self.is_unsettled = false;
            self.judge(&Effect::Nothing, &self.before.clone())?;
        }
        // With tiers the promoter would get some of them.
        let lies = if self.has_tiers() { 0 } else { operation.lies() };
        self.sites[0].lies.store(lies, Ordering::SeqCst);
        let effect = self.act(operation)?;
        self.sites[0].lies.store(0, Ordering::SeqCst);
        if self.writers.iter().any(|handle| handle.life.is_stuck() && !handle.life.is_over()) {
            return Err("an operation calls its engine without end".to_owned());
        }
        (self.was_unsettled, self.is_unsettled) = (self.is_unsettled, false);
        self.is_unsettled = operation.is_unsettled() && self.has_tiers();
        if !self.is_unsettled {
            self.settle()?;
        }
        self.bury_the_dead()?;
        let after = self.look()?;
        self.judge(&effect, &after)
    }

    /// Waits for promotions.
    fn settle(&mut self) -> Judged {
        if !self.has_tiers() {
            return Ok(());
        }
        for handle in &self.writers {
            for _ in 0..3 {
                match handle.store.wait_for(Tier::Remote) {
                    Ok(()) => break,
                    Err(error) => sane(&error)?,
                }
            }
        }
        Ok(())
    }

    fn bury_the_dead(&mut self) -> Judged {
        let (dead, alive): (Vec<_>, _) =
            std::mem::take(&mut self.writers).into_iter().partition(|handle| handle.life.is_over());
        self.writers = alive;
        dead.into_iter().try_for_each(bury)
    }

    pub fn look(&self) -> Judged<Vec<Seen>> {
        self.sites.iter().map(|site| Seen::of(site).map_err(words)).collect()
    }

    /// Checks that every checkpoint holds its own value.
    pub fn audit(&mut self) -> Judged {
        while let Some(handle) = self.writers.pop() {
            bury(handle)?;
        }
        let after = self.look()?;
        self.before.clone_from(&after);
        self.judge(&Effect::Nothing, &after)?;
        for (tier, shelf) in self.known.iter().enumerate() {
            let reader = self.reader(tier);
            for (id, known) in shelf {
                let tag = tag_of(&reader, *id);
                must(tag.is_ok() == known.whole, || format!("{id} in tier {tier}: {tag:?}, {known:?}"))?;
                must(tag.is_ok_and(|tag| tag == known.tag) || !known.whole, || format!("{id} is another's"))?;
            }
        }
        let backup = Reader::new(self.backup.clone());
        for (id, tag) in &self.backed_up {
            must(tag_of(&backup, *id).is_ok_and(|there| there == *tag), || format!("copy of {id}"))?;
        }
        Ok(())
    }
}

/// The value of a checkpoint, all of it verified.
pub(super) fn tag_of(reader: &Reader, id: CheckpointId) -> Result<u32> {
    let checkpoint = reader.checkpoint_by_id(id)?;
    checkpoint.verify()?;
    tag_in(&checkpoint)
}

/// The value of a checkpoint.
pub(super) fn tag_in(checkpoint: &crate::checkpoint::Checkpoint) -> Result<u32> {
    let tensor = checkpoint.tensor("w")?;
    let first = tensor.bytes().first_chunk().copied();
    Ok(first.map(u32::from_le_bytes).unwrap_or_default())
}

/// Ends a writer without closing it, after it has returned its errors.
pub(super) fn bury(handle: Handle) -> Judged {
    for _ in 0..4 {
        match handle.store.wait() {
            Ok(()) => break,
            Err(error) => sane(&error)?,
        }
    }
    Ok(())
}

pub(super) fn must(holds: bool, words: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(words()) }
}

pub(super) fn words(error: Error) -> String {
    format!("{error:?}")
}

/// Fails for errors that must never occur.
pub(super) fn sane(error: &Error) -> Judged {
    let text = format!("{error:?}");
    let is_sane = !text.contains("panicked") && !text.contains("does not end");
    must(is_sane && !matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::LimitExceeded), || text)
}
