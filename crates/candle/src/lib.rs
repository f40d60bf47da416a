//! [tensorkeep](https://docs.rs/tensorkeep) checkpoints for [candle](https://docs.rs/candle-core):
//! models, optimizers and random generators in one file, and a run that is killed and resumed ends
//! with the bits of one that never was.
//!
//! * [`Vars`]: the variables of a `VarMap`, loaded all or nothing.
//! * [`var_builder`]: a `VarBuilder` that reads a checkpoint, lazily and verified.
//! * [`AdamW`], [`Sgd`]: candle's mathematics, with state that is saved.
//! * [`Generator`], and what draws from it: [`Dropout`], [`Shuffle`], [`seeded_var_builder`].
//! * [`load_torch`]: PyTorch's names in candle, and what was done with them.
//! * [`dtype`]: dtypes of both sides.
//!
//! All of them are [`Stateful`](tensorkeep::Stateful), so that one derive makes them one state:
//!
//! ```
//! use tensorkeep::Stateful;
//! use tensorkeep_candle::{AdamW, Generator, Shuffle, Vars};
//!
//! #[derive(Stateful)]
//! struct Training {
//!     model: Vars,
//!     optimizer: AdamW,
//!     dropout: Generator,
//!     data: Shuffle,
//! }
//! ```
//!
//! `examples/mnist.rs` is a whole trainer, and the guide's page on candle explains it.
//!
//! Versions follow candle's: 0.11 of this crate is for 0.11 of candle.

mod backend;
pub mod dtype;
mod error;
mod generator;
mod layers;
mod memory;
mod optim;
mod torch;
mod vars;

pub use backend::{CheckpointBackend, var_builder};
pub use generator::Generator;
pub use layers::{Dropout, Shuffle, seeded_var_builder};
pub use optim::{AdamW, ParamsSgd, Sgd};
pub use torch::load_torch;
pub use vars::Vars;

/// The page of the guide: its snippets are doctests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/candle.md")]
struct Guide;
