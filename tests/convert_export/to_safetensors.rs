//! Checkpoints as safetensors, and back: every record, packed dtypes, shards.

use crate::{files, losses, safetensors, saved};
use ndarray::Array1;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tensorkeep::convert::{self, ExportOptions, Foreign, Format};
use tensorkeep::engine::Local;
use tensorkeep::{
    Checkpoint, ErrorKind, Model, Progress, Result, Snapshot, StateDict, StateDictMut, Stateful, Store,
    StoreOptions, WriteOptions,
};
use test_support::TempFolder;

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
        assert_eq!(
            after.inspect().record_value(name).unwrap(),
            before.inspect().record_value(name).unwrap(),
            "{name}"
        );
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
    // Metadata that does not match the tensor is ignored.
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
fn header_fields_that_the_reference_ignores_are_kept() {
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
fn unreadable_output_is_refused_before_it_is_written() {
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
    // A shard by itself notes that it is one.
    assert_eq!(losses(Foreign::open(&export.files[0]).unwrap().notes()), [names[0]]);

    let again =
        convert::export_with(&checkpoint, &path, Format::Safetensors, &options.clone().keep_existing());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let one =
        convert::export_with(&checkpoint, &path, Format::Safetensors, &options.max_shard_bytes(900)).unwrap();
    assert_eq!(one.files, [path]);
}
