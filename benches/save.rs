//! Saving: bytes made in memory, raw and compressed; files saved, including the cost of durability
//! on the disk under the target folder; the stall of a background save; and the cost of many
//! checkpoints.

#[path = "common/weights.rs"]
mod weights;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;
use std::time::{Duration, Instant};
use tensorkeep::engine::Memory;
use tensorkeep::{
    Codec, Dtype, Keep, Mode, Progress, Snapshot, Store, StoreOptions, WriteOptions, snapshot::Volatile,
};
use weights::{Model, Optimizer, payload};

fn snapshot(model: &Model) -> Snapshot<'_> {
    let mut snapshot = Snapshot::new();
    for weights in model {
        snapshot = snapshot.tensor(&weights.name, (&weights.shape[..], weights.elements.as_slice())).unwrap();
    }
    snapshot = snapshot.record("optimizer", &("adam", 0.001, [0.9, 0.999])).unwrap();
    snapshot
}

/// The same, with memory that may change while it is saved.
fn volatile(model: &Model) -> Snapshot<'_> {
    let mut snapshot = Snapshot::new();
    for weights in model {
        let raw: &[u8] = bytemuck::cast_slice(&weights.elements);
        let fill = |offset: usize, buffer: &mut [u8]| {
            buffer.copy_from_slice(&raw[offset..][..buffer.len()]);
            Ok(())
        };
        snapshot = snapshot.tensor(&weights.name, Volatile::new(Dtype::F32, &weights.shape, fill)).unwrap();
    }
    snapshot = snapshot.record("optimizer", &("adam", 0.001, [0.9, 0.999])).unwrap();
    snapshot
}

fn in_memory(c: &mut Criterion) {
    let model = weights::model(&[("w".to_owned(), vec![1024, 2048])], Optimizer::Adam);
    let mut group = c.benchmark_group("24 MiB to bytes");
    group.throughput(Throughput::Bytes(payload(&model)));
    for (name, snapshot, codec, workers) in [
        ("raw", snapshot as fn(&Model) -> Snapshot<'_>, Codec::Raw, 1),
        ("raw, volatile", volatile, Codec::Raw, 1),
        ("balanced, 1 worker", snapshot, Codec::Balanced, 1),
        ("balanced, 2 workers", snapshot, Codec::Balanced, 2),
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
        for (name, snapshot) in [("raw", snapshot as fn(&Model) -> Snapshot<'_>), ("raw, volatile", volatile)]
        {
            group.bench_function(name, |b| {
                b.iter(|| {
                    let written = snapshot(&model).save(&path).unwrap();
                    assert_eq!(std::fs::metadata(&path).unwrap().len(), written.byte_len);
                });
            });
        }
        group.finish();
    }
}

/// The stall of a background save, against the copy that it cannot avoid.
fn stall(c: &mut Criterion) {
    let model = weights::model(&[("w".to_owned(), vec![1024, 2048])], Optimizer::Adam);
    let mut group = c.benchmark_group("24 MiB staged");
    group.throughput(Throughput::Bytes(payload(&model)));
    let store = Store::open(Memory::new(), StoreOptions::new().keep(Keep::last(1))).unwrap();
    let mut step = 0;
    group.bench_function("stage", |b| {
        b.iter_custom(|count| {
            let mut stalled = Duration::ZERO;
            for _ in 0..count {
                step += 1;
                let mut snapshot = snapshot(&model);
                snapshot = snapshot.progress(Progress::new(step));
                let start = Instant::now();
                let pending = store.stage(&snapshot).unwrap().unwrap();
                stalled += start.elapsed();
                pending.wait().unwrap();
            }
            stalled
        });
    });
    let mut warm: Vec<Vec<f32>> = model.iter().map(|weights| weights.elements.clone()).collect();
    group.bench_function("copied into warm memory on two threads", |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for (to, weights) in warm.iter_mut().zip(&model) {
                    let half = to.len() / 2;
                    let (to, from) = (to.split_at_mut(half), weights.elements.split_at(half));
                    scope.spawn(move || to.1.copy_from_slice(from.1));
                    to.0.copy_from_slice(from.0);
                }
            });
        });
    });
    group.finish();
}

/// The cost of one more save where there are many checkpoints already: listing and retention,
/// without a disk.
fn many_checkpoints(c: &mut Criterion) {
    let weights = [0.5_f32; 64];
    let mut group = c.benchmark_group("one more checkpoint");
    for count in [10, 10_000] {
        let keep = Keep::all().or(Keep::best("loss", Mode::Min, 3));
        let store = Store::open(Memory::new(), StoreOptions::new().keep(keep)).unwrap();
        let mut step = 0;
        let mut save = || {
            step += 1;
            let snapshot =
                Snapshot::new().tensor("w", &weights[..]).unwrap().metric("loss", 1.0 / step as f64).unwrap();
            store.save(&snapshot.progress(Progress::new(step))).unwrap();
        };
        for _ in 0..count {
            save();
        }
        group.bench_function(format!("beside {count}"), |b| b.iter(&mut save));
    }
    group.finish();
}

/// What a history costs: logging, and a LeNet's save that carries as much of it as is allowed,
/// against one that carries none. The two saves take turns, so that the disk is equally busy.
fn history(c: &mut Criterion) {
    let mut group = c.benchmark_group("history");
    let metrics = [("loss", 0.5), ("accuracy", 0.75), ("lr", 1e-3)];
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    let mut step = 0;
    group.bench_function("log three metrics", |b| {
        b.iter(|| {
            step += 1;
            store.log(&Progress::new(step), metrics.map(|(metric, value)| (metric, value * step as f64)));
        });
    });
    let model = weights::lenet();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("histories");
    let open = |name| Store::open(folder.join(name), StoreOptions::new().keep(Keep::last(1))).unwrap();
    let _ = std::fs::remove_dir_all(&folder);
    let [silent, telling] = ["silent", "telling"].map(open);
    for step in 1..=20_000 {
        telling.log(&Progress::new(step), metrics.map(|(metric, value)| (metric, value / step as f64)));
    }
    let mut step = 20_000;
    for (name, measured) in [("save a LeNet, nothing logged", 0), ("save a LeNet, 16 KiB of history", 1)] {
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for _ in 0..count {
                    step += 1;
                    for (turn, store) in [&silent, &telling].into_iter().enumerate() {
                        let snapshot = snapshot(&model).progress(Progress::new(step));
                        let start = Instant::now();
                        store.save(&snapshot).unwrap();
                        took += if turn == measured { start.elapsed() } else { Duration::ZERO };
                    }
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(3));
    targets = in_memory, to_files, stall, many_checkpoints, history
}
criterion_main!(benches);
