//! `edit` and `merge`: what they make of checkpoints and foreign files, and what they refuse.

use super::{Run, json, refused, tensorkeep, text};
use tensorkeep::{Checkpoint, Dtype, Progress, Snapshot};

/// A file of a wrapped module, with an optimizer beside it.
fn wrapped(run: &Run, name: &str, scale: f32) -> String {
    let (weight, bias) = ([1.0 * scale, 2.0 * scale, 3.0, 1e-3], [0.5_f32; 2]);
    let snapshot = Snapshot::new()
        .tensor("module.fc.weight", ([2, 2], &weight))
        .and_then(|it| it.tensor("module.fc.bias", &bias))
        .and_then(|it| it.alias("module.head.weight", "module.fc.weight"))
        .and_then(|it| it.tensor("adam.exp_avg", &[0.25_f32; 4]))
        .and_then(|it| it.tensor("adam.step", &[7_i64]))
        .and_then(|it| it.record("adam", &("adam", 0.001)))
        .and_then(|it| it.metadata("license", "GPL"))
        .unwrap();
    let path = run.path(name);
    snapshot.progress(Progress::new(9)).save(&path).unwrap();
    path
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.names().collect()
}

#[test]
fn edit_takes_a_submodule_out_under_its_own_names() {
    let run = Run::new("edit");
    let (file, out) = (wrapped(&run, "ddp.tkeep", 1.0), run.path("plain.tkeep"));
    let flags = ["--only", "module.*", "--drop", "*.bias", "--strip-prefix", "module."];
    let rename = ["--rename", r"^fc\.(\w+)$=>dense.$1", "--cast", "bf16:*head*", "--set", "license=MIT"];
    let done = tensorkeep(&[&["edit", &file, "-o", &out], &flags[..], &rename].concat());
    assert!(text(&done).contains("2 tensors, 3 dropped, 2 renamed, 2 cast"), "{done:?}");
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("module.fc.weight: cast too, as it is tied"),
        "{done:?}"
    );
    let edited = Checkpoint::open(&out).unwrap();
    assert_eq!(names(&edited), ["dense.weight", "head.weight"]);
    assert_eq!(edited.info("head.weight").unwrap().alias_of, Some("dense.weight"));
    let weight = edited.tensor("dense.weight").unwrap();
    assert_eq!((weight.dtype(), weight.shape()), (Dtype::Bf16, &[2, 2][..]), "aliases are one tensor");
    let weight = weight.cast(Dtype::F32).unwrap();
    assert_eq!(weight.elements::<f32>().unwrap()[..3], [1.0, 2.0, 3.0]);
    let records: Vec<&str> = edited.records().collect();
    assert_eq!(records, ["tensorkeep.metadata", "tensorkeep.progress"], "the optimizer's went with it");
    let metadata = edited.metadata().unwrap();
    assert_eq!(metadata["license"], "MIT");
    assert_eq!(metadata["derived_from"], file);
    assert!(metadata["derived_by"].starts_with("edit --only 'module.*'"), "{metadata:?}");
    edited.verify().unwrap();
    // Again: where it comes from is a list.
    let again = run.path("again.tkeep");
    assert!(tensorkeep(&["edit", &out, "-o", &again, "--drop", "head*"]).status.success());
    let metadata = Checkpoint::open(&again).unwrap().metadata().unwrap();
    assert_eq!(metadata["derived_from"], format!("{file}\n{out}"));
}

#[test]
fn edit_changes_nothing_that_it_was_not_told_to() {
    let run = Run::new("edit-same");
    let out = run.path("same.tkeep");
    assert!(tensorkeep(&["edit", &run.path("run@200"), "-o", &out]).status.success());
    let diff = json(&["diff", &run.path("run@200"), &out, "--json"]);
    assert!(diff["tensors"].as_array().unwrap().iter().all(|tensor| tensor["verdict"] == "equal"), "{diff}");
    let edited = Checkpoint::open(&out).unwrap();
    assert_eq!(edited.progress().unwrap(), Some(Progress::new(200).epoch(2)));
    assert!(edited.inspect().history().unwrap().is_some());
}

