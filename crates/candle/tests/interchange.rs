//! Checkpoints of others in candle, and candle's in others: the builder, the ndarray LeNet, torch's
//! names.

mod common;

use candle_core::{DType, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder, VarMap, conv2d, linear};
use common::{CPU, Net, stored, values};
use lenet::{Config, LeNet, data};
use tensorkeep::{Checkpoint, Dtype, ErrorKind, Snapshot, Stateful};
use tensorkeep_candle::{CheckpointBackend, Generator, Vars, load_torch, seeded_var_builder, var_builder};
use test_support::TempFolder;

/// The layers of crates/lenet in candle.
struct CandleLeNet {
    convs: [Conv2d; 2],
    fcs: [Linear; 3],
}

impl CandleLeNet {
    fn new(builder: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let padded = Conv2dConfig { padding: 2, ..Default::default() };
        Ok(Self {
            convs: [
                conv2d(1, 6, 5, padded, builder.pp("conv1"))?,
                conv2d(6, 16, 5, Default::default(), builder.pp("conv2"))?,
            ],
            fcs: [
                linear(400, 120, builder.pp("fc1"))?,
                linear(120, 84, builder.pp("fc2"))?,
                linear(84, 10, builder.pp("fc3"))?,
            ],
        })
    }

    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let [conv1, conv2] = &self.convs;
        let [fc1, fc2, fc3] = &self.fcs;
        let pooled = images.apply(conv1)?.relu()?.max_pool2d(2)?;
        let pooled = pooled.apply(conv2)?.relu()?.max_pool2d(2)?;
        pooled.flatten_from(1)?.apply(fc1)?.relu()?.apply(fc2)?.relu()?.apply(fc3)
    }
}

/// Logits of both nets for the same drawn digits.
fn logits(net: &LeNet, candle: &CandleLeNet) -> (Vec<f32>, Vec<f32>) {
    let digits = data::drawn(0, 0..8).unwrap();
    let images: Vec<f32> = digits.images().iter().copied().collect();
    let images = Tensor::from_vec(images, (8, 1, 28, 28), CPU).unwrap();
    let found = candle.forward(&images).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (net.forward(digits.images()).into_iter().collect(), found)
}

fn assert_near((expected, found): (Vec<f32>, Vec<f32>)) {
    assert_eq!(expected.len(), found.len());
    for (a, b) in expected.iter().zip(&found) {
        assert!((a - b).abs() < 1e-4, "{expected:?}\n{found:?}");
    }
}

#[test]
fn the_ndarray_lenets_checkpoint_is_a_candle_lenet() {
    let net = LeNet::new(Config::default(), &mut lenet::Rng::new(5)).unwrap();
    let checkpoint = stored(Snapshot::new().model(&net).unwrap());
    let candle = CandleLeNet::new(&var_builder(checkpoint, "model", DType::F32, CPU)).unwrap();
    assert_near(logits(&net, &candle));
}

#[test]
fn a_candle_lenets_checkpoint_is_an_ndarray_lenet() {
    let vars = VarMap::new();
    let builder = seeded_var_builder(&vars, &Generator::seeded(3), DType::F32, CPU);
    let candle = CandleLeNet::new(&builder).unwrap();
    let saved = Vars::of(&vars);
    let checkpoint = stored(Snapshot::new().state_dict("model", saved.state_dict().unwrap()).unwrap());
    let mut net = LeNet::zeros(Config::default()).unwrap();
    checkpoint.load_state_dict("model", &mut net).unwrap();
    assert_near(logits(&net, &candle));
}

/// From a file, read and mapped, and lazily: damage in a tensor that no layer asks for is not seen.
#[test]
fn a_builder_reads_and_verifies_what_layers_ask_for() {
    let folder = TempFolder::new("candle-builder");
    let path = folder.path().join("lenet.tkeep");
    let net = LeNet::new(Config::default(), &mut lenet::Rng::new(5)).unwrap();
    Snapshot::new().model(&net).unwrap().save(&path).unwrap();
    let offset = |name: &str| Checkpoint::open(&path).unwrap().info(name).unwrap().offset as usize;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset("model/fc2.weight") + 100] ^= 0x10;
    let damaged = folder.path().join("damaged.tkeep");
    std::fs::write(&damaged, bytes).unwrap();
    #[expect(unsafe_code, reason = "nobody writes to this file while it is mapped")]
    // SAFETY: as the reason says.
    let mapped = unsafe { Checkpoint::map(&damaged) }.unwrap();
    for checkpoint in [Checkpoint::open(&damaged).unwrap(), mapped] {
        let builder = var_builder(checkpoint, "model", DType::F32, CPU);
        assert!(linear(400, 120, builder.pp("fc1")).is_ok());
        let error = linear(120, 84, builder.pp("fc2")).unwrap_err().to_string();
        assert!(error.contains("damaged.tkeep") && error.contains("model/fc2.weight"), "{error}");
    }
}

