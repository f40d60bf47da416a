//! A store of many ranks: one checkpoint for a whole job. Each rank writes a shard, rank 0 creates
//! the manifest over them, which is the commit. This module has the calls that all ranks make at
//! once; `core.rs` asks it where there is more than one rank, and knows nothing of it otherwise.

mod commit;
mod due;
mod join;
mod plan;
mod rebuild;
mod receipts;
mod resume;
mod sweep;
mod through_store;

pub use rebuild::{Rebuilt, rebuild};
pub use sweep::OrphanedShards;
pub use through_store::ThroughStore;

use super::Store;
use super::core::{Core, Others};
use super::cost::Stall;
use super::naming::CheckpointId;
use super::options::StoreOptions;
use super::resumed::Resumed;
use super::saved::Saved;
use super::schedule::{Begun, SaveReason};
use crate::checkpoint::Checkpoint;
use crate::collective::{self, Call, Collective};
use crate::engine::IntoEngine;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::sync::lock;
use plan::Agreement;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

impl Others for Ranks {
    fn world(&self) -> u32 {
        Self::world(self)
    }

    fn is_root(&self) -> bool {
        Self::is_root(self)
    }

    fn check_root(&self, what: &'static str) -> Result<()> {
        Self::check_root(self, what)
    }

    fn check_background(&self) -> Result<()> {
        Self::check_background(self)
    }

    fn check_failure(&self) -> Result<()> {
        Self::check_failure(self)
    }

    fn refuse(&self, error: Error) -> Error {
        Self::refuse(self, error)
    }

    fn due(&self, core: &Core, progress: Progress) -> Option<SaveReason> {
        Self::due(self, core, progress)
    }

    fn save(&self, core: &Core, snapshot: &Snapshot<'_>, begun: &Begun, stall: &Stall) -> Result<Saved> {
        Self::save(self, core, snapshot, begun, stall)
    }

    fn verify_together(&self, checkpoint: &Checkpoint, id: CheckpointId) -> Result<()> {
        Self::verify_together(self, checkpoint, id)
    }

    fn resume(
        &self,
        core: &Core,
        step: Option<u64>,
        alone: &mut dyn FnMut() -> Result<Resumed>,
    ) -> Result<Resumed> {
        Self::resume(self, core, step, alone)
    }
}

/// Longer than any process lives, and short enough to be added to an instant.
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// The ranks of a job, as one of them sees them.
pub(super) struct Ranks {
    /// For resuming, and for asking whether to save.
    training: Arc<dyn Collective>,
    /// For saves: a second connection where there is one, so that they may run in the background.
    saving: Arc<dyn Collective>,
    has_second: bool,
    /// How long a rank waits for the others.
    limit: Duration,
    /// How long rank 0 may be busy with the storage while the others wait.
    storage: Duration,
    settings: plan::Settings,
    agreement: Mutex<Agreement>,
    /// The error of a call that could not return it.
    failure: Mutex<Option<Error>>,
    last_sweep: Mutex<Option<Instant>>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.world())
    }
}

impl Ranks {
    fn new(collective: Arc<dyn Collective>, options: &StoreOptions) -> Self {
        Self {
            saving: Arc::clone(&collective),
            training: collective,
            has_second: false,
            limit: options.rank_deadline.min(LONGEST),
            storage: options.deadline.min(LONGEST),
            settings: plan::Settings::of(options),
            agreement: Mutex::default(),
            failure: Mutex::default(),
            last_sweep: Mutex::default(),
        }
    }

    pub(super) fn rank(&self) -> u32 {
        self.training.rank()
    }

    pub(super) fn world(&self) -> u32 {
        self.training.world()
    }

    /// Whether this is rank 0, which decides, commits and deletes.
    pub(super) fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Fails where only rank 0 may act.
    pub(super) fn check_root(&self, what: &'static str) -> Result<()> {
        if self.is_root() {
            return Ok(());
        }
        Err(Error::invalid(what).expected("a call on rank 0").found(format!(
            "rank {} of {}",
            self.rank(),
            self.world()
        )))
    }

    /// Fails where saves cannot run beside training.
    fn check_background(&self) -> Result<()> {
        if self.has_second {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            "the ranks have no second connection for saves in the background",
        )
        .help("save in the foreground, by Store::save, or give a collective that splits"))
    }

    /// Until when the others must have come to a call.
    fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// Until when rank 0 must have answered: it may itself wait for the slowest rank, and then for
    /// the storage.
    fn patience(&self) -> Instant {
        Instant::now() + 2 * self.limit + self.storage
    }

    /// Everybody's outcome, on rank 0.
    fn collect(
        &self,
        on: &dyn Collective,
        name: &str,
        own: &Result<Vec<u8>>,
    ) -> Result<Option<Result<Vec<Vec<u8>>>>> {
        collective::collect(on, Call { name, deadline: self.deadline() }, own)
    }

    fn announce(&self, on: &dyn Collective, decision: &Result<Vec<u8>>) -> Result<()> {
        collective::announce(on, decision, self.deadline())
    }

    fn hear(&self, on: &dyn Collective) -> Result<Result<Vec<u8>>> {
        collective::hear(on, self.patience())
    }

    /// A call of all ranks: rank 0 decides by everybody's bytes. One rank's error is everybody's.
    fn exchange(
        &self,
        on: &dyn Collective,
        name: &str,
        own: Result<Vec<u8>>,
        decide: impl FnOnce(Vec<Vec<u8>>) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let heard = match self.collect(on, name, &own)? {
            Some(all) => {
                let decision = all.and_then(decide);
                self.announce(on, &decision)?;
                decision
            }
            None => self.hear(on)?,
        };
        // A rank's own error keeps what only it knows.
        own.and(heard)
    }

    /// Tells the other ranks, which are at a save, why this one's part cannot begin. They are told
    /// this error, and this rank stays at the same call as they.
    fn refuse(&self, error: Error) -> Error {
        let told = self.exchange(&*self.saving, "a save", Err(error), |_| Ok(vec![]));
        told.err().unwrap_or_else(|| Error::invalid("a save that cannot begin"))
    }

    /// The error of an earlier call that could not return it, once.
    fn check_failure(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }
}

