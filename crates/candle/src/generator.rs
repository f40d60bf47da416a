//! A random generator that a checkpoint records, where candle's own for the CPU can be neither
//! seeded nor read.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tensorkeep::{Dtype, Result, StateDict, StateDictMut, Stateful, TensorMut};

/// The name of its state, and the state's length: four words of seed, the stream, and the position
/// as two words.
const STATE: &str = "chacha8";
const WORDS: usize = 7;
const BYTES: usize = WORDS * 8;

/// ChaCha with 8 rounds (of `rand_chacha`), whose whole state is one tensor of 56 bytes.
///
/// A clone is the same generator: layers, first weights and shuffles may share one, and their draws
/// follow each other. Two generators of different seeds are independent.
///
/// ```
/// use tensorkeep::{Checkpoint, Snapshot, Stateful};
/// use tensorkeep_candle::Generator;
///
/// let generator = Generator::seeded(1);
/// let snapshot = Snapshot::new().state_dict("dropout", generator.state_dict()?)?;
/// let next = generator.uniform(3);
/// # let bytes = Snapshot::new().state_dict("dropout", Generator::seeded(1).state_dict()?)?.to_bytes(&Default::default())?;
/// # drop(snapshot);
/// # let checkpoint = Checkpoint::from_bytes(&bytes)?;
/// // … saved, and opened again as `checkpoint` …
/// let mut resumed = Generator::seeded(0);
/// checkpoint.load_state_dict("dropout", &mut resumed)?;
/// assert_eq!(resumed.uniform(3), next);
/// # Ok::<(), tensorkeep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Generator(Arc<Mutex<ChaCha8Rng>>);

impl Generator {
    /// A generator whose numbers are determined by this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed))))
    }

    /// The generator itself, for drawing with the crate `rand`. Locked while the result lives.
    pub fn rng(&self) -> MutexGuard<'_, impl rand::Rng + use<>> {
        self.lock()
    }

    /// As many numbers, uniform in 0..1 without 1.
    pub fn uniform(&self, count: usize) -> Vec<f32> {
        use rand::RngExt;
        let mut rng = self.lock();
        (0..count).map(|_| rng.random()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, ChaCha8Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let rng = self.lock();
        let mut bytes = rng.get_seed().to_vec();
        bytes.extend(rng.get_stream().to_le_bytes());
        bytes.extend(rng.get_word_pos().to_le_bytes());
        bytes
    }

    fn set_bytes(&self, bytes: &[u8; BYTES]) {
        let part = |from: usize| bytes[from..from + 8].try_into().map_or(0, u64::from_le_bytes);
        let mut seed = [0; 32];
        seed.copy_from_slice(&bytes[..32]);
        let mut rng = ChaCha8Rng::from_seed(seed);
        rng.set_stream(part(32));
        rng.set_word_pos(u128::from(part(40)) | u128::from(part(48)) << 64);
        *self.lock() = rng;
    }
}

impl Stateful for Generator {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        let bytes: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(self.to_bytes());
        StateDict::new().with(STATE, (Dtype::U64, &[WORDS][..], bytes))
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let target = TensorMut::written_by(Dtype::U64, &[WORDS], |bytes| {
            if let Ok(bytes) = bytes.try_into() {
                self.set_bytes(bytes); // always: the length was checked
            }
            Ok(())
        });
        StateDictMut::new().with(STATE, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorkeep::{Checkpoint, Snapshot};

    #[test]
    fn a_restored_generator_goes_on_with_the_same_numbers() {
        for drawn in [0, 1, 15, 16, 63, 64, 65, 1000] {
            let generator = Generator::seeded(7);
            generator.uniform(drawn);
            let snapshot = Snapshot::new().state_dict("g", generator.state_dict().unwrap()).unwrap();
            let bytes = snapshot.to_bytes(&Default::default()).unwrap();
            let mut resumed = Generator::seeded(8);
            assert_ne!(resumed.uniform(20), generator.clone().uniform(20));
            Checkpoint::from_bytes(&bytes).unwrap().load_state_dict("g", &mut resumed).unwrap();
            let again = Generator::seeded(7);
            again.uniform(drawn);
            assert_eq!(resumed.uniform(100), again.uniform(100), "after {drawn}");
        }
    }

    #[test]
    fn a_clone_is_the_same_generator() {
        let generator = Generator::seeded(1);
        let clone = generator.clone();
        let together = Generator::seeded(1).uniform(4);
        assert_eq!([generator.uniform(2), clone.uniform(2)].concat(), together);
    }
}
