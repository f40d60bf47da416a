//! Modules and optimizers: saved and loaded, all or nothing, with errors that name what is wrong.

mod common;

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, OptimizerRecord, SgdConfig};
use burn::tensor::Device;
use burn_store::{ModuleSnapshot, ModuleStore};
use common::{BurnLeNet, Small, stored, values};
use tensorkeep::{Checkpoint, ErrorKind, OpenOptions, Snapshot, Value};
use tensorkeep_burn::{
    TensorkeepStore, load_module, load_optimizer, load_record, save_module, save_optimizer, save_record,
};
use test_support::TempFolder;

fn device() -> Device {
    Device::default().autodiff()
}

#[test]
fn a_module_comes_back_bit_for_bit_with_its_ids() {
    let trained = Small::new(1, &device());
    let checkpoint = stored(save_module(Snapshot::new(), "model", &trained).unwrap());
    let mut names: Vec<&str> = checkpoint.names().collect();
    names.sort_unstable();
    assert!(names.contains(&"model/first.weight") && names.contains(&"model/norm.running_mean"), "{names:?}");

    let mut module = Small::new(2, &device());
    assert_ne!(values(&module), values(&trained));
    let report = load_module(&checkpoint, "model", &mut module).unwrap();
    assert_eq!(report.loaded.len(), names.len());
    assert_eq!(values(&module), values(&trained));
    assert_eq!(module.first.weight.id, trained.first.weight.id);
}

/// burn keeps a batch norm's newest update beside its value, where its own records miss it.
#[test]
fn the_newest_running_mean_is_saved() {
    let mut adam = AdamConfig::new().init();
    let module = Small::new(1, &device()).step(&mut adam, 0, &device());
    let newest = module.norm.running_mean.value_sync().into_data();
    let module = Small::new(1, &device()).step(&mut adam, 0, &device());
    let checkpoint = stored(save_module(Snapshot::new(), "model", &module).unwrap());
    let saved = checkpoint.tensor("model/norm.running_mean").unwrap();
    assert_eq!(saved.bytes(), newest.as_bytes());
    assert_ne!(saved.elements::<f32>().unwrap(), [0.0; 4]);
}

#[test]
fn another_architecture_changes_nothing_and_is_named() {
    let lenet = BurnLeNet::new(&device());
    let checkpoint = stored(save_module(Snapshot::new(), "model", &lenet).unwrap());
    let mut module = Small::new(2, &device());
    let before = values(&module);
    let error = load_module(&checkpoint, "model", &mut module).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    assert!(text.contains("missing") && text.contains("unexpected conv1.bias"), "{text}");
    assert_eq!(values(&module), before);
}

#[test]
fn a_misspelt_name_is_pointed_out() {
    let small = Small::new(1, &device());
    let tensors = small.collect(None, None, false);
    let mut snapshot = Snapshot::new();
    for tensor in tensors {
        let values: Vec<f32> = tensor
            .to_bytes()
            .unwrap()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let name = tensor.name.replace("last.bias", "last.bais");
        let shape = tensor.shape.to_vec();
        let owned = tensorkeep::tensor::Buffer::copy_of(
            &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
        )
        .unwrap();
        let tensor = tensorkeep::Tensor::owned(tensorkeep::Dtype::F32, &shape, owned).unwrap();
        snapshot = snapshot.tensor(format!("model/{name}"), tensor).unwrap();
    }
    let mut module = Small::new(2, &device());
    let error = load_module(&stored(snapshot), "model", &mut module).unwrap_err().to_string();
    assert!(error.contains("did you mean \"last.bais\" by \"last.bias\""), "{error}");
}

#[test]
fn a_dtype_that_burn_lacks_is_an_error_by_name() {
    let small = Small::new(1, &device());
    let checkpoint = stored(
        save_module(Snapshot::new(), "model", &small)
            .unwrap()
            .tensor("other/x", &[[1.0_f32, 2.0]][..])
            .unwrap(),
    );
    assert!(load_module(&checkpoint, "model", &mut Small::new(2, &device())).is_ok());
    let complex = tensorkeep::Tensor::from_elements(&[1], &[[1.0_f32, 2.0]]).unwrap();
    let path = TempFolder::new("burn-dtype");
    let file = path.path().join("model.tkeep");
    Snapshot::new().tensor("model/x", complex).unwrap().save(&file).unwrap();
    let error = TensorkeepStore::at(&file).get_all_tensors().err().unwrap();
    assert_eq!((error.kind(), error.found_value()), (ErrorKind::Unsupported, Some("c64")));
}

