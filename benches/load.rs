//! Opening and loading: the cost of an index of 100,000 tensors, and of bytes, read and mapped,
//! verified and not. Comparisons with other formats are in crates/bench-peers.
#![expect(unsafe_code, reason = "mapping rests on a promise; see SAFETY below")]

#[path = "common/weights.rs"]
mod weights;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tensorkeep::engine::MmapPromise;
use tensorkeep::{Checkpoint, OpenOptions, Snapshot, Verify};
use weights::{Model, payload};

fn save(model: &Model, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut snapshot = Snapshot::new();
    for weights in model {
        snapshot = snapshot.tensor(&weights.name, (&weights.shape[..], weights.elements.as_slice())).unwrap();
    }
    snapshot.save(&path).unwrap();
    path
}

fn open(path: &Path, mapped: bool, verify: Verify) -> Checkpoint {
    let options = OpenOptions::new().verify(verify);
    if !mapped {
        return options.open(path).unwrap();
    }
    // SAFETY: the file is in this bench's own folder, and nothing writes to it after it was saved.
    let promise = unsafe { MmapPromise::assume_unchanged() };
    options.map(path, promise).unwrap()
}

type Group<'g> = BenchmarkGroup<'g, WallTime>;

const WAYS: [(&str, bool); 2] = [("read", false), ("mapped", true)];

fn many_tensors(c: &mut Criterion) {
    const COUNT: usize = 100_000;
    let model = weights::many(COUNT);
    let path = save(&model, "many.tkeep");
    let wanted = &model[77_777];
    let mut group = c.benchmark_group("100k tensors");
    for (way, mapped) in WAYS {
        group.bench_function(BenchmarkId::new("open", way), |b| {
            b.iter(|| open(&path, mapped, Verify::OnTouch));
        });
        group.bench_function(BenchmarkId::new("open and list", way), |b| {
            b.iter(|| {
                let checkpoint = open(&path, mapped, Verify::OnTouch);
                let elements: u64 = checkpoint.tensors().map(|info| info.shape.iter().product::<u64>()).sum();
                assert_eq!(elements, 64 * COUNT as u64);
            });
        });
        group.bench_function(BenchmarkId::new("open and one tensor", way), |b| {
            b.iter(|| {
                let checkpoint = open(&path, mapped, Verify::OnTouch);
                let tensor = checkpoint.tensor(&wanted.name).unwrap();
                assert_eq!(tensor.elements::<f32>().unwrap(), wanted.elements);
            });
        });
        group.bench_function(BenchmarkId::new("all tensors", way), |b| {
            b.iter(|| {
                let checkpoint = open(&path, mapped, Verify::OnTouch);
                let load =
                    |weights: &weights::Weights| checkpoint.tensor(&weights.name).unwrap().bytes().len();
                assert_eq!(model.iter().map(load).sum::<usize>() as u64, payload(&model));
            });
        });
    }
    group.finish();
}

fn large_tensors(c: &mut Criterion) {
    let mut normal = weights::Normal::new(3);
    let mut add = |i: usize| weights::Weights {
        name: format!("layer{i}"),
        shape: vec![1024, 1024],
        elements: normal.take(1 << 20, 0.03),
    };
    let model: Model = (0..16).map(&mut add).collect();
    let path = save(&model, "large.tkeep");
    let expected: f32 = model.iter().map(|weights| weights.elements[12_345]).sum();
    let mut group = c.benchmark_group("64 MiB in 16 tensors");
    group.throughput(Throughput::Bytes(payload(&model)));
    for (way, mapped) in WAYS {
        for (checked, verify) in [("verified", Verify::OnTouch), ("never verified", Verify::Never)] {
            group.bench_function(BenchmarkId::new(format!("load, {way}"), checked), |b| {
                b.iter(|| {
                    let checkpoint = open(&path, mapped, verify);
                    // All of them are kept, as a model is: memory that is freed at once stays in
                    // the cache.
                    let tensors: Vec<_> =
                        model.iter().map(|weights| checkpoint.tensor(&weights.name).unwrap()).collect();
                    let found: f32 =
                        black_box(&tensors).iter().map(|t| t.elements::<f32>().unwrap()[12_345]).sum();
                    assert_eq!(found, expected);
                });
            });
        }
    }
    let mut arrays: Vec<Vec<u8>> = model.iter().map(|weights| vec![0; 4 * weights.elements.len()]).collect();
    group.bench_function("load into arrays that are there", |b| {
        b.iter(|| {
            let checkpoint = open(&path, false, Verify::OnTouch);
            for (weights, array) in model.iter().zip(&mut arrays) {
                checkpoint.load_into([(weights.name.as_str(), array.as_mut_slice())]).unwrap();
            }
            assert!(arrays[15][..4] == model[15].elements[0].to_le_bytes());
        });
    });
    resume(&mut group, &path, &model, &mut arrays);
    group.finish();
}

/// The cost of resuming a run, on one thread and on two.
fn resume(group: &mut Group<'_>, path: &Path, model: &Model, arrays: &mut [Vec<u8>]) {
    let names = || model.iter().map(|weights| weights.name.as_str());
    for workers in [1, 2] {
        let options = OpenOptions::new().workers(workers);
        group.bench_function(BenchmarkId::new("verify the whole file", workers), |b| {
            b.iter(|| options.open(path).unwrap().verify().unwrap());
        });
        group.bench_function(BenchmarkId::new("load all at once", workers), |b| {
            b.iter(|| options.open(path).unwrap().load(names()).unwrap().len());
        });
        group.bench_function(BenchmarkId::new("load all into arrays that are there", workers), |b| {
            b.iter(|| {
                let checkpoint = options.open(path).unwrap();
                checkpoint.load_into(names().zip(arrays.iter_mut().map(|array| &mut **array))).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("map copy-on-write", workers), |b| {
            // SAFETY: as in `open`.
            let promise = unsafe { MmapPromise::assume_unchanged() };
            b.iter(|| options.map_copy(path, promise).unwrap().tensors_mut().len());
        });
    }
    group.bench_function("a plain read into a fresh Vec", |b| b.iter(|| std::fs::read(path).unwrap().len()));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = many_tensors, large_tensors
}
criterion_main!(benches);
