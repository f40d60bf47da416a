//! The thread that promotes checkpoints to the remote tier. Each pass compares what is here with
//! what is there, so that what a killed process left is found like everything else.

use super::passes::{Passes, is_for_ever};
use super::remote::Remote;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Core;
use crate::store::background::lock;
use crate::store::deletion::{self, By};
use crate::store::naming::CheckpointId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Checkpoints that belong in the remote tier and can never be promoted, and why.
pub(in crate::store) type Hopeless = BTreeMap<CheckpointId, Arc<Error>>;

/// The thread. Dropping it waits for what is to be promoted.
#[derive(Debug)]
pub(in crate::store) struct Promoter {
    passes: Arc<Passes>,
    thread: Option<JoinHandle<()>>,
}

impl Promoter {
    /// Waits to be woken: by a resume, when what was damaged has been set aside, or by a save. What
    /// the process before left is promoted then, too. None when the store has no remote tier.
    pub(in crate::store) fn start(core: Arc<Core>) -> Result<Option<Self>> {
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
    /// Ends behind the pass that is under way, and is not waited for.
    pub(in crate::store) fn leave_running(mut self) {
        self.thread = None;
    }
}

impl Drop for Promoter {
    fn drop(&mut self) {
        self.passes.end();
        let _ = self.thread.take().map(JoinHandle::join);
        for error in self.passes.unreported() {
            eprintln!("tensorkeep: a promotion to the remote tier failed and nobody asked: {error:?}");
        }
    }
}

fn promote_all(core: &Core) {
    let Some(remote) = &core.remote else { return };
    let mut hopeless = Hopeless::new();
    while let Some(asked) = remote.passes.next() {
        let pass = || remote.pass(core, &mut hopeless);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(pass));
        let panicked = |_| vec![Error::new(ErrorKind::Io, "the promotion panicked; look for its message")];
        remote.passes.finish(asked, passed.unwrap_or_else(panicked), &hopeless);
    }
}

impl Remote {
    /// Promotes, newest first, each checkpoint that belongs there, and none twice. One that can
    /// never be promoted is reported once and then `hopeless`, as long as it belongs there: it
    /// stays in the local tier. Ends at the first error that may pass.
    pub(in crate::store) fn pass(&self, core: &Core, hopeless: &mut Hopeless) -> Vec<Error> {
        let (mut tried, mut errors) = (BTreeSet::new(), Vec::new());
        loop {
            let unpromoted = core.reader.candidates().map(|here| self.unpromoted(core, &here));
            let name = match unpromoted {
                Ok(names) => {
                    hopeless.retain(|name, _| names.contains(name));
                    names.into_iter().find(|name| !hopeless.contains_key(name) && !tried.contains(name))
                }
                Err(error) => {
                    errors.push(error);
                    None
                }
            };
            let Some(name) = name else { return errors };
            tried.insert(name);
            let promoted = core.timed(|| {
                self.reach(core)?;
                self.promote(core, name)
            });
            if let Err(error) = promoted {
                if !is_for_ever(&error) {
                    errors.push(error);
                    return errors;
                }
                hopeless.insert(name, Arc::new(error));
            }
        }
    }

    fn promote(&self, core: &Core, name: CheckpointId) -> Result<()> {
        let engine = self.reader.engine();
        let Some(promoting) = self.upward.promote(name) else { return Ok(()) };
        core.attempt.check(engine)?;
        let stop = || match promoting.is_stopped() {
            true => Err(Error::new(ErrorKind::NotFound, "is being deleted")),
            false => Ok(()),
        };
        match core.reader.copy_until(name, &self.reader, &stop) {
            // Rotated away or deleted meanwhile.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && (promoting.is_stopped() || !core.reader.names()?.contains(&name)) =>
            {
                return Ok(());
            }
            copied => copied.map_err(|error| error.in_object(engine.describe(&name.key())))?,
        };
        // A newer writer may have looked for checkpoints before this one was there: what it passed
        // over is not promoted.
        core.attempt.check(engine)?;
        if deletion::pins(core.reader.engine())?.contains(&name.pin_key()) {
            name.pin(engine)?;
        }
        drop(promoting);
        self.rotate(core, name)
    }

    /// Deletes there what no rule of that tier protects. Runs only behind the promotion of a
    /// checkpoint, which stays; what cannot be deleted is tried again behind the next one.
    fn rotate(&self, core: &Core, promoted: CheckpointId) -> Result<()> {
        let _deleting = lock(&self.deleting);
        let there = self.look()?;
        if !there.iter().any(|candidate| candidate.name == promoted && !candidate.marked) {
            return Err(marked(self.reader.engine().describe(&promoted.key())));
        }
        let kept = self.select(core, &there, &[(promoted, "just promoted")]);
        let names = there.iter().map(|candidate| candidate.name).filter(|name| !kept.contains_key(name));
        let going: Vec<CheckpointId> = names.collect();
        if going.is_empty() {
            return Ok(());
        }
        deletion::delete(self.reader.engine(), By::Writer(&core.attempt), &going)?;
        self.look().map(drop)
    }
}

fn marked(object: String) -> Error {
    Error::new(ErrorKind::AlreadyExists, "the copy in the remote tier is marked as damaged")
        .in_object(object)
        .help("it is never overwritten: delete it and its mark under damaged/ to have it promoted again")
}
