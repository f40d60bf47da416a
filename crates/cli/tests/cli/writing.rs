//! Verbs that write or delete: what they make, and what they refuse to.

use super::{Run, json, refused, tensorkeep, text};
use serde_json::Value as Json;
use tensorkeep::engine::Local;
use tensorkeep::{Snapshot, Store, StoreOptions};

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
    let writer = Store::open(Local::create(run.folder.join("run")).unwrap(), StoreOptions::new()).unwrap();
    assert_eq!(refused(&gc).0, 5);
    drop(writer);
    assert!(tensorkeep(&gc).status.success());
    assert_eq!(json(&["ls", &folder, "--json"])["checkpoints"].as_array().unwrap().len(), 1);
    let why = text(&tensorkeep(&["why", &folder]));
    assert!(why.contains("kept: ") && why.contains("resume: chooses it"), "{why}");
    assert_eq!(refused(&["gc", &folder, "--keep-best", "loss"]).0, 2);
}

// G3: one flipped bit in the newest of a run.
#[test]
fn gc_deletes_nothing_whole_while_what_stays_is_damaged() {
    let run = Run::new("gc-damage");
    let folder = run.path("run");
    run.damage("run/0001-0000000200.tkeep", 4096 + 100);
    let output = tensorkeep(&["gc", &folder, "--keep-last", "1", "--json"]);
    let done: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(done["deleted"], serde_json::json!([]));
    assert_eq!(done["damaged"][0]["name"], "0001-0000000200");
    assert_eq!(done["verified"]["checkpoints"], 1, "nothing is read once all stays: {done}");
    // Said to be explicit, it counts on what it did not read.
    let output = tensorkeep(&["gc", &folder, "--keep-last", "1", "--json", "--no-verify"]);
    let done: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["deleted"], serde_json::json!(["0001-0000000100"]));
}

#[test]
fn gc_refuses_a_metric_that_no_checkpoint_has() {
    let run = Run::new("gc-metric");
    let folder = run.path("run");
    let (code, message) = refused(&["gc", &folder, "--keep-best", "lss:min"]);
    assert!(code == 2 && message.contains("did you mean \"loss\""), "{code}: {message}");
    assert_eq!(refused(&["gc", &folder, "--keep-last", "0"]).0, 2);
    assert_eq!(json(&["ls", &folder, "--json"])["checkpoints"].as_array().unwrap().len(), 2);
}

#[test]
fn cp_does_not_mix_two_runs_unless_forced() {
    let (one, other) = (Run::new("mix-one"), Run::new("mix-other"));
    let target = one.path("copy");
    assert!(tensorkeep(&["cp", &one.path("run"), &target]).status.success());
    let (code, message) = refused(&["cp", &other.path("run"), &target]);
    assert!(code == 2 && message.contains("another run") && message.contains("--force"), "{code}: {message}");
    assert!(tensorkeep(&["cp", &one.path("run"), &target]).status.success(), "the same run goes on");
    // Their names clash here, and a name is never overwritten, also by force.
    assert_eq!(tensorkeep(&["cp", &other.path("run"), &target, "--force"]).status.code(), Some(1));
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
    let snapshot = Snapshot::new().tensor("a", &first).unwrap().tensor("b", &second).unwrap();
    let snapshot = snapshot.alias("tied", "b").unwrap();
    snapshot.save(run.folder.join("d.tkeep")).unwrap();
    let whole = text(&tensorkeep(&["salvage", &run.path("d.tkeep"), "-o", &run.path("w.tkeep")]));
    assert!(whole.contains("3 tensors saved, and all records; nothing is lost"), "{whole}");
    run.damage("d.tkeep", 4096 + 100);
    let output = tensorkeep(&["salvage", &run.path("d.tkeep"), "-o", &run.path("s.tkeep"), "--json"]);
    let saved: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &saved["tensors"]), (Some(1), &2.into()));
    let words = text(&tensorkeep(&["salvage", &run.path("d.tkeep"), "-o", &run.path("s.tkeep"), "--force"]));
    assert!(words.contains("2 of 3 tensors saved, 1 lost"), "{words}");
    assert_eq!(saved["lost"][0]["tensor"], "a");
    let shown = tensorkeep(&["show", &run.path("s.tkeep")]);
    let warned = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(warned.contains("salvaged from") && warned.contains("1 thing could not be"), "{warned}");
    assert_eq!(tensorkeep(&["verify", &run.path("s.tkeep")]).status.code(), Some(0));
    assert_eq!(refused(&["repack", &run.path("d.tkeep"), "-o", &run.path("r.tkeep")]).0, 4);
    assert!(!run.folder.join("r.tkeep").exists());
}

#[test]
fn losses_of_an_export_are_listed_and_answer_no() {
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
fn a_copy_that_is_up_to_date_is_told_from_one_of_nothing() {
    let run = Run::new("cp");
    let (folder, copy) = (run.path("run"), run.path("copy"));
    let copied = text(&tensorkeep(&["cp", &folder, &copy]));
    assert!(copied.contains("2 checkpoints, ") && copied.contains("verified"), "{copied}");
    let again = text(&tensorkeep(&["cp", &folder, &copy]));
    assert!(again.contains("nothing to copy: all 2 checkpoints are there already"), "{again}");
    let one = text(&tensorkeep(&["cp", &format!("{folder}@100"), &copy]));
    assert!(one.contains("0001-0000000100 is there already"), "{one}");
}

#[test]
fn what_is_salvaged_of_a_file_without_its_end_is_said() {
    let run = Run::new("cut");
    let whole = std::fs::read(run.folder.join("file.tkeep")).unwrap();
    std::fs::write(run.folder.join("cut.tkeep"), &whole[..whole.len() / 2]).unwrap();
    let (code, message) = refused(&["salvage", &run.path("cut.tkeep"), "-o", &run.path("s.tkeep")]);
    assert!(code == 4 && message.contains("the list of contents at its end"), "{code}: {message}");
    assert!(text(&tensorkeep(&["salvage", "--help"])).contains("cut short"));
}

#[test]
fn cp_makes_a_run_of_one_checkpoint_unless_a_file_is_named() {
    let run = Run::new("cp-one");
    let at = format!("{}@100", run.path("run"));
    for (target, is_run) in [("new/", true), ("another", true), ("one.tkeep", false)] {
        assert!(tensorkeep(&["cp", &at, &run.path(target)]).status.success(), "{target}");
        let path = run.folder.join(target);
        assert_eq!(path.is_dir(), is_run, "{target}");
        let there = if is_run { path.join("0001-0000000100.tkeep") } else { path };
        assert_eq!(tensorkeep(&["verify", there.to_str().unwrap()]).status.code(), Some(0), "{target}");
    }
    assert_eq!(json(&["ls", &run.path("new"), "--json"])["checkpoints"][0]["step"], 100);
}

#[test]
fn pin_and_unpin_say_what_they_did() {
    let run = Run::new("pins");
    let folder = run.path("run");
    let said = |args: &[&str]| text(&tensorkeep(args));
    assert!(said(&["unpin", &folder]).contains("0001-0000000200, the newest: was not pinned"));
    assert!(said(&["pin", &format!("{folder}@100")]).contains("0001-0000000100: pinned"));
    assert!(said(&["pin", &format!("{folder}@100")]).contains("was pinned already"));
    assert_eq!(json(&["unpin", &format!("{folder}@100"), "--json"])["changed"], true);
}
