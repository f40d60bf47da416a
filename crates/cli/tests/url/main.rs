//! Every verb on a run at a URL, against an S3 server; how little is read; and what bad input is
//! answered.

mod copying;

use fake_s3::{Fault, Objects, Server};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tensorkeep::engine::Local;
use tensorkeep::{Checkpoint, Codec, Progress, Snapshot, Store, StoreOptions, WriteOptions};
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
    let listed = place.run(&["ls", RUN, "--json"]);
    assert_eq!(listed.status.code(), Some(4), "{listed:?}");
    let listed: Json = serde_json::from_slice(&listed.stdout).unwrap();
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
    assert!(place.ok(&["gc", &run, "--orphans", "--yes"]).contains("removed 0 objects"));
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
