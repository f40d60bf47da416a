//! A tensor of a foreign file: its description and the source of its bytes, which are checked to be
//! within the file.

use super::lie;
use super::meaning::Meaning;
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, Result};
use crate::tensor::byte_len;
use std::fmt;
use std::sync::Arc;

/// A tensor of a foreign file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignTensor {
    /// Name, valid in a checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Length in bytes.
    pub byte_len: usize,
    /// The earlier tensor that owns the bytes, if this is an alias.
    pub alias_of: Option<String>,
    /// Its index among the file's tensors; `alias_of` is its name, set once names are final.
    pub(super) alias_index: Option<usize>,
    pub(super) place: Place,
    /// The meaning of opaque bytes in their format.
    pub(super) meaning: Option<Meaning>,
}

/// The source of a tensor's little-endian, row-major bytes.
#[derive(Clone)]
pub(super) enum Place {
    /// Read in place at this offset.
    At(Arc<dyn Blob>, u64),
    /// Produced on request: inflated, gathered, swapped.
    Made(Arc<dyn Fn() -> Result<Buffer> + Send + Sync>),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(_, offset) => write!(f, "At({offset})"),
            Self::Made(_) => f.write_str("Made"),
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::At(_, a), Self::At(_, b)) if a == b)
    }
}

impl Eq for Place {}

/// Length of a piece of [`Foreign::visit_chunks_with`](super::Foreign::visit_chunks_with).
pub(super) const PIECE: usize = 1 << 20;

impl ForeignTensor {
    pub(super) fn new(name: String, dtype: Dtype, shape: Vec<usize>, place: Place) -> Result<Self> {
        let byte_len = byte_len(dtype, &shape).map_err(|error| lie(error).in_tensor(&name))?;
        if let Place::At(blob, offset) = &place {
            let end = offset.checked_add(byte_len as u64);
            if end.is_none_or(|end| end > blob.len()) {
                return Err(Error::damaged("the tensor's bytes go beyond the end of the file")
                    .in_tensor(name)
                    .at_byte(*offset)
                    .expected(format!("{byte_len} bytes"))
                    .found(format!("{} in the file", blob.len())));
            }
        }
        Ok(Self { name, dtype, shape, byte_len, alias_of: None, alias_index: None, place, meaning: None })
    }

    /// Sets the meaning of opaque bytes in their format.
    pub(super) fn meaning(self, prefix: &'static str, text: String) -> Self {
        Self { meaning: Some(Meaning { prefix, text }), ..self }
    }

    /// Number of pieces for [`Foreign::visit_chunks_with`](super::Foreign::visit_chunks_with): of 1
    /// MiB if the bytes are read in place, else one.
    pub fn chunks(&self) -> usize {
        match self.place {
            Place::At(..) => self.byte_len.div_ceil(PIECE),
            Place::Made(_) => usize::from(self.byte_len > 0),
        }
    }

    /// Bytes of each of these pieces; the last may have fewer.
    pub fn chunk_len(&self) -> usize {
        match self.place {
            Place::At(..) => PIECE,
            Place::Made(_) => self.byte_len,
        }
    }

    pub(super) fn load(&self) -> Result<Buffer> {
        match &self.place {
            Place::At(blob, offset) => {
                let mut buffer = Buffer::zeroed(self.byte_len)?;
                blob.read_at(*offset, &mut buffer)?;
                Ok(buffer)
            }
            Place::Made(make) => make(),
        }
    }
}
