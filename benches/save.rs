//! Saving: bytes made in memory, raw and compressed, and files saved, which includes whatever durability costs on the
//! disk under the target folder.

#[path = "common/weights.rs"]
mod weights;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;
use std::time::Duration;
use tensorkeep::{Codec, Snapshot, WriteOptions};
use weights::{Model, Optimizer, payload};

fn snapshot(model: &Model) -> Snapshot<'_> {
    let mut snapshot = Snapshot::new();
    for weights in model {
        snapshot.tensor(&weights.name, (&weights.shape[..], weights.elements.as_slice())).unwrap();
    }
    snapshot.record("optimizer", &("adam", 0.001, [0.9, 0.999])).unwrap();
    snapshot
}

fn in_memory(c: &mut Criterion) {
    let model = weights::model(&[("w".to_owned(), vec![1024, 2048])], Optimizer::Adam);
    let mut group = c.benchmark_group("24 MiB to bytes");
    group.throughput(Throughput::Bytes(payload(&model)));
    for (name, codec, workers) in [
        ("raw", Codec::Raw, 1),
        ("balanced, 1 worker", Codec::Balanced, 1),
        ("balanced, 2 workers", Codec::Balanced, 2),
    ] {
        let options = WriteOptions::new().codec(codec).workers(workers);
        let least = if codec == Codec::Raw { payload(&model) } else { payload(&model) * 3 / 4 };
        group.bench_function(name, |b| {
            b.iter(|| {
                let bytes = snapshot(&model).to_bytes(&options).unwrap();
                assert!(bytes.len() as u64 >= least && (bytes.len() as u64) < payload(&model) * 11 / 10);
            });
        });
    }
    group.finish();
}

fn to_files(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("saved.tkeep");
    let large = weights::model(&[("w".to_owned(), vec![1024, 2048])], Optimizer::Adam);
    for (name, model) in [("lenet to a file", weights::lenet()), ("24 MiB to a file", large)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(payload(&model)));
        group.bench_function("raw", |b| {
            b.iter(|| {
                let written = snapshot(&model).save(&path).unwrap();
                assert_eq!(std::fs::metadata(&path).unwrap().len(), written.len);
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(3));
    targets = in_memory, to_files
}
criterion_main!(benches);
