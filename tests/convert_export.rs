//! What is written in other formats: compared before it replaces anything, with everything that
//! came back as what it was, in one file or in shards, from checkpoints and from foreign files.
#![cfg(feature = "ndarray")]

#[path = "common/build.rs"]
mod build;
mod common;
#[path = "convert/pickles.rs"]
mod pickles;

use build::{Container, Stored};
use common::TempFolder;
use ndarray::Array1;
use pickles::{f32s, named, text, torch, vector};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tensorkeep::convert::{self, ExportOptions, Foreign, Format, Note};
use tensorkeep::engine::{Blob, Local};
use tensorkeep::{
    Checkpoint, Dtype, Error, ErrorKind, Model, OpenOptions, Progress, Result, Snapshot, StateDict,
    StateDictMut, Stateful, Store, StoreOptions, WriteOptions,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert").join(name)
}

fn saved(folder: &TempFolder, snapshot: &Snapshot<'_>) -> Checkpoint {
    let path = folder.path().join("source.tkeep");
    snapshot.save(&path).unwrap();
    Checkpoint::open(path).unwrap()
}

/// A safetensors file of these entries and metadata, by hand.
fn safetensors(folder: &TempFolder, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.path().join("by-hand.safetensors");
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn losses(notes: &[Note]) -> Vec<&str> {
    notes.iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect()
}

fn files(folder: &TempFolder) -> Vec<String> {
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

struct Line(Array1<f32>);

#[derive(Serialize, Deserialize)]
struct LineConfig {
    len: usize,
}

impl Stateful for Line {
    fn state_dict(&self) -> Result<StateDict<'_>> {
        StateDict::new().with("w", &self.0)
    }

    fn state_dict_mut(&mut self) -> Result<StateDictMut<'_>> {
        StateDictMut::new().with("w", &mut self.0)
    }
}

impl Model for Line {
    const KIND: &'static str = "line";
    type Config = LineConfig;

    fn config(&self) -> LineConfig {
        LineConfig { len: self.0.len() }
    }

    fn from_config(config: &LineConfig) -> Result<Self> {
        Ok(Self(Array1::zeros(config.len)))
    }
}

#[test]
fn a_runs_checkpoint_comes_back_from_safetensors_as_itself() {
    let folder = TempFolder::new("export");
    let store = Store::open(Arc::new(Local::create(folder.path().join("run")).unwrap()), StoreOptions::new())
        .unwrap();
    let model = Line(Array1::from_vec(vec![1.5, -2.0]));
    let mut snapshot = Snapshot::new()
        .model(&model)
        .unwrap()
        .metric("loss", 0.25)
        .unwrap()
        .progress(Progress::new(7).epoch(2));
    // Keys of the user's that look like the library's own.
    for (key, text) in [("tensorkeep.step", "hello"), ("tensorkeep.record.lr", "[1]"), ("note", "é\"")] {
        snapshot = snapshot.metadata(key, text).unwrap();
    }
    snapshot = snapshot.record("lr", &0.1).unwrap();
    store.save(&snapshot).unwrap();
    let before = store.checkpoint(7).unwrap();
    let path = folder.path().join("out.safetensors");
    let export = convert::export(&before, &path, Format::Safetensors).unwrap();
    assert_eq!(losses(&export.notes), Vec::<&str>::new());

    let back = folder.path().join("back.tkeep");
    convert::import(&Foreign::open(&path).unwrap(), &back, &WriteOptions::new()).unwrap();
    let after = Checkpoint::open(back).unwrap();
    assert_eq!(after.records().collect::<Vec<_>>(), before.records().collect::<Vec<_>>());
    for name in before.records() {
        assert_eq!(after.record_value(name).unwrap(), before.record_value(name).unwrap(), "{name}");
    }
    assert_eq!(after.progress().unwrap(), Some(Progress::new(7).epoch(2)));
    assert_eq!(after.metadata().unwrap()["tensorkeep.step"], "hello");
    assert_eq!(after.build::<Line>().unwrap().0, model.0, "it can still be rebuilt");
}

