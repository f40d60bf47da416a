//! What one checkpoint will hold, in memory: tensors, records, metadata, metrics, progress.

mod elements;
#[cfg(feature = "ndarray")]
mod from_ndarray;
mod record;
mod source;
mod volatile;

pub(crate) use record::Record;
pub(crate) use source::Drawn;
pub use source::{IntoTensorSource, LazyTensor, TensorSource};
pub(crate) use volatile::Fill;
pub use volatile::Volatile;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{records, table};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Names of records that the library keeps for itself start like this.
pub const RESERVED_PREFIX: &str = "tensorkeep.";
pub(crate) const PROGRESS: &str = "tensorkeep.progress";
pub(crate) const METRICS: &str = "tensorkeep.metrics";
pub(crate) const METADATA: &str = "tensorkeep.metadata";

/// How far training is: *completed* optimizer updates and *completed* epochs.
///
/// ```
/// use tensorkeep::Progress;
///
/// let steps_per_epoch = 50;
/// for step in 0..100 {
///     // train, then:
///     let completed = step + 1;
///     let progress = Progress::new(completed).epoch(completed / steps_per_epoch);
/// #   let _ = progress;
/// }
/// assert_eq!(Progress::new(100).epoch(2), Progress { step: 100, epoch: 2 });
/// ```
///
/// A checkpoint is named by its step, so count steps also where saves are by epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Completed optimizer updates. The next step, counted from 0, has this number.
    pub step: u64,
    /// Completed epochs.
    pub epoch: u64,
}

impl Progress {
    /// After `step` completed updates.
    pub fn new(step: u64) -> Self {
        Self { step, epoch: 0 }
    }

    /// And `epoch` completed epochs.
    pub fn epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }
}

