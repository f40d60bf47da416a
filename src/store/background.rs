//! Saves that run while training goes on. Owns: the thread that writes, how many saves may be in flight, and that no
//! error is lost: a failed save is returned by the next call on the store, exactly once, and stays readable in its
//! [`Pending`]. Foreground and background saves, and the rotation behind each, run one after the other.

use super::Core;
use super::clock::Timer;
use super::cost::Stall;
use super::save::Saved;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Snapshot;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a save does when as many as [`Settings::in_flight`](super::Settings::in_flight) are in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Waits until one is done.
    #[default]
    Wait,
    /// Saves nothing this time.
    Skip,
    /// Fails with [`ErrorKind::Busy`].
    Error,
}

/// A save in the background.
#[derive(Clone, Debug)]
pub struct Pending(Arc<Progressing>);

#[derive(Debug, Default)]
struct Progressing {
    outcome: Mutex<Option<Result<Arc<Saved>, Arc<Error>>>>,
    done: Condvar,
}

impl Pending {
    /// What became of it; None while it is still in flight. Looking does not count as being told: a failure is
    /// returned by the next call on the store all the same.
    pub fn outcome(&self) -> Option<Result<Arc<Saved>, Arc<Error>>> {
        lock(&self.0.outcome).clone()
    }

    /// Waits until it is durable or has failed.
    ///
    /// # Errors
    /// What the save failed with. The next call on the store returns it, too.
    pub fn wait(&self) -> Result<Arc<Saved>, Arc<Error>> {
        let mut outcome = lock(&self.0.outcome);
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => outcome = self.0.done.wait(outcome).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn finish(&self, outcome: Result<Arc<Saved>, Arc<Error>>) {
        *lock(&self.0.outcome) = Some(outcome);
        self.0.done.notify_all();
    }
}

struct Job {
    snapshot: Snapshot<'static>,
    why: String,
    stall: Stall,
    pending: Pending,
}

/// The background of one store.
#[derive(Debug)]
pub(super) struct Background {
    core: Arc<Core>,
    shared: Arc<Shared>,
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// Failures that no call has returned yet, oldest first.
    unreported: Vec<Arc<Error>>,
}

impl Background {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, shared: Arc::default(), worker: Mutex::default() }
    }

    /// Makes and queues a save, or says by None that there is no room for it. It is made only once there is room: memory
    /// is bounded by the places.
    pub(super) fn submit(&self, make: impl FnOnce() -> Result<Snapshot<'static>>) -> Result<Option<Pending>> {
        let (call, stall) = (Timer::start(), Stall::default());
        if !self.make_room()? {
            return Ok(None);
        }
        let pending = Pending(Arc::default());
        let sent = make().and_then(|snapshot| {
            let progress = super::save::progress_of(&snapshot)?;
            let metrics = snapshot.get_metrics().clone();
            let jobs = self.start_worker()?;
            let why = self.core.lock_schedule().reason();
            self.core.lock_schedule().saved(progress, &metrics, Instant::now());
            let job = Job { snapshot, why, stall: stall.clone(), pending: pending.clone() };
            jobs.send(job).map_err(|_| Error::new(ErrorKind::Io, "the saving thread is gone"))
        });
        if let Err(error) = sent {
            lock(&self.shared.state).in_flight -= 1;
            // Its place is free for whoever waits for one.
            self.shared.changed.notify_all();
            return Err(error);
        }
        stall.was(call.elapsed());
        Ok(Some(pending))
    }

    /// Returns an error that is due, and takes a place. False when there is none and none is to be waited for.
    fn make_room(&self) -> Result<bool> {
        let (limit, when_full) = self.core.settings.in_flight;
        let mut state = lock(&self.shared.state);
        loop {
            state.report()?;
            if state.in_flight < limit {
                state.in_flight += 1;
                return Ok(true);
            }
            match when_full {
                WhenFull::Skip => return Ok(false),
                WhenFull::Error => {
                    return Err(Error::new(ErrorKind::Busy, "all places for saves in flight are taken")
                        .expected(format!("fewer than {limit}"))
                        .help("save less often, or let saves wait"));
                }
                WhenFull::Wait => {
                    state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits for all saves in flight, and returns the oldest error that no call has returned yet.
    pub(super) fn settle(&self) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while state.in_flight > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.report()
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
            .spawn(move || save_all(&core, &shared, &queue))
            .map_err(|error| Error::io("starting the saving thread", error))?;
        *worker = Some(Worker { jobs: jobs.clone(), thread });
        Ok(jobs)
    }
}

impl State {
    fn report(&mut self) -> Result<()> {
        if self.unreported.is_empty() {
            return Ok(());
        }
        let error = self.unreported.remove(0);
        let failed = Error::new(error.kind(), "a save in the background failed")
            .help("it is not durable; everything saved before it is");
        Err(failed.of_the_same_save_as(&error).because(Cause(error)))
    }
}

/// An error that others keep, too.
#[derive(Debug)]
pub(super) struct Cause(pub Arc<Error>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

fn save_all(core: &Core, shared: &Shared, queue: &Receiver<Job>) {
    super::priority::step_back(core.settings.background_nice);
    for Job { snapshot, why, stall, pending } in queue {
        // A deferred tensor's closure is the trainer's code: its panic is this save's failure, not the thread's end.
        let saved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            core.save_because(&snapshot, &why, &stall)
        }));
        let panicked = |_| Err(Error::new(ErrorKind::Io, "the save panicked; look for its message"));
        let outcome = saved.unwrap_or_else(panicked).map(Arc::new).map_err(Arc::new);
        // Staged memory is free again before anyone who waited for a place goes on.
        drop(snapshot);
        let mut state = lock(&shared.state);
        if let Err(error) = &outcome {
            core.lock_schedule().failed();
            state.unreported.push(Arc::clone(error));
        }
        state.in_flight -= 1;
        drop(state);
        shared.changed.notify_all();
        pending.finish(outcome);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(Worker { jobs, thread }) = lock(&self.worker).take() {
            // Without a sender the thread ends behind the last save.
            drop(jobs);
            let _ = thread.join();
        }
        for error in &lock(&self.shared.state).unreported {
            // Nobody is left to return it to, and silence would be a lost checkpoint that looks like a saved one.
            eprintln!("tensorkeep: a save in the background failed and nobody asked: {error:?}");
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked while holding it left whole values: each change is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
