//! The contents of one checkpoint, in memory: tensors, records, metadata, metrics, progress.

mod distinct;
mod edit;
mod elements;
#[cfg(feature = "ndarray")]
mod from_ndarray;
mod parts;
mod progress;
mod record;
mod source;
mod volatile;

pub(crate) use distinct::NamedSource;
pub use parts::{AnotherWorld, Replica};
pub(crate) use parts::{Holding, RANK_RECORD, RANKS, RanksRecord, check_shape};
pub use progress::Progress;
pub(crate) use record::Record;
pub(crate) use source::Drawn;
pub use source::{IntoTensorSource, LazyTensor, TensorSource};
pub(crate) use volatile::Fill;
pub use volatile::Volatile;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{records, table};
use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Names of the library's own records start with this.
pub const RESERVED_PREFIX: &str = "tensorkeep.";
pub(crate) const PROGRESS: &str = "tensorkeep.progress";
pub(crate) const METRICS: &str = "tensorkeep.metrics";
pub(crate) const METADATA: &str = "tensorkeep.metadata";
pub(crate) const PYTHON: &str = "tensorkeep.python";

/// The contents of one checkpoint. Tensors are borrowed, not copied, until they are written.
///
/// ```
/// use tensorkeep::{Progress, Snapshot};
///
/// let (weights, momentum) = (vec![0.5_f32; 6], vec![0.0_f32; 6]);
/// let snapshot = Snapshot::new()
///     .tensor("weights", ([2, 3], &weights))?
///     .tensor("momentum", &momentum)?
///     .record("optimizer", &("sgd", 0.9))?
///     .metric("loss", 0.25)?
///     .progress(Progress::new(100));
/// # drop(snapshot);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// Each method takes the snapshot and returns it. In a loop:
/// `snapshot = snapshot.tensor(name, tensor)?`.
#[derive(Clone, Default)]
#[must_use = "methods return the snapshot with what was added"]
pub struct Snapshot<'a> {
    /// In the order in which they were added; a file has them in the order of [`Snapshot::sorted`].
    tensors: IndexMap<String, TensorSource<'a>>,
    pub(crate) aliases: BTreeMap<String, String>,
    pub(crate) records: BTreeMap<String, Record<'a>>,
    metadata: BTreeMap<String, String>,
    metrics: BTreeMap<String, f64>,
    progress: Option<Progress>,
    volatile: bool,
    /// What tensors are of tensors of a job of many ranks, where they are not all of them.
    parts: BTreeMap<String, parts::Holding>,
    rank_records: BTreeMap<String, parts::RankRecord>,
}

impl<'a> Snapshot<'a> {
    /// An empty snapshot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor: a slice, an array or a vector of numbers (one axis), `([2, 3], &elements)`, a
    /// scalar, an ndarray (borrowed, in any memory order, or moved in), a
    /// [`Tensor`](crate::Tensor), a [`LazyTensor`], or a [`Volatile`] one, whose memory may be
    /// written while it is saved.
    ///
    /// Borrowed tensors over the same memory with the same dtype and shape are stored once: all but
    /// the first are *aliases*.
    ///
    /// # Errors
    /// `Invalid` for a name that is empty, too long or taken.
    pub fn tensor(mut self, name: impl Into<String>, source: impl IntoTensorSource<'a>) -> Result<Self> {
        self.add_tensor(name.into(), source)?;
        Ok(self)
    }

    /// Like [`Snapshot::tensor`], without consuming the snapshot.
    pub(crate) fn add_tensor(&mut self, name: String, source: impl IntoTensorSource<'a>) -> Result<()> {
        let source = source.into_source().map_err(|error| error.in_tensor(&name))?;
        table::check_name(&name)?;
        if self.aliases.contains_key(&name) {
            return Err(taken(&name));
        }
        match self.tensors.entry(name) {
            Slot::Occupied(there) => return Err(taken(there.key())),
            Slot::Vacant(free) => free.insert(source),
        };
        Ok(())
    }

