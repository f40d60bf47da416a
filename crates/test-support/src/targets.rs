//! The fuzz targets, one function each. fuzz/ calls them on nightly with a fuzzer's inputs;
//! `fuzz_corpus.rs` calls them on every compiler with the inputs worth keeping.

mod foreign;
mod manifest;
mod messages;

use crate::{CODECS, edits, reseal, wave};
use arbitrary::{Arbitrary, Unstructured};
pub use foreign::{foreign, pickles};
pub use manifest::manifest;
pub use messages::messages;
use std::sync::LazyLock;
use tensorkeep::history::Point;
use tensorkeep::{Dtype, ErrorKind, Progress, Snapshot, Tensor, WriteOptions};

pub type Target = fn(&[u8]);

/// Each target by the name of its file in fuzz/.
pub const TARGETS: [(&str, Target); 11] = [
    ("open", open),
    ("read_all", read_all),
    ("resealed", resealed),
    ("records", records),
    ("history", history),
    ("roundtrip", roundtrip),
    ("operations", operations),
    ("foreign", foreign),
    ("pickles", pickles),
    ("manifest", manifest),
    ("messages", messages),
];

/// Any bytes: opening them returns a checkpoint or an error.
pub fn open(bytes: &[u8]) {
    for mapped in [false, true] {
        match crate::open(bytes, mapped) {
            Ok(checkpoint) => drop(format!("{checkpoint:?}")),
            Err(error) => drop(format!("{error}{error:?}")),
        }
    }
}

/// Overwrites in a whole container: the distance from its end, the length, the bytes.
#[derive(Arbitrary, Debug)]
struct Damage {
    codec: u8,
    mapped: bool,
    overwrites: Vec<(u32, u16, u8)>,
}

static CONTAINERS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let (elements, constant) = (wave(17_000), vec![0.25_f64; 9000]);
    let mut snapshot =
        Snapshot::new().tensor("weight", &elements).unwrap().tensor("bias", &elements[..9]).unwrap();
    snapshot = snapshot.tensor("constant", &constant).unwrap().alias("tied", "bias").unwrap();
    snapshot = snapshot
        .record("optimizer", &("adam", 0.001, vec![0.9, 0.999]))
        .unwrap()
        .metric("loss", 0.5)
        .unwrap();
    let bytes =
        |&codec| snapshot.to_bytes(&WriteOptions::new().codec(codec).chunk_log2(16).workers(1)).unwrap();
    CODECS.iter().map(bytes).collect()
});

/// A damaged container with its original checksums: every readable entry is as written. The target
/// builds the container itself, so that no corpus is needed to get past the magic.
pub fn read_all(input: &[u8]) {
    let Ok(damage) = Damage::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let whole = &CONTAINERS[usize::from(damage.codec) % CONTAINERS.len()];
    let mut damaged = whole.clone();
    for (start, len, value) in damage.overwrites {
        // From the end: footer, mirror and index are there.
        let end = whole.len() - start as usize % whole.len();
        let start = end.saturating_sub(1 + usize::from(len));
        damaged[start..end].fill(value);
    }
    let original = crate::open(whole, true).unwrap();
    let Ok(checkpoint) = crate::open(&damaged, damage.mapped) else { return };
    assert!(checkpoint.names().eq(original.names()));
    for name in original.names() {
        if let Ok(tensor) = checkpoint.tensor(name) {
            let expected = original.tensor(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape()), (expected.dtype(), expected.shape()));
            assert!(tensor.bytes() == expected.bytes(), "{name} is wrong");
        }
    }
    for name in original.records() {
        if let Ok(value) = checkpoint.inspect().record_value(name) {
            assert_eq!(value, original.inspect().record_value(name).unwrap());
        }
    }
    assert_eq!(checkpoint.verify().is_ok(), &damaged == whole);
}

/// Lies with valid checksums: the input is a program that edits a container, whose checksums are
/// then recomputed.
pub fn resealed(input: &[u8]) {
    static SEEDS: LazyLock<Vec<reseal::Pieces>> = LazyLock::new(edits::seeds);
    let [which, program @ ..] = input else { return };
    let bytes = edits::edited(&SEEDS[usize::from(*which) % SEEDS.len()], program);
    for mapped in [false, true] {
        edits::read_everything(&bytes, mapped);
    }
}

/// Any bytes as a record: the MessagePack reader accepts or refuses a value, and an accepted one
/// can be written and read again.
pub fn records(record: &[u8]) {
    static TEMPLATE: LazyLock<reseal::Pieces> = LazyLock::new(edits::record_template);
    let bytes = reseal::with_record(&TEMPLATE, record);
    let value = match edits::read_record(&bytes, record.len().is_multiple_of(2)) {
        Ok(value) => value,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
    };
    // A map whose keys differ in their bytes and not in their value (1 in one byte and in two)
    // cannot be written again.
    let Ok(snapshot) = Snapshot::new().record("r", &value) else { return };
    let again = crate::open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    // As text, because NaN is not equal to itself.
    assert_eq!(again.inspect().record_value("r").unwrap().to_string(), value.to_string());
}

/// Any bytes as a run's history: it is read, its curves in the order of their steps, or refused.
pub fn history(record: &[u8]) {
    static TEMPLATE: LazyLock<reseal::Pieces> = LazyLock::new(edits::history_template);
    // The writer's template has a chunk, and a record of no bytes has none.
    if record.is_empty() {
        return;
    }
    let checkpoint = crate::open(&reseal::with_record(&TEMPLATE, record), true).unwrap();
    let mut history = match checkpoint.inspect().history() {
        Ok(history) => history.expect("its record is there"),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Mismatch), "{error}");
            return;
        }
    };
    for series in history.metrics.values_mut() {
        assert_eq!(series.points().count(), series.len());
        assert!(series.best().is_none_or(|best| best.value.is_finite()));
        // A run goes on with it.
        let point = series.last().unwrap_or(Point { step: 0, epoch: 0, time: 0.0, value: 0.0 });
        series.push(point);
    }
    for life in &history.lives {
        assert!(history.life(life.attempt).is_some());
        drop((life.end.is_over(), format!("{life:?}")));
    }
}

