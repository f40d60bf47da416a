//! Saves that run while training goes on: the thread that writes, and the limit of saves in flight.
//! No error is lost: a later call on the store returns the error of a failed save, exactly once,
//! and it stays readable in its [`PendingSave`]. Foreground and background saves, and the rotation
//! behind each, run one after the other.

use super::core::Core;
use super::cost::Stall;
use super::in_flight::{Shared, State};
use super::options::WhenFull;
use super::pending::{Outcome, PendingSave, Progressing};
use super::process::Process;
use super::schedule::Begun;
use crate::clock::Timer;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Snapshot;
use crate::sync::{self, lock, wait};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

struct Job {
    snapshot: Snapshot<'static>,
    begun: Begun,
    /// Its number in the schedule.
    number: u64,
    warnings: Vec<String>,
    stall: Stall,
    place: Place,
}

/// The background of one store.
#[derive(Debug)]
pub(super) struct Background {
    core: Arc<Core>,
    process: Process,
    shared: Arc<Shared>,
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

/// A place for a save in flight. Dropping it, on any path, frees it, and publishes the outcome once
/// the save was handed over.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    told: Option<(Arc<Progressing>, Outcome)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // All at once: a thread that waited for a place, or for the outcome, finds both, and the
        // error.
        let mut state = lock(&self.shared.state);
        if let Some((progressing, outcome)) = self.told.take() {
            state.unreported.extend(outcome.as_ref().err().map(failed_before));
            progressing.finish(outcome);
        }
        state.in_flight -= 1;
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Background {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, process: Process::this(), shared: Arc::default(), worker: Mutex::default() }
    }

    pub(super) fn process(&self) -> Process {
        self.process
    }

    /// Makes and queues a save; None if there is no room for it. It is made only once there is
    /// room: the places bound the memory. An earlier failure is returned with it.
    pub(super) fn submit(
        &self,
        begun: Begun,
        make: impl FnOnce() -> Result<Snapshot<'static>>,
    ) -> Result<Option<PendingSave>> {
        let (call, stall) = (Timer::start(), Stall::default());
        let Some(place) = self.take_place()? else { return Ok(None) };
        let snapshot = match make() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                drop(place);
                return Err(self.refuse(error));
            }
        };
        // Read before it is handed over: a later failure may be its own.
        let is_due = !lock(&self.shared.state).unreported.is_empty();
        let handed_over = self.hand_over(place, snapshot, begun, &stall);
        let progressing = handed_over.map_err(|error| self.refuse(error))?;
        stall.set(call.elapsed());
        let overlooked = lock(&self.shared.state).overlooked.pop_front();
        match overlooked {
            Some(error) => Err(Error::new(error.kind(), "the error of an earlier save was never returned")
                .help("the save of this call is on its way all the same; look at PendingSave::earlier_error")
                .because(error)),
            None => {
                let earlier = if is_due { self.unreported() } else { None };
                let earlier = earlier.or_else(|| self.core.check_promotions().err());
                Ok(Some(PendingSave::new(progressing, earlier, &self.shared)))
            }
        }
    }

    /// The error of a save that cannot begin, once the saves before it have ended.
    pub(super) fn refuse(&self, error: Error) -> Error {
        if self.core.ranks.is_some() && self.wait().is_ok() {
            return self.core.refuse(error);
        }
        error
    }

    fn hand_over(
        &self,
        mut place: Place,
        snapshot: Snapshot<'static>,
        begun: Begun,
        stall: &Stall,
    ) -> Result<Arc<Progressing>> {
        let jobs = self.start_worker()?;
        let done = self.core.lock_schedule().handed_over(&begun, Instant::now());
        let progressing = Progressing::begin(self.process);
        let gone = || Error::new(ErrorKind::Io, "the saving thread is gone");
        place.told = Some((Arc::clone(&progressing), Err(Arc::new(gone()))));
        let (number, warnings, stall) = (done.number, done.warnings, stall.clone());
        jobs.send(Job { snapshot, begun, number, warnings, stall, place }).map_err(|unsent| {
            let mut job = unsent.0;
            // Returned by this call.
            job.place.told = None;
            self.core.lock_schedule().failed(number);
            gone()
        })?;
        Ok(progressing)
    }

    /// A free place. None when there is none and the options say not to wait.
    fn take_place(&self) -> Result<Option<Place>> {
        self.process.check()?;
        let limit = self.core.options.in_flight;
        let mut state = lock(&self.shared.state);
        while state.in_flight >= limit {
            match self.core.options.when_full {
                WhenFull::Skip => return Ok(None),
                WhenFull::Error => {
                    return Err(Error::new(ErrorKind::Busy, "all places for saves in flight are taken")
                        .expected(format!("fewer than {limit}"))
                        .help("save less often, or let saves wait"));
                }
                WhenFull::Wait => state = wait(&self.shared.changed, state),
            }
        }
        state.in_flight += 1;
        Ok(Some(Place { shared: Arc::clone(&self.shared), told: None }))
    }

    /// Waits for all saves in flight.
    pub(super) fn wait(&self) -> Result<()> {
        self.process.check()?;
        let mut state = lock(&self.shared.state);
        while state.in_flight > 0 {
            state = wait(&self.shared.changed, state);
        }
        Ok(())
    }

    /// Waits for all saves in flight, and returns the oldest error that no call has returned yet.
    pub(super) fn settle(&self) -> Result<()> {
        self.wait()?;
        self.unreported().map_or(Ok(()), Err)
    }

    /// The oldest failure, of a save or of a promotion, that no call has returned yet. It counts as
    /// returned.
    pub(super) fn earlier_error(&self) -> Option<Error> {
        self.unreported().or_else(|| self.core.check_promotions().err())
    }

    fn unreported(&self) -> Option<Error> {
        let mut state = lock(&self.shared.state);
        state.overlooked.pop_front().or_else(|| state.unreported.pop_front())
    }

    fn start_worker(&self) -> Result<Sender<Job>> {
        let mut worker = lock(&self.worker);
        if let Some(worker) = &*worker {
            return Ok(worker.jobs.clone());
        }
        let (jobs, queue) = channel();
        let (core, shared) = (Arc::clone(&self.core), Arc::clone(&self.shared));
        let thread = std::thread::Builder::new()
            .name("tensorkeep-save".to_owned())
            .spawn(move || save_all(&core, &shared, queue))
            .map_err(|error| Error::io("starting the saving thread", error))?;
        *worker = Some(Worker { jobs: jobs.clone(), thread });
        Ok(jobs)
    }
}

