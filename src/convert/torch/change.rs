//! What has to be done to a tensor's bytes besides gathering them: the operations that torch defers
//! until a tensor is used, and the byte order of the machine that wrote them.

use super::elements::ElementType;
use super::view::{View, unreadable};
use crate::convert::strided;
use crate::dtype::Dtype;
use crate::error::Result;

/// The effect of torch's bits `conj` and `neg` on numbers, and of the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    element: ElementType,
    is_big_endian: bool,
    /// For a complex number its real and imaginary part, for others only the first.
    negates: [bool; 2],
}

impl Change {
    /// None where the bytes are the tensor's as they are.
    ///
    /// # Errors
    /// `Unsupported` for a negated view of a dtype that is not negated here.
    pub fn of(view: &View, is_big_endian: bool) -> Result<Option<Self>> {
        let &View { element, conj, neg, .. } = view;
        let is_big_endian = is_big_endian && element.part() > 1;
        let negates = [neg, neg != (conj && element.is_complex())];
        if negates == [false, false] {
            return Ok(is_big_endian.then_some(Self { element, is_big_endian, negates }));
        }
        let is_integer = matches!(
            element.dtype,
            Dtype::U8
                | Dtype::I8
                | Dtype::U16
                | Dtype::I16
                | Dtype::U32
                | Dtype::I32
                | Dtype::U64
                | Dtype::I64
        );
        if !element.is_float() && !is_integer {
            return Err(unreadable("a negated view of a dtype that is not negated here"));
        }
        Ok(Some(Self { element, is_big_endian, negates }))
    }

    pub fn apply(self, bytes: &mut [u8]) {
        if self.is_big_endian {
            strided::swap(bytes, self.element.part());
        }
        if self.negates == [false, false] {
            return;
        }
        let parts = bytes.chunks_exact_mut(self.element.part()).enumerate();
        for (number, part) in parts {
            let which = if self.element.is_complex() { number % 2 } else { 0 };
            if !self.negates[which] {
                continue;
            }
            if self.element.is_float() {
                if let Some(last) = part.last_mut() {
                    *last ^= 0x80;
                }
            } else {
                negate(part);
            }
        }
    }
}

/// Negates a little-endian integer, wrapping.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_negated_as_they_wrap() {
        for value in [0_i32, 1, -1, 256, -65536, i32::MIN, i32::MAX] {
            let mut bytes = value.to_le_bytes();
            negate(&mut bytes);
            assert_eq!(i32::from_le_bytes(bytes), value.wrapping_neg());
        }
    }
}
