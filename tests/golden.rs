//! Golden files of format version 1: written once by the version that introduced the format, and
//! read by every one since. The expected values are in this file. Raw ones are also written again,
//! byte for byte; the compressor of the others may change, their decoded values may not.
#![cfg(feature = "ndarray")]

#[path = "golden/ranks.rs"]
mod ranks;

use ndarray::{arr1, arr2};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use tensorkeep::history::LifeEnd;
use tensorkeep::{
    Checkpoint, CheckpointId, Codec, Dtype, Mode, Progress, Snapshot, Tensor, Value, WriteOptions,
};
use test_support::{Linear, open};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v1/{name}.tkeep"))
}

/// Reads the file, and checks that its snapshot is still written with the same bytes.
fn golden(name: &str, snapshot: &Snapshot<'_>) -> Vec<u8> {
    let bytes = fs::read(path(name)).unwrap();
    // [R127]
    let options = WriteOptions::new().file_id(open(&bytes, false).unwrap().inspect().file_id());
    assert!(snapshot.to_bytes(&options).unwrap() == bytes, "{name} is written differently now");
    bytes
}

fn read_and_mapped(bytes: &[u8]) -> [Checkpoint; 2] {
    [false, true].map(|mapped| {
        let checkpoint = open(bytes, mapped).unwrap();
        checkpoint.verify().unwrap();
        checkpoint
    })
}

const WEIGHT: [f32; 6] = [0.0, -0.0, 1.5, f32::MIN_POSITIVE, f32::INFINITY, 3.0e38];
const STEP: [i64; 1] = [i64::MIN];
const MASK: [bool; 3] = [true, false, true];
const COMPLEX: [[f64; 2]; 2] = [[1.0, -1.0], [0.25, 1e300]];

fn plain() -> Snapshot<'static> {
    let mut snapshot = Snapshot::new().tensor("conv1.weight", (&[2, 3][..], &WEIGHT[..])).unwrap();
    snapshot = snapshot.tensor("step", (&[][..], &STEP[..])).unwrap();
    snapshot = snapshot.tensor("mask", &MASK[..]).unwrap().tensor("phase", &COMPLEX[..]).unwrap();
    snapshot = snapshot.tensor("empty", Tensor::new(Dtype::Bf16, &[4, 0], &[]).unwrap()).unwrap();
    snapshot = snapshot.tensor("fp8", Tensor::new(Dtype::F8E5M2FnUz, &[2], &[0x80, 0x7F]).unwrap()).unwrap();
    snapshot
}

#[test]
fn plain_tensors_are_read() {
    for checkpoint in read_and_mapped(&golden("plain", &plain())) {
        assert_eq!(
            checkpoint.names().collect::<Vec<_>>(),
            ["conv1.weight", "empty", "fp8", "mask", "phase", "step"]
        );
        let weight = checkpoint.tensor("conv1.weight").unwrap();
        assert_eq!(weight.shape(), [2, 3]);
        assert!(weight.elements::<f32>().unwrap().iter().map(|x| x.to_bits()).eq(WEIGHT.map(f32::to_bits)));
        assert_eq!(checkpoint.tensor("step").unwrap().scalar::<i64>().unwrap(), i64::MIN);
        assert_eq!(checkpoint.tensor("mask").unwrap().elements::<bool>().unwrap(), MASK);
        assert_eq!(checkpoint.tensor("phase").unwrap().elements::<[f64; 2]>().unwrap(), COMPLEX);
        let empty = checkpoint.tensor("empty").unwrap();
        assert_eq!((empty.dtype(), empty.shape()), (Dtype::Bf16, &[4, 0][..]));
        let fp8 = checkpoint.tensor("fp8").unwrap();
        assert_eq!((fp8.dtype(), fp8.bytes()), (Dtype::F8E5M2FnUz, &[0x80, 0x7F][..]));
    }
}

const SHARED: [f32; 4] = [0.5, -0.5, 0.25, -0.25];

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Adam {
    lr: f64,
    betas: (f64, f64),
    name: Option<String>,
}

fn adam() -> Adam {
    Adam { lr: 0.1 + 0.2, betas: (0.9, 0.999), name: None }
}

