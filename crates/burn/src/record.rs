//! burn's records of optimizers, schedulers and modules as tensors by name and one small record.
//!
//! burn erases the type of an optimizer, and its record does not say of which kind it is: Adam's
//! and AdamW's look alike. Callers therefore pass the configuration that it was built from, and the
//! name of that type is recorded.
//!
//! The one door that such a record has is its bytes in burn's own format, so they pass through it
//! in memory. Parameters have random ids in burn, and an optimizer's state is named after them;
//! here it is named after the parameters' paths (`fc1.weight.moment_1`), and the ids are kept
//! beside it.

use crate::pack::{PackTensor, Staged, axes, failed, source};
use burn_core::config::Config;
use burn_core::store::{ModuleRecord, RecordError};
use burn_core::tensor::Bytes;
use burn_optim::lr_scheduler::LrSchedulerRecord;
use burn_optim::{ModuleOptimizer, OptimizerRecord};
use burn_pack::{Reader, Scalar, Writer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tensorkeep::{Checkpoint, Error, ErrorKind, Result, Snapshot};

/// What a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Module,
    Optimizer,
    Scheduler,
}

/// What of a record is no tensor. It is the checkpoint's record of the group's name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rest {
    burn: Kind,
    /// The kind of optimizer, by [`kind_of`]. Not known of a record that was saved as such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,
    pub tensors: Vec<Entry>,
    scalars: Vec<ScalarEntry>,
    metadata: BTreeMap<String, String>,
}

/// A tensor of the group.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    /// In the group.
    pub name: String,
    /// In burn's record, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// The parameter that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct ScalarEntry {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original: Option<String>,
    value: Scalar,
}

impl Rest {
    pub fn of(kind: Kind) -> Self {
        let (tensors, scalars, metadata) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { burn: kind, optimizer: None, tensors, scalars, metadata }
    }

    /// Names in burn's record.
    fn originals(&self) -> impl Iterator<Item = &str> {
        let tensors = self.tensors.iter().map(|entry| entry.original.as_ref().unwrap_or(&entry.name));
        let scalars = self.scalars.iter().map(|entry| entry.original.as_ref().unwrap_or(&entry.name));
        tensors.chain(scalars).map(String::as_str)
    }

    /// What an optimizer keeps for a parameter: `moment.moment_1`, `__rank`.
    pub fn fields(&self) -> BTreeSet<&str> {
        self.originals().map(|name| name.split_once('.').map_or(name, |(_, field)| field)).collect()
    }

    /// The record of a group.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` when the group holds something else.
    pub fn read(checkpoint: &Checkpoint, group: &str, kind: Kind) -> Result<Self> {
        let rest: Self = checkpoint.record(group)?;
        if rest.burn == kind {
            return Ok(rest);
        }
        Err(Error::new(ErrorKind::Mismatch, "what the group holds of burn's")
            .expected(format!("{kind:?}").to_lowercase())
            .found(format!("{:?}", rest.burn).to_lowercase())
            .in_record(group)
            .in_object(checkpoint.name()))
    }
}

/// A record of burn's: of a module, an optimizer, or a learning-rate scheduler.
pub trait BurnRecord: sealed::Sealed {}

impl BurnRecord for ModuleRecord {}
impl BurnRecord for OptimizerRecord {}
impl BurnRecord for LrSchedulerRecord {}

mod sealed {
    use super::{Bytes, Kind, RecordError};

    pub trait Sealed: Sized {
        const KIND: Kind;
        fn to_pack(self) -> Result<Bytes, RecordError>;
        fn of_pack(bytes: Bytes) -> Result<Self, RecordError>;
    }
}

macro_rules! records {
    ($($type:ident $kind:ident),*) => {
        $(impl sealed::Sealed for $type {
            const KIND: Kind = Kind::$kind;

            fn to_pack(self) -> Result<Bytes, RecordError> {
                self.into_bytes()
            }

            fn of_pack(bytes: Bytes) -> Result<Self, RecordError> {
                Self::from_bytes(bytes)
            }
        })*
    };
}

records! { ModuleRecord Module, OptimizerRecord Optimizer, LrSchedulerRecord Scheduler }

/// Adds a record of burn's: `model.into_record()`, `optimizer.to_record()`,
/// `scheduler.to_record()`. Its tensors become `group/name`, everything else the record `group`.
///
/// # Errors
/// burn's; `Unsupported` for a dtype that checkpoints do not have; as [`Snapshot::tensor`].
pub fn save_record<'a, R: BurnRecord>(
    snapshot: Snapshot<'a>,
    group: &str,
    record: R,
) -> Result<Snapshot<'a>> {
    Taken::of(record)?.add_to(snapshot, group)
}

/// A record, taken apart.
pub(crate) struct Taken {
    pub rest: Rest,
    /// Under the names that the rest lists.
    tensors: Vec<PackTensor>,
}