/// Damage is found before the module changes, also if it is in the last tensor.
#[test]
fn damage_changes_nothing() {
    let small = Small::new(1, &device());
    let bytes = save_module(Snapshot::new(), "model", &small).unwrap().to_bytes(&Default::default()).unwrap();
    let checkpoint = tensorkeep::Checkpoint::from_bytes(&bytes).unwrap();
    let at = checkpoint.info("model/norm.running_var").unwrap().offset as usize;
    let mut damaged = bytes;
    damaged[at] ^= 1;
    let damaged = tensorkeep::Checkpoint::from_bytes(&damaged).unwrap();
    let mut module = Small::new(2, &device());
    let before = values(&module);
    assert_eq!(load_module(&damaged, "model", &mut module).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(values(&module), before);
}

/// Stops after 5 of 12 steps, and goes on in a new module and a new optimizer.
fn resumed<C: Config>(config: C, init: fn(&C) -> ModuleOptimizer) {
    let device = device();
    let new = || init(&config);
    let train = |mut module: Small, optimizer: &mut ModuleOptimizer, steps: std::ops::Range<u64>| {
        for step in steps {
            module = module.step(optimizer, step, &device);
        }
        module
    };
    let straight = train(Small::new(1, &device), &mut new(), 0..12);

    let mut optimizer = new();
    let module = train(Small::new(1, &device), &mut optimizer, 0..5);
    let snapshot = save_module(Snapshot::new(), "model", &module).unwrap();
    let checkpoint = stored(save_optimizer(snapshot, "optimizer", &optimizer, &config).unwrap());
    let (mut module, mut optimizer) = (Small::new(9, &device), new());
    load_module(&checkpoint, "model", &mut module).unwrap();
    load_optimizer(&checkpoint, "optimizer", &mut optimizer, &config).unwrap();
    let module = train(module, &mut optimizer, 5..12);
    assert_eq!(values(&module), values(&straight));
}

#[test]
fn adam_resumed_is_adam_that_never_stopped() {
    resumed(AdamConfig::new(), AdamConfig::init);
}

#[test]
fn adamw_resumed_is_adamw_that_never_stopped() {
    resumed(AdamWConfig::new(), AdamWConfig::init);
}

#[test]
fn sgd_resumed_is_sgd_that_never_stopped() {
    resumed(SgdConfig::new().with_momentum(Some(MomentumConfig::new())), SgdConfig::init);
}

/// After one step.
fn stepped(mut optimizer: ModuleOptimizer) -> ModuleOptimizer {
    Small::new(1, &device()).step(&mut optimizer, 0, &device());
    optimizer
}

fn adams_checkpoint() -> Checkpoint {
    let config = AdamConfig::new();
    stored(save_optimizer(Snapshot::new(), "optimizer", &stepped(config.init()), &config).unwrap())
}

/// The same checkpoint with another record `optimizer`.
fn with_record(checkpoint: &Checkpoint, change: impl FnOnce(&mut Vec<Value>)) -> Checkpoint {
    let Value::Map(mut record) = checkpoint.inspect().record_value("optimizer").unwrap() else {
        panic!("no map")
    };
    let Some(Value::List(tensors)) = record.get_mut("tensors") else { panic!("no list") };
    change(tensors);
    let mut snapshot = Snapshot::new().record("optimizer", &Value::Map(record)).unwrap();
    for name in checkpoint.names() {
        snapshot = snapshot.tensor(name, checkpoint.tensor(name).unwrap()).unwrap();
    }
    stored(snapshot)
}

#[test]
fn state_is_named_after_parameters_and_not_after_random_ids() {
    let checkpoint = adams_checkpoint();
    for name in checkpoint.names() {
        let rest = name.strip_prefix("optimizer/").unwrap();
        assert!(["first.", "norm.", "last."].iter().any(|layer| rest.starts_with(layer)), "{name}");
    }
    assert!(checkpoint.names().count() > 6);
}

/// burn itself starts such an optimizer anew, and says nothing.
#[test]
fn an_optimizer_of_another_kind_is_an_error_and_unchanged() {
    let named = adams_checkpoint();
    // As an older version saved it, or `save_record`.
    let adam = stepped(AdamConfig::new().init());
    let unnamed = stored(save_record(Snapshot::new(), "optimizer", adam.to_record()).unwrap());
    let config = SgdConfig::new().with_momentum(Some(MomentumConfig::new()));
    let mut sgd = stepped(config.init());
    let before = sgd.to_record().len();
    assert!(before > 0);
    for (checkpoint, what) in [(&named, "expected AdamConfig, found SgdConfig"), (&unnamed, "one that keeps")]
    {
        let error = load_optimizer(checkpoint, "optimizer", &mut sgd, &config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().contains("kind of optimizer"), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(sgd.to_record().len(), before);
    }
    let config = AdamConfig::new();
    let mut adam = config.init();
    load_optimizer(&unnamed, "optimizer", &mut adam, &config).unwrap();
    assert!(!adam.to_record().is_empty());
}

/// Their states have the same fields.
#[test]
fn adam_and_adamw_are_told_apart_by_name() {
    let config = AdamWConfig::new();
    let mut adamw = stepped(config.init());
    let error = load_optimizer(&adams_checkpoint(), "optimizer", &mut adamw, &config).unwrap_err();
    assert_eq!(
        (error.kind(), error.expected_value(), error.found_value()),
        (ErrorKind::Mismatch, Some("AdamConfig"), Some("AdamWConfig"))
    );
    let lighter = AdamWConfig::new().with_weight_decay(0.0);
    let checkpoint = stored(save_optimizer(Snapshot::new(), "optimizer", &adamw, &config).unwrap());
    load_optimizer(&checkpoint, "optimizer", &mut lighter.init(), &lighter).unwrap();
}

/// burn starts a parameter anew if something of its state is missing, and says nothing.
#[test]
fn a_parameter_without_its_state_is_an_error() {
    let checkpoint = with_record(&adams_checkpoint(), |tensors| drop(tensors.remove(0)));
    let config = AdamConfig::new();
    let mut adam = config.init();
    let error = load_optimizer(&checkpoint, "optimizer", &mut adam, &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("of an optimizer"), "{error}");
    assert!(adam.to_record().is_empty());
}

/// Each would be a copy: a small record could name a tensor a million times.
#[test]
fn a_record_that_lists_a_tensor_twice_is_damaged() {
    let checkpoint = with_record(&adams_checkpoint(), |tensors| tensors.push(tensors[0].clone()));
    let error = load_record::<OptimizerRecord>(&checkpoint, "optimizer").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.tensor().is_some(), "{error}");
}

#[derive(Module, Debug)]
struct Wide {
    one: Linear,
    two: Linear,
}

/// The budget is for all tensors of a record, whose number the file decides.
#[test]
fn what_a_file_claims_stays_within_the_budget() {
    let folder = TempFolder::new("burn-budget");
    let path = folder.path().join("wide.tkeep");
    let linear = || LinearConfig::new(100, 100).init(&device());
    let wide = Wide { one: linear(), two: linear() };
    let snapshot = save_record(Snapshot::new(), "model", wide.into_record()).unwrap();
    snapshot.save(&path).unwrap();
    for (budget, fits) in [(60_000, false), (100_000, true)] {
        let options = OpenOptions::new().budget(budget);
        let checkpoint = options.open(&path).unwrap();
        assert!(checkpoint.tensors().all(|info| info.byte_len < 60_000));
        let record = load_record::<burn::store::ModuleRecord>(&checkpoint, "model");
        let mut store = TensorkeepStore::at(&path).options(options);
        let all = store.get_all_tensors();
        let kinds = [record.err(), all.err()].map(|error| error.map(|error| error.kind()));
        let expected = if fits { None } else { Some(ErrorKind::LimitExceeded) };
        assert_eq!(kinds, [expected, expected]);
    }
}

#[test]
fn a_group_of_another_kind_is_an_error() {
    let checkpoint = adams_checkpoint();
    let error = load_module(&checkpoint, "optimizer", &mut Small::new(1, &device())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(
        error.to_string().contains("expected module") && error.to_string().contains("found optimizer"),
        "{error}"
    );
    let config = AdamConfig::new();
    let missing = load_optimizer(&checkpoint, "optim", &mut config.init(), &config).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn burns_own_door_saves_and_loads_one_file() {
    let folder = TempFolder::new("burn-store");
    let path = folder.path().join("small.tkeep");
    let trained = Small::new(1, &device());
    trained.save_into(&mut TensorkeepStore::at(&path)).unwrap();
    let mut module = Small::new(2, &device());
    let mut store = TensorkeepStore::at(&path);
    let result = module.load_from(&mut store).unwrap();
    assert_eq!(result.applied.len(), values(&trained).len());
    assert_eq!(values(&module), values(&trained));
    assert!(store.keys().unwrap().contains(&"first.weight".to_owned()));
    assert_eq!(store.get_tensor("first.weight").unwrap().unwrap().shape.to_vec(), [4, 4]);
    assert!(store.get_tensor("first.wieght").unwrap().is_none());
    let error = BurnLeNet::new(&device()).load_from(&mut store).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
}