#[test]
fn packed_floats_go_out_by_the_names_they_came_in_by() {
    let folder = TempFolder::new("export");
    let header = r#"{"f4":{"dtype":"F4","shape":[2,8],"data_offsets":[0,8]},"f6":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[8,11]},"s":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[11,13]}}"#;
    let data: Vec<u8> = (100..113).collect();
    let foreign = Foreign::open(safetensors(&folder, header, &data)).unwrap();
    assert_eq!(foreign.metadata()["safetensors.dtype.f6"], "F6_E3M2 [4]");
    let kept = folder.path().join("kept.tkeep");
    convert::import(&foreign, &kept, &WriteOptions::new()).unwrap();
    let path = folder.path().join("out.safetensors");
    let export = convert::export(&Checkpoint::open(kept).unwrap(), &path, Format::Safetensors).unwrap();
    assert_eq!(losses(&export.notes), Vec::<&str>::new());
    let bytes = std::fs::read(&path).unwrap();
    let oracle = SafeTensors::deserialize(&bytes).unwrap();
    let view = |name| oracle.tensor(name).unwrap();
    assert_eq!((view("f4").dtype(), view("f4").shape()), (safetensors::Dtype::F4, &[2, 8][..]));
    assert_eq!((view("f6").dtype(), view("f6").shape()), (safetensors::Dtype::F6_E3M2, &[4][..]));
    assert_eq!([view("f4").data(), view("f6").data(), view("s").data()].concat(), data);
    // Metadata that no longer fits is nobody's word for it.
    let wrong = r#"{"__metadata__":{"safetensors.dtype.w":"F4 [2, 8]"},"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#;
    let foreign = Foreign::open(safetensors(&folder, wrong, &data[..8])).unwrap();
    convert::export(&foreign, &path, Format::Safetensors).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(
        SafeTensors::deserialize(&bytes).unwrap().tensor("w").unwrap().dtype(),
        safetensors::Dtype::U8
    );
}

#[test]
fn lengths_of_packed_floats_are_checked() {
    let folder = TempFolder::new("export");
    for (dtype, shape, end) in
        [("F4", "[2,8]", 5), ("F4", "[3]", 2), ("F6_E2M3", "[4]", 4), ("F6_E2M3", "[3]", 3)]
    {
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        let error = Foreign::open(safetensors(&folder, &header, &vec![0; end])).unwrap_err();
        assert_eq!(
            (error.kind(), error.tensor()),
            (ErrorKind::Damaged, Some("w")),
            "{dtype} {shape}: {error}"
        );
    }
}

#[test]
fn what_the_reference_ignores_in_a_header_is_kept() {
    let folder = TempFolder::new("export");
    let header = r#"{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1],"nntr":{"q":"x"}}}"#;
    let path = safetensors(&folder, header, &1.0_f32.to_le_bytes());
    assert!(SafeTensors::deserialize(&std::fs::read(&path).unwrap()).is_ok(), "the reference opens it");
    let foreign = Foreign::open(&path).unwrap();
    assert_eq!(foreign.tensor("a").unwrap().elements::<f32>().unwrap(), [1.0]);
    assert_eq!(foreign.records()["safetensors"].to_string(), r#"{a: {nntr: {q: "x"}, strides: [1]}}"#);
    assert_eq!(losses(foreign.notes()), Vec::<&str>::new());
    for twice in [
        r#"{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
        r#"{"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
    ] {
        let error = Foreign::open(safetensors(&folder, twice, &[0; 4])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{twice}");
    }
}

#[test]
fn what_no_reader_reads_is_refused_before_it_is_written() {
    let folder = TempFolder::new("export");
    let path = folder.path().join("out.safetensors");
    std::fs::write(&path, b"mine").unwrap();
    let refused = |snapshot: &Snapshot<'_>| {
        let error = convert::export(&saved(&folder, snapshot), &path, Format::Safetensors).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert_eq!(files(&folder), ["out.safetensors", "source.tkeep"]);
        error.to_string()
    };
    let (ones, long) = ([1.0_f32], "x".repeat(60_000_000));
    let named = Snapshot::new().tensor("__metadata__", &ones[..]).unwrap();
    assert!(refused(&named).contains("__metadata__"));
    let large = Snapshot::new()
        .tensor("a", &ones[..])
        .unwrap()
        .record("first", &long)
        .unwrap()
        .record("second", &long)
        .unwrap();
    let text = refused(&large);
    assert!(text.contains("100000000") && text.contains("tensorkeep.record."), "{text}");
}

#[test]
fn a_damaged_source_replaces_nothing() {
    let folder = TempFolder::new("export");
    let values = vec![1.0_f32; 40_000];
    let snapshot = Snapshot::new().tensor("a", &values).unwrap().tensor("b", &values[1..]).unwrap();
    let source = saved(&folder, &snapshot);
    let offset = source.info("b").unwrap().offset as usize;
    let mut bytes = std::fs::read(source.name()).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(folder.path().join("damaged.tkeep"), bytes).unwrap();
    let damaged = Checkpoint::open(folder.path().join("damaged.tkeep")).unwrap();
    for format in [Format::Safetensors, Format::Npz] {
        let path = folder.path().join(format!("out.{format}"));
        std::fs::write(&path, b"mine").unwrap();
        let error = convert::export(&damaged, &path, format).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("b")));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
    assert_eq!(files(&folder).len(), 4, "something was left: {:?}", files(&folder));
}

