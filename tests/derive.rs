//! `#[derive(Stateful)]` and `#[derive(Model)]`: names, round trips, and errors when loading.
#![cfg(all(feature = "derive", feature = "ndarray"))]

use ndarray::{Array1, Array2, ArrayBase, Data, DataMut, Ix1, OwnedRepr};
use num_complex::Complex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use tensorkeep::{
    Checkpoint, ErrorKind, Model, Result, Snapshot, StateDict, StateDictMut, Stateful, WriteOptions,
    state_dict::StateField,
};
use test_support::open;

#[derive(Stateful, Debug, PartialEq, Clone)]
struct Linear {
    weight: Array2<f32>,
    bias: Option<Array1<f32>>,
}

impl Linear {
    fn filled(value: f32) -> Self {
        Self { weight: Array2::from_elem((2, 3), value), bias: Some(Array1::from_elem(2, value)) }
    }
}

#[derive(Stateful, Debug, PartialEq, Clone)]
struct Norm(Vec<f32>, #[stateful(rename = "shift")] Vec<f32>, #[stateful(skip)] f64);

#[derive(Stateful, Debug, PartialEq, Clone)]
enum Layer {
    Dense(Linear),
    #[stateful(rename = "scaled")]
    Scaled {
        scale: f32,
        inner: Box<Layer>,
    },
    Relu,
    Pair(Norm, Norm),
    #[stateful(rename = "norm")]
    Normed(Norm),
}

#[derive(Stateful, Debug, PartialEq, Clone)]
struct Counters {
    step: u64,
    r#type: [i16; 2],
}

#[derive(Stateful, Debug, PartialEq, Clone)]
struct Net<T, const N: usize> {
    #[stateful(rename = "emb")]
    embedding: Vec<[[f32; 2]; N]>,
    blocks: [T; 2],
    layers: Vec<Layer>,
    #[stateful(flatten)]
    counters: Counters,
    heads: BTreeMap<String, Linear>,
    ragged: Vec<Vec<i64>>,
    grid: [[Linear; 1]; 2],
    phase: Complex<f64>,
    tuple: (f32, Norm),
    boxed: Box<[u8]>,
    marker: PhantomData<T>,
    #[stateful(skip)]
    dropout: f64,
}

fn net(value: f32) -> Net<Linear, 3> {
    let norm = || Norm(vec![value; 2], vec![-value; 2], 0.5);
    let linear = || Linear::filled(value);
    Net {
        embedding: vec![[[value; 2]; 3]; 4],
        blocks: [linear(), Linear { bias: None, ..linear() }],
        layers: vec![
            Layer::Dense(linear()),
            Layer::Relu,
            Layer::Scaled { scale: value, inner: Box::new(Layer::Normed(norm())) },
            Layer::Pair(norm(), norm()),
        ],
        counters: Counters { step: value as u64, r#type: [value as i16; 2] },
        heads: BTreeMap::from([("left".to_owned(), linear()), ("right".to_owned(), linear())]),
        ragged: vec![vec![value as i64], vec![], vec![value as i64; 2]],
        grid: [[linear()], [linear()]],
        phase: Complex::new(f64::from(value), 0.0),
        tuple: (value, norm()),
        boxed: vec![value as u8; 3].into(),
        marker: PhantomData,
        dropout: 0.1,
    }
}

const NAMES: &[&str] = &[
    "emb",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.weight",
    "layers.0.weight",
    "layers.0.bias",
    "layers.2.scaled.scale",
    "layers.2.scaled.inner.norm.0",
    "layers.2.scaled.inner.norm.shift",
    "layers.3.0.0",
    "layers.3.0.shift",
    "layers.3.1.0",
    "layers.3.1.shift",
    "step",
    "type",
    "heads.left.weight",
    "heads.left.bias",
    "heads.right.weight",
    "heads.right.bias",
    "ragged.0",
    "ragged.1",
    "ragged.2",
    "grid.0.0.weight",
    "grid.0.0.bias",
    "grid.1.0.weight",
    "grid.1.0.bias",
    "phase",
    "tuple.0",
    "tuple.1.0",
    "tuple.1.shift",
    "boxed",
];

fn saved(snapshot: &Snapshot<'_>) -> Checkpoint {
    open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), false).unwrap()
}

