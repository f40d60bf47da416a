//! Mistakes of peers when loading, and states that they cannot save at all.

use lenet::{Settings as Training, Trainer, data};
use ndarray::Array1;
use tensorkeep::{
    Dtype, ErrorKind, LoadOptions, Result, Snapshot, StateDict, StateDictMut, Stateful, Tensor, WriteOptions,
};
use test_support::open;

/// A net of two layers.
#[derive(Clone, Debug, PartialEq)]
struct Net {
    first: Array1<f32>,
    second: Array1<f32>,
}

impl Net {
    fn of(value: f32) -> Self {
        Self { first: Array1::from_elem(1000, value), second: Array1::from_elem(1000, value) }
    }
}

impl Stateful for Net {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        StateDict::new().with("first", &self.first)?.with("second", &self.second)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        StateDictMut::new().with("first", &mut self.first)?.with("second", &mut self.second)
    }
}

fn bytes_of(net: &Net) -> Vec<u8> {
    let snapshot = Snapshot::new().state_dict("", net.state_dict().unwrap()).unwrap();
    snapshot.to_bytes(&WriteOptions::new()).unwrap()
}

/// DCP: another dtype is cast silently. (The pickle of the same row: p14 in `reading.rs`.) Here: it
/// is an error that names both, and a cast must be requested.
#[test]
fn p14_a_dtype_that_differs_is_an_error() {
    let halves = Array1::from_elem(1000, 0.1_f64);
    let snapshot = Snapshot::new().tensor("first", &halves).unwrap().tensor("second", &halves).unwrap();
    let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    let mut net = Net::of(7.0);
    let error = checkpoint.load_state_dict("", &mut net).unwrap_err();
    assert_eq!((error.kind(), &net), (ErrorKind::Mismatch, &Net::of(7.0)));
    assert!(error.to_string().contains("expected f32 [1000], found f64 [1000]"), "{error}");
    LoadOptions::strict().cast().load(&checkpoint, "", &mut net).unwrap();
    assert_eq!(net, Net::of(0.1));
}

/// safetensors: 1.29 million tensors are written, and refused on loading: the reader has a limit
/// that the writer does not know. Here: one set of limits; a snapshot beyond it is not written, one
/// at the limit is read.
#[test]
fn p17_nothing_is_written_that_would_not_be_read() {
    let nested = |depth: usize| (1..depth).fold(serde_json::json!(1), |value, _| serde_json::json!([value]));
    let one = [1.0_f32];
    let tensor = |rank: usize| Tensor::from_elements(&vec![1; rank], &one);
    let mut at_the_limits = Snapshot::new().tensor("x".repeat(1024), tensor(64).unwrap()).unwrap();
    at_the_limits = at_the_limits.record("nested", &nested(33)).unwrap();
    let bytes = at_the_limits.to_bytes(&WriteOptions::new()).unwrap();
    let checkpoint = open(&bytes, true).unwrap();
    assert_eq!(checkpoint.tensor(&"x".repeat(1024)).unwrap().shape().len(), 64);
    checkpoint.inspect().record_value("nested").unwrap();

    assert!(Snapshot::new().tensor("x".repeat(1025), &one[..]).is_err());
    assert!(Snapshot::new().record("nested", &nested(34)).is_err());
    assert!(Snapshot::new().record("large", &"x".repeat((64 << 20) + 1)).is_err());
    let written =
        tensor(65).and_then(|tensor| Snapshot::new().tensor("rank", tensor)?.to_bytes(&WriteOptions::new()));
    assert!(written.is_err(), "65 axes were written");

    // As many as the peer refused, with names as short as its own.
    let mut many = Snapshot::new();
    for number in 0..1_300_000 {
        many = many.tensor(format!("t{number}"), Tensor::new(Dtype::U8, &[0], &[]).unwrap()).unwrap();
    }
    let bytes = many.to_bytes(&WriteOptions::new()).unwrap();
    assert_eq!(open(&bytes, true).unwrap().names().count(), 1_300_000);
}

/// candle's VarMap::load: variables are set one by one, so that an error half way leaves a mixed
/// model, and loading into an empty map "succeeds". Here: everything is found, checked and verified
/// before the first value is assigned.
#[test]
fn p18_a_load_is_all_or_nothing_and_nothing_is_an_error() {
    let mut bytes = bytes_of(&Net::of(1.0));
    let second = open(&bytes, true).unwrap().tensor("second").unwrap().bytes().to_vec();
    let last = bytes.windows(second.len()).rposition(|window| window == second).unwrap() + second.len() - 1;
    let whole = open(&bytes, true).unwrap();
    bytes[last] ^= 1;
    let damaged = open(&bytes, true).unwrap();
    let mut net = Net::of(7.0);
    assert_eq!(damaged.load_state_dict("", &mut net).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(net, Net::of(7.0), "the first layer was whole, and is not mixed in");
    let lenient = LoadOptions::strict().allow_missing().allow_unexpected();
    let error = lenient.load(&whole, "nowhere", &mut net).unwrap_err();
    assert_eq!((error.kind(), &net), (ErrorKind::Mismatch, &Net::of(7.0)), "nothing was loaded");
    whole.load_state_dict("", &mut net).unwrap();
    assert_eq!(net, Net::of(1.0));
}

/// candle, tch: the optimizer's state is inaccessible, so every resumed run begins with fresh
/// moments. Here: it is tensors and records like any other, and the next step is the same as
/// without the interruption.
#[test]
fn p19_a_saved_optimizer_makes_the_same_next_step() {
    let samples = data::drawn(3, 0..64).unwrap();
    let training = Training { batch_size: 16, epochs: 2, ..Training::default() };
    let bytes = |trainer: &Trainer| trainer.snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap();
    let mut trainer = Trainer::new(training.clone());
    for _ in 0..3 {
        trainer.step(&samples);
    }
    let checkpoint = open(&bytes(&trainer), true).unwrap();
    let moments: Vec<&str> = checkpoint.names().filter(|name| name.starts_with("optimizer/")).collect();
    assert!(moments.len() >= 2, "{moments:?}");
    assert!(
        moments.iter().any(|name| checkpoint.tensor(name).unwrap().bytes().iter().any(|&byte| byte != 0))
    );
    let mut resumed = Trainer::restore(&checkpoint, training).unwrap();
    for _ in 0..3 {
        trainer.step(&samples);
        resumed.step(&samples);
    }
    assert!(bytes(&trainer) == bytes(&resumed), "the resumed run went another way");
}
