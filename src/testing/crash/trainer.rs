//! A trainer on a simulated disk: its actions (lives of a few saves), the results it got, and a
//! record of both.

use super::{Names, Nodes, Wrong, job};
use crate::clock::script::{Random, Script, mix};
use crate::collective::{Collective, Tcp};
use crate::engine::vfs::Vfs;
use crate::engine::{Engine, Local};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::snapshot::{Progress, Snapshot};
use crate::store::{CheckpointId, Keep, Reader, Store, StoreOptions};
use crate::testing::disks::simulated::{Node, Op, SimulatedVfs};
use crate::testing::disks::wrong::WrongVfs;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The place of runs on the simulated disk.
pub(super) const RUN: &str = "/run";

/// The actions of a trainer, life after life, on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Checkpoints that rotation keeps.
    pub keep: usize,
    /// Lives.
    pub lives: Vec<Life>,
}

/// Opens the run, resumes, saves and closes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// How often it saves.
    pub saves: usize,
    /// The save after which it pins that checkpoint.
    pub pins: Option<usize>,
    /// The save after which it deletes the checkpoint before it.
    pub deletes: Option<usize>,
    /// How many ranks it has. Several are threads, each with a store of its own and with its own
    /// rows of the tensor; they neither pin nor delete.
    pub ranks: u32,
}

impl Life {
    /// A life of this many saves.
    pub fn of(saves: usize) -> Self {
        Self { saves, pins: None, deletes: None, ranks: 1 }
    }
}

impl History {
    /// Two saves, the second of which rotates the first out.
    pub fn small() -> Self {
        Self { keep: 1, lives: vec![Life::of(2)] }
    }

    /// The same of a job of this many ranks.
    pub fn of_a_job(ranks: u32) -> Self {
        Self { keep: 1, lives: vec![Life { ranks, ..Life::of(2) }] }
    }

    /// One to three lives of up to four saves.
    pub(super) fn random(random: &mut Random) -> Self {
        let mut life = || {
            let saves = random.below(5);
            let pins = (random.below(4) == 0).then(|| random.below(5));
            let deletes = (random.below(4) == 0).then(|| random.below(5));
            Life { pins, deletes, ..Life::of(saves) }
        };
        let mut lives = vec![life(), life(), life()];
        lives.truncate(1 + random.below(3));
        Self { keep: 1 + random.below(3), lives }
    }
}

/// The promises to a trainer when the power went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    pub(super) keep: usize,
    /// Saves that began, which may be visible.
    pub(super) started: BTreeSet<CheckpointId>,
    /// Saves that returned Ok.
    pub(super) saved: BTreeSet<CheckpointId>,
    pub(super) pinned: BTreeSet<CheckpointId>,
    /// Checkpoints that a deletion was requested for: from then on they may be gone, and they count
    /// among those kept.
    pub(super) deleting: BTreeSet<CheckpointId>,
    pub(super) deleted: BTreeSet<CheckpointId>,
    pub(super) resumed_from: Option<CheckpointId>,
}

impl Promise {
    pub(super) fn nothing(keep: usize) -> Self {
        Self {
            keep,
            started: BTreeSet::new(),
            saved: BTreeSet::new(),
            pinned: BTreeSet::new(),
            deleting: BTreeSet::new(),
            deleted: BTreeSet::new(),
            resumed_from: None,
        }
    }
}

/// The results that a trainer got, each with the number of the disk's operations then.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Vec<(usize, Event)>);

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A new life: the checkpoint that the last one resumed from is no longer protected.
    Opened,
    Resumed(CheckpointId),
    Started(CheckpointId),
    Saved(CheckpointId),
    Pinned(CheckpointId),
    /// From here on it may be gone.
    Deleting(CheckpointId),
    Deleted(CheckpointId),
}

impl Log {
    /// The promises after this many operations, added to those from before.
    pub(super) fn promise(&self, before: &Promise, operations: usize) -> Promise {
        let mut promise = before.clone();
        for (_, event) in self.0.iter().filter(|(at, _)| *at <= operations) {
            match *event {
                Event::Opened => promise.resumed_from = None,
                Event::Resumed(name) => promise.resumed_from = Some(name),
                Event::Started(name) => promise.started.extend([name]),
                Event::Saved(name) => promise.saved.extend([name]),
                Event::Pinned(name) => promise.pinned.extend([name]),
                Event::Deleting(name) => {
                    promise.saved.remove(&name);
                    promise.deleting.insert(name);
                }
                Event::Deleted(name) => promise.deleted.extend([name]),
            }
        }
        promise
    }
}

