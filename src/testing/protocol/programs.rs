//! The programs of a model's processes: small ones over the real store. This file has those that
//! write and read; `programs/tools.rs` has those that act on a run beside them, `programs/tiers.rs`
//! those with two tiers, `programs/ranks.rs` those of a job of many ranks.

mod ranks;
mod tiers;
mod tools;

pub use ranks::{Rank, job, job_that_goes_back};
pub(super) use tiers::REMOTE;
pub use tiers::{copies, deletes_while_promoting, goes_back_on, promotes, tiered, tiered_keeping};
pub use tools::{collects, deletes, logs_nan, pins, unpins, writer_that_pins};

use super::calls::{Event, Place};
use super::machine::Machine;
use crate::checkpoint::OpenOptions;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::store::{CheckpointId, Keep, Reader, Store, StoreOptions};
use std::fmt;
use std::sync::Arc;

type Run = dyn Fn(&Machine, &dyn Fn(Event)) -> Result<()> + Send + Sync;

/// A process. It must do the same whenever it sees the same.
#[derive(Clone)]
pub struct Program {
    name: &'static str,
    places: Vec<Place>,
    pins: bool,
    rank: Option<Rank>,
    run: Arc<Run>,
}

impl Program {
    /// A program of a function that works on the engine and reports events.
    pub fn new(
        name: &'static str,
        run: impl Fn(Arc<dyn Engine>, &dyn Fn(Event)) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::on(name, vec![""], move |machine, say| run(machine.at(""), say))
    }

    /// As [`Program::new`], on engines in several places: first the place of saves, then the target
    /// of promotions.
    fn on(
        name: &'static str,
        places: Vec<Place>,
        run: impl Fn(&Machine, &dyn Fn(Event)) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name, places, pins: false, rank: None, run: Arc::new(run) }
    }

    /// The same program, declared as one that pins or unpins.
    #[must_use]
    pub fn pinning(self) -> Self {
        Self { pins: true, ..self }
    }

    pub(super) fn run(&self, machine: &Machine, say: &dyn Fn(Event)) {
        if let Err(error) = (self.run)(machine, say) {
            say(Event::Failed(error.kind()));
        }
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn pins(&self) -> bool {
        self.pins
    }

    /// Which rank of which job it is.
    pub(super) fn rank(&self) -> Option<Rank> {
        self.rank
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Opens the run, resumes, saves this many steps, keeps only the newest.
pub fn writer(saves: u64) -> Program {
    keeper(saves, 1)
}

/// As [`writer`], but keeps the newest `last`.
pub fn keeper(saves: u64, last: usize) -> Program {
    Program::new("writer", move |engine, say| {
        let (store, done) = resumes(engine, Keep::last(last), say)?;
        save(&store, done, saves, say)
    })
}

/// As [`writer`], but goes back to `step` instead of resuming from the newest.
pub fn goes_back(step: u64, saves: u64) -> Program {
    Program::new("writer that goes back", move |engine, say| {
        let store = open(engine, Keep::last(1), say)?;
        went_back(&store, step, say)?;
        save(&store, step, saves, say)
    })
}

/// As [`writer`], but saves one step, and then the same step again.
pub fn saves_twice() -> Program {
    Program::new("writer that saves a step twice", move |engine, say| {
        let (store, done) = resumes(engine, Keep::last(1), say)?;
        save(&store, done, 1, say)?;
        save(&store, done, 1, say)
    })
}

fn open(engine: Arc<dyn Engine>, keep: Keep, say: &dyn Fn(Event)) -> Result<Store> {
    let store = Store::open(engine, StoreOptions::new().keep(keep))?;
    say(Event::Opened(store.attempt()));
    Ok(store)
}

fn resumes(engine: Arc<dyn Engine>, keep: Keep, say: &dyn Fn(Event)) -> Result<(Store, u64)> {
    let store = open(engine, keep, say)?;
    let resumed = store.resume()?;
    say(Event::Resumed(resumed.id));
    let done = resumed.next_step();
    Ok((store, done))
}

fn went_back(store: &Store, step: u64, say: &dyn Fn(Event)) -> Result<()> {
    if let Some(name) = store.resume_at(step)?.id {
        say(Event::WentBack(name));
    }
    Ok(())
}

/// Tensors that are easy to find among the bytes of a checkpoint, where rot changes them.
pub(super) const WEIGHTS: [u8; 64] = [0xa5; 64];

fn save(store: &Store, done: u64, saves: u64, say: &dyn Fn(Event)) -> Result<()> {
    for step in done + 1..=done + saves {
        save_step(store, step, say)?;
    }
    Ok(())
}

/// The name, unless the save failed.
fn save_step(store: &Store, step: u64, say: &dyn Fn(Event)) -> Result<Option<CheckpointId>> {
    say(Event::Saving);
    let snapshot = Snapshot::new().tensor("weights", &WEIGHTS[..])?.progress(Progress::new(step));
    match store.save(&snapshot) {
        Ok(saved) => {
            say(Event::Saved(saved.id));
            Ok(Some(saved.id))
        }
        // A fenced process must stop; one whose save failed goes on.
        Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
        Err(error) => {
            say(Event::Failed(error.kind()));
            Ok(None)
        }
    }
}

/// Looks at the newest checkpoint this many times.
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

/// The description under which an engine opens a checkpoint ends in its key.
fn name_of(described: &str) -> Result<CheckpointId, Error> {
    described.trim_start_matches("model:").trim_end_matches(".tkeep").parse()
}
