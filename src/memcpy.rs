//! Copying at memory's speed whatever the places. Owns: which places are copied slowly, by the kernel and by the C library,
//! and the way around it here. How a file is read around it is in `engine/local/blob.rs`.

const PAGE: usize = 4096;

/// A piece that the C library copies in registers.
const PIECE: usize = 2048;

/// The C library uses `rep movsb` up to the size of a core's second cache, which is half a MiB to one; beyond, what it does
/// is a third faster than pieces are.
const LARGE: usize = 1 << 20;

/// Whether `rep movsb` copies from `source` to `target` at a fraction of its speed: it does where the target lies 1 to 31
/// bytes further into its page than the source into its own, on AMD's Zen 3, which takes what it has just stored for what
/// it loads next (2 instead of 30 GB/s in cache, 2 instead of 7 from memory or the page cache). Kernels copy what is read
/// this way, and glibc before 2.40 does (its bug 30994). Large allocations of the C library begin 16 bytes into a page, and
/// tensors in a file at the beginning of one. Only the place within a page counts, so that `source` may be an offset in a
/// file.
pub fn is_slow(source: usize, target: &[u8]) -> bool {
    (1..32).contains(&(target.as_ptr().addr().wrapping_sub(source) % PAGE))
}

/// As [`slice::copy_from_slice`].
pub fn copy(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes to copy");
    if from.len() < LARGE && is_slow(from.as_ptr().addr(), to) {
        to.chunks_mut(PIECE).zip(from.chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
    } else {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_is_the_same_at_every_place() {
        let source: Vec<u8> = (0..3 * PAGE + 7).map(|i| (i * i) as u8).collect();
        for len in [0, 1, PIECE, PIECE + 1, 2 * PAGE + 3] {
            for place in [0, 1, 16, 20, 31, 32, PAGE - 1] {
                let mut target = vec![0xEE; 4 * PAGE];
                let start = (source.as_ptr().addr() + place).wrapping_sub(target.as_ptr().addr()) % PAGE;
                let to = &mut target[start..][..len];
                assert_eq!(is_slow(source.as_ptr().addr(), to), (1..32).contains(&place), "{place} further");
                copy(&source[..len], to);
                assert!(*to == source[..len], "{len} bytes, {place} further");
                assert!(target[start + len..].iter().all(|&byte| byte == 0xEE));
            }
        }
    }
}
