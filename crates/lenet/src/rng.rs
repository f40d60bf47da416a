//! Random numbers from a seed, with a state that can be saved: SplitMix64, xoshiro256++ and the
//! distributions drawn from it.
//!
//! Both generators: D. Blackman and S. Vigna, "Scrambled Linear Pseudorandom Number Generators",
//! ACM Transactions on Mathematical Software 47(4), 2021, <https://prng.di.unimi.it/>.

use serde::{Deserialize, Serialize};

/// SplitMix64: one word of state, good enough to seed another generator.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// From any seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// xoshiro256++. Serialised as its four words of state: a restored generator continues its
/// sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "[u64; 4]", try_from = "[u64; 4]")]
pub struct Rng {
    state: [u64; 4],
}

impl From<Rng> for [u64; 4] {
    fn from(rng: Rng) -> Self {
        rng.state
    }
}

impl TryFrom<[u64; 4]> for Rng {
    type Error = &'static str;

    fn try_from(state: [u64; 4]) -> Result<Self, Self::Error> {
        if state == [0; 4] {
            return Err("a xoshiro256++ state of all zeros, which gives zeros for ever");
        }
        Ok(Self { state })
    }
}

impl Rng {
    /// From a seed, through SplitMix64 as its authors recommend.
    pub fn new(seed: u64) -> Self {
        let mut words = SplitMix64::new(seed);
        Self { state: std::array::from_fn(|_| words.next_u64()) }
    }

    /// The generator of one item among many: a function of seed and index alone, independent of
    /// draws for other items.
    pub fn for_item(seed: u64, index: u64) -> Self {
        Self::new(SplitMix64::new(seed).next_u64() ^ SplitMix64::new(!index).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Uniform in [0, 1), all 53 bits of precision.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in [0, 1), all 24 bits of precision.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Uniform between `low` and `high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform_f32()
    }

    /// Uniform in 0..`bound`, without bias (Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019).
    ///
    /// # Panics
    /// If `bound` is 0: there is no such number.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let refused = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            if wide as u64 >= refused {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Normal with mean 0 and variance 1 (Box–Muller; the second value is dropped so that the state
    /// is all there is).
    pub fn normal(&mut self) -> f64 {
        // 1 − u is in (0, 1]: its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform_f64()).cos()
    }

    /// Fisher–Yates: every order is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut words = SplitMix64::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| words.next_u64()), expected);
    }

    /// The vector of the `rand_xoshiro` crate, which took it from the reference implementation in
    /// C.
    #[test]
    fn xoshiro256plusplus_gives_the_published_numbers() {
        let mut rng = Rng::try_from([1, 2, 3, 4]).unwrap();
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
            14_011_001_112_246_962_877,
            12_406_186_145_184_390_807,
            15_849_039_046_786_891_736,
            10_450_023_813_501_588_000,
        ];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn a_state_of_zeros_is_refused() {
        assert!(Rng::try_from([0; 4]).is_err());
    }

    #[test]
    fn uniform_and_normal_numbers_have_their_mean_and_variance() {
        let mut rng = Rng::new(7);
        let moments = |values: Vec<f64>| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
        };
        let count = 100_000;
        let (mean, variance) = moments((0..count).map(|_| rng.uniform_f64()).collect());
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
        let (mean, variance) = moments((0..count).map(|_| f64::from(rng.uniform_f32())).collect());
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
        let (mean, variance) = moments((0..count).map(|_| rng.normal()).collect());
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_gives_each_place_to_each() {
        let mut rng = Rng::new(11);
        let mut seen = [[0_u32; 5]; 5];
        for _ in 0..10_000 {
            let mut items = [0, 1, 2, 3, 4];
            rng.shuffle(&mut items);
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            for (place, &item) in items.iter().enumerate() {
                seen[item][place] += 1;
            }
        }
        assert!(seen.iter().flatten().all(|&count| (1800..2200).contains(&count)), "{seen:?}");
    }

    #[test]
    fn items_have_generators_of_their_own() {
        assert_eq!(Rng::for_item(1, 2), Rng::for_item(1, 2));
        assert_ne!(Rng::for_item(1, 2), Rng::for_item(2, 1));
        assert_ne!(Rng::for_item(1, 2), Rng::for_item(1, 3));
    }
}
