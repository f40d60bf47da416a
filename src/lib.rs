//! Crash-safe checkpoints for machine-learning training.
//!
//! A checkpoint is one file: named tensors, records (any serde value), metrics and metadata, each
//! byte under a checksum. It is published atomically and durably, and opened by reading or by
//! mapping. A [`Store`] keeps the checkpoints of one run: when to save, which to keep, and where to
//! resume after a crash.
//!
//! # Quick start
//!
//! Save one file and load it:
//!
//! ```
//! # use tensorkeep::{Checkpoint, Result, Snapshot};
//! # fn main() -> Result<()> {
//! # let path = std::env::temp_dir().join(format!("tensorkeep-doc-{}.tkeep", std::process::id()));
//! let weights = vec![0.5_f32; 6];
//! let snapshot = Snapshot::new().tensor("weights", &weights)?.record("learning_rate", &1e-3)?;
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
//! Start this program again after a crash and it continues from the newest checkpoint that
//! verifies:
//!
//! ```
//! # use tensorkeep::{Every, Keep, Mode, Progress, Result, StoreOptions, Snapshot, Store, engine::Memory};
//! # fn main() -> Result<()> {
//! # let folder = Memory::new();
//! let options = StoreOptions::new()
//!     .save(Every::steps(10).or_on_signal())
//!     .keep(Keep::last(3).or(Keep::best("loss", Mode::Min, 1)));
//! let store = Store::open(folder, options)?; // a path, such as "runs/lenet"
//! let mut weights = vec![0.0_f32; 6];
//!
//! let resumed = store.resume()?; // resumed.skipped lists damaged checkpoints
//! if let Some(checkpoint) = &resumed.checkpoint {
//!     weights.copy_from_slice(checkpoint.tensor("weights")?.elements()?);
//! }
//! for step in resumed.next_step()..25 {
//!     weights[0] += 0.1; // train
//!     let progress = Progress::new(step + 1); // completed steps
//!     if store.due(&progress).is_some() {
//!         let snapshot =
//!             Snapshot::new().tensor("weights", &weights)?.metric("loss", 0.5)?.progress(progress);
//!         store.save(&snapshot)?; // durable when this returns; then rotation deletes older ones
//!     }
//!     if store.should_stop() {
//!         break; // SIGTERM or Ctrl-C came, and a save has answered it
//!     }
//! }
//! # assert_eq!(store.list()?.len(), 2);
//! store.close()
//! # }
//! ```
//!
//! [`Store::stage`], [`Store::save_async`] and [`Store::save_during`] save while training goes on,
//! and [`Store::open_tiered`] adds a second, remote place. [`Reader`] reads a run beside its
//! writer.
//!
//! **An exact resume** needs everything that the next step reads: parameters and buffers, the
//! optimizer's state, the learning-rate scheduler's position, every random generator, the position
//! in the data (epoch, batch, shuffle), loss scalers and averaged weights. Numbers and structs go
//! into a [record](Snapshot::record), large arrays into a [tensor](Snapshot::tensor), and
//! [`Snapshot::state`] does both for any serde value.
//!
//! # Loading and mapping
//!
//! [`Checkpoint::open`] reads, and [`Checkpoint::tensor`] fetches one tensor and verifies it.
//! [`Checkpoint::map`] maps the file, so that tensors are borrowed from it, and
//! [`MappedCopy::open`] gives writable ones in private memory. A type that is [`Stateful`]
//! loads with [`Checkpoint::load_state_dict`], strictly and all or nothing; a [`Model`] is rebuilt
//! by [`Checkpoint::build`].
//!
//! # Errors
//!
//! There is one [`Error`]. Its [`ErrorKind`] says what to do, and its message names what is known
//! of the file, the tensor, what was expected, what was found, and the next step.
//!
//! | kind | what to do |
//! |---|---|
//! | `NotFound`, `Mismatch`, `Invalid` | fix the call or the model |
//! | `AlreadyExists` | use another step: a committed one is never written again |
//! | `Damaged`, `Foreign` | use another checkpoint; [`Store::resume`] does so by itself |
//! | `NoSpace`, `Io`, `Busy`, `NotPromoted` | train on; the save is due again |
//! | `Unknown` | the commit may or may not be durable: train on, nothing was deleted |
//! | `Locked`, `Fenced` | another process writes to this run: stop |
//! | `Poisoned` | open the store again |
//! | `LimitExceeded` | raise [`OpenOptions::budget`], or store arrays as tensors |
//! | `NewerVersion`, `Unsupported` | update, or use other storage |
//!
//! # Features and platforms
//!
//! * `ndarray` (default): tensors to and from ndarray 0.17.
//! * `derive`: `#[derive(Stateful)]` and `#[derive(Model)]`.
//! * `convert`: safetensors, `.npy`, `.npz` in and out, torch's `.pt` and GGUF in.
//! * `testing`: conformance suites and failing disks for authors of engines.
//!
//! No feature changes a byte that is written. Unix, little-endian, Rust 1.89. S3, Google Cloud
//! Storage and Azure are in the crate `tensorkeep-object-store`, the command line is in
//! `tensorkeep-cli`.
//!
//! The repository's `docs/guide` has more on each of these.

