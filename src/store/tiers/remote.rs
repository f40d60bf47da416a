//! The remote tier of a store: reaching it, the attempt that is taken in both tiers, and which
//! checkpoints belong there.

use super::passes::Passes;
use super::upward::Upward;
use crate::clock::{self, seconds_since_1970};
use crate::deadline::CallDeadline;
use crate::engine::{Engine, Lock};
use crate::error::{Error, ErrorKind, Result};
use crate::store::attempt::{Attempt, Writer, lock_or_fence, newest_on};
use crate::store::deletion::{Inherited, clear_marks};
use crate::store::history::Life;
use crate::store::identity;
use crate::store::keep::Keep;
use crate::store::lives;
use crate::store::look::{Board, Look};
use crate::store::naming::CheckpointId;
use crate::store::options::StoreOptions;
use crate::store::reader::Reader;
use crate::store::retention::{self, Candidate, Spared};
use crate::store::run_id::RunId;
use crate::sync::lock;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The remote tier of a store.
#[derive(Debug)]
pub(in crate::store) struct Remote {
    pub reader: Reader,
    pub passes: Arc<Passes>,
    /// The checkpoint that is being promoted now.
    pub upward: Upward,
    /// Held from choosing the checkpoints to delete there until they are deleted.
    pub deleting: Mutex<()>,
    keep: Keep,
    /// How long a call waits for it. None for a run that cannot do without it.
    limit: Option<Duration>,
    /// When the call in progress stops waiting for it.
    until: Mutex<Option<Instant>>,
    /// Locked for assignments only, never during a request to an engine.
    contact: Mutex<Contact>,
}

/// The state of the remote tier, as far as it is known.
#[derive(Debug)]
enum Contact {
    /// This store's attempt is taken there.
    Held { lock: Option<Box<dyn Lock>>, run: identity::Found, there: Vec<Candidate> },
    /// Not asked yet.
    NotYet,
    /// It could not be reached, and has not been since.
    Unreachable(Arc<Error>),
}

impl Contact {
    fn run(&self) -> identity::Found {
        match self {
            Self::Held { run, .. } => *run,
            Self::NotYet | Self::Unreachable(_) => identity::Found::default(),
        }
    }
}

impl Remote {
    /// Tries to reach the remote tier. Failing that is an error only when `local` is empty.
    pub(in crate::store) fn contact(
        engine: Arc<dyn Engine>,
        options: &StoreOptions,
        writer: &Writer,
        local: &[Candidate],
    ) -> Result<Self> {
        let reader = Reader::on(engine, options.open, None);
        let keep = options.keep_remote.clone().unwrap_or_else(|| options.keep.clone());
        let has_local = local.iter().any(|info| info.state.is_some());
        let limit = has_local.then_some(options.remote_timeout);
        let remote = Self {
            reader,
            passes: Arc::default(),
            upward: Upward::default(),
            deleting: Mutex::default(),
            keep,
            limit,
            until: Mutex::new(None),
            contact: Mutex::new(Contact::NotYet),
        };
        remote.begin_call();
        let writer = writer.clone();
        if let Some(held) = remote.or_unreachable(None, move |reader| hold(reader, &writer).map(Some))? {
            *lock(&remote.contact) = held;
        }
        Ok(remote)
    }

    /// Starts the timeout of one call of the store for this tier, if the run can do without it.
    pub(in crate::store) fn begin_call(&self) {
        *lock(&self.until) = self.limit.and_then(|limit| Instant::now().checked_add(limit));
    }

    /// The identity of the run there, as far as it could be reached.
    pub(in crate::store) fn run(&self) -> identity::Found {
        lock(&self.contact).run()
    }

    /// The identity of the run there; if it has none or cannot be reached, this one from now on.
    pub(in crate::store) fn run_or(&self, run: RunId) -> Result<RunId> {
        let found = self.run();
        self.or_unreachable(run, move |reader| found.establish(reader.engine(), run))
    }

    /// Gives the run there its identity; fails if it is another run.
    pub(in crate::store) fn join(&self, run: RunId) -> Result<()> {
        let there = self.run_or(run)?;
        if there == run { Ok(()) } else { Err(other_run(self.reader.engine(), run, there)) }
    }

    /// The newest attempt that was taken there; 0 while it cannot be reached.
    pub(in crate::store) fn newest_attempt(&self) -> Result<u32> {
        self.or_unreachable(0, |reader| Ok(Board::read(reader.engine())?.newest))
    }

    /// Takes an attempt there, too, if it can be reached. False when another writer was faster.
    pub(in crate::store) fn take(&self, attempt: &Attempt) -> Result<bool> {
        let attempt = attempt.clone();
        self.or_unreachable(true, move |reader| attempt.take_in(reader.engine()))
    }

