//! The checkpoints of a run, to read: listing, finding, opening. Owns: [`Reader`], and a memory of
//! what immutable objects said of themselves. Takes no lock and writes nothing.

use super::absent::{self, Absent};
use super::attempt::Attempt;
use super::background::lock;
use super::keep::Mode;
use super::look::{Found, Listed, Look};
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED, PINS, damaged_mark_key};
use super::record::CheckpointMeta;
use super::retention::Candidate;
use crate::checkpoint::{Checkpoint, OpenOptions, Verify};
use crate::clock;
use crate::engine::{Engine, Local, MmapPromise};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// So many checkpoints are asked one after the other.
const FEW: usize = 8;

/// How many are asked side by side: a thousand over a line of 30 ms take a second.
const MOST_AT_A_TIME: usize = 32;

/// What a listing says of one checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// Attempt and step.
    pub name: CheckpointId,
    /// The object's key in the run.
    pub key: String,
    /// Length in bytes.
    pub len: u64,
    /// Whether retention must leave it alone.
    pub pinned: bool,
    /// Whether a resume found it damaged and marked it, as on engines that cannot rename. It counts
    /// for no rule of retention and is resumed from no more; [`Reader::heal`] takes the mark off
    /// what verifies.
    pub is_marked: bool,
    /// What it says of itself, or why it cannot be read.
    pub state: Result<CheckpointMeta, Arc<Error>>,
}

/// The checkpoints of a run, for reading beside a writer: evaluation, serving, tools. It takes no
/// lock and writes nothing.
///
/// ```
/// # use tensorkeep::{Progress, Snapshot, Store, StoreOptions};
/// use tensorkeep::{Mode, Reader};
///
/// # let folder = std::env::temp_dir().join(format!("doc-reader-{}", std::process::id()));
/// # let store = Store::open(&folder, StoreOptions::new())?;
/// # for (step, loss) in [(100, 0.5), (200, 0.25), (300, 0.75)] {
/// #     let weights = [loss as f32];
/// #     let snapshot = Snapshot::new().tensor("weights", &weights[..])?.metric("loss", loss)?;
/// #     store.save(&snapshot.progress(Progress::new(step)))?;
/// # }
/// # store.close()?;
/// let reader = Reader::open(&folder)?;
/// for info in reader.list()? {
///     println!("{}: {} bytes", info.name, info.len);
/// }
/// let best = reader.best("loss", Mode::Min)?.expect("a checkpoint with this metric");
/// assert_eq!(best.tensor("weights")?.scalar::<f32>()?, 0.25);
/// let newest = reader.latest()?.expect("a checkpoint");
/// assert_eq!(newest.progress()?, Some(Progress::new(300)));
/// let step_100 = reader.checkpoint(100)?;
/// # drop(step_100);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reader {
    engine: Arc<dyn Engine>,
    options: OpenOptions,
    map: Option<MmapPromise>,
    known: Arc<Mutex<BTreeMap<CheckpointId, Arc<CheckpointMeta>>>>,
    /// What was not there when it was listed last: it is not waited for each time.
    absent: Arc<Mutex<Absent<CheckpointId>>>,
    /// The newest name of the last listing for [`Reader::latest`].
    newest_seen: Arc<Mutex<Option<CheckpointId>>>,
}

