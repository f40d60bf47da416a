//! `cp` to a URL and back: what a kill or damage leaves, and that nothing is overwritten.

use super::{Place, RUN};
use fake_s3::Fault;
use serde_json::Value as Json;
use std::path::Path;
use std::process::Stdio;
use tensorkeep::Reader;
use tensorkeep::engine::Local;

fn is_same_run(left: &Path, right: &Path) {
    let (left, right) = (Reader::new(Local::open(left).unwrap()), Reader::new(Local::open(right).unwrap()));
    assert_eq!(left.ids().unwrap(), right.ids().unwrap());
    for name in left.ids().unwrap() {
        let copy = right.checkpoint_by_id(name).unwrap();
        copy.verify().unwrap();
        assert!(copy.inspect().is_copy_of(&left.checkpoint_by_id(name).unwrap()), "{name}");
    }
}

#[test]
fn a_run_is_copied_there_and_back_and_moves_once() {
    let place = Place::new("copy");
    let run = place.local_run(3, 3, 1_000_000);
    let run_text = run.display().to_string();
    place.ok(&["pin", &format!("{run_text}@2")]);
    let first = place.json(&["cp", &run_text, RUN]);
    assert_eq!(first["copied"].as_array().unwrap().len(), 3, "{first}");
    let again = place.json(&["cp", &run_text, RUN]);
    assert_eq!((again["bytes"].as_u64(), again["there_already"].as_array().unwrap().len()), (Some(0), 3));
    let back = place.path("back");
    place.ok(&["cp", RUN, &back]);
    is_same_run(&run, Path::new(&back));
    let listed = place.json(&["ls", &back]);
    assert_eq!(listed["checkpoints"][1]["pinned"], true, "pins go along: {listed}");
    // One checkpoint: to a file, and from a file's URL.
    let one = place.path("one.tkeep");
    place.ok(&["cp", &format!("{RUN}@2"), &one]);
    place.ok(&["verify", &one]);
    place.ok(&[
        "cp",
        &format!("{RUN}/0001-0000000003.tkeep"),
        &format!("file://{}", place.path("three.tkeep")),
    ]);
    place.ok(&["verify", &place.path("three.tkeep")]);
    // And one into another run at a URL.
    place.ok(&["cp", &format!("{run_text}/0001-0000000001.tkeep"), "s3://bucket/other"]);
    assert_eq!(place.json(&["ls", "s3://bucket/other"])["checkpoints"].as_array().unwrap().len(), 1);
}

#[test]
fn a_killed_copy_goes_on_when_it_is_run_again() {
    let place = Place::new("killed");
    let run = place.local_run(4, 3, 1_000_000);
    let run_text = run.display().to_string();
    // Slow enough to be caught in the middle.
    place.server.faults().fail_matching("PUT", 0, 1_000_000, Fault::Trickle);
    let mut copying = place.command(&["cp", &run_text, RUN]).stdout(Stdio::null()).spawn().unwrap();
    let committed = || {
        let paths = place.server.objects().paths();
        paths.iter().filter(|path| path.ends_with(".tkeep")).count()
    };
    while committed() < 2 {
        assert!(copying.try_wait().unwrap().is_none(), "it was too fast to be killed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    copying.kill().unwrap();
    copying.wait().unwrap();
    place.server.faults().heal();
    let before = committed();
    assert!((2..4).contains(&before), "{before} were copied before the kill");
    let again = place.json(&["cp", &run_text, RUN]);
    let count = |key: &str| again[key].as_array().unwrap().len();
    assert_eq!((count("there_already"), count("copied")), (before, 4 - before), "{again}");
    place.ok(&["cp", RUN, &place.path("back")]);
    is_same_run(&run, Path::new(&place.path("back")));
}

#[test]
fn a_damaged_checkpoint_is_not_copied_and_the_others_are() {
    let place = Place::new("damaged");
    let run = place.local_run(3, 2, 10_000);
    let path = run.join("0001-0000000002.tkeep");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9000] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let output = place.run(&["cp", &run.display().to_string(), RUN, "--json"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["damaged"][0]["name"], "0001-0000000002", "{json}");
    assert_eq!(json["copied"].as_array().unwrap().len(), 2, "{json}");
    let there = place.json(&["ls", RUN]);
    assert_eq!(there["checkpoints"].as_array().unwrap().len(), 2, "{there}");
}

#[test]
fn another_checkpoint_under_the_same_name_is_never_overwritten() {
    let place = Place::new("conflict");
    let run = place.local_run(2, 2, 1000).display().to_string();
    place.ok(&["cp", &run, RUN]);
    let elsewhere = Place::new("conflict-elsewhere");
    let other = elsewhere.local_run(2, 2, 1001).display().to_string();
    let output = place.run(&["cp", &other, RUN]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && words.contains("another run"), "{output:?}");
    // Also not by force.
    let output = place.run(&["cp", &other, RUN, "--force"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("0001-0000000001.tkeep"), "{output:?}");
    place.ok(&["verify", RUN]);
}
