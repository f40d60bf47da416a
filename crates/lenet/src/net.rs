//! LeNet-5: its sizes, its tensors and their names, and how they are created and saved. Its
//! computations are in `passes.rs`.
//!
//! Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document
//! Recognition", Proceedings of the IEEE 86(11), 1998; with ReLU and max-pooling, as it is built
//! today.

use crate::conv::Conv2d;
use crate::layers::Linear;
use crate::rng::Rng;
use ndarray::{
    ArrayBase, ArrayD, ArrayViewD, ArrayViewMutD, Data, DataMut, Dimension, IxDyn, OwnedRepr, RawDataClone,
    ViewRepr,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use tensorkeep::{Error, ErrorKind, Model, Result, Stateful};

/// Height and width of the images.
pub const SIDE: usize = 28;
/// Height and width of the kernels.
pub const KERNEL: usize = 5;
/// Height and width of the second pooling's output: (28 / 2 − 4) / 2.
const POOLED_SIDE: usize = 5;
/// Far above any LeNet: a configuration beyond it is damaged or a mistake.
const MOST_PARAMETERS: usize = 1 << 26;

/// Names of the tensors, in the order of the layers, as PyTorch would name them.
pub const NAMES: [&str; 10] = [
    "conv1.weight",
    "conv1.bias",
    "conv2.weight",
    "conv2.bias",
    "fc1.weight",
    "fc1.bias",
    "fc2.weight",
    "fc2.bias",
    "fc3.weight",
    "fc3.bias",
];

/// All sizes of a LeNet. The default is LeNet-5 for 28×28 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Channels of the images.
    pub channels: usize,
    /// Output channels of the two convolutions.
    pub conv: [usize; 2],
    /// Outputs of the two hidden layers.
    pub hidden: [usize; 2],
    /// Classes, at most 256.
    pub classes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { channels: 1, conv: [6, 16], hidden: [120, 84], classes: 10 }
    }
}

impl Config {
    /// Shapes of the tensors, in the order of [`NAMES`].
    ///
    /// # Errors
    /// `Invalid` when a size is zero or the net would be absurdly large.
    pub fn shapes(&self) -> Result<[Vec<usize>; 10]> {
        let Self { channels, conv: [conv1, conv2], hidden: [hidden1, hidden2], classes } = *self;
        let absurd = || {
            Error::new(ErrorKind::Invalid, "sizes of a LeNet")
                .expected(format!("1 to 256 classes, no size 0, at most {MOST_PARAMETERS} parameters"))
                .found(format!("{self:?}"))
        };
        let sizes = [channels, conv1, conv2, hidden1, hidden2, classes];
        if classes > 256 || !sizes.iter().all(|size| (1..=MOST_PARAMETERS).contains(size)) {
            return Err(absurd());
        }
        // OK to multiply, in u64: no shape has more than two of these sizes in it, each at most
        // 2^26.
        let shapes = [
            vec![conv1, channels, KERNEL, KERNEL],
            vec![conv1],
            vec![conv2, conv1, KERNEL, KERNEL],
            vec![conv2],
            vec![hidden1, conv2 * POOLED_SIDE * POOLED_SIDE],
            vec![hidden1],
            vec![hidden2, hidden1],
            vec![hidden2],
            vec![classes, hidden2],
            vec![classes],
        ];
        let parameters = shapes.iter().map(|shape| shape.iter().map(|&dim| dim as u64).product::<u64>());
        if parameters.sum::<u64>() > MOST_PARAMETERS as u64 { Err(absurd()) } else { Ok(shapes) }
    }
}

/// LeNet-5. `S` is the storage of the weights: owned to train, `ViewRepr<&f32>` to compute on a
/// mapped checkpoint.
#[derive(Stateful, Model)]
#[model(kind = "lenet", build = |config| Self::zeros(*config), only = LeNet)]
pub struct LeNet<S: Data<Elem = f32> = OwnedRepr<f32>> {
    #[model(config)]
    pub(crate) config: Config,
    pub(crate) conv1: Conv2d<S>,
    pub(crate) conv2: Conv2d<S>,
    pub(crate) fc1: Linear<S>,
    pub(crate) fc2: Linear<S>,
    pub(crate) fc3: Linear<S>,
}

impl LeNet {
    /// A net with weights and biases uniform in ±1/√(inputs of a neuron), PyTorch's default:
    /// Kaiming uniform with a = √5 (He et al., "Delving Deep into Rectifiers", ICCV 2015).
    ///
    /// # Errors
    /// As [`Config::shapes`].
    pub fn new(config: Config, rng: &mut Rng) -> Result<Self> {
        let mut inputs = 1;
        Self::from_arrays(config, |_, shape| {
            // A bias comes right after its weight and is drawn from the same range.
            if shape.len() > 1 {
                inputs = shape[1..].iter().product();
            }
            let bound = 1.0 / (inputs as f32).sqrt();
            Ok(ArrayD::from_shape_simple_fn(shape, || rng.between(-bound, bound)))
        })
    }

