//! The conformance corpus: one small file per rule of SPEC.md, and a manifest that another
//! implementation can run. The files were made by `regenerate_the_corpus` from the cases beside it,
//! without the library's writer, and are never made again.

#[path = "corpus/cases/accepted.rs"]
mod accepted;
#[path = "corpus/cases/edges.rs"]
mod edges;
#[path = "corpus/cases/floats.rs"]
mod floats;
#[path = "corpus/cases/ranks.rs"]
mod ranks;
#[path = "corpus/cases/refused/mod.rs"]
mod refused;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tensorkeep::{Checkpoint, Dtype, Error, ErrorKind, OpenOptions};
use test_support::{build, open_with};

/// One file of the corpus.
pub struct Case {
    /// Path within `tests/corpus`.
    pub file: String,
    /// Tags of SPEC.md.
    pub rules: Vec<&'static str>,
    /// `ok`, or the kind of the error.
    pub expect: &'static str,
    /// Where an error shows: `open`, `read` or `verify`. A file whose tensors are all readable can
    /// fail at `verify`.
    pub at: &'static str,
    /// One sentence.
    pub what: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
    /// The files beside it, by their path within its folder.
    pub beside: BTreeMap<String, Vec<u8>>,
    /// Further facts of the manifest: tensors, records, budget, mirror_used, bug.
    pub facts: Value,
}

impl Case {
    /// The same case, with a further fact.
    pub fn with(mut self, fact: &str, value: impl Into<Value>) -> Self {
        self.facts[fact] = value.into();
        self
    }