#[test]
fn a_builder_names_what_does_not_fit() {
    let weight = vec![0.5_f32; 8];
    let snapshot = Snapshot::new().tensor("model/fc.weight", ([2, 4], &weight)).unwrap();
    let snapshot = snapshot.tensor("model/mask", &[1_u16, 2][..]).unwrap();
    let backend = CheckpointBackend::new(stored(snapshot), "model");
    let builder = backend.clone().builder(DType::F32, CPU);
    assert!(builder.contains_tensor("fc.weight") && !builder.contains_tensor("fc.bias"));
    let error = |result: candle_core::Result<Tensor>| result.unwrap_err().to_string();
    let missing = error(builder.get((2, 4), "fc.wieght"));
    assert!(missing.contains("did you mean \"model/fc.weight\""), "{missing}");
    let shape = error(builder.get((4, 2), "fc.weight"));
    assert!(shape.contains("expected [4, 2]") && shape.contains("found [2, 4]"), "{shape}");
    let lacking = error(builder.get_unchecked("mask"));
    assert!(lacking.contains("dtype that candle lacks") && lacking.contains("u16"), "{lacking}");

    let doubles = backend.clone().builder(DType::F64, CPU);
    let dtype = error(doubles.get((2, 4), "fc.weight"));
    assert!(dtype.contains("expected f64") && dtype.contains("found f32"), "{dtype}");
    let cast = backend.cast().builder(DType::F64, CPU);
    let values = cast.get((2, 4), "fc.weight").unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(values, [0.5; 8]);
    assert!(error(cast.get_unchecked("mask")).contains("u16"), "a cast does not make up for it");
}

/// A tensor of which no shape is given is as large as the file says, and a cast may make it larger.
#[test]
fn what_a_file_claims_stays_within_the_budget() {
    let folder = TempFolder::new("candle-budget");
    let path = folder.path().join("zeros.tkeep");
    let (zeros, halves) = (vec![0.0_f32; 1 << 20], vec![half::f16::ONE; 400_000]);
    let snapshot = Snapshot::new().tensor("m/zeros", &zeros).unwrap().tensor("m/halves", &halves).unwrap();
    let options = tensorkeep::WriteOptions::new().codec(tensorkeep::Codec::Max);
    snapshot.save_with(&path, &options).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20, "a small file");
    let checkpoint = tensorkeep::OpenOptions::new().budget(1 << 20).open(&path).unwrap();
    let backend = CheckpointBackend::new(checkpoint, "m");
    let get = |backend: &CheckpointBackend, dtype, name| {
        backend.clone().builder(dtype, CPU).get_unchecked(name).map(|tensor| tensor.elem_count())
    };
    let error = get(&backend, DType::F32, "zeros").unwrap_err().to_string();
    assert!(error.contains("m/zeros") && error.contains("at most the budget of 1048576"), "{error}");
    assert_eq!(get(&backend, DType::F16, "halves").unwrap(), 400_000);
    let cast = get(&backend.cast(), DType::F64, "halves").unwrap_err().to_string();
    assert!(cast.contains("m/halves") && cast.contains("3200000"), "{cast}");
}

/// A state dict as torch writes it: wrapped, and with the counts of batch norms.
fn of_torch(prefix: &str) -> Checkpoint {
    let mut snapshot = Snapshot::new();
    for (name, var) in Vars::of(&Net::new(4).vars).named() {
        let values: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let tensor = tensorkeep::tensor::Buffer::copy_of(&bytes).unwrap();
        let tensor = tensorkeep::Tensor::owned(Dtype::F32, var.dims(), tensor).unwrap();
        snapshot = snapshot.tensor(format!("state_dict.{prefix}{name}"), tensor).unwrap();
    }
    let count = ([], &[12_i64][..]);
    stored(snapshot.tensor(format!("state_dict.{prefix}norm.num_batches_tracked"), count).unwrap())
}

#[test]
fn torchs_names_are_adapted_and_what_was_done_is_told() {
    for (prefix, stripped) in
        [("", None), ("module.", Some("module.")), ("_orig_mod.module.", Some("_orig_mod.module."))]
    {
        let net = Net::new(5);
        let report = load_torch(&of_torch(prefix), "state_dict", &mut Vars::of(&net.vars)).unwrap();
        assert_eq!(values(&net.vars), values(&Net::new(4).vars));
        assert_eq!(report.stripped, stripped);
        assert_eq!(report.left_out, ["norm.num_batches_tracked"]);
        assert_eq!(report.loaded.len(), 8);
    }
    let strict = of_torch("").load_state_dict("state_dict", &mut Vars::of(&Net::new(5).vars));
    assert_eq!(strict.unwrap_err().kind(), ErrorKind::Mismatch);
}

/// A field that is called `module` is no wrapper.
#[test]
fn a_models_own_names_are_not_stripped() {
    let vars = VarMap::new();
    let builder = seeded_var_builder(&vars, &Generator::seeded(1), DType::F32, CPU);
    linear(4, 2, builder.pp("module").pp("fc")).unwrap();
    let saved = Vars::of(&vars);
    let checkpoint = stored(Snapshot::new().state_dict("m", saved.state_dict().unwrap()).unwrap());
    let report = load_torch(&checkpoint, "m", &mut Vars::of(&vars)).unwrap();
    assert_eq!((report.stripped, report.loaded.len()), (None, 2));
}

#[test]
fn torchs_names_of_another_model_change_nothing() {
    let vars = VarMap::new();
    let builder = seeded_var_builder(&vars, &Generator::seeded(1), DType::F32, CPU);
    CandleLeNet::new(&builder).unwrap();
    let before = values(&vars);
    let error = load_torch(&of_torch("module."), "state_dict", &mut Vars::of(&vars)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(values(&vars), before);
}
