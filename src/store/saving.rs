//! The calls of a [`Store`] that save, in the foreground and in the background, and those that
//! decide when. `save.rs` writes a checkpoint, `background.rs` has the thread, `schedule.rs` the
//! rules.

use super::background::panicked;
use super::cost::Stall;
use super::pending::PendingSave;
use super::saved::Saved;
use super::schedule::{Begun, SaveReason};
use super::{Store, priority};
use crate::clock::{self, Timer};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use std::sync::Arc;
use std::time::Instant;

impl Store {
    /// Whether to save now, and why. Cheap: no file is touched. None in a forked child.
    ///
    /// In a job of many ranks every rank asks at once, rank 0 decides, and a signal at any of them
    /// counts for all. Where the ranks do not come together, a save is due at once, and returns the
    /// error.
    pub fn due(&self, progress: &Progress) -> Option<SaveReason> {
        if !self.is_here() {
            return None;
        }
        if let Some(ranks) = &self.core.ranks {
            return ranks.due(&self.core, *progress);
        }
        let mut schedule = self.core.lock_schedule();
        schedule.learn(|| self.core.last_save.cost(), self.core.options.in_flight);
        schedule.due(*progress, Instant::now())
    }

    /// Whether nothing was trained since the last save: this is the progress of the newest save of
    /// this store or, before the first, of the checkpoint that it resumed from. A background save
    /// counts from when it was handed over, unless it fails.
    pub fn has_saved(&self, progress: &Progress) -> bool {
        self.is_here() && self.core.lock_schedule().has_saved(*progress)
    }

