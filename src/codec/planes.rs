//! The byte-plane filter: elements of n bytes become n planes, so that like bytes (exponents, high bytes) lie together.
//! Safe loops over fixed-size elements, which the compiler turns into vector code.

/// Splits `raw` into planes; both have the same length, a multiple of `element`.
pub fn split(raw: &[u8], element: usize, planes: &mut [u8]) {
    match element {
        2 => split_fixed::<2>(raw, planes),
        4 => split_fixed::<4>(raw, planes),
        8 => split_fixed::<8>(raw, planes),
        16 => split_fixed::<16>(raw, planes),
        _ => planes.copy_from_slice(raw),
    }
}

/// Undoes [`split`].
pub fn join(planes: &[u8], element: usize, raw: &mut [u8]) {
    match element {
        2 => join_fixed::<2>(planes, raw),
        4 => join_fixed::<4>(planes, raw),
        8 => join_fixed::<8>(planes, raw),
        16 => join_fixed::<16>(planes, raw),
        _ => raw.copy_from_slice(planes),
    }
}

fn split_fixed<const N: usize>(raw: &[u8], planes: &mut [u8]) {
    let count = raw.len() / N;
    let (elements, tail) = raw.as_chunks::<N>();
    for (byte, plane) in planes[..count * N].chunks_exact_mut(count.max(1)).enumerate() {
        for (out, element) in plane.iter_mut().zip(elements) {
            *out = element[byte];
        }
    }
    planes[count * N..].copy_from_slice(tail);
}

fn join_fixed<const N: usize>(planes: &[u8], raw: &mut [u8]) {
    let count = planes.len() / N;
    let (elements, tail) = raw.as_chunks_mut::<N>();
    for (byte, plane) in planes[..count * N].chunks_exact(count.max(1)).enumerate() {
        for (element, value) in elements.iter_mut().zip(plane) {
            element[byte] = *value;
        }
    }
    tail.copy_from_slice(&planes[count * N..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_like_bytes_together_and_join_to_what_was_split() {
        let raw = [1, 2, 3, 4, 11, 12, 13, 14];
        let mut planes = [0; 8];
        split(&raw, 4, &mut planes);
        assert_eq!(planes, [1, 11, 2, 12, 3, 13, 4, 14]);
        for element in [1, 2, 4, 8, 16] {
            let raw: Vec<u8> = (0..=255).cycle().take(16 * 37).collect();
            let (mut planes, mut back) = (vec![0; raw.len()], vec![0; raw.len()]);
            split(&raw, element, &mut planes);
            join(&planes, element, &mut back);
            assert_eq!(raw, back, "{element}");
        }
    }
}