impl Reader {
    /// Reads the checkpoints in a folder, which must exist.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when it is no folder.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(Local::open(folder)?))
    }

    /// Reads the checkpoints on an engine.
    pub fn new(engine: impl Engine + 'static) -> Self {
        Self::on(Arc::new(engine), OpenOptions::new(), None)
    }

    /// Opens checkpoints with these options.
    pub fn options(self, options: OpenOptions) -> Self {
        Self { options, ..self }
    }

    /// Maps checkpoints where the engine can, under this promise.
    pub fn map(self, promise: MmapPromise) -> Self {
        Self { map: Some(promise), ..self }
    }

    pub(crate) fn on(engine: Arc<dyn Engine>, options: OpenOptions, map: Option<MmapPromise>) -> Self {
        let (known, absent, newest_seen) = Default::default();
        Self { engine, options, map, known, absent, newest_seen }
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Names of all checkpoints, oldest first. Reads no checkpoint. Those that are marked as
    /// damaged are left out.
    ///
    /// # Errors
    /// Whatever the engine says.
    pub fn names(&self) -> Result<Vec<CheckpointId>> {
        let sound = |listed: Listed| (!listed.is_marked).then_some(listed.name);
        Ok(self.listed()?.into_iter().filter_map(sound).collect())
    }

    /// All checkpoints as the storage lists them, oldest first, with those that are marked as
    /// damaged. Reads none.
    ///
    /// # Errors
    /// Whatever the engine says.
    pub fn listed(&self) -> Result<Vec<Listed>> {
        Ok(Look::at(&*self.engine, &["", DAMAGED])?.checkpoints())
    }

    /// All checkpoints with what they say of themselves, oldest first. What was deleted meanwhile
    /// is left out, what cannot be read is listed with the reason.
    ///
    /// # Errors
    /// Whatever listing says.
    pub fn list(&self) -> Result<Vec<CheckpointInfo>> {
        let info = |found: Found| {
            let Found { listed: Listed { name, len, is_marked }, pinned, state } = found;
            let state = state.map(|state| (*state).clone()).map_err(|error| Arc::new(absent::told(error)));
            CheckpointInfo { name, key: name.key(), len, pinned, is_marked, state }
        };
        Ok(self.find_all()?.into_iter().map(info).collect())
    }

    /// What selecting looks at: as [`Reader::list`], without a copy of what is known of each.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>> {
        Ok(self.find_all()?.into_iter().map(Found::candidate).collect())
    }

    /// The same, of a look that also says that this attempt is the newest, and was so when it had
    /// saved this one.
    ///
    /// # Errors
    /// `Fenced`; what listing, and reading the attempt, say.
    pub(super) fn candidates_of(&self, attempt: &Attempt, saved: CheckpointId) -> Result<Vec<Candidate>> {
        const FOLDERS: [&str; 4] = [ATTEMPTS, PINS, "", DAMAGED];
        let all = self.find_in(|| attempt.look(&*self.engine, &FOLDERS, vec![saved.key()]))?;
        Ok(all.into_iter().map(Found::candidate).collect())
    }

    fn find_all(&self) -> Result<Vec<Found>> {
        self.find_in(|| Look::at(&*self.engine, &[PINS, "", DAMAGED]))
    }

    fn find_in(&self, mut look: impl FnMut() -> Result<Look>) -> Result<Vec<Found>> {
        let mut absent = lock(&self.absent).clone();
        loop {
            let look = look()?;
            let pins = look.pins();
            let find = |listed: Listed| {
                let pinned = !pins.is_empty() && pins.contains(&*listed.name.pin_key());
                let state =
                    if listed.is_marked { Err(self.marked(listed.name)) } else { self.state(listed.name) };
                Found { listed, pinned, state }
            };
            let listed = look.checkpoints();
            self.ask_side_by_side(&listed)?;
            let all: Vec<Found> = listed.into_iter().map(find).collect();
            let is_absent = |found: &&Found| found.state.as_ref().is_err_and(absent::is_absence);
            if absent.ask_again(all.iter().filter(is_absent).map(|found| found.listed.name)) {
                continue;
            }
            absent.retain(|name| all.binary_search_by_key(name, |found| found.listed.name).is_ok());
            *lock(&self.absent) = absent;
            // Sorted by name. What is gone need not be remembered.
            lock(&self.known)
                .retain(|name, _| all.binary_search_by_key(name, |found| found.listed.name).is_ok());
            return Ok(all);
        }
    }

    /// Reads what many checkpoints say of themselves, before each is asked for: over a network each
    /// is a wait.
    fn ask_side_by_side(&self, listed: &[Listed]) -> Result<()> {
        let is_unknown =
            |listed: &&Listed| !listed.is_marked && !lock(&self.known).contains_key(&listed.name);
        let unknown: Vec<CheckpointId> = listed.iter().filter(is_unknown).map(|listed| listed.name).collect();
        if unknown.len() < FEW || clock::is_scripted() {
            return Ok(());
        }
        let workers = (unknown.len() / (FEW / 2)).min(MOST_AT_A_TIME);
        // Whatever fails is asked again, and told then.
        pipeline::each(
            workers,
            unknown.into_iter(),
            || (),
            |(), name| {
                drop(self.state(name));
                Ok(())
            },
        )
    }

    /// The newest checkpoint that opens, if there is one. Its tensors are verified on touch.
    ///
    /// # Errors
    /// Whatever listing says; `Damaged` when there are checkpoints and none opens.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        self.first_that_opens(|| Ok(self.names_not_behind()?.into_iter().rev().collect()))
    }

    /// A folder that is listed while a writer saves and rotates may lack the new name and the old
    /// one. So a newest name that is older than one seen before is believed of the third listing
    /// only: somebody may have deleted that one.
    fn names_not_behind(&self) -> Result<Vec<CheckpointId>> {
        let seen = *lock(&self.newest_seen);
        let mut names = self.names()?;
        for _ in 0..2 {
            if names.last().copied() >= seen {
                break;
            }
            names = self.names()?;
        }
        *lock(&self.newest_seen) = names.last().copied();
        Ok(names)
    }

    /// The best checkpoint by a metric that opens, if any has that metric. Of equal ones the
    /// newest.
    ///
    /// # Errors
    /// As [`Reader::latest`].
    pub fn best(&self, metric: &str, mode: Mode) -> Result<Option<Checkpoint>> {
        self.first_that_opens(|| {
            let mut ranked: Vec<(f64, CheckpointId)> = self
                .list()?
                .into_iter()
                .filter_map(|info| Some((*info.state.ok()?.metrics.get(metric)?, info.name)))
                .collect();
            ranked.sort_by(|(a, name_a), (b, name_b)| {
                let by_value = if mode == Mode::Min { a.total_cmp(b) } else { b.total_cmp(a) };
                by_value.then(name_b.cmp(name_a))
            });
            Ok(ranked.into_iter().map(|(_, name)| name).collect())
        })
    }

    /// What is gone since it was listed was deleted behind the commit of a newer one, which an old
    /// listing does not have: then everything is listed again.
    fn first_that_opens(&self, list: impl Fn() -> Result<Vec<CheckpointId>>) -> Result<Option<Checkpoint>> {
        let mut absent = Absent::default();
        'listing: loop {
            let mut damage = None;
            for name in list()? {
                match self.open_surely(name) {
                    Ok(checkpoint) => return Ok(Some(checkpoint)),
                    Err(error) if absent::is_absence(&error) && absent.ask_again([name]) => {
                        continue 'listing;
                    }
                    Err(error) if is_damage(&error) || absent::is_absence(&error) => {
                        damage = damage.or(Some(absent::told(error)));
                    }
                    Err(error) => return Err(error),
                }
            }
            return match damage {
                Some(damage) => Err(damage),
                None => self.check_not_all_marked().map(|()| None),
            };
        }
    }

    /// The checkpoint of a step; where several attempts have it, the newest attempt's.
    ///
    /// # Errors
    /// `NotFound` naming the steps there are, and as [`Checkpoint::open`].
    pub fn checkpoint(&self, step: u64) -> Result<Checkpoint> {
        self.checkpoint_by_id(self.find(step)?)
    }

    /// Exactly this checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn checkpoint_by_id(&self, name: CheckpointId) -> Result<Checkpoint> {
        self.map
            .map_or_else(|| self.open_to_read(name), |promise| self.open_mapped(name, promise, self.options))
    }

    /// As [`Reader::checkpoint_by_id`]; once more where the bytes are at fault: an older one is not
    /// taken for a wrong answer.
    fn open_surely(&self, name: CheckpointId) -> Result<Checkpoint> {
        match self.checkpoint_by_id(name) {
            Err(error) if is_damage(&error) => self.checkpoint_by_id(name),
            opened => opened,
        }
    }

    fn open_mapped(
        &self,
        name: CheckpointId,
        promise: MmapPromise,
        options: OpenOptions,
    ) -> Result<Checkpoint> {
        // Tried, not asked for: an engine may have to write to find out its capabilities, and this
        // only reads.
        match self.engine.map(&name.key(), promise) {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.open_to_read(name),
            mapped => options.open_blob(mapped?, self.engine.describe(&name.key())),
        }
    }

    /// As [`Reader::checkpoint_by_id`], never mapped.
    pub(super) fn open_to_read(&self, name: CheckpointId) -> Result<Checkpoint> {
        let key = name.key();
        self.options.open_blob(self.engine.open(&key)?, self.engine.describe(&key))
    }

    /// A checkpoint that was verified by reading, mapped where this reader maps; nothing is
    /// verified twice.
    pub(super) fn map_verified(&self, read: Checkpoint, name: CheckpointId) -> Result<Checkpoint> {
        match self.map.filter(|_| read.name() == self.engine.describe(&name.key())) {
            None => Ok(read),
            // Not at opening: that would go through the mapping.
            Some(promise) => {
                Ok(self.open_mapped(name, promise, self.options.verify(Verify::OnTouch))?.trusting(&read))
            }
        }
    }

    /// The name of a step's checkpoint; where several attempts have it, the newest attempt's.
    ///
    /// # Errors
    /// `NotFound` naming the steps there are.
    pub fn find(&self, step: u64) -> Result<CheckpointId> {
        let names = self.names()?;
        names.iter().rev().find(|name| name.step == step).copied().ok_or_else(|| {
            let mut steps: Vec<u64> = names.iter().map(|name| name.step).collect();
            steps.sort_unstable_by_key(|there| there.abs_diff(step));
            steps.truncate(5);
            let error = Error::new(ErrorKind::NotFound, format!("no checkpoint of step {step}"))
                .in_object(self.engine.describe(""));
            match steps.is_empty() {
                true => error.help("the run has no checkpoints yet, or none that is not marked as damaged"),
                false => error.help(format!("the nearest steps are {steps:?}")),
            }
        })
    }

    /// A run whose every checkpoint is marked is none without checkpoints.
    fn check_not_all_marked(&self) -> Result<()> {
        let listed = self.listed()?;
        let newest = listed.last().filter(|_| listed.iter().all(|listed| listed.is_marked));
        newest.map_or(Ok(()), |newest| Err(self.marked(newest.name)))
    }

    /// Takes the mark of damage off a checkpoint that verifies, every byte of it, and says whether
    /// there was one: the storage may have answered wrongly when it was set.
    ///
    /// # Errors
    /// What verifying says; then the mark stays. Whatever the engine says.
    pub fn heal(&self, name: CheckpointId) -> Result<bool> {
        self.open_to_read(name)?.verify()?;
        match self.engine.delete(&damaged_mark_key(name)) {
            Err(error) if absent::is_absence(&error) => Ok(false),
            healed => healed.map(|()| true),
        }
    }

    fn marked(&self, name: CheckpointId) -> Error {
        Error::damaged("is marked as damaged by a resume")
            .in_object(self.engine.describe(&name.key()))
            .help("`tensorkeep verify --heal-marks` takes the mark off if it verifies")
    }

    /// What a checkpoint says of itself that was just committed.
    pub(super) fn remember(&self, name: CheckpointId, state: CheckpointMeta) {
        let mut newest = lock(&self.newest_seen);
        *newest = (*newest).max(Some(name));
        drop(newest);
        lock(&self.known).insert(name, Arc::new(state));
    }

    fn state(&self, name: CheckpointId) -> Result<Arc<CheckpointMeta>> {
        if let Some(state) = lock(&self.known).get(&name) {
            return Ok(Arc::clone(state));
        }
        let checkpoint = self.open_surely(name)?;
        let state = Arc::new(CheckpointMeta::of(&checkpoint, name)?);
        lock(&self.known).insert(name, Arc::clone(&state));
        Ok(state)
    }
}

/// Whether the object itself is at fault, so that an older one may do: its bytes lie, or what holds
/// them says that it cannot give them.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Foreign)
        || says_rot(error)
        || absent::is_told(error)
}

/// Whether this is one of the codes by which file systems report rot. Linux: EIO, and of XFS, ext4,
/// Btrfs and what they stand on EUCLEAN ("structure needs cleaning"), EBADMSG (checksum of
/// metadata), EILSEQ and ENODATA (medium), EREMOTEIO (target), and of NFS ESTALE.
fn says_rot(error: &Error) -> bool {
    use rustix::io::Errno;
    let Some(code) = error.raw_os_error().map(Errno::from_raw_os_error) else { return false };
    #[cfg(target_os = "linux")]
    if matches!(code, Errno::UCLEAN | Errno::REMOTEIO | Errno::NODATA) {
        return true;
    }
    // A link that leads nowhere: its file was not fetched, or is lost.
    let leads_nowhere = error.kind() == ErrorKind::Io && matches!(code, Errno::NOENT | Errno::LOOP);
    leads_nowhere || matches!(code, Errno::IO | Errno::BADMSG | Errno::ILSEQ | Errno::STALE)
}