impl Taken {
    pub fn of<R: BurnRecord>(record: R) -> Result<Self> {
        let bytes = record.to_pack().map_err(|error| failed("a record of burn", error))?;
        let reader = Reader::from_bytes(bytes).map_err(|error| failed("a record of burn", error))?;
        let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
        let mut tensors = reader.into_tensors().map_err(|error| failed("a record of burn", error))?;
        let originals = tensors.iter().map(|tensor| tensor.name.as_str());
        let paths = if R::KIND == Kind::Optimizer { metadata.clone() } else { BTreeMap::new() };
        let names = Names::of(&paths, originals.chain(scalars.keys().map(String::as_str)));
        let mut rest = Rest { metadata, ..Rest::of(R::KIND) };
        for (key, value) in scalars {
            let (name, original) = names.of_original(key);
            rest.scalars.push(ScalarEntry { name, original, value });
        }
        rest.scalars.sort_by(|a, b| a.name.cmp(&b.name));
        for tensor in &mut tensors {
            let (name, original) = names.of_original(std::mem::take(&mut tensor.name));
            rest.tensors.push(Entry { name: name.clone(), original, id: tensor.param_id });
            tensor.name = name;
        }
        rest.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { rest, tensors })
    }

    /// A module's parameters.
    pub fn of_module(tensors: Vec<PackTensor>) -> Self {
        let entry =
            |tensor: &PackTensor| Entry { name: tensor.name.clone(), original: None, id: tensor.param_id };
        let rest = Rest { tensors: tensors.iter().map(entry).collect(), ..Rest::of(Kind::Module) };
        Self { rest, tensors }
    }

    pub fn add_to<'a>(self, mut snapshot: Snapshot<'a>, group: &str) -> Result<Snapshot<'a>> {
        for tensor in self.tensors {
            let name = format!("{group}/{}", tensor.name);
            let source = source(tensor).map_err(|error| error.in_tensor(&name))?;
            snapshot = snapshot.tensor(name, source)?;
        }
        snapshot.record(group, &self.rest)
    }
}

/// Paths of parameters for their ids, at the beginning of names.
struct Names<'m> {
    paths: &'m BTreeMap<String, String>,
    /// Whether no two names become one.
    are_distinct: bool,
}

impl<'m> Names<'m> {
    fn of<'n>(paths: &'m BTreeMap<String, String>, originals: impl Iterator<Item = &'n str>) -> Self {
        let mut names = Self { paths, are_distinct: true };
        let mut seen = BTreeSet::new();
        for original in originals {
            names.are_distinct &= seen.insert(names.of_original(original.to_owned()).0);
        }
        names
    }

    /// The name, and the original if it is another one.
    fn of_original(&self, original: String) -> (String, Option<String>) {
        let path = original.split_once('.').and_then(|(id, field)| Some((self.paths.get(id)?, field)));
        match path {
            Some((path, field)) if self.are_distinct => (format!("{path}.{field}"), Some(original)),
            _ => (original, None),
        }
    }
}

/// A record of burn's that was saved by [`save_record`], or a module's by
/// [`save_module`](crate::save_module).
///
/// The file decides how many tensors a record has: together they may take as much memory as the
/// checkpoint's budget allows ([`OpenOptions::budget`](tensorkeep::OpenOptions::budget)).
///
/// # Errors
/// `NotFound`; `Mismatch` when the group holds another kind of record; `Damaged`, `LimitExceeded`,
/// `Io`.
pub fn load_record<R: BurnRecord>(checkpoint: &Checkpoint, group: &str) -> Result<R> {
    let rest = Rest::read(checkpoint, group, R::KIND)?;
    let mut staged = Vec::new();
    let (mut bytes, mut names) = (0_u64, BTreeSet::new());
    for Entry { name, original, id } in &rest.tensors {
        if R::KIND == Kind::Optimizer && id.is_none() {
            return Err(Error::new(ErrorKind::Mismatch, "a tensor of an optimizer belongs to no parameter")
                .in_tensor(format!("{group}/{name}"))
                .in_object(checkpoint.name()));
        }
        let stored = format!("{group}/{name}");
        let info = checkpoint.info(&stored)?;
        bytes = bytes.saturating_add(info.byte_len);
        let within = checkpoint.inspect().check_budget(bytes);
        within.map_err(|error| error.in_record(group).in_object(checkpoint.name()))?;
        if !names.insert(name) {
            return Err(Error::new(ErrorKind::Damaged, "a record of burn's lists a tensor twice")
                .in_tensor(stored)
                .in_object(checkpoint.name()));
        }
        let dtype = info.dtype.map_err(|id| {
            Error::new(ErrorKind::NewerVersion, "dtype").found(format!("id {id}")).in_tensor(&stored)
        })?;
        let shape = axes(&info.shape);
        staged.push((
            stored,
            Staged::new(original.clone().unwrap_or_else(|| name.clone()), dtype, shape, *id)?,
        ));
    }
    checkpoint
        .load_into(staged.iter_mut().map(|(name, staged)| (name.as_str(), staged.memory.bytes_mut())))?;
    let tensors: Vec<PackTensor> = staged.into_iter().map(|(_, staged)| staged.resident()).collect();
    let mut writer = Writer::new(tensors);
    for ScalarEntry { name, original, value } in &rest.scalars {
        writer = writer.with_scalar(original.as_ref().unwrap_or(name), *value);
    }
    for (key, value) in &rest.metadata {
        writer = writer.with_metadata(key, value);
    }
    let bytes = writer.into_bytes().map_err(|error| failed("a record of burn", error).in_record(group))?;
    R::of_pack(bytes).map_err(|error| failed("a record of burn", error).in_record(group))
}

