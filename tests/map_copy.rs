//! Training on the mapped file itself: changes stay in memory, the file is unchanged, and mutable
//! tensors do not alias.

use std::path::PathBuf;
use tensorkeep::engine::MmapPromise;
use tensorkeep::{
    Checkpoint, Codec, Dtype, ErrorKind, MappedCopy, OpenOptions, Result, Snapshot, WriteOptions,
};

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tensorkeep-map-copy-{name}-{}.tkeep", std::process::id())))
    }

    fn map_copy(&self) -> Result<MappedCopy> {
        self.map_copy_with(OpenOptions::new())
    }

    fn map_copy_with(&self, options: OpenOptions) -> Result<MappedCopy> {
        // SAFETY: each test changes its own file only while it is not mapped.
        #[expect(unsafe_code, reason = "mapping rests on a promise")]
        let promise = unsafe { MmapPromise::assume_unchanged() };
        options.map_copy(&self.0, promise)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const LEN: usize = 300_000;

fn weights(seed: usize) -> Vec<f32> {
    (0..LEN).map(|i| ((i * seed) as f32 * 0.01).sin()).collect()
}

fn save(file: &File, codec: Codec) {
    let (weights, moments) = (weights(1), weights(2));
    let (shape, flags): (&[usize], [bool; 3]) = (&[3, LEN / 3], [true, false, true]);
    let mut snapshot = Snapshot::new().tensor("net.weight", (shape, &weights[..])).unwrap();
    snapshot = snapshot.tensor("optimizer.moment", (shape, &moments[..])).unwrap();
    snapshot = snapshot.tensor("a.mask", &flags[..]).unwrap();
    snapshot = snapshot.tensor("net.nothing", (&[0, 4][..], &[0.0_f64; 0][..])).unwrap();
    snapshot = snapshot.alias("head.weight", "net.weight").unwrap();
    snapshot = snapshot.record("seed", &7).unwrap();
    snapshot.save_with(&file.0, &WriteOptions::new().codec(codec)).unwrap();
}

/// One step of SGD with momentum, on the mapping.
fn step(copy: &mut MappedCopy) {
    let mut tensors = copy.tensors_mut().into_iter().collect::<std::collections::BTreeMap<_, _>>();
    let mut weights = tensors.remove("net.weight").unwrap().into_view::<f32>().unwrap();
    let mut moments = tensors.remove("optimizer.moment").unwrap().into_view::<f32>().unwrap();
    assert_eq!(weights.shape(), [3, LEN / 3]);
    moments *= 0.9;
    moments += &weights;
    weights.scaled_add(-0.1, &moments);
}

#[test]
fn training_on_a_mapped_copy_leaves_the_file_unchanged() {
    for codec in [Codec::Raw, Codec::Balanced] {
        let file = File::new(&format!("trains-{}", codec == Codec::Raw));
        save(&file, codec);
        let on_disk = std::fs::read(&file.0).unwrap();
        let mut copy = file.map_copy().unwrap();
        assert_eq!(copy.checkpoint().record::<u32>("seed").unwrap(), 7);
        step(&mut copy);
        let (mut expected, mut moments) = (weights(1), weights(2));
        for (weight, moment) in expected.iter_mut().zip(&mut moments) {
            *moment = *moment * 0.9 + *weight;
            *weight += -0.1 * *moment;
        }
        let now: std::collections::BTreeMap<_, _> = copy.tensors().into_iter().collect();
        assert!(now["net.weight"].elements::<f32>().unwrap() == expected);
        assert!(now["optimizer.moment"].elements::<f32>().unwrap() == moments);
        assert_eq!(now["a.mask"].elements::<bool>().unwrap(), [true, false, true]);
        assert_eq!(now["net.nothing"].shape(), [0, 4]);
        assert!(now["head.weight"].elements::<f32>().unwrap() == expected, "an alias sees the step, too");
        let saved = copy.checkpoint().tensor("net.weight").unwrap();
        assert!(saved.elements::<f32>().unwrap() == weights(1));
        assert!(std::fs::read(&file.0).unwrap() == on_disk, "the file changed");
        // Its current content is the next checkpoint; aliases stay aliases.
        let mut next = Snapshot::new();
        for (name, tensor) in copy.tensors() {
            next = next.tensor(name, tensor).unwrap();
        }
        let next = Checkpoint::from_bytes(&next.to_bytes(&WriteOptions::new()).unwrap()).unwrap();
        assert_eq!(next.info("net.weight").unwrap().alias_of, Some("head.weight"));
        assert!(next.tensor("net.weight").unwrap().elements::<f32>().unwrap() == expected);
    }
}

#[test]
fn tensors_to_change_are_disjoint_and_without_aliases() {
    let file = File::new("disjoint");
    save(&file, Codec::Raw);
    let mut copy = file.map_copy().unwrap();
    let mut tensors = copy.tensors_mut();
    let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["a.mask", "net.nothing", "net.weight", "optimizer.moment"]);
    let mut ranges: Vec<_> = tensors.iter_mut().map(|(_, t)| t.bytes_mut().unwrap().as_ptr_range()).collect();
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    assert_eq!(ranges.len(), 3);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    let (_, mask) = tensors.remove(0);
    assert_eq!(mask.dtype(), Dtype::Bool);
    assert_eq!(mask.into_elements::<f32>().unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn a_damaged_tensor_is_refused_before_anything_is_handed_out() {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    let file = File::new("damaged");
    for codec in [Codec::Raw, Codec::Balanced] {
        save(&file, codec);
        let offset = Checkpoint::open(&file.0).unwrap().info("optimizer.moment").unwrap().offset;
        std::fs::set_permissions(&file.0, PermissionsExt::from_mode(0o644)).unwrap();
        let open = std::fs::File::options().write(true).open(&file.0).unwrap();
        open.write_all_at(&[0xA5; 16], offset + 1000).unwrap();
        let error = file.map_copy().unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("optimizer.moment")));
    }
    std::fs::write(&file.0, b"").unwrap();
    assert!(file.map_copy().is_err(), "an empty file is no checkpoint");
    assert_eq!(File::new("missing").map_copy().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn decoded_tensors_are_charged_to_the_budget() {
    let file = File::new("budget");
    let len = (LEN * 4) as u64;
    for (codec, needed) in [(Codec::Raw, 0), (Codec::Balanced, len)] {
        save(&file, codec);
        let budget = |budget| file.map_copy_with(OpenOptions::new().budget(budget)).map(drop);
        budget(needed).unwrap();
        let Some(less) = needed.checked_sub(1) else { continue };
        let error = budget(less).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert_eq!(error.tensor(), Some("net.weight"));
    }
}