#[test]
fn a_byte_that_is_no_truth_value_is_not_written_as_one() {
    let folder = TempFolder::new("export");
    let header = r#"{"flags":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let foreign = Foreign::open(safetensors(&folder, header, &[0, 1, 2])).unwrap();
    let error = convert::export(&foreign, &folder.path().join("out.npz"), Format::Npz).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("flags")));
    assert!(error.to_string().contains("element 2"), "{error}");
}

#[test]
fn shards_are_named_and_indexed_as_hugging_face_does() {
    let folder = TempFolder::new("export");
    let tensors = [("a", 50), ("b", 50), ("c", 100), ("d", 1)].map(|(name, len)| (name, vec![1.0_f32; len]));
    let mut snapshot = Snapshot::new();
    for (name, values) in &tensors {
        snapshot = snapshot.tensor(*name, values).unwrap();
    }
    snapshot = snapshot.metadata("format", "pt").unwrap().record("lr", &0.5).unwrap();
    let checkpoint = saved(&folder, &snapshot);
    let path = folder.path().join("model.safetensors");
    let options = ExportOptions::new().max_shard_bytes(400);
    let export = convert::export_with(&checkpoint, &path, Format::Safetensors, &options).unwrap();
    let names: Vec<&str> =
        export.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            "model.safetensors.index.json",
        ]
    );
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(&export.files[3]).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 804);
    let of = |name: &str| index["weight_map"][name].as_str().unwrap().to_owned();
    assert_eq!(["a", "b", "c", "d"].map(of), [names[0], names[0], names[1], names[2]].map(str::to_owned));
    for file in &export.files[..3] {
        let bytes = std::fs::read(file).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt", "each says so: loaders ask it");
    }
    let whole = Foreign::open(&export.files[3]).unwrap();
    assert_eq!(convert::differences(&checkpoint, &whole).unwrap(), Vec::<String>::new());
    assert_eq!((whole.records().len(), losses(whole.notes()).len()), (1, 0));
    // A shard by itself says that it is one.
    assert_eq!(losses(Foreign::open(&export.files[0]).unwrap().notes()), [names[0]]);

    let again =
        convert::export_with(&checkpoint, &path, Format::Safetensors, &options.clone().keep_existing());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let one =
        convert::export_with(&checkpoint, &path, Format::Safetensors, &options.max_shard_bytes(900)).unwrap();
    assert_eq!(one.files, [path]);
}

#[test]
fn a_foreign_file_becomes_one_of_another_format() {
    let folder = TempFolder::new("export");
    let pt = Foreign::open(fixture("state_dict.pt")).unwrap();
    let path = folder.path().join("out.safetensors");
    convert::export(&pt, &path, Format::Safetensors).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let oracle = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(oracle.len(), pt.tensors().len());
    for tensor in pt.tensors() {
        assert_eq!(oracle.tensor(&tensor.name).unwrap().data(), pt.tensor(&tensor.name).unwrap().bytes());
    }
    let npz = folder.path().join("out.npz");
    convert::export(&Foreign::open(&path).unwrap(), &npz, Format::Npz).unwrap();
    let back = Foreign::open(&npz).unwrap();
    assert_eq!(convert::differences(&pt, &back).unwrap(), Vec::<String>::new());
    assert_eq!(back.tensor("bf16").unwrap().dtype(), Dtype::Bf16);
}