    /// Records metrics of a progress for the run's [history](crate::history), which every save
    /// takes along: the curves of a run survive rotation, a kill and a copy of its newest
    /// checkpoint. Touches no file. A checkpoint that is saved at exactly this progress has these
    /// metrics, too, so [`Keep::best`](super::Keep::best) and
    /// [`Every::on_best`](super::Every::on_best) rank by them; those that are not finite are in the
    /// curve alone.
    ///
    /// ```
    /// # use tensorkeep::{Progress, StoreOptions, Store, engine::Memory};
    /// # let store = Store::open(Memory::new(), StoreOptions::new())?;
    /// # let (loss, learning_rate) = (0.5_f32, 1e-3);
    /// let progress = Progress::new(100).epoch(2);
    /// store.log(&progress, [("loss", f64::from(loss)), ("lr", learning_rate)]);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// Call it behind [`Store::resume`], which goes on with the history of its checkpoint. A second
    /// value of one progress replaces the first. A name that no metric may have (empty, longer than
    /// 1,024 bytes, control characters) is left out. Nothing happens in a forked child.
    pub fn log<'m>(&self, progress: &Progress, metrics: impl IntoIterator<Item = (&'m str, f64)>) {
        if !self.is_here() {
            return;
        }
        let (mut schedule, time) = (self.core.lock_schedule(), clock::time());
        for (metric, value) in metrics {
            schedule.log(*progress, metric, value, time);
        }
    }

    /// Sets a metric of the current state: [`Every::on_best`](super::Every::on_best) uses it, and a
    /// checkpoint that is saved at this step records it, beside the snapshot's own metrics, so that
    /// it can be ranked. Call it before [`Store::due`] is asked about the step. A value that is not
    /// finite removes the values observed since the last save.
    pub fn observe(&self, metric: &str, value: f64) {
        if self.is_here() {
            self.core.lock_schedule().observe(metric, value);
        }
    }

    /// Whether a signal requested a stop ([`Every::on_signal`](super::Every::on_signal),
    /// [`Every::stop_on`](super::Every::stop_on)) and nothing is left to save for it: a save since
    /// has answered it, or [`Store::due`] was asked about a progress that is saved. So a loop that
    /// asks both loses nothing:
    ///
    /// ```no_run
    /// # use tensorkeep::{Every, Progress, StoreOptions, Snapshot, Store, engine::Memory};
    /// # let store = Store::open(Memory::new(), StoreOptions::new().save(Every::steps(100).or_on_signal()))?;
    /// # let (mut step, snapshot) = (0, |_: Progress| Snapshot::new());
    /// loop {
    ///     step += 1; // train
    ///     let progress = Progress::new(step);
    ///     if store.due(&progress).is_some() {
    ///         store.save(&snapshot(progress))?;
    ///     }
    ///     if store.should_stop() {
    ///         break;
    ///     }
    /// }
    /// store.close()?;
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// A background save answers when it is handed over, and [`Store::close`] waits for it; when it
    /// fails, the request is open again. While saves fail, this stays false and each step is due
    /// again. For a loop that never asks `due` and saves after its end, this is true as soon as the
    /// signal came. False in a forked child.
    pub fn should_stop(&self) -> bool {
        self.is_here() && self.core.lock_schedule().should_stop()
    }

    fn is_here(&self) -> bool {
        self.background.process().is_this()
    }

    /// Saves durably: when this returns Ok, the checkpoint survives a kill, and a power cut on an
    /// engine that is durable. Then rotates: checkpoints that [`Keep`](super::Keep) no longer
    /// protects are deleted. The progress is the snapshot's, or the one that [`Store::due`] was
    /// last asked about; the metrics are the snapshot's and those observed at this step. Waits for
    /// background saves first.
    ///
    /// When an earlier background save or a promotion has failed and no call has returned the
    /// error, this call saves all the same and returns that error in [`Saved::earlier_error`]. When
    /// this save fails, too, a later call returns it.
    ///
    /// # Errors
    /// `Fenced` when a newer attempt has taken over; `AlreadyExists` for a step that this attempt
    /// has saved; `Unknown` when the checkpoint is there but may not be durable; `NoSpace`, `Io`,
    /// `Poisoned`; `Invalid` in a forked child. On every error all earlier checkpoints are
    /// untouched.
    pub fn save(&self, snapshot: &Snapshot<'_>) -> Result<Saved> {
        let (call, stall) = (Timer::start(), Stall::default());
        self.begin_save()?;
        let saved = self.core.save(snapshot, &stall);
        stall.set(call.elapsed());
        saved.map(|saved| self.tell_earlier(saved))
    }

    /// Saves while `work` runs, straight from the live tensors, without a copy. Sound because the
    /// snapshot borrows them: `work` can read them, and code that would change them does not
    /// compile.
    ///
    /// ```compile_fail
    /// # use tensorkeep::{Progress, StoreOptions, Snapshot, Store, engine::Memory};
    /// # let store = Store::open(Memory::new(), StoreOptions::new())?;
    /// let mut weights = vec![0.5_f32; 100];
    /// let mut snapshot = Snapshot::new().tensor("weights", &weights)?.progress(Progress::new(1));
    /// let (_, saved) = store.save_during(&snapshot, || weights[0] = 1.0); // an optimizer's step must wait
    /// # saved?;
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// Returns what `work` returned, and what [`Store::save`] would have.
    pub fn save_during<R>(&self, snapshot: &Snapshot<'_>, work: impl FnOnce() -> R) -> (R, Result<Saved>) {
        let (call, stall) = (Timer::start(), Stall::default());
        if let Err(error) = self.core.check_ranks_in_background().and_then(|()| self.begin_save()) {
            return (work(), Err(error));
        }
        let save = || {
            priority::step_back(self.core.options.background_nice);
            self.core.save(snapshot, &stall)
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("tensorkeep-save".to_owned());
            let saving = thread.spawn_scoped(scope, save);
            let working = Timer::start();
            let result = work();
            let worked = working.elapsed();
            let saved = saving
                .map_err(|error| self.core.refuse(Error::io("starting the saving thread", error)))
                .and_then(|saving| saving.join().unwrap_or_else(|panic| Err(panicked("the save")(panic))));
            stall.set(call.elapsed().saturating_sub(worked));
            (result, saved.map(|saved| self.tell_earlier(saved)))
        })
    }

    /// Waits for background saves: all saves of a store run one after the other.
    pub(super) fn begin_save(&self) -> Result<()> {
        self.background.wait()?;
        self.core.check_ranks()?;
        self.core.check_fenced()
    }

    /// Attaches an earlier failure, then has the checkpoint promoted: if that fails at once, it is
    /// not an earlier failure.
    fn tell_earlier(&self, saved: Saved) -> Saved {
        let earlier_error = self.background.earlier_error();
        self.core.wake_promoter();
        Saved { earlier_error, ..saved }
    }

    /// Saves owned or shared data in the background: an [`ArcArray`](ndarray::ArcArray), a tensor
    /// of [`SharedBytes`](crate::tensor::SharedBytes). Nothing is copied. None when the limit of
    /// saves in flight is reached and [`WhenFull::Skip`](super::WhenFull::Skip) is set.
    ///
    /// When an earlier background save or a promotion has failed and no call has returned the
    /// error, this call hands its save over all the same and returns that error in
    /// [`PendingSave::earlier_error`].
    ///
    /// # Errors
    /// An earlier failure in a [`PendingSave`] that was dropped unread: the save of this call is in
    /// flight all the same, and a later call would return its own failure. `Busy`; `Io` when no
    /// thread can be had; `Fenced` when the remote tier has a newer writer; `Invalid` in a forked
    /// child.
    pub fn save_async(&self, snapshot: Snapshot<'static>) -> Result<Option<PendingSave>> {
        let begun = self.begin_in_background(&snapshot)?;
        self.background.submit(begun, || Ok(snapshot))
    }

    /// Copies the snapshot into warm memory of the store's own and saves the copy in the
    /// background: once this returns, training may continue and change everything. The first copy
    /// has to allocate, later ones do not.
    ///
    /// # Errors
    /// As [`Store::save_async`]; `LimitExceeded` when there is no memory for the copy.
    pub fn stage(&self, snapshot: &Snapshot<'_>) -> Result<Option<PendingSave>> {
        let begun = self.begin_in_background(snapshot)?;
        self.background.submit(begun, || self.staging.copy(snapshot))
    }

    /// Leaves the mark of this attempt's end. Nothing depends on it, so it is no error where it
    /// cannot be had; a writer that was overtaken has no end to tell.
    pub(super) fn end(&self, closed: Result<()>) -> Result<()> {
        let is_fenced = closed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced);
        if self.is_here() && !is_fenced {
            self.core.end();
        }
        closed
    }

    fn begin_in_background(&self, snapshot: &Snapshot<'_>) -> Result<Begun> {
        self.background.process().check()?;
        self.core.check_ranks()?;
        self.core.check_ranks_in_background()?;
        self.core.check_fenced()?;
        let begun = self.core.lock_schedule().begin(snapshot);
        begun.map_err(|error| self.background.refuse(error))
    }

    /// Waits for background saves, and returns an error that is due.
    pub(super) fn settle(&self) -> Result<()> {
        self.begin_save()?;
        self.background.earlier_error().map_or(Ok(()), Err)
    }

    /// Waits for all background saves.
    ///
    /// # Errors
    /// The error of a background save or of a promotion that no call has returned yet.
    pub fn wait(&self) -> Result<()> {
        self.settle()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.is_here() {
            // Threads, queues and the lock are the parent's: nothing is waited for, printed or
            // unlocked here.
            std::mem::forget(self.promoter.take());
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}
