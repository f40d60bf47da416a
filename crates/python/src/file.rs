//! An open checkpoint for Python: what it says of itself, records, and views of its tensors.

use crate::errors::detached;
use crate::loading::{self, Mapped};
use crate::memory::{self, Room};
use crate::progress::watched;
use crate::records::Object;
use crate::view::View;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tensorkeep::engine::bytes_read;
use tensorkeep::{Checkpoint, Error, ErrorKind, OpenOptions, Result, Verify};

/// A checkpoint that is open.
#[pyclass(frozen, module = "tensorkeep._tensorkeep")]
pub struct File {
    inner: Arc<Inner>,
    /// Where it is, also when the process changes its folder.
    place: PathBuf,
}

#[expect(clippy::large_enum_variant, reason = "one of each file, behind an Arc")]
enum Inner {
    Read(Checkpoint),
    Mapped(Mapped),
}

impl Inner {
    fn checkpoint(&self) -> &Checkpoint {
        match self {
            Self::Read(checkpoint) => checkpoint,
            Self::Mapped(mapped) => mapped.checkpoint(),
        }
    }
}

impl From<Checkpoint> for File {
    fn from(checkpoint: Checkpoint) -> Self {
        Self::new(Inner::Read(checkpoint))
    }
}

/// What the index says of one tensor.
type Info = (String, String, Vec<u64>, u64, u64, u64, bool, Option<String>);
/// Verdict, largest difference, relative distance, details.
type Difference = (&'static str, Option<f64>, Option<f64>, Option<String>);
/// Name, the tensor whose bytes it has, and its memory.
type Viewed = (String, Option<String>, Py<View>);

fn verification(word: &str) -> Result<Verify> {
    match word {
        "open" => Ok(Verify::AtOpen),
        "touch" => Ok(Verify::OnTouch),
        "never" => Ok(Verify::Never),
        _ => Err(Error::new(ErrorKind::Invalid, "when to verify")
            .expected("\"open\", \"touch\" or \"never\"")
            .found(format!("{word:?}"))),
    }
}

/// Opens a file, by reading or mapped copy-on-write.
#[pyfunction]
#[pyo3(signature = (path, *, mapped, verify, budget=None))]
pub fn open_file(
    py: Python<'_>,
    path: PathBuf,
    mapped: bool,
    verify: &str,
    budget: Option<u64>,
) -> PyResult<File> {
    let open = || {
        let mut verify = verification(verify)?;
        if mapped && verify == Verify::AtOpen {
            // A private mapping is verified when it is made, and once is enough.
            verify = Verify::OnTouch;
        }
        let options = OpenOptions::new().verify(verify).budget(budget.unwrap_or(u64::MAX));
        Ok(if mapped {
            Inner::Mapped(Mapped::open(&path, options)?)
        } else {
            Inner::Read(options.open(&path)?)
        })
    };
    detached(py, open).map(File::new)
}

impl File {
    fn new(inner: Inner) -> Self {
        let name = inner.checkpoint().name();
        let place = std::path::absolute(name).unwrap_or_else(|_| name.into());
        Self { inner: Arc::new(inner), place }
    }

    fn checkpoint(&self) -> &Checkpoint {
        self.inner.checkpoint()
    }
}

#[pymethods]
impl File {
    /// The path or URL.
    #[getter]
    fn name(&self) -> &str {
        self.checkpoint().name()
    }

    /// Length of the file in bytes.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.checkpoint().inspect().byte_len()
    }

    /// Whether tensors are views of a private mapping.
    #[getter]
    fn is_mapped(&self) -> bool {
        matches!(*self.inner, Inner::Mapped(_))
    }

    /// (step, epoch), or None.
    fn progress(&self, py: Python<'_>) -> PyResult<Option<(u64, u64)>> {
        let progress = detached(py, || self.checkpoint().progress())?;
        Ok(progress.map(|progress| (progress.step, progress.epoch)))
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<BTreeMap<String, f64>> {
        detached(py, || self.checkpoint().metrics())
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        detached(py, || self.checkpoint().metadata())
    }

    /// Names of the records, sorted.
    fn records(&self) -> Vec<&str> {
        self.checkpoint().records().collect()
    }

    /// One record as a Python object of plain values.
    fn record(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        let read = self.checkpoint().record::<Object>(name);
        read.map(|object| object.0).map_err(|error| crate::errors::exception(py, &error))
    }

    /// Name, dtype, shape, bytes, stored bytes, offset, whether raw, alias of: of each tensor.
    fn tensors(&self) -> Vec<Info> {
        let infos = self.checkpoint().tensors();
        infos
            .map(|info| {
                let dtype =
                    info.dtype.map_or_else(|id| format!("dtype {id}"), |dtype| dtype.name().to_owned());
                let alias = info.alias_of.map(str::to_owned);
                let name = info.name.to_owned();
                (
                    name,
                    dtype,
                    info.shape.to_vec(),
                    info.byte_len,
                    info.stored_len,
                    info.offset,
                    info.raw,
                    alias,
                )
            })
            .collect()
    }

    /// Views of the tensors with these names, or of all, in the order of the file, aliases last and
    /// over the same memory.
    ///
    /// `progress` counts bytes as they are read; mapped tensors were verified at opening.
    #[pyo3(signature = (names=None, progress=None))]
    fn views(
        &self,
        py: Python<'_>,
        names: Option<HashSet<String>>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Viewed>> {
        let wanted: Vec<(&str, Option<&str>)> = self
            .checkpoint()
            .tensors()
            .filter(|info| names.as_ref().is_none_or(|names| names.contains(info.name)))
            .map(|info| (info.name, info.alias_of))
            .collect();
        self.view_all(py, &wanted, progress.as_ref())
    }

    /// A view of one tensor.
    fn view(&self, py: Python<'_>, name: &str) -> PyResult<Py<View>> {
        let info = self.checkpoint().info(name).map_err(|error| crate::errors::exception(py, &error))?;
        let views = self.view_all(py, &[(info.name, info.alias_of)], None)?;
        let missing = || Error::new(ErrorKind::NotFound, "no bytes of this tensor").in_tensor(name);
        let first = views.into_iter().next().map(|(_, _, view)| view);
        first.ok_or_else(|| crate::errors::exception(py, &missing()))
    }

    /// A view of the rows `start..stop` of a tensor, of which only their chunks are read.
    fn rows(&self, py: Python<'_>, name: &str, start: usize, stop: usize) -> PyResult<View> {
        let (place, keeper) = detached(py, || loading::rows(self.checkpoint(), name, start, stop))?;
        Ok(View::new(place, keeper))
    }

    /// Fills Python's memory with boxes of tensors, of which only what lies in the boxes is read:
    /// (name, offsets, lengths, address, bytes, owner) of each.
    fn fill_boxes(&self, py: Python<'_>, boxes: &Bound<'_, PyList>) -> PyResult<()> {
        let rooms: Vec<Room> = boxes.iter().map(|room| Room::new(&room)).collect::<PyResult<_>>()?;
        detached(py, || memory::fill(self.checkpoint(), rooms))
    }

    /// Paths of the shards of a checkpoint of many ranks.
    fn shards(&self) -> Vec<PathBuf> {
        let keys = self.checkpoint().inspect().shard_keys();
        keys.into_iter().map(|key| self.place.with_file_name(key)).collect()
    }

    /// Verdict, largest difference, relative distance, and details, of each tensor that differs.
    fn diff(&self, py: Python<'_>, other: &Self) -> PyResult<BTreeMap<String, Difference>> {
        let found = detached(py, || tensorkeep_cli::differences(self.again()?, other.again()?))?;
        let row = |(name, it): (String, tensorkeep_cli::Difference)| {
            (name, (it.verdict, it.largest, it.relative, it.detail))
        };
        Ok(found.into_iter().map(row).collect())
    }

    /// Tensors, records, chunks, bytes, and all damage in words.
    fn verify(&self, py: Python<'_>) -> PyResult<(usize, usize, usize, u64, Vec<String>)> {
        let report = detached(py, || self.checkpoint().inspect().verify_all())?;
        let damage = report.damage.iter().chain(&report.unsupported).map(ToString::to_string).collect();
        Ok((report.tensors, report.records, report.chunks, report.byte_len, damage))
    }
}

impl File {
    /// The same file, opened by reading; an error if another is at its path by now.
    fn again(&self) -> Result<Checkpoint> {
        let here = self.checkpoint();
        if here.name().contains("://") {
            let error = Error::new(ErrorKind::Unsupported, "checkpoints of object stores are not compared");
            return Err(error.in_object(here.name()).help("copy it to a file"));
        }
        let again = OpenOptions::new().verify(Verify::OnTouch).open(&self.place)?;
        if is_the_same(here, &again) {
            return Ok(again);
        }
        let replaced = Error::new(ErrorKind::NotFound, "the file was replaced since it was opened");
        Err(replaced.in_object(here.name()).help("open it again"))
    }

    fn view_all(
        &self,
        py: Python<'_>,
        wanted: &[(&str, Option<&str>)],
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Viewed>> {
        let viewed = |name: &str, alias: Option<&str>, view: View| {
            Ok((name.to_owned(), alias.map(str::to_owned), Py::new(py, view)?))
        };
        if let Inner::Mapped(mapped) = &*self.inner {
            let keeper = mapped.keeper();
            let places = wanted
                .iter()
                .filter_map(|(name, alias)| Some((name, alias, mapped.place(alias.unwrap_or(name))?)));
            return places
                .map(|(name, alias, place)| viewed(name, *alias, View::new(place.clone(), keeper.clone())))
                .collect();
        }
        let mut owners: Vec<&str> = wanted.iter().map(|(name, alias)| alias.unwrap_or(name)).collect();
        owners.sort_unstable();
        owners.dedup();
        let lens = owners.iter().filter_map(|name| Some(self.checkpoint().info(name).ok()?.stored_len));
        let (total, before) = (lens.sum(), bytes_read());
        let read = || loading::read(self.checkpoint(), &owners);
        let (places, keeper) = watched(py, progress, total, || bytes_read() - before, read)?;
        wanted
            .iter()
            .map(|&(name, alias)| {
                // OK to index: each was put there.
                let at = owners.binary_search(&alias.unwrap_or(name)).unwrap_or_default();
                viewed(name, alias, View::new(places[at].clone(), keeper.clone()))
            })
            .collect()
    }
}

/// Whether two files have the same tensors, by the place and the checksum of each chunk.
fn is_the_same(here: &Checkpoint, there: &Checkpoint) -> bool {
    let names = |side: &Checkpoint| side.tensors().map(|info| info.name.to_owned()).collect::<Vec<_>>();
    let chunks = |side: &Checkpoint, name| side.inspect().chunks(name).ok();
    let (ours, theirs) = (names(here), names(there));
    // What lies in shards has no chunks of these files.
    let one_file = [here, there].iter().all(|side| side.inspect().shards() == 0);
    one_file && ours == theirs && ours.iter().all(|name| chunks(here, name) == chunks(there, name))
}

/// Saves a state to one file: (length, tensors stored, seconds).
#[pyfunction]
#[pyo3(signature = (path, tensors, records, types, *, metrics, metadata, codecs, progress=None))]
#[expect(clippy::too_many_arguments, reason = "one call of `_files.py`, named there")]
pub fn save_file<'py>(
    py: Python<'py>,
    path: PathBuf,
    tensors: &Bound<'py, pyo3::types::PyList>,
    records: &Bound<'py, pyo3::types::PyDict>,
    types: &Bound<'py, PyAny>,
    metrics: Vec<(String, f64)>,
    metadata: Vec<(String, String)>,
    codecs: Vec<(String, String)>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut state = crate::memory::State::new(tensors, records, types)?;
    let total = state.byte_len();
    let copied = progress.as_ref().map(|_| state.counting());
    let done = || copied.as_ref().map_or(0, |copied| copied.load(Ordering::Relaxed));
    let written = watched(py, progress.as_ref(), total, done, || {
        let options = crate::options::write(&codecs)?;
        state.described(None, metrics, metadata)?.snapshot()?.save_with(&path, &options)
    })?;
    let seconds = written.timings.total.as_secs_f64();
    (written.byte_len, written.tensors, seconds, written.unmatched_patterns).into_pyobject(py)
}
