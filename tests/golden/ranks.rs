//! The golden checkpoint of four ranks: a manifest and its shards, read, and written again byte for
//! byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tensorkeep::layout::{Layout, Level, Placement, Positions, flat_boxes};
use tensorkeep::ranks::files::{Job, Part, ShardRef};
use tensorkeep::{Checkpoint, Dtype, ErrorKind, Progress, Snapshot, Tensor, WriteOptions};
use test_support::TempFolder;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/ranks")
}

/// The value of an element, by its number in its tensor.
fn value(number: u64) -> f32 {
    number as f32 / 4.0 - 3.0
}

/// Weights in rows, moments in hybrid shards, a tensor-parallel one over a permuted mesh, and flat
/// ranges as FSDP1 leaves them.
fn job() -> Job {
    let mut job = Job::new("0001-0000000030-1-5b7711e0", 4).unwrap();
    let mut add = |name: &str, shape: &[u64], layout: &Layout| {
        job.layout(name, Dtype::F32, shape, layout).unwrap();
    };
    add("model/fc.weight", &[5, 3], &Layout::sharded(0, 4).unwrap());
    let hybrid = Layout::mesh(&[(2, Placement::Replicate), (2, Placement::Shard(0))]).unwrap();
    add("optimizer/exp_avg", &[5, 3], &hybrid);
    add("optimizer/exp_avg_sq", &[5, 3], &hybrid);
    let levels = vec![Level { axis: 1, parts: 2, stride: 1 }, Level { axis: 0, parts: 2, stride: 2 }];
    let permuted = Positions::members(&[2, 0, 3, 1]).unwrap();
    add("model/head.weight", &[4, 6], &Layout::new(permuted, levels).unwrap());
    add("step", &[], &Layout::replicated(4).unwrap());
    let flat = [(0..4, 1), (4..13, 2)].into_iter();
    let flat =
        flat.flat_map(|(range, rank)| flat_boxes(&[2, 7], range).into_iter().map(move |part| (part, rank)));
    let rest = flat_boxes(&[2, 7], 13..14).into_iter().map(|part| (part, 3));
    job.boxes("flat", Dtype::F32, &[2, 7], flat.chain(rest).collect()).unwrap();
    job.assign(true).unwrap();
    job
}

fn part(part: &Part) -> tensorkeep::Result<Tensor<'static>> {
    let mut numbers = vec![0];
    for (axis, len) in part.shape.iter().enumerate() {
        let range = part.tensor_box.range(axis);
        numbers = numbers.iter().flat_map(|at| range.clone().map(move |i| at * len + i)).collect();
    }
    let shape: Vec<usize> = part.tensor_box.lens().iter().map(|&len| len as usize).collect();
    let bytes: Vec<u8> = numbers.into_iter().flat_map(|number| value(number).to_le_bytes()).collect();
    Tensor::shared(Dtype::F32, &shape, std::sync::Arc::new(bytes))
}

fn write(folder: &Path) {
    let (job, path) = (job(), folder.join("job.tkeep"));
    let options = |id: u32| WriteOptions::new().file_id([id as u8 + 1; 16]);
    let shard = |rank| job.write_shard(&path, rank, &options(rank), part).unwrap();
    let shards: Vec<ShardRef> = job.owners().into_iter().map(shard).collect();
    let mut snapshot = Snapshot::new().tensor("optimizer/lr", &[0.125_f64][..]).unwrap();
    snapshot = snapshot.record("seed", &7_u64).unwrap().progress(Progress::new(30).epoch(2));
    job.write_manifest(&path, &snapshot, &options(9), shards).unwrap();
}

