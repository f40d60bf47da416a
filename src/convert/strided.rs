//! Reorders elements into row-major, little-endian order: gathering by strides and swapping bytes.
//! Bounds are checked before any byte is copied.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::tensor::element_count;

/// Whether strides are in row-major order; those of axes of length 1 do not matter.
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

/// Elements that the source must hold: one past the last one reached.
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
        // Counts like an odometer: the last axis fastest. `at` is updated without a multiplication
        // per element.
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

/// Whether the elements are so sparse that reading everything between them is wasteful: two
/// elements at both ends of a storage are two reads, not one of the whole.
pub fn is_sparse(reach: usize, len: usize) -> bool {
    const TIMES: usize = 8;
    const AT_LEAST: usize = 1 << 16;
    reach > AT_LEAST && reach / TIMES > len
}

/// Like [`gather`], from a source that is read in pieces, with elements of `width` bytes from byte
/// `start` on. Bytes between elements are read only if they are few.
///
/// # Errors
/// As [`gather`], and errors of `read`.
pub fn gather_from(
    read: &dyn Fn(u64, usize) -> Result<Buffer>,
    start: u64,
    width: usize,
    shape: &[usize],
    strides: &[usize],
) -> Result<Buffer> {
    // Axes of length 1 have no effect; there are at most 63 others, which bounds the recursion.
    let axes = shape.iter().copied().zip(strides.iter().copied()).filter(|&(len, _)| len != 1);
    let (shape, strides): (Vec<usize>, Vec<usize>) = axes.unzip();
    gather_axes(read, start, width, &shape, &strides)
}

fn gather_axes(
    read: &dyn Fn(u64, usize) -> Result<Buffer>,
    start: u64,
    width: usize,
    shape: &[usize],
    strides: &[usize],
) -> Result<Buffer> {
    let too_long = || Error::damaged("strides overflow");
    let needed = reach(shape, strides)?.checked_mul(width).ok_or_else(too_long)?;
    let len = element_count(shape)?.checked_mul(width).ok_or_else(too_long)?;
    match (shape.split_first(), strides.split_first()) {
        (Some((&count, shape)), Some((&stride, strides))) if is_sparse(needed, len) => {
            let mut gathered = Buffer::zeroed(len)?;
            // OK to multiply: `reach` computed the last product. The shape has elements, or `reach`
            // would be 0.
            for (number, target) in gathered.chunks_exact_mut(len / count).enumerate() {
                let start = start + (number * stride * width) as u64;
                target.copy_from_slice(&gather_axes(read, start, width, shape, strides)?);
            }
            Ok(gathered)
        }
        _ => gather(&read(start, needed)?, width, shape, strides),
    }
}

/// Reverses the bytes of each element of `width` bytes.
pub fn swap(bytes: &mut [u8], width: usize) {
    for element in bytes.chunks_exact_mut(width) {
        element.reverse();
    }
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
    fn a_sparse_view_reads_its_elements_and_not_the_rest() {
        let source: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let read_bytes = std::cell::Cell::new(0);
        let read = |start: u64, len: usize| {
            read_bytes.set(read_bytes.get() + len);
            Buffer::copy_of(&source[start as usize..][..len])
        };
        for (shape, strides) in [(&[2, 3][..], &[99_990, 2][..]), (&[3, 2], &[2, 99_990]), (&[2], &[99_990])]
        {
            read_bytes.set(0);
            let gathered = gather_from(&read, 4, 2, shape, strides).unwrap();
            let whole = gather(&source[4..], 2, shape, strides).unwrap();
            assert_eq!(&*gathered, &*whole, "{shape:?}");
            assert!(read_bytes.get() < 100, "{shape:?}: {} bytes", read_bytes.get());
        }
    }

    #[test]
    fn row_major_is_told_from_the_rest() {
        assert!(is_row_major(&[2, 3], &[3, 1]));
        assert!(is_row_major(&[1, 3], &[77, 1]));
        assert!(!is_row_major(&[2, 3], &[1, 2]));
    }
}
