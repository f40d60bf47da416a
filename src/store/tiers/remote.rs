//! The remote tier of a store. Owns: reaching it, the attempt that is taken in both tiers, and which checkpoints belong
//! there.

use super::queue::Queue;
use crate::engine::{Engine, Lock};
use crate::error::{Error, ErrorKind, Result};
use crate::store::attempt::{self, Attempt, Writer};
use crate::store::background::Cause;
use crate::store::catalog::Reader;
use crate::store::clock::seconds_since_1970;
use crate::store::keep::Keep;
use crate::store::naming::Name;
use crate::store::retention::{self, Candidate};
use crate::store::{Core, Settings};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The remote tier of a store.
#[derive(Debug)]
pub(in crate::store) struct Remote {
    pub reader: Reader,
    pub queue: Arc<Queue>,
    keep: Keep,
    writer: Writer,
    contact: Mutex<Contact>,
}

/// What is known of the remote tier.
#[derive(Debug)]
enum Contact {
    /// This store's attempt is taken there.
    Held { _lock: Option<Box<dyn Lock>>, there: Vec<Candidate> },
    /// It could not be reached when the run was opened, and not since.
    Unreachable(Arc<Error>),
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
        let contact = match hold(&reader, writer) {
            Ok(held) => held,
            Err(error) => unreachable(reader.engine(), error, local)?,
        };
        let keep = settings.keep_remote.clone().unwrap_or_else(|| settings.keep.clone());
        let (contact, writer) = (Mutex::new(contact), writer.clone());
        Ok(Self { reader, queue: Arc::default(), keep, writer, contact })
    }

    /// Takes one attempt number in both tiers, newer than all in either.
    pub(in crate::store) fn take_attempt(
        &self,
        local: &Reader,
        candidates: &[Candidate],
        names: &[Name],
    ) -> Result<Attempt> {
        let engine = self.reader.engine();
        loop {
            let newest = match self.unreachable() {
                Some(_) => Ok(0),
                None => attempt::newest(engine),
            };
            let newest = match newest {
                Ok(newest) => newest,
                Err(error) => {
                    *self.lock() = unreachable(engine, error, candidates)?;
                    continue;
                }
            };
            let number = attempt::next(newest.max(attempt::newest(local.engine())?), names, local.engine())?;
            let Some(taken) = Attempt::take_number(local.engine(), number, &self.writer)? else { continue };
            if self.unreachable().is_some() {
                return Ok(taken);
            }
            match Attempt::take_number(engine, number, &self.writer) {
                Ok(Some(_)) => return Ok(taken),
                Ok(None) => {}
                Err(error) => *self.lock() = unreachable(engine, error, candidates)?,
            }
        }
    }

    /// Makes sure that this store's attempt is taken in the remote tier.
    pub(super) fn reach(&self, core: &Core) -> Result<()> {
        if self.unreachable().is_none() {
            return Ok(());
        }
        let engine = self.reader.engine();
        let held = hold(&self.reader, &self.writer)?;
        let newest = attempt::newest(engine)?;
        let in_names = self.reader.names()?.last().map_or(0, |name| name.attempt);
        // Whoever took a number there that is not one of this local tier's has gone on with the run elsewhere.
        let ours = newest == 0 || attempt::is_same(newest, engine, core.reader.engine())?;
        let mut taken = ours && newest == core.attempt.number;
        if ours && newest.max(in_names) < core.attempt.number {
            taken = Attempt::take_number(engine, core.attempt.number, &self.writer)?.is_some();
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
        Ok(())
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

    /// Local checkpoints that belong in the remote tier and are not there, newest first.
    pub(in crate::store) fn unpromoted(&self, core: &Core, local: &[Candidate]) -> Vec<Name> {
        let there = self.there();
        let promoted: BTreeSet<Name> = there.iter().map(|info| info.name).collect();
        let here = local.iter().filter(|info| !promoted.contains(&info.name));
        let kept = self.select(core, &here.clone().chain(&there).cloned().collect::<Vec<_>>());
        // What cannot be read is protected where it is and cannot be promoted.
        let wanted = here.rev().filter(|info| info.state.is_some() && kept.contains_key(&info.name));
        wanted.map(|info| info.name).collect()
    }

    /// Why each of the candidates stays in the remote tier.
    pub(super) fn select(&self, core: &Core, candidates: &[Candidate]) -> retention::Kept {
        retention::select(&self.keep, candidates, core.resumed_from(), seconds_since_1970())
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
    Ok(Contact::Held { _lock: lock, there: reader.candidates()? })
}

/// A run that has local checkpoints goes on without the remote tier, loudly. What would not change by itself, such as a
/// lock or a store without conditional puts, is an error all the same.
fn unreachable(engine: &dyn Engine, error: Error, local: &[Candidate]) -> Result<Contact> {
    let settled = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Locked | ErrorKind::Invalid);
    if settled {
        return Err(error);
    }
    if local.iter().all(|info| info.state.is_none()) {
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
