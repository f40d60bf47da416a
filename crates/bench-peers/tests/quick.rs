//! The whole program, called as by CI and the README.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn a_quick_run_measures_every_operation_of_the_small_workloads() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("quick-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (json, page) = (dir.join("rows.json"), dir.join("report.html"));
    let out = Command::new(env!("CARGO_BIN_EXE_bench-peers"))
        // Python's peers take minutes to start, and are tested on other machines.
        .args(["--workload", "s,n", "--tensors", "5000", "--curves", "--quick"])
        .args(["--python", "no-such-python", "--dir"])
        .arg(&dir)
        .arg("--json")
        .arg(&json)
        .arg("--report")
        .arg(&page)
        .output()
        .unwrap();
    let (said, rows) = (String::from_utf8_lossy(&out.stdout), std::fs::read_to_string(&json));
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    let found: Value = serde_json::from_str(&rows.unwrap()).unwrap();
    let page = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();

    let skipped = found["skipped"].as_array().unwrap();
    let refused = |words: &Value| words.as_str().unwrap().contains("raw: write, DONTCACHE");
    let unexpected: Vec<_> = skipped.iter().skip(1).filter(|words| !refused(words)).collect();
    assert!(skipped[0].as_str().unwrap().contains("no-such-python"), "{skipped:?}");
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let rows = found["rows"].as_array().unwrap();
    let has = |workload: &str, op: &str, system: &str| {
        rows.iter().any(|row| {
            let is_it = row["workload"] == workload && row["op"] == op && row["system"] == system;
            is_it && (op == "size" || row["seconds"]["median"].as_f64().unwrap() > 0.0)
        })
    };
    for op in [
        "save_durable",
        "stage",
        "save_async",
        "open",
        "touch_all",
        "touch_once",
        "load_fresh",
        "load_into",
        "map_copy",
        "save: commit",
        "size",
    ] {
        assert!(has("s", op, "tensorkeep") && has("n", op, "tensorkeep"), "{op}");
    }
    for peer in ["safetensors", "ztensor", "burn-pack"] {
        for op in ["save_durable", "save_as_called", "open", "touch_all", "load_fresh", "size"] {
            assert!(has("s", op, peer) && has("n", op, peer), "{peer}, {op}");
        }
        assert!(has("n", "one_tensor", peer) && has("n", "load_cold", peer), "{peer}");
    }
    for (curve, op) in
        [("bytes", "save_durable"), ("tensors", "open"), ("checkpoints", "list"), ("sparse", "open")]
    {
        assert!(has(curve, op, "tensorkeep"), "{curve}, {op}");
    }
    assert!(said.contains("open (n)") && page.matches("<svg").count() == 3, "{said}");
}
