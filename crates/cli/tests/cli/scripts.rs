//! What scripts rely on: exit codes, messages on stderr, and JSON with a schema's name.

use super::{Run, json, refused, tensorkeep, text};
use serde_json::Value as Json;
use std::path::Path;

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
        (["ls", &path("file.tkeep")], 2, "tensorkeep show"),
        (["history", &path("file.tkeep")], 2, "tensorkeep show"),
        (["watch", &path("file.tkeep")], 2, "tensorkeep show"),
        (["why", &path("file.tkeep")], 2, "tensorkeep show"),
        (["show", &path("no-run")], 3, "is no run"),
        (["verify", &path("no-run")], 3, "is no run"),
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

/// CRC-32 as in zip, bit by bit: the tests must not share the library's own.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
