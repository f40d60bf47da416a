//! A net whose weights lie in a checkpoint: inference without a copy.

use crate::net::{Config, KERNEL, LeNet, NAMES};
use ndarray::ViewRepr;
use tensorkeep::{Checkpoint, Error, ErrorKind, Result, Tensor};

/// The tensors of a net, borrowed from a checkpoint that is mapped, or read into memory from one
/// that is not.
///
/// ```no_run
/// # fn main() -> tensorkeep::Result<()> {
/// # let images = ndarray::Array4::<f32>::zeros((1, 1, 28, 28));
/// let checkpoint = tensorkeep::Checkpoint::open("last.tkeep")?;
/// let weights = lenet::MappedWeights::of(&checkpoint, "model")?;
/// let digits = weights.net()?.predict(images.view());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MappedWeights<'c> {
    config: Config,
    tensors: Vec<Tensor<'c>>,
}

impl<'c> MappedWeights<'c> {
    /// The tensors under `group/`, or those without a group when it is empty. Sizes are taken from
    /// their shapes, so any checkpoint with these names will do, even one that holds no whole
    /// model.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`]; `Mismatch` when the shapes are not those of one LeNet.
    pub fn of(checkpoint: &'c Checkpoint, group: &str) -> Result<Self> {
        let name = |name: &str| if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") };
        let tensors: Vec<_> = NAMES.iter().map(|n| checkpoint.tensor(&name(n))).collect::<Result<_>>()?;
        let config = config_of(&tensors).ok_or_else(|| {
            Error::new(ErrorKind::Mismatch, format!("shapes under {group:?} are not those of a LeNet"))
                .expected(format!("conv1.weight [_, _, {KERNEL}, {KERNEL}], fc1.weight [_, _]"))
                .found(format!("{:?}, {:?}", tensors[0].shape(), tensors[4].shape()))
                .in_object(checkpoint.name())
        })?;
        let weights = Self { config, tensors };
        // Once here, so that `net` fails for no checkpoint that `of` accepted.
        weights.net().map_err(|error| error.in_object(checkpoint.name()))?;
        Ok(weights)
    }

    /// The net over them.
    ///
    /// # Errors
    /// `Mismatch` when a dtype or shape does not fit; [`MappedWeights::of`] has checked that.
    pub fn net(&self) -> Result<LeNet<ViewRepr<&f32>>> {
        let mut tensors = self.tensors.iter();
        LeNet::from_arrays(self.config, |name, _| match tensors.next() {
            Some(tensor) => tensor.view::<f32>().map_err(|error| error.in_tensor(name)),
            None => Err(Error::new(ErrorKind::NotFound, "no such tensor").in_tensor(name)),
        })
    }

    /// Whether every weight lies in the mapped file and none was copied.
    pub fn is_borrowed(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.borrowed().is_some())
    }
}

/// The sizes in the weights' shapes, if they have the right ranks.
fn config_of(tensors: &[Tensor<'_>]) -> Option<Config> {
    let shape = |i: usize| tensors.get(i).map(Tensor::shape);
    let (&[conv1, channels, ..], &[conv2, ..]) = (shape(0)?, shape(2)?) else { return None };
    let (&[hidden1, _], &[hidden2, _], &[classes, _]) = (shape(4)?, shape(6)?, shape(8)?) else {
        return None;
    };
    Some(Config { channels, conv: [conv1, conv2], hidden: [hidden1, hidden2], classes })
}
