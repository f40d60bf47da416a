//! The documents of `--json` against docs/json.md: every key that a verb prints is described there,
//! and every key that is described is printed by one of the verbs run here.

use super::serving::Served;
use super::verifying::several_faults;
use super::{Run, tensorkeep};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tensorkeep::{Dtype, Snapshot, Tensor};

type Keys = BTreeSet<String>;

/// The keys of each schema, by its name.
fn documented() -> BTreeMap<String, Keys> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections = text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    let key = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    sections.map(|(name, body)| (name.to_owned(), body.lines().filter_map(key).collect())).collect()
}

/// Every path in a value. What a document has under a key that is described as free is not looked
/// into.
fn walk(value: &Json, path: &str, described: &Keys, found: &mut Keys) {
    let goes_on = |path: &str| {
        described
            .iter()
            .any(|key| key.starts_with(&format!("{path}.")) || key.starts_with(&format!("{path}[]")))
    };
    match value {
        Json::Object(map) => {
            let free = format!("{path}.*");
            for (key, value) in map {
                let key = if described.contains(&free) || goes_on(&free) {
                    free.clone()
                } else if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let is_container = value.is_object() || value.is_array();
                // A key that only leads on need not be described itself.
                if !(is_container && goes_on(&key) && !described.contains(&key)) {
                    found.insert(key.clone());
                }
                if goes_on(&key) {
                    walk(value, &key, described, found);
                } else if value.is_object() && !is_error(value) && !key.ends_with(".*") && key != "checkpoint"
                {
                    panic!("{key} is an object that is not described: {value}");
                } else if value.as_array().is_some_and(|items| items.iter().any(Json::is_object))
                    && !key.ends_with(".*")
                {
                    panic!("{key} is a list of objects that are not described: {value}");
                }
            }
        }
        Json::Array(items) => {
            let item = format!("{path}[]");
            if described.contains(&item) {
                found.insert(item);
                assert!(items.iter().all(|item| !item.is_object() || is_error(item)), "{path}: {items:?}");
                return;
            }
            items.iter().for_each(|value| walk(value, &item, described, found));
        }
        _ => {}
    }
}

fn is_error(value: &Json) -> bool {
    let keys: Vec<&str> = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys == ["byte", "kind", "message", "tensor"]
}

