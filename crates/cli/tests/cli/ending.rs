//! How verbs end: exit codes where nobody reads on, where stdout is full, by a signal, and beyond a
//! budget; and errors as JSON.

use super::{Run, json, refused, tensorkeep, text};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::Snapshot;
use test_support::build::{Container, Stored, dtype_id};

const BINARY: &str = env!("CARGO_BIN_EXE_tensorkeep");

#[test]
fn a_reader_that_goes_away_turns_no_answer_into_yes() {
    let run = Run::new("gone");
    run.damage("file.tkeep", 4096 + 10);
    let (file, at) = (run.path("file.tkeep"), format!("{}@100", run.path("run")));
    for (args, code) in [
        (format!("verify {file}"), 4),
        (format!("verify --json {file}"), 4),
        (format!("diff {at} {file}"), 4),
    ] {
        // Nobody reads when it begins to write.
        let line = format!("( sleep 0.2; {BINARY} {args}; echo code $? >&2 ) | true");
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(&format!("code {code}")), "{args}: {told}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_no_success() {
    for args in ["--help", "ls --help", "--version", "--json --help"] {
        let line = format!("{BINARY} {args} > /dev/full");
        let status = Command::new("bash").args(["-c", &line]).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(6), "{args}");
    }
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let run = Run::new("json-errors");
    let nothing = run.path("nothing");
    let of = |args: &[&str]| {
        let output = tensorkeep(args);
        let error: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(error["schema"], "tensorkeep.error.v1");
        assert_eq!(error["exit"], json!(output.status.code()));
        assert!(output.stderr.is_empty(), "{output:?}");
        error
    };
    let error = of(&["--json", "show", &nothing]);
    assert_eq!(
        (&error["kind"], &error["exit"], &error["object"]),
        (&json!("not-found"), &json!(3), &json!(nothing))
    );
    let error = of(&["show", &run.path("file.tkeep"), "--only", "x", "--json"]);
    assert_eq!(error["kind"], "not-found");
    let error = of(&["frobnicate", "--json"]);
    assert_eq!((&error["kind"], &error["exit"]), (&json!("usage"), &json!(2)));
    let error = of(&["--json", "stats", &run.path("run@newest")]);
    assert_eq!((&error["kind"], &error["exit"]), (&json!("invalid"), &json!(2)));
}

#[test]
fn what_unfolds_beyond_the_budget_is_told_by_a_code_of_its_own() {
    let run = Run::new("budget");
    let (file, at) = (run.path("file.tkeep"), format!("{}@100", run.path("run")));
    let folder = run.path("run");
    for args in [
        &["stats", &file][..],
        &["diff", &at, &file],
        &["verify", "--deep", &file],
        &["get", &file, "fc.weight"],
        &["history", &folder, "--tensor", "fc.weight"],
    ] {
        let output = tensorkeep(&[args, &["--budget", "1000"]].concat());
        assert_eq!(output.status.code(), Some(8), "{args:?}: {output:?}");
        assert_eq!(
            tensorkeep(&[args, &["--budget", "1MiB"]].concat()).status.code().map(|code| code == 8),
            Some(false)
        );
    }
    let (_, message) = refused(&["stats", &file, "--budget", "1000"]);
    assert!(message.contains("--budget") && message.contains("1000 B"), "{message}");
    assert_eq!(refused(&["stats", &file, "--budget", "lots"]).0, 2);
}

