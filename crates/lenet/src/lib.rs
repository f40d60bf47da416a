//! LeNet-5 in ndarray, its data and its training loop: the model that tensorkeep's examples, tests
//! and benches train.
//!
//! Everything is single-threaded and a function of its seed: the same settings and data give the
//! same bits on every run on one machine, which is what makes "resumed exactly" testable.
//!
//! * [`net`]: the net, generic over the storage of its weights; [`mapped`]: weights in a
//!   checkpoint; [`conv`], [`layers`]: its arithmetic.
//! * [`optim`], [`schedule`], [`rng`]: the rest of the state that a training run must save.
//! * [`data`]: MNIST through [`idx`], or [`digits`] drawn from a seed.
//! * [`trainer`]: all of them, one step at a time, to and from checkpoints.

pub mod conv;
pub mod data;
pub mod digits;
pub mod idx;
pub mod layers;
pub mod mapped;
pub mod net;
pub mod optim;
mod passes;
pub mod rng;
pub mod schedule;
pub mod trainer;

#[cfg(test)]
mod numeric;

pub use data::{Data, Dataset};
pub use mapped::MappedWeights;
pub use net::{Config, LeNet};
pub use optim::{Optimizer, OptimizerKind};
pub use rng::Rng;
pub use schedule::{Schedule, Scheduler};
pub use trainer::{Gradients, Settings, Trainer};
