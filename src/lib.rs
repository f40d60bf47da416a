//! A crash-safe checkpoint store for machine-learning training.

#[cfg(target_endian = "big")]
compile_error!("tensorkeep maps little-endian tensors in place and does not support big-endian targets");

mod buffer;
mod dtype;
pub mod engine;
mod error;
mod format;
mod tensor;

pub use buffer::Buffer;
pub use dtype::{Dtype, Element};
pub use error::{Error, ErrorKind, Result};
pub use tensor::{SharedBytes, Tensor, byte_len, element_count};
