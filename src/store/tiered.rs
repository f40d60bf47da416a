//! The calls of a [`Store`] with two tiers: saves go to a local engine, and are promoted to a
//! remote one in the background.
//!
//! One rule decides what is promoted: the checkpoints that the remote tier's own
//! [`Keep`](super::Keep) would keep of all in both tiers, newest first. So with `Keep::last(3)` a
//! slow link skips overtaken checkpoints, and with `Keep::all()` it skips none. Until a checkpoint
//! is promoted, the local tier's rotation spares it. Each tier always keeps its own newest.

use super::Store;
use super::naming::CheckpointId;
use super::options::StoreOptions;
use super::promote::Promoter;
use super::reader::Reader;
#[cfg(feature = "testing")]
use super::tiers::Hopeless;
use super::tiers::Tier;
#[cfg(feature = "testing")]
use crate::engine::Engine;
use crate::engine::IntoEngine;
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Store {
    /// Opens a run whose checkpoints are saved to `local` and promoted to `remote` in the
    /// background: a fast disk, and storage that survives the machine. [`Store::wait_for`] waits
    /// for promotions; [`StoreOptions::keep_remote`] is the remote tier's retention.
    ///
    /// ```
    /// # use tensorkeep::{Keep, Progress, StoreOptions, Snapshot, Store, Tier, engine::Memory};
    /// # let (disk, bucket) = (Memory::new(), Memory::new());
    /// let options = StoreOptions::new().keep(Keep::last(2)).keep_remote(Keep::last(10));
    /// let store = Store::open_tiered(disk, bucket, options)?;
    /// let resumed = store.resume()?; // the newest that verifies, from either
    /// # let mut snapshot = Snapshot::new().progress(Progress::new(1));
    /// store.save(&snapshot)?; // durable in the local tier
    /// store.wait_for(Tier::Remote)?; // and now in the remote one, too
    /// store.close()?; // waits as well
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// * [`Store::resume`] takes the newest that verifies from either tier and fetches it to the
    ///   local one: a new machine continues where the lost one was.
    /// * Checkpoints that were not promoted when a process ended are promoted by the next one.
    /// * The next call returns the error of a failed promotion, once, as
    ///   [`ErrorKind::NotPromoted`]: a save in its
    ///   [`Saved::earlier_error`](super::Saved::earlier_error) or
    ///   [`PendingSave::earlier_error`](super::PendingSave::earlier_error). Everything saved is
    ///   durable in the local tier, and the next save, or [`Store::wait_for`], tries again.
    /// * When the remote tier cannot be reached, or does not answer within
    ///   [`StoreOptions::remote_timeout`], a run with local checkpoints continues with them, and
    ///   reports that on stderr and in [`Resumed::remote_error`](super::Resumed::remote_error).
    /// * The attempt is taken in both tiers and is newer than all in either. A process that opens
    ///   the run after this, on any machine, fences it: then every call fails with `Fenced`.
    /// * Listing, opening and [`Store::reader`] use the local tier; [`Store::remote_reader`] reads
    ///   the other.
    ///
    /// # Errors
    /// As [`Store::open`], for both; and errors of `remote` when it cannot be reached and there is
    /// no local checkpoint: then it is not known whether there is a run to resume.
    pub fn open_tiered(
        local: impl IntoEngine,
        remote: impl IntoEngine,
        options: StoreOptions,
    ) -> Result<Self> {
        let mut store = Self::open_on(local.into_engine()?, Some(remote.into_engine()?), options)?;
        store.promoter = Promoter::start(Arc::clone(&store.core))?;
        Ok(store)
    }

    /// As [`Store::open_tiered`], without the thread: the model check calls it.
    #[cfg(feature = "testing")]
    pub(crate) fn open_tiered_without_promoter(
        local: Arc<dyn Engine>,
        remote: Arc<dyn Engine>,
        options: StoreOptions,
    ) -> Result<Self> {
        Self::open_on(local, Some(remote), options)
    }

    /// Does the work of one wakeup of the thread.
    #[cfg(feature = "testing")]
    pub(crate) fn promote_now(&self) -> Result<()> {
        let Some(remote) = &self.core.remote else { return Ok(()) };
        let errors = remote.pass(&self.core, &mut Hopeless::new());
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Whether deleting a checkpoint would wait for the thread now. If so, the thread has been
    /// asked to stop.
    #[cfg(feature = "testing")]
    pub(crate) fn would_wait_to_delete(&self, id: CheckpointId) -> bool {
        let Some(remote) = &self.core.remote else { return false };
        let is_promoting = remote.upward.ask_to_stop(id);
        is_promoting || remote.deleting.try_lock().is_err() || self.core.deleting.try_lock().is_err()
    }

    /// Waits until all saves so far are durable in a tier: those that the remote tier's retention
    /// wants there, always including the newest. An earlier failure does not prevent another try;
    /// if that succeeds, the failure is no error.
    ///
    /// # Errors
    /// The error of a background save or of a promotion that no call has returned yet, and each
    /// time that of the newest save if it can never be promoted, for example because a copy is
    /// marked as damaged; `Unsupported` for the remote tier of a store that has none.
    pub fn wait_for(&self, tier: Tier) -> Result<()> {
        self.wait_until(tier, None)
    }

    /// As [`Store::close`], but waits for promotions no longer than `limit`: a launcher kills a
    /// process that does not end within its grace period. A promotion in flight then ends with the
    /// process, which is safe: the next start promotes it. Until the process ends the run stays
    /// locked. Background saves are waited for.
    ///
    /// # Errors
    /// As [`Store::close`]; `NotPromoted` when the time was not enough.
    pub fn close_within(mut self, limit: Duration) -> Result<()> {
        let tier = if self.core.remote.is_some() { Tier::Remote } else { Tier::Local };
        let closed = self.wait_until(tier, Instant::now().checked_add(limit));
        if closed.is_err() {
            // On any error: something may still be in flight.
            if let Some(promoter) = self.promoter.take() {
                promoter.leave_running();
            }
        }
        self.end(closed)
    }

    fn wait_until(&self, tier: Tier, until: Option<Instant>) -> Result<()> {
        if tier == Tier::Local {
            return self.settle();
        }
        let Some(remote) = &self.core.remote else {
            return Err(Error::new(ErrorKind::Unsupported, "this store has no remote tier")
                .help("use Store::open_tiered"));
        };
        self.begin_save()?;
        let in_time = remote.passes.settle(until);
        // Checked afterwards: an earlier failure is no reason not to promote the rest.
        self.background.settle()?;
        in_time?;
        self.core.check_promotions()?;
        let known = *self.core.known();
        match known.saved.or(known.resumed_from) {
            Some(newest) => remote.passes.check_hopeless(newest),
            None => Ok(()),
        }
    }

    /// Checkpoints that are to be promoted and are not yet, newest first. Makes no request to the
    /// remote tier.
    ///
    /// # Errors
    /// Errors of listing the local tier.
    pub fn unpromoted(&self) -> Result<Vec<CheckpointId>> {
        let Some(remote) = &self.core.remote else { return Ok(vec![]) };
        Ok(remote.unpromoted(&self.core.spared(), &self.core.reader.candidates()?))
    }

    /// A reader of the remote tier, if there is one.
    pub fn remote_reader(&self) -> Option<Reader> {
        self.core.remote.as_ref().map(|remote| remote.reader.clone())
    }
}
