//! A module's tensors by name, to read ([`StateDict`]) and to overwrite ([`StateDictMut`]).

mod field;
mod target;

pub use field::StateField;
pub use target::{IntoTensorMut, TensorMut};

use crate::error::Result;
use crate::snapshot::{IntoTensorSource, TensorSource};

/// A module with tensors to save and load: a net, an optimizer.
///
/// ```
/// use tensorkeep::{Checkpoint, Result, Snapshot, StateDict, StateDictMut, Stateful};
///
/// struct Linear {
///     weight: Vec<f32>, // 2 × 3
///     bias: Vec<f32>,
/// }
///
/// impl Stateful for Linear {
///     fn state_dict(&self) -> Result<StateDict<'_>> {
///         StateDict::new()
///             .with("weight", (&[2, 3][..], &self.weight[..]))?
///             .with("bias", &self.bias[..])
///     }
///
///     fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
///         StateDictMut::new()
///             .with("weight", (&[2, 3][..], &mut self.weight[..]))?
///             .with("bias", (&[2][..], &mut self.bias[..]))
///     }
/// }
///
/// let trained = Linear { weight: vec![0.5; 6], bias: vec![1.0; 2] };
/// let snapshot = Snapshot::new().state_dict("net", trained.state_dict()?)?;
/// # let bytes = snapshot.to_bytes(&Default::default())?;
/// # let checkpoint = Checkpoint::from_bytes(&bytes)?;
/// // … saved, and opened again as `checkpoint` …
/// let mut net = Linear { weight: vec![0.0; 6], bias: vec![0.0; 2] };
/// let report = checkpoint.load_state_dict("net", &mut net)?; // all or nothing
/// assert_eq!(net.weight, trained.weight);
/// assert_eq!(report.loaded.len(), 2);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
///
/// With the feature `derive`, `#[derive(Stateful)]` implements it from one list of names, the
/// fields':
///
/// ```
/// # #[cfg(all(feature = "derive", feature = "ndarray"))]
/// # fn main() -> tensorkeep::Result<()> {
/// use ndarray::{Array1, Array2};
/// use tensorkeep::Stateful;
///
/// #[derive(Stateful)]
/// struct Linear {
///     weight: Array2<f32>,
///     bias: Option<Array1<f32>>,
/// }
///
/// #[derive(Stateful)]
/// struct Net {
///     #[stateful(rename = "emb")]
///     embedding: Vec<[f32; 16]>, // one tensor of two axes
///     layers: Vec<Linear>,
///     #[stateful(skip)]
///     dropout: f32,
/// }
///
/// let linear = || Linear { weight: Array2::zeros((4, 4)), bias: Some(Array1::zeros(4)) };
/// let net = Net { embedding: vec![[0.0; 16]; 100], layers: vec![linear(), linear()], dropout: 0.1 };
/// let names = ["emb", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"];
/// assert_eq!(net.state_dict()?.names().collect::<Vec<_>>(), names);
/// # let _ = net.dropout;
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "derive", feature = "ndarray")))]
/// # fn main() {}
/// ```
///
/// A hand-written implementation repeats the names; [`StateDict::with_field`] adds fields as a
/// derive does.
#[diagnostic::on_unimplemented(
    note = "`#[derive(Stateful)]` (feature `derive`) implements it from the fields"
)]
pub trait Stateful {
    /// Its tensors by name, borrowed.
    ///
    /// # Errors
    /// `Invalid` when a tensor cannot be described.
    fn state_dict(&self) -> Result<StateDict<'_>>;

    /// The same names and tensors, mutable.
    ///
    /// # Errors
    /// As [`Stateful::state_dict`].
    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>>;
}

/// Names and borrowed tensors, in the module's own order. Modules nest by [`StateDict::with_all`].
///
/// ```
/// use tensorkeep::StateDict;
///
/// let (weight, bias) = (vec![0.5_f32; 6], vec![0.0_f32; 2]);
/// let layer = StateDict::new().with("weight", (&[2, 3][..], &weight[..]))?.with("bias", &bias)?;
/// let net = StateDict::new().with_all("fc1", layer);
/// assert_eq!(net.names().collect::<Vec<_>>(), ["fc1.weight", "fc1.bias"]);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Default)]
pub struct StateDict<'a>(Vec<(String, TensorSource<'a>)>);

impl<'a> StateDict<'a> {
    /// An empty state dict.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// `Invalid` when shape × dtype overflows or is not the number of bytes.
    pub fn with(mut self, name: impl Into<String>, source: impl IntoTensorSource<'a>) -> Result<Self> {
        let name = name.into();
        let source = source.into_source().map_err(|error| error.in_tensor(&name))?;
        self.0.push((name, source));
        Ok(self)
    }

    /// Adds a field of a module: a tensor, a module, or a list, map or option of either, named as
    /// [`StateField`] describes. If `name` is empty, the field's own names are added without a
    /// prefix.
    ///
    /// # Errors
    /// As [`StateDict::with`].
    pub fn with_field<T: StateField + ?Sized>(self, name: &str, field: &'a T) -> Result<Self> {
        field.add_to(name, self)
    }

    /// Adds all tensors of another state dict, each name prefixed by `prefix` and a dot, unless
    /// `prefix` is empty.
    pub fn with_all(mut self, prefix: &str, other: StateDict<'a>) -> Self {
        if self.0.is_empty() && prefix.is_empty() {
            return other;
        }
        self.0.extend(other.0.into_iter().map(|(name, source)| (field::joined(prefix, &name), source)));
        self
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorSource<'a>)> {
        self.0.iter().map(|(name, source)| (name.as_str(), source))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for StateDict<'a> {
    type Item = (String, TensorSource<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Names and tensors to overwrite.
#[derive(Default)]
pub struct StateDictMut<'a>(Vec<(String, TensorMut<'a>)>);

impl<'a> StateDictMut<'a> {
    /// An empty state dict.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor to overwrite: a mutable ndarray (in any memory order) or
    /// `(&shape, &mut elements)`.
    ///
    /// # Errors
    /// `Invalid` when the shape does not hold that many elements.
    pub fn with(mut self, name: impl Into<String>, target: impl IntoTensorMut<'a>) -> Result<Self> {
        let name = name.into();
        let target = target.into_tensor_mut().map_err(|error| error.in_tensor(&name))?;
        self.0.push((name, target));
        Ok(self)
    }

    /// Like [`StateDict::with_field`], mutable.
    ///
    /// # Errors
    /// As [`StateDictMut::with`].
    pub fn with_field<T: StateField + ?Sized>(self, name: &str, field: &'a mut T) -> Result<Self> {
        field.add_to_mut(name, self)
    }

    /// Adds all tensors of another state dict, each name prefixed by `prefix` and a dot, unless
    /// `prefix` is empty.
    pub fn with_all(mut self, prefix: &str, other: StateDictMut<'a>) -> Self {
        if self.0.is_empty() && prefix.is_empty() {
            return other;
        }
        self.0.extend(other.0.into_iter().map(|(name, target)| (field::joined(prefix, &name), target)));
        self
    }
}

impl<'a> IntoIterator for StateDictMut<'a> {
    type Item = (String, TensorMut<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
