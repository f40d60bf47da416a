//! [tensorkeep](https://docs.rs/tensorkeep) checkpoints for [burn](https://docs.rs/burn): model,
//! optimizer and scheduler in one commit, verified, rotated, and resumed by the newest that
//! verifies.
//!
//! * [`Run`]: for `SupervisedTraining` and its learner, one line.
//! * [`ShuffledLoader`]: the order of the data and the random numbers as functions of the epoch.
//! * [`save_module`], [`load_module`], [`save_optimizer`], [`load_optimizer`], [`save_record`],
//!   [`load_record`]: for a loop of your own, into one snapshot.
//! * [`save_torch`], [`load_torch`]: modules in PyTorch's names and memory orders, and what was
//!   done.
//! * [`TensorkeepStore`]: burn-store's `ModuleStore` over one file.
//! * [`dtype`]: dtypes of both sides.
//!
//! Loading is strict and all or nothing: names, shapes and dtypes are compared, and every byte is
//! verified, before a module or an optimizer changes.
//!
//! Versions follow burn's: 0.22 of this crate is for 0.22 of burn, and needs its Rust, 1.95.

mod data;
pub mod dtype;
mod module;
mod pack;
mod record;
mod run;
mod store;
mod torch;

pub use data::ShuffledLoader;
pub use module::{load_module, save_module};
pub use record::{BurnRecord, load_optimizer, load_record, save_optimizer, save_record};
pub use run::Run;
pub use store::TensorkeepStore;
pub use torch::{Adapted, load_torch, save_torch};

/// The page of the guide: its snippets are doctests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/burn.md")]
struct Guide;
