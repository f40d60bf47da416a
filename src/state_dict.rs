//! A module's tensors by name, to read ([`StateDict`]) and to overwrite ([`StateDictMut`]). Knows
//! nothing of files.

mod field;

pub use field::StateField;

use crate::dtype::{Dtype, Element};
use crate::error::{Error, Result};
use crate::snapshot::{IntoTensorSource, TensorSource};
use crate::tensor::{Tensor, byte_len};
use tensorkeep_memcpy::copy;

/// Something with tensors that can be saved and loaded: a net, an optimizer.
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
/// By hand, the names stand twice, and [`StateDict::with_field`] adds whatever a derive would.
#[diagnostic::on_unimplemented(
    note = "`#[derive(Stateful)]` (feature `derive`) implements it from the fields"
)]
pub trait Stateful {
    /// Its tensors by name, borrowed.
    ///
    /// # Errors
    /// `Invalid` when a tensor cannot be described.
    fn state_dict(&self) -> Result<StateDict<'_>>;

    /// The same names, to be overwritten.
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
    /// No tensors yet.
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
    /// [`StateField`] says. Without a name, the names of its own stand among the others.
    ///
    /// # Errors
    /// As [`StateDict::with`].
    pub fn with_field<T: StateField + ?Sized>(self, name: &str, field: &'a T) -> Result<Self> {
        field.add_to(name, self)
    }

    /// Adds all tensors of another, each name prefixed by `prefix` and a dot, or by nothing when it
    /// is empty.
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

    /// Whether there are none.
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
    /// No tensors yet.
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

    /// As [`StateDict::with_field`], to be overwritten.
    ///
    /// # Errors
    /// As [`StateDictMut::with`].
    pub fn with_field<T: StateField + ?Sized>(self, name: &str, field: &'a mut T) -> Result<Self> {
        field.add_to_mut(name, self)
    }

    /// Adds all tensors of another, each name prefixed by `prefix` and a dot, or by nothing when it
    /// is empty.
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

/// A tensor to overwrite: dtype and shape are fixed, the elements are not.
pub struct TensorMut<'a> {
    dtype: Dtype,
    shape: Box<[usize]>,
    target: Target<'a>,
}

enum Target<'a> {
    Contiguous(&'a mut [u8]),
    /// Elements that lie apart, overwritten one by one from row-major bytes.
    #[cfg(feature = "ndarray")]
    Scattered(Scatter<'a>),
}

#[cfg(feature = "ndarray")]
type Scatter<'a> = Box<dyn FnMut(&[u8]) + Send + 'a>;

impl<'a> TensorMut<'a> {
    /// A target of bytes in row-major order, whose length is `shape × dtype`.
    pub(crate) fn over(dtype: Dtype, shape: Box<[usize]>, bytes: &'a mut [u8]) -> Self {
        Self { dtype, shape, target: Target::Contiguous(bytes) }
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes, little-endian, row-major; None where elements lie apart (an ndarray in another
    /// memory order).
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.target {
            Target::Contiguous(bytes) => Some(bytes),
            #[cfg(feature = "ndarray")]
            Target::Scattered(_) => None,
        }
    }

    /// The elements, row-major, for as long as what they lie in is borrowed.
    ///
    /// # Errors
    /// `Mismatch` when the dtype is not `T`'s; `Unsupported` where elements lie apart.
    pub fn into_elements<T: Element + bytemuck::AnyBitPattern>(self) -> Result<&'a mut [T]> {
        if self.dtype != T::DTYPE {
            return Err(Error::new(crate::ErrorKind::Mismatch, "dtype").expected(T::DTYPE).found(self.dtype));
        }
        let refused = |what: &'static str| Error::new(crate::ErrorKind::Unsupported, what);
        match self.target {
            Target::Contiguous(bytes) => bytemuck::try_cast_slice_mut(bytes)
                .map_err(|_| refused("the bytes are not aligned for their elements")),
            #[cfg(feature = "ndarray")]
            Target::Scattered(_) => Err(refused("the elements do not lie one behind the other")),
        }
    }

    /// A mutable ndarray view of the elements.
    ///
    /// # Errors
    /// As [`TensorMut::into_elements`].
    #[cfg(feature = "ndarray")]
    pub fn into_view<T: Element + bytemuck::AnyBitPattern>(self) -> Result<ndarray::ArrayViewMutD<'a, T>> {
        let shape = self.shape.to_vec();
        ndarray::ArrayViewMutD::from_shape(shape, self.into_elements()?)
            .map_err(|error| Error::invalid("shape").because(error))
    }

    /// Overwrites all elements.
    ///
    /// # Errors
    /// `Mismatch` when dtype or shape differ; then nothing was written.
    pub fn assign(&mut self, tensor: &Tensor<'_>) -> Result<()> {
        self.assign_by(copy, tensor)
    }

    /// As [`TensorMut::assign`], one of many whose sum decides how bytes are copied.
    pub(crate) fn assign_by(&mut self, copy: fn(&[u8], &mut [u8]), tensor: &Tensor<'_>) -> Result<()> {
        if tensor.dtype() != self.dtype || tensor.shape() != &*self.shape {
            return Err(Error::new(crate::ErrorKind::Mismatch, "dtype or shape")
                .expected(format!("{} {:?}", self.dtype, self.shape))
                .found(format!("{} {:?}", tensor.dtype(), tensor.shape())));
        }
        match &mut self.target {
            Target::Contiguous(bytes) => copy(tensor.bytes(), bytes),
            #[cfg(feature = "ndarray")]
            Target::Scattered(scatter) => scatter(tensor.bytes()),
        }
        Ok(())
    }
}

