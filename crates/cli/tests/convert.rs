//! `import` and `export` between any two formats, by the output's extension: an output is compared
//! before it is published, a failure leaves the old file, and a source that cannot be converted is
//! named by its format.

#[path = "common/files.rs"]
mod files;

use files::{Folder, json, made, tensorkeep};
use std::path::Path;
use std::process::Command;
use tensorkeep::Snapshot;

/// Exit code and what was said.
fn told(args: &[&str]) -> (i32, String) {
    let output = tensorkeep(args);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn names_in(folder: &Folder) -> Vec<String> {
    let names = std::fs::read_dir(&folder.0).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn one_line_converts_any_format_into_any_that_is_written() {
    let folder = Folder::new("any");
    for (source, output, format) in [
        ("state_dict.pt", "a.safetensors", "safetensors"),
        ("one.safetensors", "b.npz", "npz"),
        ("model.safetensors.index.json", "c.safetensors", "safetensors"),
        ("f32.npy", "d.npz", "npz"),
        ("stored.npz", "e.safetensors", "safetensors"),
        ("model.gguf", "f.npz", "npz"),
    ] {
        for verb in ["import", "export"] {
            let (from, to) = (made(source), folder.path(output));
            let (code, said) = told(&[verb, &from, "-o", &to, "--force", "--allow-loss"]);
            assert_eq!(code, 0, "{verb} {source}: {said}");
            assert_eq!(json(&["show", &to, "--json"])["format"], format, "{verb} {source}");
            let compared = json(&["diff", &from, &to, "--json"]);
            let tensors = json(&["show", &from, "--json"])["tensors"].as_array().unwrap().len();
            assert!(tensors > 0 && compared["schema"] == "tensorkeep.diff.v1", "{compared}");
        }
    }
    let own = folder.path("g.tkeep");
    assert_eq!(told(&["export", &made("state_dict.pt"), "-o", &own]).0, 0);
    assert_eq!(told(&["verify", &own]).0, 0);
    assert_eq!(told(&["import", &own, "-o", &folder.path("h.safetensors")]).0, 0);
}

#[test]
fn what_is_not_converted_is_told_as_what_it_is() {
    let folder = Folder::new("told");
    let own = folder.path("own.tkeep");
    assert_eq!(told(&["import", &made("f32.npy"), "-o", &own]).0, 0);
    let (_, said) = told(&["import", &own, "-o", &folder.path("again.tkeep")]);
    assert!(said.contains("a tensorkeep checkpoint already") && said.contains("repack"), "{said}");
    for extension in ["pt", "gguf", "bin", "onnx"] {
        let out = folder.path(&format!("out.{extension}"));
        let (code, said) = told(&["import", &made("f32.npy"), "-o", &out]);
        assert!(code != 0 && said.contains("safetensors"), "{extension}: {code}: {said}");
    }
    for verb in ["repack", "salvage"] {
        let (code, said) = told(&[verb, &made("state_dict.pt"), "-o", &folder.path("out.tkeep")]);
        assert!(code == 4 && said.contains("tensorkeep import"), "{verb}: {code}: {said}");
    }
    let (code, said) = told(&["cp", &made("one.safetensors"), &folder.path("out.tkeep")]);
    assert!(code == 4 && said.contains("tensorkeep import"), "cp: {code}: {said}");
    let lfs = folder.path("lfs.safetensors");
    std::fs::write(&lfs, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
    let (code, said) = told(&["export", &lfs, "-o", &folder.path("out.npz")]);
    assert!(code == 4 && said.contains("git-lfs") && said.contains("GGUF"), "{code}: {said}");
    assert_eq!(names_in(&folder), ["lfs.safetensors", "own.tkeep"]);
}

#[test]
fn nothing_to_carry_over_is_no_success_and_leaves_no_file() {
    let folder = Folder::new("nothing");
    let empty = folder.path("empty.safetensors");
    std::fs::write(&empty, [&2_u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    for out in ["out.tkeep", "out.npz", "out.safetensors"] {
        let (code, said) = told(&["import", &empty, "-o", &folder.path(out), "--allow-loss"]);
        assert!(code == 1 && said.contains("no tensor"), "{out}: {code}: {said}");
    }
    // Records alone are something, where they have a place.
    let records = folder.path("records.tkeep");
    let snapshot = Snapshot::new().record("lr", &0.1).unwrap();
    snapshot.save(&records).unwrap();
    assert_eq!(told(&["export", &records, "-o", &folder.path("records.safetensors")]).0, 0);
    assert_eq!(names_in(&folder), ["empty.safetensors", "records.safetensors", "records.tkeep"]);
}

#[test]
fn a_failure_leaves_what_was_there_also_with_force() {
    let folder = Folder::new("failure");
    let damaged = folder.path("damaged.npz");
    let mut bytes = std::fs::read(made("deflated.npz")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 200..middle].fill(0xA5);
    std::fs::write(&damaged, bytes).unwrap();
    for out in ["out.tkeep", "out.safetensors", "out.npz"] {
        let out = folder.path(out);
        assert_ne!(told(&["import", &damaged, "-o", &out]).0, 0);
        assert!(!Path::new(&out).exists());
        std::fs::write(&out, b"mine").unwrap();
        let (code, said) = told(&["import", &damaged, "-o", &out, "--force"]);
        assert_eq!(code, 4, "{said}");
        assert_eq!(std::fs::read(&out).unwrap(), b"mine");
    }
    assert_eq!(names_in(&folder), ["damaged.npz", "out.npz", "out.safetensors", "out.tkeep"]);
}

/// A safetensors file of this header.
fn safetensors(folder: &Folder, name: &str, header: &str, bytes: &[u8]) -> String {
    let path = folder.path(name);
    let len = (header.len() as u64).to_le_bytes();
    std::fs::write(&path, [&len[..], header.as_bytes(), bytes].concat()).unwrap();
    path
}

/// A safetensors file of one tensor.
fn one_tensor(folder: &Folder, name: &str, dtype: &str, shape: &str, bytes: &[u8]) -> String {
    let len = bytes.len();
    let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{len}]}}}}"#);
    safetensors(folder, name, &header, bytes)
}

