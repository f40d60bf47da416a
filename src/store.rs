//! The checkpoints of one run over one engine, or over two tiers: [`Store`], the writer's lock and
//! attempt, and deletion. This module uses engines through their contract and containers through
//! their reader and writer; files and bytes are theirs.

mod absent;
mod attempt;
mod background;
mod copy;
mod core;
mod cost;
mod damage;
mod deletion;
mod gc;
pub mod history;
mod identity;
mod in_flight;
mod keep;
mod lives;
mod look;
mod naming;
mod opening;
mod options;
mod pending;
mod pins;
mod presence;
mod priority;
mod process;
mod promote;
mod ranks;
mod reader;
mod record;
mod resume;
mod resumed;
mod retention;
mod run_id;
mod save;
mod saved;
mod saving;
mod schedule;
mod signals;
mod small;
mod staging;
mod tiered;
mod tiers;

pub use crate::clock::date;
pub use copy::CopyOutcome;
pub use cost::SaveCost;
pub use gc::{Collected, Collection};
pub use keep::{Keep, Mode};
pub use look::Listed;
pub use naming::CheckpointId;
pub use options::{StoreOptions, WhenFull};
pub use pending::PendingSave;
pub use pins::AttemptInfo;
pub use presence::Presence;
pub use ranks::{OrphanedShards, Rebuilt, ThroughStore, rebuild};
pub use reader::{CheckpointInfo, Reader};
pub use record::CheckpointMeta;
pub use resumed::{Resumed, SkippedCheckpoint};
pub use run_id::RunId;
pub use saved::{Diverged, Saved};
pub use schedule::{AutoInterval, Every, SaveReason};
pub use tensorkeep_signals::Signal;
pub use tiers::Tier;

use self::core::Core;
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, IntoEngine};
use crate::error::Result;
use crate::sync::lock;
use background::Background;
use promote::Promoter;
use staging::Staging;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The one writer of a run's checkpoints, and a reader of them. For reading beside a writer there
/// is [`Reader`].
///
/// ```
/// use tensorkeep::{Every, Keep, Progress, Snapshot, Store, StoreOptions};
///
/// # let folder = std::env::temp_dir().join(format!("doc-store-{}", std::process::id()));
/// let options = StoreOptions::new().save(Every::steps(100).or_on_signal()).keep(Keep::last(2));
/// let store = Store::open(&folder, options)?;
/// let mut weights = vec![0.0_f32; 8];
/// let resumed = store.resume()?;
/// if let Some(checkpoint) = &resumed.checkpoint {
///     weights.copy_from_slice(checkpoint.tensor("weights")?.elements()?);
/// }
/// for step in resumed.next_step()..300 {
///     weights[0] += 0.1; // train
///     let progress = Progress::new(step + 1);
///     if store.due(&progress).is_some() {
///         store.save(&Snapshot::new().tensor("weights", &weights)?.progress(progress))?;
///     }
///     if store.should_stop() {
///         break;
///     }
/// }
/// let steps: Vec<u64> = store.list()?.iter().map(|info| info.id.step).collect();
/// assert_eq!(steps, [200, 300]);
/// store.close()?;
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// Dropping a store waits for background saves and promotions, and prints any unreported error to
/// stderr; [`Store::close`] returns it.
#[derive(Debug)]
pub struct Store {
    background: Background,
    /// Dropped after the background, so that the checkpoints of its saves are promoted, too.
    promoter: Option<Promoter>,
    staging: Staging,
    core: Arc<Core>,
}

