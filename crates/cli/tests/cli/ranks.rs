//! Checkpoints of many ranks: every verb that reads sees one checkpoint, by the manifest's path.

use super::pieces::manifest;
use super::{Run, json, tensorkeep, text};
use serde_json::json;
use std::path::Path;

#[test]
fn a_manifest_is_shown_summed_and_compared_as_one_file() {
    let run = Run::new("ranks");
    let (whole, plain) = (manifest("whole"), run.path("plain.tkeep"));
    let packed = tensorkeep(&["repack", &whole, "-o", &plain]);
    assert!(packed.status.success(), "{packed:?}");
    for verb in ["show", "stats"] {
        let lines = |path: &str| {
            let done = tensorkeep(&[verb, path]);
            assert!(done.status.success(), "{verb}: {done:?}");
            text(&done)
        };
        assert!(lines(&whole).contains("rows"), "{verb}: {}", lines(&whole));
    }
    let sums = |path: &str| json(&["stats", path, "--json"])["tensors"].clone();
    assert_eq!(sums(&whole), sums(&plain));
    let shown = json(&["show", &whole, "--json"]);
    let rows = shown["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == "rows").unwrap();
    assert_eq!((&rows["shape"], &rows["offset"]), (&json!([5, 2]), &json!(null)));
    let same = tensorkeep(&["diff", &whole, &plain]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));
    let exported = run.path("all.safetensors");
    assert!(tensorkeep(&["export", &whole, "-o", &exported]).status.success());
    assert_eq!(tensorkeep(&["diff", &exported, &plain]).status.code(), Some(0));
}

#[test]
fn a_lost_shard_is_told_by_verify_and_left_out_by_salvage() {
    let run = Run::new("lost-shard");
    let (whole, lost) = (manifest("whole"), manifest("lost-shard"));
    assert_eq!(tensorkeep(&["verify", &whole]).status.code(), Some(0));
    let told = tensorkeep(&["verify", &lost]);
    assert_eq!(told.status.code(), Some(4));
    assert!(text(&told).contains("permuted, rows"), "{}", text(&told));
    let saved = run.path("saved.tkeep");
    tensorkeep(&["salvage", &lost, "-o", &saved]);
    let names: Vec<_> = json(&["show", &saved, "--json"])["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| tensor["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["columns", "empty", "flat", "own", "step", "tied.own"]);
}

#[test]
fn a_shard_alone_is_not_written_again() {
    let run = Run::new("shard");
    let shard = Path::new(&manifest("whole"))
        .with_file_name("shards/1/0001-0000000007-1-5b7711e0-r00001.tkeep")
        .display()
        .to_string();
    assert_eq!(tensorkeep(&["verify", &shard]).status.code(), Some(0));
    let refused = tensorkeep(&["repack", &shard, "-o", &run.path("packed.tkeep")]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("repack the manifest"), "{refused:?}");
}

#[test]
fn a_copy_has_its_shards_and_takes_away_the_replaced_ones() {
    let run = Run::new("copied-ranks");
    std::fs::create_dir(run.path("there")).unwrap();
    let copy = run.path("there/copy.tkeep");
    for words in [&["cp", &manifest("whole"), &copy][..], &["cp", &manifest("whole"), &copy, "--force"]] {
        let done = tensorkeep(words);
        assert!(done.status.success(), "{done:?}");
        assert_eq!(tensorkeep(&["verify", &copy]).status.code(), Some(0));
        assert_eq!(tensorkeep(&["diff", &copy, &manifest("whole")]).status.code(), Some(0));
    }
    let plain = run.path("plain.tkeep");
    tensorkeep(&["repack", &manifest("whole"), "-o", &plain]);
    assert!(tensorkeep(&["cp", &plain, &copy, "--force"]).status.success());
    let shards = std::fs::read_dir(run.path("there/shards")).unwrap();
    let left = shards.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()).count();
    assert_eq!(left, 0, "shards of the replaced checkpoint");
    // A part is never taken for the whole.
    let lost = tensorkeep(&["cp", &manifest("lost-shard"), &run.path("lost.tkeep")]);
    assert_eq!(lost.status.code(), Some(4), "{lost:?}");
    assert!(!Path::new(&run.path("lost.tkeep")).exists());
}

#[test]
fn copies_in_one_folder_do_not_take_each_others_shards() {
    let run = Run::new("copies-beside");
    let [first, second, plain] = ["first.tkeep", "second.tkeep", "plain.tkeep"].map(|name| run.path(name));
    for copy in [&first, &second] {
        assert!(tensorkeep(&["cp", &manifest("whole"), copy]).status.success());
    }
    assert!(tensorkeep(&["repack", &first, "-o", &plain]).status.success());
    assert!(tensorkeep(&["cp", &plain, &first, "--force"]).status.success());
    assert_eq!(tensorkeep(&["verify", &second]).status.code(), Some(0), "the other copy is whole");
    // A copy beside its source would share its shards, and lose them with it.
    let refused = tensorkeep(&["cp", &second, &run.path("third.tkeep")]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("tensorkeep repack"), "{refused:?}");
    assert!(!Path::new(&run.path("third.tkeep")).exists());
}

#[test]
fn a_lost_manifest_is_put_together_from_its_shards() {
    let run = Run::new("lost-manifest");
    let shard = |name: &str| run.path(&format!("shards/{name}.tkeep"));
    let whole = manifest("whole");
    assert!(tensorkeep(&["cp", &whole, &run.path("job.tkeep")]).status.success());
    std::fs::remove_file(run.path("job.tkeep")).unwrap();
    let (one, saved) = (shard("1/0001-0000000007-1-5b7711e0-r00001"), run.path("saved.tkeep"));
    let told = tensorkeep(&["salvage", &one, "-o", &saved]);
    assert_eq!(told.status.code(), Some(1), "the records are lost: {told:?}");
    assert!(text(&told).contains("the manifest is lost"), "{}", text(&told));
    let names = |path: &str| -> Vec<String> {
        let shown = json(&["show", path, "--json"])["tensors"].clone();
        shown.as_array().unwrap().iter().map(|tensor| tensor["name"].as_str().unwrap().to_owned()).collect()
    };
    let rebuilt = names(&saved);
    assert!(rebuilt.len() >= 4 && rebuilt.contains(&"rows".to_owned()), "{rebuilt:?}");
    for name in &rebuilt {
        let same = tensorkeep(&["diff", &saved, &whole, "--only", name]);
        assert_eq!(same.status.code(), Some(0), "{name}: {}", text(&same));
    }
    // One shard less: its tensors are named, and the others saved.
    std::fs::remove_file(shard("2/0001-0000000007-1-5b7711e0-r00002")).unwrap();
    let told = tensorkeep(&["salvage", &one, "-o", &saved, "--force"]);
    assert!(text(&told).contains("rows") && text(&told).contains("hole"), "{}", text(&told));
    let left = names(&saved);
    assert!(!left.is_empty() && left.len() < rebuilt.len(), "{left:?}");
    // A shard that is not where shards lie.
    let astray = run.path("astray.tkeep");
    std::fs::copy(&one, &astray).unwrap();
    let refused = tensorkeep(&["salvage", &astray, "-o", &saved, "--force"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("where a shard lies"), "{refused:?}");
}
