//! Checkpoints of many ranks, written by jobs and read as one: by any layout, with lost and damaged
//! shards, and as readers that do not know them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensorkeep::engine::MmapPromise;
use tensorkeep::layout::{Layout, Level, Placement, Positions, TensorBox, flat_boxes};
use tensorkeep::ranks::files::{Job, Part, ShardRef};
use tensorkeep::store::CopyOutcome;
use tensorkeep::{Checkpoint, Codec, Dtype, ErrorKind, OpenOptions, Reader, Snapshot, Tensor, WriteOptions};
use test_support::TempFolder;
use test_support::reseal::Pieces;

/// A whole tensor: bytes in row-major order.
#[derive(Clone, Debug)]
struct Whole {
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl Whole {
    fn new(dtype: Dtype, shape: &[u64], seed: u64) -> Self {
        let len = shape.iter().product::<u64>() * dtype.size() as u64;
        let bytes = (0..len).map(|i| (i.wrapping_mul(seed * 2 + 1) >> 3) as u8 & 1).collect();
        Self { dtype, shape: shape.to_vec(), bytes }
    }

    /// The bytes of a box, element by element.
    fn cut(&self, tensor_box: &TensorBox) -> Vec<u8> {
        let mut starts = vec![0_u64];
        for (axis, len) in self.shape.iter().enumerate() {
            let range = tensor_box.range(axis);
            starts = starts.iter().flat_map(|at| range.clone().map(move |i| at * len + i)).collect();
        }
        let size = self.dtype.size();
        starts.iter().flat_map(|&at| self.bytes[at as usize * size..][..size].to_vec()).collect()
    }

    fn part(&self, part: &Part) -> tensorkeep::Result<Tensor<'static>> {
        let shape: Vec<usize> = part.tensor_box.lens().iter().map(|&len| len as usize).collect();
        Tensor::shared(self.dtype, &shape, std::sync::Arc::new(self.cut(&part.tensor_box)))
    }
}

type Tensors = BTreeMap<String, Whole>;

/// Writes all shards, then the manifest.
fn write(job: &Job, tensors: &Tensors, folder: &Path, options: &WriteOptions) -> PathBuf {
    let path = folder.join("job.tkeep");
    let shards = job
        .owners()
        .into_iter()
        .map(|rank| job.write_shard(&path, rank, options, |part| tensors[&part.name].part(part)).unwrap());
    let shards: Vec<ShardRef> = shards.collect();
    let snapshot = Snapshot::new().record("lr", &0.5).unwrap().tensor("own", &[1_u8, 2][..]).unwrap();
    job.write_manifest(&path, &snapshot, options, shards).unwrap();
    path
}

fn open(path: &Path, mapped: bool) -> Checkpoint {
    #[expect(unsafe_code, reason = "nothing writes to these files while they are mapped")]
    // SAFETY: see above.
    let promise = unsafe { MmapPromise::assume_unchanged() };
    let options = OpenOptions::new();
    if mapped { options.map(path, promise) } else { options.open(path) }.unwrap()
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// A layout of 8 ranks.
    fn layout(&mut self, axes: u64) -> Layout {
        let mut placement = || match self.below(axes + 1) {
            0 => Placement::Replicate,
            axis => Placement::Shard(axis as u8 - 1),
        };
        Layout::mesh(&[(2, placement()), (4, placement())]).unwrap()
    }

    fn boxed(&mut self, shape: &[u64]) -> TensorBox {
        let offsets: Vec<u64> = shape.iter().map(|&len| self.below(len)).collect();
        let lens: Vec<u64> = shape.iter().zip(&offsets).map(|(len, at)| 1 + self.below(len - at)).collect();
        TensorBox::new(offsets, lens).unwrap()
    }
}