#[test]
fn edit_reads_foreign_files() {
    let run = Run::new("edit-foreign");
    let (file, foreign) = (wrapped(&run, "ddp.tkeep", 1.0), run.path("ddp.safetensors"));
    assert!(tensorkeep(&["export", &file, "-o", &foreign, "--allow-loss"]).status.success());
    let out = run.path("plain.tkeep");
    let args =
        ["edit", &foreign, "-o", &out, "--only", "module.fc.*", "--strip-prefix", "module.", "--cast", "f16"];
    assert!(tensorkeep(&args).status.success());
    let edited = Checkpoint::open(&out).unwrap();
    assert_eq!(names(&edited), ["fc.bias", "fc.weight"]);
    assert_eq!(edited.tensor("fc.bias").unwrap().dtype(), Dtype::F16);
}

#[test]
fn edit_refuses_what_fits_nothing_or_clashes() {
    let run = Run::new("edit-refused");
    let (file, out) = (wrapped(&run, "ddp.tkeep", 1.0), run.path("out.tkeep"));
    for (flags, code, word) in [
        (&["--only", "modul.*"][..], 3, "modul.*"),
        (&["--drop", "nothing*"], 3, "nothing*"),
        (&["--drop", "*"], 3, "no tensor is left"),
        (&["--strip-prefix", "model."], 3, "begins with \"model.\""),
        (&["--rename", "^x=>y"], 3, "fits \"^x\""),
        (&["--rename", "^.*$=>same"], 2, "there already"),
        (&["--rename", "(=>x"], 2, "REGEX=>REPL"),
        (&["--rename", "x"], 2, "REGEX=>REPL"),
        (&["--cast", "i8"], 2, "f16, bf16, f32 or f64"),
        (&["--cast", "bf16:adam.step"], 3, "adam.step"),
        (&["--cast", "bf16:adam.st*"], 3, "its dtype, i64, cannot be cast"),
        (&["--cast", "f32:none"], 3, "no tensor fits \"none\""),
        (&["--set", "license"], 2, "KEY=VALUE"),
        (&["--set", "derived_from=nowhere"], 2, "derived_from says where the result comes from"),
        (&["--set", "derived_by=hand"], 2, "derived_by says"),
        (&["--cast", "bf16:*head*", "--cast", "f16:*fc.weight"], 2, "cast both to the same dtype"),
        (&["--cast", "bf16", "--cast", "f32:*head*"], 2, "is tied to it"),
    ] {
        let (found, message) = refused(&[&["edit", &file, "-o", &out], flags].concat());
        assert!(found == code && message.contains(word), "{flags:?}: {found}: {message}");
        assert!(!std::path::Path::new(&out).exists(), "{flags:?}");
    }
    let (code, message) = refused(&["edit", &file, "-o", &run.path("x.safetensors")]);
    assert!(code == 2 && message.contains("tensorkeep export"), "{message}");
    let (code, message) = refused(&["edit", &file, "-o", &file]);
    assert!(code == 1 && message.contains("--force"), "{code}: {message}");
}

#[test]
fn merge_averages_floats_and_tells_of_the_rest() {
    let run = Run::new("merge");
    let files = [wrapped(&run, "a.tkeep", 1.0), wrapped(&run, "b.tkeep", 5.0)];
    let out = run.path("soup.tkeep");
    let merge = |flags: &[&str]| {
        let output = tensorkeep(&[&["merge", &files[0], &files[1], "-o", &out, "--force"], flags].concat());
        assert!(output.status.success(), "{output:?}");
        let merged = Checkpoint::open(&out).unwrap();
        let weight = merged.tensor("module.fc.weight").unwrap().elements::<f32>().unwrap().to_vec();
        (weight, merged)
    };
    let (weight, merged) = merge(&[]);
    assert_eq!(weight, [3.0, 6.0, 3.0, 1e-3]);
    assert_eq!(merged.info("module.head.weight").unwrap().alias_of, Some("module.fc.weight"));
    assert_eq!(merged.tensor("adam.step").unwrap().elements::<i64>().unwrap(), [7]);
    let from = &merged.metadata().unwrap()["derived_from"];
    assert!(from.contains("a.tkeep × 0.5") && from.contains("b.tkeep × 0.5"), "{from}");
    assert_eq!(merge(&["--weights", "0.75,0.25"]).0, [2.0, 4.0, 3.0, 1e-3]);
    assert_eq!(merge(&["--ema", "0.25"]).0, [4.0, 8.0, 3.0, 1e-3]);
    // An integer that differs is told.
    let other = run.path("c.tkeep");
    let flagged = Checkpoint::open(&files[1]).unwrap();
    let snapshot = flagged.inspect().to_snapshot().unwrap().replace("adam.step", &[8_i64]).unwrap();
    snapshot.save(&other).unwrap();
    let output = tensorkeep(&["merge", &files[0], &other, "-o", &out, "--force", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["differing"]), (Some(1), &serde_json::json!(["adam.step"])));
}