/// What one checkpoint will hold. Tensors are borrowed, not copied, until they are written.
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
    pub(crate) tensors: BTreeMap<String, TensorSource<'a>>,
    pub(crate) ties: BTreeMap<String, String>,
    pub(crate) records: BTreeMap<String, Record<'a>>,
    metadata: BTreeMap<String, String>,
    metrics: BTreeMap<String, f64>,
    progress: Option<Progress>,
    volatile: bool,
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
    /// Borrowed tensors over the same memory with the same dtype and shape are *tied*: stored once,
    /// under all names.
    ///
    /// # Errors
    /// `Invalid` for a name that is empty, too long or taken.
    pub fn tensor(mut self, name: impl Into<String>, source: impl IntoTensorSource<'a>) -> Result<Self> {
        self.add_tensor(name.into(), source)?;
        Ok(self)
    }

    /// As [`Snapshot::tensor`], on one that is kept when it fails.
    pub(crate) fn add_tensor(&mut self, name: String, source: impl IntoTensorSource<'a>) -> Result<()> {
        let source = source.into_source().map_err(|error| error.in_tensor(&name))?;
        table::check_name(&name)?;
        if self.ties.contains_key(&name) {
            return Err(taken(&name));
        }
        match self.tensors.entry(name) {
            Entry::Occupied(there) => return Err(taken(there.key())),
            Entry::Vacant(free) => free.insert(source),
        };
        Ok(())
    }

    /// Gives the tensor `existing` a second name, without storing it twice.
    ///
    /// # Errors
    /// `Invalid` for a bad or taken name, `NotFound` when there is no tensor `existing` yet.
    pub fn tie(mut self, name: impl Into<String>, existing: &str) -> Result<Self> {
        self.add_tie(name.into(), existing)?;
        Ok(self)
    }

    /// As [`Snapshot::tie`], on one that is kept when it fails.
    pub(crate) fn add_tie(&mut self, name: String, existing: &str) -> Result<()> {
        table::check_name(&name)?;
        if self.tensors.contains_key(&name) || self.ties.contains_key(&name) {
            return Err(taken(&name));
        }
        if !self.tensors.contains_key(existing) {
            return Err(
                Error::new(ErrorKind::NotFound, format!("no tensor {existing:?} to tie to")).in_tensor(name)
            );
        }
        self.ties.insert(name, existing.to_owned());
        Ok(())
    }

    /// Says that memory which was lent to this snapshot as slices may be written while it is saved.
    /// Each chunk is then copied once, and checksummed and written from the copy, so that the file
    /// verifies; its bytes are as without.
    ///
    /// This makes nothing sound: in Rust, memory behind a `&[u8]` must not change. It is for slices
    /// that unsafe code made of memory which something else writes (a mapping of a file, a buffer
    /// of another language), and it keeps such a write from damaging the file. Where the bytes can
    /// be copied by other means, a [`Volatile`] tensor is sound, and does not need this. What
    /// [`Store::stage`](crate::Store::stage) copied is not copied again.
    pub fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// Whether lent memory may change.
    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Adds a record: any serde value, stored as MessagePack by field names.
    ///
    /// MessagePack has one `nil`, so `Some(None)` and `Some(())` are read back as `None`. A float
    /// is read as the type that the reader names: an `f64` that is read as `f32` is rounded.
    ///
    /// # Errors
    /// `Invalid` for a bad, reserved or taken name or what serde refuses; `LimitExceeded` beyond 64
    /// MiB.
    pub fn record<T: Serialize + ?Sized>(mut self, name: impl Into<String>, value: &T) -> Result<Self> {
        let name = name.into();
        not_reserved(&name)?;
        self.insert_record(name, value)?;
        Ok(self)
    }

    /// Adds a record that is MessagePack already.
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

    /// How far training is.
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

    /// How many tensors a checkpoint of it lists, ties counted each.
    pub(crate) fn tensor_count(&self) -> usize {
        self.tensors.len() + self.ties.len()
    }

    /// All records as MessagePack, the library's own included, by name.
    pub(crate) fn encoded_records(&self) -> Result<BTreeMap<&str, Cow<'_, Record<'a>>>> {
        let mut all: BTreeMap<&str, Cow<'_, Record<'a>>> =
            self.records.iter().map(|(name, record)| (name.as_str(), Cow::Borrowed(record))).collect();
        let mut add = |name, bytes| drop(all.insert(name, Cow::Owned(Record::Here(bytes))));
        if let Some(progress) = &self.progress {
            add(PROGRESS, records::encode(progress)?);
        }
        if !self.metrics.is_empty() {
            add(METRICS, records::encode(&self.metrics)?);
        }
        if !self.metadata.is_empty() {
            add(METADATA, records::encode(&self.metadata)?);
        }
        Ok(all)
    }

    /// For each tensor, in order, the number of the first one with the same memory, dtype and
    /// shape: its own number, unless it is tied to one before.
    pub(crate) fn firsts(&self) -> Vec<usize> {
        let identities: Vec<_> = self.tensors.values().map(TensorSource::identity).collect();
        let numbered = identities.iter().enumerate();
        let mut by_address: Vec<(usize, usize)> =
            numbered.filter_map(|(i, identity)| Some((identity.as_ref()?.1, i))).collect();
        by_address.sort_unstable();
        let mut firsts: Vec<usize> = (0..identities.len()).collect();
        for same_address in by_address.chunk_by(|(a, _), (b, _)| a == b).filter(|same| same.len() > 1) {
            for &(_, i) in same_address {
                let first = same_address.iter().find(|&&(_, other)| identities[other] == identities[i]);
                firsts[i] = first.map_or(i, |&(_, first)| first);
            }
        }
        firsts
    }

    /// Every tensor by its first name, ties left out.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = (&str, &TensorSource<'a>)> {
        let numbered = self.tensors.iter().zip(self.firsts()).enumerate();
        numbered.filter(|(i, (_, first))| i == first).map(|(_, ((name, source), _))| (name.as_str(), source))
    }

    /// The same snapshot with other tensors, which nobody changes, in the place of the distinct
    /// ones: what was tied stays tied.
    ///
    /// # Errors
    /// What reading a record says that is another checkpoint's.
    pub(crate) fn with_tensors<'b>(
        &self,
        tensors: BTreeMap<String, TensorSource<'b>>,
    ) -> Result<Snapshot<'b>> {
        let names: Vec<&String> = self.tensors.keys().collect();
        let mut ties = self.ties.clone();
        for (i, first) in self.firsts().into_iter().enumerate().filter(|(i, first)| i != first) {
            ties.insert(names[i].clone(), names[first].clone());
        }
        // A tie to a name that has become a tie itself follows it.
        let resolved = ties
            .iter()
            .map(|(name, existing)| (name.clone(), ties.get(existing).unwrap_or(existing).clone()));
        let drawn = |(name, record): (&String, &Record<'a>)| Ok((name.clone(), record.drawn()?));
        Ok(Snapshot {
            tensors,
            ties: resolved.collect(),
            records: self.records.iter().map(drawn).collect::<Result<_>>()?,
            metadata: self.metadata.clone(),
            metrics: self.metrics.clone(),
            progress: self.progress,
            volatile: false,
        })
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
        assert!(snapshot.clone().metric("loss", f64::NAN).unwrap_err().to_string().contains("NaN"));
        assert_eq!(snapshot.tie("b", "nothing").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
