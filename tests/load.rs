//! Loading and verifying large amounts: the same bytes on any number of threads, and damage
//! reported at its place.

use std::path::PathBuf;
use tensorkeep::engine::MmapPromise;
use tensorkeep::{
    Checkpoint, Codec, ErrorKind, LoadOptions, OpenOptions, Result, Snapshot, StateDict, StateDictMut,
    Stateful, Verify, WriteOptions,
};

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tensorkeep-load-{name}-{}.tkeep", std::process::id())))
    }

    fn open(&self, mapped: bool, options: OpenOptions) -> Result<Checkpoint> {
        if !mapped {
            return options.open(&self.0);
        }
        // SAFETY: each test changes its own file only while no checkpoint of it is open.
        #[expect(unsafe_code, reason = "mapping rests on a promise")]
        let promise = unsafe { MmapPromise::assume_unchanged() };
        options.map(&self.0, promise)
    }

    fn flip(&self, byte: u64) {
        use std::os::unix::fs::{FileExt, PermissionsExt};
        std::fs::set_permissions(&self.0, PermissionsExt::from_mode(0o644)).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&self.0).unwrap();
        let mut there = [0];
        file.read_exact_at(&mut there, byte).unwrap();
        file.write_all_at(&[there[0] ^ 0x10], byte).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Large tensors, small ones, an empty one: 26 MiB, several batches whose boundaries are not those
/// of tensors.
fn model() -> Vec<(String, Vec<f32>)> {
    let lengths = [5_000_000, 7, 900_000, 0, 64, 700_001, 3];
    let weights = |i: usize, len: usize| (0..len).map(|k| ((k * (i + 3)) as f32 * 1e-3).sin()).collect();
    let name = |i| format!("layer{i}.weight");
    lengths.into_iter().enumerate().map(|(i, len)| (name(i), weights(i, len))).collect()
}

fn save(model: &[(String, Vec<f32>)], file: &File, codec: Codec) {
    let mut snapshot = Snapshot::new();
    for (name, weights) in model {
        snapshot = snapshot.tensor(name, weights).unwrap();
    }
    snapshot = snapshot.alias("tied", "layer2.weight").unwrap();
    snapshot.save_with(&file.0, &WriteOptions::new().codec(codec)).unwrap();
}

fn bytes(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

#[test]
fn any_number_of_threads_loads_the_same_bytes() {
    let model = model();
    for codec in [Codec::Raw, Codec::Balanced] {
        let file = File::new(&format!("same-{}", codec == Codec::Raw));
        save(&model, &file, codec);
        for (workers, mapped) in [1, 2, 5].into_iter().flat_map(|n| [(n, false), (n, true)]) {
            let checkpoint = file.open(mapped, OpenOptions::new().workers(workers)).unwrap();
            let mut names: Vec<&str> = model.iter().map(|(name, _)| name.as_str()).rev().collect();
            names.push("tied");
            let loaded = checkpoint.load(names).unwrap();
            for ((name, weights), tensor) in model.iter().rev().zip(&loaded) {
                assert!(tensor.elements::<f32>().unwrap() == weights, "{name} on {workers} workers");
                assert!(checkpoint.tensor(name).unwrap().bytes() == tensor.bytes(), "{name}");
            }
            assert!(loaded[7].elements::<f32>().unwrap() == model[2].1);
            let mut targets: Vec<Vec<u8>> = model.iter().map(|(_, w)| vec![0xEE; 4 * w.len()]).collect();
            let pairs = model.iter().zip(&mut targets).map(|((name, _), target)| (&**name, &mut **target));
            checkpoint.load_into(pairs).unwrap();
            assert!(model.iter().zip(&targets).all(|((_, weights), target)| bytes(weights) == *target));
            let rows = 1_234_567..4_321_000;
            let slice = checkpoint.slice("layer0.weight", rows.clone()).unwrap();
            assert!(slice.elements::<f32>().unwrap() == &model[0].1[rows]);
            assert_eq!(checkpoint.verify().unwrap().tensors, 7);
        }
    }
}

#[test]
fn no_byte_is_read_when_a_target_is_too_short() {
    let (model, file) = (model(), File::new("short"));
    save(&model, &file, Codec::Raw);
    let checkpoint = file.open(false, OpenOptions::new()).unwrap();
    let (mut first, mut second) = (vec![0xEE; 20_000_000], vec![0xEE; 27]);
    let error = checkpoint
        .load_into([("layer0.weight", &mut first[..]), ("layer1.weight", &mut second[..])])
        .unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Mismatch, Some("layer1.weight")));
    assert!(first.iter().all(|&byte| byte == 0xEE));
}

