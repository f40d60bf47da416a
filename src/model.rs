//! Whole models: saving one into a snapshot, and rebuilding one of which the caller does not know
//! the sizes, or even the type. load.rs loads a state dict into an existing module, and report.rs
//! says how that went.

mod cast;
mod load;
mod report;

pub use load::LoadOptions;
pub use report::{LoadReport, Mismatch};

use crate::checkpoint::{Checkpoint, Inspect};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Snapshot;
use crate::state_dict::{StateDict, Stateful};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The group of tensors of a whole model.
pub const MODEL_GROUP: &str = "model";
const MODEL_RECORD: &str = "tensorkeep.model";

/// A model that can be rebuilt from a checkpoint: its kind and configuration, then its state dict.
///
/// ```
/// use tensorkeep::{Checkpoint, Model, Result, Snapshot, StateDict, StateDictMut, Stateful};
///
/// struct Bias(Vec<f32>);
///
/// impl Stateful for Bias {
///     fn state_dict(&self) -> Result<StateDict<'_>> {
///         StateDict::new().with("bias", &self.0[..])
///     }
///
///     fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
///         let shape = [self.0.len()];
///         StateDictMut::new().with("bias", (&shape[..], &mut self.0[..]))
///     }
/// }
///
/// impl Model for Bias {
///     const KIND: &'static str = "bias";
///     type Config = usize;
///
///     fn config(&self) -> usize {
///         self.0.len()
///     }
///
///     fn from_config(len: &usize) -> Result<Self> {
///         Ok(Self(vec![0.0; *len]))
///     }
/// }
///
/// let trained = Bias(vec![1.0, 2.0, 3.0]);
/// let snapshot = Snapshot::new().model(&trained)?;
/// # let bytes = snapshot.to_bytes(&Default::default())?;
/// # let checkpoint = Checkpoint::from_bytes(&bytes)?;
/// // … saved, and opened again as `checkpoint` …
/// let net: Bias = checkpoint.build()?; // no sizes are named here
/// assert_eq!(net.0, trained.0);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// If the type is not known either, a [`Registry`] builds the model by its kind.
///
/// With the feature `derive`, `#[derive(Stateful, Model)]` and `#[model(kind = "mlp", build =
/// Mlp::zeros)]` implement it, with the configuration in a field marked `#[model(config)]`;
/// `examples/derive.rs` has an example.
pub trait Model: Stateful + Sized {
    /// The kind's stable name, stored with it: `"lenet"`.
    const KIND: &'static str;
    /// Everything that determines the names, shapes and dtypes of its tensors.
    type Config: Serialize + DeserializeOwned;

    /// The configuration it was built from.
    fn config(&self) -> Self::Config;

    /// A model of this configuration with any values.
    ///
    /// # Errors
    /// `Invalid` when no such model can exist.
    fn from_config(config: &Self::Config) -> Result<Self>;
}

/// The architecture record of a whole model.
#[derive(Serialize, Deserialize)]
struct Architecture<C> {
    kind: String,
    config: C,
}

impl<'a> Snapshot<'a> {
    /// Adds all tensors of a state dict under `group/`, or without a group when it is empty.
    ///
    /// # Errors
    /// As [`Snapshot::tensor`].
    pub fn state_dict(mut self, group: &str, state: StateDict<'a>) -> Result<Self> {
        for (name, source) in state {
            self.add_tensor(grouped(group, &name), source)?;
        }
        Ok(self)
    }

    /// Adds a whole model: its architecture as a record, its state dict under `model/`.
    ///
    /// # Errors
    /// As [`Snapshot::tensor`] and [`Snapshot::record`].
    pub fn model<M: Model>(mut self, model: &'a M) -> Result<Self> {
        let architecture = Architecture { kind: M::KIND.to_owned(), config: model.config() };
        self.insert_record(MODEL_RECORD.to_owned(), &architecture)?;
        self.state_dict(MODEL_GROUP, model.state_dict()?)
    }
}

/// `group/name`, or the name alone when there is no group.
fn grouped(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") }
}

impl Checkpoint {
    /// Rebuilds and loads a model that was saved by [`Snapshot::model`].
    ///
    /// # Errors
    /// `NotFound` when the checkpoint holds no whole model, `Mismatch` when it holds another kind,
    /// and as [`Checkpoint::load_state_dict`].
    pub fn build<M: Model>(&self) -> Result<M> {
        let kind = self.inspect().model_kind()?;
        if kind != M::KIND {
            return Err(Error::new(ErrorKind::Mismatch, "kind of model")
                .expected(format!("{:?}", M::KIND))
                .found(format!("{kind:?}"))
                .in_object(self.name()));
        }
        let architecture: Architecture<M::Config> = self.record(MODEL_RECORD)?;
        let mut model = M::from_config(&architecture.config).map_err(|error| error.in_object(self.name()))?;
        self.load_state_dict(MODEL_GROUP, &mut model)?;
        Ok(model)
    }
}

impl Inspect<'_> {
    /// The kind of the whole model saved here.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Damaged`, `Io`.
    pub fn model_kind(&self) -> Result<String> {
        if !self.0.has_record(MODEL_RECORD) {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the checkpoint holds no whole model, only tensors and records",
            )
            .help("save with Snapshot::model, or build the model yourself and use load_state_dict")
            .in_object(self.0.name()));
        }
        Ok(self.0.record::<Architecture<serde::de::IgnoredAny>>(MODEL_RECORD)?.kind)
    }
}

/// Builds models whose type the caller does not know, by the kind that the checkpoint records. `T`
/// is their common type, usually a trait object: `Registry<dyn Classifier>`.
pub struct Registry<T: ?Sized> {
    builders: BTreeMap<&'static str, Build<T>>,
}

type Build<T> = Box<dyn Fn(&Checkpoint) -> Result<Box<T>> + Send + Sync>;

impl<T: ?Sized> Default for Registry<T> {
    fn default() -> Self {
        Self { builders: BTreeMap::new() }
    }
}

impl<T: ?Sized> Registry<T> {
    /// A registry without kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a kind: `with::<LeNet>(|net| Box::new(net))`.
    pub fn with<M: Model + 'static>(mut self, wrap: impl Fn(M) -> Box<T> + Send + Sync + 'static) -> Self {
        self.builders.insert(M::KIND, Box::new(move |checkpoint| Ok(wrap(checkpoint.build::<M>()?))));
        self
    }

    /// The registered kinds, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.builders.keys().copied()
    }

    /// The model of the checkpoint, by its recorded kind.
    ///
    /// # Errors
    /// `NotFound` when the checkpoint holds no whole model, `Unsupported` when its kind is not
    /// registered, and as [`Checkpoint::build`].
    pub fn build(&self, checkpoint: &Checkpoint) -> Result<Box<T>> {
        let kind = checkpoint.inspect().model_kind()?;
        match self.builders.get(kind.as_str()) {
            Some(build) => build(checkpoint),
            None => Err(Error::new(ErrorKind::Unsupported, "kind of model")
                .expected(format!("one of {}", self.kinds().collect::<Vec<_>>().join(", ")))
                .found(format!("{kind:?}"))
                .help("register it")
                .in_object(checkpoint.name())),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}
