//! Power cuts at every operation, on a simulated disk: runs a small trainer on that disk and visits
//! every state that a cut may leave. `oracle.rs` checks a state; `disks/` has the states that a cut
//! may leave.
//!
//! A state is a whole disk: names and bytes. It is visited once, however many histories lead to it.
//! In each one the run is opened again, resumed and saved to, and the power is cut again at every
//! operation of that recovery.

mod job;
mod oracle;
mod trainer;

pub use crate::testing::disks::power_cut::Names;
pub use crate::testing::disks::wrong::Wrong;
pub use oracle::Broken;
pub use trainer::{Disk, History, Life, Promise};

use crate::clock::script::{Random, mix};
use crate::sync::lock;
use crate::testing::disks::power_cut::{AtRest, Image};
use crate::testing::disks::simulated::{Node, Op};
use oracle::Case;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use trainer::Recorded;

const SHARDS: usize = 64;

/// A broken promise, and how to see it again.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise.
    pub broken: Broken,
    /// The details.
    pub detail: String,
    /// Where: the model, the history, the operation.
    pub place: String,
}

/// Visits states and counts the distinct ones. Shared by threads.
#[derive(Debug)]
pub struct Explorer {
    names: Names,
    wrong: Option<Wrong>,
    again: Again,
    /// How many ranks the job has that recovers a state.
    ranks: u32,
    seen: Vec<Mutex<HashSet<u64>>>,
    distinct: Vec<Mutex<HashSet<u64>>>,
    checked: AtomicU64,
    violation: Mutex<Option<Violation>>,
}

/// Where the power is cut again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Nowhere.
    Never,
    /// At every operation of the recovery of each state, with this many random states.
    Random(usize),
    /// At every operation of the recovery of each state, with every state, and so on, this many
    /// recoveries deep.
    Every(u32),
}

/// The number of visited states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visited {
    /// Disks that differ in a name or a byte.
    pub distinct: u64,
    /// Disks checked, including those that were checked again because more had been promised.
    pub checked: u64,
}

impl Explorer {
    /// States under one model of names.
    pub fn new(names: Names, again: Again) -> Self {
        let shards = || (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            names,
            wrong: None,
            again,
            ranks: 1,
            seen: shards(),
            distinct: shards(),
            checked: AtomicU64::new(0),
            violation: Mutex::default(),
        }
    }

    /// States are recovered by a job of this many ranks.
    #[must_use]
    pub fn recovered_by(self, ranks: u32) -> Self {
        Self { ranks, ..self }
    }

    /// States of a file system with one mistake, or with none.
    #[must_use]
    pub fn on(self, wrong: Option<Wrong>) -> Self {
        Self { wrong, ..self }
    }

    fn wrong_or_not(names: Names, wrong: Option<Wrong>) -> Self {
        Self::new(names, Again::Never).on(wrong)
    }

    /// The number of states visited so far.
    pub fn visited(&self) -> Visited {
        let count = |shard: &Mutex<HashSet<u64>>| lock(shard).len() as u64;
        Visited {
            distinct: self.distinct.iter().map(count).sum(),
            checked: self.checked.load(Ordering::Relaxed),
        }
    }

