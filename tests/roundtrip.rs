//! Any snapshot comes back the same, and any damage is found. Properties over generated snapshots;
//! exhaustive, bit by bit and length by length, over one small container.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tensorkeep::{
    Checkpoint, Codec, Dtype, ErrorKind, OpenOptions, Progress, Snapshot, Tensor, Value, Verify,
    WriteOptions, inspect::RESERVED_PREFIX,
};
use test_support::{open, open_with};

/// The content of a snapshot, kept for comparison.
#[derive(Clone, Debug)]
struct Contents {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    /// Aliases, and the tensor they stand for (modulo their number).
    aliases: BTreeMap<String, prop::sample::Index>,
    records: BTreeMap<String, Value>,
    metrics: BTreeMap<String, f64>,
    metadata: BTreeMap<String, String>,
    progress: Option<(u64, u64)>,
}

impl Contents {
    fn snapshot(&self) -> Snapshot<'_> {
        let mut snapshot = Snapshot::new();
        for (name, (dtype, shape, bytes)) in &self.tensors {
            snapshot = snapshot.tensor(name, Tensor::new(*dtype, shape, bytes).unwrap()).unwrap();
        }
        for (name, target) in self.aliases() {
            snapshot = snapshot.alias(name, target).unwrap();
        }
        for (name, value) in &self.records {
            snapshot = snapshot.record(name, value).unwrap();
        }
        for (name, &value) in &self.metrics {
            snapshot = snapshot.metric(name, value).unwrap();
        }
        for (key, value) in &self.metadata {
            snapshot = snapshot.metadata(key, value).unwrap();
        }
        if let Some((step, epoch)) = self.progress {
            snapshot = snapshot.progress(Progress::new(step).epoch(epoch));
        }
        snapshot
    }

    /// Aliases whose name is free, with the tensor's name.
    fn aliases(&self) -> BTreeMap<&String, &String> {
        let names: Vec<_> = self.tensors.keys().collect();
        let free = self.aliases.iter().filter(|(name, _)| !self.tensors.contains_key(*name));
        let aliases = free.map(|(name, target)| (name, target.get(&names)));
        if names.is_empty() {
            BTreeMap::new()
        } else {
            aliases.map(|(name, target)| (name, *target)).collect()
        }
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), TestCaseError> {
        let aliases = self.aliases();
        let mut names: Vec<&str> = checkpoint.names().collect();
        names.sort_unstable();
        let mut expected: Vec<&str> =
            self.tensors.keys().chain(aliases.keys().copied()).map(String::as_str).collect();
        expected.sort_unstable();
        prop_assert_eq!(names, expected);
        for name in self.tensors.keys().chain(aliases.keys().copied()) {
            let (dtype, shape, bytes) = &self.tensors[aliases.get(name).copied().unwrap_or(name)];
            let tensor = checkpoint.tensor(name).unwrap();
            prop_assert_eq!((tensor.dtype(), tensor.shape()), (*dtype, &shape[..]));
            prop_assert!(tensor.bytes() == bytes, "{} differs", name);
            let mut target = vec![0xEE; bytes.len()];
            checkpoint.load_into([(name.as_str(), &mut target[..])]).unwrap();
            prop_assert!(&target == bytes, "{} differs when loaded into place", name);
            self.check_rows(checkpoint, name, shape, bytes)?;
        }
        for (name, value) in &self.records {
            prop_assert_eq!(&checkpoint.inspect().record_value(name).unwrap(), value);
        }
        let own = checkpoint.records().filter(|name| !name.starts_with(RESERVED_PREFIX)).count();
        prop_assert_eq!(own, self.records.len());
        prop_assert_eq!(&checkpoint.metrics().unwrap(), &self.metrics);
        prop_assert_eq!(&checkpoint.metadata().unwrap(), &self.metadata);
        let progress = checkpoint.progress().unwrap().map(|progress| (progress.step, progress.epoch));
        prop_assert_eq!(progress, self.progress);
        checkpoint.verify().unwrap();
        Ok(())
    }

    fn check_rows(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<(), TestCaseError> {
        let Some(&rows) = shape.first() else {
            prop_assert_eq!(checkpoint.slice(name, 0..0).unwrap_err().kind(), ErrorKind::Invalid);
            return Ok(());
        };
        let row = bytes.len() / rows.max(1);
        for range in [0..rows / 2, rows / 2..rows, rows / 3..rows / 2] {
            let slice = checkpoint.slice(name, range.clone()).unwrap();
            prop_assert!(
                slice.bytes() == &bytes[range.start * row..range.end * row],
                "rows {:?} of {} differ",
                range,
                name
            );
        }
        Ok(())
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{1,3}(\\.[a-z0-9]{1,8}){0,3}", 1 => "[^\\x00-\\x1f\\x7f]{1,40}", 1 => "[äß語🦀 /]{1,250}"]
}

/// Mostly small, some of several chunks; noise, constants, and mixtures.
fn tensor() -> impl Strategy<Value = (Dtype, Vec<usize>, Vec<u8>)> {
    let shape = prop_oneof![
        6 => vec(0..7_usize, 0..5),
        1 => (1..300_usize, 1..300_usize).prop_map(|(rows, columns)| vec![rows, columns]),
        1 => vec(Just(1_usize), 64),
    ];
    (prop::sample::select(Dtype::ALL), shape, any::<u64>(), 0..4_u32).prop_map(
        |(dtype, shape, seed, texture)| {
            let len = shape.iter().product::<usize>() * dtype.size();
            let mut state = seed;
            let mut next = |i: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match texture {
                    0 => (state >> 56) as u8,
                    1 => seed as u8,
                    2 => (i / dtype.size() / 50) as u8,
                    _ if i.is_multiple_of(dtype.size()) => (state >> 56) as u8,
                    _ => 0x3F,
                }
            };
            let bytes = (0..len).map(|i| if dtype == Dtype::Bool { next(i) & 1 } else { next(i) });
            (dtype, shape, bytes.collect())
        },
    )
}