#[test]
fn every_verb_says_what_was_lost() {
    let folder = Folder::new("lost");
    let object = made("with_object.pt");
    let out = folder.path("out.tkeep");
    let (code, said) = told(&["edit", &object, "-o", &out, "--force"]);
    assert!(code == 1 && said.contains("lost: object: "), "{code}: {said}");
    let edited = json(&["edit", &object, "-o", &out, "--force", "--json"]);
    assert_eq!((&edited["lost"], &edited["notes"][0]["loss"]), (&1.into(), &true.into()));
    let output = tensorkeep(&["verify", &object]);
    let verified = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(0) && verified.contains("lost: object: "), "{verified}");
    let page = folder.path("page.html");
    let (code, said) = told(&["report", &object, "-o", &page]);
    assert!(code == 0 && said.contains("object: "), "{code}: {said}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("Not in here"));
    // One part of two, by its name.
    let part = one_tensor(&folder, "m-00001-of-00002.safetensors", "F32", "[1]", &[0; 4]);
    let whole = one_tensor(&folder, "m.safetensors", "F32", "[1]", &[0; 4]);
    let (code, said) = told(&["merge", &part, &whole, "-o", &out, "--force"]);
    assert!(code == 1 && said.contains("part 1 of 2"), "{code}: {said}");
    assert_eq!(told(&["merge", &whole, &whole, "-o", &out, "--force"]).0, 0);
}

