//! The thread that promotes checkpoints to the remote tier. Owns: when it works, and that no error of it is lost. It has
//! no queue to overflow: each pass compares what is here with what is there, so that what a killed process left is found
//! like everything else.

use super::Core;
use super::background::{Cause, lock};
use super::naming::Name;
use super::tiers::Remote;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What is asked of the thread, and what it has to say.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Passes asked for and done, as counts: one that begins after it was asked for counts for all before.
    asked: u64,
    done: u64,
    /// A failure that no call has returned yet.
    unreported: Option<Arc<Error>>,
    /// A newer writer has taken over: for ever.
    fenced: Option<Arc<Error>>,
    ending: bool,
}

impl Queue {
    /// Something may have to be promoted.
    pub(super) fn wake(&self) {
        lock(&self.state).asked += 1;
        self.changed.notify_all();
    }

    /// Returns a failure that is due.
    pub(super) fn report(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let error = state.fenced.clone().or_else(|| state.unreported.take());
        let Some(error) = error else { return Ok(()) };
        let told = Error::new(error.kind(), "a promotion to the remote tier failed");
        Err(match error.kind() {
            ErrorKind::Fenced => told.help("this process must stop; nothing more is written or deleted by it"),
            _ => told.with_kind(ErrorKind::NotPromoted).help(
                "everything that was saved is durable in the local tier; the next save, or waiting for the remote tier, tries again",
            ),
        }
        .because(Cause(error)))
    }

    /// Waits for a pass that begins now, and returns a failure that is due.
    pub(super) fn settle(&self) -> Result<()> {
        self.report()?;
        let mut state = lock(&self.state);
        state.asked += 1;
        let asked = state.asked;
        self.changed.notify_all();
        while state.done < asked {
            state = self.wait(state);
        }
        drop(state);
        self.report()
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of passes asked for, as soon as one is due; None at the end.
    fn next(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        while state.done == state.asked {
            if state.ending {
                return None;
            }
            state = self.wait(state);
        }
        Some(state.asked)
    }

    fn finish(&self, asked: u64, outcome: Result<()>) {
        let mut state = lock(&self.state);
        state.done = asked;
        if let Err(error) = outcome {
            let error = Arc::new(error);
            match error.kind() {
                ErrorKind::Fenced => state.fenced = Some(error),
                _ => state.unreported = Some(error),
            }
        }
        self.changed.notify_all();
    }
}

/// The thread. Dropping it waits for what is to be promoted.
#[derive(Debug)]
pub(super) struct Promoter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Promoter {
    /// Waits to be woken: by a resume, when what was damaged has been set aside, or by a save. What the process before
    /// left is promoted then, too. None when the store has no remote tier.
    pub(super) fn start(core: Arc<Core>) -> Result<Option<Self>> {
        let Some(remote) = &core.remote else { return Ok(None) };
        let queue = Arc::clone(&remote.queue);
        let thread = std::thread::Builder::new()
            .name("tensorkeep-promote".to_owned())
            .spawn(move || promote_all(&core))
            .map_err(|error| Error::io("starting the promoting thread", error))?;
        Ok(Some(Self { queue, thread: Some(thread) }))
    }
}

impl Drop for Promoter {
    fn drop(&mut self) {
        lock(&self.queue.state).ending = true;
        self.queue.changed.notify_all();
        let _ = self.thread.take().map(JoinHandle::join);
        if let Some(error) = &lock(&self.queue.state).unreported {
            eprintln!("tensorkeep: a promotion to the remote tier failed and nobody asked: {error:?}");
        }
    }
}

fn promote_all(core: &Core) {
    let Some(remote) = &core.remote else { return };
    let mut hopeless = BTreeSet::new();
    while let Some(asked) = remote.queue.next() {
        let pass = || remote.pass(core, &mut hopeless);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(pass));
        let panicked = |_| Err(Error::new(ErrorKind::Io, "the promotion panicked; look for its message"));
        remote.queue.finish(asked, passed.unwrap_or_else(panicked));
    }
}

impl Remote {
    /// Promotes, newest first, until nothing is left to promote. What cannot be promoted ever is reported once and then
    /// `hopeless`: it stays in the local tier.
    fn pass(&self, core: &Core, hopeless: &mut BTreeSet<Name>) -> Result<()> {
        if self.unpromoted(core, &core.reader.candidates()?).iter().all(|name| hopeless.contains(name)) {
            return Ok(());
        }
        self.reach(core)?;
        let mut failed = Ok(());
        loop {
            let unpromoted = self.unpromoted(core, &core.reader.candidates()?);
            let Some(&name) = unpromoted.iter().find(|name| !hopeless.contains(name)) else { return failed };
            if let Err(error) = self.promote(core, name) {
                let for_ever = matches!(error.kind(), ErrorKind::Damaged | ErrorKind::AlreadyExists);
                if !for_ever {
                    return Err(error);
                }
                hopeless.insert(name);
                failed = failed.and(Err(error));
            }
        }
    }

    fn promote(&self, core: &Core, name: Name) -> Result<()> {
        core.attempt.check_newest(self.reader.engine())?;
        match core.reader.copy_to(name, &self.reader, |_| ()) {
            // Rotated away meanwhile: a newer one has made it superfluous.
            Err(error) if error.kind() == ErrorKind::NotFound && !core.reader.names()?.contains(&name) => {
                return Ok(());
            }
            copied => copied.map_err(|error| error.in_object(self.reader.engine().describe(&name.key())))?,
        };
        // A newer writer may have looked for checkpoints before this one was there: what it passed over is not promoted.
        core.attempt.check_newest(self.reader.engine())?;
        if core.reader.candidates()?.iter().any(|info| info.name == name && info.pinned) {
            name.pin(self.reader.engine())?;
        }
        self.rotate(core)
    }

    /// Deletes there what no rule of that tier protects. Runs only behind a promotion; what cannot be deleted is tried
    /// again behind the next one.
    fn rotate(&self, core: &Core) -> Result<()> {
        let there = self.look()?;
        let kept = self.select(core, &there);
        for name in there.iter().map(|candidate| candidate.name).filter(|name| !kept.contains_key(name)) {
            let _ = self.reader.engine().delete(&name.key());
        }
        self.look().map(drop)
    }
}
