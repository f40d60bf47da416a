//! A model of 201 MB into candle: through `VarBuilder`, and into variables that are there, each
//! beside candle's own way with safetensors. tensorkeep verifies every byte, safetensors none.

use candle_core::{DType, Device};
use candle_nn::{Linear, VarBuilder, VarMap, linear};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use std::hint::black_box;
use tensorkeep::{Checkpoint, Snapshot, Stateful};
use tensorkeep_candle::{Generator, Vars, seeded_var_builder, var_builder};
use test_support::TempFolder;

const WIDTH: usize = 2048;
const LAYERS: usize = 12;

fn model(builder: &VarBuilder<'_>) -> Vec<Linear> {
    (0..LAYERS).map(|layer| linear(WIDTH, WIDTH, builder.pp(layer)).unwrap()).collect()
}

fn load(c: &mut Criterion) {
    let folder = TempFolder::new("candle-load");
    let (ours, theirs) = (folder.path().join("model.tkeep"), folder.path().join("model.safetensors"));
    let mut vars = VarMap::new();
    model(&seeded_var_builder(&vars, &Generator::seeded(1), DType::F32, &Device::Cpu));
    vars.save(&theirs).unwrap();
    let mut state = Vars::of(&vars);
    Snapshot::new().state_dict("model", state.state_dict().unwrap()).unwrap().save(&ours).unwrap();

    let map = || {
        #[expect(unsafe_code, reason = "nobody writes to the file while it is mapped")]
        // SAFETY: as the reason says.
        let checkpoint = unsafe { Checkpoint::map(&ours) };
        checkpoint.unwrap()
    };
    let mut group = c.benchmark_group("a model of 201 MB");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.bench_function("VarBuilder over a mapped checkpoint", |b| {
        b.iter(|| model(black_box(&var_builder(map(), "model", DType::F32, &Device::Cpu))));
    });
    group.bench_function("VarBuilder over a checkpoint that is read", |b| {
        let open = || Checkpoint::open(&ours).unwrap();
        b.iter(|| model(black_box(&var_builder(open(), "model", DType::F32, &Device::Cpu))));
    });
    group.bench_function("candle's VarBuilder over mapped safetensors", |b| {
        b.iter(|| {
            #[expect(unsafe_code, reason = "nobody writes to the file while it is mapped")]
            // SAFETY: as the reason says.
            let builder =
                unsafe { VarBuilder::from_mmaped_safetensors(&[&theirs], DType::F32, &Device::Cpu) };
            model(black_box(&builder.unwrap()))
        });
    });
    group.bench_function("Vars from a mapped checkpoint", |b| {
        b.iter(|| map().load_state_dict("model", &mut state).unwrap());
    });
    group
        .bench_function("candle's VarMap::load from safetensors", |b| b.iter(|| vars.load(&theirs).unwrap()));
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
