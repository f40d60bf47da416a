//! Any snapshot: either it is refused when it is made, or it comes back the same.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tensorkeep::{Codec, Dtype, Progress, Snapshot, Tensor, WriteOptions};

type Record = Vec<Option<(String, i64)>>;

/// A tensor before its numbers are brought into bounds.
#[derive(Arbitrary, Debug)]
struct Announced {
    name: String,
    dtype: u8,
    shape: Vec<u8>,
    stretch: u8,
    pattern: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    tensors: Vec<Announced>,
    ties: Vec<(String, String)>,
    records: Vec<(String, Record)>,
    metrics: Vec<(String, f64)>,
    metadata: Vec<(String, String)>,
    progress: Option<(u64, u64)>,
    codec: u8,
    chunk_log2: u8,
    workers: u8,
    mapped: bool,
}

/// A tensor's bytes: a pattern, repeated.
fn bytes(len: usize, pattern: &[u8]) -> Vec<u8> {
    pattern.iter().chain([&7]).cycle().take(len).copied().collect()
}

fuzz_target!(|input: Input| {
    let tensors: Vec<_> = input
        .tensors
        .iter()
        .map(|Announced { name, dtype, shape, stretch, pattern }| {
            let dtype = Dtype::ALL[usize::from(*dtype) % Dtype::ALL.len()];
            let mut shape: Vec<usize> = shape.iter().take(5).map(|dim| usize::from(*dim % 8)).collect();
            shape.extend((*stretch > 200).then_some(usize::from(*stretch)));
            let len = shape.iter().product::<usize>() * dtype.size();
            (name, dtype, shape, bytes(len, pattern))
        })
        .collect();
    let mut snapshot = Snapshot::new();
    let mut kept = std::collections::BTreeMap::new();
    for (name, dtype, shape, bytes) in &tensors {
        if snapshot.tensor(name.as_str(), Tensor::new(*dtype, shape, bytes).unwrap()).is_ok() {
            kept.insert(name.as_str(), (*dtype, shape, bytes));
        }
    }
    for (name, target) in &input.ties {
        if snapshot.tie(name.as_str(), target).is_ok() {
            kept.insert(name, kept[target.as_str()]);
        }
    }
    let records: Vec<_> =
        input.records.iter().filter(|(name, value)| snapshot.record(name.as_str(), value).is_ok()).collect();
    // What is refused, a bad name or a NaN, is not in the snapshot and must not be in the file.
    for (name, value) in &input.metrics {
        let _ = snapshot.metric(name.as_str(), *value);
    }
    for (key, value) in &input.metadata {
        let _ = snapshot.metadata(key.as_str(), value.as_str());
    }
    if let Some((step, epoch)) = input.progress {
        snapshot.progress(Progress::new(step).epoch(epoch));
    }
    let codec = [Codec::Raw, Codec::Balanced, Codec::Max][usize::from(input.codec) % 3];
    let options = WriteOptions::new()
        .codec(codec)
        .chunk_log2(16 + input.chunk_log2 % 3)
        .workers(1 + usize::from(input.workers) % 2);
    let written = snapshot.to_bytes(&options).unwrap();

    let checkpoint = common::open(&written, input.mapped).unwrap();
    assert_eq!(checkpoint.names().count(), kept.len());
    for (name, (dtype, shape, bytes)) in kept {
        let tensor = checkpoint.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape(), tensor.bytes()), (dtype, &shape[..], &bytes[..]));
    }
    for (name, value) in records {
        assert_eq!(&checkpoint.record::<Record>(name).unwrap(), value);
    }
    assert_eq!(checkpoint.metrics().unwrap(), *snapshot.get_metrics());
    assert_eq!(checkpoint.progress().unwrap(), snapshot.get_progress());
    checkpoint.verify().unwrap();
});
