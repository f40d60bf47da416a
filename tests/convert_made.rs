//! Files of numpy, ml_dtypes, safetensors and gguf, in every dtype and layout
//! (tests/convert/make_formats.py), are read with the same dtypes, shapes and bytes; so are their
//! exports.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use tensorkeep::convert::{self, Foreign, Format};
use tensorkeep::{Checkpoint, ErrorKind, Value, WriteOptions};
use test_support::TempFolder;

fn made(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert/made").join(name)
}

fn expected() -> serde_json::Map<String, Json> {
    let text = std::fs::read(made("expected.json")).unwrap();
    match serde_json::from_slice(&text).unwrap() {
        Json::Object(files) => files,
        other => panic!("{other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file holds these tensors and no others.
fn check(foreign: &Foreign, tensors: &Json, what: &str) {
    let tensors = tensors.as_object().unwrap();
    assert_eq!(foreign.tensors().len(), tensors.len(), "{what}");
    for (name, says) in tensors {
        let found = foreign.tensor(name).unwrap_or_else(|error| panic!("{what}: {error}"));
        let shape: Vec<usize> = serde_json::from_value(says["shape"].clone()).unwrap();
        let found = (found.dtype().name(), found.shape().to_vec(), hex(found.bytes()));
        assert_eq!(
            found,
            (says["dtype"].as_str().unwrap(), shape, says["bytes"].as_str().unwrap().to_owned()),
            "{what}: {name}"
        );
    }
}

#[test]
fn files_of_the_formats_own_libraries_are_read() {
    let expected = expected();
    assert!(expected.len() >= 10, "{}", expected.len());
    for (file, tensors) in &expected {
        let foreign = Foreign::open(made(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        check(&foreign, tensors, file);
        let losses: Vec<_> = foreign.notes().iter().filter(|note| note.loss).collect();
        assert!(losses.is_empty(), "{file}: {losses:?}");
    }
}

#[test]
fn a_checkpoint_made_of_it_holds_the_same() {
    let folder = TempFolder::new("convert-made");
    for file in expected().keys() {
        let foreign = Foreign::open(made(file)).unwrap();
        let path = folder.path().join("imported.tkeep");
        convert::import(&foreign, &path, &WriteOptions::new()).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(convert::differences(&checkpoint, &foreign).unwrap(), Vec::<String>::new(), "{file}");
        assert_eq!(checkpoint.metadata().unwrap(), *foreign.metadata(), "{file}");
    }
}

#[test]
fn safetensors_and_npz_written_from_it_hold_the_same() {
    let folder = TempFolder::new("convert-made");
    for (file, tensors) in &expected() {
        let foreign = Foreign::open(made(file)).unwrap();
        let from = folder.path().join("from.tkeep");
        convert::import(&foreign, &from, &WriteOptions::new()).unwrap();
        let checkpoint = Checkpoint::open(&from).unwrap();
        let (own, other) = match foreign.format() {
            Format::Safetensors => ("own.safetensors", Format::Safetensors),
            Format::Npz => ("own.npz", Format::Npz),
            _ => continue,
        };
        let path = folder.path().join(own);
        let losses = |export: &convert::Export| export.notes.iter().filter(|note| note.loss).count();
        for export in [convert::export(&checkpoint, &path, other), convert::export(&foreign, &path, other)] {
            // NumPy stores one of ml_dtypes' one-byte dtypes, and does not read it back.
            let lost = usize::from(other == Format::Npz && tensors.get("f8e5m2").is_some());
            assert_eq!(losses(&export.unwrap()), lost, "{file}");
            let mut tensors = tensors.clone();
            if lost > 0 {
                tensors["f8e5m2"]["dtype"] = "u8".into();
            }
            check(&Foreign::open(&path).unwrap(), &tensors, file);
        }
    }
}

#[test]
fn opaque_elements_keep_their_description() {
    let npz = Foreign::open(made("everything.npz")).unwrap();
    for (name, descr) in [
        ("text", "'<U2'"),
        ("dates", "'<M8[s]'"),
        ("void", "'|V2'"),
        ("int4", "'<V1'"),
        ("records", "[('shape', '<f4'), ('b', '<i2', (2, 3)), ('c', [('d', '|u1')])]"),
    ] {
        assert_eq!(npz.metadata()[&format!("numpy.descr.{name}")], descr, "{name}");
    }
    let safetensors = Foreign::open(made("everything.safetensors")).unwrap();
    assert_eq!(safetensors.metadata()["safetensors.dtype.f4"], "F4 [2, 8]");
    assert_eq!(safetensors.metadata()["ß"], "模型");
    let gguf = Foreign::open(made("everything.gguf")).unwrap();
    for (kind, elements) in [("NVFP4", 64), ("Q1_0", 128), ("MXFP4", 32), ("TQ1_0", 256), ("Q8_0", 32)] {
        let what = format!("{kind} [2, {elements}]");
        assert_eq!(gguf.metadata()[&format!("gguf.type.t.{kind}")], what);
    }
    let Value::Map(pairs) = &gguf.records()["gguf"] else { panic!() };
    let list = |values: &[i64]| Value::List(values.iter().copied().map(Value::Int).collect());
    assert_eq!(pairs["test.nested"], Value::List(vec![list(&[1, 2]), list(&[3])]));
    assert_eq!(pairs["test.u64"], Value::UInt(u64::MAX));
}

#[test]
fn a_big_endian_gguf_file_is_named_as_such() {
    let error = Foreign::open(made("big_endian.gguf")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("big-endian"), "{error}");
}