#[test]
fn a_small_file_that_claims_much_ends_in_words() {
    let run = Run::new("claims");
    let mut container = Container::new();
    let fill = Stored { codec: 2, filter: 0, bytes: vec![0] };
    let (gibibytes, chunks) = (64_u64 << 30, vec![fill; 64 << 10]);
    container.unreadable("a", dtype_id("u8"), &[gibibytes], gibibytes, &chunks);
    let path = run.path("claims.tkeep");
    std::fs::write(&path, container.finish()).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 4 << 20);
    let out = run.path("out.tkeep");
    let started = Instant::now();
    for args in [
        &["stats", &path][..],
        &["verify", "--deep", &path],
        &["diff", &path, &path],
        &["repack", &path, "-o", &out],
        &["salvage", &path, "-o", &out],
    ] {
        let output = tensorkeep(args);
        assert_eq!(output.status.code(), Some(8), "{args:?}: {output:?}");
        let said = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8_lossy(&said).contains("--budget"), "{args:?}");
    }
    assert!(!Path::new(&out).exists());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_budget_decides_what_is_opened_and_written_again() {
    let run = Run::new("foreign-budget");
    // 300 KB of a header that unfold to some megabytes.
    let lists = vec!["[]"; 100_000].join(",");
    let header = format!(r#"{{"__metadata__":{{"tensorkeep.record.r":"[{lists}]"}}}}"#);
    let foreign = run.path("lists.safetensors");
    std::fs::write(&foreign, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let (file, out) = (run.path("file.tkeep"), run.path("out.tkeep"));
    for args in [
        &["show", &foreign][..],
        &["verify", &foreign],
        &["repack", &file, "-o", &out, "--force"],
        &["salvage", &file, "-o", &out, "--force"],
    ] {
        let code = |budget| tensorkeep(&[args, &["--budget", budget]].concat()).status.code();
        assert_eq!(code("1000"), Some(8), "{args:?}");
        assert_eq!(code("64MiB"), Some(0), "{args:?}");
    }
}

/// Files in a folder whose names are hidden ones.
fn hidden(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with('.')).collect()
}

#[test]
fn ctrl_c_leaves_no_hidden_file() {
    let run = Run::new("ctrl-c");
    let mut state = 1_u64;
    let values: Vec<f32> = (0..8 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32
        })
        .collect();
    let snapshot = Snapshot::new().tensor("t", &values).unwrap();
    snapshot.save(run.folder.join("big.tkeep")).unwrap();
    let out = run.folder.join("out");
    std::fs::create_dir(&out).unwrap();
    let (big, foreign) = (run.path("big.tkeep"), run.path("big.safetensors"));
    assert!(tensorkeep(&["export", &big, "-o", &foreign]).status.success());
    for (signal, verb, source, output) in [
        ("INT", "repack", &big, "small.tkeep"),
        ("TERM", "repack", &big, "small.tkeep"),
        ("INT", "import", &foreign, "small.tkeep"),
        ("INT", "export", &big, "out.npz"),
        ("INT", "export", &foreign, "out.safetensors"),
    ] {
        let output = out.join(output);
        let mut args = vec![verb, source, "-o", output.to_str().unwrap()];
        args.extend(["--codec", "max"].iter().filter(|_| verb != "export"));
        let mut child = Command::new(BINARY).args(&args).spawn().unwrap();
        let started = Instant::now();
        while hidden(&out).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_micros(200));
        }
        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        let expected = Some(if signal == "INT" { 2 } else { 15 });
        assert_eq!(status.signal(), expected, "{args:?} ended by the signal: {status:?}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "{args:?}: {:?}", hidden(&out));
    }
}

#[test]
fn paths_that_are_no_text_are_targets_like_others() {
    let run = Run::new("bytes");
    let folder = run.folder.join(OsStr::from_bytes(b"r\xFFn"));
    std::fs::rename(run.folder.join("run"), &folder).unwrap();
    let file = run.folder.join(OsStr::from_bytes(b"f\xFE.tkeep"));
    std::fs::rename(run.folder.join("file.tkeep"), &file).unwrap();
    let with = |verb: &str, path: &Path| Command::new(BINARY).arg(verb).arg(path).output().unwrap();
    for (verb, path) in [
        ("show", &file),
        ("verify", &file),
        ("stats", &file),
        ("ls", &folder),
        ("verify", &folder),
        ("why", &folder),
    ] {
        let output = with(verb, path);
        assert_eq!(output.status.code(), Some(0), "{verb}: {output:?}");
    }
    let mut at = folder.into_os_string();
    at.push("@100");
    assert!(with("show", Path::new(&at)).status.success());
}

#[test]
fn a_folder_of_runs_lists_them_and_of_none_is_not_found() {
    let run = Run::new("runs");
    let parent = run.folder.display().to_string();
    let listed = json(&["ls", &parent, "--json"]);
    assert_eq!(
        (&listed["schema"], &listed["runs"][0]["name"]),
        (&json!("tensorkeep.runs.v1"), &json!("run"))
    );
    assert_eq!(
        (&listed["runs"][0]["checkpoints"], &listed["runs"][0]["newest"]),
        (&json!(2), &json!("0001-0000000200"))
    );
    let shown = text(&tensorkeep(&["ls", &parent]));
    assert!(shown.contains("run ") && shown.contains("200"), "{shown}");
    let empty = run.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let page = run.path("page.html");
    for folder in [&parent, &empty] {
        for args in [
            &["show", folder][..],
            &["history", folder],
            &["verify", folder],
            &["why", folder],
            &["pin", folder],
            &["gc", folder, "--keep-last", "1"],
            &["watch", folder, "--count", "1"],
            &["cp", folder, &page],
        ] {
            let (code, message) = refused(args);
            assert_eq!(code, 3, "{args:?}: {message}");
            assert!(folder == &empty || message.contains("it holds 1 run: run"), "{args:?}: {message}");
        }
    }
    assert_eq!(refused(&["ls", &empty]).0, 3);
    assert_eq!(refused(&["report", &empty, "-o", &page]).0, 3);
    assert!(!Path::new(&page).exists());
    assert!(tensorkeep(&["report", &parent, "-o", &page]).status.success());
    assert!(Path::new(&page).exists());
}
