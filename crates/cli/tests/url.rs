//! Every verb on a run at a URL, against an S3 server; copies both ways, killed in the middle and
//! gone on with; how little is read; and what bad input is answered.

use fake_s3::{Fault, Objects, Server};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tensorkeep::engine::Local;
use tensorkeep::{Checkpoint, Codec, Progress, Reader, Snapshot, Store, StoreOptions, WriteOptions};
use tensorkeep_object_store::ObjectStoreEngine;

const RUN: &str = "s3://bucket/runs/lenet";

/// A server, and a folder that is gone afterwards.
struct Place {
    server: Server,
    folder: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let folder = std::env::temp_dir().join(format!("tensorkeep-url-{name}-{nonce:032x}"));
        std::fs::create_dir(&folder).unwrap();
        Self { server: Server::start(Objects::in_memory()).unwrap(), folder }
    }

    /// A run in the folder: steps of so many tensors of so many values.
    fn local_run(&self, steps: u64, tensors: usize, values: usize) -> PathBuf {
        let run = self.folder.join("run");
        let settings = StoreOptions::new().write(WriteOptions::new().codec(Codec::Raw));
        let store = Store::open(Local::create(&run).unwrap(), settings).unwrap();
        for step in 1..=steps {
            let weights: Vec<f32> = (0..values).map(|i| (i as u64 * step % 1013) as f32).collect();
            let mut snapshot = Snapshot::new();
            for number in 0..tensors {
                snapshot = snapshot.tensor(format!("layer.{number}.weight"), &weights).unwrap();
            }
            snapshot = snapshot.metric("loss", 1.0 / step as f64).unwrap().progress(Progress::new(step));
            store.save(&snapshot).unwrap();
        }
        run
    }

    /// The run at the server.
    fn engine(&self) -> ObjectStoreEngine {
        let options = [
            ("endpoint", self.server.endpoint()),
            ("allow_http", "true".to_owned()),
            ("region", "x".to_owned()),
            ("access_key_id", "key".to_owned()),
            ("secret_access_key", "secret".to_owned()),
        ];
        ObjectStoreEngine::from_url_with(RUN, options).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensorkeep"));
        let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "x")];
        command.args(args).envs(keys).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ENDPOINT_URL", self.server.endpoint());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a verb that succeeds says.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Json {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

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
fn every_verb_takes_a_url() {
    let place = Place::new("verbs");
    let run = place.local_run(3, 3, 1000).display().to_string();
    place.ok(&["cp", &run, RUN]);
    let out = |name: &str| place.path(name);
    let at = |selector: &str| format!("{RUN}@{selector}");
    let words: &[(&[&str], &str)] = &[
        (&["ls", RUN], "newest"),
        (&["show", &at("latest")], "layer"),
        (&["stats", &at("2")], "layer.0.weight"),
        (&["verify", RUN], "0001-0000000003"),
        (&["verify", &at("1"), "--deep"], "ok"),
        (&["diff", &at("1"), &at("1")], ""),
        (&["history", RUN], "loss"),
        (&["history", RUN, "--tensor", "layer.0.weight"], "norm"),
        (&["why", &at("2")], "resume"),
        (&["pin", &at("1")], "pinned"),
        (&["gc", RUN, "--dry-run", "--keep-last", "1"], "would delete 0001-0000000002"),
        (&["gc", RUN, "--keep-last", "1"], "deleted 0001-0000000002"),
        (&["unpin", &at("1")], "no longer"),
        (&["get", &at("best:loss:min"), "layer.0.weight[0:3]"], ""),
        (&["get", &at("latest"), "layer.0.weight", "-o", &out("w.npy")], "w.npy"),
        (&["watch", RUN, "--count", "1"], "new"),
        (&["report", RUN, "-o", &out("report.html")], "report.html"),
        (&["export", &at("latest"), "-o", &out("w.safetensors"), "--allow-loss"], ""),
        (&["repack", &at("latest"), "-o", &out("small.tkeep")], "bit for bit"),
        (&["salvage", &at("latest"), "-o", &out("salvaged.tkeep")], "saved"),
        (&["doctor", RUN], "conditional put"),
    ];
    for (args, word) in words {
        let output = place.run(args);
        let text = String::from_utf8_lossy(&output.stdout);
        // An export that loses something says so by 1.
        assert!(matches!(output.status.code(), Some(0 | 1)) && text.contains(word), "{args:?}: {output:?}");
    }
    let left = place.json(&["ls", RUN]);
    assert_eq!(left["checkpoints"].as_array().unwrap().len(), 2, "pinned and newest: {left}");
    assert!(!place.server.objects().paths().iter().any(|path| path.contains("doctor")), "doctor tidies up");
}