#[test]
fn tied_tensors_are_cast_together_and_counted_both() {
    let run = Run::new("edit-tied");
    let (file, out) = (wrapped(&run, "tied.tkeep", 1.0), run.path("out.tkeep"));
    let cast = |flags: &[&str]| json(&[&["--json", "edit", &file, "-o", &out, "--force"], flags].concat());
    let one = cast(&["--cast", "bf16:module.head.weight"]);
    assert_eq!((&one["cast"], &one["cast_with"]), (&2.into(), &serde_json::json!(["module.fc.weight"])));
    let both = cast(&["--cast", "bf16:*.weight"]);
    assert_eq!((&both["cast"], &both["cast_with"]), (&2.into(), &serde_json::json!([])));
    let alone = cast(&["--cast", "bf16:*head*", "--drop", "module.fc.weight"]);
    assert_eq!((&alone["cast"], &alone["cast_with"]), (&1.into(), &serde_json::json!([])));
}

#[test]
fn an_average_that_is_not_finite_is_told() {
    let run = Run::new("merge-nan");
    let (first, second, out) = (run.path("a.tkeep"), run.path("b.tkeep"), run.path("out.tkeep"));
    Snapshot::new().tensor("w", &[f32::NAN, 1.0, f32::INFINITY, 2.0]).unwrap().save(&first).unwrap();
    Snapshot::new().tensor("w", &[0.5_f32, 1.0, 2.0, f32::NAN]).unwrap().save(&second).unwrap();
    let done = tensorkeep(&["merge", &first, &second, "-o", &out]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("w: 3 values of the average NaN or infinite"), "{said}");
    let told = json(&["merge", &first, &second, "-o", &out, "--force", "--json"]);
    assert_eq!(told["not_finite"]["w"], 3);
}

#[test]
fn merge_refuses_files_that_are_not_alike() {
    let run = Run::new("merge-refused");
    let (file, out) = (wrapped(&run, "a.tkeep", 1.0), run.path("out.tkeep"));
    let checkpoint = Checkpoint::open(&file).unwrap();
    let snapshot = || checkpoint.inspect().to_snapshot().unwrap();
    let (less, other) = (run.path("less.tkeep"), run.path("other.tkeep"));
    snapshot().remove("module.fc.bias").unwrap().save(&less).unwrap();
    snapshot().replace("module.fc.bias", &[1.0_f64; 2]).unwrap().save(&other).unwrap();
    for (files, code, word) in [
        (&[&*file][..], 2, "one file is no average"),
        (&[&file, &less], 1, "has no tensor \"module.fc.bias\""),
        (&[&less, &file], 1, "has 1 tensor more"),
        (&[&file, &other], 1, "expected f32 [2], found f64 [2]"),
        (&[&file, &file, "--weights", "0.5,0.6"], 2, "add up to 1"),
        (&[&file, &file, "--weights", "1"], 2, "as many weights"),
        (&[&file, &file, "--ema", "1"], 2, "from 0 to below 1"),
    ] {
        let (found, message) = refused(&[&["merge", "-o", &out], files].concat());
        assert!(found == code && message.contains(word), "{files:?}: {found}: {message}");
    }
}

#[test]
fn cp_of_a_run_takes_the_attempts_along() {
    let run = Run::new("cp-attempts");
    let (from, to) = (run.path("run"), run.path("copy"));
    assert!(tensorkeep(&["cp", &from, &to]).status.success());
    let attempts = |run: &str| tensorkeep::Reader::open(run).unwrap().attempts().unwrap();
    assert_eq!(attempts(&from), attempts(&to));
    let one = run.path("one/");
    assert!(tensorkeep(&["cp", &run.path("run@200"), &one]).status.success());
    assert_eq!(attempts(&one), []);
}