fn aliases_and_records() -> Snapshot<'static> {
    let mut snapshot = Snapshot::new().tensor("decoder.weight", (&[2, 2][..], &SHARED[..])).unwrap();
    snapshot = snapshot.tensor("encoder.weight", (&[2, 2][..], &SHARED[..])).unwrap();
    snapshot = snapshot.alias("head", "decoder.weight").unwrap();
    snapshot = snapshot.record("optimizer", &adam()).unwrap();
    snapshot = snapshot.record("seeds", &[u64::MAX, 0, 1 << 40]).unwrap();
    snapshot
}

#[test]
fn aliases_and_records_are_read() {
    for checkpoint in read_and_mapped(&golden("ties-and-records", &aliases_and_records())) {
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["decoder.weight", "encoder.weight", "head"]);
        for name in ["decoder.weight", "encoder.weight", "head"] {
            assert_eq!(checkpoint.tensor(name).unwrap().elements::<f32>().unwrap(), SHARED);
        }
        assert_eq!(checkpoint.info("head").unwrap().alias_of, Some("decoder.weight"));
        assert_eq!(checkpoint.record::<Adam>("optimizer").unwrap(), adam());
        assert_eq!(checkpoint.record::<Vec<u64>>("seeds").unwrap(), [u64::MAX, 0, 1 << 40]);
        assert_eq!(
            checkpoint.inspect().record_value("optimizer").unwrap(),
            Value::Map(BTreeMap::from([
                ("lr".to_owned(), Value::Float(0.1 + 0.2)),
                ("betas".to_owned(), Value::List(vec![Value::Float(0.9), Value::Float(0.999)])),
                ("name".to_owned(), Value::Null),
            ]))
        );
    }
}

fn linear() -> Linear {
    Linear { weight: arr2(&[[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]), bias: arr1(&[0.125, -0.125]) }
}

#[test]
fn a_whole_model_is_rebuilt() {
    // [R90]
    let net = linear();
    let snapshot = Snapshot::new().model(&net).unwrap();
    for checkpoint in read_and_mapped(&golden("model", &snapshot)) {
        assert_eq!(checkpoint.build::<Linear>().unwrap(), net);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["model/bias", "model/weight"]);
        assert_eq!(
            checkpoint.inspect().record_value("tensorkeep.model").unwrap().to_string(),
            r#"{config: {inputs: 3, outputs: 2}, kind: "linear"}"#
        );
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Sampler {
    seed: u128,
    order: Vec<u32>,
    rows: BTreeMap<i8, Vec<[f64; 2]>>,
    text: serde_bytes::ByteBuf,
    nothing: (Option<Option<u8>>, Option<u8>),
    short: Vec<f32>,
    kind: Sampling,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Sampling {
    Shuffled,
    Weighted { weights: Vec<f32> },
}

fn sampler() -> Sampler {
    Sampler {
        seed: 1 << 100,
        order: (0..256).collect(),
        rows: BTreeMap::from([(-1, vec![[0.5, -0.5]; 64]), (2, vec![])]),
        text: serde_bytes::ByteBuf::from(vec![7; 1024]),
        nothing: (Some(None), None),
        short: vec![0.1; 3],
        kind: Sampling::Weighted { weights: vec![0.25; 256] },
    }
}

#[test]
fn a_state_is_read() {
    // [R145] [R146] [R147] [R148]
    let snapshot = Snapshot::new().state("sampler", &sampler()).unwrap();
    let paths = ["kind.Weighted.weights", "order", "rows.-1", "text"].map(|path| format!("sampler/{path}"));
    for checkpoint in read_and_mapped(&golden("state", &snapshot)) {
        assert_eq!(checkpoint.state::<Sampler>("sampler").unwrap(), sampler());
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), paths);
        assert_eq!(checkpoint.info("sampler/rows.-1").unwrap().shape[..], [64, 2]);
        let record = checkpoint.inspect().record_value("sampler").unwrap();
        let Value::Map(fields) = record else { panic!("{record}") };
        let reference =
            |kind, path: &str| Value::List(vec![Value::Int(kind), Value::Bytes(path.as_bytes().to_vec())]);
        assert_eq!(fields["order"], reference(1, "order"));
        assert_eq!(fields["text"], reference(2, "text"));
        assert_eq!(fields["seed"], Value::Bytes((1_u128 << 100).to_be_bytes().to_vec()));
        assert_eq!(
            fields["nothing"],
            Value::List(vec![Value::List(vec![Value::Int(3), Value::Bytes(vec![1])]), Value::Null])
        );
    }
}

fn progress_and_metrics() -> Snapshot<'static> {
    let mut snapshot = Snapshot::new().progress(Progress::new(1200).epoch(3));
    snapshot = snapshot.metric("val_loss", 0.125).unwrap().metric("accuracy", 1.0).unwrap();
    snapshot = snapshot.metadata("run", "golden").unwrap().metadata("note", "é\n\"quoted\"").unwrap();
    snapshot
}