#[test]
fn marks_of_damage_are_shown_and_taken_off_what_verifies() {
    let place = Place::new("marks");
    let run = place.local_run(3, 3, 1000).display().to_string();
    place.ok(&["cp", &run, RUN]);
    let paths = place.server.objects().paths();
    let newest = paths.iter().find(|path| path.ends_with("0003.tkeep")).unwrap();
    let flip =
        || place.server.objects().tamper(newest, |bytes| bytes.get_mut(4096 + 100).map(|byte| *byte ^= 1));
    flip();
    let store = Store::open(place.engine(), StoreOptions::new()).unwrap();
    assert_eq!(store.resume().unwrap().next_step(), 2);
    drop(store);
    let listed = place.json(&["ls", RUN]);
    assert_eq!(listed["checkpoints"][2]["state"], "damaged", "{listed}");
    assert_eq!(listed["resume_tries_first"], "0001-0000000002");
    let verify = |args: &[&str]| {
        let output = place.run(&[&["verify", RUN], args].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = verify(&["--heal-marks"]);
    assert!(code == Some(4) && text.contains("is marked as damaged"), "{text}");
    // The storage had answered wrongly.
    flip();
    let (code, text) = verify(&[]);
    assert!(code == Some(0) && text.contains("--heal-marks takes the mark off"), "{text}");
    place.ok(&["report", RUN, "-o", &place.path("report.html")]);
    let page = std::fs::read_to_string(place.path("report.html")).unwrap();
    assert!(page.contains("is marked as damaged, and verifies now"));
    let (code, text) = verify(&["--heal-marks"]);
    assert!(code == Some(0) && text.contains("the mark is taken off"), "{text}");
    assert_eq!(place.json(&["ls", RUN])["resume_tries_first"], "0001-0000000003");
    assert!(verify(&["--quick"]).1.lines().all(|line| !line.contains("marked")));
}

#[test]
fn orphans_of_killed_uploads_are_told_and_removed() {
    let place = Place::new("orphans");
    let run = place.local_run(2, 3, 1_000_000).display().to_string();
    place.ok(&["cp", &run, RUN]);
    let before = place.server.objects().paths();
    for left in ["objects/0001-0000000009.tkeep/00ff", ".probe-00ff"] {
        place.server.objects().place(&format!("/bucket/runs/lenet/{left}"), &[1; 5000]).unwrap();
    }
    let told = place.json(&["gc", RUN, "--orphans", "--dry-run"]);
    assert_eq!(told["orphans"].as_array().unwrap().len(), 0, "younger than a day: {told}");
    let told = place.json(&["gc", RUN, "--orphans", "0s", "--dry-run"]);
    assert_eq!(
        (told["orphans"].as_array().unwrap().len(), told["bytes"].as_u64()),
        (2, Some(10_000)),
        "{told}"
    );
    assert_eq!(place.server.objects().paths().len(), before.len() + 2);
    let words = place.ok(&["gc", RUN, "--orphans", "0s", "--yes"]);
    assert!(
        words.contains("removed objects/0001-0000000009.tkeep/00ff") && words.contains("2 objects"),
        "{words}"
    );
    assert_eq!(place.server.objects().paths(), before);
    place.ok(&["verify", RUN]);
    let refused = place.run(&["gc", &run, "--orphans"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn gc_without_rules_takes_the_policy_of_its_tier() {
    let place = Place::new("gc");
    let remote = place.engine();
    use tensorkeep::Keep;
    let settings = StoreOptions::new().keep(Keep::last(1)).keep_remote(Keep::last(2));
    let store =
        Store::open_tiered(Local::create(place.folder.join("run")).unwrap(), remote, settings).unwrap();
    for step in 1..=4 {
        let snapshot = Snapshot::new().progress(Progress::new(step));
        store.save(&snapshot).unwrap();
        store.wait_for(tensorkeep::Tier::Remote).unwrap();
    }
    store.close().unwrap();
    place.ok(&["gc", RUN]);
    let steps = |run: &str| place.json(&["ls", run])["checkpoints"].as_array().unwrap().len();
    assert_eq!((steps(RUN), steps(&place.path("run"))), (2, 1), "the local policy would have left one");
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
fn a_listed_checkpoint_is_never_passed_over() {
    let place = Place::new("absent");
    let run = place.local_run(3, 1, 400_000).display().to_string();
    place.ok(&["cp", &run, RUN]);
    let absent = |part: &str, times| {
        place.server.faults().heal();
        let path = format!("GET /bucket/runs/lenet/{part}0001-0000000002");
        place.server.faults().fail_matching(&path, 0, times, Fault::NotFound);
    };
    for part in ["", "objects/"] {
        absent(part, 1);
        assert_eq!(place.json(&["verify", RUN])["checkpoints"].as_array().unwrap().len(), 3, "{part}");
        absent(part, 1);
        let copied = place.json(&["cp", RUN, &place.path(&format!("copy-{}", part.len()))]);
        assert_eq!(copied["copied"].as_array().unwrap().len(), 3, "{part}: {copied}");
        absent(part, usize::MAX);
        let output = place.run(&["verify", RUN]);
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code() == Some(6) && words.contains("0001-0000000002"), "{part}: {output:?}");
        let target = place.path(&format!("less-{}", part.len()));
        let output = place.run(&["cp", RUN, &target, "--json"]);
        let json: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["copied"].as_array().unwrap().len(), 2, "{part}: {json}");
        assert_eq!(json["damaged"].as_array().unwrap().len(), 1, "{part}: {json}");
        let output = place.run(&["gc", RUN, "--keep-last", "1", "--dry-run"]);
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(words.contains("0001-0000000002"), "{part}: {output:?}");
    }
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

#[test]
fn getting_one_tensor_reads_its_ranges_only() {
    let place = Place::new("get");
    let run = place.folder.join("wide");
    let store = Store::open(Local::create(&run).unwrap(), StoreOptions::new()).unwrap();
    let tensors: Vec<Vec<u32>> = (0..24_u32)
        .map(|seed| (0..250_000_u32).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9)).collect())
        .collect();
    let mut snapshot = Snapshot::new();
    for (number, tensor) in tensors.iter().enumerate() {
        snapshot = snapshot.tensor(format!("layer.{number:02}.weight"), tensor).unwrap();
    }
    snapshot = snapshot.progress(Progress::new(1));
    store.save(&snapshot).unwrap();
    place.ok(&["cp", &run.display().to_string(), RUN]);
    place.server.faults().take_calls();
    place.ok(&["get", &format!("{RUN}@latest"), "layer.17.weight", "-o", &place.path("w.npy")]);
    let calls = place.server.faults().take_calls();
    let data: Vec<&String> = calls.iter().filter(|call| call.contains("/objects/")).collect();
    let bytes: u64 = data.iter().map(|call| range_len(call)).sum();
    println!("{calls:#?}");
    assert!((1_000_000..1_100_000).contains(&bytes), "a tensor of 1 MB took {bytes} bytes: {data:?}");
    assert!(calls.len() <= 6, "listing, opening, reading: {calls:#?}");
}

/// Of a call with `bytes=first-last` at its end.
fn range_len(call: &str) -> u64 {
    let range = call.rsplit_once("bytes=").unwrap_or_else(|| panic!("all of it was read: {call}")).1;
    let (first, last) = range.split_once('-').unwrap();
    last.parse::<u64>().unwrap() - first.parse::<u64>().unwrap() + 1
}

#[test]
fn bad_urls_are_told_with_what_to_do() {
    let place = Place::new("bad");
    for (url, code, word) in [
        ("ftp://bucket/run", 2, "unknown scheme"),
        ("s3:///run", 2, "no bucket"),
        ("memory://run", 2, "ends with this process"),
        ("s3://bucket/run@newest", 2, "selects no checkpoint"),
        ("s3://nowhere/run", 3, "no such bucket"),
        ("s3://bucket/nothing@latest", 3, "no such run"),
    ] {
        let output = place.run(&["show", url]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && words.contains(word), "{url}: {output:?}");
    }
    // A prefix with nothing under it is no run, whatever is asked of it.
    let (page, copy) = (place.path("report.html"), place.path("copy"));
    let nothing = "s3://bucket/nothing";
    for args in [
        &["ls", nothing][..],
        &["show", nothing],
        &["verify", nothing],
        &["history", nothing],
        &["why", nothing],
        &["gc", nothing, "--keep-last", "1"],
        &["cp", nothing, &copy],
        &["report", nothing, "-o", &page],
    ] {
        let output = place.run(args);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && output.stdout.is_empty(), "{args:?}: {output:?}");
        assert!(words.contains("there is no such run") && words.contains(nothing), "{args:?}: {words}");
    }
    assert!(!Path::new(&copy).exists() && !Path::new(&page).exists());
    place.server.faults().fail_after(0, 1000, Fault::WrongSecret);
    let output = place.run(&["ls", RUN]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(6) && words.contains("AWS_SECRET_ACCESS_KEY"), "{output:?}");
    assert!(words.contains(RUN), "{words}");
}

#[test]
fn a_file_written_elsewhere_opens_by_its_file_url() {
    let place = Place::new("file");
    let run = place.local_run(1, 1, 100).display().to_string();
    place.ok(&["ls", &format!("file://{run}")]);
    place.ok(&["verify", &format!("file://{run}@latest")]);
    let copy = place.path("copy.tkeep");
    place.ok(&["cp", &format!("file://{run}@latest"), &copy]);
    Checkpoint::open(copy).unwrap().verify().unwrap();
}