#[test]
fn what_bytes_mean_goes_with_their_tensor() {
    let folder = Folder::new("meaning");
    let header = r#"{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]},"b":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[3,6]},"f":{"dtype":"F4","shape":[2,2],"data_offsets":[6,8]}}"#;
    let source = safetensors(&folder, "x.safetensors", header, b"abcdefgh");
    let (edited, exported) = (folder.path("edited.tkeep"), folder.path("y.safetensors"));
    let rename = ["--drop", "a", "--rename", "^b$=>a", "--rename", "^f$=>g"];
    assert_eq!(told(&[&["edit", &source, "-o", &edited], &rename[..]].concat()).0, 0);
    let (code, said) = told(&["export", &edited, "-o", &exported]);
    assert_eq!(code, 0, "{said}");
    let text = String::from_utf8_lossy(&std::fs::read(&exported).unwrap()).into_owned();
    for part in [r#""a":{"data_offsets":[0,3],"dtype":"F6_E3M2""#, r#""dtype":"F4","shape":[2,2]"#] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("safetensors.dtype"), "{text}");
    // A description that the other format has no place for follows, too.
    let npy = folder.path("text.npy");
    let header = "{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }";
    let bytes =
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), b"a\0\0\0"];
    std::fs::write(&npy, bytes.concat()).unwrap();
    let args = ["export", &npy, "-o", &exported, "--force", "--allow-loss", "--rename", "array=text"];
    assert_eq!(told(&args).0, 0);
    let shown = json(&["show", &exported, "--json"]);
    assert_eq!(shown["records"]["metadata"], serde_json::json!({ "numpy.descr.text": "'<U1'" }));
}

#[test]
fn bytes_that_mean_something_else_are_not_equal() {
    let folder = Folder::new("means");
    let pair = |left: (&str, &str), right: (&str, &str), bytes: &[u8]| {
        let side = |name: &str, (dtype, shape)| one_tensor(&folder, name, dtype, shape, bytes);
        let files = [side("l.safetensors", left), side("r.safetensors", right)];
        let own = files.each_ref().map(|file| file.replace(".safetensors", ".tkeep"));
        for (file, own) in files.iter().zip(&own) {
            assert_eq!(told(&["import", file, "-o", own, "--force"]).0, 0);
        }
        [files, own].map(|[left, right]| json(&["diff", &left, &right, "--json"])["tensors"][0].clone())
    };
    for verdict in pair(("F6_E2M3", "[4]"), ("F6_E3M2", "[4]"), b"abc") {
        assert_eq!(verdict["verdict"], "incompatible", "{verdict}");
        assert_eq!(verdict["what"], "F6_E2M3 [4] | F6_E3M2 [4]");
    }
    for verdict in pair(("F4", "[2,8]"), ("F4", "[4,4]"), b"abcdefgh") {
        assert_eq!(verdict["verdict"], "incompatible", "{verdict}");
    }
    for verdict in pair(("F4", "[4,4]"), ("F4", "[4,4]"), b"abcdefgh") {
        assert_eq!(verdict["verdict"], "equal", "{verdict}");
    }
    // By their records: the scales of quantised integers.
    let (left, right) = (folder.path("q.tkeep"), folder.path("p.tkeep"));
    for (path, scale) in [(&left, 0.5), (&right, 0.25)] {
        let scale = std::collections::BTreeMap::from([("scale", scale)]);
        let record = std::collections::BTreeMap::from([("fc.w", scale)]);
        let snapshot =
            Snapshot::new().tensor("net.fc.w", &[1_u8, 2]).unwrap().record("net", &record).unwrap();
        snapshot.save(path).unwrap();
    }
    assert_eq!(json(&["diff", &left, &left, "--json"])["tensors"][0]["verdict"], "equal");
    let verdict = json(&["diff", &left, &right, "--json"])["tensors"][0].clone();
    assert_eq!((&verdict["verdict"], &verdict["what"]), (&"incompatible".into(), &"scale 0.5 | 0.25".into()));
}

#[test]
fn a_file_is_named_after_what_is_in_it() {
    let folder = Folder::new("named");
    let (source, own) = (made("f32.npy"), folder.path("own.tkeep"));
    assert_eq!(told(&["import", &source, "-o", &own]).0, 0);
    for args in [
        &["import", &source, "-o", "-"][..],
        &["export", &own, "-o", "-"],
        &["edit", &own, "-o", &folder.path("x.bin")],
        &["edit", &own, "-o", &folder.path("x.NPZ")],
        &["repack", &own, "-o", &folder.path("x.safetensors")],
        &["repack", &own, "-o", "-"],
        &["salvage", &own, "-o", &folder.path("x.pt")],
        &["get", &own, "array", "-o", &folder.path("x.safetensors")],
        &["get", &own, "array", "-o", &folder.path("x.npz")],
        &["get", &own, "array", "-o", &folder.path("x.tkeep")],
    ] {
        let (code, said) = told(args);
        assert!(code == 2 && said.contains("error: "), "{args:?}: {code}: {said}");
    }
    assert!(!Path::new("-").exists());
    let upper = folder.path("x.SAFETENSORS");
    assert_eq!(told(&["import", &source, "-o", &upper]).0, 0);
    assert_eq!(json(&["show", &upper, "--json"])["format"], "safetensors");
    assert_eq!(names_in(&folder), ["own.tkeep", "x.SAFETENSORS"]);
    // Files of a distributed checkpoint are told as such, also without the list of their parts.
    std::fs::create_dir(folder.path("dcp")).unwrap();
    std::fs::write(folder.path("dcp/__0_0.distcp"), b"PK").unwrap();
    let (code, said) = told(&["show", &folder.path("dcp")]);
    assert!(code == 4 && said.contains(".metadata"), "{code}: {said}");
}