/// A job of 8 ranks with tensors of random layouts and of flat ranges.
fn any_job(random: &mut Random) -> (Job, Tensors) {
    let mut job = Job::new("0001-0000000003-1-00c0ffee", 8).unwrap();
    let mut tensors = Tensors::new();
    for number in 0..6 {
        let shape: Vec<u64> = (0..random.below(4)).map(|_| 1 + random.below(9)).collect();
        let dtype = [Dtype::U8, Dtype::F32, Dtype::C128, Dtype::Bool][number % 4];
        let whole = Whole::new(dtype, &shape, random.below(1000));
        let name = format!("tensor{number}");
        if number == 5 {
            let total = shape.iter().product::<u64>();
            let cut = random.below(total + 1);
            let boxes = [(0..cut, 3), (cut..total, 6)].into_iter();
            let boxes =
                boxes.flat_map(|(range, rank)| flat_boxes(&shape, range).into_iter().map(move |b| (b, rank)));
            job.boxes(&name, dtype, &shape, boxes.collect()).unwrap();
        } else {
            job.layout(&name, dtype, &shape, &random.layout(shape.len() as u64)).unwrap();
        }
        tensors.insert(name, whole);
    }
    job.assign(true).unwrap();
    (job, tensors)
}

#[test]
fn what_a_job_saved_is_loaded_by_any_box() {
    let mut random = Random(5);
    let options = [WriteOptions::new(), WriteOptions::new().codec(Codec::Balanced).workers(1)];
    for round in 0..12 {
        let folder = TempFolder::in_memory("ranks");
        let (job, tensors) = any_job(&mut random);
        let path = write(&job, &tensors, folder.path(), &options[round % 2]);
        for mapped in [false, true] {
            let checkpoint = open(&path, mapped);
            let names: Vec<&str> = checkpoint.names().collect();
            assert_eq!(names, ["own", "tensor0", "tensor1", "tensor2", "tensor3", "tensor4", "tensor5"]);
            assert_eq!(checkpoint.tensors().map(|info| info.name).collect::<Vec<_>>(), names);
            assert_eq!(checkpoint.record::<f64>("lr").unwrap(), 0.5);
            let all = checkpoint.load(names.iter().copied()).unwrap();
            let mut targets: Vec<Vec<u8>> = all.iter().map(|tensor| vec![9; tensor.bytes().len()]).collect();
            checkpoint
                .load_into(names.iter().copied().zip(targets.iter_mut().map(|target| &mut target[..])))
                .unwrap();
            for ((name, loaded), target) in names.iter().zip(&all).zip(&targets) {
                let Some(whole) = tensors.get(*name) else { continue };
                let info = checkpoint.info(name).unwrap();
                assert_eq!((&info.shape[..], info.dtype), (&whole.shape[..], Ok(whole.dtype)));
                assert!(loaded.bytes() == whole.bytes && *target == whole.bytes, "{name}");
                assert!(checkpoint.tensor(name).unwrap().bytes() == whole.bytes);
                let mut windows = Vec::new();
                let visit = |at: u64, bytes: &[u8]| {
                    assert_eq!(at, windows.len() as u64);
                    windows.extend_from_slice(bytes);
                    Ok(())
                };
                checkpoint.inspect().visit_chunks(name, 0..info.chunks, visit).unwrap();
                assert!(windows == whole.bytes);
                for _ in 0..8 {
                    let tensor_box = random.boxed(&whole.shape);
                    let part = checkpoint.read_box(name, &tensor_box).unwrap();
                    assert!(part.bytes() == whole.cut(&tensor_box), "{name} {tensor_box} of {job:?}");
                }
            }
            let report = checkpoint.verify().unwrap();
            assert_eq!((report.tensors, report.records), (7, 1));
        }
        // One file of it, without a difference.
        let checkpoint = open(&path, false);
        let plain = checkpoint.inspect().to_snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap();
        let plain = Checkpoint::from_bytes(&plain).unwrap();
        for (name, whole) in &tensors {
            assert!(plain.tensor(name).unwrap().bytes() == whole.bytes);
            let tensor_box = random.boxed(&whole.shape);
            assert!(plain.read_box(name, &tensor_box).unwrap().bytes() == whole.cut(&tensor_box));
        }
        assert_eq!(plain.inspect().shards(), 0);
    }
}