/// Any value of a record, nested up to the limit's order of magnitude; NaN has a test of its own.
fn value() -> impl Strategy<Value = Value> {
    let scalar = || {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (i64::MAX as u64 + 1..).prop_map(Value::UInt),
            any::<f64>().prop_filter("NaN is not equal to itself", |f| !f.is_nan()).prop_map(Value::Float),
            ".{0,20}".prop_map(Value::Text),
            vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ]
    };
    scalar().prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            btree_map(".{0,8}", inner.clone(), 0..6).prop_map(Value::Map),
            // With a key that is not text, or it would come back as a map.
            btree_map(any::<i64>(), inner, 1..5).prop_map(|pairs| {
                Value::Pairs(pairs.into_iter().map(|(key, value)| (Value::Int(key), value)).collect())
            }),
        ]
    })
}

fn contents() -> impl Strategy<Value = Contents> {
    let metric = any::<f64>().prop_filter("a metric is finite", |value| value.is_finite());
    let record_name = name().prop_filter("a reserved name", |name| !name.starts_with(RESERVED_PREFIX));
    (
        btree_map(name(), tensor(), 0..8),
        btree_map(name(), any::<prop::sample::Index>(), 0..4),
        btree_map(record_name, value(), 0..5),
        btree_map(name(), metric, 0..4),
        btree_map(name(), "\\PC{0,30}", 0..4),
        any::<Option<(u64, u64)>>(),
    )
        .prop_map(|(tensors, aliases, records, metrics, metadata, progress)| Contents {
            tensors,
            aliases,
            records,
            metrics,
            metadata,
            progress,
        })
}

