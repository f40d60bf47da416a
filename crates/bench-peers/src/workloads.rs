//! The saved and loaded models by name, and their values in shared memory, so that every process
//! measures with the same bytes and none has to make them again.

use crate::Outcome;
use crate::weights::{self, Model};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// One of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// LeNet-5 and Adam, 0.74 MB.
    Small,
    /// ResNet-50 and momentum, 204 MB.
    Medium,
    /// GPT-2 of medium width and Adam, 1.84 GB.
    Large,
    /// Many tensors of 64 floats, [`NUMEROUS`] by default.
    Numerous,
}

/// Tensors of [`Workload::Numerous`].
pub const NUMEROUS: usize = 100_000;

impl Workload {
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Numerous];

    /// Its letter in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "s",
            Self::Medium => "m",
            Self::Large => "l",
            Self::Numerous => "n",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Its tensors; `quick` makes the large one smaller, and `numerous` is the number of the
    /// numerous.
    pub fn model(self, quick: bool, numerous: usize) -> Model {
        match self {
            Self::Small => weights::lenet(),
            Self::Medium => weights::resnet50(),
            Self::Large => weights::gpt2(if quick { 1 } else { 8 }),
            Self::Numerous => weights::many(numerous),
        }
    }
}

/// A tensor's range of the values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub offset: usize,
    pub len: usize,
}

/// The place of a model's values: given to children, also in Python.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// The shared memory, as a path.
    memory: PathBuf,
    tensors: Vec<Entry>,
}

/// Values in shared memory, for as long as this lives.
pub struct Values {
    _memory: File,
    manifest: PathBuf,
    pub payload: u64,
    pub tensors: usize,
    /// The expected sum of loading everything; see [`sum`].
    pub sum: u64,
}

/// Tensors start at multiples of this, as with an allocator.
const ALIGN: usize = 64;

impl Values {
    /// Puts a model's values into shared memory, sorted by name: ztensor's canonical form requires
    /// it, and then all formats return tensors in the same order.
    pub fn share(mut model: Model, manifest: PathBuf) -> Outcome<Self> {
        model.sort_by(|one, other| one.name.cmp(&other.name));
        let memory = File::from(rustix::fs::memfd_create("bench-peers", MemfdFlags::CLOEXEC)?);
        let mut out = BufWriter::with_capacity(1 << 20, &memory);
        let (mut tensors, mut offset, mut mixed) = (Vec::with_capacity(model.len()), 0, 0);
        for weights in model {
            let bytes: &[u8] = bytemuck::cast_slice(&weights.elements);
            out.write_all(bytes)?;
            let len = bytes.len();
            out.write_all(&[0; ALIGN][..len.next_multiple_of(ALIGN) - len])?;
            mixed = mix(mixed, bytes);
            tensors.push(Entry { name: weights.name, shape: weights.shape, offset, len });
            offset += len.next_multiple_of(ALIGN);
        }
        out.flush()?;
        drop(out);
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        let (payload, count) = (tensors.iter().map(|entry| entry.len as u64).sum(), tensors.len());
        fs::write(&manifest, serde_json::to_vec(&Manifest { memory: path.into(), tensors })?)?;
        Ok(Self { _memory: memory, manifest, payload, tensors: count, sum: mixed })
    }

    /// The file that describes the values.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.manifest);
    }
}

/// The values, mapped, as a trainer would hold them in memory.
pub struct State {
    memory: memmap2::Mmap,
    pub tensors: Vec<Entry>,
}

impl State {
    /// Maps the values and makes every page present.
    #[expect(unsafe_code, reason = "mapping rests on a promise")]
    pub fn open(manifest: &Path) -> Outcome<Self> {
        let Manifest { memory, tensors } = serde_json::from_slice(&fs::read(manifest)?)?;
        // SAFETY: the shared memory is not written once its manifest exists: see `Values::share`.
        let memory = unsafe { memmap2::MmapOptions::new().populate().map(&File::open(memory)?) }?;
        Ok(Self { memory, tensors })
    }

    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.memory[entry.offset..entry.offset + entry.len]
    }

    /// All values in one piece, with the gaps between tensors.
    pub fn all(&self) -> &[u8] {
        &self.memory
    }

    pub fn payload(&self) -> u64 {
        self.tensors.iter().map(|entry| entry.len as u64).sum()
    }

    pub fn elements(&self) -> u64 {
        self.payload() / 4
    }
}

/// Reads every byte of several tensors: the same loop for all systems. Swapping two tensors changes
/// the sum.
pub fn sum<B: AsRef<[u8]>>(parts: impl IntoIterator<Item = B>) -> u64 {
    parts.into_iter().fold(0, |total, part| mix(total, part.as_ref()))
}

/// [`sum`], one tensor further.
pub fn mix(total: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = black_box(bytes).as_chunks::<8>();
    let words = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    let bytes = rest.iter().fold(words, |sum, &byte| sum.wrapping_add(u64::from(byte)));
    black_box(total.wrapping_mul(31).wrapping_add(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_values_are_the_model_in_the_order_of_names() {
        let model = Workload::Small.model(true, NUMEROUS);
        let manifest = std::env::temp_dir().join(format!("bench-peers-values-{}.json", std::process::id()));
        let values = Values::share(Workload::Small.model(true, NUMEROUS), manifest.clone()).unwrap();
        let state = State::open(&manifest).unwrap();
        assert_eq!((state.payload(), state.tensors.len()), (weights::payload(&model), model.len()));
        assert_eq!(sum(state.tensors.iter().map(|entry| state.bytes(entry))), values.sum);
        assert!(state.tensors.is_sorted_by(|one, other| one.name < other.name));
        for weights in &model {
            let entry = state.tensors.iter().find(|entry| entry.name == weights.name).unwrap();
            assert_eq!(state.bytes(entry), bytemuck::cast_slice::<f32, u8>(&weights.elements));
        }
        drop(values);
        assert!(!manifest.exists());
    }

    #[test]
    fn the_sum_sees_a_changed_byte_and_a_changed_order() {
        let (one, other) = (vec![1_u8; 24], vec![2_u8; 24]);
        let expected = sum([&one, &other]);
        assert_ne!(sum([&other, &one]), expected);
        let mut changed = one.clone();
        changed[23] ^= 0x80;
        assert_ne!(sum([&changed, &other]), expected);
        assert_ne!(sum([&one[..23], &other]), expected, "also a last byte that fills no word");
    }

    #[test]
    fn no_workload_is_of_zeros() {
        for workload in [Workload::Small, Workload::Numerous] {
            let model = workload.model(true, NUMEROUS);
            let zeros = model.iter().flat_map(|weights| &weights.elements).filter(|&&x| x == 0.0).count();
            assert!(zeros * 1000 < weights::payload(&model) as usize / 4, "{zeros} zeros");
        }
    }
}