/// The error with which a later call reports a failed save.
fn failed_before(error: &Arc<Error>) -> Error {
    let failed = Error::new(error.kind(), "a save in the background failed").help(match error.kind() {
        ErrorKind::AlreadyExists => "this step was saved before, and is durable",
        ErrorKind::Unknown => "whether it is durable is not known; everything saved before it is",
        _ => "it is not durable; everything saved before it is",
    });
    failed.of_the_same_save_as(error).because_shared(Arc::clone(error))
}

fn save_all(core: &Core, shared: &Shared, queue: Receiver<Job>) {
    super::priority::step_back(core.options.background_nice);
    for Job { snapshot, begun, number, warnings, stall, mut place } in queue {
        let saved =
            caught("the save", || core.save_because(&snapshot, &begun, &stall)).and_then(|saved| saved);
        // Free staged memory before a thread that waited for a place goes on.
        let freed = caught("the data of a save, when it was freed,", || drop(snapshot));
        match &saved {
            Ok(_) => {
                core.lock_schedule().arrived(number);
                core.wake_promoter();
            }
            Err(_) => core.lock_schedule().failed(number),
        }
        if let (Ok(saved), Err(error)) = (&saved, freed) {
            let error = error.in_save_of_step(saved.id.step).help("the checkpoint itself is durable");
            lock(&shared.state).unreported.push_back(error);
        }
        let saved = saved.map(|mut saved| {
            saved.warnings.extend(warnings);
            saved
        });
        if let Some((_, outcome)) = &mut place.told {
            *outcome = saved.map(Arc::new).map_err(Arc::new);
        }
    }
}

/// Runs code of the trainer, a lazy tensor's closure or a destructor: its panic is an error, not
/// the end of the thread.
pub(super) fn caught<T>(what: &str, act: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(act)).map_err(panicked(what))
}

/// The error for a panic.
pub(super) fn panicked(what: &str) -> impl FnOnce(Box<dyn Any + Send>) -> Error {
    move |payload| {
        // Dropping it could panic again.
        std::mem::forget(payload);
        Error::new(ErrorKind::Io, format!("{what} panicked; look for its message"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let worker = sync::get_mut(&mut self.worker).take();
        if !self.process.is_this() {
            // The thread is the parent's; so are the queue, which it may have had locked, and the
            // errors.
            std::mem::forget(worker);
            return;
        }
        if let Some(Worker { jobs, thread }) = worker {
            // Without a sender the thread ends behind the last save.
            drop(jobs);
            let _ = thread.join();
        }
        let mut state = lock(&self.shared.state);
        let State { unreported, overlooked, .. } = &mut *state;
        for error in overlooked.drain(..).chain(unreported.drain(..)) {
            // There is no caller left to return it to, and silence would make a lost checkpoint
            // look like a saved one.
            eprintln!("tensorkeep: the error of a save in the background was never returned: {error:?}");
        }
    }
}