#[test]
fn what_cannot_be_read_is_left_out_and_said() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/valid");
    let folder = TempFolder::new("export");
    let path = folder.path().join("out.safetensors");
    for name in ["unknown-codec", "unknown-filter", "unknown-dtype"] {
        let checkpoint = Checkpoint::open(corpus.join(format!("{name}.tkeep"))).unwrap();
        let export = convert::export(&checkpoint, &path, Format::Safetensors).unwrap();
        let lost = losses(&export.notes).len();
        assert!(
            lost > 0 && export.tensors + lost >= checkpoint.names().count(),
            "{name}: {:?}",
            export.notes
        );
        assert_eq!(Foreign::open(&path).unwrap().tensors().len(), export.tensors);
    }
}

#[test]
fn a_record_that_cannot_be_read_does_not_end_an_export() {
    let folder = TempFolder::new("export");
    let path = folder.path().join("out.safetensors");
    let mut container = Container::new();
    container.tensor("a", "f32", &[2], &[1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    std::mem::swap(&mut container.tensors, &mut container.records);
    let strange = Stored { codec: 77, filter: 0, bytes: vec![1; 15] };
    container.unreadable("r", 255, &[16], 16, &[strange]);
    std::mem::swap(&mut container.tensors, &mut container.records);
    let file = folder.path().join("made.tkeep");
    std::fs::write(&file, container.finish()).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    assert_eq!(checkpoint.record_value("r").unwrap_err().kind(), ErrorKind::Unsupported);
    let export = convert::export(&checkpoint, &path, Format::Safetensors).unwrap();
    assert_eq!((export.tensors, losses(&export.notes)), (1, vec!["r"]));
    assert_eq!(Foreign::open(&path).unwrap().tensor("a").unwrap().elements::<f32>().unwrap(), [1.0, 2.0]);
}

/// Bytes that can be read so many times from the place where a tensor lies, and then fail.
#[derive(Debug)]
struct Failing {
    bytes: Vec<u8>,
    at: u64,
    reads: AtomicU32,
}

impl Blob for Failing {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let is_tensor = offset <= self.at && self.at < offset + buffer.len() as u64;
        if is_tensor && self.reads.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() {
            return Err(Error::new(ErrorKind::Io, "a bad sector"));
        }
        buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

#[test]
fn a_repacked_file_has_no_name_before_it_was_compared() {
    let folder = TempFolder::new("export");
    let values: Vec<f32> = (0..200_000).map(|at| at as f32).collect();
    let snapshot =
        Snapshot::new().tensor("a", &values).unwrap().record("r", &7).unwrap().tie("b", "a").unwrap();
    let source = saved(&folder, &snapshot);
    let at = source.info("a").unwrap().offset;
    let bytes = std::fs::read(source.name()).unwrap();
    let path = folder.path().join("out.tkeep");
    std::fs::write(&path, b"mine").unwrap();
    let options = WriteOptions::new().codec(tensorkeep::Codec::Balanced);
    // The first read is for writing, the second for comparing.
    for (reads, succeeds) in [(0, false), (1, false), (2, true)] {
        let blob = Failing { bytes: bytes.clone(), at, reads: AtomicU32::new(reads) };
        let opened = OpenOptions::new().open_blob(Arc::new(blob), "failing").unwrap();
        let outcome = convert::repack(&opened, &path, &options);
        assert_eq!(outcome.is_ok(), succeeds, "{reads} reads: {outcome:?}");
        if !succeeds {
            assert_eq!(std::fs::read(&path).unwrap(), b"mine", "{reads} reads");
        }
        assert_eq!(files(&folder), ["out.tkeep", "source.tkeep"], "{reads} reads");
    }
    let again = Checkpoint::open(&path).unwrap();
    assert_eq!(again.tensor("b").unwrap().elements::<f32>().unwrap(), values);
    assert_eq!((again.info("b").unwrap().alias_of, again.record::<i32>("r").unwrap()), (Some("a"), 7));
}

#[test]
fn a_byte_that_is_no_truth_value_is_not_imported_as_one() {
    let folder = TempFolder::new("export");
    let out = folder.path().join("out.tkeep");
    let header = r#"{"ok":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]},"m":{"dtype":"BOOL","shape":[3],"data_offsets":[2,5]}}"#;
    let import = |data: &[u8]| {
        let foreign = Foreign::open(safetensors(&folder, header, data)).unwrap();
        convert::import(&foreign, &out, &WriteOptions::new())
    };
    let error = import(&[0, 1, 1, 0, 2]).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("m")), "{error}");
    let text = error.to_string();
    assert!(text.contains("by-hand.safetensors") && text.contains("element 2"), "{text}");
    assert!(text.contains("expected 0 or 1, found 2"), "{text}");
    assert_eq!(files(&folder), ["by-hand.safetensors"]);
    import(&[0, 1, 1, 0, 1]).unwrap();
    assert_eq!(Checkpoint::open(&out).unwrap().tensor("m").unwrap().bytes(), [1, 0, 1]);
}

#[test]
fn names_and_records_no_checkpoint_has_are_told() {
    let folder = TempFolder::new("export");
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let long = "n".repeat(1_024);
    let tensor =
        |start: usize| format!(r#"{{"dtype":"F4","shape":[2],"data_offsets":[{start},{}]}}"#, start + 1);
    let header = format!(
        r#"{{"__metadata__":{{"tensorkeep.record.deep":"{deep}","tensorkeep.record.tensorkeep.progress":"\"soon\"","tab\tkey":"1","tab_key":"2"}},"{long}":{},"{long}\t":{}}}"#,
        tensor(0),
        tensor(1)
    );
    let foreign = Foreign::open(safetensors(&folder, &header, &[1, 2])).unwrap();
    let kept = folder.path().join("kept.tkeep");
    convert::import(&foreign, &kept, &WriteOptions::new()).unwrap();
    let checkpoint = Checkpoint::open(kept).unwrap();
    let metadata = checkpoint.metadata().unwrap();
    assert_eq!(metadata["tensorkeep.record.deep"], deep);
    assert_eq!(metadata["tensorkeep.record.tensorkeep.progress"], "\"soon\"");
    assert_eq!((metadata["tab_key"].as_str(), metadata["tab_key~2"].as_str()), ("2", "1"));
    assert_eq!((checkpoint.names().count(), checkpoint.progress().unwrap()), (2, None));
    // The key for what it means would be longer than a key may be.
    assert_eq!(losses(foreign.notes()), [long.as_str()]);
}

#[test]
fn a_member_that_stands_twice_is_refused_by_name() {
    let folder = TempFolder::new("export");
    let tensor = tensorkeep::Tensor::from_elements(&[2], &[1.0_f32; 2]).unwrap();
    let (array, _) = convert::npy_bytes(&tensor).unwrap();
    let path = folder.path().join("twice.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for name in ["a.npy", "b.npy"] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut archive, &array).unwrap();
    }
    archive.finish().unwrap();
    assert_eq!(Foreign::open(&path).unwrap().tensors().len(), 2);
    let mut bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len() - 5).filter(|&at| bytes[at..].starts_with(b"b.npy")).collect::<Vec<_>>() {
        bytes[at] = b'a';
    }
    std::fs::write(&path, bytes).unwrap();
    let error = Foreign::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("\"a.npy\" stands twice"), "{error}");
}