#[test]
fn another_number_of_ranks_loads_the_same_state() {
    // 8 -> 3 -> 5, rows and columns.
    let whole = Whole::new(Dtype::F32, &[300, 200], 77);
    let folder = TempFolder::in_memory("ranks");
    let mut state = whole.bytes.clone();
    for (world, axis) in [(8_u32, 0), (3, 1), (5, 0)] {
        let sub = folder.path().join(world.to_string());
        std::fs::create_dir(&sub).unwrap();
        let mut job = Job::new("save", world).unwrap();
        job.layout("w", Dtype::F32, &whole.shape, &Layout::sharded(axis, world).unwrap()).unwrap();
        let tensors = Tensors::from([("w".to_owned(), Whole { bytes: state, ..whole.clone() })]);
        let checkpoint = open(&write(&job, &tensors, &sub, &WriteOptions::new()), world == 3);
        // Loaded by the columns of 7 ranks, put together again.
        let layout = Layout::sharded(1, 7).unwrap();
        let mut again = vec![0; whole.bytes.len()];
        for rank in 0..7 {
            let tensor_box = layout.box_of(&whole.shape, rank).unwrap();
            let mut part = vec![0; tensor_box.elements() as usize * 4];
            checkpoint.read_boxes_into([("w", &tensor_box, &mut part[..])]).unwrap();
            let row = tensor_box.lens()[1] as usize * 4;
            for (number, part) in part.chunks(row).enumerate() {
                let at = (number * 200 + tensor_box.offsets()[1] as usize) * 4;
                again[at..at + row].copy_from_slice(part);
            }
        }
        assert!(again == whole.bytes, "{world}");
        state = again;
    }
}

#[test]
fn a_tensor_in_one_mapped_shard_is_borrowed() {
    let folder = TempFolder::in_memory("ranks");
    let tensors = Tensors::from([
        ("cut".to_owned(), Whole::new(Dtype::U8, &[10], 1)),
        ("whole".to_owned(), Whole::new(Dtype::F32, &[100, 30], 2)),
    ]);
    let mut job = Job::new("save", 2).unwrap();
    job.layout("whole", Dtype::F32, &[100, 30], &Layout::replicated(2).unwrap()).unwrap();
    job.layout("cut", Dtype::U8, &[10], &Layout::sharded(0, 2).unwrap()).unwrap();
    let checkpoint = open(&write(&job, &tensors, folder.path(), &WriteOptions::new()), true);
    let borrowed = |name: &str| checkpoint.tensor(name).unwrap().borrowed().map(|bytes| bytes.as_ptr());
    let first = borrowed("whole").expect("it is mapped");
    assert_eq!(borrowed("whole"), Some(first), "the same memory, so no copy");
    assert_eq!(checkpoint.load(["whole"]).unwrap()[0].borrowed().unwrap().as_ptr(), first);
    assert_eq!(checkpoint.inspect().require_mapped("whole").unwrap().borrowed().unwrap().as_ptr(), first);
    assert_eq!(borrowed("cut"), None);
    assert_eq!(checkpoint.inspect().require_mapped("cut").unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_lost_shard_costs_its_tensors_and_nothing_else() {
    let folder = TempFolder::in_memory("ranks");
    let tensors: Tensors = (0..4_u64)
        .map(|i| (format!("t{i}"), Whole::new(Dtype::U8, &[40], i)))
        .chain([("rows".to_owned(), Whole::new(Dtype::U8, &[8, 2], 9))])
        .collect();
    let mut job = Job::new("save", 4).unwrap();
    for rank in 0..4 {
        let alone = Layout::new(Positions::progression(1, rank, 1).unwrap(), vec![]).unwrap();
        job.layout(&format!("t{rank}"), Dtype::U8, &[40], &alone).unwrap();
    }
    job.layout("rows", Dtype::U8, &[8, 2], &Layout::sharded(0, 4).unwrap()).unwrap();
    let path = write(&job, &tensors, folder.path(), &WriteOptions::new());
    std::fs::remove_file(folder.path().join("shards/2/save-r00002.tkeep")).unwrap();
    test_support::flip_byte_on_disk(&folder.path().join("shards/3/save-r00003.tkeep"), 4096 + 64);
    for mapped in [false, true] {
        let checkpoint = open(&path, mapped);
        for intact in ["t0", "t1"] {
            assert!(checkpoint.tensor(intact).unwrap().bytes() == tensors[intact].bytes);
        }
        for (lost, rank) in [("t2", 2), ("t3", 3), ("rows", 2)] {
            let error = checkpoint.tensor(lost).unwrap_err();
            assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some(lost)), "{error}");
            assert!(error.to_string().contains(&format!("save-r{rank:05}.tkeep")), "{error}");
        }
        // Rows of the shards that are there.
        assert!(checkpoint.slice("rows", 0..4).unwrap().bytes() == &tensors["rows"].bytes[..8]);
        let report = checkpoint.inspect().verify_all().unwrap();
        assert_eq!(report.damage.len(), 2, "{report:?}");
        let (snapshot, lost) = checkpoint.inspect().salvage().unwrap();
        let names: Vec<&str> = lost.iter().filter_map(tensorkeep::Error::tensor).collect();
        assert_eq!(names, ["rows", "t2", "t3"]);
        let saved = snapshot.to_bytes(&WriteOptions::new()).unwrap();
        assert_eq!(Checkpoint::from_bytes(&saved).unwrap().names().collect::<Vec<_>>(), ["own", "t0", "t1"]);
    }
}

