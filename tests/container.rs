//! Containers through the public API: values come back bit for bit; damaged ones are never
//! returned.

use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tensorkeep::{
    Checkpoint, Codec, Dtype, ErrorKind, LazyTensor, OpenOptions, Snapshot, Tensor, Verify, WriteOptions,
};
use test_support::{InMemory, Zoo, open, open_with, wave};

const CODECS: [Codec; 2] = [Codec::Raw, Codec::Balanced];

fn bytes_of(snapshot: &Snapshot<'_>, codec: Codec) -> Vec<u8> {
    snapshot.to_bytes(&WriteOptions::new().codec(codec).workers(2)).unwrap()
}

#[test]
fn everything_comes_back_bit_for_bit_by_every_way_to_read() {
    let zoo = Zoo::new();
    for codec in CODECS {
        let bytes = bytes_of(&zoo.snapshot(), codec);
        for mapped in [false, true] {
            let checkpoint = open(&bytes, mapped).unwrap();
            let large = checkpoint.tensor("large").unwrap();
            assert_eq!(large.shape(), [100, 1000]);
            assert!(large.elements::<f32>().unwrap() == zoo.large);
            assert!(checkpoint.tensor("tied").unwrap().elements::<f32>().unwrap() == zoo.large);
            assert_eq!(checkpoint.tensor("small").unwrap().elements::<i16>().unwrap(), zoo.small);
            assert!(checkpoint.tensor("constant").unwrap().elements::<f64>().unwrap() == zoo.constant);
            assert_eq!(checkpoint.tensor("empty").unwrap().shape(), [3, 0, 2]);
            assert!(checkpoint.tensor("scalar").unwrap().scalar::<bool>().unwrap());
            let fp8 = checkpoint.tensor("fp8").unwrap();
            assert_eq!((fp8.dtype(), fp8.bytes()), (Dtype::F8E4M3Fn, &[1, 2, 255][..]));
            let optimizer: (String, f64, Vec<f64>) = checkpoint.record("optimizer").unwrap();
            assert_eq!(optimizer, ("adam".to_owned(), 0.001, vec![0.9, 0.999]));
            assert_eq!(checkpoint.metrics().unwrap()["loss"], 0.125);
            assert_eq!(checkpoint.metadata().unwrap()["run"], "zoo");
            assert_eq!(checkpoint.progress().unwrap().unwrap().step, 1200);
            let report = checkpoint.verify().unwrap();
            assert_eq!((report.tensors, report.records), (6, 4));
        }
    }
}

#[test]
fn raw_tensors_of_a_mapped_file_are_borrowed() {
    let zoo = Zoo::new();
    let raw = bytes_of(&zoo.snapshot(), Codec::Raw);
    let mapped = open(&raw, true).unwrap();
    let elements: &[f32] = mapped.inspect().require_mapped("large").unwrap().borrowed_elements().unwrap();
    assert!(elements == zoo.large);
    assert_eq!(elements.as_ptr() as usize % 64, 0);
    let error = open(&raw, false).unwrap().inspect().require_mapped("large").unwrap_err();
    assert!(error.to_string().contains("not mapped"), "{error}");
    let compressed = open(&bytes_of(&zoo.snapshot(), Codec::Balanced), true).unwrap();
    let error = compressed.inspect().require_mapped("large").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("compressed"), "{error}");
}

#[test]
fn aliases_are_stored_once_and_are_the_same_bytes() {
    let zoo = Zoo::new();
    let mut snapshot = zoo.snapshot();
    snapshot = snapshot.alias("by hand", "tied").unwrap().alias("by hand too", "small").unwrap();
    let checkpoint = open(&bytes_of(&snapshot, Codec::Raw), true).unwrap();
    let place = |name: &str| checkpoint.tensor(name).unwrap().borrowed().unwrap().as_ptr();
    assert_eq!(place("tied"), place("large"));
    assert_eq!(place("by hand"), place("large"));
    assert_eq!(place("by hand too"), place("small"));
    assert_eq!(checkpoint.info("tied").unwrap().alias_of, Some("large"));
    assert!(checkpoint.inspect().byte_len() < 600_000);
}