#[test]
fn progress_metrics_and_metadata_are_read() {
    // [R89]
    for checkpoint in read_and_mapped(&golden("progress-and-metrics", &progress_and_metrics())) {
        assert_eq!(checkpoint.progress().unwrap(), Some(Progress::new(1200).epoch(3)));
        let metrics = BTreeMap::from([("accuracy".to_owned(), 1.0), ("val_loss".to_owned(), 0.125)]);
        assert_eq!(checkpoint.metrics().unwrap(), metrics);
        assert_eq!(checkpoint.metadata().unwrap()["note"], "é\n\"quoted\"");
        assert_eq!(
            checkpoint.records().collect::<Vec<_>>(),
            ["tensorkeep.metadata", "tensorkeep.metrics", "tensorkeep.progress"]
        );
        let shown = checkpoint.inspect().record_value("tensorkeep.progress").unwrap().to_string();
        assert_eq!(shown, "{epoch: 3, step: 1200}");
    }
}

/// Two attempts by a store whose clock was set: the record is written again in
/// `src/store/history/record.rs`.
#[test]
fn a_history_is_read() {
    // [R149] [R150] [R151] [R152]
    for checkpoint in read_and_mapped(&fs::read(path("history")).unwrap()) {
        let history = checkpoint.inspect().history().unwrap().unwrap();
        let loss = &history.metrics["loss"];
        assert_eq!((&loss.steps[..], &loss.epochs[..]), (&[1, 2, 3, 4][..], &[0, 1, 1, 2][..]));
        assert_eq!(loss.times, [1_700_000_010.0, 1_700_000_020.0, 1_700_000_030.0, 1_699_999_000.0]);
        assert_eq!(loss.values[..3], [0.5, 0.1, f64::INFINITY]);
        assert!(loss.values[3].is_nan());
        assert_eq!((loss.logged, loss.mode), (4, Some(Mode::Min)));
        assert_eq!((history.metrics["lr"].len(), history.metrics["lr"].mode), (3, None));
        let [first, second] = &history.lives[..] else { panic!("{history:?}") };
        assert_eq!(
            (first.attempt, &*first.host, first.pid, &first.end),
            (1, "simulated", 1, &LifeEnd::Closed)
        );
        assert_eq!(
            (first.first_step, first.last_step, first.saves, first.resumed_from),
            (Some(0), Some(3), 1, None)
        );
        assert_eq!((second.attempt, &second.end), (2, &LifeEnd::Running));
        assert_eq!((second.first_step, second.last_step), (Some(3), Some(4)));
        assert_eq!(second.resumed_from, Some(CheckpointId { attempt: 1, step: 3 }));
        assert!(second.last_seen < second.started, "the clock went back");
    }
}

/// Exact in every float, so that no machine's rounding matters.
fn ramp() -> Vec<f32> {
    (0..40_000).map(|i| 1.0 + (i % 997) as f32 / 4096.0).collect()
}

#[test]
fn compressed_tensors_and_records_are_read() {
    // [R66] [R68] [R63]
    let bytes = fs::read(path("zstd")).unwrap();
    for checkpoint in read_and_mapped(&bytes) {
        assert!(checkpoint.tensor("ramp").unwrap().elements::<f32>().unwrap() == ramp());
        assert!(!checkpoint.info("ramp").unwrap().raw);
        assert_eq!(checkpoint.info("ramp").unwrap().chunks, 3);
        assert_eq!(checkpoint.info("zeros").unwrap().stored_len, 8);
        assert!(checkpoint.tensor("zeros").unwrap().elements::<f64>().unwrap() == [0.0; 1000]);
        assert_eq!(checkpoint.tensor("small").unwrap().elements::<u8>().unwrap(), [1, 2, 3]);
        assert!(checkpoint.record::<Vec<u32>>("history").unwrap().into_iter().eq(0..5000));
    }
}

