//! Fast copies. They avoid the slow path of `rep movsb` (4K aliasing) and offer non-temporal stores
//! for large copies, which take an unsafe block: hence a crate of its own.

const PAGE: usize = 4096;

/// Length of the pieces that the C library copies in registers.
const PIECE: usize = 2048;

/// The C library uses `rep movsb` up to the size of a core's second-level cache, half a MiB to one
/// MiB; its method beyond that is a third faster than pieces are.
const LARGE: usize = 1 << 20;

/// Whether `rep movsb` copies from `source` to `target` at a fraction of its speed (4K aliasing).
/// On AMD's Zen 3 it does where the target lies 1 to 31 bytes further into its page than the source
/// into its own, because the processor takes its latest stores for the next loads (2 instead of 30
/// GB/s in cache, 2 instead of 7 from memory or the page cache). Kernels copy this way in `read`,
/// and so does glibc before 2.40 (its bug 30994). Large allocations of the C library begin 16 bytes
/// into a page, and tensors in a file at the start of one. Only the offset within a page counts, so
/// `source` may be an offset in a file.
pub fn is_slow(source: usize, target: &[u8]) -> bool {
    (1..32).contains(&(target.as_ptr().addr().wrapping_sub(source) % PAGE))
}

/// Copies as [`slice::copy_from_slice`] does.
///
/// # Panics
/// If the lengths differ, as do all functions of this crate.
pub fn copy(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes to copy");
    if from.len() < LARGE && is_slow(from.as_ptr().addr(), to) {
        for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
            to.copy_from_slice(from);
        }
    } else {
        to.copy_from_slice(from);
    }
}

/// From this total on, the first bytes have left the nearer caches when they are next read.
const FAR: u64 = 8 << 20;

/// Copies many pieces in the way that suits their total. The default is [`copy`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Copier {
    past_caches: bool,
}

impl Copier {
    /// For pieces of `bytes` in total: non-temporal stores from 8 MiB on. These are a third faster
    /// where the target has been written before, and a fifth slower where the kernel has yet to
    /// clear its pages.
    pub fn for_total(bytes: u64) -> Self {
        Self { past_caches: bytes >= FAR }
    }

    /// Copies one of the pieces, as [`slice::copy_from_slice`] does.
    pub fn copy(self, from: &[u8], to: &mut [u8]) {
        if self.past_caches { copy_past_caches(from, to) } else { copy(from, to) }
    }
}

/// Copies as [`slice::copy_from_slice`] does, for many megabytes that are not read again soon:
/// non-temporal stores on x86-64, so that no line of the target is read before it is overwritten
/// and the caches keep their contents.
///
/// That is a third less traffic: two threads copy 1.8 GB in tensors of 12 MiB at 18 to 20 instead
/// of 12 to 13 GB/s, and 8 MiB in total at 9 instead of 7.6 (measured on AMD's Zen 3). The C
/// library does the same, but only for a single copy of more than three quarters of the last-level
/// cache as it detects it: 192 MiB in a virtual machine that reports a whole EPYC's.
fn copy_past_caches(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes to copy");
    #[cfg(target_arch = "x86_64")]
    if from.len() >= PAGE {
        return stream::copy(from, to);
    }
    copy(from, to);
}

#[cfg(target_arch = "x86_64")]
mod stream {
    /// Bytes of a cache line.
    const LINE: usize = 64;

    pub fn copy(from: &[u8], to: &mut [u8]) {
        // Only whole lines are written without being read.
        let start = to.as_ptr().align_offset(LINE).min(to.len());
        let end = start + (to.len() - start) / LINE * LINE;
        to[..start].copy_from_slice(&from[..start]);
        copy_lines(&from[start..end], &mut to[start..end]);
        to[end..].copy_from_slice(&from[end..]);
    }