/// Adds an optimizer's state: `group/path.of.parameter.field`. `config` is what the optimizer was
/// built from, such as `AdamWConfig`: burn's optimizers do not say of which kind they are, so the
/// name of its type is recorded. For several optimizers, pass a type of your own that holds their
/// configurations.
///
/// # Errors
/// As [`save_record`].
pub fn save_optimizer<'a, C: Config>(
    snapshot: Snapshot<'a>,
    group: &str,
    optimizer: &ModuleOptimizer,
    config: &C,
) -> Result<Snapshot<'a>> {
    let mut taken = Taken::of(optimizer.to_record())?;
    taken.rest.optimizer = Some(kind_of(config));
    taken.add_to(snapshot, group)
}

/// Overwrites an optimizer's state by the one that was saved, or by nothing. `config` is what this
/// optimizer was built from.
///
/// burn silently drops state of another kind of optimizer and starts it anew; here that is an
/// error, by the kinds' names, also where both keep the same state, as Adam and AdamW do. Other
/// values in the configuration, such as another weight decay, are no other kind. State that
/// [`save_record`] saved has no kind: what it keeps for a parameter is compared then.
///
/// # Errors
/// As [`load_record`]; `Mismatch` when the optimizer is of another kind. It is unchanged then.
pub fn load_optimizer<C: Config>(
    checkpoint: &Checkpoint,
    group: &str,
    optimizer: &mut ModuleOptimizer,
    config: &C,
) -> Result<()> {
    let placed = |error: Error| error.in_record(group).in_object(checkpoint.name());
    let saved = Rest::read(checkpoint, group, Kind::Optimizer)?;
    check_kind(&saved, &kind_of(config)).map_err(placed)?;
    let record: OptimizerRecord = load_record(checkpoint, group)?;
    let fresh = optimizer.clone();
    // burn asserts what a record holds; a checkpoint is a file.
    let loaded = catch_unwind(AssertUnwindSafe(|| fresh.load_record(record)));
    let loaded = loaded
        .map_err(|_| placed(Error::new(ErrorKind::Mismatch, "burn refused the state of an optimizer")))?;
    let kept = Taken::of(loaded.to_record())?.rest;
    check_same_fields("kind of optimizer", &saved, &kept).map_err(placed)?;
    // burn drops what it cannot rebuild, one parameter at a time, and starts that one anew.
    let kept: BTreeSet<&str> = kept.originals().collect();
    if let Some(lost) = saved.originals().find(|name| !kept.contains(name)) {
        let error = Error::new(ErrorKind::Mismatch, format!("burn does not take {lost:?} of an optimizer"));
        return Err(placed(error.help("resume with the optimizer that the run was started with")));
    }
    *optimizer = loaded;
    Ok(())
}

/// The kind of an optimizer: the name of its configuration's type, without the modules that it is
/// in. The compiler promises no form of it, so all other text is kept unchanged.
pub(crate) fn kind_of<C: Config>(_: &C) -> String {
    let mut kind = String::new();
    for part in std::any::type_name::<C>().split_inclusive(['<', '>', ',', ' ', '(', ')']) {
        kind.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    kind
}

/// An error where an optimizer of another kind was saved.
pub(crate) fn check_kind(saved: &Rest, kind: &str) -> Result<()> {
    match &saved.optimizer {
        Some(was) if was != kind => Err(Error::new(ErrorKind::Mismatch, "kind of optimizer")
            .expected(was)
            .found(kind)
            .help("resume with the optimizer that the run was started with")),
        _ => Ok(()),
    }
}

/// An error, called `what`, where an optimizer or a scheduler no longer keeps something that was
/// saved.
pub(crate) fn check_same_fields(what: &'static str, saved: &Rest, kept: &Rest) -> Result<()> {
    let (saved, kept) = (saved.fields(), kept.fields());
    if saved.is_subset(&kept) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Mismatch, what)
        .expected(format!("one that keeps {}", Vec::from_iter(saved).join(", ")))
        .found(format!("one that keeps {}", Vec::from_iter(kept).join(", ")))
        .help("resume with the one that the run was started with"))
}