#[test]
fn damage_is_reported_in_the_order_of_the_file() {
    let (model, file) = (model(), File::new("damage"));
    save(&model, &file, Codec::Raw);
    let place = |name: &str| file.open(false, OpenOptions::new()).unwrap().info(name).unwrap().offset;
    let (first, third, sixth) = (place("layer0.weight"), place("layer2.weight"), place("layer5.weight"));
    // The last chunk of the first tensor, the padding before the third, the third, a later one.
    let damaged = [first + 19_999_999, third - 5, third + 5, sixth + 1_500_000];
    for byte in damaged {
        file.flip(byte);
    }
    let expected = [Some("layer0.weight"), None, Some("layer2.weight"), Some("layer5.weight")];
    for (workers, mapped) in [(1, false), (2, true), (4, false), (4, true)] {
        let checkpoint = file.open(mapped, OpenOptions::new().workers(workers)).unwrap();
        let report = checkpoint.inspect().verify_all().unwrap();
        let found: Vec<_> = report.damage.iter().map(|error| error.tensor()).collect();
        assert_eq!(found, expected, "{workers} workers");
        let error = checkpoint.load(["layer1.weight", "layer5.weight", "layer0.weight"]).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("layer5.weight")));
        assert_eq!(checkpoint.tensor("layer0.weight").unwrap_err().kind(), ErrorKind::Damaged);
        assert!(checkpoint.tensor("layer4.weight").is_ok());
        let options = OpenOptions::new().workers(workers).verify(Verify::AtOpen);
        assert_eq!(file.open(mapped, options).unwrap_err().tensor(), Some("layer0.weight"));
    }
}

#[test]
fn no_workers_at_all_is_refused() {
    let (model, file) = (model(), File::new("none"));
    save(&model, &file, Codec::Raw);
    let error = file.open(false, OpenOptions::new().workers(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("expected at least 1, found 0"), "{error}");
}

/// A module of as many tensors as the model.
struct Net(Vec<(String, Vec<f32>)>);

impl Stateful for Net {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        self.0.iter().try_fold(StateDict::new(), |all, (name, weights)| all.with(name, weights))
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        let mut all = StateDictMut::new();
        for (name, weights) in &mut self.0 {
            let shape = [weights.len()];
            all = all.with(name.as_str(), (&shape[..], &mut weights[..]))?;
        }
        Ok(all)
    }
}

#[test]
fn loading_in_place_and_beside_give_the_same() {
    let (model, file) = (model(), File::new("state-dict"));
    let net = Net(model.clone());
    let snapshot = Snapshot::new().state_dict("net", net.state_dict().unwrap()).unwrap();
    snapshot.save(&file.0).unwrap();
    let empty =
        || Net(model.iter().map(|(name, weights)| (name.clone(), vec![9.0; weights.len()])).collect());
    for mapped in [false, true] {
        let checkpoint = file.open(mapped, OpenOptions::new()).unwrap();
        for options in [LoadOptions::strict(), LoadOptions::strict().in_place()] {
            let mut target = empty();
            let report = options.load(&checkpoint, "net", &mut target).unwrap();
            assert_eq!(report.loaded.len(), 7);
            assert!(target.0 == model);
        }
    }
    // In place, names and shapes are still compared before the first value changes.
    let checkpoint = file.open(false, OpenOptions::new()).unwrap();
    let mut other = empty();
    other.0[5].1.push(9.0);
    let options = LoadOptions::strict().in_place();
    let error = options.clone().load(&checkpoint, "net", &mut other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(other.0.iter().all(|(_, weights)| weights.iter().all(|&weight| weight == 9.0)));
    drop(checkpoint);
    // Damage: with a copy, the target stays unchanged; in place, the error warns that it may be a
    // mixture.
    let last = file.open(false, OpenOptions::new()).unwrap().info("net/layer5.weight").unwrap().offset;
    file.flip(last + 2_000_000);
    let checkpoint = file.open(false, OpenOptions::new()).unwrap();
    let mut target = empty();
    let error = checkpoint.load_state_dict("net", &mut target).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("net/layer5.weight")));
    assert!(target.0.iter().all(|(_, weights)| weights.iter().all(|&weight| weight == 9.0)));
    let error = options.clone().load(&checkpoint, "net", &mut target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}