#[test]
fn a_snapshots_bytes_do_not_depend_on_the_number_of_workers() {
    // [R127]
    let zoo = Zoo::new();
    for codec in CODECS {
        let of =
            |workers| zoo.snapshot().to_bytes(&WriteOptions::new().codec(codec).workers(workers)).unwrap();
        assert!(of(1) == of(2) && of(2) == of(5));
    }
    assert!(zoo.snapshot().to_bytes(&WriteOptions::new().workers(0)).is_err());
    assert!(zoo.snapshot().to_bytes(&WriteOptions::new().chunk_log2(15)).is_err());
}

#[test]
fn deferred_tensors_are_drawn_one_at_a_time() {
    let alive = Arc::new(AtomicUsize::new(0));
    struct Counted(Vec<u8>, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let mut snapshot = Snapshot::new();
    for i in 0..20_u8 {
        let alive = Arc::clone(&alive);
        let draw = move || {
            assert!(
                alive.fetch_add(1, Ordering::SeqCst) <= 1,
                "the one before is kept at most until this one starts"
            );
            Tensor::shared(Dtype::U8, &[100_000], Arc::new(Counted(vec![i; 100_000], Arc::clone(&alive))))
        };
        snapshot = snapshot.tensor(format!("t{i:02}"), LazyTensor::new(Dtype::U8, &[100_000], draw)).unwrap();
    }
    let checkpoint = open(&bytes_of(&snapshot, Codec::Raw), false).unwrap();
    assert!(checkpoint.tensor("t07").unwrap().bytes().iter().all(|&byte| byte == 7));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_deferred_tensor_that_fails_fails_the_save_by_name() {
    for codec in CODECS {
        let mut snapshot = Snapshot::new();
        let fail = || Err(tensorkeep::Error::new(ErrorKind::Io, "the shard is gone"));
        snapshot = snapshot.tensor("w", LazyTensor::new(Dtype::U8, &[1], fail)).unwrap();
        let error = snapshot.to_bytes(&WriteOptions::new().codec(codec)).unwrap_err();
        assert_eq!(error.to_string(), "tensor w: the shard is gone");
    }
}

#[test]
fn a_slice_reads_only_its_chunks() {
    // [R109]
    let elements = wave(1_000_000);
    let snapshot = Snapshot::new().tensor("w", (&[1000, 1000][..], elements.as_slice())).unwrap();
    for codec in CODECS {
        let mut bytes = snapshot.to_bytes(&WriteOptions::new().codec(codec).chunk_log2(16)).unwrap();
        let offset = open(&bytes, false).unwrap().info("w").unwrap().offset as usize;
        // Damage in the first chunk: rows far behind it are not affected, the whole is.
        bytes[offset] ^= 1;
        for mapped in [false, true] {
            let checkpoint = open(&bytes, mapped).unwrap();
            let rows = checkpoint.slice("w", 500..503).unwrap();
            assert_eq!(rows.shape(), [3, 1000]);
            assert!(rows.elements::<f32>().unwrap() == &elements[500_000..503_000]);
            assert_eq!(checkpoint.slice("w", 7..7).unwrap().shape(), [0, 1000]);
            assert_eq!(checkpoint.slice("w", 0..1).unwrap_err().kind(), ErrorKind::Damaged);
            assert_eq!(checkpoint.tensor("w").unwrap_err().kind(), ErrorKind::Damaged);
            assert_eq!(checkpoint.slice("w", 999..1001).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}

#[test]
fn load_into_fills_existing_memory_of_the_same_length() {
    let zoo = Zoo::new();
    for codec in CODECS {
        let bytes = bytes_of(&zoo.snapshot(), codec);
        for mapped in [false, true] {
            let checkpoint = open(&bytes, mapped).unwrap();
            let mut target = vec![0; 400_000];
            checkpoint.load_into([("large", &mut target[..])]).unwrap();
            assert!(target == checkpoint.tensor("large").unwrap().bytes());
            assert_eq!(
                checkpoint.load_into([("large", &mut target[1..])]).unwrap_err().kind(),
                ErrorKind::Mismatch
            );
        }
    }
}

#[test]
fn errors_name_file_tensor_byte_expected_found_and_help() {
    let zoo = Zoo::new();
    let mut bytes = bytes_of(&zoo.snapshot(), Codec::Raw);
    let checkpoint = open(&bytes, false).unwrap();
    let error = checkpoint.tensor("lagre").unwrap_err();
    assert_eq!(error.to_string(), "memory: no tensor \"lagre\"; did you mean \"large\"?");
    let offset = checkpoint.info("large").unwrap().offset;
    bytes[offset as usize + 5] ^= 0x40;
    let error = open(&bytes, true).unwrap().tensor("large").unwrap_err();
    assert_eq!(
        (error.kind(), error.tensor(), error.byte()),
        (ErrorKind::Damaged, Some("large"), Some(offset))
    );
    assert!(error.to_string().starts_with("memory: tensor large: checksum of chunk 0 at byte "), "{error}");
    assert!(error.to_string().contains("expected ") && error.to_string().contains("found "), "{error}");
}

#[test]
fn a_damaged_index_costs_nothing_while_its_mirror_is_whole() {
    // [R106] [R124]
    let zoo = Zoo::new();
    let bytes = bytes_of(&zoo.snapshot(), Codec::Raw);
    let footer = &bytes[bytes.len() - 128..];
    let at = |from: usize| u64::from_le_bytes(footer[from..from + 8].try_into().unwrap()) as usize;
    let (index, len, mirror) = (at(0), at(8), at(24));
    let mut damaged = bytes.clone();
    damaged[index..index + len].fill(0);
    let checkpoint = open(&damaged, false).unwrap();
    assert!(checkpoint.inspect().index_damage().is_some());
    assert_eq!(checkpoint.tensor("small").unwrap().elements::<i16>().unwrap(), zoo.small);
    assert_eq!(checkpoint.verify().unwrap_err().kind(), ErrorKind::Damaged);
    damaged[mirror + 3] ^= 1;
    assert_eq!(open(&damaged, false).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn verify_options_decide_when_damage_is_seen() {
    // [R61]
    let zoo = Zoo::new();
    let mut bytes = bytes_of(&zoo.snapshot(), Codec::Raw);
    let offset = open(&bytes, false).unwrap().info("large").unwrap().offset as usize;
    bytes[offset] ^= 1;
    for mapped in [false, true] {
        let with = |verify| open_with(&bytes, mapped, OpenOptions::new().verify(verify));
        assert_eq!(with(Verify::AtOpen).unwrap_err().kind(), ErrorKind::Damaged);
        assert!(with(Verify::OnTouch).unwrap().tensor("large").is_err());
        assert!(with(Verify::Never).unwrap().tensor("large").is_ok());
    }
}

#[test]
fn a_budget_bounds_one_tensor_and_mapped_ones_are_free() {
    // [R101]
    let zoo = Zoo::new();
    let bytes = bytes_of(&zoo.snapshot(), Codec::Raw);
    let options = OpenOptions::new().budget(100_000);
    let checkpoint = open_with(&bytes, false, options).unwrap();
    let error = checkpoint.tensor("large").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("by slices"), "{error}");
    assert!(checkpoint.slice("large", 3..5).is_ok());
    assert!(open_with(&bytes, true, options).unwrap().tensor("large").is_ok());
    assert_eq!(
        open_with(&bytes, false, OpenOptions::new().budget(10)).unwrap_err().kind(),
        ErrorKind::LimitExceeded
    );
}

#[test]
fn an_empty_snapshot_is_a_checkpoint_too() {
    let checkpoint = open(&bytes_of(&Snapshot::new(), Codec::Raw), true).unwrap();
    assert_eq!((checkpoint.tensors().count(), checkpoint.records().len()), (0, 0));
    checkpoint.verify().unwrap();
}

/// Every readable part of a damaged file is as written; `verify` finds the damage.
fn damage_is_detected_or_harmless(
    original: &Checkpoint,
    damaged: &[u8],
    mapped: bool,
) -> Result<(), TestCaseError> {
    let Ok(checkpoint) = open(damaged, mapped) else { return Ok(()) };
    for info in original.tensors() {
        if let Ok(tensor) = checkpoint.tensor(info.name) {
            let expected = original.tensor(info.name).unwrap();
            prop_assert_eq!(tensor.dtype(), expected.dtype());
            prop_assert_eq!(tensor.shape(), expected.shape());
            prop_assert!(tensor.bytes() == expected.bytes(), "{} differs", info.name);
        }
    }
    for name in original.records() {
        if let Ok(value) = checkpoint.inspect().record_value(name) {
            prop_assert_eq!(value, original.inspect().record_value(name).unwrap());
        }
    }
    let names: Vec<_> = checkpoint.names().map(str::to_owned).collect();
    prop_assert_eq!(names, original.names().map(str::to_owned).collect::<Vec<_>>());
    prop_assert!(checkpoint.verify().is_err(), "verify sees every damaged byte");
    Ok(())
}

fn small_zoo(codec: Codec) -> Vec<u8> {
    let elements = wave(20_000);
    let zeros = vec![0_u64; 10_000];
    let mut snapshot =
        Snapshot::new().tensor("weight", &elements).unwrap().tensor("bias", &elements[..7]).unwrap();
    snapshot = snapshot.tensor("zeros", &zeros).unwrap().alias("tied", "bias").unwrap();
    snapshot = snapshot.record("optimizer", &vec![1.5; 40]).unwrap().metric("loss", 0.5).unwrap();
    bytes_of(&snapshot, codec)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_flipped_bit_anywhere_is_detected_or_harmless(at in any::<prop::sample::Index>(), bit in 0..8_u8, codec in 0..2_usize, mapped: bool) {
        let bytes = small_zoo(CODECS[codec]);
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= 1_u8 << bit;
        damage_is_detected_or_harmless(&open(&bytes, false).unwrap(), &damaged, mapped)?;
    }

    #[test]
    fn a_run_of_other_bytes_anywhere_is_detected_or_harmless(at in any::<prop::sample::Index>(), len in 1..9000_usize, value: u8, mapped: bool) {
        let bytes = small_zoo(Codec::Balanced);
        let mut damaged = bytes.clone();
        let start = at.index(bytes.len());
        let end = (start + len).min(bytes.len());
        damaged[start..end].fill(value);
        prop_assume!(damaged != bytes);
        damage_is_detected_or_harmless(&open(&bytes, false).unwrap(), &damaged, mapped)?;
    }

    #[test]
    fn a_cut_or_longer_file_does_not_open(at in any::<prop::sample::Index>(), longer in 1..5000_usize) {
        let mut bytes = small_zoo(Codec::Raw);
        prop_assert!(open(&bytes[..at.index(bytes.len())], false).is_err());
        bytes.resize(bytes.len() + longer, 0);
        prop_assert!(open(&bytes, true).is_err());
    }

    #[test]
    fn any_snapshot_survives(
        tensors in prop::collection::btree_map("[a-z./0-9é]{1,12}", (0..Dtype::ALL.len(), prop::collection::vec(0..5_usize, 0..4), any::<u8>()), 0..20),
        records in prop::collection::btree_map("[a-z]{1,9}", prop::collection::vec(any::<f64>(), 0..50), 0..5),
        codec in 0..2_usize,
        chunk_log2 in 16..=26_u8,
    ) {
        let data: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors.into_iter().map(|(name, (dtype, shape, seed))| {
            let dtype = Dtype::ALL[dtype];
            let len = shape.iter().product::<usize>() * dtype.size();
            let bytes = (0..len).map(|i| if dtype == Dtype::Bool { (i % 2) as u8 } else { seed.wrapping_add(i as u8) }).collect();
            (name, dtype, shape, bytes)
        }).collect();
        let mut snapshot = Snapshot::new();
        for (name, dtype, shape, bytes) in &data {
            snapshot = snapshot.tensor(name, Tensor::new(*dtype, shape, bytes).unwrap()).unwrap();
        }
        for (name, value) in &records {
            snapshot = snapshot.record(name, value).unwrap();
        }
        let bytes = snapshot.to_bytes(&WriteOptions::new().codec(CODECS[codec]).chunk_log2(chunk_log2)).unwrap();
        for mapped in [false, true] {
            let checkpoint = open(&bytes, mapped).unwrap();
            checkpoint.verify().unwrap();
            prop_assert_eq!(checkpoint.tensors().count(), data.len());
            for (name, dtype, shape, bytes) in &data {
                let tensor = checkpoint.tensor(name).unwrap();
                prop_assert_eq!((tensor.dtype(), tensor.shape(), tensor.bytes()), (*dtype, &shape[..], &bytes[..]));
            }
            for (name, value) in &records {
                let found: Vec<f64> = checkpoint.record(name).unwrap();
                prop_assert!(found.iter().map(|f| f.to_bits()).eq(value.iter().map(|f| f.to_bits())));
            }
        }
    }
}

// [R101]
#[test]
fn a_record_that_unfolds_stays_within_the_budget() {
    let snapshot = Snapshot::new().record("ones", &vec![1_u8 as i64; 3_000_000]).unwrap();
    let bytes = snapshot.to_bytes(&WriteOptions::new().codec(Codec::Balanced)).unwrap();
    assert!(bytes.len() < 20_000);
    let checkpoint = open_with(&bytes, true, OpenOptions::new().budget(8 << 20)).unwrap();
    assert_eq!(checkpoint.inspect().record_value("ones").unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(checkpoint.record::<Vec<u8>>("ones").unwrap().len(), 3_000_000, "what the caller names fits");
    assert!(open(&bytes, true).unwrap().inspect().record_value("ones").is_ok());
}

// [R101]
#[test]
fn a_record_longer_than_the_budget_is_not_read() {
    let snapshot = Snapshot::new().record("ones", &vec![1; 1000]).unwrap();
    let bytes = bytes_of(&snapshot, Codec::Raw);
    // A byte for each value, and three for their lengths.
    let with = |budget| open_with(&bytes, true, OpenOptions::new().budget(budget)).unwrap();
    assert_eq!(with(1003).record::<Vec<u8>>("ones").unwrap(), [1; 1000]);
    let error = with(1002).record::<Vec<u8>>("ones").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("record ones"), "{error}");
    with(1002).verify().unwrap();
}

/// A file whose index's sectors cannot be read.
#[derive(Debug)]
struct BadSectors(InMemory, std::ops::Range<u64>);

impl tensorkeep::engine::Blob for BadSectors {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> tensorkeep::Result<()> {
        let end = offset + buffer.len() as u64;
        if offset < self.1.end && self.1.start < end {
            let eio = std::io::Error::from_raw_os_error(5);
            return Err(tensorkeep::Error::io("reading", eio));
        }
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn an_index_on_bad_sectors_is_read_from_its_mirror() {
    let weights: Vec<Vec<f32>> = (0..4000).map(|i| vec![i as f32; 4]).collect();
    let mut snapshot = Snapshot::new();
    for (i, weight) in weights.iter().enumerate() {
        snapshot = snapshot.tensor(format!("w{i:04}"), weight).unwrap();
    }
    let bytes = snapshot.to_bytes(&WriteOptions::new()).unwrap();
    let footer = &bytes[bytes.len() - 128..];
    let index = u64::from_le_bytes(footer[..8].try_into().unwrap());
    let blob = InMemory { bytes: tensorkeep::tensor::Buffer::copy_of(&bytes).unwrap(), mapped: false };
    let bad = std::sync::Arc::new(BadSectors(blob, index..index + 1));
    let checkpoint = OpenOptions::new().open_blob(bad, "bad sectors").unwrap();
    assert!(checkpoint.inspect().index_damage().is_some());
    assert_eq!(checkpoint.tensor("w3999").unwrap().elements::<f32>().unwrap(), [3999.0; 4]);
}

// [R101]
#[test]
fn a_slice_of_a_compressed_chunk_stays_within_the_budget() {
    let zeros = vec![0_u8; 64 << 20];
    let snapshot = Snapshot::new().tensor("w", (&[16_384, 4096][..], &zeros[..])).unwrap();
    let bytes = snapshot.to_bytes(&WriteOptions::new().codec(Codec::Balanced).chunk_log2(26)).unwrap();
    let slice = |budget| {
        let checkpoint = open_with(&bytes, true, OpenOptions::new().budget(budget)).unwrap();
        checkpoint.slice("w", 0..1).map(|tensor| tensor.bytes().len())
    };
    assert_eq!(slice(1 << 20).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(slice(65 << 20).unwrap(), 4096);
}
