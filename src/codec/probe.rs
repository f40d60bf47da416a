//! Whether bytes are worth coding: the entropy of a sample. Owns: the sample and the arithmetic, which is in integers, so
//! that every machine decides the same way and the same snapshot gives the same file.

/// Bytes that are looked at: runs spread evenly over all of them.
const SAMPLE: usize = 4096;
const RUN: usize = 64;

/// Entropy, in 1/256 bits a byte, from which on bytes are not coded: 7.6 bits. Coded they would save 5 % at most, less
/// than decoding them is worth. A sample of noise shows 7.95 bits, as it cannot hold every byte equally often. The
/// bound is the one of the project's design, where a prototype misjudged none of 630 planes of trained tensors.
const NOISE_FROM: u64 = 76 * 256 / 10;

/// Whether a sample of `bytes` is too close to noise to be coded.
pub fn is_noise(bytes: &[u8]) -> bool {
    entropy(&sample(bytes)) >= NOISE_FROM
}

fn sample(bytes: &[u8]) -> [u32; 256] {
    let mut counts = [0; 256];
    let step = if bytes.len() <= SAMPLE { RUN } else { bytes.len() / (SAMPLE / RUN) };
    for run in bytes.chunks(step) {
        run[..run.len().min(RUN)].iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    }
    counts
}

/// Entropy of order 0, in 1/256 bits.
fn entropy(counts: &[u32; 256]) -> u64 {
    let total: u32 = counts.iter().sum();
    if total == 0 {
        return 0;
    }
    let sum: u64 = counts.iter().map(|&count| u64::from(count) * log2(count)).sum();
    log2(total).saturating_sub(sum / u64::from(total))
}

/// The binary logarithm of `x`, in 1/256, rounded down; 0 for 0. The digits behind the point come one by one: squaring a
/// number doubles its logarithm.
fn log2(x: u32) -> u64 {
    let Some(whole) = x.checked_ilog2() else { return 0 };
    let mut mantissa = u64::from(x) << (31 - whole);
    (0..8).fold(whole.into(), |digits, _| {
        mantissa = (mantissa * mantissa) >> 31;
        let digit = mantissa >> 32;
        mantissa >>= digit;
        digits << 1 | digit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_floats() {
        for x in (1..=4200).chain([1 << 31, u32::MAX]) {
            let exact = f64::from(x).log2() * 256.0;
            assert!((0.0..1.001).contains(&(exact - log2(x) as f64)), "{x}: {exact} and {}", log2(x));
        }
        assert_eq!(log2(0), 0);
    }

    #[test]
    fn noise_is_told_from_exponents_at_every_length() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for len in [4096, 5000, 65_536, 262_144, 300_001] {
            let noise: Vec<u8> = (0..len).map(|_| next()).collect();
            assert!(is_noise(&noise), "{len} bytes");
            let exponents: Vec<u8> = noise.iter().map(|byte| 120 - byte.leading_zeros() as u8).collect();
            assert!(!is_noise(&exponents), "{len} bytes");
            // 7 bits of noise in each byte.
            let nearly: Vec<u8> = noise.iter().map(|byte| byte >> 1).collect();
            assert!(!is_noise(&nearly), "{len} bytes");
        }
        assert!(!is_noise(&[]));
        assert!(!is_noise(&[7; 100_000]));
    }
}