#[test]
fn a_manifest_is_repacked_to_one_file_and_a_shard_is_not() {
    // [R97]
    let folder = TempFolder::in_memory("ranks");
    let tensors = Tensors::from([("w".to_owned(), Whole::new(Dtype::F32, &[900, 700], 1))]);
    let mut job = Job::new("save", 2).unwrap();
    job.layout("w", Dtype::F32, &[900, 700], &Layout::sharded(1, 2).unwrap()).unwrap();
    let path = write(&job, &tensors, folder.path(), &WriteOptions::new());
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.inspect().byte_len() > 900 * 700 * 4, "with its shards");
    let plain = folder.path().join("plain.tkeep");
    tensorkeep::convert::repack(&checkpoint, &plain, &WriteOptions::new()).unwrap();
    assert!(Checkpoint::open(&plain).unwrap().tensor("w").unwrap().bytes() == tensors["w"].bytes);
    let shard = folder.path().join("shards/1/save-r00001.tkeep");
    let mut stranger = Pieces::of(&std::fs::read(&shard).unwrap()).unwrap();
    for (bytes, at) in [(&mut stranger.header, 24), (&mut stranger.footer, 48)] {
        bytes[at] = 4;
    }
    stranger.sections.retain(|(kind, _)| *kind != 6);
    for (file, words) in [(std::fs::read(&shard).unwrap(), "a shard"), (stranger.join(), "flags 0x4")] {
        let file = Checkpoint::from_bytes(&file).unwrap();
        let error =
            tensorkeep::convert::repack(&file, &folder.path().join("no"), &WriteOptions::new()).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(words), "{error}");
    }
    let mut copied = Vec::new();
    checkpoint.inspect().copy_into(&mut Appended(&mut copied), |_| {}).unwrap();
    assert!(copied == std::fs::read(&path).unwrap(), "the manifest alone");
}

struct Appended<'v>(&'v mut Vec<u8>);

impl tensorkeep::engine::Upload for Appended<'_> {
    fn append(&mut self, bytes: &[u8]) -> tensorkeep::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, _: tensorkeep::engine::Nonce) -> Result<(), tensorkeep::engine::CommitError> {
        Ok(())
    }
}

#[test]
fn a_manifest_without_its_folder_lists_and_does_not_read() {
    let folder = TempFolder::in_memory("ranks");
    let tensors = Tensors::from([("w".to_owned(), Whole::new(Dtype::U8, &[10], 1))]);
    let mut job = Job::new("save", 2).unwrap();
    job.layout("w", Dtype::U8, &[10], &Layout::sharded(0, 2).unwrap()).unwrap();
    let path = write(&job, &tensors, folder.path(), &WriteOptions::new());
    let alone = Checkpoint::from_bytes(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(alone.info("w").unwrap().pieces, 2);
    let error = alone.tensor("w").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("without its folder"), "{error}");
    assert_eq!(alone.tensor("own").unwrap().bytes(), [1, 2]);
}

