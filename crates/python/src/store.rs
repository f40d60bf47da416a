//! A run for Python: a store with its saves, and the outcome of a background save. Signals,
//! schedules in words, and everything about states are Python's.

use crate::errors::{detached, exception};
use crate::file::File;
use crate::memory::State;
use crate::options::{self, Rule};
use crate::place;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tensorkeep::store::Saved;
use tensorkeep::{
    Checkpoint, Error, ErrorKind, OpenOptions, PendingSave, Progress, Result, StoreOptions, Verify,
};

/// The one writer of a run.
#[pyclass(frozen, module = "tensorkeep._tensorkeep")]
pub struct Store(RwLock<Option<tensorkeep::Store>>);

/// A store that is read-locked and open.
struct Open<'s>(RwLockReadGuard<'s, Option<tensorkeep::Store>>);

impl Open<'_> {
    fn store(&self) -> Result<&tensorkeep::Store> {
        self.0
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "this store is closed").help("open the run again"))
    }
}

impl Store {
    /// Runs `act` on the open store, while other Python threads run.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&tensorkeep::Store) -> Result<T> + Send,
    ) -> PyResult<T> {
        detached(py, || {
            let open = Open(self.0.read().unwrap_or_else(PoisonError::into_inner));
            act(open.store()?)
        })
    }
}

/// Step, epoch, metrics, saved at, why, bytes, pinned, damaged, error.
type Listed = (u64, u64, BTreeMap<String, f64>, u64, String, u64, bool, Option<String>);
/// Step, epoch, the checkpoint, (step, what is wrong, where it was put) of those skipped, tier.
type Resumed = (u64, u64, Option<File>, Vec<(u64, String, Option<String>)>, Option<String>, Option<String>);

fn tier(tier: tensorkeep::Tier) -> String {
    format!("{tier:?}").to_lowercase()
}

