//! The calls of a [`Store`] that save, in the foreground and in the background, and those that
//! decide when. Writing a checkpoint is in `save.rs`, the thread behind the background in
//! `background.rs`, the rules in `schedule.rs`.

use super::background::panicked;
use super::cost::Stall;
use super::pending::PendingSave;
use super::save::Saved;
use super::schedule::{Begun, SaveReason};
use super::{Store, priority};
use crate::clock::Timer;
use crate::error::{Error, Result};
use crate::snapshot::{Progress, Snapshot};
use std::sync::Arc;
use std::time::Instant;

impl Store {
    /// Whether to save now, and why. Cheap: no file is touched. None in a forked child.
    pub fn due(&self, progress: &Progress) -> Option<SaveReason> {
        self.is_here().then(|| self.core.lock_schedule().due(*progress, Instant::now())).flatten()
    }

    /// Whether nothing was trained since the last save: this is the progress of the newest save of
    /// this store, or of what it resumed from if nothing was saved since. A save in the background
    /// counts from when it was handed over, unless it fails.
    pub fn has_saved(&self, progress: &Progress) -> bool {
        self.is_here() && self.core.lock_schedule().has_saved(*progress)
    }

    /// Gives a metric of the state as it is now: [`Every::on_best`](super::Every::on_best) goes by
    /// it, and a checkpoint that is saved at this step records it, beside the snapshot's own
    /// metrics, so that it can be ranked. To be called before [`Store::due`] is asked about the
    /// step. A value that is not finite takes back what was observed since the last save.
    pub fn observe(&self, metric: &str, value: f64) {
        if self.is_here() {
            self.core.lock_schedule().observe(metric, value);
        }
    }

    /// Whether a signal asked this process to stop ([`Every::on_signal`](super::Every::on_signal),
    /// [`Every::stop_on`](super::Every::stop_on)) and there is nothing left to save for it: a save
    /// that was made since has answered it, or [`Store::due`] was asked about a progress that is
    /// saved. So a loop that asks both loses nothing:
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
    /// A save in the background answers when it is handed over, and [`Store::close`] waits for it;
    /// when it fails, the request is open again. While saves fail, this stays false and each step
    /// is due again. For a loop that never asks `due` and saves behind its end, this is true as
    /// soon as the signal came. False in a forked child.
    pub fn should_stop(&self) -> bool {
        self.is_here() && self.core.lock_schedule().should_stop()
    }

    fn is_here(&self) -> bool {
        self.background.process().is_this()
    }

    /// Saves durably: when this returns Ok, the checkpoint survives a kill, and a power cut on an
    /// engine that is durable. Then rotates: what [`Keep`](super::Keep) no longer protects is
    /// deleted. The progress is the snapshot's, or what [`Store::due`] was last asked about; the
    /// metrics are the snapshot's and those that were observed at this step. Saves in the
    /// background are waited for first.
    ///
    /// When an earlier save in the background or a promotion has failed and no call has told it,
    /// this one saves all the same and tells it in [`Saved::earlier_error`]. When this save fails,
    /// too, a later call tells it.
    ///
    /// # Errors
    /// `Fenced` when a newer attempt has taken over; `AlreadyExists` for a step that this attempt
    /// has saved; `Unknown` when the checkpoint is there and its durability could not be had;
    /// `NoSpace`, `Io`, `Poisoned`; `Invalid` in a forked child. On every error all earlier
    /// checkpoints are untouched.
    pub fn save(&self, snapshot: &Snapshot<'_>) -> Result<Saved> {
        let (call, stall) = (Timer::start(), Stall::default());
        self.begin_save()?;
        let saved = self.core.save(snapshot, &stall);
        stall.was(call.elapsed());
        saved.map(|saved| self.tell_earlier(saved))
    }

    /// Saves while `work` runs, straight from the live tensors: nothing is copied. Sound because
    /// the snapshot borrows them: `work` can read, and whatever would change them does not compile.
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
        if let Err(error) = self.begin_save() {
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
                .map_err(|error| Error::io("starting the saving thread", error))
                .and_then(|saving| saving.join().unwrap_or_else(|panic| Err(panicked("the save")(panic))));
            stall.was(call.elapsed().saturating_sub(worked));
            (result, saved.map(|saved| self.tell_earlier(saved)))
        })
    }

    /// Waits for saves in the background: all saves of a store run one after the other.
    pub(super) fn begin_save(&self) -> Result<()> {
        self.background.wait()?;
        self.core.check_fenced()
    }

    /// Tells a failure that is due, then has the checkpoint promoted: should that fail at once, it
    /// is no earlier one.
    fn tell_earlier(&self, saved: Saved) -> Saved {
        let earlier_error = self.background.earlier_error();
        self.core.wake_promoter();
        Saved { earlier_error, ..saved }
    }

    /// Saves in the background what is owned or shared: an [`ArcArray`](ndarray::ArcArray), a
    /// tensor of [`SharedBytes`](crate::tensor::SharedBytes). Nothing is copied. None when there
    /// was no place and [`WhenFull::Skip`](super::WhenFull::Skip) is set.
    ///
    /// When an earlier save in the background or a promotion has failed and no call has told it,
    /// this one hands its save over all the same and tells it in [`PendingSave::earlier_error`].
    ///
    /// # Errors
    /// An earlier failure that was told by a [`PendingSave`] which was dropped without a look at
    /// it: the save of this call is on its way all the same, and its own failure would be told by a
    /// later call. `Busy`; `Io` when no thread can be had; `Fenced` when the remote tier has a
    /// newer writer; `Invalid` in a forked child.
    pub fn save_async(&self, snapshot: Snapshot<'static>) -> Result<Option<PendingSave>> {
        let begun = self.begin_in_background(&snapshot)?;
        self.background.submit(begun, || Ok(snapshot))
    }

    /// Copies the snapshot into warm memory of the store's own and saves the copy in the
    /// background: training may go on, and change everything, when this returns. The first copy has
    /// to allocate, later ones do not.
    ///
    /// # Errors
    /// As [`Store::save_async`]; `LimitExceeded` when there is no memory for the copy.
    pub fn stage(&self, snapshot: &Snapshot<'_>) -> Result<Option<PendingSave>> {
        let begun = self.begin_in_background(snapshot)?;
        self.background.submit(begun, || self.staging.copy(snapshot))
    }

    fn begin_in_background(&self, snapshot: &Snapshot<'_>) -> Result<Begun> {
        self.background.process().check()?;
        self.core.check_fenced()?;
        self.core.lock_schedule().begin(snapshot)
    }

    /// Waits for saves in the background, and returns an error that is due.
    pub(super) fn settle(&self) -> Result<()> {
        self.begin_save()?;
        self.background.earlier_error().map_or(Ok(()), Err)
    }

    /// Waits for all saves in the background.
    ///
    /// # Errors
    /// The error of one, or of a promotion, that no call has returned yet.
    pub fn wait(&self) -> Result<()> {
        self.settle()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.is_here() {
            // Threads, queues and the lock are the parent's: nothing is waited for, said or
            // unlocked here.
            std::mem::forget(self.promoter.take());
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}
