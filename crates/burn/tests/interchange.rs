//! Checkpoints of others in burn, and burn's in others: the ndarray LeNet, candle's form, torch's
//! names.

mod common;

use burn::tensor::{Device, Tensor, TensorData};
use common::{BurnLeNet, Small, stored, values};
use lenet::{Config, LeNet, data};
use tensorkeep::{ErrorKind, Snapshot};
use tensorkeep_burn::{load_module, load_torch, save_module, save_torch};

/// Logits of both nets for the same drawn digits.
fn assert_equal_logits(net: &LeNet, burn: &BurnLeNet) {
    let digits = data::drawn(0, 0..8).unwrap();
    let pixels: Vec<f32> = digits.images().iter().copied().collect();
    let images = Tensor::from_data(TensorData::new(pixels, [8, 1, 28, 28]), &Device::default());
    let found: Vec<f32> = burn.forward(images).into_data().try_into_vec().unwrap();
    let expected: Vec<f32> = net.forward(digits.images()).into_iter().collect();
    assert_eq!(expected.len(), found.len());
    for (a, b) in expected.iter().zip(&found) {
        assert!((a - b).abs() < 1e-4, "{expected:?}\n{found:?}");
    }
}

#[test]
fn the_ndarray_lenets_checkpoint_is_a_burn_lenet() {
    let net = LeNet::new(Config::default(), &mut lenet::Rng::new(5)).unwrap();
    let checkpoint = stored(Snapshot::new().model(&net).unwrap());
    let mut burn = BurnLeNet::new(&Device::default());
    let (report, adapted) = load_torch(&checkpoint, "model", &mut burn).unwrap();
    assert_eq!(report.loaded.len(), 10);
    assert_eq!(adapted.transposed, ["fc1.weight", "fc2.weight", "fc3.weight"]);
    assert!(adapted.renamed.is_empty());
    assert_equal_logits(&net, &burn);
}

#[test]
fn a_burn_lenets_checkpoint_is_an_ndarray_lenet() {
    let burn = BurnLeNet::new(&Device::default());
    let (snapshot, adapted) = save_torch(Snapshot::new(), "model", &burn).unwrap();
    assert_eq!(adapted.to_string(), "transposed fc1.weight, fc2.weight, fc3.weight");
    let mut net = LeNet::zeros(Config::default()).unwrap();
    stored(snapshot).load_state_dict("model", &mut net).unwrap();
    assert_equal_logits(&net, &burn);
}

/// A linear weight that is square is transposed as well, and a norm's names are torch's.
#[test]
fn what_was_adapted_is_told_both_ways() {
    let device = Device::default();
    let small = Small::new(1, &device);
    let (snapshot, saved) = save_torch(Snapshot::new(), "state_dict", &small).unwrap();
    let norm = ["gamma", "beta"].map(|name| format!("norm.{name}"));
    assert_eq!(saved.transposed, ["first.weight", "last.weight"]);
    assert_eq!(
        saved.renamed.iter().map(|(burn, _)| burn).collect::<Vec<_>>(),
        norm.iter().collect::<Vec<_>>()
    );
    let snapshot = snapshot.tensor("state_dict/norm.num_batches_tracked", &[7_i64][..]).unwrap();
    let mut other = Small::new(2, &device);
    let (report, loaded) = load_torch(&stored(snapshot), "state_dict", &mut other).unwrap();
    assert_eq!(values(&other), values(&small));
    assert_eq!((&loaded.transposed, &loaded.renamed), (&saved.transposed, &saved.renamed));
    assert_eq!(report.left_out, ["norm.num_batches_tracked"]);
    assert_eq!(report.loaded.len(), values(&small).len());
}

#[test]
fn a_wrapped_torch_module_is_unwrapped() {
    let device = Device::default();
    let small = Small::new(1, &device);
    let (plain, _) = save_torch(Snapshot::new(), "m", &small).unwrap();
    let plain = stored(plain);
    let mut wrapped = Snapshot::new();
    for name in plain.names().filter(|name| name.starts_with("m/")) {
        let renamed = name.replace("m/", "state_dict.module.");
        wrapped = wrapped.tensor(renamed, plain.tensor(name).unwrap()).unwrap();
    }
    let wrapped = stored(wrapped);
    let mut other = Small::new(2, &device);
    let (report, _) = load_torch(&wrapped, "state_dict", &mut other).unwrap();
    assert_eq!(report.stripped, Some("module."));
    assert_eq!(values(&other), values(&small));
}

/// burn's own form is not torch's: the shapes of linear weights tell.
#[test]
fn burns_form_taken_for_torchs_is_an_error() {
    let device = Device::default();
    let checkpoint = stored(save_module(Snapshot::new(), "model", &BurnLeNet::new(&device)).unwrap());
    let mut lenet = BurnLeNet::new(&device);
    let before = values(&lenet);
    let error = load_torch(&checkpoint, "model", &mut lenet).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(
        error.to_string().contains("fc1.weight (expected f32 [120, 400], found f32 [400, 120])"),
        "{error}"
    );
    assert_eq!(values(&lenet), before);
    load_module(&checkpoint, "model", &mut lenet).unwrap();
}
