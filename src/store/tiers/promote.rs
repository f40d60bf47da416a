//! The thread that promotes checkpoints to the remote tier. Each pass compares what is here with what is there, so that
//! what a killed process left is found like everything else.

use super::queue::Queue;
use super::remote::Remote;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Core;
use crate::store::naming::Name;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The thread. Dropping it waits for what is to be promoted.
#[derive(Debug)]
pub(in crate::store) struct Promoter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Promoter {
    /// Waits to be woken: by a resume, when what was damaged has been set aside, or by a save. What the process before
    /// left is promoted then, too. None when the store has no remote tier.
    pub(in crate::store) fn start(core: Arc<Core>) -> Result<Option<Self>> {
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
        self.queue.end();
        let _ = self.thread.take().map(JoinHandle::join);
        if let Some(error) = self.queue.unreported() {
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
