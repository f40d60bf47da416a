//! The net through a checkpoint: rebuilt without naming sizes, and computing on weights in place.

mod common;

use common::saved;
use lenet::{Config, LeNet, MappedWeights, Rng, data};
use tensorkeep::{ErrorKind, Snapshot, Stateful};

const SMALL: Config = Config { channels: 1, conv: [3, 5], hidden: [20, 12], classes: 10 };

fn net(config: Config) -> LeNet {
    LeNet::new(config, &mut Rng::new(9)).unwrap()
}

#[test]
fn a_net_is_rebuilt_without_naming_its_sizes() {
    for config in [Config::default(), SMALL] {
        let net = net(config);
        let snapshot = Snapshot::new().model(&net).unwrap();
        let rebuilt = saved(&snapshot, false).build::<LeNet>().unwrap();
        assert_eq!(rebuilt.sizes(), config);
        assert_eq!(rebuilt, net);
    }
}

#[test]
fn mapped_weights_give_the_same_bits_as_owned_ones() {
    let images = data::drawn(1, 0..70).unwrap();
    let net = net(SMALL);
    let snapshot = Snapshot::new().model(&net).unwrap();
    for mapped in [true, false] {
        let checkpoint = saved(&snapshot, mapped);
        let weights = MappedWeights::of(&checkpoint, "model").unwrap();
        assert_eq!(weights.is_borrowed(), mapped);
        let borrowed = weights.net().unwrap();
        assert_eq!(bits(&borrowed.forward(images.images())), bits(&net.forward(images.images())));
        assert_eq!(borrowed.predict(images.images()), net.predict(images.images()));
    }
}

fn bits(logits: &ndarray::Array2<f32>) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn bare_weights_are_enough_to_compute() {
    let net = net(SMALL);
    let snapshot = Snapshot::new().state_dict("", net.state_dict().unwrap()).unwrap();
    let checkpoint = saved(&snapshot, true);
    assert_eq!(MappedWeights::of(&checkpoint, "").unwrap().net().unwrap(), net);
    assert_eq!(MappedWeights::of(&checkpoint, "model").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn shapes_that_do_not_fit_together_are_refused_with_the_name() {
    let (good, other) = (net(SMALL), net(Config { hidden: [20, 13], ..SMALL }));
    let [.., wide, _] = other.parameters();
    let mut snapshot = Snapshot::new();
    for (name, values) in good.parameters() {
        let values = if name == wide.0 { wide.1.clone() } else { values };
        snapshot = snapshot.tensor(name, values).unwrap();
    }
    let checkpoint = saved(&snapshot, true);
    let error = MappedWeights::of(&checkpoint, "").unwrap_err();
    assert_eq!(
        (error.kind(), error.tensor(), error.object()),
        (ErrorKind::Mismatch, Some("fc3.weight"), Some("memory"))
    );
}