    /// A net whose parameters are all 0.
    ///
    /// # Errors
    /// As [`Config::shapes`].
    pub fn zeros(config: Config) -> Result<Self> {
        Self::from_arrays(config, |_, shape| Ok(ArrayD::zeros(shape)))
    }
}

impl<S: Data<Elem = f32>> LeNet<S> {
    /// A net over the arrays that `array` returns for each name and shape, in the order of
    /// [`NAMES`].
    ///
    /// # Errors
    /// As [`Config::shapes`], any error of `array`, `Mismatch` when it returns another shape.
    pub fn from_arrays(
        config: Config,
        mut array: impl FnMut(&'static str, &[usize]) -> Result<ArrayBase<S, IxDyn>>,
    ) -> Result<Self> {
        let shapes = config.shapes()?;
        let mut arrays = NAMES.into_iter().zip(shapes).map(|(name, shape)| {
            let array = array(name, &shape)?;
            if array.shape() == shape {
                return Ok((name, array));
            }
            Err(Error::new(ErrorKind::Mismatch, "shape")
                .expected(format!("{shape:?}"))
                .found(format!("{:?}", array.shape()))
                .in_tensor(name))
        });
        let mut next = || arrays.next().expect("OK because what follows takes as many as there are names");
        Ok(Self {
            config,
            conv1: Conv2d { weight: of_rank(next()?)?, bias: of_rank(next()?)?, padding: 2 },
            conv2: Conv2d { weight: of_rank(next()?)?, bias: of_rank(next()?)?, padding: 0 },
            fc1: Linear { weight: of_rank(next()?)?, bias: of_rank(next()?)? },
            fc2: Linear { weight: of_rank(next()?)?, bias: of_rank(next()?)? },
            fc3: Linear { weight: of_rank(next()?)?, bias: of_rank(next()?)? },
        })
    }

    /// Its sizes.
    pub fn sizes(&self) -> Config {
        self.config
    }

    /// Names and parameters, in the order of the layers.
    pub fn parameters(&self) -> [(&'static str, ArrayViewD<'_, f32>); 10] {
        let mut names = NAMES.into_iter();
        [
            self.conv1.weight.view().into_dyn(),
            self.conv1.bias.view().into_dyn(),
            self.conv2.weight.view().into_dyn(),
            self.conv2.bias.view().into_dyn(),
            self.fc1.weight.view().into_dyn(),
            self.fc1.bias.view().into_dyn(),
            self.fc2.weight.view().into_dyn(),
            self.fc2.bias.view().into_dyn(),
            self.fc3.weight.view().into_dyn(),
            self.fc3.bias.view().into_dyn(),
        ]
        .map(|view| (names.next().unwrap_or_default(), view))
    }

    /// As [`LeNet::parameters`], mutable.
    pub fn parameters_mut(&mut self) -> [(&'static str, ArrayViewMutD<'_, f32>); 10]
    where
        S: DataMut,
    {
        let mut names = NAMES.into_iter();
        [
            self.conv1.weight.view_mut().into_dyn(),
            self.conv1.bias.view_mut().into_dyn(),
            self.conv2.weight.view_mut().into_dyn(),
            self.conv2.bias.view_mut().into_dyn(),
            self.fc1.weight.view_mut().into_dyn(),
            self.fc1.bias.view_mut().into_dyn(),
            self.fc2.weight.view_mut().into_dyn(),
            self.fc2.bias.view_mut().into_dyn(),
            self.fc3.weight.view_mut().into_dyn(),
            self.fc3.bias.view_mut().into_dyn(),
        ]
        .map(|view| (names.next().unwrap_or_default(), view))
    }

    /// The same net over borrowed weights.
    pub fn view(&self) -> LeNet<ViewRepr<&f32>> {
        fn conv<S: Data<Elem = f32>>(layer: &Conv2d<S>) -> Conv2d<ViewRepr<&f32>> {
            Conv2d { weight: layer.weight.view(), bias: layer.bias.view(), padding: layer.padding }
        }
        fn linear<S: Data<Elem = f32>>(layer: &Linear<S>) -> Linear<ViewRepr<&f32>> {
            Linear { weight: layer.weight.view(), bias: layer.bias.view() }
        }
        LeNet {
            config: self.config,
            conv1: conv(&self.conv1),
            conv2: conv(&self.conv2),
            fc1: linear(&self.fc1),
            fc2: linear(&self.fc2),
            fc3: linear(&self.fc3),
        }
    }
}

impl<S: Data<Elem = f32> + RawDataClone> Clone for LeNet<S> {
    fn clone(&self) -> Self {
        Self {
            config: self.config,
            conv1: self.conv1.clone(),
            conv2: self.conv2.clone(),
            fc1: self.fc1.clone(),
            fc2: self.fc2.clone(),
            fc3: self.fc3.clone(),
        }
    }
}

/// Equal sizes and equal numbers, in any storage.
impl<S: Data<Elem = f32>, T: Data<Elem = f32>> PartialEq<LeNet<T>> for LeNet<S> {
    fn eq(&self, other: &LeNet<T>) -> bool {
        self.config == other.config && self.parameters() == other.parameters()
    }
}

/// An array whose shape was checked, with its rank as a type.
fn of_rank<S: Data<Elem = f32>, D: Dimension>(
    (name, array): (&'static str, ArrayBase<S, IxDyn>),
) -> Result<ArrayBase<S, D>> {
    array
        .into_dimensionality()
        .map_err(|error| Error::new(ErrorKind::Mismatch, "rank").because(error).in_tensor(name))
}

impl<S: Data<Elem = f32>> fmt::Display for LeNet<S> {
    /// As PyTorch prints the same net.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "LeNet(")?;
        for (name, conv) in [("conv1", &self.conv1), ("conv2", &self.conv2)] {
            let (outputs, inputs, height, width) = conv.weight.dim();
            write!(
                f,
                "  ({name}): Conv2d({inputs}, {outputs}, kernel_size=({height}, {width}), stride=(1, 1)"
            )?;
            match conv.padding {
                0 => writeln!(f, ")")?,
                padding => writeln!(f, ", padding=({padding}, {padding}))")?,
            }
        }
        for (name, fc) in [("fc1", &self.fc1), ("fc2", &self.fc2), ("fc3", &self.fc3)] {
            let (outputs, inputs) = fc.weight.dim();
            writeln!(f, "  ({name}): Linear(in_features={inputs}, out_features={outputs}, bias=True)")?;
        }
        write!(f, ")")
    }
}

impl<S: Data<Elem = f32>> fmt::Debug for LeNet<S> {
    /// As it is displayed: sixty thousand numbers are of no use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_pytorch_does() {
        let net = LeNet::zeros(Config::default()).unwrap();
        let expected = "LeNet(\n  \
            (conv1): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))\n  \
            (conv2): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))\n  \
            (fc1): Linear(in_features=400, out_features=120, bias=True)\n  \
            (fc2): Linear(in_features=120, out_features=84, bias=True)\n  \
            (fc3): Linear(in_features=84, out_features=10, bias=True)\n)";
        assert_eq!(net.to_string(), expected);
        let parameters: usize = net.parameters().iter().map(|(_, values)| values.len()).sum();
        assert_eq!(parameters, 61_706, "as many as the paper's layers have when fully connected");
    }

