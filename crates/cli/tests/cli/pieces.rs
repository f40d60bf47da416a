//! `show --pieces`: where the tensors of a checkpoint of many ranks lie, and which shards are there.

use super::{Run, json, refused, tensorkeep, text};
use serde_json::{Value as Json, json};
use std::path::Path;
use tensorkeep::layout::Layout;
use tensorkeep::ranks::files::{Job, Part};
use tensorkeep::{Dtype, Snapshot, Tensor, WriteOptions};

pub fn manifest(case: &str) -> String {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/ranks");
    corpus.join(case).join("manifest.tkeep").display().to_string()
}

fn key(rank: u32) -> String {
    format!("shards/{}/0001-0000000007-1-5b7711e0-r{rank:05}.tkeep", rank % 16)
}

/// The columns of each line.
fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

fn tensor<'j>(document: &'j Json, name: &str) -> &'j Json {
    document["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == name).unwrap()
}

#[test]
fn each_piece_is_listed_with_its_rank_and_shard() {
    let done = tensorkeep(&["show", &manifest("whole"), "--pieces"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let text = text(&done);
    assert_eq!(text.lines().nth(1), Some("9 tensors in 13 pieces; 5 shards of 29.6 KiB"));
    let cells = cells(&text);
    let (zero, one) = (key(0), key(1));
    for line in [
        &["tensor", "box", "size", "rank", "shard"][..],
        &["rows", "[0:2, 0:2]", "16 B", "0", &zero],
        &["rows", "[2:4, 0:2]", "16 B", "1", &one],
        &["step", "[]", "8 B", "16", &key(16)],
        &["own", "[0:3]", "3 B", "the manifest itself"],
        &["tied.rows", "= rows"],
        &["empty", "empty"],
        &["shard", "rank", "size", "state"],
        &[&one, "1", "5.9 KiB", "ok"],
    ] {
        assert!(cells.iter().any(|cells| cells == line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn the_document_has_boxes_as_offsets_and_lengths() {
    let document = json(&["show", &manifest("whole"), "--pieces", "--json"]);
    assert_eq!(document["schema"], "tensorkeep.pieces.v1");
    let second = &tensor(&document, "rows")["pieces"][1];
    let expected = json!({ "offsets": [2, 0], "lens": [2, 2], "bytes": 16, "rank": 1, "shard": key(1) });
    assert_eq!(second, &expected);
    let scalar = &tensor(&document, "step")["pieces"];
    assert_eq!(scalar, &json!([{ "offsets": [], "lens": [], "bytes": 8, "rank": 16, "shard": key(16) }]));
    let own = &tensor(&document, "own")["pieces"];
    assert_eq!(own, &json!([{ "offsets": [0], "lens": [3], "bytes": 3, "rank": null, "shard": null }]));
    assert_eq!(tensor(&document, "empty")["pieces"], json!([]));
    assert_eq!(tensor(&document, "tied.rows")["alias_of"], "rows");
    assert_eq!(tensor(&document, "tied.rows")["pieces"], json!([]));
    // The pieces tile their tensor, whatever the layout.
    for tensor in document["tensors"].as_array().unwrap().iter().filter(|tensor| tensor["alias_of"].is_null())
    {
        let bytes: u64 =
            tensor["pieces"].as_array().unwrap().iter().map(|piece| piece["bytes"].as_u64().unwrap()).sum();
        assert_eq!(tensor["bytes"], bytes, "{tensor}");
    }
    let shards = document["shards"].as_array().unwrap();
    assert_eq!(shards.iter().map(|shard| &shard["rank"]).collect::<Vec<_>>(), [0, 1, 2, 3, 16]);
    assert_eq!(shards[1], json!({ "key": key(1), "rank": 1, "bytes": 6016, "state": "ok", "error": null }));
    assert_eq!((&document["pieces_left_out"], &document["shards_left_out"]), (&json!(0), &json!(0)));
}

#[test]
fn a_shard_that_is_not_there_is_told_and_the_rest_listed() {
    for (case, rank, state, words) in [
        ("lost-shard", 1, "not-found", "a shard of the checkpoint is lost"),
        ("another-shard", 1, "damaged", "another file in place of the shard of rank 1"),
        ("foreign-shard", 16, "damaged", "the file is cut short"),
    ] {
        let args = ["show", &manifest(case), "--pieces"];
        let done = tensorkeep(&args);
        assert_eq!(done.status.code(), Some(4), "{case}: {done:?}");
        let text = text(&done);
        assert!(text.lines().nth(1).unwrap().ends_with(", 1 of them lost or damaged"), "{text}");
        let cells = cells(&text);
        let row = cells.iter().find(|cells| cells.len() == 4 && cells[0] == key(rank)).unwrap();
        assert_eq!(row[3], state, "{text}");
        assert!(text.contains(&format!("{}: {words}", key(rank))), "{case}: {text}");
        assert!(
            cells.iter().any(|cells| cells[..] == ["rows", "[2:4, 0:2]", "16 B", "1", &key(1)]),
            "{text}"
        );
        let document = json(&[&args[..], &["--json"]].concat());
        let shards = document["shards"].as_array().unwrap();
        for shard in shards {
            let expected = if shard["rank"] == rank { state } else { "ok" };
            assert_eq!(shard["state"], expected, "{case}: {shard}");
        }
        let faulty = shards.iter().find(|shard| shard["rank"] == rank).unwrap();
        assert_eq!(faulty["error"]["kind"], state);
    }
}

#[test]
fn a_pattern_narrows_the_pieces_and_the_shards() {
    let lost = manifest("lost-shard");
    let document = json(&["show", &lost, "--pieces", "--only", "st*", "--json"]);
    assert_eq!(document["tensors"].as_array().unwrap().len(), 1);
    assert_eq!(document["shards"].as_array().unwrap().len(), 1);
    assert_eq!(document["shards"][0]["rank"], 16);
    // None of its pieces lies in the shard that is lost.
    assert_eq!(tensorkeep(&["show", &lost, "--pieces", "--only", "step"]).status.code(), Some(0));
    assert_eq!(tensorkeep(&["show", &lost, "--pieces", "--only", "rows"]).status.code(), Some(4));
    assert_eq!(refused(&["show", &lost, "--pieces", "--only", "nothing"]).0, 3);
    assert_eq!(refused(&["show", &lost, "--pieces", "--depth", "1"]).0, 2);
}

#[test]
fn a_file_without_shards_says_so_in_one_line() {
    let run = Run::new("no-pieces");
    let file = run.path("file.tkeep");
    let done = tensorkeep(&["show", &file, "--pieces"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(text(&done), format!("{file}: is one file without shards: each tensor is whole in it\n"));
    let document = json(&["show", &file, "--pieces", "--json"]);
    assert_eq!(document["shards"], json!([]));
    let pieces = &tensor(&document, "fc.weight")["pieces"];
    let whole = json!([{ "offsets": [0, 0], "lens": [30, 10], "bytes": 1200, "rank": null, "shard": null }]);
    assert_eq!(pieces, &whole);
    let folder = Path::new(&manifest("whole")).parent().unwrap().to_owned();
    let shard = folder.join(key(1)).display().to_string();
    let told = text(&tensorkeep(&["show", &shard, "--pieces"]));
    assert!(told.contains("is itself a shard") && told.lines().count() == 1, "{told}");
    let foreign = run.path("foreign.safetensors");
    assert!(tensorkeep(&["export", &file, "-o", &foreign, "--only", "fc*"]).status.success());
    let told = text(&tensorkeep(&["show", &foreign, "--pieces"]));
    assert!(told.contains("is no checkpoint of many ranks") && told.lines().count() == 1, "{told}");
}

#[test]
fn names_of_pieces_cannot_steer_the_terminal() {
    let run = Run::new("steering-pieces");
    let path = run.folder.join("job.tkeep");
    // Names have no control characters by the format, and these may be in them.
    let name = "a\u{202e}b\u{200b}";
    let mut job = Job::new("0001-0000000030-1-5b7711e0", 2).unwrap();
    job.layout(name, Dtype::U8, &[4], &Layout::sharded(0, 2).unwrap()).unwrap();
    job.assign(true).unwrap();
    let part = |_: &Part| Tensor::new(Dtype::U8, &[2], &[1, 2]);
    let shards =
        job.owners().into_iter().map(|rank| job.write_shard(&path, rank, &WriteOptions::new(), part));
    let shards = shards.map(Result::unwrap).collect();
    job.write_manifest(&path, &Snapshot::new(), &WriteOptions::new(), shards).unwrap();
    let path = path.display().to_string();
    let done = tensorkeep(&["show", &path, "--pieces"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let told = text(&done);
    assert!(!told.contains(['\u{200b}', '\u{202e}']), "{told:?}");
    let rows = told.lines().filter(|line| line.starts_with(r"a\u{202e}b\u{200b}")).count();
    assert_eq!(rows, 2, "{told}");
    let done = tensorkeep(&["show", &path, "--pieces", "--json"]);
    assert!(!text(&done).contains(['\u{200b}', '\u{202e}']), "{done:?}");
    assert_eq!(serde_json::from_str::<Json>(&text(&done)).unwrap()["tensors"][0]["name"], name);
}
