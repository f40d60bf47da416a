//! torch's files: everything that `torch.load(weights_only=True)` reads is read with the same
//! values, and items that cannot be carried over are reported without losing the rest. Files by
//! torch itself are compared in the second half.

#[path = "convert/as_torch.rs"]
mod as_torch;
#[path = "convert/distributed.rs"]
mod distributed;
#[path = "convert/hand_made.rs"]
mod hand_made;
#[path = "convert/numpy_types.rs"]
mod numpy_types;
#[path = "convert/objects.rs"]
mod objects;
#[path = "convert/odd_archives.rs"]
mod odd_archives;
#[path = "convert/pickles.rs"]
mod pickles;
#[path = "convert/reports.rs"]
mod reports;
#[path = "convert/views.rs"]
mod views;
#[path = "convert/whole.rs"]
mod whole;

use pickles::*;
use std::path::{Path, PathBuf};
use tensorkeep::convert::Foreign;
use tensorkeep::{Checkpoint, Value, WriteOptions};
use test_support::TempFolder;
use zip::CompressionMethod::Stored;

/// A torch archive of one object, opened.
struct Opened {
    foreign: Foreign,
    folder: TempFolder,
}

fn open(object: &[u8], storages: &[(&str, &[u8])]) -> Opened {
    let folder = TempFolder::new("convert-torch");
    let path = torch(&folder.path().join("x.pt"), object, storages, Stored);
    let foreign = Foreign::open(&path).unwrap_or_else(|error| panic!("{error}: {error:?}"));
    Opened { foreign, folder }
}

impl Opened {
    fn f32s(&self, name: &str) -> Vec<f32> {
        let tensor = self.foreign.tensor(name).unwrap_or_else(|error| panic!("{error}"));
        tensor.elements::<f32>().unwrap().to_vec()
    }

    fn losses(&self) -> Vec<&str> {
        self.foreign.notes().iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect()
    }

    /// As imported: through a snapshot and a container.
    fn imported(&self) -> Checkpoint {
        let bytes = self.foreign.snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap();
        let path = self.folder.path().join("x.tkeep");
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(path).unwrap()
    }
}

/// The contents of a file according to make_torch.py.
fn expected() -> serde_json::Map<String, serde_json::Value> {
    let text = std::fs::read_to_string(torch_folder().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn torch_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert/torch")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as in make_torch.py's output: as JSON that tells all kinds apart.
fn neutral(value: &Value) -> serde_json::Value {
    use serde_json::json;
    match value {
        Value::Null => json!(null),
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::UInt(value) => json!(value),
        Value::Float(value) => json!({ "float": hex(&value.to_be_bytes()) }),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({ "bytes": hex(bytes) }),
        Value::List(values) => values.iter().map(neutral).collect(),
        Value::Map(map) => {
            let map: serde_json::Map<_, _> =
                map.iter().map(|(key, value)| (key.clone(), neutral(value))).collect();
            json!({ "map": map })
        }
        Value::Pairs(pairs) => {
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| json!([neutral(key), neutral(value)])).collect();
            json!({ "pairs": pairs })
        }
    }
}

/// The differences between a file and torch's view of it.
fn differences(foreign: &Foreign, expected: &serde_json::Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: String, ours: serde_json::Value, theirs: &serde_json::Value| {
        if ours != *theirs {
            found.push(format!("{what}: {ours} here, {theirs} by torch"));
        }
    };
    let theirs = expected["tensors"].as_array().unwrap();
    let names = |names: Vec<&str>| serde_json::Value::from(names);
    let mut sorted: Vec<&str> = foreign.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    sorted.sort_unstable();
    let mut expected_names: Vec<&str> =
        theirs.iter().map(|tensor| tensor["name"].as_str().unwrap()).collect();
    expected_names.sort_unstable();
    differ("names".to_owned(), names(sorted), &names(expected_names));
    for theirs in theirs {
        let name = theirs["name"].as_str().unwrap();
        let Some(listed) = foreign.tensors().iter().find(|tensor| tensor.name == name) else { continue };
        differ(format!("dtype of {name}"), listed.dtype.name().into(), &theirs["dtype"]);
        differ(format!("shape of {name}"), listed.shape.clone().into(), &theirs["shape"]);
        let tied = theirs.get("tied").cloned().unwrap_or_default();
        differ(format!("alias of {name}"), listed.alias_of.clone().into(), &tied);
        let bytes = foreign.tensor(name).map(|tensor| hex(tensor.bytes()));
        differ(
            format!("bytes of {name}"),
            bytes.unwrap_or_else(|error| error.to_string()).into(),
            &theirs["bytes"],
        );
    }
    let records: serde_json::Map<_, _> =
        foreign.records().iter().map(|(name, value)| (name.clone(), neutral(value))).collect();
    differ("records".to_owned(), records.keys().cloned().collect::<Vec<_>>().into(), &{
        let names: Vec<_> = expected["records"].as_object().unwrap().keys().cloned().collect();
        names.into()
    });
    for (name, theirs) in expected["records"].as_object().unwrap() {
        differ(format!("record {name}"), records.get(name).cloned().unwrap_or_default(), theirs);
    }
    let mut lost: Vec<&str> =
        foreign.notes().iter().filter(|note| note.loss).map(|note| note.name.as_str()).collect();
    lost.sort_unstable();
    differ("lost".to_owned(), names(lost), &expected["lost"]);
    found
}

#[test]
fn files_that_torch_loads_are_read_with_the_same_values() {
    let mut wrong = Vec::new();
    let expected = expected();
    assert!(expected.len() >= 17, "{}", expected.len());
    for (file, expected) in &expected {
        match Foreign::open(torch_folder().join(file)) {
            Ok(foreign) => {
                let found = differences(&foreign, expected);
                wrong.extend(found.into_iter().map(|difference| format!("{file}: {difference}")));
                // A checkpoint can hold all of it.
                if let Err(error) =
                    foreign.snapshot().and_then(|snapshot| snapshot.to_bytes(&WriteOptions::new()))
                {
                    wrong.push(format!("{file}: {error}"));
                }
            }
            Err(error) => wrong.push(format!("{file}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}