type Record = Vec<Option<(String, i64)>>;

/// A tensor before its numbers are reduced to valid ranges.
#[derive(Arbitrary, Debug)]
struct Announced {
    name: String,
    dtype: u8,
    shape: Vec<u8>,
    stretch: u8,
    pattern: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Anything {
    tensors: Vec<Announced>,
    aliases: Vec<(String, String)>,
    records: Vec<(String, Record)>,
    metrics: Vec<(String, f64)>,
    metadata: Vec<(String, String)>,
    progress: Option<(u64, u64)>,
    codec: u8,
    chunk_log2: u8,
    workers: u8,
    mapped: bool,
}

/// Limit of all tensors' bytes in a snapshot: far below the limit of a single allocation in
/// fuzz/run, so that it catches the library's allocations.
const ROOM: usize = 8 << 20;

fn bytes_of(shape: &[usize], dtype: Dtype) -> usize {
    shape.iter().product::<usize>() * dtype.size()
}

/// A tensor's bytes: a pattern, repeated.
fn repeated(len: usize, pattern: &[u8]) -> Vec<u8> {
    pattern.iter().chain([&7]).cycle().take(len).copied().collect()
}

/// Adds an item to a snapshot, which stays unchanged when it is refused; returns whether it was
/// added.
fn put<'a>(
    snapshot: &mut Snapshot<'a>,
    add: impl FnOnce(Snapshot<'a>) -> tensorkeep::Result<Snapshot<'a>>,
) -> bool {
    add(snapshot.clone()).map(|added| *snapshot = added).is_ok()
}

/// Any snapshot is either refused when it is made, or read back the same.
pub fn roundtrip(input: &[u8]) {
    let Ok(input) = Anything::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let tensors = tensors_of(&input);
    let mut snapshot = Snapshot::new();
    let mut kept = std::collections::BTreeMap::new();
    for (name, dtype, shape, bytes) in &tensors {
        let tensor = Tensor::new(*dtype, shape, bytes).unwrap();
        if put(&mut snapshot, |snapshot| snapshot.tensor(name.as_str(), tensor)) {
            kept.insert(name.as_str(), (*dtype, shape, bytes));
        }
    }
    for (name, target) in &input.aliases {
        if put(&mut snapshot, |snapshot| snapshot.alias(name.as_str(), target)) {
            kept.insert(name, kept[target.as_str()]);
        }
    }
    let mut put_record = |(name, value): &&(String, Record)| {
        put(&mut snapshot, |snapshot| snapshot.record(name.as_str(), value))
    };
    let records: Vec<_> = input.records.iter().filter(|record| put_record(record)).collect();
    // Refused items, such as a bad name or a NaN, are not in the snapshot and must not be in the
    // file.
    let mut metrics = std::collections::BTreeMap::new();
    for (name, value) in &input.metrics {
        if put(&mut snapshot, |snapshot| snapshot.metric(name.as_str(), *value)) {
            metrics.insert(name.clone(), *value);
        }
    }
    for (key, value) in &input.metadata {
        put(&mut snapshot, |snapshot| snapshot.metadata(key.as_str(), value.as_str()));
    }
    if let Some((step, epoch)) = input.progress {
        snapshot = snapshot.progress(Progress::new(step).epoch(epoch));
    }
    let options = WriteOptions::new()
        .codec(CODECS[usize::from(input.codec) % CODECS.len()])
        .chunk_log2(16 + input.chunk_log2 % 3)
        .workers(1 + usize::from(input.workers) % 2);
    let written = snapshot.to_bytes(&options).unwrap();

    let checkpoint = crate::open(&written, input.mapped).unwrap();
    assert_eq!(checkpoint.names().count(), kept.len());
    for (name, (dtype, shape, bytes)) in kept {
        let tensor = checkpoint.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape(), tensor.bytes()), (dtype, &shape[..], &bytes[..]));
    }
    for (name, value) in records {
        assert_eq!(&checkpoint.record::<Record>(name).unwrap(), value);
    }
    assert_eq!(checkpoint.metrics().unwrap(), metrics);
    let progress = input.progress.map(|(step, epoch)| Progress::new(step).epoch(epoch));
    assert_eq!(checkpoint.progress().unwrap(), progress);
    checkpoint.verify().unwrap();
}

/// The tensors of an input, cut to what fits the room: names, dtypes, shapes, bytes.
fn tensors_of(input: &Anything) -> Vec<(&String, Dtype, Vec<usize>, Vec<u8>)> {
    let mut room = ROOM;
    input
        .tensors
        .iter()
        .map(|Announced { name, dtype, shape, stretch, pattern }| {
            let dtype = Dtype::ALL[usize::from(*dtype) % Dtype::ALL.len()];
            let mut shape: Vec<usize> = shape.iter().take(5).map(|dim| usize::from(*dim % 8)).collect();
            shape.extend((*stretch > 200).then_some(usize::from(*stretch)));
            if bytes_of(&shape, dtype) > room {
                shape = vec![0];
            }
            let len = bytes_of(&shape, dtype);
            room -= len;
            (name, dtype, shape, repeated(len, pattern))
        })
        .collect()
}

/// Any operations on a run: saves, pins, deletions, resumes, kills, rot.
pub fn operations(input: &[u8]) {
    if let Err(violation) = tensorkeep::testing::operations::run(input) {
        panic!("{violation}");
    }
}