#[test]
fn every_key_of_every_document_is_described() {
    let documented = documented();
    let mut found: BTreeMap<String, Keys> = BTreeMap::new();
    let mut look_at = |args: &[&str], output: String| {
        for line in output.lines() {
            let mut document: Json =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{args:?}: {output}"));
            let schema = document.as_object_mut().unwrap().remove("schema").unwrap();
            let schema = schema.as_str().unwrap();
            let described =
                documented.get(schema).unwrap_or_else(|| panic!("{schema} is not in docs/json.md"));
            walk(&document, "", described, found.entry(schema.to_owned()).or_default());
        }
        assert!(!output.is_empty(), "{args:?}");
    };
    let run = Run::new("schemas");
    look_at(&["serve"], Served::new(&run.path("run")).line.clone());
    let mut look = |args: &[&str]| {
        let output = tensorkeep(&[args, &["--json"]].concat());
        look_at(args, String::from_utf8(output.stdout).unwrap());
    };
    let bad = Run::new("schemas-bad");
    bad.damage("run/0001-0000000200.tkeep", 4096 + 10);
    let cut = Run::new("schemas-cut");
    let footer = std::fs::metadata(cut.folder.join("run/0001-0000000100.tkeep")).unwrap().len() as usize - 50;
    cut.damage("run/0001-0000000100.tkeep", footer);
    let index = std::fs::metadata(bad.folder.join("file.tkeep")).unwrap().len() as usize - 100;
    bad.damage("file.tkeep", index);
    let faulty = several_faults(&run);
    let (folder, file, at) = (run.path("run"), run.path("file.tkeep"), format!("{}@100", run.path("run")));
    let (bad_folder, out) = (bad.path("run"), |name: &str| run.path(name));
    let (long, wide) = ([1.0_f32; 3], [2.0_f32; 300]);
    let mut other = Snapshot::new()
        .tensor("tied", &long[..])
        .unwrap()
        .tensor("fc.weight", (&[30, 10][..], &wide[..]))
        .unwrap();
    other = other.tensor("new", Tensor::new(Dtype::Opaque, &[1], &[1]).unwrap()).unwrap();
    other.save(run.folder.join("other.tkeep")).unwrap();
    let renamed = br#"{"a\tb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let safetensors = [&(renamed.len() as u64).to_le_bytes()[..], renamed, b"x"].concat();
    std::fs::write(run.folder.join("renamed.safetensors"), safetensors).unwrap();

    look(&["ls", &folder]);
    look(&["ls", &cut.path("run")]);
    look(&["ls", run.folder.to_str().unwrap()]);
    look(&["show", &out("nothing")]);
    look(&["show", &file, "--values", "2"]);
    look(&["show", &faulty, "--values", "2"]);
    look(&["show", &out("renamed.safetensors")]);
    look(&["show", &super::pieces::manifest("lost-shard"), "--pieces"]);
    look(&["stats", &file]);
    look(&["stats", &faulty]);
    look(&["verify", &faulty, "--deep"]);
    look(&["verify", &bad_folder]);
    look(&["verify", &out("renamed.safetensors")]);
    look(&["diff", &at, &out("other.tkeep")]);
    look(&["diff", &faulty, &faulty]);
    look(&["history", &folder, "--tensor", "fc.weight"]);
    look(&["history", &bad_folder, "--tensor", "fc.weight"]);
    look(&["why", &super::auto_run(&run)]);
    look(&["pin", &at]);
    look(&["unpin", &at]);
    look(&["get", &file, "fc.weight[0,0:2]"]);
    look(&["cp", &bad_folder, &out("copy")]);
    look(&["cp", &folder, &out("copy2")]);
    look(&["cp", &folder, &out("copy2")]);
    look(&["repack", &file, "-o", &out("packed.tkeep")]);
    look(&["salvage", &faulty, "-o", &out("saved.tkeep")]);
    look(&["watch", &folder, "--count", "1"]);
    look(&["report", &folder, "-o", &out("report.html")]);
    look(&["export", &file, "-o", &out("out.npz"), "--allow-loss"]);
    look(&["import", &out("renamed.safetensors"), "-o", &out("in.tkeep")]);
    Snapshot::new().tensor("large", &[1e10_f32]).unwrap().save(run.folder.join("large.tkeep")).unwrap();
    look(&["edit", &out("large.tkeep"), "-o", &out("edited.tkeep"), "--cast", "f16"]);
    look(&["edit", &out("renamed.safetensors"), "-o", &out("again.tkeep")]);
    look(&["merge", &out("renamed.safetensors"), &out("renamed.safetensors"), "-o", &out("both.tkeep")]);
    for (name, step) in [("1.tkeep", 1_i64), ("2.tkeep", 2)] {
        let (step, nan) = ([step], [f32::NAN]);
        let snapshot = Snapshot::new().tensor("step", &step).unwrap().tensor("w", &nan).unwrap();
        snapshot.save(run.folder.join(name)).unwrap();
    }
    look(&["merge", &out("1.tkeep"), &out("2.tkeep"), "-o", &out("merged.tkeep")]);
    look(&["doctor", &folder]);
    look(&["gc", &bad_folder, "--keep-last", "1"]);
    look(&["gc", &folder, "--keep-last", "1"]);

    let mut missing = Vec::new();
    for (schema, described) in &documented {
        let none = Keys::new();
        let printed = found.get(schema).unwrap_or(&none);
        missing.extend(
            printed.difference(described).map(|key| format!("{schema}: {key} is printed and not described")),
        );
        missing.extend(
            described.difference(printed).map(|key| format!("{schema}: {key} is described and not printed")),
        );
    }
    // A deletion that fails, and a folder whose resume set something aside, take a fault of the
    // storage.
    missing.retain(|line| {
        !line.contains("not_deleted[].") && !line.contains("ls.v1: checkpoints[].resumed_from")
    });
    assert!(missing.is_empty(), "{missing:#?}");
}
