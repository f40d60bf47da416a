//! Foreign files as sources: into other formats, through an index, within a budget.

use crate::pickles::{f32s, named, text, torch, vector};
use crate::{fixture, losses, safetensors};
use safetensors::SafeTensors;
use std::path::Path;
use tensorkeep::convert::{self, Foreign, Format};
use tensorkeep::{Checkpoint, Dtype, ErrorKind, WriteOptions};
use test_support::TempFolder;

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
fn names_and_records_that_do_not_fit_are_listed() {
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
    // The metadata key for its meaning would be longer than allowed.
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
    // The alias's target stays out, and its bytes are there all the same.
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
fn json_is_charged_to_the_budget_by_its_unfolded_size() {
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
