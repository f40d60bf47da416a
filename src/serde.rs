//! Any serde value as tensors and one record: its large arrays of numbers become tensors under
//! their paths, everything else goes into a record.
//!
//! [`Snapshot::state`] saves and [`Checkpoint::state`] loads, and the type needs nothing but serde:
//! an optimizer, a random generator, a sampler, a model of another crate.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use tensorkeep::{Checkpoint, Result, Snapshot};
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct Adam {
//!     lr: f64,
//!     step: u64,
//!     moments: Vec<Moments>,
//! }
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct Moments {
//!     first: Vec<f32>,
//!     second: Vec<f32>,
//! }
//!
//! # fn main() -> Result<()> {
//! # let path = std::env::temp_dir().join(format!("tensorkeep-state-{}.tkeep", std::process::id()));
//! let moments = Moments { first: vec![0.5; 1000], second: vec![0.25; 1000] };
//! let adam = Adam { lr: 1e-3, step: 7, moments: vec![moments] };
//! Snapshot::new().state("optimizer", &adam)?.save(&path)?;
//!
//! let checkpoint = Checkpoint::open(&path)?;
//! assert_eq!(checkpoint.tensor("optimizer/moments.0.first")?.shape(), [1000]);
//! assert_eq!(checkpoint.state::<Adam>("optimizer")?, adam);
//! # std::fs::remove_file(&path).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! **What becomes a tensor:** a list, array or tuple of numbers or `bool`s of one type, from
//! [`TENSOR_FROM`] bytes on. Lists of equally long lists are one tensor with an axis for each
//! level. Bytes (`serde_bytes`) are a `u8` tensor. An ndarray is a tensor of one axis under
//! `field.data`, because that is how it serializes. [`tensor`] makes a tensor of a shorter array,
//! too. Map keys, enum variants and list indices become parts of the path.
//!
//! **What is preserved:** every value of serde's data model, floats and their NaNs bit for bit,
//! `u128`, and the difference between `Some(None)` and `None`. As in every record, values nest at
//! most 32 deep, and map keys are text, numbers or bools. A number is read exactly or not at all:
//! an `f64` of 0.1 is no `f32`, and serde's own rounding would say nothing.
//!
//! serde reads untagged and internally tagged enums and flattened structs by way of a buffer of its
//! own. It has no 128-bit integers and takes every format for a readable one (an `IpAddr` is text),
//! so a state with either *in such a type* is saved and is an error when it is loaded; and floats
//! are rounded there.
//!
//! **Copies:** serde passes numbers one by one, so saving copies each array once, into memory that
//! the snapshot owns (a tensor added by [`Snapshot::tensor`] is borrowed), and loading copies it
//! once from the memory that was read or mapped. A type's borrowed bytes (`&[u8]`, and `Cow<[u8]>`
//! with `#[serde(borrow)]`) and its `&str` borrow from a mapped checkpoint. A `&[f32]` cannot:
//! serde has no such call; use [`Tensor::borrowed_elements`](crate::Tensor::borrowed_elements).
//! Taking a state of 105 MB of `Vec<f32>` costs 0.17 s of one core, while borrowing is free, and
//! saving it to raw chunks takes 2.2 to 3.2 times as long (`benches/state.rs`, on two busy cores:
//! 200 to 224 ms beside 71 to 92 ms). If that matters, name the arrays by [`Snapshot::tensor`] and
//! keep the rest in a state.

mod elements;
mod exact;
mod fault;
mod item;
mod numbers;
mod probe;
mod read;
pub mod tensor;
mod write;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::format::records;
use crate::snapshot::{IntoTensorSource, Snapshot};
use crate::tensor::Tensor;
use read::Reader;
use serde::{Deserialize, Serialize};
use write::{StateTensor, Writer};

/// From this many bytes on, an array of numbers is its own tensor: below, its entry in the index
/// and the padding to the next tensor would take more than the array. Readers do not depend on it.
pub const TENSOR_FROM: usize = 1024;

/// Extension types of MessagePack in the record of a state; SPEC.md, section 11.
mod extension {
    /// A list of numbers. Content: the name of its tensor, without the record's name and the slash.
    pub const LIST: i8 = 1;
    /// Bytes, likewise.
    pub const BYTES: i8 = 2;
    /// A `None` within other options. Content: the number of options around it.
    pub const NOTHING: i8 = 3;
}

/// The tensor's full name.
fn tensor_name(record: &str, path: &str) -> String {
    if path.is_empty() { record.to_owned() } else { format!("{record}/{path}") }
}

impl Snapshot<'_> {
    /// Adds any serde value: its large arrays of numbers as tensors `name/path.to.field`,
    /// everything else as the record `name`. See [`serde`](crate::serde).
    ///
    /// # Errors
    /// As [`Snapshot::record`] and [`Snapshot::tensor`], with the path within the value.
    pub fn state<T: Serialize + ?Sized>(mut self, name: impl Into<String>, value: &T) -> Result<Self> {
        let name = name.into();
        let state = Writer::write(&name, value)?;
        for StateTensor { name, numbers, shape } in state.tensors {
            let source = Tensor::shared(numbers.dtype(), &shape, std::sync::Arc::new(numbers))?;
            self.add_tensor(name, source.into_source()?)?;
        }
        self.add_encoded_record(name, state.record)?;
        Ok(self)
    }
}

impl Checkpoint {
    /// A value that was saved by [`Snapshot::state`] or [`Snapshot::record`], as the type it was
    /// saved from.
    ///
    /// A type that borrows can borrow from a mapped checkpoint:
    /// `checkpoint.state::<Tokens<'_>>("tokens")`.
    ///
    /// # Errors
    /// `NotFound`, also for a tensor that the record names; `Mismatch` when it is not a `T`, with
    /// the path within the value; `Damaged`, `LimitExceeded`, `Io`.
    pub fn state<'c, T: Deserialize<'c>>(&'c self, name: &str) -> Result<T> {
        let lent = self.record_in_place(name)?;
        let read = if lent.is_none() { Some(self.record_bytes(name)?) } else { None };
        let bytes = lent.or(read.as_deref()).unwrap_or_default();
        let value = records::check(bytes).and_then(|_| Reader::read(self, name, bytes, lent));
        value.map_err(|error: Error| error.in_record(name).in_object(self.name()))
    }
}
