//! What the processes of a model do: small programs over the real store, and what they say of it.

use crate::checkpoint::OpenOptions;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::store::{Keep, Name, Reader, Settings, Store};
use std::fmt;
use std::sync::Arc;

/// What a process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has this attempt.
    Opened(u32),
    /// It resumed, from this checkpoint or from nothing.
    Resumed(Option<Name>),
    /// It went back to an older checkpoint on purpose.
    WentBack,
    /// A save begins.
    Saving,
    /// A save returned Ok.
    Saved(Name),
    /// Something returned an error.
    Failed(ErrorKind),
    /// A reader saw this as the newest.
    Looked(Option<Name>),
}

type Run = dyn Fn(Arc<dyn Engine>, &dyn Fn(Event)) -> Result<()> + Send + Sync;

/// A process. It must do the same whenever it sees the same.
#[derive(Clone)]
pub struct Program {
    name: &'static str,
    run: Arc<Run>,
}

impl Program {
    /// Of a function that works on the engine and says what happens.
    pub fn new(
        name: &'static str,
        run: impl Fn(Arc<dyn Engine>, &dyn Fn(Event)) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name, run: Arc::new(run) }
    }

    pub(super) fn run(&self, engine: Arc<dyn Engine>, say: &dyn Fn(Event)) {
        if let Err(error) = (self.run)(engine, say) {
            say(Event::Failed(error.kind()));
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Opens the run, resumes, saves so many steps, keeps the newest only.
pub fn writer(saves: u64) -> Program {
    Program::new("writer", move |engine, say| {
        let store = Store::open_shared(engine, Settings::new().keep(Keep::last(1)))?;
        say(Event::Opened(store.attempt()));
        let resumed = store.resume()?;
        say(Event::Resumed(resumed.name));
        save(&store, resumed.next_step(), saves, say)
    })
}

/// As [`writer`], but goes back to `step` instead of resuming from the newest.
pub fn goes_back(step: u64, saves: u64) -> Program {
    Program::new("writer that goes back", move |engine, say| {
        let store = Store::open_shared(engine, Settings::new().keep(Keep::last(1)))?;
        say(Event::Opened(store.attempt()));
        store.resume_at(step)?;
        say(Event::WentBack);
        save(&store, step, saves, say)
    })
}

/// As [`writer`], but saves one step, and then the same step again.
pub fn saves_twice() -> Program {
    Program::new("writer that saves a step twice", move |engine, say| {
        let store = Store::open_shared(engine, Settings::new().keep(Keep::last(1)))?;
        say(Event::Opened(store.attempt()));
        let resumed = store.resume()?;
        say(Event::Resumed(resumed.name));
        save(&store, resumed.next_step(), 1, say)?;
        save(&store, resumed.next_step(), 1, say)
    })
}

fn save(store: &Store, done: u64, saves: u64, say: &dyn Fn(Event)) -> Result<()> {
    for step in done + 1..=done + saves {
        say(Event::Saving);
        match store.save(Snapshot::new().progress(Progress::new(step))) {
            Ok(saved) => say(Event::Saved(saved.name)),
            // Whoever was overtaken must stop; whoever had bad luck goes on.
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => say(Event::Failed(error.kind())),
        }
    }
    Ok(())
}

/// Looks at the newest checkpoint, so many times.
pub fn reader(looks: usize) -> Program {
    Program::new("reader", move |engine, say| {
        let reader = Reader::on(engine, OpenOptions::new(), None);
        for _ in 0..looks {
            let newest = reader.latest()?;
            let name = newest.map(|checkpoint| name_of(checkpoint.name()));
            say(Event::Looked(name.transpose()?));
        }
        Ok(())
    })
}

/// A checkpoint is opened under what its engine calls it, which ends in its key.
fn name_of(described: &str) -> Result<Name, Error> {
    described.trim_start_matches("model:").trim_end_matches(".tkeep").parse()
}
