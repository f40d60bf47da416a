//! A module of 201 MB into burn, beside burn's own two ways with burnpack. tensorkeep verifies
//! every byte, burnpack none.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use burn_core::store::ModuleRecord;
use burn_store::{BurnpackStore, ModuleSnapshot};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use tensorkeep_burn::TensorkeepStore;
use test_support::TempFolder;

const WIDTH: usize = 2048;
const LAYERS: usize = 12;

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
}

/// A sum over every parameter: burn reads files lazily, and training does not.
fn touched(net: &Net) -> u64 {
    let sum = |bytes: &[u8]| bytes.chunks_exact(64).map(|line| u64::from(line[0])).sum::<u64>();
    let layers = net.layers.iter();
    layers.map(|layer| sum(layer.weight.val().into_data().as_bytes())).sum()
}

fn load(c: &mut Criterion) {
    let device = Device::default();
    let folder = TempFolder::new("burn-load");
    let (ours, theirs) = (folder.path().join("model.tkeep"), folder.path().join("model.bpk"));
    let layer = || LinearConfig::new(WIDTH, WIDTH).init(&device);
    let net = Net { layers: (0..LAYERS).map(|_| layer()).collect() };
    net.save_into(&mut TensorkeepStore::at(&ours)).unwrap();
    net.clone().into_record().save(&theirs).unwrap();
    let expected = touched(&net);

    let mut group = c.benchmark_group("a module of 201 MB");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.bench_function("tensorkeep, ModuleStore", |b| {
        b.iter(|| {
            let mut net = net.clone();
            net.load_from(&mut TensorkeepStore::at(&ours)).unwrap();
            assert_eq!(touched(&net), expected);
        });
    });
    group.bench_function("burn, BurnpackStore", |b| {
        b.iter(|| {
            let mut net = net.clone();
            net.load_from(&mut BurnpackStore::from_file(&theirs)).unwrap();
            assert_eq!(touched(&net), expected);
        });
    });
    group.bench_function("burn, ModuleRecord::load and load_record", |b| {
        b.iter(|| {
            let net = net.clone().load_record(ModuleRecord::load(&theirs).unwrap());
            assert_eq!(touched(&net), expected);
        });
    });
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