#[pymethods]
impl Store {
    /// Opens a run in a folder, or in two.
    #[new]
    #[pyo3(signature = (path, *, save, keep, remote, keep_remote, codecs, in_flight, when_full, background_nice,
        deadline))]
    #[expect(clippy::too_many_arguments, reason = "one call of `_store.py`, named there")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        save: Vec<Rule>,
        keep: Vec<Rule>,
        remote: Option<PathBuf>,
        keep_remote: Option<Vec<Rule>>,
        codecs: Vec<(String, String)>,
        in_flight: usize,
        when_full: &str,
        background_nice: u8,
        deadline: f64,
    ) -> PyResult<Self> {
        let deadline = Duration::try_from_secs_f64(deadline).unwrap_or(Duration::MAX);
        let open = || {
            let mut options = StoreOptions::new()
                .save(options::every(&save)?)
                .keep(options::keep(&keep)?)
                .write(options::write(&codecs)?)
                .open(OpenOptions::new().verify(Verify::OnTouch))
                .in_flight(in_flight, options::when_full(when_full)?)
                .background_nice(background_nice)
                .deadline(deadline);
            if let Some(keep_remote) = keep_remote {
                options = options.keep_remote(options::keep(&keep_remote)?);
            }
            let engine = place::to_write(&path, deadline)?;
            match remote {
                Some(remote) => {
                    tensorkeep::Store::open_tiered(engine, place::to_write(&remote, deadline)?, options)
                }
                None => tensorkeep::Store::open(engine, options),
            }
        };
        Ok(Self(RwLock::new(Some(detached(py, open)?))))
    }

    fn attempt(&self, py: Python<'_>) -> PyResult<u32> {
        self.with(py, |store| Ok(store.attempt()))
    }

    fn is_closed(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.read().unwrap_or_else(PoisonError::into_inner).is_none())
    }

    /// Resumes from the newest checkpoint that verifies, or from that of a step.
    fn resume(&self, py: Python<'_>, step: Option<u64>) -> PyResult<Resumed> {
        let resumed = self.with(py, |store| match step {
            Some(step) => store.resume_at(step),
            None => store.resume(),
        })?;
        let skipped = resumed.skipped.iter().map(|skipped| {
            let put = skipped.set_aside.as_ref().and_then(|put| put.as_ref().ok().cloned());
            (skipped.id.step, skipped.error.to_string(), put)
        });
        let (skipped, progress) = (skipped.collect(), resumed.progress);
        let remote_error = resumed.remote_error.as_ref().map(ToString::to_string);
        let file = resumed.checkpoint.map(File::from);
        Ok((progress.step, progress.epoch, file, skipped, resumed.tier.map(tier), remote_error))
    }

    fn start_over(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |store| {
            store.start_over();
            Ok(())
        })
    }

    /// Why a save is due, in words.
    fn due(&self, py: Python<'_>, step: u64, epoch: u64) -> PyResult<Option<String>> {
        self.with(py, |store| Ok(store.due(&Progress { step, epoch }).map(|why| why.to_string())))
    }

    fn has_saved(&self, py: Python<'_>, step: u64, epoch: u64) -> PyResult<bool> {
        self.with(py, |store| Ok(store.has_saved(&Progress { step, epoch })))
    }

    fn observe(&self, py: Python<'_>, metric: &str, value: f64) -> PyResult<()> {
        self.with(py, |store| {
            store.observe(metric, value);
            Ok(())
        })
    }

    /// Puts metrics of a progress into the run's history.
    fn log(&self, py: Python<'_>, step: u64, epoch: u64, metrics: Vec<(String, f64)>) -> PyResult<()> {
        self.with(py, |store| {
            let metrics = metrics.iter().map(|(name, value)| (&**name, *value));
            store.log(&Progress { step, epoch }, metrics);
            Ok(())
        })
    }

    /// Saves, and waits until it is durable.
    fn save<'py>(
        &self,
        py: Python<'py>,
        given: Given<'py>,
    ) -> PyResult<(Bound<'py, PyDict>, Option<Bound<'py, PyAny>>)> {
        let state = given.state(py)?;
        let saved = self.with(py, |store| store.save(&state.snapshot()?))?;
        let earlier = saved.earlier_error.as_ref().map(|error| raised_later(py, error));
        Ok((describe(py, &saved)?, earlier))
    }

    /// Copies the state and saves the copy in the background. None when there was no room.
    fn stage<'py>(
        &self,
        py: Python<'py>,
        given: Given<'py>,
    ) -> PyResult<(Option<Pending>, Option<Bound<'py, PyAny>>)> {
        let state = given.state(py)?;
        let pending = self.with(py, |store| store.stage(&state.snapshot()?))?;
        let earlier = pending.as_ref().and_then(PendingSave::earlier_error);
        Ok((pending.map(Pending), earlier.map(|error| raised_later(py, &error))))
    }

    fn list(&self, py: Python<'_>) -> PyResult<Vec<Listed>> {
        let infos = self.with(py, tensorkeep::Store::list)?;
        let listed = infos.into_iter().map(|info| match &info.state {
            Ok(meta) => {
                let (mut metrics, why) = (meta.metrics.clone(), meta.why.clone());
                metrics.extend(meta.not_finite.clone());
                let (step, epoch) = (meta.progress.step, meta.progress.epoch);
                (step, epoch, metrics, meta.saved_at, why, info.byte_len, info.pinned, None)
            }
            Err(error) => {
                let (step, error) = (info.id.step, Some(error.to_string()));
                (step, 0, BTreeMap::new(), 0, String::new(), info.byte_len, info.pinned, error)
            }
        });
        Ok(listed.collect())
    }

    /// By step, why each checkpoint stays.
    fn kept(&self, py: Python<'_>) -> PyResult<Vec<(u64, BTreeSet<String>)>> {
        let kept = self.with(py, tensorkeep::Store::kept)?;
        Ok(kept.into_iter().map(|(id, why)| (id.step, why)).collect())
    }

    fn latest(&self, py: Python<'_>) -> PyResult<Option<File>> {
        Ok(self.with(py, tensorkeep::Store::latest)?.map(File::from))
    }

    fn best(&self, py: Python<'_>, metric: &str, mode: &str) -> PyResult<Option<File>> {
        let best = self.with(py, |store| store.best(metric, options::mode(mode)?))?;
        Ok(best.map(File::from))
    }

    fn checkpoint(&self, py: Python<'_>, step: u64) -> PyResult<File> {
        self.with(py, |store| store.checkpoint(step)).map(File::from)
    }

    fn pin(&self, py: Python<'_>, step: u64) -> PyResult<()> {
        self.with(py, |store| store.pin(step))
    }

    fn unpin(&self, py: Python<'_>, step: u64) -> PyResult<()> {
        self.with(py, |store| store.unpin(step))
    }

    fn delete(&self, py: Python<'_>, step: u64) -> PyResult<()> {
        self.with(py, |store| store.delete(step))
    }

    /// Waits for all saves, and returns an error that no call has told.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, tensorkeep::Store::wait)
    }

    /// Ends writing, by a signal if one is named; closing twice is fine.
    #[pyo3(signature = (stopped_by=None))]
    fn close(&self, py: Python<'_>, stopped_by: Option<String>) -> PyResult<()> {
        detached(py, || {
            let Some(store) = self.0.write().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(());
            };
            stopped_by.into_iter().for_each(|signal| store.stopped_by(signal));
            store.close()
        })
    }
}

