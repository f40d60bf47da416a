//! Two tiers: saves go to a local engine, and are promoted to a remote one in the background. Owns: reaching the remote
//! tier, the attempt that is taken in both, and which checkpoints belong there. The thread that promotes is in
//! [`promote`](super::promote).
//!
//! One rule decides what is promoted: whatever the remote tier's own [`Keep`] would keep of all checkpoints that there
//! are in both, the newest first. So with `Keep::last(3)` a slow line skips what is overtaken, and with `Keep::all()` it
//! skips nothing. Until it is there, the local tier's rotation leaves it alone. Each tier always keeps its own newest.

use super::attempt::{self, Attempt, Writer};
use super::background::Cause;
use super::catalog::Reader;
use super::keep::{self, Candidate};
use super::naming::Name;
use super::promote::{Promoter, Queue};
use super::{Core, Keep, Settings, Store, lock_or_fence};
use crate::engine::{Engine, Lock};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One of the two places of a run's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Where saves go; of a store that has no tiers, its only place.
    Local,
    /// Where they are promoted to.
    Remote,
}

/// The remote tier of a store.
#[derive(Debug)]
pub(super) struct Remote {
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

impl Store {
    /// Opens a run whose checkpoints are saved to `local` and promoted to `remote` in the background: a fast disk, and a
    /// store that survives the machine. [`Store::wait_for`] tells when they are there; [`Settings::keep_remote`] is the
    /// remote tier's retention.
    ///
    /// ```
    /// # use tensorkeep::{Keep, Progress, Settings, Snapshot, Store, Tier, engine::Memory};
    /// # let (disk, bucket) = (Memory::new(), Memory::new());
    /// let settings = Settings::new().keep(Keep::last(2)).keep_remote(Keep::last(10));
    /// let store = Store::open_tiered(disk, bucket, settings)?;
    /// let resumed = store.resume()?; // the newest that verifies, from either
    /// # let mut snapshot = Snapshot::new();
    /// # snapshot.progress(Progress::new(1));
    /// store.save(&snapshot)?; // durable in the local tier
    /// store.wait_for(Tier::Remote)?; // and now in the remote one, too
    /// store.close()?; // waits as well
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// * [`Store::resume`] takes the newest that verifies from either tier and fetches it to the local one: a new machine
    ///   goes on where the lost one was.
    /// * What was not promoted when a process ended is promoted by the next one.
    /// * A promotion that fails is returned by the next call, once, as [`ErrorKind::NotPromoted`]: everything saved is
    ///   durable in the local tier, and the next save, or [`Store::wait_for`], tries again.
    /// * When the remote tier cannot be reached, a run with local checkpoints goes on with them, and says so on stderr
    ///   and in [`Resumed::remote_error`](super::Resumed::remote_error).
    /// * The attempt is taken in both tiers and is newer than all in either. Whoever opens the run after this, from
    ///   wherever, fences it: then every call fails with `Fenced`.
    /// * Listing, opening and [`Store::reader`] are the local tier's; [`Store::remote_reader`] has the other.
    ///
    /// # Errors
    /// As [`Store::open`], of both; and what `remote` says when it cannot be reached and there is no local checkpoint:
    /// whether there is a run to resume is not known then.
    pub fn open_tiered(
        local: impl Engine + 'static,
        remote: impl Engine + 'static,
        settings: Settings,
    ) -> Result<Self> {
        let mut store = Self::open_on(Arc::new(local), Some(Arc::new(remote)), settings)?;
        store.promoter = Promoter::start(Arc::clone(&store.core))?;
        Ok(store)
    }

    /// Waits until all saves so far are durable in a tier: those that the remote tier's retention wants there, the
    /// newest among them always.
    ///
    /// # Errors
    /// The error of a save in the background or of a promotion that no call has returned yet; `Unsupported` for the
    /// remote tier of a store that has none.
    pub fn wait_for(&self, tier: Tier) -> Result<()> {
        self.settle()?;
        match (tier, &self.core.remote) {
            (Tier::Local, _) => Ok(()),
            (Tier::Remote, Some(remote)) => remote.queue.settle(),
            (Tier::Remote, None) => Err(Error::new(ErrorKind::Unsupported, "this store has no remote tier")
                .help("use Store::open_tiered")),
        }
    }

    /// Checkpoints that are to be promoted and are not yet, newest first. Asks no network.
    ///
    /// # Errors
    /// Whatever listing the local tier says.
    pub fn unpromoted(&self) -> Result<Vec<Name>> {
        let remote = self.core.remote.as_ref();
        remote.map_or(Ok(vec![]), |remote| Ok(remote.unpromoted(&self.core, &self.core.reader.candidates()?)))
    }

    /// A reader of the remote tier, if there is one.
    pub fn remote_reader(&self) -> Option<Reader> {
        self.core.remote.as_ref().map(|remote| remote.reader.clone())
    }
}

impl Remote {
    /// Reaches for the remote tier. That it cannot be reached is an error only when `local` is empty.
    pub(super) fn contact(
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
    pub(super) fn take_attempt(
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
    pub(super) fn unreachable(&self) -> Option<Error> {
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
    pub(super) fn there(&self) -> Vec<Candidate> {
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
    pub(super) fn unpromoted(&self, core: &Core, local: &[Candidate]) -> Vec<Name> {
        let there = self.there();
        let promoted: BTreeSet<Name> = there.iter().map(|info| info.name).collect();
        let here = local.iter().filter(|info| !promoted.contains(&info.name));
        let kept = self.select(core, &here.clone().chain(&there).cloned().collect::<Vec<_>>());
        // What cannot be read is protected where it is and cannot be promoted.
        let wanted = here.rev().filter(|info| info.state.is_some() && kept.contains_key(&info.name));
        wanted.map(|info| info.name).collect()
    }

    /// Why each of the candidates stays in the remote tier.
    pub(super) fn select(&self, core: &Core, candidates: &[Candidate]) -> keep::Kept {
        keep::select(&self.keep, candidates, core.resumed_from(), super::clock::seconds_since_1970())
    }

    /// The retention that checkpoints record.
    pub(super) fn keep(&self) -> &Keep {
        &self.keep
    }

    fn lock(&self) -> MutexGuard<'_, Contact> {
        // Held for assignments only, never while anything is asked of an engine.
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold(reader: &Reader, writer: &Writer) -> Result<Contact> {
    let lock = lock_or_fence(reader.engine(), writer)?;
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