#[test]
fn names_are_those_of_the_fields_in_both_directions() {
    let mut net = net(1.0);
    assert_eq!(net.state_dict().unwrap().names().collect::<Vec<_>>(), NAMES);
    let shapes: Vec<Vec<usize>> =
        net.state_dict().unwrap().iter().map(|(_, source)| source.shape().to_vec()).collect();
    let targets: Vec<_> = net.state_dict_mut().unwrap().into_iter().collect();
    assert!(targets.iter().map(|(name, _)| name).eq(NAMES));
    assert!(targets.iter().map(|(_, target)| target.shape()).eq(shapes.iter().map(|shape| &shape[..])));
    assert_eq!(shapes[0], [4, 3, 2], "an array around numbers is an axis");
    assert_eq!(shapes[13], [0; 0], "a number has no axes");
}

#[test]
fn a_derived_net_is_loaded_all_or_nothing() {
    let checkpoint = saved(&Snapshot::new().state_dict("model", net(2.0).state_dict().unwrap()).unwrap());
    let mut target = net(1.0);
    let report = checkpoint.load_state_dict("model", &mut target).unwrap();
    assert_eq!(report.loaded.len(), NAMES.len());
    assert_eq!(target, net(2.0));

    let mut other = net(1.0);
    other.blocks[0].bias = None;
    other.layers[1] = Layer::Dense(Linear::filled(1.0));
    let before = other.clone();
    let error = checkpoint.load_state_dict("model", &mut other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    assert!(text.contains("unexpected blocks.0.bias") && text.contains("missing layers.1.weight"), "{text}");
    assert_eq!(other, before);
}

/// Only when they are saved or loaded can it be seen that flattened modules share a name.
#[test]
fn flattened_modules_with_one_name_are_refused() {
    #[derive(Stateful)]
    struct Both {
        #[stateful(flatten)]
        first: Counters,
        #[stateful(flatten)]
        second: Counters,
    }
    let counters = |step| Counters { step, r#type: [0; 2] };
    let mut both = Both { first: counters(1), second: counters(2) };
    let error = Snapshot::new().state_dict("m", both.state_dict().unwrap()).err().unwrap();
    assert!(error.to_string().contains("tensor m/step: a tensor of this name is there already"), "{error}");
    let checkpoint = saved(&Snapshot::new().state_dict("m", counters(7).state_dict().unwrap()).unwrap());
    let error = checkpoint.load_state_dict("m", &mut both).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("two tensors of the target are called \"step\""), "{error}");
    assert_eq!((both.first.step, both.second.step), (1, 2));
}

#[test]
fn a_list_of_modules_of_another_length_is_refused() {
    let checkpoint = saved(&Snapshot::new().state_dict("", net(2.0).state_dict().unwrap()).unwrap());
    let mut target = net(1.0);
    target.layers.pop();
    let error = checkpoint.load_state_dict("", &mut target).unwrap_err().to_string();
    assert!(error.contains("unexpected layers.3.0.0"), "{error}");
}

/// As `crates/lenet` does: the memory is a type parameter.
#[derive(Stateful)]
struct Scale<S: Data<Elem = f32> = OwnedRepr<f32>> {
    by: ArrayBase<S, Ix1>,
}

#[derive(Stateful)]
#[stateful(bound = "S: DataMut<Elem = f32>")]
struct Bounded<S: Data<Elem = f32>> {
    first: Scale<S>,
    rest: Option<Box<Bounded<S>>>,
}

/// Contains itself: its own bound is not required.
#[derive(Stateful)]
struct Tree<T> {
    leaf: T,
    children: Vec<Tree<T>>,
}

fn names(state: &impl Stateful) -> Vec<String> {
    state.state_dict().unwrap().names().map(str::to_owned).collect()
}

#[test]
fn generic_and_recursive_types_derive() {
    let mut values = [1.0_f32, 2.0];
    let view = Scale { by: ndarray::ArrayViewMut1::from(&mut values[..]) };
    assert_eq!(names(&view), ["by"]);
    let owned = |rest| Bounded { first: Scale { by: Array1::<f32>::zeros(1) }, rest };
    assert_eq!(names(&owned(Some(Box::new(owned(None))))), ["first.by", "rest.first.by"]);
    let leaf = |children| Tree { leaf: [0.0_f32; 2], children };
    assert_eq!(names(&leaf(vec![leaf(vec![])])), ["leaf", "children.0.leaf"]);
}

/// Implemented by hand, and a field of derived types all the same.
struct ByHand(Vec<f32>);

impl Stateful for ByHand {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        StateDict::new().with_field("values", &self.0)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        StateDictMut::new().with_field("values", &mut self.0)
    }
}

