//! Verbs that look: what they find, and that they leave everything as it is.

use super::{Run, json, tensorkeep, text};
use serde_json::Value as Json;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Mode, Progress, Snapshot, Store, StoreOptions, Tensor};

#[test]
fn history_has_what_rotation_deleted_and_every_attempt() {
    let run = Run::new("whole-history");
    let folder = run.path("long");
    for attempt in 0..2 {
        let options = StoreOptions::new().keep(Keep::last(1).or(Keep::best("loss", Mode::Min, 1)));
        let store = Store::open(Local::create(&folder).unwrap(), options).unwrap();
        let begin = store.resume().unwrap().progress.step;
        for step in begin + 1..=begin + 30 {
            let progress = Progress::new(step);
            store.log(&progress, [("loss", if step == 7 { f64::NAN } else { 1.0 / step as f64 })]);
            if step % 10 == 0 {
                store.save(&Snapshot::new().progress(progress)).unwrap();
            }
        }
        if attempt == 1 {
            store.close().unwrap();
        }
    }
    let whole = text(&tensorkeep(&["history", &folder]));
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines[1].contains("0 → 30") && lines[1].ends_with("died"), "{whole}");
    assert!(lines[2].contains("30 → 60") && lines[2].contains("0001-0000000030"), "{whole}");
    assert!(lines[3].starts_with("loss ") && lines[3].ends_with("last 0.01667"), "{whole}");
    assert_eq!(lines[4], "60 points logged, up to step 60, in 2 attempts; the newest: closed");
    let points = text(&tensorkeep(&["history", &folder, "--metric", "loss"]));
    assert!(points.lines().count() == 63 && points.contains("NaN"), "{points}");
    let series = &json(&["history", &folder, "--json"])["metrics"]["loss"];
    assert_eq!((&series["steps"][59], &series["values"][6]), (&Json::from(60), &Json::from("NaN")));
    assert_eq!((&series["logged"], &series["better"]), (&Json::from(60), &Json::from("min")));
    let unknown = tensorkeep(&["history", &folder, "--metric", "los"]);
    assert!(unknown.status.code() == Some(3) && String::from_utf8_lossy(&unknown.stderr).contains("loss"));
}

#[test]
fn ls_lists_a_run_and_marks_what_a_resume_would_use() {
    let run = Run::new("ls");
    let output = tensorkeep(&["ls", &run.path("run")]);
    let lines: Vec<String> = text(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].contains("loss") && lines[2].contains("→ 200") && lines[2].contains("0.5"), "{lines:?}");
    assert!(lines[3].starts_with("2 checkpoints, ") && lines[3].contains("looks at 200 first"), "{lines:?}");
    let newest = text(&tensorkeep(&["ls", &run.path("run"), "-n", "1", "--metrics", "loss"]));
    assert!(newest.lines().count() == 3 && newest.contains("1 of 2 checkpoints"), "{newest}");
    let unknown = tensorkeep(&["ls", &run.path("run"), "--metrics", "los"]);
    assert!(unknown.status.code() == Some(3) && String::from_utf8_lossy(&unknown.stderr).contains("loss"));
    let listed = json(&["ls", &run.path("run"), "--json"]);
    assert_eq!(listed["schema"], "tensorkeep.ls.v1");
    // Only indexes were read: nothing here says what verifies.
    assert_eq!(
        (&listed["resume_tries_first"], &listed["verified"]),
        (&"0001-0000000200".into(), &false.into())
    );
    assert_eq!(listed["checkpoints"][0]["metrics"]["loss"], 0.25);
    assert_eq!(listed["checkpoints"][0]["epoch"], 1);
    // The first save of an attempt has no other to tell of.
    assert_eq!(listed["checkpoints"][0]["previous"], Json::Null);
    let cost = &listed["checkpoints"][1]["previous"];
    assert!(cost["step"] == 100 && cost["took_us"].as_u64() <= cost["stall_us"].as_u64(), "{cost}");
}