/// A file as it is to a reader that knows nothing of manifests and shards: the flag and the kind of
/// section moved to ones that this version does not know. Flags are bytes 16..40 of the header.
fn to_a_stranger(file: &[u8], from: (usize, u64, u32), to: (u64, u32)) -> Vec<u8> {
    let mut pieces = Pieces::of(file).unwrap();
    let (field, flag, kind) = from;
    for (bytes, at) in [(&mut pieces.header, field), (&mut pieces.footer, field + 24)] {
        assert_eq!(bytes[at..at + 8], flag.to_le_bytes(), "the flag is set");
        bytes[at..at + 8].copy_from_slice(&to.0.to_le_bytes());
    }
    let section = pieces.sections.iter_mut().find(|(found, _)| *found == kind).unwrap();
    section.0 = to.1;
    pieces.join()
}

#[test]
fn a_reader_that_does_not_know_them_refuses_manifests_alone() {
    // [R96] [R97] [R37] [R155] [R170]
    let folder = TempFolder::in_memory("ranks");
    let tensors = Tensors::from([("w".to_owned(), Whole::new(Dtype::U8, &[10], 1))]);
    let mut job = Job::new("save", 2).unwrap();
    job.layout("w", Dtype::U8, &[10], &Layout::sharded(0, 2).unwrap()).unwrap();
    let path = write(&job, &tensors, folder.path(), &WriteOptions::new());
    let manifest = to_a_stranger(&std::fs::read(&path).unwrap(), (32, 2, 5), (1, 4));
    let error = Checkpoint::from_bytes(&manifest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerVersion, "{error}");
    let shard = std::fs::read(folder.path().join("shards/1/save-r00001.tkeep")).unwrap();
    for file in [to_a_stranger(&shard, (24, 1, 6), (2, 4)), shard] {
        let checkpoint = Checkpoint::from_bytes(&file).unwrap();
        checkpoint.verify().unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w@5"]);
        assert!(checkpoint.tensor("w@5").unwrap().bytes() == &tensors["w"].bytes[5..]);
    }
}

#[test]
fn a_job_of_which_one_rank_stores_everything_is_a_plain_file() {
    // [R169]
    let mut job = Job::new("save", 8).unwrap();
    assert_eq!(job.only_rank(), Some(0));
    let replicated = Layout::replicated(8).unwrap();
    job.layout("w", Dtype::U8, &[10], &replicated).unwrap();
    job.assign(true).unwrap();
    assert_eq!(job.only_rank(), Some(0));
    job.layout("empty", Dtype::U8, &[0], &Layout::sharded(0, 8).unwrap()).unwrap();
    assert_eq!(job.only_rank(), Some(0));
    let mut two = job.clone();
    two.layout("v", Dtype::U8, &[10], &replicated).unwrap();
    two.assign(true).unwrap();
    assert_eq!((two.only_rank(), two.owners().len()), (None, 2));
    job.layout("rows", Dtype::U8, &[8], &Layout::sharded(0, 8).unwrap()).unwrap();
    assert_eq!(job.only_rank(), None);
}

