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
        ["fc.weight", "f32", "[30, 10]", "= fc.weight", "optimizer", "[\"adam\",0.001]", "step 200"]
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
