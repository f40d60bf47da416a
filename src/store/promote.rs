//! The thread that promotes checkpoints to the remote tier. Each pass compares the local tier with
//! the remote one, so that it also finds what a killed process left.

use super::background::caught;
use super::core::Core;
use super::deletion::{self, By};
use super::naming::CheckpointId;
use super::tiers::{Hopeless, Passes, Remote, is_for_ever};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The thread. Dropping it waits for outstanding promotions.
#[derive(Debug)]
pub(super) struct Promoter {
    passes: Arc<Passes>,
    thread: Option<JoinHandle<()>>,
}

impl Promoter {
    /// Starts the thread, which waits to be woken: by a resume, after damaged checkpoints have been
    /// set aside, or by a save. It then also promotes what the process before left. None when the
    /// store has no remote tier.
    pub(super) fn start(core: Arc<Core>) -> Result<Option<Self>> {
        let Some(remote) = &core.remote else { return Ok(None) };
        let passes = Arc::clone(&remote.passes);
        let thread = std::thread::Builder::new()
            .name("tensorkeep-promote".to_owned())
            .spawn(move || promote_all(&core))
            .map_err(|error| Error::io("starting the promoting thread", error))?;
        Ok(Some(Self { passes, thread: Some(thread) }))
    }
}

impl Promoter {
    /// Lets the thread end after the pass in progress, without waiting for it.
    pub(super) fn leave_running(mut self) {
        self.thread = None;
    }
}

impl Drop for Promoter {
    fn drop(&mut self) {
        self.passes.end();
        let _ = self.thread.take().map(JoinHandle::join);
        for error in self.passes.unreported() {
            eprintln!(
                "tensorkeep: the error of a promotion to the remote tier was never returned: {error:?}"
            );
        }
    }
}

fn promote_all(core: &Core) {
    let Some(remote) = &core.remote else { return };
    let mut hopeless = Hopeless::new();
    while let Some(asked) = remote.passes.next() {
        let errors = caught("the promotion", || remote.pass(core, &mut hopeless));
        remote.passes.finish(asked, errors.unwrap_or_else(|panic| vec![panic]), &hopeless);
    }
}

impl Remote {
    /// Promotes, newest first, each checkpoint that belongs there, and none twice. One that can
    /// never be promoted is reported once and then `hopeless`, as long as it belongs there: it
    /// stays in the local tier. Ends at the first error that may pass.
    pub(super) fn pass(&self, core: &Core, hopeless: &mut Hopeless) -> Vec<Error> {
        let (mut tried, mut errors) = (BTreeSet::new(), Vec::new());
        loop {
            let unpromoted = core.reader.candidates().map(|here| self.unpromoted(&core.spared(), &here));
            let id = match unpromoted {
                Ok(ids) => {
                    hopeless.retain(|id, _| ids.contains(id));
                    ids.into_iter().find(|id| !hopeless.contains_key(id) && !tried.contains(id))
                }
                Err(error) => {
                    errors.push(error);
                    None
                }
            };
            let Some(id) = id else { return errors };
            tried.insert(id);
            let promoted = core.timed(|| {
                core.reach_remote()?;
                self.promote(core, id)
            });
            if let Err(error) = promoted {
                if !is_for_ever(&error) {
                    errors.push(error);
                    return errors;
                }
                hopeless.insert(id, Arc::new(error));
            }
        }
    }

    fn promote(&self, core: &Core, id: CheckpointId) -> Result<()> {
        let engine = self.reader.engine();
        let Some(promoting) = self.upward.promote(id) else { return Ok(()) };
        core.attempt.check(engine)?;
        let stop = || {
            if promoting.is_stopped() {
                return Err(Error::new(ErrorKind::NotFound, "is being deleted"));
            }
            Ok(())
        };
        match core.reader.copy_until(id, &self.reader, &stop) {
            // Rotated away or deleted meanwhile.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && (promoting.is_stopped() || !core.reader.ids()?.contains(&id)) =>
            {
                return Ok(());
            }
            copied => copied.map_err(|error| error.in_object(engine.describe(&id.key())))?,
        };
        // A newer writer may have looked for checkpoints before this one was there: a checkpoint
        // that it passed over does not count as promoted.
        core.attempt.check(engine)?;
        if deletion::pins(core.reader.engine())?.contains(&id.pin_key()) {
            id.pin(engine)?;
        }
        drop(promoting);
        self.rotate(core, id)
    }

    /// Deletes remote checkpoints that no rule of that tier protects. Runs only after the promotion
    /// of a checkpoint, which stays; a deletion that fails is tried again after the next one.
    fn rotate(&self, core: &Core, promoted: CheckpointId) -> Result<()> {
        let _deleting = lock(&self.deleting);
        let there = self.look()?;
        if !there.iter().any(|candidate| candidate.id == promoted && !candidate.marked) {
            return Err(marked(self.reader.engine().describe(&promoted.key())));
        }
        let kept = self.select(&there, &[&core.spared()[..], &[(promoted, "just promoted")]].concat());
        let ids = there.iter().map(|candidate| candidate.id).filter(|id| !kept.contains_key(id));
        let going: Vec<CheckpointId> = ids.collect();
        if going.is_empty() {
            return Ok(());
        }
        deletion::delete(&self.reader, By::Writer(&core.attempt), &going)?;
        self.look().map(drop)
    }
}

fn marked(object: String) -> Error {
    Error::new(ErrorKind::AlreadyExists, "the copy in the remote tier is marked as damaged")
        .in_object(object)
        .help("it is never overwritten: delete it and its mark under damaged/ to have it promoted again")
}
