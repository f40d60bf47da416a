//! The command line as scripts and people use it: what it prints, its JSON, its exit codes, and every bad input.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tensorkeep::engine::Local;
use tensorkeep::{Progress, Settings, Snapshot, Store};

struct Run {
    folder: PathBuf,
}

impl Run {
    /// Steps 100 and 200 with a loss that is best at 100, and a file beside them.
    fn new(name: &str) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let folder = std::env::temp_dir().join(format!("tensorkeep-cli-{name}-{nonce:032x}"));
        let store = Store::open(Local::create(folder.join("run")).unwrap(), Settings::new()).unwrap();
        let weights = [1.5_f32; 300];
        for (step, loss) in [(100, 0.25), (200, 0.5)] {
            let mut snapshot = Snapshot::new();
            snapshot
                .tensor("fc.weight", (&[30, 10][..], &weights[..]))
                .unwrap()
                .tie("tied", "fc.weight")
                .unwrap();
            snapshot.record("optimizer", &("adam", 0.001)).unwrap().metric("loss", loss).unwrap();
            snapshot.progress(Progress::new(step).epoch(step / 100));
            store.save(&snapshot).unwrap();
            snapshot.save(folder.join("file.tkeep")).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Flips one bit of a file, which may be read-only.
    fn damage(&self, name: &str, byte: usize) {
        let path = self.folder.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[byte] ^= 4;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn tensorkeep(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tensorkeep")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Json {
    let output = tensorkeep(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The exit code, with nothing on stdout and a message without a trace on stderr.
fn refused(args: &[&str]) -> (i32, String) {
    let output = tensorkeep(args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{args:?} printed data: {:?}", String::from_utf8_lossy(&output.stdout));
    assert!(message.starts_with("error: ") && !message.contains("panicked"), "{message}");
    (output.status.code().unwrap(), message)
}

#[test]
fn ls_lists_a_run_and_marks_what_a_resume_would_use() {
    let run = Run::new("ls");
    let output = tensorkeep(&["ls", &run.path("run")]);
    let lines: Vec<String> = text(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].contains("→ 200") && lines[2].contains("loss 0.50000"), "{lines:?}");
    let listed = json(&["ls", &run.path("run"), "--json"]);
    assert_eq!(listed["schema"], "tensorkeep.ls.v1");
    assert_eq!(listed["resumes_from"], "0001-0000000200");
    assert_eq!(listed["checkpoints"][0]["metrics"]["loss"], 0.25);
    assert_eq!(listed["checkpoints"][0]["epoch"], 1);
}

#[test]
fn a_damaged_checkpoint_is_listed_as_such_and_not_resumed_from() {
    let run = Run::new("ls-damaged");
    run.damage("run/0001-0000000200.tkeep", 5);
    let listed = json(&["--json", "ls", &run.path("run")]);
    assert_eq!(listed["checkpoints"][1]["state"], "damaged");
    assert_eq!(listed["resumes_from"], "0001-0000000100");
}

#[test]
fn show_shows_tensors_and_records_of_files_and_of_every_selector() {
    let run = Run::new("show");
    let shown = text(&tensorkeep(&["show", &run.path("file.tkeep")]));
    for expected in
        ["fc.weight", "f32", "[30, 10]", "= fc.weight", "optimizer", "[\"adam\", 0.001]", "step 200"]
    {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    for (selector, step) in [
        ("", 200),
        ("@latest", 200),
        ("@100", 100),
        ("@0001-0000000100", 100),
        ("@best:loss:min", 100),
        ("@best:loss:max", 200),
    ] {
        let shown = json(&["show", &format!("{}{selector}", run.path("run")), "--json"]);
        assert_eq!(shown["records"]["tensorkeep.progress"]["step"], step, "{selector}");
        assert_eq!(shown["tensors"][1]["alias_of"], "fc.weight");
    }
}

#[test]
fn verify_says_yes_by_0_and_no_by_4_with_every_damaged_place() {
    let run = Run::new("verify");
    let output = tensorkeep(&["verify", &run.path("run")]);
    assert_eq!((output.status.code(), text(&output).lines().count()), (Some(0), 2));
    run.damage("run/0001-0000000100.tkeep", 4096 + 10);
    let output = tensorkeep(&["verify", &run.path("run")]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output).contains("tensor fc.weight"), "{}", text(&output));
    assert_eq!(tensorkeep(&["verify", &format!("{}@200", run.path("run"))]).status.code(), Some(0));
    let verified = json(&["verify", &format!("{}@100", run.path("run")), "--json"]);
    assert_eq!(
        (&verified["ok"], &verified["checkpoints"][0]["damage"][0]["tensor"]),
        (&Json::Bool(false), &"fc.weight".into())
    );
}

#[test]
fn every_bad_input_has_its_exit_code_and_a_message_that_helps() {
    let run = Run::new("bad");
    let path = |name: &str| run.path(name);
    let write = |name: &str, bytes: &[u8]| std::fs::write(run.folder.join(name), bytes).unwrap();
    let whole = std::fs::read(run.folder.join("file.tkeep")).unwrap();
    write("empty", b"");
    write("cut", &whole[..whole.len() - 100]);
    write("foreign", b"PK\x03\x04 something else entirely");
    let mut newer = whole;
    newer[8] = 9;
    let crc = crc32(&newer[..4092]);
    newer[4092..4096].copy_from_slice(&crc.to_le_bytes());
    write("newer", &newer);
    std::fs::create_dir(run.folder.join("no-run")).unwrap();
    for (args, code, words) in [
        (["show", &path("nothing")], 3, "no such file or run"),
        (["ls", &path("nothing")], 3, "no such folder"),
        (["show", &path("no-run")], 3, "no checkpoints"),
        (["verify", &path("no-run")], 3, "no checkpoints"),
        (["show", &path("run@150")], 3, "[100, 200]"),
        (["show", &path("run@best:acc:max")], 3, "acc"),
        (["show", &path("run@newest")], 2, "selects no checkpoint"),
        (["show", &path("file.tkeep@100")], 2, "no steps"),
        (["show", &path("empty")], 4, "empty"),
        (["show", &path("cut")], 4, "cut"),
        (["show", &path("foreign")], 4, "foreign"),
        (["show", &path("newer")], 7, "update"),
    ] {
        let (found, message) = refused(&args);
        assert_eq!(found, code, "{args:?}: {message}");
        assert!(message.contains(words), "{args:?}: {words:?} is not in {message}");
    }
    assert_eq!(tensorkeep(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(tensorkeep(&["verify", &path("newer")]).status.code(), Some(7));
    assert_eq!(tensorkeep(&["verify", &path("foreign")]).status.code(), Some(4));
}

#[test]
fn every_verb_has_json_with_a_schema_name() {
    let run = Run::new("json");
    let (folder, file) = (run.path("run"), run.path("file.tkeep"));
    let at = format!("{folder}@100");
    let out = |name: &str| run.path(name);
    let verbs: &[(&str, &[&str])] = &[
        ("ls", &["ls", &folder]),
        ("show", &["show", &file, "--values", "2"]),
        ("stats", &["stats", &file]),
        ("verify", &["verify", &file, "--deep"]),
        ("verify", &["verify", &file, "--quick"]),
        ("diff", &["diff", &at, &file]),
        ("history", &["history", &folder, "--tensor", "fc.weight"]),
        ("why", &["why", &at]),
        ("gc", &["gc", &folder, "--dry-run", "--keep-last", "1"]),
        ("pin", &["pin", &at]),
        ("unpin", &["unpin", &at]),
        ("get", &["get", &file, "fc.weight[0,0:2]"]),
        ("cp", &["cp", &folder, &out("copy")]),
        ("repack", &["repack", &file, "-o", &out("packed.tkeep")]),
        ("salvage", &["salvage", &file, "-o", &out("saved.tkeep")]),
        ("watch", &["watch", &at[..at.len() - 4], "--count", "1"]),
        ("report", &["report", &folder, "-o", &out("report.html")]),
        ("export", &["export", &file, "-o", &out("out.safetensors")]),
        ("import", &["import", &out("out.safetensors"), "-o", &out("in.tkeep")]),
    ];
    for (schema, args) in verbs {
        let output = tensorkeep(&[args, &["--json"][..]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        let first = text(&output).lines().next().unwrap().to_owned();
        let document: Json =
            serde_json::from_str(&first).unwrap_or_else(|error| panic!("{args:?}: {error}: {first}"));
        assert_eq!(document["schema"], format!("tensorkeep.{schema}.v1"), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    let doctor = json(&["doctor", &run.path("run"), "--json"]);
    assert_eq!(doctor["schema"], "tensorkeep.doctor.v1");
    assert!(
        !Path::new(&run.path("run")).read_dir().unwrap().any(|entry| entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("doctor"))
    );
}

#[test]
fn stats_and_deep_verify_find_nan_and_where_it_is() {
    let run = Run::new("nan");
    let mut weights = vec![0.5_f32; 700_000];
    (weights[600_001], weights[650_000], weights[3]) = (f32::NAN, f32::INFINITY, 0.0);
    let mut snapshot = Snapshot::new();
    snapshot.tensor("a", &[1.0_f32, 2.0, 4.0][..]).unwrap().tensor("b", &weights).unwrap();
    snapshot.save(run.folder.join("nan.tkeep")).unwrap();
    let stats = json(&["stats", &run.path("nan.tkeep"), "--json"]);
    let (bad, good) = (&stats["tensors"][0], &stats["tensors"][1]);
    assert_eq!(
        (&bad["name"], &bad["nans"], &bad["infs"], &bad["zeros"]),
        (&"b".into(), &1.into(), &1.into(), &1.into())
    );
    assert_eq!((&bad["first_bad"], &bad["min"], &bad["max"]), (&600_001.into(), &0.0.into(), &0.5.into()));
    assert_eq!((&good["min"], &good["max"]), (&1.0.into(), &4.0.into()));
    assert!((good["mean"].as_f64().unwrap() - 7.0 / 3.0).abs() < 1e-6);
    assert!((good["norm"].as_f64().unwrap() - 21_f64.sqrt()).abs() < 1e-6);
    let output = tensorkeep(&["verify", "--deep", &run.path("nan.tkeep")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("b: 2 NaN or Inf, the first at 600001"), "{output:?}");
    assert_eq!(tensorkeep(&["verify", &run.path("nan.tkeep")]).status.code(), Some(0));
}

#[test]
fn diff_tells_equal_close_far_and_missing_apart() {
    let run = Run::new("diff");
    let save = |name: &str, tensors: &[(&str, &[f32])], lr: f64| {
        let mut snapshot = Snapshot::new();
        tensors.iter().for_each(|(name, values)| drop(snapshot.tensor(*name, *values).map(drop)));
        snapshot.record("adam", &std::collections::BTreeMap::from([("lr", lr)])).unwrap();
        snapshot.save(run.folder.join(name)).unwrap();
    };
    let near = 1.0_f32.next_up();
    save(
        "a",
        &[
            ("equal", &[1.0, 2.0]),
            ("close", &[1.0, 2.0]),
            ("far", &[1.0, 2.0]),
            ("left", &[1.0]),
            ("shape", &[1.0]),
        ],
        0.1,
    );
    save(
        "b",
        &[
            ("equal", &[1.0, 2.0]),
            ("close", &[near, 2.0]),
            ("far", &[1.0, 5.0]),
            ("right", &[1.0]),
            ("shape", &[1.0, 2.0]),
        ],
        0.2,
    );
    let output = tensorkeep(&["diff", &run.path("a"), &run.path("b"), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let diff: Json = serde_json::from_slice(&output.stdout).unwrap();
    let verdict = |name: &str| {
        diff["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == name).unwrap().clone()
    };
    for (name, expected) in [
        ("equal", "equal"),
        ("close", "close"),
        ("far", "differ"),
        ("left", "only left"),
        ("right", "only right"),
        ("shape", "incompatible"),
    ] {
        assert_eq!(verdict(name)["verdict"], expected, "{name}");
    }
    assert_eq!(
        (&verdict("far")["max"], &verdict("far")["max_at"], &verdict("close")["ulp"]),
        (&3.0.into(), &1.into(), &1.into())
    );
    assert_eq!(
        (&diff["records"][0]["path"], &diff["records"][0]["right"]),
        (&"adam.lr".into(), &"0.2".into())
    );
    assert_eq!(
        tensorkeep(&["diff", &run.path("a"), &run.path("b"), "--only", "equal"]).status.code(),
        Some(0)
    );
    assert_eq!(tensorkeep(&["diff", &run.path("a"), &run.path("a")]).status.code(), Some(0));
}

#[test]
fn gc_says_what_would_go_and_deletes_it_under_the_lock() {
    let run = Run::new("gc");
    let folder = run.path("run");
    let gc = ["gc", &folder, "--keep-last", "1"];
    let dry = text(&tensorkeep(&[&gc[..], &["--dry-run"]].concat()));
    assert!(dry.contains("would delete 0001-0000000100"), "{dry}");
    assert_eq!(json(&["ls", &folder, "--json"])["checkpoints"].as_array().unwrap().len(), 2);
    assert!(tensorkeep(&["pin", &format!("{folder}@100")]).status.success());
    assert_eq!(json(&[&gc[..], &["--json"]].concat())["deleted"], serde_json::json!([]));
    assert!(tensorkeep(&["unpin", &format!("{folder}@100")]).status.success());
    let writer = Store::open(Local::create(run.folder.join("run")).unwrap(), Settings::new()).unwrap();
    assert_eq!(refused(&gc).0, 5);
    drop(writer);
    assert!(tensorkeep(&gc).status.success());
    assert_eq!(json(&["ls", &folder, "--json"])["checkpoints"].as_array().unwrap().len(), 1);
    let why = text(&tensorkeep(&["why", &folder]));
    assert!(why.contains("kept: ") && why.contains("resume: chooses it"), "{why}");
    assert_eq!(refused(&["gc", &folder, "--keep-best", "loss"]).0, 2);
}

#[test]
fn why_says_what_resume_passes_over() {
    let run = Run::new("why");
    run.damage("run/0001-0000000200.tkeep", 4096 + 10);
    let why = text(&tensorkeep(&["why", &format!("{}@100", run.path("run"))]));
    assert!(why.contains("resume: chooses it; newer ones do not verify: 0001-0000000200"), "{why}");
}

#[test]
fn outputs_that_exist_are_refused_and_untouched_unless_forced() {
    let run = Run::new("exists");
    let (file, out) = (run.path("file.tkeep"), run.path("taken"));
    let folder = run.path("run");
    std::fs::write(run.folder.join("taken.npy"), b"mine").unwrap();
    std::fs::write(run.folder.join("taken"), b"mine").unwrap();
    std::fs::write(run.folder.join("taken.npz"), b"mine").unwrap();
    let (npy, npz) = (run.path("taken.npy"), run.path("taken.npz"));
    for args in [
        &["get", &file, "fc.weight", "-o", &npy][..],
        &["repack", &file, "-o", &out],
        &["salvage", &file, "-o", &out],
        &["report", &folder, "-o", &out],
        &["export", &file, "-o", &npz],
        &["import", &npz, "-o", &out],
        &["cp", &file, &out],
    ] {
        let (code, message) = refused(args);
        assert_eq!(code, 1, "{args:?}: {message}");
        assert!(message.contains("--force"), "{message}");
    }
    for name in ["taken", "taken.npy", "taken.npz"] {
        assert_eq!(std::fs::read(run.folder.join(name)).unwrap(), b"mine");
    }
    assert!(tensorkeep(&["get", &file, "fc.weight[1:3]", "-o", &npy, "--force"]).status.success());
    let shown = json(&["show", &npy, "--json"]);
    assert_eq!(
        (&shown["format"], &shown["tensors"][0]["shape"]),
        (&"npy".into(), &serde_json::json!([2, 10]))
    );
    assert_eq!(refused(&["repack", &file, "-o", &run.path("no/such/folder")]).0, 3);
}

#[test]
fn a_damaged_file_gives_its_intact_tensors() {
    let run = Run::new("salvage");
    let (first, second) = (vec![1.0_f32; 5000], vec![2.0_f32; 5000]);
    let mut snapshot = Snapshot::new();
    snapshot.tensor("a", &first).unwrap().tensor("b", &second).unwrap();
    snapshot.save(run.folder.join("d.tkeep")).unwrap();
    run.damage("d.tkeep", 4096 + 100);
    let output = tensorkeep(&["salvage", &run.path("d.tkeep"), "-o", &run.path("s.tkeep"), "--json"]);
    let saved: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &saved["tensors"]), (Some(1), &1.into()));
    assert!(saved["lost"][0].as_str().unwrap().contains("tensor a"));
    assert_eq!(tensorkeep(&["verify", &run.path("s.tkeep")]).status.code(), Some(0));
    assert_eq!(refused(&["repack", &run.path("d.tkeep"), "-o", &run.path("r.tkeep")]).0, 4);
    assert!(!run.folder.join("r.tkeep").exists());
}

#[test]
fn what_is_lost_by_an_export_is_listed_and_the_answer_is_no_unless_allowed() {
    let run = Run::new("loss");
    let (file, out) = (run.path("file.tkeep"), run.path("out.npz"));
    let output = tensorkeep(&["export", &file, "-o", &out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lost: optimizer: "), "{output:?}");
    let output = tensorkeep(&["export", &file, "-o", &out, "--force", "--allow-loss"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&["diff", &file, &out, "--json"])["same"], true);
    assert_eq!(refused(&["export", &file, "-o", &run.path("x.bin")]).0, 2);
    assert_eq!(refused(&["import", &file, "-o", &run.path("y.tkeep")]).0, 4);
}

#[test]
fn a_terminal_of_40_columns_gets_lines_of_40() {
    let run = Run::new("narrow");
    for args in
        [["ls", &run.path("run")], ["show", &run.path("file.tkeep")], ["stats", &run.path("file.tkeep")]]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tensorkeep")).args(args).env("COLUMNS", "40").output().unwrap();
        assert!(output.status.success());
        let table: Vec<String> = text(&output).lines().skip(4).take(3).map(str::to_owned).collect();
        assert!(table.iter().all(|line| line.chars().count() <= 40), "{args:?}: {table:?}");
    }
}

#[test]
fn in_40_columns_states_and_nan_are_still_seen() {
    let run = Run::new("narrow-state");
    run.damage("run/0001-0000000200.tkeep", 5);
    let values = [1.0, f32::NAN, 2.0];
    let mut snapshot = Snapshot::new();
    snapshot.tensor("decoder.layers.31.mlp.experts.7.down_proj.weight", &values[..]).unwrap();
    snapshot.save(run.folder.join("nan.tkeep")).unwrap();
    for (args, word) in [(["ls", &run.path("run")], "damaged"), (["stats", &run.path("nan.tkeep")], "1/0")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
        let output = command.args(args).env("COLUMNS", "40").output().unwrap();
        assert!(text(&output).contains(word), "{args:?}: {}", text(&output));
        assert!(text(&output).lines().all(|line| line.chars().count() <= 40), "{}", text(&output));
    }
}

#[test]
fn completions_and_the_man_page_name_every_verb() {
    for (args, word) in
        [(&["completions", "bash"][..], "salvage"), (&["man"], "tensorkeep"), (&["man"], "REPACK")]
    {
        let output = tensorkeep(args);
        assert!(output.status.success() && text(&output).contains(word), "{args:?}");
    }
}

#[test]
fn nothing_is_coloured_when_it_is_not_read_by_a_terminal() {
    let run = Run::new("colour");
    run.damage("run/0001-0000000200.tkeep", 5);
    for args in [["ls", &run.path("run")], ["show", &run.path("file.tkeep")]] {
        assert!(!tensorkeep(&args).stdout.contains(&0x1b), "{args:?}");
    }
}

#[test]
fn a_pipe_that_closes_early_is_no_error() {
    let run = Run::new("pipe");
    let command = format!("{} show {} | head -n 1", env!("CARGO_BIN_EXE_tensorkeep"), run.path("file.tkeep"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &command]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn listing_beside_a_writer_takes_no_lock() {
    let run = Run::new("beside");
    let _writer = Store::open(Local::create(run.folder.join("run")).unwrap(), Settings::new()).unwrap();
    assert!(tensorkeep(&["ls", &run.path("run")]).status.success());
    assert!(Path::new(&run.path("run")).join("LOCK").is_file());
}

/// CRC-32 as in zip, bit by bit: the tests must not share the library's own.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
