//! The choice of a codec: by the caller, by name pattern, by the engine. The output does not depend
//! on the number of threads.

use tensorkeep::engine::{Caps, Decorator, Engine as _, Memory};
use tensorkeep::{Checkpoint, Codec, Progress, Snapshot, Store, StoreOptions, WriteOptions};
use test_support::{TempFolder, Zoo, open, wave};

/// Memory that claims to be across a network, or not.
#[derive(Debug)]
struct Remote(Memory, bool);

impl Decorator for Remote {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.0
    }

    fn caps(&self) -> Caps {
        let mut caps = self.0.caps();
        caps.over_network = self.1;
        caps
    }
}

/// The codec of the tensor's first chunk.
fn codec_of(checkpoint: &Checkpoint, name: &str) -> &'static str {
    checkpoint.inspect().chunks(name).unwrap()[0].codec
}

#[test]
fn a_store_compresses_by_default_only_over_a_network() {
    let weights = wave(10_000);
    let snapshot = Snapshot::new().tensor("w", &weights).unwrap().progress(Progress::new(1));
    let chosen = WriteOptions::new().codec(Codec::Raw);
    for (over_network, write, expected) in [
        (false, WriteOptions::new(), "raw"),
        (true, WriteOptions::new(), "float-planes"),
        (true, WriteOptions::new().codec_for("bias*", Codec::Raw), "float-planes"),
        (true, WriteOptions::new().codec_for("w*", Codec::Raw), "raw"),
        (true, chosen, "raw"),
        (false, WriteOptions::new().codec(Codec::Balanced), "float-planes"),
    ] {
        let engine = Remote(Memory::new(), over_network);
        let store = Store::open(engine, StoreOptions::new().write(write)).unwrap();
        store.save(&snapshot).unwrap();
        let checkpoint = store.latest().unwrap().unwrap();
        assert_eq!(codec_of(&checkpoint, "w"), expected);
        assert_eq!(checkpoint.tensor("w").unwrap().elements::<f32>().unwrap(), weights);
    }
    assert_eq!(codec_of(&open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap(), "w"), "raw");
}

#[test]
fn the_last_matching_pattern_chooses_the_codec() {
    let (weights, ids) = (wave(10_000), (0..10_000_i64).collect::<Vec<_>>());
    let mut snapshot = Snapshot::new().tensor("model/fc.weight", &weights).unwrap();
    snapshot = snapshot.tensor("optimizer/exp_avg.fc.weight", (&[5000, 2][..], &weights[..])).unwrap();
    snapshot = snapshot.tensor("optimizer/ids", &ids).unwrap();
    snapshot = snapshot.record("history", &weights).unwrap();
    let options = WriteOptions::new()
        .codec_for("optimizer/*", Codec::Balanced)
        .codec_for("*/ids", Codec::Raw)
        .codec_for("history", Codec::Max);
    let checkpoint = open(&snapshot.to_bytes(&options).unwrap(), false).unwrap();
    assert_eq!(codec_of(&checkpoint, "model/fc.weight"), "raw");
    assert_eq!(codec_of(&checkpoint, "optimizer/exp_avg.fc.weight"), "float-planes");
    assert_eq!(codec_of(&checkpoint, "optimizer/ids"), "raw");
    let plain = open(&snapshot.to_bytes(&options.codec_for("history", Codec::Raw)).unwrap(), false).unwrap();
    assert!(checkpoint.inspect().byte_len() < plain.inspect().byte_len(), "records have names too");
    assert_eq!(checkpoint.record::<Vec<f32>>("history").unwrap(), weights);
}

#[test]
fn a_pattern_without_a_match_is_reported() {
    let weights = wave(1000);
    let mut snapshot =
        Snapshot::new().tensor("model/embed", &weights).unwrap().tensor("model/head", &weights).unwrap();
    snapshot = snapshot.record("history", &1).unwrap();
    let options = ["model/*", "optimizer.*", "model/head", "history", "tensorkeep.*"]
        .into_iter()
        .fold(WriteOptions::new(), |options, pattern| options.codec_for(pattern, Codec::Balanced));
    let folder = TempFolder::new("codecs");
    let written = snapshot.save_with(folder.path().join("x.tkeep"), &options).unwrap();
    // The head is an alias of the embedding, and stored under its name.
    assert_eq!(written.unmatched_patterns, ["optimizer.*", "model/head", "tensorkeep.*"]);
    let written = snapshot.save(folder.path().join("x.tkeep")).unwrap();
    assert_eq!(written.unmatched_patterns, [""; 0]);
}

// [R127]
#[test]
fn encoded_bytes_do_not_depend_on_the_number_of_workers() {
    let zoo = Zoo::new();
    for codec in [Codec::Balanced, Codec::Max] {
        let options = WriteOptions::new().codec(codec).chunk_log2(16);
        let bytes = |workers| zoo.snapshot().to_bytes(&options.clone().workers(workers)).unwrap();
        let expected = bytes(1);
        for workers in [2, 3, 7] {
            assert!(bytes(workers) == expected, "{codec:?} by {workers}");
        }
    }
}

#[test]
fn slices_of_float_planes_equal_the_whole_tensor() {
    let weights = wave(100_000);
    let snapshot = Snapshot::new().tensor("w", (&[1000, 100][..], &weights[..])).unwrap();
    let bytes = snapshot.to_bytes(&WriteOptions::new().codec(Codec::Balanced).chunk_log2(16)).unwrap();
    for mapped in [false, true] {
        let checkpoint = open(&bytes, mapped).unwrap();
        assert_eq!(codec_of(&checkpoint, "w"), "float-planes");
        assert_eq!(checkpoint.tensor("w").unwrap().elements::<f32>().unwrap(), weights);
        for rows in [0..1, 160..170, 0..1000, 999..1000] {
            let slice = checkpoint.slice("w", rows.clone()).unwrap();
            assert_eq!(slice.elements::<f32>().unwrap(), &weights[rows.start * 100..rows.end * 100]);
        }
        let mut target = vec![0; 400_000];
        checkpoint.load_into([("w", &mut target[..])]).unwrap();
        assert!(target == *checkpoint.tensor("w").unwrap().bytes());
    }
}