trait Activation: Stateful {
    fn gain(&self) -> f32;
}

impl Activation for ByHand {
    fn gain(&self) -> f32 {
        self.0[0]
    }
}

#[derive(Stateful)]
struct Mixed {
    one: ByHand,
    objects: Vec<Box<dyn Activation>>,
}

#[test]
fn modules_by_hand_and_trait_objects_are_fields() {
    let mut mixed = Mixed { one: ByHand(vec![1.0]), objects: vec![Box::new(ByHand(vec![2.0]))] };
    assert_eq!(names(&mixed), ["one.values", "objects.0.values"]);
    let checkpoint = saved(&Snapshot::new().state_dict("", mixed.state_dict().unwrap()).unwrap());
    mixed.objects[0] = Box::new(ByHand(vec![3.0]));
    checkpoint.load_state_dict("", &mut mixed).unwrap();
    assert_eq!((mixed.one.0[0], mixed.objects[0].gain()), (1.0, 2.0));
}

#[derive(Stateful)]
struct Flat {
    #[stateful(flatten)]
    value: f32,
}

#[test]
fn a_flattened_tensor_has_no_name_and_is_refused() {
    let error = Flat { value: 1.0 }.state_dict().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("`flatten` is for modules"), "{error}");
    assert!(StateField::add_to(&1.0_f32, "", StateDict::new()).is_err());
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Sizes {
    inputs: usize,
    outputs: usize,
}

#[derive(Stateful, Model, Debug, PartialEq)]
#[model(kind = "dense", build = Dense::zeros)]
struct Dense {
    #[model(config)]
    sizes: Sizes,
    weight: Array2<f32>,
}

impl Dense {
    fn zeros(sizes: &Sizes) -> Result<Self> {
        Ok(Self { sizes: sizes.clone(), weight: Array2::zeros((sizes.outputs, sizes.inputs)) })
    }
}

/// The configuration is inferred from the shapes.
#[derive(Stateful, Model, Debug, PartialEq)]
#[model(kind = "bare", config = (usize, usize), describe = |net| net.0.dim())]
#[model(build = |&shape| Ok(Bare(Array2::zeros(shape))))]
struct Bare(Array2<f32>);

#[test]
fn a_derived_model_is_rebuilt_by_its_kind_and_config() {
    let mut dense = Dense::zeros(&Sizes { inputs: 3, outputs: 2 }).unwrap();
    dense.weight.fill(4.0);
    let checkpoint = saved(&Snapshot::new().model(&dense).unwrap());
    assert_eq!(checkpoint.build::<Dense>().unwrap(), dense);
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["model/weight"]);
    assert_eq!(checkpoint.build::<Bare>().unwrap_err().kind(), ErrorKind::Mismatch);

    let bare = Bare(Array2::ones((2, 2)));
    let checkpoint = saved(&Snapshot::new().model(&bare).unwrap());
    assert_eq!(
        (checkpoint.inspect().model_kind().unwrap().as_str(), checkpoint.build::<Bare>().unwrap()),
        ("bare", bare)
    );
}