    fn manifest_entry(&self) -> Value {
        let mut entry =
            json!({ "file": self.file, "rules": self.rules, "expect": self.expect, "what": self.what });
        if !self.at.is_empty() {
            entry["at"] = self.at.into();
        }
        for (fact, value) in self.facts.as_object().into_iter().flatten() {
            entry[fact] = value.clone();
        }
        entry
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn cases() -> Vec<Case> {
    let first = accepted::cases().into_iter().chain(refused::cases());
    // Later cases are appended, so that the manifest only grows.
    first.chain(floats::cases()).chain(edges::cases()).chain(ranks::cases()).collect()
}

fn manifest() -> Vec<Value> {
    serde_json::from_slice(&fs::read(folder().join("manifest.json")).unwrap()).unwrap()
}

#[test]
#[ignore = "writes into the source tree: run by hand after adding a case"]
fn regenerate_the_corpus() {
    let cases = cases();
    for case in &cases {
        let path = folder().join(&case.file);
        let beside = case.beside.iter().map(|(key, bytes)| (path.with_file_name(key), bytes));
        for (path, bytes) in beside.chain([(path.clone(), &case.bytes)]) {
            if path.exists() {
                let there = fs::read(&path).unwrap();
                assert!(there == *bytes, "{}: a file of the corpus never changes", path.display());
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    }
    let lines: Vec<String> = cases.iter().map(|case| case.manifest_entry().to_string()).collect();
    fs::write(folder().join("manifest.json"), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
}

#[test]
fn the_manifest_lists_every_file_once_and_matches_the_cases() {
    let listed: Vec<String> =
        manifest().iter().map(|entry| entry["file"].as_str().unwrap().to_owned()).collect();
    let mut there = BTreeSet::new();
    for part in ["valid", "reject"] {
        for file in fs::read_dir(folder().join(part)).unwrap() {
            there.insert(format!("{part}/{}", file.unwrap().file_name().to_str().unwrap()));
        }
    }
    for case in fs::read_dir(folder().join("ranks")).unwrap() {
        there.insert(format!("ranks/{}/manifest.tkeep", case.unwrap().file_name().to_str().unwrap()));
    }
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), there);
    assert_eq!(listed.len(), there.len(), "a file stands twice in the manifest");
    for (case, entry) in cases().iter().zip(manifest()) {
        assert_eq!(case.manifest_entry(), entry, "run regenerate_the_corpus");
    }
}

/// The first error and where it showed; or the difference from the manifest.
type Outcome = Result<Option<(&'static str, Error)>, String>;

fn bytes_of(entry: &Value) -> Vec<u8> {
    fs::read(folder().join(entry["file"].as_str().unwrap())).unwrap()
}

/// Opens a file: by its path where others lie beside it, else from memory.
fn opened(entry: &Value, mapped: bool, options: OpenOptions) -> tensorkeep::Result<Checkpoint> {
    let file = entry["file"].as_str().unwrap();
    if !file.starts_with("ranks/") {
        return open_with(&bytes_of(entry), mapped, options);
    }
    #[expect(unsafe_code, reason = "nothing writes to the corpus while its tests run")]
    // SAFETY: see above.
    let promise = unsafe { tensorkeep::engine::MmapPromise::assume_unchanged() };
    let path = folder().join(file);
    if mapped { options.map(path, promise) } else { options.open(path) }
}

/// Opens a file, reads everything that it lists, and verifies it.
fn run(entry: &Value, mapped: bool) -> Outcome {
    let budget = entry["budget"].as_u64().unwrap_or(u64::MAX);
    let checkpoint = match opened(entry, mapped, OpenOptions::new().budget(budget)) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Ok(Some(("open", error))),
    };
    if checkpoint.inspect().index_damage().is_some() != (entry["mirror_used"] == true) {
        return Err(format!("index damage: {:?}", checkpoint.inspect().index_damage()));
    }
    let mut first = None;
    if let Some(expected) = entry["tensors"].as_object() {
        let listed: BTreeSet<&str> = checkpoint.names().collect();
        if listed != expected.keys().map(String::as_str).collect() {
            return Err(format!("names are {listed:?}"));
        }
    }
    for info in checkpoint.tensors() {
        let expected = &entry["tensors"][info.name];
        if let Some(error) = compare_tensor(&checkpoint, info.name, expected)? {
            first.get_or_insert(error);
        }
    }
    for name in checkpoint.records() {
        match (checkpoint.inspect().record_value(name), entry["records"].get(name)) {
            (Ok(found), Some(expected)) if as_json(&found) != *expected => {
                return Err(format!("record {name}: {found}"));
            }
            (Ok(_), _) => {}
            (Err(error), _) => {
                first.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first {
        return Ok(Some(("read", error)));
    }
    Ok(checkpoint.verify().err().map(|error| ("verify", error)))
}

/// A record as in the manifest: bytes are lists of numbers, and values without a JSON number are
/// text.
fn as_json(value: &tensorkeep::Value) -> Value {
    use tensorkeep::Value as Record;
    match value {
        Record::Null => Value::Null,
        Record::Bool(value) => json!(value),
        Record::Int(value) => json!(value),
        Record::UInt(value) => json!(value),
        Record::Float(value) if !value.is_finite() => json!(value.to_string()),
        Record::Float(value) => json!(value),
        Record::Text(value) => json!(value),
        Record::Bytes(value) => json!(value),
        Record::List(values) => values.iter().map(as_json).collect(),
        Record::Map(values) => values.iter().map(|(key, value)| (key.clone(), as_json(value))).collect(),
        Record::Pairs(values) => {
            values.iter().map(|(key, value)| json!([as_json(key), as_json(value)])).collect()
        }
    }
}

/// An error that the manifest does not list for this one tensor, or `Err` with the difference.
fn compare_tensor(checkpoint: &Checkpoint, name: &str, expected: &Value) -> Result<Option<Error>, String> {
    let shape = checkpoint.info(name).unwrap().shape;
    if expected.get("shape").is_some_and(|expected| *expected != json!(shape)) {
        return Err(format!("tensor {name}: shape {shape:?}"));
    }
    let tensor = match checkpoint.tensor(name) {
        Ok(tensor) => tensor,
        Err(error) if expected["error"] == error.kind().as_str() => {
            // Listed for one tensor. In a file that is refused it is the file's subject.
            return Ok(Some(error).filter(|error| error.kind().as_str() == "damaged"));
        }
        Err(error) => return Ok(Some(error)),
    };
    if tensor.dtype() == Dtype::Bool
        && let Err(error) = tensor.elements::<bool>()
    {
        return Ok(Some(error));
    }
    let found = json!({ "dtype": tensor.dtype().name(), "shape": shape, "crc32": build::hex32(build::crc32(tensor.bytes())) });
    if expected.is_null() || *expected == found {
        return Ok(None);
    }
    Err(format!("tensor {name}: expected {expected}, found {found}"))
}

/// The difference between the manifest and the library's result.
fn differs(entry: &Value) -> Option<String> {
    let (expect, at) = (entry["expect"].as_str().unwrap(), entry["at"].as_str());
    for mapped in [false, true] {
        // A budget limits copies; mapped bytes are not copied.
        if mapped && entry.get("budget").is_some() {
            continue;
        }
        let outcome = run(entry, mapped);
        let as_expected = match (&outcome, at) {
            (Ok(None), None) => expect == "ok",
            (Ok(Some((place, error))), Some(at)) => {
                // A valid file with one damaged copy of the index is readable and fails to verify.
                let kind = if expect == "ok" { "damaged" } else { expect };
                *place == at && error.kind().as_str() == kind
            }
            _ => false,
        };
        if !as_expected {
            return Some(format!("{}: expected {expect} at {at:?}, got {outcome:?}", entry["file"]));
        }
    }
    None
}

#[test]
fn the_corpus_is_read_or_refused_as_its_manifest_says() {
    let mut wrong = Vec::new();
    for entry in manifest() {
        match (differs(&entry), entry["bug"].as_str()) {
            (Some(difference), None) => wrong.push(difference),
            (None, Some(bug)) => wrong.push(format!("{}: fixed, take the mark away: {bug}", entry["file"])),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_lost_shard_is_told_by_its_tensors_and_its_path() {
    // [R166] [R168]
    let open = |case: &str| Checkpoint::open(folder().join(format!("ranks/{case}/manifest.tkeep"))).unwrap();
    let lost = open("lost-shard");
    let error = lost.tensor("tied.rows").unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("tied.rows")));
    assert!(error.object().unwrap().ends_with("shards/1/0001-0000000007-1-5b7711e0-r00001.tkeep"), "{error}");
    let report = lost.inspect().verify_all().unwrap();
    let told: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("permuted, rows") && told[0].contains("rank 1"), "{told:?}");
    let whole = open("whole").verify().unwrap();
    assert!(whole.tensors == 7 && report.byte_len < whole.byte_len && whole.chunks == 14, "{whole:?}");
    let part = open("part-elsewhere").verify().unwrap_err();
    assert!(part.tensor() == Some("permuted") && part.to_string().contains("[2:4]"), "{part}");
}

#[test]
fn a_cut_or_flipped_file_of_the_corpus_is_never_a_panic() {
    for entry in manifest() {
        let bytes = bytes_of(&entry);
        let step = (bytes.len() / 97).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x80;
            for damaged in [&bytes[..at], &flipped] {
                // [R111] a value or an error, nothing else
                if let Ok(checkpoint) = open_with(damaged, true, OpenOptions::new()) {
                    for name in checkpoint.names() {
                        drop(checkpoint.tensor(name));
                    }
                    let _ = checkpoint.verify();
                }
            }
        }
    }
}

#[test]
fn verifying_sees_every_record_that_cannot_be_read() {
    // [R142] [R144]
    let mut seen = 0;
    for entry in manifest() {
        let Ok(checkpoint) = opened(&entry, false, OpenOptions::new()) else { continue };
        let report = checkpoint.inspect().verify_all().unwrap();
        let damaged: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
        let unsupported: Vec<String> = report.unsupported.iter().map(ToString::to_string).collect();
        for name in checkpoint.records() {
            let Err(error) = checkpoint.inspect().record_value(name) else { continue };
            let told = if error.kind() == ErrorKind::Damaged { &damaged } else { &unsupported };
            assert!(told.contains(&error.to_string()), "{}: {error}\n{report:?}", entry["file"]);
            assert_eq!(checkpoint.inspect().verify_record(name).unwrap_err().to_string(), error.to_string());
            seen += 1;
        }
    }
    assert!(seen >= 14, "only {seen} records");
}
