//! The remote tier of a store. Owns: reaching it, the attempt that is taken in both tiers, and which checkpoints belong
//! there.

use super::queue::Queue;
use super::upward::Upward;
use crate::engine::{Engine, Lock};
use crate::error::{Error, ErrorKind, Result};
use crate::store::attempt::{self, Attempt, Board, Writer};
use crate::store::background::Cause;
use crate::store::catalog::Reader;
use crate::store::clock::seconds_since_1970;
use crate::store::deletion::{Inherited, clear_marks};
use crate::store::keep::Keep;
use crate::store::naming::Name;
use crate::store::retention::{self, Candidate, Spared};
use crate::store::run_id::{self, RunId};
use crate::store::{Core, Settings};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The remote tier of a store.
#[derive(Debug)]
pub(in crate::store) struct Remote {
    pub reader: Reader,
    pub queue: Arc<Queue>,
    /// Which checkpoint is on its way there now.
    pub upward: Upward,
    /// Held while it is decided what is deleted there, and until it is.
    pub deleting: Mutex<()>,
    keep: Keep,
    /// Whether a run could go on without it.
    has_local: bool,
    contact: Mutex<Contact>,
}

/// What is known of the remote tier.
#[derive(Debug)]
enum Contact {
    /// This store's attempt is taken there.
    Held { lock: Option<Box<dyn Lock>>, run: run_id::Found, there: Vec<Candidate> },
    /// It could not be reached when the run was opened, and not since.
    Unreachable(Arc<Error>),
}

impl Contact {
    fn run(&self) -> run_id::Found {
        match self {
            Self::Held { run, .. } => *run,
            Self::Unreachable(_) => run_id::Found::default(),
        }
    }
}

impl Remote {
    /// Reaches for the remote tier. That it cannot be reached is an error only when `local` is empty.
    pub(in crate::store) fn contact(
        engine: Arc<dyn Engine>,
        settings: &Settings,
        writer: &Writer,
        local: &[Candidate],
    ) -> Result<Self> {
        let reader = Reader::on(engine, settings.open, None);
        let has_local = local.iter().any(|info| info.state.is_some());
        let contact = match hold(&reader, writer) {
            Ok(held) => held,
            Err(error) => unreachable(reader.engine(), error, has_local)?,
        };
        let keep = settings.keep_remote.clone().unwrap_or_else(|| settings.keep.clone());
        let (queue, upward, deleting) = Default::default();
        Ok(Self { reader, queue, upward, deleting, keep, has_local, contact: Mutex::new(contact) })
    }

    /// What the run there says of its identity, as far as it could be reached.
    pub(in crate::store) fn run(&self) -> run_id::Found {
        self.lock().run()
    }

    /// Gives the run there its identity, or finds that it is another run.
    pub(in crate::store) fn join(&self, run: RunId) -> Result<()> {
        let there = self.or_unreachable(run, |engine| self.run().establish(engine, run))?;
        if there == run { Ok(()) } else { Err(other_run(self.reader.engine(), run, there)) }
    }

    /// The newest attempt that was taken there; 0 while it cannot be reached.
    pub(in crate::store) fn newest_attempt(&self) -> Result<u32> {
        self.or_unreachable(0, |engine| Ok(Board::read(engine)?.newest))
    }

    /// Takes an attempt there, too, if it can be reached. False when another writer was faster.
    pub(in crate::store) fn take(&self, attempt: &Attempt) -> Result<bool> {
        self.or_unreachable(true, |engine| attempt.take_in(engine))
    }

    /// What the remote tier says while a run is being opened, or `otherwise` where it does not answer.
    fn or_unreachable<T>(&self, otherwise: T, ask: impl FnOnce(&dyn Engine) -> Result<T>) -> Result<T> {
        if self.unreachable().is_some() {
            return Ok(otherwise);
        }
        let engine = self.reader.engine();
        ask(engine).or_else(|error| {
            *self.lock() = unreachable(engine, error, self.has_local)?;
            Ok(otherwise)
        })
    }

    /// Takes back what earlier attempts left there.
    pub(in crate::store) fn clear_marks(&self, attempt: u32, writer: &Writer) -> Result<()> {
        let is_locked = matches!(&*self.lock(), Contact::Held { lock: Some(_), .. });
        let board = self.or_unreachable(Board::default(), Board::read)?;
        let inherited = Inherited { board: &board, attempt, writer, is_locked };
        clear_marks(self.reader.engine(), &inherited);
        Ok(())
    }

