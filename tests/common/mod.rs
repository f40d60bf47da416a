//! What several test files share: containers in memory, opened as if read or as if mapped, and a
//! snapshot with every kind of tensor.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use tensorkeep::engine::Blob;
use tensorkeep::{
    Checkpoint, Codec, Dtype, Error, ErrorKind, OpenOptions, Progress, Result, Snapshot, Tensor,
    tensor::Buffer,
};

/// Every way to store chunks: what tests and fuzzers do to one, they do to all. A new codec is one
/// more line here.
pub const CODECS: &[Codec] = &[Codec::Raw, Codec::Balanced, Codec::Max];

/// Bytes as an object: `mapped` decides whether they are handed out in place.
#[derive(Debug)]
pub struct InMemory {
    pub bytes: Buffer,
    pub mapped: bool,
}

impl Blob for InMemory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.bytes.get(start..start.checked_add(buffer.len())?));
        let bytes =
            bytes.ok_or_else(|| Error::new(ErrorKind::Damaged, "read past the end").at_byte(offset))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        self.mapped.then_some(&self.bytes)
    }
}

pub fn open(bytes: &[u8], mapped: bool) -> Result<Checkpoint> {
    open_with(bytes, mapped, OpenOptions::new())
}

pub fn open_with(bytes: &[u8], mapped: bool, options: OpenOptions) -> Result<Checkpoint> {
    let blob = InMemory { bytes: Buffer::copy_of(bytes)?, mapped };
    options.open_blob(Arc::new(blob), "memory")
}

/// Elements that no codec takes for noise or for constants.
pub fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin() * 0.05).collect()
}

/// Small and large, empty and scalar, tied and constant tensors, and records.
pub struct Zoo {
    pub large: Vec<f32>,
    pub small: Vec<i16>,
    pub constant: Vec<f64>,
}

impl Zoo {
    pub fn new() -> Self {
        Self { large: wave(100_000), small: (0..37).collect(), constant: vec![0.25; 20_000] }
    }

    pub fn snapshot(&self) -> Snapshot<'_> {
        let mut snapshot = Snapshot::new();
        let shape = [100, 1000];
        snapshot = snapshot.tensor("large", (&shape[..], self.large.as_slice())).unwrap();
        snapshot = snapshot.tensor("tied", (&shape[..], self.large.as_slice())).unwrap();
        snapshot = snapshot.tensor("small", &self.small).unwrap();
        snapshot = snapshot.tensor("constant", &self.constant).unwrap();
        snapshot = snapshot.tensor("empty", Tensor::new(Dtype::Bf16, &[3, 0, 2], &[]).unwrap()).unwrap();
        snapshot = snapshot.tensor("scalar", Tensor::new(Dtype::Bool, &[], &[1]).unwrap()).unwrap();
        snapshot = snapshot.tensor("fp8", Tensor::new(Dtype::F8E4M3Fn, &[3], &[1, 2, 255]).unwrap()).unwrap();
        snapshot = snapshot.record("optimizer", &("adam", 0.001, vec![0.9, 0.999])).unwrap();
        snapshot = snapshot.metric("loss", 0.125).unwrap().metadata("run", "zoo").unwrap();
        snapshot = snapshot.progress(Progress::new(1200).epoch(3));
        snapshot
    }
}

/// A folder that is gone after the test.
pub struct TempFolder(std::path::PathBuf);

impl TempFolder {
    pub fn new(name: &str) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let path = std::env::temp_dir().join(format!("tensorkeep-{name}-{nonce:032x}"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