#[test]
fn a_trillion_parameters_on_16384_ranks_are_a_small_manifest() {
    let (layers, world) = (128_u64, 16_384_u32);
    let (width, ffn) = (25_600, 102_400);
    let mut job = Job::new("0004-0000001200-1-5b7711e0", world).unwrap();
    let rows = Layout::sharded(0, world).unwrap();
    let mut parameters = 0;
    for part in ["model", "optimizer/master", "optimizer/exp_avg", "optimizer/exp_avg_sq"] {
        let dtype = if part == "model" { Dtype::Bf16 } else { Dtype::F32 };
        let mut add = |name: String, shape: &[u64]| {
            parameters += shape.iter().product::<u64>();
            job.layout(&name, dtype, shape, &rows).unwrap();
        };
        for layer in 0..layers {
            for (name, shape) in [
                ("self_attn.q_proj.weight", vec![width, width]),
                ("self_attn.k_proj.weight", vec![width / 8, width]),
                ("self_attn.v_proj.weight", vec![width / 8, width]),
                ("self_attn.o_proj.weight", vec![width, width]),
                ("mlp.up_proj.weight", vec![ffn, width]),
                ("mlp.gate_proj.weight", vec![ffn, width]),
                ("mlp.down_proj.weight", vec![width, ffn]),
                ("input_layernorm.weight", vec![width]),
                ("post_attention_layernorm.weight", vec![width]),
            ] {
                add(format!("{part}/model.layers.{layer}.{name}"), &shape);
            }
        }
        add(format!("{part}/model.embed_tokens.weight"), &[128_256, width]);
        add(format!("{part}/lm_head.weight"), &[128_256, width]);
        add(format!("{part}/model.norm.weight"), &[width]);
    }
    assert!(parameters / 4 > 1_000_000_000_000, "{parameters}");
    let shard = |rank| ShardRef { rank, file_id: [7; 16], len: 900_000_000, index_crc: rank };
    let folder = TempFolder::in_memory("ranks");
    let path = folder.path().join("manifest.tkeep");
    let shards = (0..world).map(shard).collect();
    let written = job.write_manifest(&path, &Snapshot::new(), &WriteOptions::new(), shards).unwrap();
    assert!(written.byte_len <= 2_000_000, "{} bytes", written.byte_len);
    let started = std::time::Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensors().count(), 4 * (128 * 9 + 3));
    assert_eq!(checkpoint.info("model/lm_head.weight").unwrap().pieces, 16_032);
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}