/// A simulated disk, and the local engine on it. Clones share the disk.
#[derive(Clone, Debug)]
pub struct Disk {
    disk: SimulatedVfs,
    vfs: Arc<dyn Vfs>,
}

/// A disk's operations, and the trainer's log on it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub base: Nodes,
    pub live: Nodes,
    pub journal: Vec<Op>,
    pub log: Log,
    pub before: Promise,
}

impl Disk {
    /// An empty disk with one mistake, or with none.
    pub fn with(wrong: Option<Wrong>) -> Self {
        Self::on(SimulatedVfs::empty(), wrong)
    }

    pub(super) fn holding(nodes: Vec<Node>, wrong: Option<Wrong>) -> Self {
        Self::on(SimulatedVfs::holding(nodes), wrong)
    }

    fn on(disk: SimulatedVfs, wrong: Option<Wrong>) -> Self {
        let right: Arc<dyn Vfs> = Arc::new(disk.clone());
        let vfs = match wrong {
            Some(wrong) => Arc::new(WrongVfs::new(right, wrong)),
            None => right,
        };
        Self { disk, vfs }
    }

    /// The engine on this disk; its folder is created if missing.
    ///
    /// # Errors
    /// As [`Local::create`].
    pub fn local(&self) -> Result<Local> {
        Local::create_on(Path::new(RUN), &*self.vfs)
    }

    /// The engine on this disk, which writes nothing by itself.
    ///
    /// # Errors
    /// As [`Local::open`].
    pub(super) fn local_to_read(&self) -> Result<Local> {
        Local::open_on(Path::new(RUN), &*self.vfs)
    }

    /// After `count` more fsyncs of files one fails, once.
    pub fn fail_sync_after(&self, count: usize) {
        self.disk.fail_sync_after(count);
    }

    /// After `count` operations the disk is gone while processes live on.
    pub fn shut_down_after(&self, count: usize) {
        self.disk.shut_down_after(count);
    }

    /// Names of files that were never published, in any folder.
    pub fn leftovers(&self) -> Vec<String> {
        let names = self.disk.nodes().into_iter().filter_map(|node| match node {
            Node::Dir(entries) => Some(entries.into_keys()),
            Node::File(_) => None,
        });
        names.flatten().filter(|name| name.starts_with(".tmp-")).collect()
    }