/// What can be overwritten by a tensor.
pub trait IntoTensorMut<'a> {
    /// The target.
    ///
    /// # Errors
    /// `Invalid` when the shape does not hold that many elements.
    fn into_tensor_mut(self) -> Result<TensorMut<'a>>;
}

/// Rust types that any bytes of their length are a value of: every element type but `bool`.
impl<'a, T: Element + bytemuck::AnyBitPattern> IntoTensorMut<'a> for (&[usize], &'a mut [T]) {
    fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
        let (shape, elements) = self;
        let bytes = bytemuck::cast_slice_mut(elements);
        let expected = byte_len(T::DTYPE, shape)?;
        if bytes.len() != expected {
            return Err(Error::invalid("bytes of the tensor to overwrite")
                .expected(expected)
                .found(bytes.len()));
        }
        Ok(TensorMut { dtype: T::DTYPE, shape: shape.into(), target: Target::Contiguous(bytes) })
    }
}

#[cfg(feature = "ndarray")]
mod from_ndarray {
    use super::*;
    use ndarray::{ArrayBase, ArrayViewMut, DataMut, Dimension};

    impl<'a, S, T, D> IntoTensorMut<'a> for &'a mut ArrayBase<S, D>
    where
        S: DataMut<Elem = T>,
        T: Element + bytemuck::AnyBitPattern,
        D: Dimension,
    {
        fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
            self.view_mut().into_tensor_mut()
        }
    }

    impl<'a, T: Element + bytemuck::AnyBitPattern, D: Dimension> IntoTensorMut<'a> for ArrayViewMut<'a, T, D> {
        fn into_tensor_mut(self) -> Result<TensorMut<'a>> {
            let shape: Box<[usize]> = self.shape().into();
            let target = if self.is_standard_layout() {
                let elements = self.into_slice().unwrap_or_default();
                Target::Contiguous(bytemuck::cast_slice_mut(elements))
            } else {
                let mut view = self.into_dyn();
                Target::Scattered(Box::new(move |bytes| {
                    for (element, bytes) in view.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
                        *element = bytemuck::pod_read_unaligned(bytes);
                    }
                }))
            };
            Ok(TensorMut { dtype: T::DTYPE, shape, target })
        }
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;

    #[test]
    fn contiguous_and_scattered_targets_take_the_same_elements() {
        let source = Tensor::from_elements(&[2, 3], &[1_i32, 2, 3, 4, 5, 6]).unwrap();
        let mut plain = ndarray::Array2::<i32>::zeros((2, 3));
        (&mut plain).into_tensor_mut().unwrap().assign(&source).unwrap();
        let mut transposed = ndarray::Array2::<i32>::zeros((3, 2));
        transposed.view_mut().reversed_axes().into_tensor_mut().unwrap().assign(&source).unwrap();
        assert_eq!(plain, transposed.t());
        assert_eq!(plain[[1, 0]], 4);
    }

    #[test]
    fn another_shape_or_dtype_is_refused_before_anything_is_written() {
        let mut target = [0.0_f32; 4];
        let mut target = (&[4][..], &mut target[..]).into_tensor_mut().unwrap();
        assert!(target.assign(&Tensor::from_elements(&[2, 2], &[1.0_f32; 4]).unwrap()).is_err());
        assert!(target.assign(&Tensor::from_elements(&[4], &[1_u32; 4]).unwrap()).is_err());
        assert!((&[3][..], &mut [0_u8; 4][..]).into_tensor_mut().is_err());
    }
}
