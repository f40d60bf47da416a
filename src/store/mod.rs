//! The checkpoints of one run over one engine. Owns: [`Store`], its settings, the writer's lock and attempt, pins and
//! deletion. Knows engines by their contract and containers by their reader and writer, never a file or a byte of either.

mod attempt;
mod background;
mod catalog;
mod keep;
mod naming;
mod pins;
mod priority;
mod resume;
mod save;
mod schedule;
mod signals;
mod staging;

pub use background::{Pending, WhenFull};
pub use catalog::{Info, Reader, State};
pub use keep::{Keep, Mode};
pub use naming::Name;
pub use pins::AttemptInfo;
pub use resume::{Resumed, Skipped};
pub use save::Saved;
pub use schedule::{Every, Why};

use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::codec::Codec;
use crate::engine::{Engine, Lock, Unchanging};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::writer::WriteOptions;
use attempt::{Attempt, Writer};
use background::Background;
use schedule::Schedule;
use staging::Staging;
use std::collections::{BTreeMap, BTreeSet};
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
    in_flight: (usize, WhenFull),
    background_nice: u8,
}

impl Default for Settings {
    fn default() -> Self {
        let (write, open) = Default::default();
        Self {
            every: Every::never(),
            keep: Keep::all(),
            write,
            open,
            map: None,
            in_flight: (1, WhenFull::Wait),
            background_nice: 0,
        }
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

    /// How checkpoints are written. Without a codec, [`Codec::Balanced`] where bytes travel over a network and
    /// [`Codec::Raw`] otherwise.
    pub fn write(self, write: WriteOptions) -> Self {
        Self { write, ..self }
    }

    /// How checkpoints are opened.
    pub fn open(self, open: OpenOptions) -> Self {
        Self { open, ..self }
    }

    /// How many saves may be in the background at a time, at least 1, and what one more does. Staged memory is as many
    /// times the state.
    pub fn in_flight(self, saves: usize, when_full: WhenFull) -> Self {
        Self { in_flight: (saves, when_full), ..self }
    }

    /// How many steps nicer than the thread that asks for it a save beside training runs ([`Store::stage`],
    /// [`Store::save_async`], [`Store::save_during`]), with every thread that it starts: 0 to 19, 0 unless it is set.
    /// Where training keeps all cores busy, 10 leaves it almost all of them, and the save takes longer. Linux only:
    /// elsewhere niceness is not a thread's own, and nothing happens.
    pub fn background_nice(self, steps: u8) -> Self {
        Self { background_nice: steps, ..self }
    }

    /// Checkpoints are mapped, under the promise that nobody changes the run's files in place.
    pub fn map(self, promise: Unchanging) -> Self {
        Self { map: Some(promise), ..self }
    }
}

/// The one writer of a run's checkpoints, and a reader of them. For reading beside a writer there is [`Reader`].
///
/// Dropping it waits for saves in the background, and says on stderr what nobody asked for; [`Store::close`] returns it.
#[derive(Debug)]
pub struct Store {
    background: Background,
    staging: Staging,
    core: Arc<Core>,
}

/// What saves in the foreground and in the background have in common.
#[derive(Debug)]
struct Core {
    reader: Reader,
    settings: Settings,
    attempt: Attempt,
    schedule: Mutex<Schedule>,
    resumed_from: Mutex<Option<Name>>,
    /// None on an engine without locks: there the attempt alone fences.
    lock: Option<Box<dyn Lock>>,
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
    pub fn open_shared(engine: Arc<dyn Engine>, mut settings: Settings) -> Result<Self> {
        settings.keep.check()?;
        if settings.in_flight.0 == 0 {
            return Err(Error::invalid("saves in flight").expected("at least 1").found(0));
        }
        if settings.background_nice > priority::NICEST {
            return Err(Error::invalid("niceness of saves in the background")
                .expected(format!("0 to {}", priority::NICEST))
                .found(settings.background_nice));
        }
        let mut schedule = Schedule::start(settings.every.clone(), Instant::now())?;
        let writer = Writer::this_process(seconds_since_1970());
        let lock = match engine.lock(&writer.describe()) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                check_fencing(&*engine)?;
                None
            }
            locked => Some(locked?),
        };
        settings.write = settings.write.codec_unless_set(default_codec(&*engine));
        let reader = Reader::on(engine, settings.open, settings.map);
        let infos = reader.list()?;
        infos
            .iter()
            .filter_map(|info| info.state.as_ref().ok())
            .for_each(|state| schedule.remember(&state.metrics));
        let names: Vec<Name> = infos.iter().map(|info| info.name).collect();
        let attempt = Attempt::take(reader.engine(), &names, &writer)?;
        let (schedule, resumed_from) = (Mutex::new(schedule), Mutex::default());
        let core = Arc::new(Core { reader, settings, attempt, schedule, resumed_from, lock });
        Ok(Self { background: Background::new(Arc::clone(&core)), staging: Staging::default(), core })
    }

    /// This writer's attempt number.
    pub fn attempt(&self) -> u32 {
        self.core.attempt.number
    }

    /// A reader of the same run, to hand to others.
    pub fn reader(&self) -> Reader {
        self.core.reader.clone()
    }

    /// Whether to save now, and why. Cheap: no file is touched.
    pub fn due(&self, progress: &Progress) -> Option<Why> {
        self.core.lock_schedule().due(*progress, Instant::now())
    }

    /// Whether exactly this progress was saved by this store, or resumed from.
    pub fn has_saved(&self, progress: &Progress) -> bool {
        self.core.lock_schedule().has_saved(*progress)
    }

    /// Tells the schedule a metric, for [`Every::on_best`]. The snapshot's own metrics are what is saved.
    pub fn observe(&self, metric: &str, value: f64) {
        self.core.lock_schedule().observe(metric, value);
    }

    /// Whether SIGTERM or SIGINT asked this process to save and end ([`Every::on_signal`]).
    pub fn should_stop(&self) -> bool {
        self.core.lock_schedule().should_stop()
    }

    /// Saves durably: when this returns Ok, the checkpoint survives a kill, and a power cut on an engine that is
    /// durable. Then rotates: what [`Keep`] no longer protects is deleted. The snapshot must say its progress. Saves in
    /// the background are waited for first.
    ///
    /// # Errors
    /// First of all, the error of a save in the background that no call has returned yet. `Fenced` when a newer attempt
    /// has taken over; `AlreadyExists` for a step that this attempt has saved; `Unknown` when the checkpoint is there
    /// and its durability could not be had; `NoSpace`, `Io`, `Poisoned`. On every error all earlier checkpoints are
    /// untouched.
    pub fn save(&self, snapshot: &Snapshot<'_>) -> Result<Saved> {
        self.background.settle()?;
        self.core.save(snapshot)
    }

    /// Saves while `work` runs, straight from the live tensors: nothing is copied. Sound because the snapshot borrows
    /// them: `work` can read, and whatever would change them does not compile.
    ///
    /// ```compile_fail
    /// # use tensorkeep::{Progress, Settings, Snapshot, Store, engine::Memory};
    /// # let store = Store::open(Memory::new(), Settings::new())?;
    /// let mut weights = vec![0.5_f32; 100];
    /// let mut snapshot = Snapshot::new();
    /// snapshot.tensor("weights", &weights)?.progress(Progress::new(1));
    /// let (_, saved) = store.save_during(&snapshot, || weights[0] = 1.0); // an optimizer's step must wait
    /// # saved?;
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// Returns what `work` returned, and what [`Store::save`] would have.
    pub fn save_during<R>(&self, snapshot: &Snapshot<'_>, work: impl FnOnce() -> R) -> (R, Result<Saved>) {
        if let Err(error) = self.background.settle() {
            return (work(), Err(error));
        }
        std::thread::scope(|scope| {
            let saving = scope.spawn(|| {
                priority::step_back(self.core.settings.background_nice);
                self.core.save(snapshot)
            });
            let result = work();
            let panicked = |_| Err(Error::new(ErrorKind::Io, "the save panicked; look for its message"));
            (result, saving.join().unwrap_or_else(panicked))
        })
    }

    /// Saves in the background what is owned or shared: an [`ArcArray`](ndarray::ArcArray), a tensor of
    /// [`SharedBytes`](crate::SharedBytes). Nothing is copied. None when there was no place and
    /// [`WhenFull::Skip`] is set.
    ///
    /// # Errors
    /// First of all, the error of an earlier save in the background that no call has returned yet; `Busy`.
    pub fn save_async(&self, snapshot: Snapshot<'static>) -> Result<Option<Pending>> {
        self.check_progress(&snapshot)?;
        self.background.submit(|| Ok(snapshot))
    }

    /// Copies the snapshot into warm memory of the store's own and saves the copy in the background: training may go
    /// on, and change everything, when this returns. The first copy has to allocate, later ones do not.
    ///
    /// # Errors
    /// As [`Store::save_async`]; `LimitExceeded` when there is no memory for the copy.
    pub fn stage(&self, snapshot: &Snapshot<'_>) -> Result<Option<Pending>> {
        self.check_progress(snapshot)?;
        self.background.submit(|| self.staging.copy(snapshot))
    }

    fn check_progress(&self, snapshot: &Snapshot<'_>) -> Result<()> {
        save::progress_of(snapshot).map(drop)
    }

    /// Waits for all saves in the background.
    ///
    /// # Errors
    /// The error of one that no call has returned yet.
    pub fn wait(&self) -> Result<()> {
        self.background.settle()
    }

    /// Opens the newest checkpoint that verifies, every byte of it. Damaged newer ones are set aside under `damaged/`
    /// and returned in [`Resumed::skipped`]: look at it, it says how much work is lost and why.
    ///
    /// # Errors
    /// `Damaged` when there are checkpoints and none verifies: starting from nothing is for you to decide. `NewerVersion`
    /// when the newest was written by a newer version. What the operating system refuses.
    pub fn resume(&self) -> Result<Resumed> {
        self.background.settle()?;
        self.core.resume()
    }

    /// Resumes from a given step, whatever was saved after it: a rollback. What follows is a new attempt, and newer
    /// than everything before.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when this store has saved already; and as [`Store::resume`].
    pub fn resume_at(&self, step: u64) -> Result<Resumed> {
        self.background.settle()?;
        self.core.resume_at(step)
    }

    /// Why each checkpoint stays, in words: `last 3`, `best val_loss`, `pinned`, … One that is not in the answer goes
    /// with the next save.
    ///
    /// # Errors
    /// Whatever listing says.
    pub fn kept(&self) -> Result<BTreeMap<Name, BTreeSet<String>>> {
        self.core.kept()
    }

    /// As [`Reader::list`].
    ///
    /// # Errors
    /// As [`Reader::list`].
    pub fn list(&self) -> Result<Vec<Info>> {
        self.core.reader.list()
    }

    /// As [`Reader::latest`].
    ///
    /// # Errors
    /// As [`Reader::latest`].
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        self.core.reader.latest()
    }

    /// As [`Reader::best`].
    ///
    /// # Errors
    /// As [`Reader::best`].
    pub fn best(&self, metric: &str, mode: Mode) -> Result<Option<Checkpoint>> {
        self.core.reader.best(metric, mode)
    }

    /// The checkpoint of a step, as [`Reader::open`].
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_step(&self, step: u64) -> Result<Checkpoint> {
        self.core.reader.open(step)
    }

    /// Protects a step's checkpoint from rotation and from [`Store::delete`], also after a restart.
    ///
    /// # Errors
    /// `NotFound`, and whatever the engine says.
    pub fn pin(&self, step: u64) -> Result<()> {
        let name = self.core.reader.find(step)?;
        name.pin(self.core.reader.engine())
    }

    /// Takes a pin away. Nothing is deleted by that before the next save.
    ///
    /// # Errors
    /// `NotFound`, and whatever the engine says.
    pub fn unpin(&self, step: u64) -> Result<()> {
        self.core.reader.find(step)?.unpin(self.core.reader.engine())
    }

    /// Deletes a step's checkpoint, durably.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a pinned one and for the only one there is; `Fenced`; whatever the engine says.
    pub fn delete(&self, step: u64) -> Result<()> {
        let name = self.core.reader.find(step)?;
        let engine = self.core.reader.engine();
        self.core.attempt.check_newest(engine)?;
        let infos = self.core.reader.list()?;
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

    /// Ends writing: waits for saves in the background, then frees the lock. Dropping does the same without a chance to hear of an error.
    ///
    /// # Errors
    /// The error of a save in the background that no call has returned yet.
    pub fn close(self) -> Result<()> {
        self.background.settle()
    }
}

impl Core {
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

/// What nobody chose: raw tensors are mapped where they lie, and bytes that travel are worth making fewer.
fn default_codec(engine: &dyn Engine) -> Codec {
    if engine.caps().over_network { Codec::Balanced } else { Codec::Raw }
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
    #[cfg(feature = "testing")]
    if let Some(seconds) = crate::engine::vfs::scripted::seconds() {
        return seconds;
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