    /// Keys of shards that no checkpoint refers to.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn orphans(&self) -> Result<Vec<String>> {
        let reader = Reader::new(self.local_to_read()?);
        let mut named = BTreeSet::new();
        for id in reader.ids()? {
            named.extend(reader.checkpoint_by_id(id)?.inspect().shard_keys());
        }
        let mut keys = Vec::new();
        for folder in 0..16 {
            let listed = self.local_to_read()?.list(&format!("shards/{folder:x}"))?;
            keys.extend(listed.into_iter().map(|entry| entry.key).filter(|key| !named.contains(key)));
        }
        Ok(keys)
    }

    /// Runs a history on this disk, which is new. A save that fails does not count; neither does a
    /// life that cannot begin.
    pub(super) fn record(&self, history: &History) -> Recorded {
        let _script = Script::begin(1);
        let base = self.disk.nodes();
        let mut log = Log::default();
        for life in &history.lives {
            // A failure promises nothing: the log has the promises.
            let _ = self.live(history.keep, life, &mut log);
        }
        let before = Promise::nothing(history.keep);
        Recorded { base, live: self.disk.nodes(), journal: self.disk.journal(), log, before }
    }

    /// One life; returns what it saw, or what its rank 0 did.
    pub(super) fn live(&self, keep: usize, life: &Life, log: &mut Log) -> Result<Lived> {
        if life.ranks == 1 {
            return self.live_as(self.open(keep)?, 0, life, log);
        }
        let ranks = job::of(life.ranks, |ranks| {
            let (rank, mut said) = (ranks.rank(), Log::default());
            let store = self.open_rank(keep, ranks);
            (store.and_then(|store| self.live_as(store, rank, life, &mut said)), said)
        })?;
        let mut lives = Vec::new();
        for (rank, (lived, said)) in ranks.into_iter().enumerate() {
            // What another rank was told is a promise, too.
            let counts = |event: &Event| rank == 0 || matches!(event, Event::Saved(_));
            log.0.extend(said.0.into_iter().filter(|(_, event)| counts(event)));
            lives.push(lived);
        }
        log.0.sort_by_key(|(at, _)| *at);
        let lived = lives.remove(0)?;
        for (other, rank) in lives.into_iter().zip(1..) {
            let other = other?;
            if (other.resumed, other.saved) != (lived.resumed, lived.saved) {
                return Err(Error::invalid(format!("rank {rank} saw another run than rank 0"))
                    .expected(format!("{lived:?}"))
                    .found(format!("{other:?}")));
            }
        }
        Ok(lived)
    }

    fn live_as(&self, store: Store, rank: u32, life: &Life, log: &mut Log) -> Result<Lived> {
        self.note(log, Event::Opened);
        let resumed = store.resume()?;
        if let Some(name) = resumed.id {
            self.note(log, Event::Resumed(name));
        }
        let mut lived =
            Lived { resumed: resumed.id, skipped: resumed.skipped.len(), saved: None, error: None };
        let mut step = resumed.progress.step;
        for save in 0..life.saves {
            step += 10;
            let name = CheckpointId { attempt: store.attempt(), step };
            self.note(log, Event::Started(name));
            let weights = weights(name);
            match store.save(&snapshot(name, &weights, rank, life.ranks)?) {
                Ok(saved) => {
                    self.note(log, Event::Saved(name));
                    for &name in &saved.deleted {
                        self.note(log, Event::Deleted(name));
                    }
                    lived.error =
                        saved.rotation_error.or(saved.not_deleted.into_iter().next().map(|(_, error)| error));
                    lived.saved = Some(name);
                    if life.pins == Some(save) && store.pin(step).is_ok() {
                        self.note(log, Event::Pinned(name));
                    }
                    if life.deletes == Some(save) {
                        self.delete(&store, step - 10, lived.resumed, log);
                    }
                }
                Err(error) => lived.error = Some(error),
            }
        }
        store.close()?;
        Ok(lived)
    }

    fn delete(&self, store: &Store, step: u64, resumed: Option<CheckpointId>, log: &mut Log) {
        let listed = store.list().unwrap_or_default();
        // It may have been rotated out.
        let Some(info) = listed.into_iter().find(|info| info.id.step == step) else { return };
        let name = info.id;
        if info.pinned || resumed == Some(name) {
            return;
        }
        self.note(log, Event::Deleting(name));
        if store.delete(step).is_ok() {
            self.note(log, Event::Deleted(name));
        }
    }

    pub(super) fn open(&self, keep: usize) -> Result<Store> {
        Store::open(self.local()?, options(keep))
    }

    fn open_rank(&self, keep: usize, ranks: Tcp) -> Result<Store> {
        // Small states are spread over the ranks, too.
        Store::open_ranks(self.local()?, ranks, options(keep).least_shard_bytes(0))
    }

    pub(super) fn recorded(self, base: Nodes, log: Log, before: Promise) -> Recorded {
        Recorded { base, live: self.disk.nodes(), journal: self.disk.journal(), log, before }
    }

    fn note(&self, log: &mut Log, event: Event) {
        log.0.push((self.disk.operations(), event));
    }
}

fn options(keep: usize) -> StoreOptions {
    // Options ask the system how many cores there are: once is enough for a million disks.
    static OPTIONS: OnceLock<StoreOptions> = OnceLock::new();
    OPTIONS.get_or_init(StoreOptions::new).clone().keep(Keep::last(keep))
}

/// The observations of a life.
#[derive(Debug)]
pub(super) struct Lived {
    pub resumed: Option<CheckpointId>,
    pub skipped: usize,
    pub saved: Option<CheckpointId>,
    /// The last thing that failed.
    pub error: Option<Error>,
}

/// The only tensor of a checkpoint, different for every name.
pub(super) fn weights(id: CheckpointId) -> [f32; 8] {
    std::array::from_fn(|i| mix(u64::from(id.attempt) << 40 | id.step << 4 | i as u64) as f32)
}

/// What a rank has of it.
fn snapshot(id: CheckpointId, weights: &[f32; 8], rank: u32, world: u32) -> Result<Snapshot<'_>> {
    let snapshot = Snapshot::new().progress(Progress::new(id.step));
    if world == 1 {
        return snapshot.tensor("w", &weights[..]);
    }
    let layout = Layout::sharded(0, world)?;
    let own = layout.box_of(&[8], rank).map_or(0..0, |own| own.range(0));
    snapshot.sharded("w", &weights[own.start as usize..own.end as usize], &[8], &layout)
}

/// For reports.
impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ordered => "names in order",
            Self::AnySubset => "any subset of names",
        })
    }
}