    /// Makes sure that this store's attempt is taken in the remote tier.
    pub(super) fn reach(&self, core: &Core) -> Result<()> {
        if self.unreachable().is_none() {
            return Ok(());
        }
        let engine = self.reader.engine();
        let held = hold(&self.reader, &core.writer)?;
        let there = held.run().establish(engine, core.run)?;
        if there != core.run {
            return Err(other_run(engine, core.run, there));
        }
        let newest = Board::read(engine)?.newest;
        let in_names = self.reader.names()?.last().map_or(0, |name| name.attempt);
        // Another process took a number there that is not one of this local tier's: it has gone on with the run elsewhere.
        let ours = newest == 0 || attempt::is_same(newest, engine, core.reader.engine())?;
        let mut taken = ours && newest == core.attempt.number;
        if ours && newest.max(in_names) < core.attempt.number {
            taken = core.attempt.take_in(engine)?;
        }
        if !taken {
            return Err(Error::new(
                ErrorKind::Fenced,
                "another writer took over while this tier could not be reached",
            )
            .in_object(engine.describe(""))
            .found(format!("attempt {newest}"))
            .help("this process must stop; opened again, the run goes on from the newest of both"));
        }
        *self.lock() = held;
        self.clear_marks(core.attempt.number, &core.writer)
    }

    /// Why it could not be reached when the run was opened.
    pub(in crate::store) fn unreachable(&self) -> Option<Error> {
        match &*self.lock() {
            Contact::Held { .. } => None,
            Contact::Unreachable(error) => {
                let told =
                    Error::new(error.kind(), "the remote tier could not be reached when the run was opened");
                Some(told.in_object(self.reader.engine().describe("")).because(Cause(Arc::clone(error))))
            }
        }
    }

    /// What is there, as far as is known without asking.
    pub(in crate::store) fn there(&self) -> Vec<Candidate> {
        match &*self.lock() {
            Contact::Held { there, .. } => there.clone(),
            Contact::Unreachable(_) => vec![],
        }
    }

    /// Looks what is there now.
    pub(super) fn look(&self) -> Result<Vec<Candidate>> {
        let now = self.reader.candidates()?;
        if let Contact::Held { there, .. } = &mut *self.lock() {
            there.clone_from(&now);
        }
        Ok(now)
    }

    /// A checkpoint is not there any more: what its place was needed for may be wanted now.
    pub(in crate::store) fn forget(&self, name: Name) {
        if let Contact::Held { there, .. } = &mut *self.lock() {
            there.retain(|candidate| candidate.name != name);
        }
    }

    /// Local checkpoints that belong in the remote tier and are not there, newest first.
    pub(in crate::store) fn unpromoted(&self, core: &Core, local: &[Candidate]) -> Vec<Name> {
        let there = self.there();
        let sound = there.iter().filter(|info| !info.marked);
        let promoted: BTreeSet<Name> = sound.map(|info| info.name).collect();
        let here = local.iter().filter(|info| !promoted.contains(&info.name));
        let all: Vec<_> = here.clone().chain(&there).cloned().collect();
        let kept = self.select(core, &all, &[]);
        // What cannot be read is protected where it is and cannot be promoted.
        let wanted = here.rev().filter(|info| info.state.is_some() && kept.contains_key(&info.name));
        wanted.map(|info| info.name).collect()
    }

    /// Why each of the candidates stays in the remote tier.
    pub(super) fn select(&self, core: &Core, candidates: &[Candidate], spared: &[Spared]) -> retention::Kept {
        let spared: Vec<Spared> = core.spared().chain(spared.iter().copied()).collect();
        retention::select(&self.keep, candidates, &spared, seconds_since_1970())
    }

    /// The retention that checkpoints record.
    pub(in crate::store) fn keep(&self) -> &Keep {
        &self.keep
    }

    fn lock(&self) -> MutexGuard<'_, Contact> {
        // Held for assignments only, never while anything is asked of an engine.
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold(reader: &Reader, writer: &Writer) -> Result<Contact> {
    let lock = attempt::lock_or_fence(reader.engine(), writer)?;
    let there = reader.candidates()?;
    Ok(Contact::Held { lock, run: run_id::Found::look(reader.engine(), &there)?, there })
}

fn other_run(engine: &dyn Engine, expected: RunId, found: RunId) -> Error {
    run_id::other_run(engine.describe(""), expected, found).help(
        "the two tiers of a store hold one run: give the remote tier a place of its own; if it is the same run, delete the \
         object RUN there",
    )
}

/// A run that has local checkpoints goes on without the remote tier, loudly. What would not change by itself, such as a
/// lock or a store without conditional puts, is an error all the same.
fn unreachable(engine: &dyn Engine, error: Error, has_local: bool) -> Result<Contact> {
    let settled = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Locked | ErrorKind::Invalid);
    if settled {
        return Err(error);
    }
    if !has_local {
        return Err(Error::new(
            error.kind(),
            "the remote tier cannot be reached, and no local checkpoint is there",
        )
        .in_object(engine.describe(""))
        .help("whether there is a run to resume is not known: try again when it answers")
        .because(error));
    }
    eprintln!(
        "tensorkeep: WARNING: {} cannot be reached: {error:?}. The run goes on with its local checkpoints alone; \
         nothing is promoted before the remote tier answers",
        engine.describe("")
    );
    Ok(Contact::Unreachable(Arc::new(error)))
}