#[cfg(target_endian = "big")]
compile_error!("tensorkeep maps little-endian tensors in place and does not support big-endian targets");

#[cfg(feature = "convert")]
mod budget;
mod buffer;
mod checkpoint;
mod clock;
mod codec;
mod collective;
#[cfg(feature = "convert")]
pub mod convert;
mod deadline;
mod dtype;
pub mod engine;
mod error;
mod format;
pub mod layout;
pub mod model;
mod names;
mod pipeline;
pub mod serde;
pub mod snapshot;
pub mod state_dict;
pub mod store;
mod sync;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
pub mod writer;

#[doc(inline)]
pub use checkpoint::{Checkpoint, MappedCopy, OpenOptions, TensorInfo, Verify, inspect};
pub use codec::Codec;
pub use dtype::{Dtype, Element};
pub use error::{Error, ErrorKind, Result};
pub use format::value::Value;
#[doc(inline)]
pub use model::{LoadOptions, LoadReport, Model};
pub use snapshot::{IntoTensorSource, LazyTensor, Progress, Snapshot, TensorSource};
pub use state_dict::{StateDict, StateDictMut, Stateful, TensorMut};
#[doc(inline)]
pub use store::history;
#[doc(inline)]
pub use store::{
    CheckpointId, CheckpointInfo, Every, Keep, Mode, PendingSave, Reader, Resumed, SaveReason, Saved, Store,
    StoreOptions, Tier,
};
#[doc(inline)]
pub use tensor::Tensor;
#[cfg(feature = "derive")]
pub use tensorkeep_derive::{Model, Stateful};
#[doc(inline)]
pub use writer::WriteOptions;

/// The snippets of the user documentation are doctests. `tests/pages.rs` fails when a page is not
/// listed.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($name:ident: $path:literal,)*) => { $(#[doc = include_str!($path)] struct $name;)* };
    }

    pages! {
        Readme: "../README.md",
        CommandLine: "../docs/command-line.md",
        Introduction: "../docs/guide/introduction.md",
        TrainingLoop: "../docs/guide/training-loop.md",
        Serde: "../docs/guide/serde.md",
        ExactResume: "../docs/guide/exact-resume.md",
        BackgroundSaves: "../docs/guide/background-saves.md",
        Ranks: "../docs/guide/ranks.md",
        Migrating: "../docs/guide/migrating.md",
        Python: "../docs/guide/python.md",
        PythonRuns: "../docs/guide/python-runs.md",
        Operating: "../docs/guide/operating.md",
        Errors: "../docs/guide/errors.md",
        Layout: "../docs/guide/layout.md",
        Tiers: "../docs/guide/tiers.md",
        Engines: "../docs/guide/engines.md",
    }
}

/// One chunk's coding without a file, for its benchmark.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod chunks {
    pub use crate::codec::{Decoder, Encoded, Encoder};
}

/// Jobs of many processes that save one checkpoint: [`Store::open_ranks`].
pub mod ranks {
    pub use crate::collective::{Alone, Collective, Tcp};
    pub use crate::snapshot::{AnotherWorld, Replica};
    pub use crate::store::{Diverged, OrphanedShards, Rebuilt, ThroughStore, rebuild};

    /// The files of one save of many ranks, for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub mod files {
        pub use crate::collective::agree;
        pub use crate::format::pieces::ShardRef;
        pub use crate::format::shard::{Part, shard_key};
        pub use crate::writer::job::Job;
    }
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
