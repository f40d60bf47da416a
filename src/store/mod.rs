//! The checkpoints of one run over one engine. Owns: [`Store`], its settings, the writer's lock and attempt, pins and
//! deletion. Knows engines by their contract and containers by their reader and writer, never a file or a byte of either.

mod attempt;
mod catalog;
mod keep;
mod naming;
mod pins;
mod resume;
mod save;
mod schedule;
mod signals;

pub use catalog::{Info, Reader, State};
pub use keep::{Keep, Mode};
pub use naming::Name;
pub use pins::AttemptInfo;
pub use resume::{Resumed, Skipped};
pub use save::Saved;
pub use schedule::{Every, Why};

use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::engine::{Engine, Lock, Unchanging};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Progress;
use crate::writer::WriteOptions;
use attempt::{Attempt, Writer};
use schedule::Schedule;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// How a store works: plain data.
#[derive(Clone, Debug)]
pub struct Settings {
    every: Every,
    keep: Keep,
    write: WriteOptions,
    open: OpenOptions,
    map: Option<Unchanging>,
}

impl Default for Settings {
    fn default() -> Self {
        let (write, open) = Default::default();
        Self { every: Every::never(), keep: Keep::all(), write, open, map: None }
    }
}

impl Settings {
    /// Saves when asked, keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// When [`Store::due`] says that a save is due.
    pub fn save(self, every: Every) -> Self {
        Self { every, ..self }
    }

    /// What rotation protects.
    pub fn keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// How checkpoints are written.
    pub fn write(self, write: WriteOptions) -> Self {
        Self { write, ..self }
    }

    /// How checkpoints are opened.
    pub fn open(self, open: OpenOptions) -> Self {
        Self { open, ..self }
    }

    /// Checkpoints are mapped, under the promise that nobody changes the run's files in place.
    pub fn map(self, promise: Unchanging) -> Self {
        Self { map: Some(promise), ..self }
    }
}

/// The one writer of a run's checkpoints, and a reader of them. For reading beside a writer there is [`Reader`].
#[derive(Debug)]
pub struct Store {
    reader: Reader,
    settings: Settings,
    attempt: Attempt,
    schedule: Mutex<Schedule>,
    resumed_from: Mutex<Option<Name>>,
    /// None on an engine without locks: there the attempt alone fences.
    _lock: Option<Box<dyn Lock>>,
}

impl Store {
    /// Opens a run for writing: takes the writer's lock, clears what killed writers left half, and takes a new attempt
    /// number.
    ///
    /// # Errors
    /// `Locked` with the holder when another process writes to this run; `Invalid` for settings that mean nothing;
    /// what the engine says, such as a folder that cannot be written.
    pub fn open(engine: impl Engine + 'static, settings: Settings) -> Result<Self> {
        Self::open_shared(Arc::new(engine), settings)
    }