fn options() -> impl Strategy<Value = WriteOptions> {
    let codec = prop_oneof![Just(Codec::Raw), Just(Codec::Balanced), Just(Codec::Max)];
    (codec, 16..=26_u8, 1..4_usize).prop_map(|(codec, chunk_log2, workers)| {
        WriteOptions::new().codec(codec).chunk_log2(chunk_log2).workers(workers)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_snapshot_comes_back_the_same(contents in contents(), options in options(), mapped: bool, at_open: bool) {
        let bytes = contents.snapshot().to_bytes(&options).unwrap();
        prop_assert!(bytes == contents.snapshot().to_bytes(&options.clone().workers(2)).unwrap());
        let verify = if at_open { Verify::AtOpen } else { Verify::OnTouch };
        contents.check(&open_with(&bytes, mapped, OpenOptions::new().verify(verify)).unwrap())?;
    }

    #[test]
    fn one_flipped_bit_gives_the_same_data_or_an_error(
        contents in contents(), options in options(), at in any::<prop::sample::Index>(), bit in 0..8_u8, mapped: bool,
    ) {
        let bytes = contents.snapshot().to_bytes(&options).unwrap();
        let original = Everything::of(&open(&bytes, false).unwrap());
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(original.right_or_refused(&damaged, mapped).is_ok());
    }

    #[test]
    fn any_cut_of_any_container_is_an_error(contents in contents(), options in options(), at in any::<prop::sample::Index>(), mapped: bool) {
        let bytes = contents.snapshot().to_bytes(&options).unwrap();
        let error = open(&bytes[..at.index(bytes.len())], mapped).unwrap_err();
        prop_assert!([ErrorKind::Damaged, ErrorKind::Foreign].contains(&error.kind()), "{}", error);
    }
}

/// All readable content of a container, by name.
struct Everything {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    records: Vec<(String, Value)>,
}

impl Everything {
    fn of(checkpoint: &Checkpoint) -> Self {
        let tensor = |name: &str| {
            let tensor = checkpoint.tensor(name).unwrap();
            (name.to_owned(), tensor.dtype(), tensor.shape().to_vec(), tensor.bytes().to_vec())
        };
        let record = |name: &str| (name.to_owned(), checkpoint.inspect().record_value(name).unwrap());
        Self {
            tensors: checkpoint.names().map(tensor).collect(),
            records: checkpoint.records().map(record).collect(),
        }
    }

    /// Reads damaged bytes. Every tensor and record is as written, or an error; the names are as
    /// written, or it does not open; and verifying finds the damage. Returns whether it opened, and
    /// the number of refused entries.
    fn right_or_refused(&self, damaged: &[u8], mapped: bool) -> Result<(bool, usize), String> {
        let Ok(checkpoint) = open(damaged, mapped) else { return Ok((false, 0)) };
        if !checkpoint.names().eq(self.tensors.iter().map(|(name, ..)| name.as_str())) {
            return Err("other names".to_owned());
        }
        let mut refused = 0;
        for (name, dtype, shape, bytes) in &self.tensors {
            match checkpoint.tensor(name) {
                Err(_) => refused += 1,
                Ok(tensor)
                    if tensor.dtype() == *dtype && tensor.shape() == shape && tensor.bytes() == bytes => {}
                Ok(_) => return Err(format!("tensor {name} is wrong")),
            }
        }
        for (name, value) in &self.records {
            match checkpoint.inspect().record_value(name) {
                Err(_) => refused += 1,
                Ok(found) if found == *value => {}
                Ok(_) => return Err(format!("record {name} is wrong")),
            }
        }
        if checkpoint.verify().is_ok() {
            return Err("verifying saw nothing".to_owned());
        }
        Ok((true, refused))
    }
}

/// Header, three tensors (raw, filled, compressed), an alias, two records, index, mirror, footer:
/// 10 KB in all.
fn small_container() -> Vec<u8> {
    let (ramp, zeros) = ((0..2000_u32).collect::<Vec<_>>(), vec![0.5_f64; 2000]);
    let mut snapshot = Snapshot::new()
        .tensor("ramp", &ramp)
        .unwrap()
        .tensor("fill", &zeros)
        .unwrap()
        .tensor("bias", &ramp[..3])
        .unwrap();
    snapshot = snapshot
        .alias("tied", "bias")
        .unwrap()
        .record("r", &vec![1, 2, 3])
        .unwrap()
        .progress(Progress::new(9));
    snapshot.to_bytes(&WriteOptions::new().codec(Codec::Max)).unwrap()
}

#[test]
fn every_single_bit_of_a_container_is_guarded() {
    let bytes = small_container();
    let original = Everything::of(&open(&bytes, false).unwrap());
    assert_eq!((original.tensors.len(), original.records.len()), (4, 2));
    let mut damaged = bytes.clone();
    let (mut opened, mut with_refusals) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (opens, refused) = original
            .right_or_refused(&damaged, bit % 2 == 0)
            .unwrap_or_else(|wrong| panic!("bit {} of byte {}: {wrong}", bit % 8, bit / 8));
        opened += usize::from(opens);
        with_refusals += usize::from(refused > 0);
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(damaged == bytes);
    // Damage in tensors, records, padding, index or mirror does not prevent opening the file.
    assert!(opened > 1000 && with_refusals > 1000, "{opened} opened, {with_refusals} refused something");
}

#[test]
fn every_cut_of_a_container_is_an_error() {
    let bytes = small_container();
    for len in 0..bytes.len() {
        for mapped in [false, true] {
            let error = open(&bytes[..len], mapped).expect_err("a cut file opened");
            assert!([ErrorKind::Damaged, ErrorKind::Foreign].contains(&error.kind()), "{len}: {error}");
        }
    }
}

#[test]
fn a_record_keeps_the_bits_of_every_float() {
    let floats = [
        f64::NAN,
        -f64::NAN,
        -0.0,
        f64::INFINITY,
        f64::MIN_POSITIVE / 2.0,
        f64::from_bits(0x7FF4_0000_0000_0001),
    ];
    let snapshot = Snapshot::new().record("floats", &floats[..]).unwrap();
    let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    let found: Vec<f64> = checkpoint.record("floats").unwrap();
    assert!(found.iter().map(|f| f.to_bits()).eq(floats.iter().map(|f| f.to_bits())));
}