#[test]
fn what_ranks_disagree_on_is_told_with_rank_tensor_and_box() {
    let of = |offsets: [u64; 1], lens: [u64; 1]| TensorBox::new(offsets, lens).unwrap();
    let job = || Job::new("save", 4).unwrap();
    let told = |result: tensorkeep::Result<()>, words: &[&str]| {
        let error = result.unwrap_err();
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let boxes = |boxes| job().boxes("w", Dtype::U8, &[8], boxes);
    told(
        boxes(vec![(of([0], [5]), 0), (of([4], [4]), 3)]),
        &["tensor w", "overlap", "[0:5] of rank 0", "[4:8] of rank 3"],
    );
    told(boxes(vec![(of([0], [3]), 0), (of([4], [4]), 3)]), &["tensor w", "hole", "[3:4]"]);
    told(boxes(vec![(of([0], [9]), 1)]), &["tensor w", "leaves", "[0:9] of rank 1", "[0:8]"]);
    told(boxes(vec![(of([0], [8]), 4)]), &["tensor w", "rank 4", "below 4"]);
    let layout = |shape: &[u64], layout: &Layout| job().layout("w", Dtype::U8, shape, layout);
    told(layout(&[8], &Layout::sharded(1, 4).unwrap()), &["tensor w", "more axes"]);
    told(layout(&[8], &Layout::sharded(0, 8).unwrap()), &["tensor w", "rank 4", "below 4"]);
    told(Job::new("save", 0).map(drop), &["world", "found 0"]);
    told(Job::new("a/b", 1).map(drop), &["a/b"]);
    // A rank that has another shape, and one that is missing.
    let folder = TempFolder::in_memory("ranks");
    let mut job = job();
    job.layout("w", Dtype::U8, &[8, 2], &Layout::sharded(0, 4).unwrap()).unwrap();
    let path = folder.path().join("job.tkeep");
    let options = WriteOptions::new();
    let shard = |rank, shape: &[usize], dtype| {
        let bytes = vec![0; shape.iter().product()];
        let tensor = Tensor::shared(dtype, shape, std::sync::Arc::new(bytes)).unwrap();
        job.write_shard(&path, rank, &options, |_| Ok(tensor.clone()))
    };
    told(
        shard(2, &[3, 2], Dtype::U8).map(drop),
        &["tensor w", "rank 2", "[4:6, 0:2]", "u8 [2, 2]", "u8 [3, 2]"],
    );
    told(shard(2, &[2, 2], Dtype::I8).map(drop), &["tensor w", "rank 2", "i8 [2, 2]"]);
    let shards: Vec<ShardRef> = [0, 1, 3].map(|rank| shard(rank, &[2, 2], Dtype::U8).unwrap()).into();
    let manifest = job.write_manifest(&path, &Snapshot::new(), &options, shards);
    told(manifest.map(drop), &["tensor w", "a rank is missing", "rank 2", "3 ranks"]);
    assert!(!path.exists(), "nothing was committed");
    // A box that a checkpoint has not.
    let plain = Snapshot::new().tensor("w", &[1_u8; 8][..]).unwrap().to_bytes(&options).unwrap();
    let plain = Checkpoint::from_bytes(&plain).unwrap();
    told(plain.read_box("w", &of([4], [5])).map(drop), &["tensor w", "[0:8]", "[4:9]"]);
    told(plain.read_box("w", &TensorBox::whole(&[2, 4])).map(drop), &["tensor w", "[0:2, 0:4]"]);
    told(
        plain.read_boxes_into([("w", &of([4], [2]), &mut [0; 3][..])]),
        &["tensor w", "expected 2", "found 3"],
    );
}

#[test]
fn two_tensors_over_the_same_memory_are_two_parts() {
    let folder = TempFolder::in_memory("ranks");
    let mut job = Job::new("save", 2).unwrap();
    for name in ["a", "b"] {
        let level = Level { axis: 0, parts: 2, stride: 1 };
        let layout = Layout::new(Positions::first(2).unwrap(), vec![level]).unwrap();
        job.layout(name, Dtype::U8, &[16], &layout).unwrap();
    }
    let path = folder.path().join("job.tkeep");
    let borrowed = [7_u8; 8];
    let shards: Vec<ShardRef> = [0, 1]
        .map(|rank| {
            let tensor = Tensor::new(Dtype::U8, &[8], &borrowed).unwrap();
            job.write_shard(&path, rank, &WriteOptions::new(), |_| Ok(tensor.clone())).unwrap()
        })
        .into();
    job.write_manifest(&path, &Snapshot::new(), &WriteOptions::new(), shards).unwrap();
    let checkpoint = open(&path, false);
    assert!(checkpoint.tensor("a").unwrap().bytes() == [7; 16]);
    assert_eq!(checkpoint.verify().unwrap().chunks, 4);
}

#[test]
fn a_copied_run_has_the_shards_of_its_checkpoints() {
    let mut random = Random(11);
    let (job, tensors) = any_job(&mut random);
    let (from, to) = (TempFolder::in_memory("ranks"), TempFolder::in_memory("ranks"));
    let written = write(&job, &tensors, from.path(), &WriteOptions::new());
    std::fs::rename(written, from.path().join("0001-0000000003.tkeep")).unwrap();
    let reader = |folder: &TempFolder| Reader::open(folder.path()).unwrap();
    let id = reader(&from).ids().unwrap()[0];
    let key = format!("{id}.tkeep");
    let mut moved = 0;
    let whole = reader(&from).checkpoint_by_id(id).unwrap().inspect().byte_len();
    let copied = reader(&from).copy_to(id, &reader(&to), |bytes| moved += bytes).unwrap();
    assert_eq!(copied, CopyOutcome::Written(whole));
    assert!(moved > whole / 4 && moved <= whole, "{moved} of {whole}");
    reader(&to).checkpoint_by_id(id).unwrap().verify().unwrap();
    // Interrupted before its manifest, a copy goes on with the shards that are there.
    std::fs::remove_file(to.path().join(&key)).unwrap();
    let manifest = std::fs::metadata(from.path().join(&key)).unwrap().len();
    let copied = reader(&from).copy_to(id, &reader(&to), |_| {}).unwrap();
    assert_eq!(copied, CopyOutcome::Written(manifest));
    assert_eq!(reader(&from).copy_to(id, &reader(&to), |_| {}).unwrap(), CopyOutcome::AlreadyThere);
    // Another shard under that name is never overwritten.
    let shard = to.path().join(&reader(&to).checkpoint_by_id(id).unwrap().inspect().shard_keys()[0]);
    std::fs::remove_file(to.path().join(&key)).unwrap();
    std::fs::write(&shard, b"something else").unwrap();
    let error = reader(&from).copy_to(id, &reader(&to), |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(!to.path().join(&key).exists());
}