    /// As [`Store::open`], for an engine whose type is not known.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_shared(engine: Arc<dyn Engine>, settings: Settings) -> Result<Self> {
        settings.keep.check()?;
        let mut schedule = Schedule::start(settings.every.clone(), Instant::now())?;
        let writer = Writer::this_process(seconds_since_1970());
        let lock = match engine.lock(&writer.describe()) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                check_fencing(&*engine)?;
                None
            }
            locked => Some(locked?),
        };
        let reader = Reader::on(engine, settings.open, settings.map);
        let infos = reader.list()?;
        infos
            .iter()
            .filter_map(|info| info.state.as_ref().ok())
            .for_each(|state| schedule.remember(&state.metrics));
        let names: Vec<Name> = infos.iter().map(|info| info.name).collect();
        let attempt = Attempt::take(reader.engine(), &names, &writer)?;
        let (schedule, resumed_from) = (Mutex::new(schedule), Mutex::default());
        Ok(Self { reader, settings, attempt, schedule, resumed_from, _lock: lock })
    }

    /// This writer's attempt number.
    pub fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// A reader of the same run, to hand to others.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Whether to save now, and why. Cheap: no file is touched.
    pub fn due(&self, progress: &Progress) -> Option<Why> {
        self.lock_schedule().due(*progress, Instant::now())
    }

    /// Whether exactly this progress was saved by this store, or resumed from.
    pub fn has_saved(&self, progress: &Progress) -> bool {
        self.lock_schedule().has_saved(*progress)
    }

    /// Tells the schedule a metric, for [`Every::on_best`]. The snapshot's own metrics are what is saved.
    pub fn observe(&self, metric: &str, value: f64) {
        self.lock_schedule().observe(metric, value);
    }

    /// Whether SIGTERM or SIGINT asked this process to save and end ([`Every::on_signal`]).
    pub fn should_stop(&self) -> bool {
        self.lock_schedule().should_stop()
    }

    /// As [`Reader::list`].
    ///
    /// # Errors
    /// As [`Reader::list`].
    pub fn list(&self) -> Result<Vec<Info>> {
        self.reader.list()
    }

    /// As [`Reader::latest`].
    ///
    /// # Errors
    /// As [`Reader::latest`].
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        self.reader.latest()
    }

    /// As [`Reader::best`].
    ///
    /// # Errors
    /// As [`Reader::best`].
    pub fn best(&self, metric: &str, mode: Mode) -> Result<Option<Checkpoint>> {
        self.reader.best(metric, mode)
    }

    /// The checkpoint of a step, as [`Reader::open`].
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_step(&self, step: u64) -> Result<Checkpoint> {
        self.reader.open(step)
    }

    /// Protects a step's checkpoint from rotation and from [`Store::delete`], also after a restart.
    ///
    /// # Errors
    /// `NotFound`, and whatever the engine says.
    pub fn pin(&self, step: u64) -> Result<()> {
        let name = self.reader.find(step)?;
        name.pin(self.reader.engine())
    }

    /// Takes a pin away. Nothing is deleted by that before the next save.
    ///
    /// # Errors
    /// `NotFound`, and whatever the engine says.
    pub fn unpin(&self, step: u64) -> Result<()> {
        self.reader.find(step)?.unpin(self.reader.engine())
    }

    /// Deletes a step's checkpoint, durably.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a pinned one and for the only one there is; `Fenced`; whatever the engine says.
    pub fn delete(&self, step: u64) -> Result<()> {
        let name = self.reader.find(step)?;
        let engine = self.reader.engine();
        self.attempt.check_newest(engine)?;
        let infos = self.reader.list()?;
        let refuse = |what: &'static str, help: &'static str| {
            Err(Error::invalid(what).in_object(engine.describe(&name.key())).help(help))
        };
        if infos.iter().any(|info| info.name == name && info.pinned) {
            return refuse("is pinned", "unpin it first");
        }
        if infos.iter().all(|info| info.name == name || info.state.is_err()) {
            return refuse("is the only checkpoint that can be read", "save a newer one first");
        }
        engine.delete(&name.key())
    }

    /// Ends writing: frees the lock. Dropping does the same without a chance to hear of an error.
    ///
    /// # Errors
    /// The error of a save in the background that no call has returned yet.
    pub fn close(self) -> Result<()> {
        Ok(())
    }

    fn lock_schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resumed_from(&self) -> Option<Name> {
        *self.resumed_from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_resumed_from(&self, name: Name) {
        *self.resumed_from.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }
}

/// Without a lock two writers can only be told apart by the storage itself.
fn check_fencing(engine: &dyn Engine) -> Result<()> {
    if engine.caps().create_only {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, "this engine has neither a lock nor create-only commits")
        .in_object(engine.describe(""))
        .help("two writers would overwrite each other unseen; use storage that has one of the two"))
}

fn seconds_since_1970() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(seconds) = crate::engine::vfs::scripted::seconds() {
        return seconds;
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