    /// Adds an alias of the tensor `existing`, which is stored once.
    ///
    /// # Errors
    /// `Invalid` for a bad or taken name, `NotFound` when no tensor `existing` was added before.
    pub fn alias(mut self, name: impl Into<String>, existing: &str) -> Result<Self> {
        self.add_alias(name.into(), existing)?;
        Ok(self)
    }

    /// Like [`Snapshot::alias`], without consuming the snapshot.
    pub(crate) fn add_alias(&mut self, name: String, existing: &str) -> Result<()> {
        table::check_name(&name)?;
        if self.tensors.contains_key(&name) || self.aliases.contains_key(&name) {
            return Err(taken(&name));
        }
        if !self.tensors.contains_key(existing) {
            return Err(Error::new(ErrorKind::NotFound, format!("no tensor {existing:?} to be an alias of"))
                .in_tensor(name));
        }
        self.aliases.insert(name, existing.to_owned());
        Ok(())
    }

    /// Declares that memory lent to this snapshot as slices may be written while it is saved. Each
    /// chunk is then copied once, and checksummed and written from the copy, so that the file
    /// always verifies. The format of the file is unaffected.
    ///
    /// This does not make such writes sound: in Rust, memory behind a `&[u8]` must not change. It
    /// is for slices that unsafe code made from memory that others write (a mapping of a file, a
    /// buffer of another language), and keeps such a write from damaging the file. If the bytes can
    /// be copied by other means, a [`Volatile`] tensor is sound, and does not need this. Tensors
    /// that [`Store::stage`](crate::Store::stage) copied are not copied again.
    pub fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// Whether borrowed memory may change.
    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Adds a record: any serde value, stored as MessagePack by field names.
    ///
    /// MessagePack has one `nil`, so `Some(None)` and `Some(())` are read back as `None`. A float
    /// is read as the type that the reader asks for: an `f64` that is read as `f32` is rounded.
    ///
    /// # Errors
    /// `Invalid` for a bad, reserved or taken name, or a value that serde refuses; `LimitExceeded`
    /// beyond 64 MiB.
    pub fn record<T: Serialize + ?Sized>(mut self, name: impl Into<String>, value: &T) -> Result<Self> {
        let name = name.into();
        not_reserved(&name)?;
        self.insert_record(name, value)?;
        Ok(self)
    }

    /// Adds the library's own record `tensorkeep.python`: of which Python types the values in other
    /// records were. The Python package writes and reads it; nothing else needs it.
    ///
    /// # Errors
    /// As [`Snapshot::record`].
    pub fn python_types<T: Serialize + ?Sized>(mut self, types: &T) -> Result<Self> {
        self.insert_record(PYTHON.to_owned(), types)?;
        Ok(self)
    }

    /// Adds a record that is already MessagePack.
    pub(crate) fn add_encoded_record(&mut self, name: String, bytes: Vec<u8>) -> Result<()> {
        not_reserved(&name)?;
        self.insert_encoded(name, records::encoded(bytes))
    }

    /// Adds a record under any name, the library's own included.
    pub(crate) fn insert_record<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<()> {
        self.insert_encoded(name, records::encode(value))
    }

    fn insert_encoded(&mut self, name: String, encoded: Result<Vec<u8>>) -> Result<()> {
        table::check_name(&name)?;
        let bytes = encoded.map_err(|error| error.in_record(&name))?;
        match self.records.entry(name) {
            Entry::Occupied(taken) => {
                Err(Error::invalid("a record of this name is there already").in_record(taken.key()))
            }
            Entry::Vacant(free) => {
                free.insert(Record::Here(bytes));
                Ok(())
            }
        }
    }