#[test]
fn an_index_of_torch_files_opens_as_one_model() {
    let folder = TempFolder::new("export");
    for (file, from) in [("1.bin", "state_dict.pt"), ("2.bin", "with_object.pt")] {
        std::fs::copy(fixture(from), folder.path().join(file)).unwrap();
    }
    let open = |map: &str| {
        let path = folder.path().join("pytorch_model.bin.index.json");
        std::fs::write(
            &path,
            format!(r#"{{"metadata":{{"total_size":1,"by":"x"}},"weight_map":{{{map}}}}}"#),
        )
        .unwrap();
        Foreign::open(path)
    };
    let all = r#""fc.tied":"1.bin","fc.row":"1.bin","model.w":"2.bin""#;
    let model = open(all).unwrap();
    assert_eq!((model.format(), model.tensors().len()), (Format::Torch, 3));
    assert_eq!(model.tensor("model.w").unwrap().elements::<f32>().unwrap(), [1.0, 1.0]);
    // What it was tied to stays out, and its bytes are there all the same.
    let tied = model.tensors().iter().find(|tensor| tensor.name == "fc.tied").unwrap();
    let whole = Foreign::open(fixture("state_dict.pt")).unwrap();
    assert_eq!(tied.alias_of, None);
    assert_eq!(model.tensor("fc.tied").unwrap().bytes(), whole.tensor("fc.weight").unwrap().bytes());
    assert_eq!(model.records()["index"].to_string(), r#"{by: "x"}"#);
    let both = open(r#""fc.tied":"1.bin","fc.weight":"1.bin""#).unwrap();
    let tied = both.tensors().iter().find(|tensor| tensor.name == "fc.tied").unwrap();
    assert_eq!(tied.alias_of.as_deref(), Some("fc.weight"));
    assert_eq!(open(r#""a":"1.bin","a":"2.bin""#).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(open(r#""a":"pytorch_model.bin.index.json""#).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(open(r#""fc.row":"3.bin""#).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn members_that_share_bytes_are_refused() {
    let folder = TempFolder::new("export");
    let tensor = tensorkeep::Tensor::from_elements(&[2], &[1.0_f32; 2]).unwrap();
    let (array, _) = convert::npy_bytes(&tensor).unwrap();
    let path = folder.path().join("shared.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    archive.start_file("a.npy", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut archive, &array).unwrap();
    archive.shallow_copy_file("a.npy", "b.npy").unwrap();
    archive.finish().unwrap();
    let error = Foreign::open(&path).unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains("share"), "{error}");
}

#[test]
fn what_json_unfolds_to_is_charged_to_the_budget() {
    let folder = TempFolder::new("export");
    let lists = vec!["[]"; 100_000].join(",");
    let record = format!(r#"{{"__metadata__":{{"tensorkeep.record.r":"[{lists}]"}}}}"#);
    let extra = format!(r#"{{"a":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":[{lists}]}}}}"#);
    let index = format!(r#"{{"weight_map":{{"a":"b"}},"metadata":{{"x":[{lists}]}}}}"#);
    let json = folder.path().join("x.index.json");
    std::fs::write(&json, index).unwrap();
    let refused = |path: &Path| {
        let error = Foreign::open_within(path, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    };
    refused(&json);
    refused(&safetensors(&folder, &extra, b""));
    refused(&safetensors(&folder, &record, b""));
    let path = safetensors(&folder, &record, b"");
    assert_eq!(Foreign::open(path).unwrap().records().len(), 1, "it is within the default");
}

#[test]
fn the_budget_of_an_index_is_that_of_all_its_files() {
    let folder = TempFolder::new("export");
    // Text of 16 MiB, recalled five times: more than the 64 MiB that a small file may unfold to.
    let word = text(&"x".repeat(16 << 20));
    let recalled = [b"](", &word[..], b"q\x00", &b"h\x00".repeat(4), b"e"].concat();
    let object = named(&[("w", vector("FloatStorage", "0", 2)), ("words", recalled)]);
    let shard = folder.path().join("1.bin");
    torch(&shard, &object, &[("0", &f32s(&[1.0, 2.0]))], zip::CompressionMethod::Stored);
    let index = folder.path().join("pytorch_model.bin.index.json");
    std::fs::write(&index, r#"{"weight_map":{"w":"1.bin"}}"#).unwrap();
    assert_eq!(Foreign::open(&shard).unwrap().tensors().len(), 1);
    assert_eq!(Foreign::open(&index).unwrap().tensors().len(), 1);
    let error = Foreign::open_within(&index, 64 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "what the caller says stays: {error}");
}

#[test]
fn the_lists_of_an_index_are_charged_like_its_text() {
    let folder = TempFolder::new("export");
    let names = (0..1000).map(|number| format!(r#""t{number:03}":"1""#)).collect::<Vec<_>>().join(",");
    let (index, text) = (folder.path().join("x.index.json"), format!(r#"{{"weight_map":{{{names}}}}}"#));
    std::fs::write(&index, &text).unwrap();
    let parsed = 2 * text.len() as u64 + 64 * 1001;
    let kind = |budget| Foreign::open_within(&index, budget).unwrap_err().kind();
    assert_eq!(kind(parsed), ErrorKind::LimitExceeded);
    assert_eq!(kind(parsed + 200_000), ErrorKind::NotFound, "there are no files");
}