    #[test]
    fn new_weights_fill_their_range_and_depend_on_the_seed_alone() {
        let net = LeNet::new(Config::default(), &mut Rng::new(3)).unwrap();
        assert_eq!(net, LeNet::new(Config::default(), &mut Rng::new(3)).unwrap());
        assert_ne!(net, LeNet::new(Config::default(), &mut Rng::new(4)).unwrap());
        let bound = 1.0 / 400_f32.sqrt();
        let largest = net.fc1.weight.fold(0.0_f32, |largest, &w| largest.max(w.abs()));
        assert!(largest <= bound && largest > 0.99 * bound, "{largest} of {bound}");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_before_memory_is_taken() {
        let default = Config::default();
        for config in [
            Config { channels: 0, ..default },
            Config { classes: 257, ..default },
            Config { channels: usize::MAX, conv: [usize::MAX; 2], ..default },
            Config { conv: [1 << 26; 2], hidden: [1 << 26; 2], ..default },
            Config { hidden: [1 << 20, 1 << 20], ..default },
        ] {
            assert_eq!(LeNet::zeros(config).unwrap_err().kind(), ErrorKind::Invalid, "{config:?}");
        }
    }

    #[test]
    fn an_array_of_another_shape_is_named() {
        let error = LeNet::from_arrays(Config::default(), |name, shape| {
            Ok(if name == "fc2.bias" { ArrayD::zeros(&[85][..]) } else { ArrayD::zeros(shape) })
        })
        .unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Mismatch, Some("fc2.bias")));
        assert!(error.to_string().contains("expected [84], found [85]"), "{error}");
    }
}