    /// Every state after every operation of `history`, on `threads` threads.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn every_state(&self, history: &History, threads: usize) -> Result<(), Violation> {
        // Once: of several ranks, no two recordings are the same.
        let recorded = &Disk::with(self.wrong).record(history);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let place = || format!("every state of {history:?}");
                    let _ = self.cut_everywhere(recorded, 0, &place, |at| at % threads == thread);
                });
            }
        });
        self.outcome()
    }

    /// Every state after every operation of `history` when its `n`-th fsync of a file fails, for
    /// every `n`.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn every_failing_sync(&self, history: &History) -> Result<(), Violation> {
        for failing in 0.. {
            let disk = Disk::with(self.wrong);
            disk.fail_sync_after(failing);
            let recorded = disk.record(history);
            let failed = recorded.journal.iter().any(|op| matches!(op, Op::SyncFailed(_)));
            if !failed {
                break;
            }
            let place = || format!("fsync {failing} of {history:?} fails");
            if self.cut_everywhere(&recorded, 0, &place, |_| true).is_break() {
                break;
            }
        }
        self.outcome()
    }

    /// The disk goes away after every operation of `history`, and the process lives on: files can
    /// no longer be synced, but syncing folders returns Ok. Promises made to the process after that
    /// must hold as well.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn every_shutdown(&self, history: &History) -> Result<(), Violation> {
        let operations = Disk::with(self.wrong).record(history).journal.len();
        for at in 0..operations {
            let disk = Disk::with(self.wrong);
            disk.shut_down_after(at);
            let recorded = disk.record(history);
            let mut rest = AtRest::begin(&recorded.base, &recorded.live);
            for op in &recorded.journal {
                rest.step(op);
            }
            let mut promise = recorded.log.promise(&recorded.before, usize::MAX);
            // A deletion relies on the folder's fsync alone. A checkpoint that comes back here is
            // whole, and costs only space.
            promise.deleted.clear();
            let place = || format!("the disk is gone after operation {at} of {history:?}");
            if rest.every_state(self.names, &mut |image| self.visit(&image, &promise, 0, &place)).is_break() {
                break;
            }
        }
        self.outcome()
    }

    /// Random states after every operation of a random history that follows from `seed`; `each` per
    /// operation.
    ///
    /// # Errors
    /// The first broken promise; its place names the seed.
    pub fn random(&self, seed: u64, each: usize) -> Result<(), Violation> {
        let mut random = Random(mix(seed));
        let history = History::random(&mut random);
        let disk = Disk::with(self.wrong);
        if random.below(4) == 0 {
            disk.fail_sync_after(random.below(20));
        }
        let recorded = disk.record(&history);
        let place = || format!("seed {seed}: {history:?}");
        let _ = self.cut_randomly(&recorded, &mut random, each, 0, &place);
        self.outcome()
    }

    fn outcome(&self) -> Result<(), Violation> {
        lock(&self.violation).clone().map_or(Ok(()), Err)
    }

    fn cut_everywhere(
        &self,
        recorded: &Recorded,
        depth: u32,
        place: &dyn Fn() -> String,
        mine: impl Fn(usize) -> bool,
    ) -> ControlFlow<()> {
        let mut rest = AtRest::begin(&recorded.base, &recorded.live);
        for at in 0..=recorded.journal.len() {
            if let Some(op) = at.checked_sub(1).and_then(|last| recorded.journal.get(last)) {
                rest.step(op);
            }
            if !mine(at) {
                continue;
            }
            let promise = recorded.log.promise(&recorded.before, at);
            let place = || format!("{}, cut after operation {at}", place());
            rest.every_state(self.names, &mut |image| self.visit(&image, &promise, depth, &place))?;
        }
        ControlFlow::Continue(())
    }

    fn cut_randomly(
        &self,
        recorded: &Recorded,
        random: &mut Random,
        each: usize,
        depth: u32,
        place: &dyn Fn() -> String,
    ) -> ControlFlow<()> {
        let mut rest = AtRest::begin(&recorded.base, &recorded.live);
        for at in 0..=recorded.journal.len() {
            if let Some(op) = at.checked_sub(1).and_then(|last| recorded.journal.get(last)) {
                rest.step(op);
            }
            let promise = recorded.log.promise(&recorded.before, at);
            let place = || format!("{}, cut after operation {at}", place());
            for _ in 0..each {
                self.visit(&rest.any_state(self.names, random), &promise, depth, &place)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Checks a state that was not checked before, and cuts the power during its recovery.
    fn visit(
        &self,
        image: &Image,
        promise: &Promise,
        depth: u32,
        place: &dyn Fn() -> String,
    ) -> ControlFlow<()> {
        let mut hasher = DefaultHasher::new();
        // `started` is left out because it only grows: the first visit, with the fewest, asked the
        // most of the disk.
        (image.fingerprint, &promise.saved, &promise.pinned, &promise.deleted, promise.resumed_from)
            .hash(&mut hasher);
        insert(&self.distinct, image.fingerprint);
        if !insert(&self.seen, hasher.finish()) {
            return ControlFlow::Continue(());
        }
        self.checked.fetch_add(1, Ordering::Relaxed);
        // A second recovery of every state is a third of the time; random states are many, so a
        // quarter of them is enough.
        let recovers_twice = !matches!(self.again, Again::Random(_)) || image.fingerprint.is_multiple_of(4);
        let Self { wrong, ranks, .. } = *self;
        let case = Case { image, promise, wrong, depth, ranks, recovers_twice };
        match case.check() {
            Err((broken, detail)) => self.report(Violation { broken, detail, place: place() }),
            Ok(_) if self.has_violation() => ControlFlow::Break(()),
            Ok(recovery) => self.cut_again(&recovery, image.fingerprint, depth, place),
        }
    }

    fn cut_again(
        &self,
        recovery: &Recorded,
        seed: u64,
        depth: u32,
        place: &dyn Fn() -> String,
    ) -> ControlFlow<()> {
        let place = || format!("{}, then in its recovery", place());
        match self.again {
            Again::Random(each) if depth == 0 => {
                self.cut_randomly(recovery, &mut Random(seed), each, depth + 1, &place)
            }
            Again::Every(deep) if depth < deep => self.cut_everywhere(recovery, depth + 1, &place, |_| true),
            _ => ControlFlow::Continue(()),
        }
    }

    fn has_violation(&self) -> bool {
        lock(&self.violation).is_some()
    }

    fn report(&self, violation: Violation) -> ControlFlow<()> {
        lock(&self.violation).get_or_insert(violation);
        ControlFlow::Break(())
    }
}

fn insert(shards: &[Mutex<HashSet<u64>>], key: u64) -> bool {
    lock(&shards[key as usize % SHARDS]).insert(key)
}

/// A check on a file system with one mistake, or with none.
pub type Check = fn(Option<Wrong>) -> Result<(), Violation>;

/// The checks of a protocol, by name, in this order; without a mistake all pass.
pub const CHECKS: [(&str, Check); 6] = [
    ("a committed name is never replaced", oracle::never_replaced),
    ("a second writer is refused and disturbs nothing", oracle::second_writer_refused),
    ("every state, names in order", |wrong| {
        Explorer::wrong_or_not(Names::Ordered, wrong).every_state(&History::small(), 1)
    }),
    ("every state, any subset of names", |wrong| {
        Explorer::wrong_or_not(Names::AnySubset, wrong).every_state(&History::small(), 1)
    }),
    ("every fsync fails once", |wrong| {
        Explorer::wrong_or_not(Names::Ordered, wrong).every_failing_sync(&History::small())
    }),
    ("the disk is gone and folders lie", |wrong| {
        Explorer::wrong_or_not(Names::Ordered, wrong).every_shutdown(&History::small())
    }),
];

/// The first check that notices a mistake, and its violation.
pub fn killer(wrong: Wrong) -> Option<(&'static str, Violation)> {
    CHECKS.iter().find_map(|(name, check)| Some((*name, check(Some(wrong)).err()?)))
}

/// The nodes of the disk that a log belongs to.
pub(crate) type Nodes = Vec<Node>;
