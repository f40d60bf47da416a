//! Crash-safe checkpoints for machine-learning training.
//!
//! A checkpoint is one file: named tensors, records (any serde value), metrics and metadata, every byte under a checksum. It is
//! published atomically and durably, opened by reading or by mapping, and a [`Store`] keeps the checkpoints of a run: when to save,
//! which to keep, and where to resume after a crash.
//!
//! # Quick start
//!
//! Save and load one file:
//!
//! ```
//! # use tensorkeep::{Checkpoint, Result, Snapshot};
//! # fn main() -> Result<()> {
//! # let path = std::env::temp_dir().join(format!("tensorkeep-doc-{}.tkeep", std::process::id()));
//! let weights = vec![0.5_f32; 6];
//! let mut snapshot = Snapshot::new().tensor("weights", &weights[..])?.record("learning_rate", &1e-3)?;
//! snapshot.save(&path)?; // the old file or the new one, never a mixture
//!
//! let checkpoint = Checkpoint::open(&path)?;
//! assert_eq!(checkpoint.tensor("weights")?.elements::<f32>()?, weights);
//! assert_eq!(checkpoint.record::<f64>("learning_rate")?, 1e-3);
//! # std::fs::remove_file(&path).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # A run that resumes
//!
//! ```
//! # use tensorkeep::{Every, Keep, Mode, Progress, Result, StoreOptions, Snapshot, Store, engine::Memory};
//! # fn main() -> Result<()> {
//! # let place = Memory::new(); // engine::Local::create("runs/mine")? in a trainer
//! let rules = Keep::last(3).or(Keep::best("loss", Mode::Min, 1));
//! let store = Store::open(place, StoreOptions::new().save(Every::steps(10).or_on_signal()).keep(rules))?;
//! let mut weights = vec![0.0_f32; 6];
//! let resumed = store.resume()?; // the newest that verifies; resumed.skipped says what does not
//! if let Some(checkpoint) = &resumed.checkpoint {
//!     weights.copy_from_slice(checkpoint.tensor("weights")?.elements()?);
//! }
//! for step in resumed.next_step()..25 {
//!     weights.iter_mut().for_each(|weight| *weight += 0.1);
//!     let progress = Progress::new(step + 1); // completed steps
//!     if store.due(&progress).is_some() {
//!         let mut snapshot = Snapshot::new().tensor("weights", &weights[..])?.metric("loss", 0.5)?.progress(progress);
//!         store.save(&snapshot)?; // durable when this returns; then rotation deletes what no rule keeps
//!     }
//! }
//! assert_eq!(store.list()?.len(), 2);
//! store.close()
//! # }
//! ```
//!
//! [`Store::stage`], [`Store::save_async`] and [`Store::save_during`] save while training goes on.
//!
//! **An exact resume** needs everything that the next step reads: parameters, buffers, the optimizer's state, the learning-rate
//! scheduler's position, every random generator, the position in the data (epoch, batch, shuffle), and what a loss scaler or an
//! average of weights keeps. What is a number or a struct goes into a [record](Snapshot::record), what is large into a
//! [tensor](Snapshot::tensor), and [`Snapshot::state`] does both for any serde value. The repository's LeNet example does all of it, and proves it by kills.
//!
//! # Loading and mapping
//!
//! [`Checkpoint::open`] reads; [`Checkpoint::tensor`] fetches one tensor and verifies it. [`Checkpoint::map`] maps the file, so that
//! tensors are borrowed from it, and [`Checkpoint::map_copy`] gives writable ones in private memory. Whole models load by
//! [`Checkpoint::load_state_dict`], strict and all or nothing, or are rebuilt by [`Checkpoint::build`].
//!
//! # Errors
//!
//! There is one [`Error`]; its [`ErrorKind`] says what to do differently.
//!
//! | kind | what to do |
//! |---|---|
//! | `Damaged`, `Foreign` | use another checkpoint; `resume` does so by itself |
//! | `NotFound`, `Mismatch`, `Invalid` | mend the call: the message names what was expected and found |
//! | `Io`, `NoSpace`, `Busy`, `NotPromoted` | go on training; the next save tries again |
//! | `Unknown` | a commit may or may not be durable: go on, nothing was deleted |
//! | `Locked`, `Fenced` | another process writes to this run: stop |
//! | `NewerVersion`, `Unsupported` | update, or use other storage |
//!
//! # Features and platforms
//!
//! `derive` gives `#[derive(Stateful)]` and `#[derive(Model)]`, `ndarray` (default) gives array views, `convert` reads and writes other formats, `testing` has suites for authors of engines. No
//! feature changes a byte that is written. Unix, little-endian, Rust 1.89. S3, Google and Azure are in the crate
//! `tensorkeep-object-store`, the command line in `tensorkeep-cli`.

#[cfg(target_endian = "big")]
compile_error!("tensorkeep maps little-endian tensors in place and does not support big-endian targets");

#[cfg(feature = "convert")]
mod budget;
mod buffer;
mod checkpoint;
mod codec;
#[cfg(feature = "convert")]
pub mod convert;
mod deadline;
mod dtype;
pub mod engine;
mod error;
mod format;
mod model;
mod names;
mod pipeline;
pub mod serde;
mod snapshot;
mod state_dict;
mod store;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
mod writer;

pub use buffer::Buffer;
pub use checkpoint::{
    Checkpoint, ChunkInfo, MappedCopy, OpenOptions, SALVAGED, Scratch, Shape, TensorInfo, Verify,
    VerifyReport,
};
pub use codec::Codec;
pub use dtype::{Dtype, Element};
pub use error::{Error, ErrorKind, Result};
pub use format::limits::Limits;
pub use format::value::Value;
pub use model::{LoadOptions, LoadReport, MODEL_GROUP, Mismatch, Model, Registry};
pub use names::{name_matches, nearest as nearest_name};
pub use snapshot::{
    IntoTensorSource, LazyTensor, Progress, RESERVED_PREFIX, Snapshot, TensorSource, Volatile,
};
pub use state_dict::{IntoTensorMut, StateDict, StateDictMut, StateField, Stateful, TensorMut};
pub use store::{
    AttemptInfo, CheckpointId, CheckpointInfo, CheckpointMeta, Collected, Collection, CopyOutcome, Every,
    Keep, Listed, Mode, PendingSave, Reader, Resumed, RunId, SaveCost, SaveReason, Saved, Signal,
    SkippedCheckpoint, Store, StoreOptions, Tier, WhenFull, date,
};
pub use tensor::{SharedBytes, Tensor, byte_len, element_count};
#[cfg(feature = "derive")]
pub use tensorkeep_derive::{Model, Stateful};
pub use writer::{Timings, WriteOptions, Written};

/// The snippets of the README and of the pages under docs/ compile.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/engines.md")]
    struct Engines;
}

/// One chunk's coding without a file around it, for the benchmark that measures it.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod chunks {
    pub use crate::codec::{Decoder, Encoded, Encoder};
}

/// The byte layouts, for the test that compares SPEC.md with them.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod spec {
    pub use crate::format::footer::FIELDS as FOOTER;
    pub use crate::format::header::FIELDS as HEADER;
    pub use crate::format::index::preamble::FIELDS as PREAMBLE;
    pub use crate::format::index::section::FIELDS as SECTION;
}
