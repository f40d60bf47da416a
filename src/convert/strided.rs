//! Elements that lie otherwise than row-major and little-endian, brought into that order. Owns: gathering by strides
//! and swapping bytes, bounds checked before a byte is copied.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::tensor::element_count;

/// Whether strides are those of row-major order; axes of length 1 have any.
pub fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.iter().zip(strides).rev().all(|(&len, &stride)| {
        let fits = len == 1 || stride == expected;
        expected = expected.saturating_mul(len);
        fits
    })
}

/// Strides of column-major order.
pub fn column_major(shape: &[usize]) -> Vec<usize> {
    let strides = shape.iter().scan(1_usize, |next, &len| {
        let stride = *next;
        *next = next.saturating_mul(len);
        Some(stride)
    });
    strides.collect()
}

/// Elements that strides reach, counted from the first: what the source must hold.
pub fn reach(shape: &[usize], strides: &[usize]) -> Result<usize> {
    if element_count(shape)? == 0 {
        return Ok(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(0_usize, |last, (&len, &stride)| last.checked_add((len - 1).checked_mul(stride)?));
    last.and_then(|last| last.checked_add(1)).ok_or_else(|| Error::damaged("strides overflow"))
}

/// Gathers elements of `width` bytes into row-major order.
///
/// # Errors
/// `Damaged` when the strides reach beyond the source.
pub fn gather(source: &[u8], width: usize, shape: &[usize], strides: &[usize]) -> Result<Buffer> {
    let count = element_count(shape)?;
    let needed = reach(shape, strides)?.checked_mul(width);
    if needed.is_none_or(|needed| needed > source.len()) {
        return Err(
            Error::damaged("strides reach beyond the storage").found(format!("{} bytes", source.len()))
        );
    }
    let len = count.checked_mul(width).ok_or_else(|| Error::damaged("shape overflows"))?;
    let mut gathered = Buffer::zeroed(len)?;
    let mut index = vec![0_usize; shape.len()];
    let mut at = 0_usize;
    for target in gathered.chunks_exact_mut(width) {
        target.copy_from_slice(&source[at * width..][..width]);
        // Counts like an odometer: the last axis fastest. `at` follows without a multiplication per element.
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Ok(gathered)
}

/// Reverses the bytes of each element of `width` bytes.
pub fn swap(bytes: &mut [u8], width: usize) {
    bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_transposes_and_refuses_to_leave_the_source() {
        let source = [0, 1, 2, 3, 4, 5];
        assert_eq!(&*gather(&source, 1, &[3, 2], &column_major(&[3, 2])).unwrap(), &[0, 3, 1, 4, 2, 5]);
        assert_eq!(&*gather(&source, 1, &[2, 2], &[0, 1]).unwrap(), &[0, 1, 0, 1]);
        assert!(gather(&source, 1, &[3, 2], &[1, 4]).is_err());
        assert!(gather(&source, 1, &[usize::MAX, 2], &[usize::MAX, 1]).is_err());
        assert_eq!(gather(&source, 1, &[0, 9], &[7, 7]).unwrap().len(), 0);
    }

    #[test]
    fn row_major_is_told_from_the_rest() {
        assert!(is_row_major(&[2, 3], &[3, 1]));
        assert!(is_row_major(&[1, 3], &[77, 1]));
        assert!(!is_row_major(&[2, 3], &[1, 2]));
    }
}
