//! What a byte costs on its way: the checksum, and byte planes with zstd both ways, on weights and on second moments.
//! The codec is private, so it is measured through one tensor's container in memory; framing is below 1 %.

#[path = "common/weights.rs"]
mod weights;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::Blob;
use tensorkeep::{
    Buffer, Checkpoint, Codec, Error, ErrorKind, OpenOptions, Result, Snapshot, Verify, WriteOptions,
};

const COUNT: usize = 4 << 20;

/// Bytes in memory, given out in place.
#[derive(Debug)]
struct InMemory(Buffer);

impl Blob for InMemory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.0.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or_else(|| Error::new(ErrorKind::Damaged, "read past the end"))?);
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }
}

fn checksum(c: &mut Criterion) {
    let weights = weights::Normal::new(1).take(COUNT, 0.02);
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let expected = crc32fast::hash(&bytes);
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("crc-32 of 16 MiB", |b| b.iter(|| assert_eq!(crc32fast::hash(&bytes), expected)));
    group.finish();
}

fn planes_and_zstd(c: &mut Criterion) {
    let normals = weights::Normal::new(2).take(COUNT, 0.02);
    let squares: Vec<f32> = normals.iter().map(|value| value * value * 1e-4).collect();
    let mut group = c.benchmark_group("planes and zstd, 16 MiB");
    group.throughput(Throughput::Bytes(4 * COUNT as u64));
    for (values, elements) in [("weights", &normals), ("second moments", &squares)] {
        for level in [1, 3] {
            let options = WriteOptions::new().codec(Codec::Zstd(level)).workers(1);
            let mut snapshot = Snapshot::new();
            snapshot.tensor("w", elements).unwrap();
            let bytes = snapshot.to_bytes(&options).unwrap();
            let ratio = bytes.len() as f64 / (4 * COUNT) as f64;
            assert!((0.7..0.97).contains(&ratio), "{values} at level {level} shrink to {ratio:.3}");
            println!("{values} at level {level} shrink to {ratio:.3}");
            group.bench_function(BenchmarkId::new(format!("encode {values}"), level), |b| {
                b.iter(|| assert_eq!(snapshot.to_bytes(&options).unwrap().len(), bytes.len()));
            });
            // Checksums were measured above; here they would count twice.
            let blob = Arc::new(InMemory(Buffer::copy_of(&bytes).unwrap()));
            let options = OpenOptions::new().verify(Verify::Never);
            let checkpoint = Checkpoint::from_blob(blob, "memory", options).unwrap();
            let mut target = vec![0; 4 * COUNT];
            checkpoint.load_into("w", &mut target).unwrap();
            assert!(
                target
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .eq(elements.iter().copied())
            );
            group.bench_function(BenchmarkId::new(format!("decode {values}"), level), |b| {
                b.iter(|| checkpoint.load_into("w", &mut target).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = checksum, planes_and_zstd
}
criterion_main!(benches);
