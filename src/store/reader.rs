//! The checkpoints of a run, for reading: listing, finding and opening them with a [`Reader`],
//! which remembers the metadata of immutable objects. It takes no lock and writes nothing.

mod open;

use super::absent::{self, Absent};
use super::attempt::Attempt;
use super::damage::is_damage;
use super::keep::Mode;
use super::look::{Found, Listed, Look};
use super::naming::{ATTEMPTS, CheckpointId, DAMAGED, PINS};
use super::record::{CheckpointMeta, Shards};
use super::retention::Candidate;
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::clock;
use crate::engine::{Engine, Local, MmapPromise};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Up to this many checkpoints are read one after the other.
const FEW: usize = 8;

/// How many are read in parallel: a thousand over a link of 30 ms take a second.
const MOST_AT_A_TIME: usize = 32;

/// One checkpoint as a listing describes it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// Attempt and step.
    pub id: CheckpointId,
    /// The object's key in the run.
    pub key: String,
    /// Length in bytes, with its shards.
    pub byte_len: u64,
    /// Whether retention must leave it alone.
    pub pinned: bool,
    /// Whether a resume found it damaged and marked it, as on engines that cannot rename. It counts
    /// for no rule of retention and is not resumed from again; [`Reader::heal`] removes the mark if
    /// it verifies.
    pub is_marked: bool,
    /// Its metadata, or why it cannot be read.
    pub state: Result<CheckpointMeta, Arc<Error>>,
}

impl CheckpointInfo {
    fn of(found: Found) -> Self {
        let Found { listed: Listed { id, byte_len, is_marked }, pinned, state } = found;
        let state = state.map(|state| (*state).clone()).map_err(|error| Arc::new(absent::told(error)));
        let shards = state.as_ref().map_or(0, |state| state.shard_bytes);
        let byte_len = byte_len.saturating_add(shards);
        Self { id, key: id.key(), byte_len, pinned, is_marked, state }
    }
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
///     println!("{}: {} bytes", info.id, info.byte_len);
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
    /// Ids that were absent when last listed, so that later calls do not wait for them again.
    absent: Arc<Mutex<Absent<CheckpointId>>>,
    /// The newest id of the last listing for [`Reader::latest`].
    newest_seen: Arc<Mutex<Option<CheckpointId>>>,
}

