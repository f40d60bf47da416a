//! `verify` and `show` on files of the conformance corpus and on files with several faults: what
//! they tell, and by which exit code.

use super::{Run, json, tensorkeep, text};
use serde_json::json;
use std::path::Path;
use test_support::build::{Container, Stored, dtype_id};

fn corpus(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    folder.join(file).display().to_string()
}

/// The exit codes of `verify`, with each flag.
fn codes(path: &str) -> [Option<i32>; 3] {
    [&["verify", path][..], &["verify", "--deep", path], &["verify", "--quick", path]]
        .map(|args| tensorkeep(args).status.code())
}

#[test]
fn verify_tells_of_records_that_no_verb_can_show() {
    let names = std::fs::read_dir(corpus("reject")).unwrap().map(|file| file.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    // Those that cannot be opened are told anyway.
    let opens = |name: &str| tensorkeep::Checkpoint::open(corpus(&format!("reject/{name}"))).is_ok();
    let unreadable = |name: &String| name.starts_with("record-") && !name.contains("unfold") && opens(name);
    let mut seen = 0;
    for name in names.filter(unreadable) {
        let code = if name == "record-unknown-codec.tkeep" { Some(8) } else { Some(4) };
        assert_eq!(codes(&corpus(&format!("reject/{name}"))), [code; 3], "{name}");
        seen += 1;
    }
    assert!(seen >= 14, "only {seen}");
}

#[test]
fn verify_tells_of_either_copy_of_the_index() {
    for (name, codes_expected) in [
        ("index-damaged", [Some(4); 3]),
        ("index-broken", [Some(4); 3]),
        ("mirror-damaged", [Some(4), Some(4), Some(0)]),
        ("mirror-differs", [Some(4), Some(4), Some(0)]),
    ] {
        assert_eq!(codes(&corpus(&format!("valid/{name}.tkeep"))), codes_expected, "{name}");
    }
    let shown = text(&tensorkeep(&["verify", "--quick", &corpus("valid/index-broken.tkeep")]));
    assert!(shown.contains("mirror"), "{shown}");
}

#[test]
fn what_only_a_newer_version_decodes_is_not_called_damaged() {
    for name in ["unknown-codec", "unknown-filter", "unknown-dtype", "unknown-dtype-fill"] {
        let path = corpus(&format!("valid/{name}.tkeep"));
        assert_eq!(codes(&path), [Some(0), Some(8), Some(0)], "{name}");
        let verified = json(&["verify", "--deep", &path, "--json"]);
        let checkpoint = &verified["checkpoints"][0];
        assert_eq!((&verified["ok"], &checkpoint["damage"]), (&json!(true), &json!([])), "{name}");
        assert_eq!(checkpoint["unsupported"][0]["tensor"], "b", "{name}");
    }
}

/// An unsupported tensor, two whose frames are garbage, an infinity, and a record that is none.
pub fn several_faults(run: &Run) -> String {
    let mut container = Container::new();
    let stored = |codec, bytes: Vec<u8>| Stored { codec, filter: 0, bytes };
    container.unreadable("a", dtype_id("f32"), &[4], 16, &[stored(77, vec![1; 15])]);
    container.tensor_in("b", "f32", &[100], &[0; 400], 20, |_| stored(1, vec![9; 50]));
    container.tensor_in("c", "f32", &[100], &[0; 400], 20, |_| stored(1, vec![8; 50]));
    container.tensor("d", "f32", &[2], &[[0; 4], f32::INFINITY.to_le_bytes()].concat());
    container.record("bad", &[0xC1], json!(null)).record("good", &[7], json!(7));
    std::fs::write(run.folder.join("several.tkeep"), container.finish()).unwrap();
    run.path("several.tkeep")
}

#[test]
fn deep_verify_goes_on_behind_the_first_tensor_that_fails() {
    let run = Run::new("deep");
    let path = several_faults(&run);
    let output = tensorkeep(&["verify", "--deep", &path]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(4));
    for told in ["DAMAGED in 3 places", "tensor a", "tensor b", "tensor c", "record bad", "d: 1 NaN or Inf"] {
        assert!(shown.contains(told), "{told} is not in {shown}");
    }
    let shown = text(&tensorkeep(&["verify", &path]));
    assert!(shown.contains("DAMAGED in 1 place\n") && shown.contains("record bad"), "{shown}");
}

#[test]
fn show_shows_the_rest_where_a_record_or_a_tensor_is_bad() {
    let run = Run::new("show-rest");
    let path = several_faults(&run);
    let output = tensorkeep(&["show", "--values", "2", &path]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(4));
    for told in ["4 tensors", "good: 7", "not MessagePack", "damaged", "unsupported", "0, inf"] {
        assert!(shown.contains(told), "{told} is not in {shown}");
    }
    let shown = json(&["show", &path, "--json"]);
    assert_eq!(
        (&shown["records"], shown["tensors"].as_array().map(Vec::len)),
        (&json!({ "good": 7 }), Some(4))
    );
    assert!(
        shown["records_lost"]["bad"]["message"].as_str().is_some_and(|text| text.contains("not MessagePack"))
    );
}

#[test]
fn a_record_that_unfolds_to_gigabytes_is_told_and_not_made() {
    let run = Run::new("unfolds");
    let record = [&[0xDD, 0x03, 0xFF, 0xFF, 0xFB][..], &vec![0x90; (64 << 20) - 5]].concat();
    let mut container = Container::new();
    container.tensor_in("r", "opaque", &[64 << 20], &record, 26, |_| Stored {
        codec: 0,
        filter: 0,
        bytes: record.clone(),
    });
    std::mem::swap(&mut container.tensors, &mut container.records);
    std::fs::write(run.folder.join("unfolds.tkeep"), container.finish()).unwrap();
    let path = run.path("unfolds.tkeep");
    assert_eq!(codes(&path), [Some(0); 3]);
    for args in [&["show", &path][..], &["show", &path, "--json"]] {
        let output = tensorkeep(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output).contains("budget of 268435456"), "{}", text(&output));
    }
}