#[test]
fn an_odd_bool_costs_no_other_tensor() {
    let folder = Folder::new("bool");
    let header = r#"{"m":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},"w":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}"#;
    let source = safetensors(&folder, "x.safetensors", header, &[0, 1, 2, 7]);
    let (code, said) = told(&["import", &source, "-o", &folder.path("x.tkeep")]);
    assert!(code == 1 && said.contains("lost: m: "), "{code}: {said}");
    for out in ["y.tkeep", "y.npz", "y.safetensors"] {
        let out = folder.path(out);
        assert_eq!(told(&["export", &source, "-o", &out, "--allow-loss"]).0, 0);
        let values = |name: &str| json(&["get", &out, name, "--json"])["values"].clone();
        assert_eq!((values("m"), values("w")), (serde_json::json!([0, 1, 2]), serde_json::json!([7])));
    }
    assert_eq!(told(&["verify", &source]).0, 0);
}

#[test]
fn progress_of_a_later_version_stays_as_text() {
    let folder = Folder::new("progress");
    let progress = |more: &str| {
        let header = format!(
            r#"{{"__metadata__":{{"tensorkeep.record.tensorkeep.progress":"{{\"step\":3,\"epoch\":1{more}}}"}},"w":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#
        );
        let source = safetensors(&folder, "x.safetensors", &header, &[1]);
        let own = folder.path("x.tkeep");
        assert_eq!(told(&["import", &source, "-o", &own, "--force"]).0, 0);
        json(&["show", &own, "--json"])["records"].clone()
    };
    assert_eq!(progress("")["tensorkeep.progress"]["step"], 3);
    let records = progress(r#",\"zz\":9"#);
    assert!(records["tensorkeep.progress"].is_null(), "{records}");
    assert!(records["tensorkeep.metadata"].to_string().contains("zz"), "{records}");
}

#[test]
fn a_size_cuts_a_model_into_shards() {
    let folder = Folder::new("shards");
    let (source, out) = (made("state_dict.pt"), folder.path("model.safetensors"));
    let whole = json(&["export", &source, "-o", &out, "--max-shard-size", "5GB", "--json"]);
    assert_eq!((&whole["output"], whole["files"].as_array().unwrap().len()), (&out.as_str().into(), 1));
    let cut = json(&["export", &source, "-o", &out, "--max-shard-size", "100B", "--force", "--json"]);
    let files = cut["files"].as_array().unwrap();
    assert!(files.len() > 2 && cut["output"] == folder.path("model.safetensors.index.json"), "{cut}");
    assert!(!Path::new(&out).exists(), "loaders would take the old file for the new shards");
    assert_eq!(json(&["diff", &source, cut["output"].as_str().unwrap(), "--json"])["same"], true);
    let (code, said) =
        told(&["export", &source, "-o", &folder.path("m.safetensors"), "--max-shard-size", "100B"]);
    assert_eq!(code, 0, "{said}");
    let again = told(&["export", &source, "-o", &folder.path("m.safetensors"), "--max-shard-size", "100B"]);
    assert_eq!(again.0, 1, "shards that exist are not replaced: {}", again.1);
    for (out, size) in
        [("x.safetensors", "many"), ("x.safetensors", "0"), ("x.npz", "5GB"), ("x.tkeep", "5GB")]
    {
        assert_eq!(
            told(&["export", &source, "-o", &folder.path(out), "--max-shard-size", size]).0,
            2,
            "{out} {size}"
        );
    }
}

#[test]
fn what_is_not_known_of_a_dtype_is_said_whole() {
    let folder = Folder::new("whole");
    let file = folder.path("record.npy");
    let header = "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (0,), }";
    let bytes = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(&file, bytes).unwrap();
    let (_, said) = told(&["import", &file, "-o", &folder.path("out.tkeep")]);
    assert!(said.contains("[('a', '<f4'), ('b', '|O')]"), "{said}");
}

#[test]
fn the_formats_own_libraries_read_what_is_exported() {
    let python = std::env::var("TENSORKEEP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let run = |args: &[&str]| Command::new(&python).args(args).output();
    if !run(&["-c", "import numpy, safetensors"]).is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no numpy and safetensors; TENSORKEEP_PYTHON names one that has");
        return;
    }
    let folder = Folder::new("judge");
    for name in ["everything.safetensors", "everything.npz", "split-00002-of-00003.gguf"] {
        let (own, source) = (folder.path("own.tkeep"), made(&format!("made/{name}")));
        assert_eq!(told(&["import", &source, "-o", &own, "--force"]).0, 0, "{name}");
        let [one, npz] = ["one.safetensors", "arrays.npz"].map(|out| folder.path(out));
        for (out, size) in [(&one, "5GB"), (&folder.path("cut.safetensors"), "20B")] {
            let args = ["export", &own, "-o", out, "--max-shard-size", size, "--force", "--allow-loss"];
            assert_eq!(told(&args).0, 0, "{name} {out}");
        }
        assert_eq!(told(&["export", &own, "-o", &npz, "--force", "--allow-loss"]).0, 0, "{name}");
        let index = folder.path("cut.safetensors.index.json");
        let judge =
            run(&["-W", "ignore", &made("judge.py"), &made("made/expected.json"), name, &one, &index, &npz]);
        let judge = judge.unwrap();
        assert!(judge.status.success(), "{name}: {}", String::from_utf8_lossy(&judge.stderr));
    }
}

#[test]
fn some_tensors_are_exported_under_other_names() {
    let folder = Folder::new("only");
    let values = [1.0_f32, 2.0];
    let snapshot = Snapshot::new()
        .tensor("model/module.fc.weight", &values[..])
        .and_then(|snapshot| snapshot.tensor("model/module.fc.bias", &values[..1]))
        .and_then(|snapshot| snapshot.tensor("optimizer/step", &values[..1]))
        .unwrap();
    let (source, out) = (folder.path("a.tkeep"), folder.path("out.safetensors"));
    snapshot.save(&source).unwrap();
    let names = |args: &[&str]| {
        let (code, said) = told(&[&["export", &source, "-o", &out, "--force"], args].concat());
        assert_eq!(code, 0, "{args:?}: {said}");
        let shown = json(&["show", &out, "--json"]);
        let names =
            shown["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&["--only", "model/*", "--strip-prefix", "model/module."]), ["fc.bias", "fc.weight"]);
    assert_eq!(names(&["--only", "*weight", "--rename", "model/module.=net."]), ["net.fc.weight"],);
    assert_eq!(
        names(&["--strip-prefix", "model/"]),
        ["module.fc.bias", "module.fc.weight", "optimizer/step"]
    );
    for (args, expected, word) in [
        (&["--only", "modle/*"][..], 3, "no tensor"),
        (&["--strip-prefix", "module."], 3, "begins with"),
        (&["--rename", "model/module.fc.weight=x", "--rename", "optimizer/step=x"], 2, "would be named"),
        (&["--rename", "x"], 2, "OLD=NEW"),
    ] {
        let before = std::fs::read(&out).unwrap();
        let (code, said) = told(&[&["export", &source, "-o", &out, "--force"], args].concat());
        assert!(code == expected && said.contains(word), "{args:?}: {code}: {said}");
        assert!(std::fs::read(&out).unwrap() == before, "{args:?} replaced the file");
    }
    let own = folder.path("own.tkeep");
    let (code, said) = told(&["import", &out, "-o", &own, "--only", "*"]);
    assert!(code == 2 && said.contains("--only"), "{code}: {said}");
}