impl Store {
    /// Opens a run for writing, in a folder, which is created if missing, or on an engine: takes
    /// the writer's lock, removes what killed writers left unfinished, and takes a new attempt
    /// number.
    ///
    /// ```no_run
    /// use tensorkeep::{Every, Keep, Store, StoreOptions};
    ///
    /// let options = StoreOptions::new().save(Every::steps(500).or_on_signal()).keep(Keep::last(3));
    /// let store = Store::open("runs/lenet", options)?;
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Locked` with the holder when another process writes to this run; `Invalid` for options that
    /// make no sense; errors of the engine, such as a folder that cannot be written.
    pub fn open(place: impl IntoEngine, options: StoreOptions) -> Result<Self> {
        Self::open_on(place.into_engine()?, None, options)
    }

    fn open_on(
        engine: Arc<dyn Engine>,
        remote: Option<Arc<dyn Engine>>,
        options: StoreOptions,
    ) -> Result<Self> {
        Ok(Self::over(options.clone().timed(|| Core::open(engine, remote, options))?))
    }

    fn over(core: Core) -> Self {
        let core = Arc::new(core);
        let background = Background::new(Arc::clone(&core));
        Self { background, promoter: None, staging: Staging::default(), core }
    }

    /// This writer's attempt number.
    pub fn attempt(&self) -> u32 {
        self.core.attempt.number
    }

    /// A reader of the same run, to hand to others.
    pub fn reader(&self) -> Reader {
        self.core.reader.clone()
    }

    /// Opens the newest checkpoint that verifies, every byte of it. Damaged newer ones are set
    /// aside under `damaged/` and returned in [`Resumed::skipped`], which says how much work is
    /// lost and why.
    ///
    /// # Errors
    /// `Damaged` when there are checkpoints and none verifies: starting from nothing is your
    /// decision. `NewerVersion` when the newest was written by a newer version. `Io` when the
    /// operating system refuses.
    pub fn resume(&self) -> Result<Resumed> {
        self.background.settle()?;
        self.reach_again()?;
        self.core.resume_by(None).inspect(|resumed| self.core.wake_after(resumed))
    }

    /// Rolls back: resumes from a given step, regardless of later saves. The saves that follow
    /// belong to a new attempt and are newer than all before.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when this store has saved already; `Busy` while another process
    /// deletes that checkpoint; and as [`Store::resume`].
    pub fn resume_at(&self, step: u64) -> Result<Resumed> {
        self.background.settle()?;
        self.reach_again()?;
        self.core.resume_by(Some(step)).inspect(|resumed| self.core.wake_after(resumed))
    }

    /// A remote tier that did not answer an earlier resume may answer now. The first resume comes
    /// right after opening, which has waited already.
    fn reach_again(&self) -> Result<()> {
        let Some(remote) = &self.core.remote else { return Ok(()) };
        if !self.core.has_begun() {
            return Ok(());
        }
        let core = Arc::clone(&self.core);
        remote.try_again(move || core.reach_remote())
    }

    /// Starts over: allows a first save that follows on nothing although the run has checkpoints.
    /// They count as older, and rotation treats them so. Without this, [`Store::resume`] or
    /// [`Store::resume_at`], such a save is refused.
    pub fn start_over(&self) {
        self.core.start_over();
    }

    /// Why each checkpoint stays, in words: `last 3`, `best val_loss`, `pinned`, … A checkpoint
    /// that is not in the result is deleted by the next save.
    ///
    /// # Errors
    /// Errors of listing.
    pub fn kept(&self) -> Result<BTreeMap<CheckpointId, BTreeSet<String>>> {
        self.core.timed(|| self.core.kept())
    }

    /// As [`Reader::list`].
    ///
    /// # Errors
    /// As [`Reader::list`].
    pub fn list(&self) -> Result<Vec<CheckpointInfo>> {
        self.core.timed(|| self.core.reader.list())
    }

    /// As [`Reader::latest`].
    ///
    /// # Errors
    /// As [`Reader::latest`].
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        self.core.timed(|| self.core.reader.latest())
    }

    /// As [`Reader::best`].
    ///
    /// # Errors
    /// As [`Reader::best`].
    pub fn best(&self, metric: &str, mode: Mode) -> Result<Option<Checkpoint>> {
        self.core.timed(|| self.core.reader.best(metric, mode))
    }

    /// The checkpoint of a step, as [`Reader::checkpoint`].
    ///
    /// # Errors
    /// As [`Reader::checkpoint`].
    pub fn checkpoint(&self, step: u64) -> Result<Checkpoint> {
        self.core.timed(|| self.core.reader.checkpoint(step))
    }

    /// Protects a step's checkpoint from rotation and from [`Store::delete`], also after a restart;
    /// with tiers, in both, and it waits for both.
    ///
    /// # Errors
    /// `NotFound`, and errors of the engine.
    pub fn pin(&self, step: u64) -> Result<()> {
        self.background.process().check()?;
        self.core.in_each_tier(step, |reader, name| name.pin(reader.engine()))
    }

    /// Removes a pin. Nothing is deleted before the next save.
    ///
    /// # Errors
    /// `NotFound`, and errors of the engine.
    pub fn unpin(&self, step: u64) -> Result<()> {
        self.background.process().check()?;
        self.core.in_each_tier(step, |reader, name| name.unpin(reader.engine()))
    }

    /// Deletes a step's checkpoint, durably; with tiers, in both. A promotion of it in progress is
    /// stopped first. Unless this store has just saved or resumed from another checkpoint, another
    /// one is read and verified before.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a pinned checkpoint, for the one that this store resumed from, and
    /// when no other checkpoint verifies; `Fenced`; errors of the engine.
    pub fn delete(&self, step: u64) -> Result<()> {
        self.background.process().check()?;
        self.core.check_root("deleting a checkpoint of many ranks")?;
        self.core.timed(|| self.core.delete(step))
    }

    /// Says that a signal ends this attempt, by its name such as `SIGTERM`: for a program that
    /// hears signals itself. The run's [history](history::History) then tells it, as it tells of
    /// the signals that [`Every::on_signal`] hears.
    pub fn stopped_by(&self, signal: impl Into<String>) {
        *lock(&self.core.stopped_by) = Some(signal.into());
    }

    /// Ends writing: waits for background saves and, with tiers, for all promotions, leaves a mark
    /// that distinguishes this end from a kill in the run's [history](history::History), then frees
    /// the lock. Dropping the store waits as well, but leaves no mark and cannot return an error.
    ///
    /// # Errors
    /// The error of a background save or a promotion that no call has returned yet.
    pub fn close(self) -> Result<()> {
        let closed = self.wait_for(if self.core.remote.is_some() { Tier::Remote } else { Tier::Local });
        self.end(closed)
    }
}