/// Floats of many exponents and dense mantissas, in whole numbers: the same everywhere.
fn dense(count: u64) -> impl Iterator<Item = i64> {
    (0..count).map(|i| {
        let mixed = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ i << 17;
        // Squared, as second moments are, so that small ones are frequent; the lowest bit is the
        // sign.
        let value = (mixed >> 40) as i64;
        ((value * value) >> 8) * if mixed & 1 == 0 { 1 } else { -1 }
    })
}

/// Each float dtype, integers and text, large enough to be compressed.
fn balanced() -> Snapshot<'static> {
    let mut snapshot = Snapshot::new();
    let mut add = |name: &str, dtype, bytes: Vec<u8>| {
        let shape = [bytes.len() / Dtype::size(dtype)];
        let tensor = Tensor::shared(dtype, &shape, std::sync::Arc::new(bytes)).unwrap();
        snapshot = std::mem::take(&mut snapshot).tensor(name, tensor).unwrap();
    };
    let scaled = |count| dense(count).map(|value| value as f64 / (1_u64 << 40) as f64);
    let bytes_32 = |count| scaled(count).flat_map(|value| (value as f32).to_le_bytes()).collect::<Vec<u8>>();
    let bytes_64 = |count| scaled(count).flat_map(f64::to_le_bytes).collect::<Vec<u8>>();
    add("bf16", Dtype::Bf16, bytes_32(3000).as_chunks::<4>().0.iter().flat_map(|b| [b[2], b[3]]).collect());
    add("c128", Dtype::C128, bytes_64(1000));
    add("c64", Dtype::C64, bytes_32(2000));
    add(
        "f16",
        Dtype::F16,
        dense(4096).flat_map(|value| ((value >> 30 & 0x7FFF) as u16 / 3).to_le_bytes()).collect(),
    );
    add("f32", Dtype::F32, bytes_32(18_000));
    add("f64", Dtype::F64, bytes_64(1000));
    add("f8", Dtype::F8E4M3Fn, dense(6000).map(|value| (value >> 34 & 0x3F) as u8).collect());
    add("ids", Dtype::I64, (0..9000_i64).flat_map(|id| (id * 7 % 5021).to_le_bytes()).collect());
    add("text", Dtype::Opaque, b"one line of a log\n".repeat(400));
    add("tokens", Dtype::U16, (0..9000_u16).flat_map(|id| (id * 7 % 251).to_le_bytes()).collect());
    snapshot
}

#[test]
fn tensors_of_every_codec_are_read() {
    // [R129] [R130] [R131] [R132]
    let expected = Checkpoint::from_bytes(&balanced().to_bytes(&WriteOptions::new()).unwrap()).unwrap();
    for checkpoint in read_and_mapped(&fs::read(path("balanced")).unwrap()) {
        assert!(checkpoint.names().eq(expected.names()));
        for name in expected.names() {
            let (found, expected) = (checkpoint.tensor(name).unwrap(), expected.tensor(name).unwrap());
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name}");
            assert!(found.bytes() == expected.bytes(), "{name}");
        }
        let codec = |name: &str| checkpoint.inspect().chunks(name).unwrap()[0].codec;
        for name in ["bf16", "c128", "c64", "f16", "f32", "f64"] {
            assert_eq!(codec(name), "float-planes", "{name}");
        }
        for name in ["f8", "ids", "text", "tokens"] {
            assert_eq!(codec(name), "zstd", "{name}");
        }
    }
}

#[test]
#[ignore = "writes into the source tree, once for every version of the format"]
fn make_the_golden_files() {
    let net = linear();
    let model = Snapshot::new().model(&net).unwrap();
    make("plain", &plain(), &WriteOptions::new());
    make("ties-and-records", &aliases_and_records(), &WriteOptions::new());
    make("model", &model, &WriteOptions::new());
    make("progress-and-metrics", &progress_and_metrics(), &WriteOptions::new());
    // `zstd` is from an earlier writer, which stored floats by the filter of planes and zstd at
    // level 3.
    make("balanced", &balanced(), &WriteOptions::new().codec(Codec::Balanced).chunk_log2(16));
}

/// Golden files are never regenerated: existing ones stay.
fn make(name: &str, snapshot: &Snapshot<'_>, options: &WriteOptions) {
    let bytes = snapshot.to_bytes(options).unwrap();
    match fs::File::create_new(path(name)) {
        Ok(mut file) => file.write_all(&bytes).unwrap(),
        Err(error) => println!("{name}: {error}"),
    }
}