    /// Looks at its folders; None while it cannot be reached.
    pub(in crate::store) fn look_as(
        &self,
        attempt: &Attempt,
        folders: &'static [&'static str],
    ) -> Result<Option<Look>> {
        let attempt = attempt.clone();
        self.or_unreachable(None, move |reader| attempt.look(reader.engine(), folders, vec![]).map(Some))
    }

    /// Removes the marks that earlier attempts left there.
    pub(in crate::store) fn clear_marks(&self, saved_by: u32, writer: &Writer) -> Result<()> {
        let is_locked = matches!(&*lock(&self.contact), Contact::Held { lock: Some(_), .. });
        let writer = writer.clone();
        self.or_unreachable((), move |reader| {
            let (board, writer) = (&Board::read(reader.engine())?, &writer);
            clear_marks(reader.engine(), &Inherited { board, saved_by, writer, is_locked });
            Ok(())
        })
    }

    /// The lives, completed from the remote tier. `own` is the attempt of this process.
    pub(in crate::store) fn complete_lives(
        &self,
        lives: Vec<Life>,
        board: &Board,
        (number, writer): (u32, &Writer),
    ) -> Vec<Life> {
        let (mut completed, board, writer) = (lives.clone(), board.clone(), writer.clone());
        let complete = move |reader: &Reader| {
            lives::complete(reader.engine(), &board, Some((number, &writer)), &mut completed);
            Ok(completed)
        };
        self.or_unreachable(lives.clone(), complete).unwrap_or(lives)
    }

    /// Leaves the mark of this attempt's end there, if it can be had in time.
    pub(in crate::store) fn leave_end(&self, life: &Life, limit: Duration) {
        if !matches!(&*lock(&self.contact), Contact::Held { .. }) {
            return;
        }
        let (reader, life) = (self.reader.clone(), life.clone());
        let leave = move || lives::leave_end(reader.engine(), &life);
        let until = Instant::now().checked_add(limit).filter(|_| !clock::is_scripted());
        let _ = match until {
            Some(until) => answer_until(until, leave),
            None => leave(),
        };
    }

    /// The answer of the remote tier, or `otherwise` if it does not answer and the run can do
    /// without. This includes slow answers: the time depends on the engine and its network and may
    /// be hours.
    fn or_unreachable<T: Send + 'static>(
        &self,
        otherwise: T,
        ask: impl FnOnce(&Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.unreachable().is_some() {
            return Ok(otherwise);
        }
        let until = *lock(&self.until);
        let reader = self.reader.clone();
        let answer = match until {
            Some(until) if !clock::is_scripted() => answer_until(until, move || ask(&reader)),
            _ => ask(&reader),
        };
        answer.or_else(|error| {
            *lock(&self.contact) = unreachable(self.reader.engine(), error, self.limit.is_some())?;
            Ok(otherwise)
        })
    }

    /// If the remote tier could not be reached, tries again, with the same timeout as any other
    /// call.
    ///
    /// # Errors
    /// `Fenced` when another writer has taken over there. If it still cannot be reached, the next
    /// call that needs it reports that.
    pub(in crate::store) fn try_again(
        &self,
        reach: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let until = self.limit.and_then(|limit| Instant::now().checked_add(limit));
        let Some(until) = until else { return Ok(()) };
        if self.unreachable().is_none() || clock::is_scripted() {
            return Ok(());
        }
        match answer_until(until, reach) {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes sure that this store's attempt is taken in the remote tier.
    pub(in crate::store) fn reach(
        &self,
        run: RunId,
        (attempt, writer): (&Attempt, &Writer),
        local: &dyn Engine,
    ) -> Result<()> {
        if self.unreachable().is_none() {
            return Ok(());
        }
        let engine = self.reader.engine();
        let held = hold(&self.reader, writer)?;
        let there = held.run().establish(engine, run)?;
        if there != run {
            return Err(other_run(engine, run, there));
        }
        let in_names = self.reader.ids()?.last().map_or(0, |id| id.attempt);
        // A number there that is not one of this local tier's: another process has continued the
        // run elsewhere.
        let (newest, ours) = newest_on(engine, Board::read(engine)?.newest, local)?;
        let number = attempt.number;
        // Behind a listing that is stale, checkpoints may have this number already: this attempt's,
        // from before the tier fell silent.
        let taken = ours
            && match newest.max(in_names).cmp(&number) {
                Ordering::Less => attempt.take_in(engine)?,
                Ordering::Equal => newest == number || attempt.is_taken_in(engine)?,
                Ordering::Greater => false,
            };
        if !taken {
            return Err(Error::new(
                ErrorKind::Fenced,
                "another writer took over while this tier could not be reached",
            )
            .in_object(engine.describe(""))
            .found(format!("attempt {newest}"))
            .help("this process must stop; opened again, the run goes on from the newest of both"));
        }
        *lock(&self.contact) = held;
        self.clear_marks(in_names, writer)
    }

    /// Why it could not be reached when the run was opened.
    pub(in crate::store) fn unreachable(&self) -> Option<Error> {
        match &*lock(&self.contact) {
            Contact::NotYet | Contact::Held { .. } => None,
            Contact::Unreachable(error) => {
                let told = Error::new(error.kind(), "the remote tier cannot be reached, or could not");
                Some(told.in_object(self.reader.engine().describe("")).because_shared(Arc::clone(error)))
            }
        }
    }

    /// The checkpoints there, as far as known without a request.
    pub(in crate::store) fn there(&self) -> Vec<Candidate> {
        match &*lock(&self.contact) {
            Contact::Held { there, .. } => there.clone(),
            Contact::NotYet | Contact::Unreachable(_) => vec![],
        }
    }

    /// Lists the checkpoints there now.
    pub(in crate::store) fn look(&self) -> Result<Vec<Candidate>> {
        let now = self.reader.candidates()?;
        if let Contact::Held { there, .. } = &mut *lock(&self.contact) {
            there.clone_from(&now);
        }
        Ok(now)
    }

    /// A checkpoint is gone there: another one may be promoted in its place now.
    pub(in crate::store) fn forget(&self, id: CheckpointId) {
        if let Contact::Held { there, .. } = &mut *lock(&self.contact) {
            there.retain(|candidate| candidate.id != id);
        }
    }

    /// Local checkpoints that belong in the remote tier and are not there, newest first.
    pub(in crate::store) fn unpromoted(&self, spared: &[Spared], local: &[Candidate]) -> Vec<CheckpointId> {
        let there = self.there();
        let sound = there.iter().filter(|info| !info.marked);
        let promoted: BTreeSet<CheckpointId> = sound.map(|info| info.id).collect();
        let here = local.iter().filter(|info| !promoted.contains(&info.id));
        let all: Vec<_> = here.clone().chain(&there).cloned().collect();
        let kept = self.select(&all, spared);
        // A checkpoint that cannot be read is protected where it is and cannot be promoted.
        let wanted = here.rev().filter(|info| info.state.is_some() && kept.contains_key(&info.id));
        wanted.map(|info| info.id).collect()
    }

    /// Why each of the candidates stays in the remote tier.
    pub(in crate::store) fn select(&self, candidates: &[Candidate], spared: &[Spared]) -> retention::Kept {
        retention::select(&self.keep, candidates, spared, seconds_since_1970())
    }

    /// The retention policy that checkpoints record.
    pub(in crate::store) fn keep(&self) -> &Keep {
        &self.keep
    }
}

/// Waits for an answer until then and no longer. A later answer is dropped: a lock is freed, and an
/// attempt that was taken is this writer's own.
fn answer_until<T: Send + 'static>(
    until: Instant,
    ask: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answers) = channel();
    let deadline = CallDeadline::after(until.saturating_duration_since(Instant::now()));
    let ask = move || deadline.enter(ask);
    let thread = std::thread::Builder::new().name("tensorkeep-remote".to_owned());
    thread
        .spawn(move || drop(answer.send(ask())))
        .map_err(|error| Error::io("starting a thread that asks the remote tier", error))?;
    match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(Error::new(ErrorKind::Io, "it did not answer in time")
            .help("StoreOptions::remote_timeout says how long it is waited for")),
        Err(RecvTimeoutError::Disconnected) => {
            Err(Error::new(ErrorKind::Io, "asking the remote tier panicked; look for its message"))
        }
    }
}

fn hold(reader: &Reader, writer: &Writer) -> Result<Contact> {
    let lock = lock_or_fence(reader.engine(), writer)?;
    let there = reader.candidates()?;
    Ok(Contact::Held { lock, run: identity::Found::look(reader.engine(), &there)?, there })
}

fn other_run(engine: &dyn Engine, expected: RunId, found: RunId) -> Error {
    identity::other_run(engine.describe(""), expected, found).help(
        "the two tiers of a store hold one run: give the remote tier a place of its own; if it is the same run, delete the \
         object RUN there",
    )
}

/// A run that has local checkpoints continues without the remote tier, loudly. Errors that would
/// not pass by themselves, such as a lock or a store without conditional puts, are still errors.
fn unreachable(engine: &dyn Engine, error: Error, has_local: bool) -> Result<Contact> {
    let settled = [ErrorKind::Unsupported, ErrorKind::Locked, ErrorKind::Invalid, ErrorKind::Fenced];
    if settled.contains(&error.kind()) {
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