/// All files below a folder, by their path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_checkpoint_of_ranks_is_read_and_written_again() {
    // [R127] [R160] [R161] [R162] [R163] [R165] [R167]
    let checkpoint = Checkpoint::open(folder().join("job.tkeep")).unwrap();
    let shapes = [
        ("flat", &[2, 7][..]),
        ("model/fc.weight", &[5, 3]),
        ("model/head.weight", &[4, 6]),
        ("optimizer/exp_avg", &[5, 3]),
        ("optimizer/exp_avg_sq", &[5, 3]),
        ("step", &[]),
    ];
    for (name, shape) in shapes {
        let tensor = checkpoint.tensor(name).unwrap();
        assert_eq!(tensor.shape(), shape, "{name}");
        let expected: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(value).collect();
        assert_eq!(tensor.elements::<f32>().unwrap(), expected, "{name}");
    }
    assert_eq!(checkpoint.tensor("optimizer/lr").unwrap().elements::<f64>().unwrap(), [0.125]);
    assert_eq!(checkpoint.names().count(), 7);
    assert_eq!(checkpoint.record::<u64>("seed").unwrap(), 7);
    assert_eq!(checkpoint.progress().unwrap(), Some(Progress::new(30).epoch(2)));
    assert_eq!(checkpoint.inspect().shards(), 4);
    checkpoint.verify().unwrap();
    let again = TempFolder::new("golden-ranks");
    write(again.path());
    let (again, golden) = (files(again.path()), files(&folder()));
    assert!(again.keys().eq(golden.keys()), "{:?}", again.keys());
    for (name, bytes) in again {
        assert!(bytes == golden[&name], "{} is written differently now", name.display());
    }
}

#[test]
#[ignore = "writes into the source tree, once for every version of the format"]
fn make_the_golden_files_of_ranks() {
    assert!(!folder().exists(), "golden files are never made again");
    fs::create_dir_all(folder()).unwrap();
    write(&folder());
}

#[test]
fn pieces_are_told_with_the_ranks_that_have_them() {
    let checkpoint = Checkpoint::open(folder().join("job.tkeep")).unwrap();
    let inspect = checkpoint.inspect();
    let pieces = |name: &str| {
        let mut stored = inspect.pieces(name, 100).unwrap();
        stored.sort_by(|a, b| a.tensor_box.cmp(&b.tensor_box));
        let rank = |shard: usize| inspect.shard_info(shard).unwrap().rank;
        stored
            .iter()
            .map(|stored| format!("{} {}", stored.tensor_box, rank(stored.shard)))
            .collect::<Vec<_>>()
    };
    assert_eq!(pieces("model/fc.weight"), ["[0:2, 0:3] 0", "[2:4, 0:3] 1", "[4:5, 0:3] 2"]);
    let permuted = ["[0:2, 0:3] 2", "[0:2, 3:6] 0", "[2:4, 0:3] 3", "[2:4, 3:6] 1"];
    assert_eq!(pieces("model/head.weight"), permuted);
    assert_eq!(pieces("flat"), ["[0:1, 0:4] 1", "[0:1, 4:7] 2", "[1:2, 0:6] 2", "[1:2, 6:7] 3"]);
    assert_eq!(pieces("step").len(), 1);
    assert_eq!(pieces("optimizer/lr"), [""; 0], "it lies in the manifest");
    for (most, found) in [(0, 0), (3, 3), (5, 4)] {
        assert_eq!(inspect.pieces("flat", most).unwrap().len(), found);
        assert_eq!(inspect.pieces("model/head.weight", most).unwrap().len(), found);
    }
    assert_eq!(inspect.pieces("none", 1).unwrap_err().kind(), ErrorKind::NotFound);
    let keys: Vec<String> = (0..4).map(|number| inspect.shard_info(number).unwrap().key).collect();
    assert_eq!(keys, inspect.shard_keys());
    (0..4).for_each(|number| inspect.check_shard(number).unwrap());
    assert_eq!(inspect.check_shard(4).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(inspect.shard_info(4), None);
    // Without its folder a manifest knows its pieces, and of shards nothing.
    let alone = Checkpoint::from_bytes(&fs::read(folder().join("job.tkeep")).unwrap()).unwrap();
    assert_eq!(alone.inspect().pieces("flat", 9).unwrap(), inspect.pieces("flat", 9).unwrap());
    assert_eq!(alone.inspect().check_shard(0).unwrap_err().kind(), ErrorKind::Unsupported);
}
