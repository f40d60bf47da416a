//! A crash-safe checkpoint store for machine-learning training.

#[cfg(target_endian = "big")]
compile_error!("tensorkeep maps little-endian tensors in place and does not support big-endian targets");

mod budget;
mod buffer;
mod checkpoint;
mod codec;
#[cfg(feature = "convert")]
pub mod convert;
mod dtype;
pub mod engine;
mod error;
mod format;
mod model;
mod names;
mod pipeline;
mod snapshot;
mod state_dict;
mod store;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
mod writer;

pub use buffer::Buffer;
pub use checkpoint::{
    Checkpoint, ChunkInfo, Dims, MappedCopy, OpenOptions, Report, SALVAGED, Scratch, TensorInfo, Verify,
};
pub use codec::Codec;
pub use dtype::{Dtype, Element};
pub use error::{Error, ErrorKind, Result};
pub use format::limits::Limits;
pub use format::value::Value;
pub use model::{LoadOptions, LoadReport, MODEL_GROUP, Mismatched, Model, Registry};
pub use names::{name_matches, nearest as nearest_name};
pub use snapshot::{Deferred, IntoSource, Progress, RESERVED_PREFIX, Snapshot, Source, Volatile};
pub use state_dict::{IntoTensorMut, StateDict, StateDictMut, Stateful, TensorMut};
pub use store::{
    AttemptInfo, Collected, Collection, Copied, Cost, Every, Info, Keep, Listed, Mode, Name, Pending, Reader,
    Resumed, RunId, Saved, Settings, Signal, Skipped, State, Store, Tier, WhenFull, Why, date,
};
pub use tensor::{SharedBytes, Tensor, byte_len, element_count};
pub use writer::{Timings, WriteOptions, Written};

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
