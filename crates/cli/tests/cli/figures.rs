//! Figures: right, or not there. Integers to the last digit, NaN as NaN, a part of a tensor without
//! the rest, and one line for what cannot be read.

use super::{Run, json, refused, tensorkeep, text};
use serde_json::{Value as Json, json};
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Dtype, Progress, Snapshot, Store, StoreOptions, Tensor, WriteOptions};

fn save(run: &Run, name: &str, tensor: Tensor<'_>) -> String {
    let snapshot = Snapshot::new().tensor("t", tensor).unwrap();
    snapshot.save_with(run.folder.join(name), &WriteOptions::new().chunk_log2(16)).unwrap();
    run.path(name)
}

fn diff(args: &[&str]) -> (Option<i32>, Json) {
    let output = tensorkeep(&[&["diff", "--json"][..], args].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn integers_beyond_2_to_53_differ_at_tolerance_0() {
    let run = Run::new("integers");
    let (a, b) = ([1_i64 << 53, 1 << 62], [(1_i64 << 53) + 1, (1 << 62) + 255]);
    let a = save(&run, "a", Tensor::from_elements(&[2], &a).unwrap());
    let b = save(&run, "b", Tensor::from_elements(&[2], &b).unwrap());
    let (code, found) = diff(&[&a, &b, "--rtol", "0", "--atol", "0"]);
    assert_eq!((code, &found["tensors"][0]["verdict"]), (Some(1), &json!("differ")));
    assert_eq!((&found["tensors"][0]["max"], &found["tensors"][0]["max_at"]), (&json!(255), &json!(1)));
    assert_eq!(found["tensors"][0]["beyond_tolerance"], 2);
    // The default tolerance is a relative one, and they are close by it.
    assert_eq!(diff(&[&a, &b]).0, Some(0));
    let (a, b) = ([u64::MAX], [u64::MAX - 600]);
    let a = save(&run, "a", Tensor::from_elements(&[1], &a).unwrap());
    let b = save(&run, "b", Tensor::from_elements(&[1], &b).unwrap());
    let (code, found) = diff(&[&a, &b, "--rtol", "0", "--atol", "0"]);
    assert_eq!((code, &found["tensors"][0]["max"]), (Some(1), &json!(600)));
}

#[test]
fn a_tolerance_that_is_no_number_is_refused() {
    let run = Run::new("tolerance");
    let file = run.path("file.tkeep");
    for wrong in ["nan", "inf", "-1"] {
        let (code, message) = refused(&["diff", &file, &file, "--rtol", wrong]);
        assert!(code == 2 && message.contains("tolerance"), "{code} {message}");
    }
}

#[test]
fn a_nan_beside_numbers_is_shown_as_what_it_is() {
    let run = Run::new("diff-nan");
    let finite = save(&run, "a", Tensor::from_elements(&[4], &[1.0_f32, 2.0, 3.0, 4.0]).unwrap());
    let nan = save(&run, "b", Tensor::from_elements(&[4], &[f32::NAN; 4]).unwrap());
    let (code, found) = diff(&[&finite, &nan]);
    assert_eq!(code, Some(1));
    for figure in ["max", "relative_l2", "cosine"] {
        assert_eq!(found["tensors"][0][figure], "NaN", "{figure}");
    }
}

#[test]
fn f32_and_bf16_are_compared_after_widening() {
    let run = Run::new("widened");
    let values: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 * 1e-3).collect();
    let halves: Vec<half::bf16> = values.iter().map(|&value| half::bf16::from_f32(value)).collect();
    let a = save(&run, "a", Tensor::from_elements(&[1000], &values).unwrap());
    let b = save(&run, "b", Tensor::from_elements(&[1000], &halves).unwrap());
    let (code, found) = diff(&[&a, &b]);
    assert_eq!((code, &found["tensors"][0]["widened"]), (Some(1), &json!("f32 | bf16")));
    assert_eq!(diff(&[&a, &b, "--rtol", "1e-2"]).0, Some(0));
    let shown = text(&tensorkeep(&["diff", &a, &b, "--rtol", "1e-2"]));
    assert!(shown.contains("1 close") && shown.contains("f32 | bf16"), "{shown}");
}

/// A run of three steps: finite, NaN, and another shape.
fn changing(run: &Run) -> String {
    let store =
        Store::open(Local::create(run.folder.join("changing")).unwrap(), StoreOptions::new()).unwrap();
    let of: [(u64, Vec<f32>); 4] =
        [(1, vec![1.0; 2]), (2, vec![1.0; 2]), (3, vec![f32::NAN; 2]), (4, vec![1.0; 3])];
    for (step, values) in &of {
        let opaque = [*step as u8 / 2];
        let mut snapshot = Snapshot::new().tensor("w", values).unwrap();
        snapshot = snapshot.tensor("o", Tensor::new(Dtype::Opaque, &[1], &opaque).unwrap()).unwrap();
        snapshot = snapshot.progress(Progress::new(*step));
        store.save(&snapshot).unwrap();
    }
    run.path("changing")
}

#[test]
fn history_says_nan_and_shapes_and_never_zero_for_a_change() {
    let run = Run::new("history-nan");
    let folder = changing(&run);
    let shown = json(&["history", &folder, "--tensor", "w", "--json"]);
    let tensor = |i: usize| shown["checkpoints"][i]["tensor"].clone();
    assert_eq!((&tensor(1)["change"], &tensor(1)["verdict"]), (&json!(0.0), &json!("equal")));
    assert_eq!((&tensor(2)["change"], &tensor(2)["mean"]), (&json!("NaN"), &Json::Null));
    assert_eq!((&tensor(3)["change"], &tensor(3)["verdict"]), (&Json::Null, &json!("incompatible")));
    let lines = text(&tensorkeep(&["history", &folder, "--tensor", "w"]));
    assert!(lines.contains("f32 [2] → f32 [3]") && lines.contains("NaN"), "{lines}");
    let opaque = text(&tensorkeep(&["history", &folder, "--tensor", "o"]));
    assert_eq!(opaque.matches("differ").count(), 2, "{opaque}");
}

#[test]
fn history_shows_the_other_checkpoints_where_one_is_damaged() {
    let run = Run::new("history-damage");
    run.damage("run/0001-0000000200.tkeep", 4096 + 10);
    let folder = run.path("run");
    let output = tensorkeep(&["history", &folder, "--tensor", "fc.weight"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(shown.contains("1.5") && shown.contains("damaged"), "{shown}");
    assert!(shown.contains("loss") && shown.contains("0.25 to 0.5"), "{shown}");
}

#[test]
fn stats_and_diff_show_the_rest_where_a_tensor_is_damaged() {
    let run = Run::new("stats-damage");
    let (a, b) = (vec![1.0_f32; 5000], vec![2.0_f32; 5000]);
    for name in ["good.tkeep", "bad.tkeep"] {
        let snapshot =
            Snapshot::new().tensor("a", &a).unwrap().tensor("b", &b).unwrap().alias("c", "b").unwrap();
        snapshot.save(run.folder.join(name)).unwrap();
    }
    run.damage("bad.tkeep", 4096 + 100);
    let (good, bad) = (run.path("good.tkeep"), run.path("bad.tkeep"));
    let output = tensorkeep(&["stats", &bad]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(4));
    assert!(shown.contains("damaged") && shown.contains("= b"), "{shown}");
    assert_eq!(shown.lines().count(), 5, "{shown}");
    let stats: Json = serde_json::from_slice(&tensorkeep(&["stats", &bad, "--json"]).stdout).unwrap();
    assert_eq!(
        (&stats["tensors"][0]["error"]["kind"], &stats["tensors"][1]["mean"]),
        (&json!("damaged"), &json!(2.0))
    );
    assert_eq!(stats["tensors"][2]["alias_of"], "b");
    let (code, found) = diff(&[&good, &bad]);
    assert_eq!(
        (code, &found["tensors"][0]["verdict"], &found["tensors"][1]["verdict"]),
        (Some(4), &json!("damaged"), &json!("equal"))
    );
    assert_eq!(found["same"], false);
}

#[test]
fn a_filter_that_matches_nothing_says_what_was_meant() {
    let run = Run::new("filter");
    let file = run.path("file.tkeep");
    for verb in ["show", "stats"] {
        let (code, message) = refused(&[verb, &file, "--only", "fc.wieght"]);
        assert!(code == 3 && message.contains("did you mean \"fc.weight\"?"), "{verb}: {code} {message}");
    }
    let (code, message) = refused(&["show", &file, "--only", "weight"]);
    assert!(code == 3 && message.contains("did you mean \"*weight*\"?"), "{message}");
    Snapshot::new()
        .tensor("model/fc1.weight", &[1.0_f32])
        .unwrap()
        .save(run.folder.join("model.tkeep"))
        .unwrap();
    let (code, message) = refused(&["get", &run.path("model.tkeep"), "fc1"]);
    assert!(code == 3 && message.contains("did you mean \"model/fc1.weight\"?"), "{message}");
    assert_eq!(refused(&["diff", &file, &file, "--only", "nothing*"]).0, 3);
    let tied = text(&tensorkeep(&["stats", &file, "--only", "tied"]));
    assert!(tied.contains("= fc.weight"), "{tied}");
}

#[test]
fn show_lists_names_that_differ_in_a_dot_and_a_slash() {
    let run = Run::new("joints");
    let (one, two) = ([1.0_f32], [2.0_f32]);
    let snapshot = Snapshot::new().tensor("a.b", &one[..]).unwrap().tensor("a/b", &two[..]).unwrap();
    snapshot.save(run.folder.join("joints.tkeep")).unwrap();
    let shown = text(&tensorkeep(&["show", &run.path("joints.tkeep")]));
    assert!(shown.contains(".b") && shown.contains("/b") && shown.contains("50.0 %"), "{shown}");
}

#[test]
fn a_slice_is_read_beside_damage_and_from_names_with_brackets() {
    let run = Run::new("slices");
    let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let snapshot = Snapshot::new().tensor("w[0]", (&[1000, 100][..], &values[..])).unwrap();
    snapshot.save_with(run.folder.join("s.tkeep"), &WriteOptions::new().chunk_log2(16)).unwrap();
    let file = run.path("s.tkeep");
    // The third of seven chunks.
    run.damage("s.tkeep", 4096 + (2 << 16) + 5);
    let got = text(&tensorkeep(&["get", &file, "w[0][0,3:5]"]));
    assert_eq!(got.trim(), "[3. 4.]");
    assert_eq!(text(&tensorkeep(&["get", &file, "w[0][-1,-1]"])).trim(), "99999.0");
    let (code, message) = refused(&["get", &file, "w[0][400]"]);
    assert!(code == 4 && message.contains("w[0]"), "{message}");
    // Only the corners are printed, and they are whole.
    let corners = tensorkeep(&["get", &file, "w[0]"]);
    assert_eq!((corners.status.code(), text(&corners).lines().count()), (Some(0), 7));
    let last = "9.9997e+04 9.9998e+04 9.9999e+04]]";
    assert!(text(&corners).trim_end().ends_with(last), "{corners:?}");
    assert_eq!(refused(&["get", &file, "w[0]", "-o", &run.path("all.npy")]).0, 4);
}

#[test]
fn slices_are_numpys_beyond_the_end_by_steps_and_by_dots() {
    let run = Run::new("numpys");
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let file = save(&run, "t.tkeep", Tensor::from_elements(&[2, 3, 4], &values).unwrap());
    let got = json(&["get", &file, "t[...,1:99:2]", "--json"]);
    assert_eq!(got["shape"], json!([2, 3, 2]));
    let odd: Vec<u32> = (0..24).filter(|value| value % 2 == 1).collect();
    assert_eq!(got["values"], json!(odd));
    let (code, message) = refused(&["get", &file, "t[::-1]"]);
    assert!(code == 2 && message.contains("a step backwards is not supported"), "{message}");
    assert_eq!(refused(&["get", &file, "t[9]"]).0, 2, "an index has no end to be cut to");
}

#[test]
fn no_more_is_read_than_what_is_printed() {
    let run = Run::new("corners-only");
    let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let file = save(&run, "t.tkeep", Tensor::from_elements(&[1000, 100], &values).unwrap());
    let get = |flags: &[&str]| tensorkeep(&[&["get", &file, "t", "--budget", "1KiB"], flags].concat());
    assert!(get(&[]).status.success(), "36 values");
    assert_eq!(get(&["--json"]).status.code(), Some(8), "1,000 of them");
}

#[test]
fn slices_of_foreign_files_are_those_of_their_tensors() {
    let run = Run::new("foreign-slices");
    let values: Vec<f32> = (0..600_000).map(|i| i as f32).collect();
    let file = save(&run, "t.tkeep", Tensor::from_elements(&[600, 1000], &values).unwrap());
    let foreign = run.path("t.safetensors");
    assert!(tensorkeep(&["export", &file, "-o", &foreign]).status.success());
    for slice in ["t[599,998:1000]", "t[::300,5::501]", "t[:,0]", "t[262:264,140:150]", "t[-1,-1]"] {
        let of = |path: &str| text(&tensorkeep(&["get", path, slice]));
        assert!(!of(&file).is_empty() && of(&file) == of(&foreign), "{slice}");
    }
}

#[test]
fn values_go_to_stdout_as_npy_and_to_txt_as_text() {
    let run = Run::new("outputs");
    let file = save(&run, "t.tkeep", Tensor::from_elements(&[2], &[1.5_f64, 5e-324]).unwrap());
    let npy = tensorkeep(&["get", &file, "t", "-o", "-"]);
    assert!(
        npy.stdout.starts_with(b"\x93NUMPY") && npy.stdout.ends_with(&5e-324_f64.to_le_bytes()),
        "{npy:?}"
    );
    assert!(!Path::new("-").exists());
    assert!(tensorkeep(&["get", &file, "t", "-o", &run.path("t.txt")]).status.success());
    assert_eq!(std::fs::read_to_string(run.folder.join("t.txt")).unwrap(), "1.5\n5e-324\n");
    let page = tensorkeep(&["report", &run.path("run"), "-o", "-"]);
    assert!(page.stdout.starts_with(b"<!DOCTYPE html>") && page.status.success());
    assert_eq!(tensorkeep(&["--json", "get", &file, "t", "-o", "-"]).status.code(), Some(2));
}

#[test]
fn truth_values_that_are_none_are_damage_where_they_are_viewed() {
    let run = Run::new("bools");
    let file = save(&run, "b.tkeep", Tensor::new(Dtype::Bool, &[3], &[0, 1, 2]).unwrap());
    for args in [
        &["get", &file, "t"][..],
        &["verify", "--deep", &file],
        &["stats", &file],
        &["show", "--values", "3", &file],
    ] {
        let output = tensorkeep(args);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {output:?}");
    }
    assert_eq!(tensorkeep(&["verify", &file]).status.code(), Some(0), "its bytes are as they were written");
}