impl Reader {
    /// Reads the checkpoints in a folder, which must exist.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when it is not a folder.
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
        Self {
            engine,
            options,
            map,
            known: Arc::default(),
            absent: Arc::default(),
            newest_seen: Arc::default(),
        }
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Ids of all checkpoints, oldest first, without those that are marked as damaged. Reads no
    /// checkpoint.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn ids(&self) -> Result<Vec<CheckpointId>> {
        let sound = |listed: Listed| (!listed.is_marked).then_some(listed.id);
        Ok(self.listed()?.into_iter().filter_map(sound).collect())
    }

    /// All checkpoints as the storage lists them, oldest first, including those that are marked as
    /// damaged. Reads no checkpoint.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn listed(&self) -> Result<Vec<Listed>> {
        Ok(Look::at(&*self.engine, &["", DAMAGED])?.checkpoints())
    }

    /// All checkpoints with their metadata, oldest first. A checkpoint deleted meanwhile is left
    /// out; one that cannot be read is listed with the reason.
    ///
    /// # Errors
    /// Errors of listing.
    pub fn list(&self) -> Result<Vec<CheckpointInfo>> {
        Ok(self.find_all()?.into_iter().map(CheckpointInfo::of).collect())
    }

    /// The input of retention: as [`Reader::list`], without a copy of each checkpoint's metadata.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>> {
        Ok(self.find_all()?.into_iter().map(Found::candidate).collect())
    }

    /// The same, from a look that also shows that this attempt is the newest, and was so when it
    /// had saved this checkpoint.
    ///
    /// # Errors
    /// `Fenced`; errors of listing, and of reading the attempt.
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
                let pinned = !pins.is_empty() && pins.contains(&*listed.id.pin_key());
                let state =
                    if listed.is_marked { Err(self.marked(listed.id)) } else { self.state(listed.id) };
                Found { listed, pinned, state }
            };
            let listed = look.checkpoints();
            self.ask_side_by_side(&listed)?;
            let all: Vec<Found> = listed.into_iter().map(find).collect();
            let is_absent = |found: &&Found| found.state.as_ref().is_err_and(absent::is_absence);
            if absent.ask_again(all.iter().filter(is_absent).map(|found| found.listed.id)) {
                continue;
            }
            absent.retain(|id| all.binary_search_by_key(id, |found| found.listed.id).is_ok());
            *lock(&self.absent) = absent;
            // Sorted by name. Checkpoints that are gone need not be remembered.
            lock(&self.known).retain(|id, _| all.binary_search_by_key(id, |found| found.listed.id).is_ok());
            return Ok(all);
        }
    }

    /// Reads the metadata of many checkpoints in parallel before each is needed: over a network
    /// each read is a round trip.
    fn ask_side_by_side(&self, listed: &[Listed]) -> Result<()> {
        let is_unknown = |listed: &&Listed| !listed.is_marked && !lock(&self.known).contains_key(&listed.id);
        let unknown: Vec<CheckpointId> = listed.iter().filter(is_unknown).map(|listed| listed.id).collect();
        if unknown.len() < FEW || clock::is_scripted() {
            return Ok(());
        }
        let workers = (unknown.len() / (FEW / 2)).min(MOST_AT_A_TIME);
        // A read that fails is repeated, and its error reported then.
        pipeline::each(
            workers,
            unknown.into_iter(),
            || (),
            |(), id| {
                drop(self.state(id));
                Ok(())
            },
        )
    }

    /// The newest checkpoint that opens, if there is one. Its tensors are verified on touch.
    ///
    /// # Errors
    /// Errors of listing; `Damaged` when there are checkpoints and none opens.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        self.first_that_opens(|| Ok(self.ids_not_behind()?.into_iter().rev().collect()))
    }

    /// A folder that is listed while a writer saves and rotates may lack both the new name and the
    /// old one. So a newest name older than one seen before is believed only on the third listing:
    /// the newer one may have been deleted.
    fn ids_not_behind(&self) -> Result<Vec<CheckpointId>> {
        let seen = *lock(&self.newest_seen);
        let mut ids = self.ids()?;
        for _ in 0..2 {
            if ids.last().copied() >= seen {
                break;
            }
            ids = self.ids()?;
        }
        *lock(&self.newest_seen) = ids.last().copied();
        Ok(ids)
    }

    /// The best checkpoint by a metric that opens, if any has that metric. Among equals, the
    /// newest.
    ///
    /// # Errors
    /// As [`Reader::latest`].
    pub fn best(&self, metric: &str, mode: Mode) -> Result<Option<Checkpoint>> {
        self.first_that_opens(|| {
            let mut ranked: Vec<(f64, CheckpointId)> = self
                .list()?
                .into_iter()
                .filter_map(|info| Some((*info.state.ok()?.metrics.get(metric)?, info.id)))
                .collect();
            ranked.sort_by(|(a, name_a), (b, name_b)| mode.compare(*a, *b).then(name_b.cmp(name_a)));
            Ok(ranked.into_iter().map(|(_, id)| id).collect())
        })
    }

    /// A checkpoint that is gone since it was listed was deleted after the commit of a newer one,
    /// which a stale listing does not show: then everything is listed again.
    fn first_that_opens(&self, list: impl Fn() -> Result<Vec<CheckpointId>>) -> Result<Option<Checkpoint>> {
        let mut absent = Absent::default();
        'listing: loop {
            let mut damage = None;
            for id in list()? {
                match self.open_surely(id) {
                    Ok(checkpoint) => return Ok(Some(checkpoint)),
                    Err(error) if absent::is_absence(&error) && absent.ask_again([id]) => {
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

    /// The id of a step's checkpoint; if several attempts have it, the newest attempt's.
    ///
    /// # Errors
    /// `NotFound` with the nearest steps.
    pub fn find(&self, step: u64) -> Result<CheckpointId> {
        let ids = self.ids()?;
        ids.iter().rev().find(|id| id.step == step).copied().ok_or_else(|| {
            let mut steps: Vec<u64> = ids.iter().map(|id| id.step).collect();
            steps.sort_unstable_by_key(|there| there.abs_diff(step));
            steps.truncate(5);
            let error = Error::new(ErrorKind::NotFound, format!("no checkpoint of step {step}"))
                .in_object(self.engine.describe(""));
            if steps.is_empty() {
                error.help("the run has no checkpoints yet, or none that is not marked as damaged")
            } else {
                error.help(format!("the nearest steps are {steps:?}"))
            }
        })
    }

    /// Fails if all checkpoints are marked: such a run is not an empty one.
    fn check_not_all_marked(&self) -> Result<()> {
        let listed = self.listed()?;
        match listed.last() {
            Some(newest) if listed.iter().all(|listed| listed.is_marked) => Err(self.marked(newest.id)),
            _ => Ok(()),
        }
    }

    fn marked(&self, id: CheckpointId) -> Error {
        Error::damaged("is marked as damaged by a resume")
            .in_object(self.engine.describe(&id.key()))
            .help("`tensorkeep verify --heal-marks` takes the mark off if it verifies")
    }

    /// Remembers the metadata of a checkpoint that was just committed.
    pub(super) fn remember(&self, id: CheckpointId, state: CheckpointMeta) {
        let mut newest = lock(&self.newest_seen);
        *newest = (*newest).max(Some(id));
        drop(newest);
        lock(&self.known).insert(id, Arc::new(state));
    }

    /// The shards of a checkpoint whose metadata is known; asks the storage for nothing.
    pub(super) fn shards_of(&self, id: CheckpointId) -> Option<Arc<Shards>> {
        lock(&self.known).get(&id)?.shards.clone()
    }

    fn state(&self, id: CheckpointId) -> Result<Arc<CheckpointMeta>> {
        if let Some(state) = lock(&self.known).get(&id) {
            return Ok(Arc::clone(state));
        }
        let checkpoint = self.open_surely(id)?;
        let state = Arc::new(CheckpointMeta::of(&checkpoint, id)?);
        lock(&self.known).insert(id, Arc::clone(&state));
        Ok(state)
    }
}