#[test]
fn a_history_of_lies_ends_in_words() {
    let run = Run::new("any-history");
    let page = run.path("page.html");
    let template = test_support::edits::history_template();
    let seeds = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/history"));
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = seed.unwrap().path();
        let container = test_support::reseal::with_record(&template, &std::fs::read(&seed).unwrap());
        let file = run.path("run/0009-0000000900.tkeep");
        std::fs::write(&file, container).unwrap();
        for args in [
            &["ls", &run.path("run")][..],
            &["history", &run.path("run")],
            &["why", &run.path("run")],
            &["report", &run.path("run"), "-o", &page, "--force"],
            &["report", &file, "-o", &page, "--force"],
            &["show", &file],
        ] {
            let output = tensorkeep(args);
            let said = String::from_utf8_lossy(&output.stderr);
            let is_answer = matches!(output.status.code(), Some(code) if code != 101);
            assert!(is_answer && !said.contains("panicked"), "{}: {args:?}: {said}", seed.display());
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_listed_as_such_and_not_resumed_from() {
    let run = Run::new("ls-damaged");
    run.damage("run/0001-0000000200.tkeep", 5);
    let listed = json(&["--json", "ls", &run.path("run")]);
    assert_eq!(listed["checkpoints"][1]["state"], "damaged");
    assert_eq!(listed["resume_tries_first"], "0001-0000000100");
}

#[test]
fn listing_beside_a_writer_takes_no_lock() {
    let run = Run::new("beside");
    let _writer = Store::open(Local::create(run.folder.join("run")).unwrap(), StoreOptions::new()).unwrap();
    assert!(tensorkeep(&["ls", &run.path("run")]).status.success());
    assert!(Path::new(&run.path("run")).join("LOCK").is_file());
}

#[test]
fn show_takes_files_and_every_selector() {
    let run = Run::new("show");
    let shown = text(&tensorkeep(&["show", &run.path("file.tkeep")]));
    for expected in
        ["fc.weight", "f32", "[30, 10]", "= fc.weight", "optimizer", "[\"adam\", 0.001]", "step 200"]
    {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    let saved = run.path("run@100");
    let (short, all) = (text(&tensorkeep(&["show", &saved])), text(&tensorkeep(&["show", &saved, "--all"])));
    assert!(
        short.contains("2 records of the library's own") && short.contains("tensorkeep.metrics"),
        "{short}"
    );
    assert!(!short.contains("saved_at") && all.contains("saved_at"), "{short}{all}");
    for (selector, step) in [
        ("", 200),
        ("@latest", 200),
        ("@latest~1", 100),
        ("@-2", 100),
        ("@-1", 200),
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
    assert_eq!((output.status.code(), text(&output).lines().count()), (Some(0), 3));
    assert!(
        text(&output).contains("2 checkpoints, none damaged; the newest that verifies is 0001-0000000200")
    );
    run.damage("run/0001-0000000100.tkeep", 4096 + 10);
    let output = tensorkeep(&["verify", &run.path("run")]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output).contains("tensor fc.weight"), "{}", text(&output));
    assert!(
        text(&output).contains("1 of 2 checkpoints damaged; the newest that verifies is 0001-0000000200")
    );
    assert_eq!(tensorkeep(&["verify", &format!("{}@200", run.path("run"))]).status.code(), Some(0));
    let verified = json(&["verify", &format!("{}@100", run.path("run")), "--json"]);
    assert_eq!(
        (&verified["ok"], &verified["checkpoints"][0]["damage"][0]["tensor"]),
        (&Json::Bool(false), &"fc.weight".into())
    );
}

#[test]
fn stats_and_deep_verify_find_nan_and_where_it_is() {
    let run = Run::new("nan");
    let mut weights = vec![0.5_f32; 700_000];
    (weights[600_001], weights[650_000], weights[3]) = (f32::NAN, f32::INFINITY, 0.0);
    let snapshot =
        Snapshot::new().tensor("a", &[1.0_f32, 2.0, 4.0][..]).unwrap().tensor("b", &weights).unwrap();
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
        for (name, values) in tensors {
            snapshot = snapshot.tensor(*name, *values).unwrap();
        }
        snapshot = snapshot.record("adam", &std::collections::BTreeMap::from([("lr", lr)])).unwrap();
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
fn units_in_the_last_place_are_of_one_dtype() {
    let run = Run::new("ulps");
    let (wide, half, whole, other) = ([1.0_f32, 2.0], [1.0_f64, 2.5], [1_i32, 2], [1_i32, 3]);
    let save = |name: &str, floats: Tensor<'_>, whole: &[i32]| {
        let snapshot = Snapshot::new().tensor("floats", floats).unwrap().tensor("whole", whole).unwrap();
        snapshot.save(run.folder.join(name)).unwrap();
        run.path(name)
    };
    let one = save("one.tkeep", Tensor::from_elements(&[2], &wide).unwrap(), &whole);
    let two = save("two.tkeep", Tensor::from_elements(&[2], &half).unwrap(), &other);
    let diff = json(&["diff", &one, &two, "--json"]);
    for at in 0..2 {
        let tensor = &diff["tensors"][at];
        assert_eq!((&tensor["verdict"], &tensor["ulp"]), (&"differ".into(), &Json::Null), "{tensor}");
    }
    assert!(!text(&tensorkeep(&["diff", &one, &two])).contains("ulp"), "an empty column");
}

#[test]
fn why_says_what_resume_passes_over() {
    let run = Run::new("why");
    run.damage("run/0001-0000000200.tkeep", 4096 + 10);
    let why = text(&tensorkeep(&["why", &format!("{}@100", run.path("run"))]));
    assert!(why.contains("resume: chooses it; newer ones do not verify: 0001-0000000200"), "{why}");
}