/// An error to be sent, while its owner keeps it whole.
fn copy_of(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

impl Store {
    /// Opens a run for writing by all ranks of a job: every rank calls it, with its own connection
    /// to the others and the same place. Rank 0 takes the writer's lock and the attempt; the others
    /// join it. A job of one rank is [`Store::open`], without one request more.
    ///
    /// From then on all ranks make the same calls in the same order: [`Store::resume`],
    /// [`Store::due`], [`Store::save`]. They resume from the same checkpoint, rank 0 decides
    /// whether a save is due, and a save is one checkpoint of all ranks or none: when a rank fails
    /// or does not come within [`StoreOptions::rank_deadline`], the save fails on every rank, with
    /// that rank's words. [`Store::stage`], [`Store::save_async`] and [`Store::save_during`] need a
    /// collective that [splits](crate::ranks::Collective::split).
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use std::time::{Duration, Instant};
    /// use tensorkeep::ranks::Tcp;
    /// use tensorkeep::{Progress, Snapshot, Store, StoreOptions, engine::Memory, layout::Layout};
    ///
    /// # fn main() -> tensorkeep::Result<()> {
    /// let by = Instant::now() + Duration::from_secs(20);
    /// let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    /// let address = listener.local_addr().unwrap();
    /// let run = Memory::new(); // a folder that all ranks share, or an object store
    /// let rank = |ranks: Tcp, rank: u64| -> tensorkeep::Result<()> {
    ///     let store = Store::open_ranks(run.clone(), ranks, StoreOptions::new())?;
    ///     let resumed = store.resume()?; // the same checkpoint on every rank
    ///     # drop(resumed);
    ///     let rows = [rank as f32; 6]; // rows 2 * rank and 2 * rank + 1 of a momentum of 4 rows
    ///     let layout = Layout::sharded(0, 2)?;
    ///     let snapshot = Snapshot::new().sharded("momentum", ([2, 3], &rows), &[4, 3], &layout)?;
    ///     store.save(&snapshot.progress(Progress::new(10)))?;
    ///     store.close()
    /// };
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| rank(Tcp::connect(address, 1, 2, "job-7", by)?, 1));
    ///     rank(Tcp::listen(&listener, 2, "job-7", by)?, 0)?;
    ///     other.join().unwrap()
    /// })?;
    /// let checkpoint = tensorkeep::Reader::new(run).checkpoint(10)?;
    /// let momentum = checkpoint.tensor("momentum")?; // all rows, whoever reads it
    /// assert_eq!(momentum.elements::<f32>()?, [0., 0., 0., 0., 0., 0., 1., 1., 1., 1., 1., 1.]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Store::open`], on every rank; `Invalid` for a world of 0; `Io` when a rank is lost or
    /// late, or does not see the run that rank 0 has opened.
    pub fn open_ranks(
        place: impl IntoEngine,
        ranks: impl Collective + 'static,
        options: StoreOptions,
    ) -> Result<Self> {
        let engine = place.into_engine();
        if ranks.world() == 1 && ranks.rank() == 0 {
            return Self::open_on(engine?, None, options);
        }
        Ok(Self::over(join::open(engine, Arc::new(ranks), options)?))
    }
}

impl Core {
    /// Fails where saves cannot run beside training.
    pub(super) fn check_ranks_in_background(&self) -> Result<()> {
        self.ranks.as_ref().map_or(Ok(()), |ranks| ranks.check_background())
    }

    /// Has the other ranks hear of a save that cannot begin on this one.
    pub(super) fn refuse(&self, error: Error) -> Error {
        match &self.ranks {
            Some(ranks) => ranks.refuse(error),
            None => error,
        }
    }

    /// Returns the failure of a call that could not return it.
    pub(super) fn check_ranks(&self) -> Result<()> {
        self.ranks.as_ref().map_or(Ok(()), |ranks| ranks.check_failure())
    }

    /// Fails on another rank than 0.
    pub(super) fn check_root(&self, what: &'static str) -> Result<()> {
        self.ranks.as_ref().map_or(Ok(()), |ranks| ranks.check_root(what))
    }
}
