//! torch's description of a tensor: a view of a storage, and the bytes that it reaches.

use super::elements::ElementType;
use crate::convert::{lie, strided};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{byte_len, element_count};

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub storage: String,
    pub element: ElementType,
    /// In elements, as are the strides.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    /// Operations that torch defers until the tensor is used.
    pub conj: bool,
    pub neg: bool,
}

impl View {
    /// The view as a view of bytes, if several elements share a byte: torch starts each row with a
    /// new byte. None for other elements.
    ///
    /// # Errors
    /// `Unsupported` for a view of less than its whole storage, whose elements would begin within a
    /// byte.
    pub fn of_bytes(&self) -> Result<Option<Self>> {
        if self.element.per_byte == 1 {
            return Ok(None);
        }
        if self.offset != 0 || !strided::is_row_major(&self.shape, &self.strides) {
            return Err(unreadable(
                "a view of elements that share bytes, other than the whole of its storage",
            ));
        }
        let mut shape = self.shape.clone();
        if let Some(row) = shape.last_mut() {
            *row = row.div_ceil(self.element.per_byte);
        }
        let mut strides = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        Ok(Some(Self { shape, strides, ..self.clone() }))
    }

    pub fn extent(&self) -> Result<Extent> {
        let overflow = || Error::damaged("offset overflows");
        let width = self.element.width;
        let count = element_count(&self.shape).map_err(lie)?;
        if count == 0 {
            // An empty view may begin beyond its storage, as `torch.zeros(4, 0)[3]` does.
            return Ok(Extent { start: 0, end: 0, len: 0 });
        }
        let start = self.offset.checked_mul(width).ok_or_else(overflow)?;
        let reach = strided::reach(&self.shape, &self.strides).map_err(lie)?;
        let reach = reach.checked_mul(width).ok_or_else(overflow)?;
        let end = start.checked_add(reach).ok_or_else(overflow)?;
        let len = count.checked_mul(width).ok_or_else(overflow)?;
        let len = byte_len(Dtype::Opaque, &[len]).map_err(lie)?;
        Ok(Extent { start, end, len })
    }
}

/// The bytes of a storage from a view's first element to its last, and the view's own length. All
/// are 0 for an empty view.
pub struct Extent {
    pub start: usize,
    pub end: usize,
    pub len: usize,
}

/// A storage, as a persistent id describes it.
pub struct StorageId {
    pub key: String,
    /// None for untyped storages.
    pub element: Option<ElementType>,
    /// Number of elements, by the id.
    pub count: usize,
    /// Start of a view of a storage, in files before torch 1.6.
    pub offset: usize,
}

/// The error for a description that torch would not write. Only this tensor is lost.
pub fn unreadable(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, what)
}