    /// Sets a line of metadata: text for people, such as a run's name or a commit.
    ///
    /// # Errors
    /// `Invalid` for a bad key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        let key = key.into();
        table::check_name(&key)?;
        self.metadata.insert(key, value.into());
        Ok(self)
    }

    /// Sets a metric, by which best checkpoints are kept.
    ///
    /// # Errors
    /// `Invalid` for a bad name or a value that is not finite.
    pub fn metric(mut self, name: impl Into<String>, value: f64) -> Result<Self> {
        self.add_metric(name.into(), value)?;
        Ok(self)
    }

    pub(crate) fn add_metric(&mut self, name: String, value: f64) -> Result<()> {
        table::check_name(&name)?;
        if !value.is_finite() {
            return Err(Error::invalid(format!("metric {name:?} cannot be ranked"))
                .expected("a finite number")
                .found(value)
                .help("leave it out of this checkpoint, or keep it in a record"));
        }
        self.metrics.insert(name, value);
        Ok(())
    }

    /// Sets the progress of training.
    pub fn progress(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }

    #[cfg(feature = "convert")]
    pub(crate) fn set_progress(&mut self, progress: Progress) {
        self.progress = Some(progress);
    }

    pub(crate) fn its_progress(&self) -> Option<Progress> {
        self.progress
    }

    pub(crate) fn its_metrics(&self) -> &BTreeMap<String, f64> {
        &self.metrics
    }

    /// Number of tensors that its checkpoint will list, aliases included.
    pub(crate) fn tensor_count(&self) -> usize {
        self.tensors.len() + self.aliases.len()
    }

    /// Bytes of all tensors, without aliases.
    pub(crate) fn byte_len(&self) -> u64 {
        self.tensors.values().map(|source| source.byte_len() as u64).sum()
    }

    /// All records as MessagePack, the library's own included, by name.
    pub(crate) fn encoded_records(&self) -> Result<BTreeMap<&str, Cow<'_, Record<'a>>>> {
        let mut all: BTreeMap<&str, Cow<'_, Record<'a>>> =
            self.records.iter().map(|(name, record)| (name.as_str(), Cow::Borrowed(record))).collect();
        if let Some(progress) = &self.progress {
            all.insert(PROGRESS, Cow::Owned(Record::encoded(progress)?));
        }
        if !self.metrics.is_empty() {
            all.insert(METRICS, Cow::Owned(Record::encoded(&self.metrics)?));
        }
        if !self.metadata.is_empty() {
            all.insert(METADATA, Cow::Owned(Record::encoded(&self.metadata)?));
        }
        let own = self.records_of_one_rank()?;
        all.extend(own.into_iter().map(|(key, record)| (key, Cow::Owned(record))));
        Ok(all)
    }
}

fn not_reserved(name: &str) -> Result<()> {
    if !name.starts_with(RESERVED_PREFIX) {
        return Ok(());
    }
    Err(Error::invalid("the name is reserved for the library")
        .in_record(name)
        .help(format!("choose one that does not start with {RESERVED_PREFIX:?}")))
}

fn taken(name: &str) -> Error {
    Error::invalid("a tensor of this name is there already").in_tensor(name)
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("tensors", &self.tensors.len())
            .field("records", &self.records.len())
            .field("progress", &self.progress)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_and_metrics_are_refused_with_what_to_do() {
        let elements = [1.0_f32];
        let snapshot = Snapshot::new().tensor("a", &elements[..]).unwrap().record("r", &1).unwrap();
        for name in ["", "a", "tab\t", &"x".repeat(5000)] {
            let error = snapshot.clone().tensor(name, &elements[..]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}");
        }
        assert_eq!(snapshot.clone().record("r", &2).unwrap_err().kind(), ErrorKind::Invalid);
        let refused = snapshot.clone().record("tensorkeep.progress", &1).unwrap_err();
        assert!(refused.to_string().contains("reserved"));
        let typed = snapshot.clone().python_types(&1).unwrap();
        assert!(typed.records.contains_key("tensorkeep.python"));
        assert_eq!(typed.python_types(&2).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(snapshot.clone().metric("loss", f64::NAN).unwrap_err().to_string().contains("NaN"));
        assert_eq!(snapshot.alias("b", "nothing").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