    /// In assembly, because a loop over intrinsics is as fast only in optimised builds: in a
    /// trainer built for debugging it takes a hundred times as long as the C library's copy.
    ///
    /// From the last line to the first: where the target lies a little further into its page than
    /// the source, the next load would alias the latest store, as in `rep movsb`, and that costs a
    /// fifth.
    #[expect(unsafe_code, reason = "no safe function stores past the caches; see SAFETY")]
    fn copy_lines(from: &[u8], to: &mut [u8]) {
        let len = to.len();
        assert!(
            from.len() == len && len.is_multiple_of(LINE),
            "lines to copy: {} to {len} bytes",
            from.len()
        );
        assert!(to.as_ptr().addr().is_multiple_of(LINE), "lines begin at multiples of {LINE}");
        if len == 0 {
            return;
        }
        // SAFETY: `left` begins as `len`, a multiple of 64 that is not 0; each round subtracts 64
        // first, and the round that leaves 0 is the last. So a round loads bytes `left` to `left +
        // 64` of `from`, from any address, as `movups` may, and stores them to the same range of
        // `to`, which is exclusively borrowed and aligned to more than the 16 bytes that `movntps`
        // requires. These are SSE instructions, part of every x86-64. Non-temporal stores are
        // weakly ordered until their thread's `sfence`, with which this ends: seen from outside, it
        // is an ordinary copy. It touches no stack, no register but those named, and the flags,
        // which the compiler treats as clobbered.
        unsafe {
            std::arch::asm!(
                "2:",
                "sub {left}, 64",
                "movups {a}, [{from} + {left}]",
                "movups {b}, [{from} + {left} + 16]",
                "movups {c}, [{from} + {left} + 32]",
                "movups {d}, [{from} + {left} + 48]",
                "movntps [{to} + {left}], {a}",
                "movntps [{to} + {left} + 16], {b}",
                "movntps [{to} + {left} + 32], {c}",
                "movntps [{to} + {left} + 48], {d}",
                "jnz 2b", // by the flags of `sub`: moves leave them
                "sfence",
                left = inout(reg) len => _,
                from = in(reg) from.as_ptr(),
                to = in(reg) to.as_mut_ptr(),
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies to every alignment, and checks every byte of the target and around it.
    fn check(copy: fn(&[u8], &mut [u8]), lens: &[usize]) {
        let source: Vec<u8> = (0..lens.iter().max().unwrap() + 7).map(|i| (i * i + i / 256) as u8).collect();
        for &len in lens {
            for place in [0, 1, 15, 16, 20, 31, 32, PAGE - 1] {
                for from in [&source[..len], &source[7..][..len]] {
                    let mut target = vec![0xEE; len + 2 * PAGE];
                    let start = (from.as_ptr().addr() + place).wrapping_sub(target.as_ptr().addr()) % PAGE;
                    let to = &mut target[start..][..len];
                    assert_eq!(
                        is_slow(from.as_ptr().addr(), to),
                        (1..32).contains(&place),
                        "{place} further"
                    );
                    copy(from, to);
                    assert!(*to == *from, "{len} bytes, {place} further");
                    let around = target[..start].iter().chain(&target[start + len..]);
                    assert!(
                        around.copied().all(|byte| byte == 0xEE),
                        "{len} bytes, {place} further: too many"
                    );
                }
            }
        }
    }

    #[test]
    fn copies_are_exact_at_every_alignment() {
        check(copy, &[0, 1, PIECE, PIECE + 1, 2 * PAGE + 3, LARGE + 1]);
    }

    #[test]
    fn non_temporal_copies_are_exact_at_every_alignment() {
        check(copy_past_caches, &[0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 15, 2 * PAGE + 16, LARGE + 17]);
    }

    #[test]
    fn another_thread_sees_a_non_temporal_copy() {
        let mut target = vec![0; 64 << 10];
        for round in 1..=200_u8 {
            std::thread::scope(|scope| {
                scope.spawn(|| copy_past_caches(&[round; 64 << 10], &mut target)).join()
            })
            .unwrap();
            assert!(target.iter().all(|&byte| byte == round), "round {round}");
        }
    }

    #[test]
    #[should_panic = "bytes to copy"]
    fn slices_of_different_lengths_are_not_copied() {
        copy_past_caches(&[0; 2 * PAGE], &mut [0; 2 * PAGE + 1]);
    }
}