#[test]
fn why_prints_the_terms_of_an_interval_that_decides_itself() {
    let run = Run::new("why-auto");
    let folder = super::auto_run(&run);
    let why = text(&tensorkeep(&["why", &folder]));
    assert!(why.contains("saves every ") && why.contains("by itself, towards the largest of"), "{why}");
    assert!(why.contains("expected waste: ") && why.contains("24.0 h"), "{why}");
    let auto = &json(&["why", &folder, "--json"])["auto"];
    assert_eq!(
        (&auto["in_flight"], auto["between_failures_us"].as_u64() > Some(86_000_000_000)),
        (&1.into(), true)
    );
}

/// A nested state, as Python saves it: nulls where its tensors are.
fn nested(run: &Run, name: &str) -> String {
    use std::collections::BTreeMap;
    let places: BTreeMap<&str, Option<u8>> = [("module.w", None), ("module.b", None), ("none", None)].into();
    let snapshot = Snapshot::new()
        .tensor("model/module.w", &[1.0_f32, 1e10])
        .and_then(|it| it.tensor("model/module.b", &[0.5_f32]))
        .and_then(|it| it.tensor("opt/m", &[0.25_f64]))
        .and_then(|it| it.record("model", &places))
        .and_then(|it| it.record("opt", &BTreeMap::from([("m", None::<u8>)])))
        .and_then(|it| it.record("epoch", &3))
        .unwrap();
    let path = run.path(name);
    snapshot.save(&path).unwrap();
    path
}

#[test]
fn places_of_renamed_and_dropped_tensors_leave_the_records() {
    let run = Run::new("edit-nested");
    let (file, out) = (nested(&run, "nested.tkeep"), run.path("out.tkeep"));
    let flags = ["--rename", r"module\.=>", "--drop", "opt/*", "--drop", "epoch"];
    let done = tensorkeep(&[&["edit", &file, "-o", &out], &flags[..]].concat());
    assert!(done.status.success(), "{done:?}");
    let edited = Checkpoint::open(&out).unwrap();
    assert_eq!(names(&edited), ["model/b", "model/w"]);
    assert_eq!(edited.inspect().record_value("model").unwrap().to_string(), "{none: null}");
    assert_eq!(edited.inspect().record_value("opt").unwrap().to_string(), "{}");
    assert!(edited.records().all(|record| record != "epoch"), "records are dropped by name, too");
    let shown = text(&tensorkeep(&["show", &file]));
    assert!(shown.contains("none: null") && !shown.contains("module.w: null"), "{shown}");
}

#[test]
fn a_cast_that_overflows_is_told_with_its_tensor() {
    let run = Run::new("edit-overflow");
    let (file, out) = (nested(&run, "nested.tkeep"), run.path("half.tkeep"));
    let done = tensorkeep(&["edit", &file, "-o", &out, "--cast", "f16"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(said.contains("model/module.w: 1 value became infinite"), "{said}");
    let told = json(&["--json", "edit", &file, "-o", &out, "--force", "--cast", "f16"]);
    assert_eq!(told["overflowed"]["model/module.w"], 1);
}

#[test]
fn nothing_is_written_among_the_checkpoints_of_a_run() {
    let run = Run::new("edit-within");
    let (newest, own) = (format!("{}@latest", run.path("run")), run.path("run/0001-0000000200.tkeep"));
    let before = std::fs::read(&own).unwrap();
    for out in [own.clone(), run.path("run/0009-0000000900.tkeep")] {
        let (code, said) = refused(&["edit", &newest, "-o", &out, "--force", "--drop", "tied"]);
        assert!(code == 2 && said.contains("write it elsewhere"), "{code}: {said}");
        assert_eq!(refused(&["merge", &own, &own, "-o", &out, "--force"]).0, 2);
    }
    assert_eq!(refused(&["edit", &newest, "-o", "-", "--drop", "tied"]).0, 2);
    assert_eq!(std::fs::read(&own).unwrap(), before);
}
