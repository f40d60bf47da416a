//! One epoch over 8,000 drawn digits: the baseline for the cost of a checkpoint.

use criterion::{BatchSize, Criterion, SamplingMode, criterion_group, criterion_main};
use lenet::{Data, Settings, Trainer};
use std::time::Duration;

fn epoch(criterion: &mut Criterion) {
    let data = Data::open(None, 0).expect("drawn digits need no file");
    assert_eq!(data.train.len(), 8_000);
    let mut group = criterion.benchmark_group("lenet");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(10));
    group.bench_function("epoch of 8000 images", |bencher| {
        let start = || Trainer::new(Settings::default());
        let train = |mut trainer: Trainer| {
            trainer.finish_epoch(&data.train);
            let losses = trainer.loss_history();
            let (first, last) = (losses[0], losses[losses.len() - 1]);
            assert!(last < first / 2.0, "the loss went from {first} to {last}");
            trainer
        };
        bencher.iter_batched(start, train, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, epoch);
criterion_main!(benches);