/// The arguments of both ways to save: `Given` in `_given.py`. It refers to the tensors, so it must
/// live until the call ends.
#[derive(FromPyObject)]
struct Given<'py> {
    tensors: Bound<'py, PyList>,
    records: Bound<'py, PyDict>,
    types: Bound<'py, PyAny>,
    step: u64,
    epoch: u64,
    metrics: Vec<(String, f64)>,
    metadata: Vec<(String, String)>,
}

impl Given<'_> {
    fn state(&self, py: Python<'_>) -> PyResult<State> {
        let progress = Some(Progress { step: self.step, epoch: self.epoch });
        let state = State::new(&self.tensors, &self.records, &self.types)?;
        let described = state.described(progress, self.metrics.clone(), self.metadata.clone());
        described.map_err(|error| exception(py, &error))
    }
}

/// The error of an earlier save as an exception, which Python raises after this call's own save.
fn raised_later<'py>(py: Python<'py>, error: &Error) -> Bound<'py, PyAny> {
    exception(py, error).into_value(py).into_bound(py).into_any()
}

/// The outcome of a save.
fn describe<'py>(py: Python<'py>, saved: &Saved) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let deleted: Vec<u64> = saved.deleted.iter().map(|id| id.step).collect();
    let mut warnings = saved.warnings.clone();
    warnings.extend(saved.not_deleted.iter().map(|(id, error)| format!("{id} was not deleted: {error}")));
    warnings.extend(saved.rotation_error.iter().map(ToString::to_string));
    dict.set_item("step", saved.id.step)?;
    dict.set_item("attempt", saved.id.attempt)?;
    dict.set_item("nbytes", saved.byte_len)?;
    dict.set_item("seconds", saved.timings.total.as_secs_f64())?;
    dict.set_item("deleted", deleted)?;
    dict.set_item("warnings", warnings)?;
    Ok(dict)
}

/// A save in the background.
#[pyclass(frozen, module = "tensorkeep._tensorkeep")]
pub struct Pending(PendingSave);

#[pymethods]
impl Pending {
    fn done(&self) -> bool {
        self.0.outcome().is_some()
    }

    /// Waits for at most so many seconds: what was saved, or None when it is still in flight.
    fn wait<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        match py.detach(|| self.0.wait_for(limit)) {
            None => Ok(None),
            Some(Ok(saved)) => describe(py, &saved).map(Some),
            Some(Err(error)) => Err(exception(py, &error)),
        }
    }
}

/// A checkpoint of a run, without a lock: the newest that opens, the best, or that of a step.
#[pyfunction]
pub fn find_in_run(
    py: Python<'_>,
    folder: PathBuf,
    step: Option<u64>,
    metric: Option<(String, String)>,
) -> PyResult<File> {
    let find = || {
        let reader = tensorkeep::Reader::new(place::to_read(&folder)?);
        let found: Option<Checkpoint> = match (step, metric) {
            (Some(step), _) => Some(reader.checkpoint(step)?),
            (None, Some((metric, word))) => reader.best(&metric, options::mode(&word)?)?,
            (None, None) => reader.latest()?,
        };
        let none = || Error::new(ErrorKind::NotFound, "no such checkpoint in the run");
        found.ok_or_else(|| none().in_object(folder.display()))
    };
    detached(py, find).map(File::from)
}
