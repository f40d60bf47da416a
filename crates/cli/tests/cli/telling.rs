//! What is unknown, missing, renamed or not finite is said, and never shown as a number that is
//! something else.

use super::{Run, json, refused, tensorkeep, text};
use serde_json::Value as Json;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::{Progress, Snapshot, Store, StoreOptions};

/// A run of these values of a metric, a step each.
fn logged(folder: &str, metric: &str, values: &[f64]) {
    let store = Store::open(Local::create(folder).unwrap(), StoreOptions::new()).unwrap();
    for (step, value) in (1..).zip(values) {
        let progress = Progress::new(step);
        store.log(&progress, [(metric, *value)]);
        store.save(&Snapshot::new().progress(progress)).unwrap();
    }
    store.close().unwrap();
}

fn warnings(args: &[&str]) -> String {
    String::from_utf8(tensorkeep(args).stderr).unwrap()
}

#[test]
fn ls_shows_metrics_that_are_not_finite() {
    let run = Run::new("not-finite");
    let folder = run.path("diverged");
    logged(&folder, "loss", &[0.5, f64::NAN, f64::NEG_INFINITY]);
    let table = text(&tensorkeep(&["ls", &folder]));
    for (line, value) in table.lines().skip(1).zip(["  0.5  ", "  NaN  ", "  -inf  "]) {
        assert!(line.contains(value), "{table}");
    }
    let listed = json(&["ls", &folder, "--json"]);
    let loss = |at: usize| &listed["checkpoints"][at]["metrics"]["loss"];
    assert_eq!([loss(0), loss(1), loss(2)], [&Json::from(0.5), &"NaN".into(), &"-inf".into()]);
    let history = json(&["history", &folder, "--json"]);
    assert_eq!(history["checkpoints"][1]["metrics"]["loss"], "NaN");
    let best = json(&["show", &format!("{folder}@best:loss:min"), "--json"]);
    assert_eq!(best["records"]["tensorkeep.progress"]["step"], 1);
}

#[test]
fn what_nothing_tells_of_an_attempt_is_no_number() {
    let run = Run::new("unknown-attempts");
    let folder = run.path("run");
    run.damage("run/0001-0000000100.tkeep", 5);
    run.damage("run/0001-0000000200.tkeep", 5);
    let _next = Store::open(Local::create(&folder).unwrap(), StoreOptions::new()).unwrap();
    let table = text(&tensorkeep(&["history", &folder]));
    let first: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(first[first.len() - 4..], ["-", "-", "-", "died"], "steps, saves, resumed from: {table}");
    assert_eq!(json(&["history", &folder, "--json"])["attempts"][0]["saves"], Json::Null);
    let page = run.path("page.html");
    assert!(tensorkeep(&["report", &folder, "-o", &page]).status.code().is_some());
    let page = std::fs::read_to_string(&page).unwrap();
    let table = page.split("Attempts as a table").nth(1).unwrap().split("</table>").next().unwrap();
    let rows: Vec<Vec<&str>> =
        table.split("<tr>").skip(2).map(|row| row.split("<td").skip(1).collect()).collect();
    let cell = |row: usize, at: usize| rows[row][at].split('>').nth(1).unwrap().split('<').next().unwrap();
    assert_eq!(
        [cell(0, 5), cell(0, 6), cell(0, 8)],
        ["200", "–", "–"],
        "last step, saves, repeated: {rows:?}"
    );
    assert_eq!([cell(1, 5), cell(1, 6), cell(1, 8)], ["–", "–", "–"], "{rows:?}");
}

#[test]
fn a_history_without_a_readable_checkpoint_says_so() {
    let run = Run::new("history-damaged");
    let folder = run.path("run");
    run.damage("run/0001-0000000200.tkeep", 5);
    let older = tensorkeep(&["history", &folder]);
    assert!(text(&older).contains("as 0001-0000000100 has it, the newest that can be read"), "{older:?}");
    assert!(warnings(&["history", &folder]).contains("0001-0000000200"), "{older:?}");
    run.damage("run/0001-0000000100.tkeep", 5);
    let none = tensorkeep(&["history", &folder]);
    assert_eq!(none.status.code(), Some(4));
    assert!(
        text(&none).ends_with(
            "\n1 attempt; the newest: running; no checkpoint can be read, so what was logged is not known\n"
        ),
        "{none:?}"
    );
    assert_eq!(warnings(&["history", &folder]).lines().filter(|line| line.starts_with("warning")).count(), 2);
}

#[test]
fn ls_of_a_folder_of_runs_heeds_its_flags() {
    let run = Run::new("folder-flags");
    for (name, metric) in [("a", "loss"), ("b", "accuracy"), ("c", "loss")] {
        logged(&run.path(&format!("runs/{name}")), metric, &[0.25]);
    }
    let folder = run.path("runs");
    let one = text(&tensorkeep(&["ls", &folder, "-n", "1"]));
    assert!(one.lines().count() == 3 && one.ends_with("1 of 3 runs, those saved last\n"), "{one}");
    assert_eq!(json(&["ls", &folder, "-n", "2", "--json"])["runs"].as_array().unwrap().len(), 2);
    let columns = text(&tensorkeep(&["ls", &folder, "--metrics", "accuracy"]));
    let header: Vec<&str> = columns.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header.last(), Some(&"accuracy"), "{columns}");
    assert!(columns.contains("0.25") && !columns.contains("loss"), "{columns}");
    let (code, message) = refused(&["ls", &folder, "--metrics", "los"]);
    assert!(code == 3 && message.contains("\"los\"") && message.contains("\"loss\""), "{message}");
    let newest = json(&["ls", &run.path("run"), "-n", "1", "--json"]);
    assert_eq!(newest["checkpoints"].as_array().unwrap().len(), 1);
}

#[test]
fn a_link_that_leads_nowhere_is_one_row() {
    let run = Run::new("dangling");
    let link = run.path("run/0001-0000000150.tkeep");
    std::os::unix::fs::symlink("/nowhere/at.all", &link).unwrap();
    let output = tensorkeep(&["verify", &run.path("run")]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = text(&output);
    assert!(
        said.contains("0001-0000000100.tkeep: ok") && said.contains("0001-0000000200.tkeep: ok"),
        "{said}"
    );
    assert!(said.contains("0001-0000000150.tkeep: does not open"), "{said}");
    assert!(
        said.contains("1 of 3 checkpoints damaged; the newest that verifies is 0001-0000000200"),
        "{said}"
    );
    let copied = tensorkeep(&["cp", &run.path("run"), &run.path("copy")]);
    assert_eq!(copied.status.code(), Some(6), "{copied:?}");
    assert!(Path::new(&run.path("copy/0001-0000000200.tkeep")).exists());
    let listed = text(&tensorkeep(&["ls", &run.path("run")]));
    assert!(listed.contains(", 1 of which cannot be read; → a resume looks at 200 first"), "{listed}");
    let points = tensorkeep(&["history", &run.path("run"), "--tensor", "fc.weight"]);
    let row = text(&points).lines().nth(2).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((points.status.code(), row[0].as_str(), row.last().unwrap().as_str()), (Some(6), "150", "io"));
}

#[test]
fn a_copy_under_another_steps_name_is_told() {
    let run = Run::new("renamed");
    let folder = run.path("run");
    std::fs::copy(run.path("run/0001-0000000100.tkeep"), run.path("run/0001-0000000300.tkeep")).unwrap();
    let listed = tensorkeep(&["ls", &folder]);
    assert!(text(&listed).lines().nth(3).unwrap().contains("renamed"), "{listed:?}");
    assert!(
        warnings(&["ls", &folder]).contains("0001-0000000300: was saved as 0001-0000000100"),
        "{listed:?}"
    );
    let listed = json(&["ls", &folder, "--json"]);
    let saved_as = |at: usize| &listed["checkpoints"][at]["saved_as"];
    assert_eq!([saved_as(1), saved_as(2)], [&Json::Null, &"0001-0000000100".into()]);
    let verified = tensorkeep(&["verify", &folder]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("was saved as 0001-0000000100: its file was copied or renamed"));
    assert_eq!(json(&["verify", &folder, "--json"])["checkpoints"][2]["saved_as"], "0001-0000000100");
    assert!(text(&tensorkeep(&["why", &folder])).contains("was saved as 0001-0000000100"));
}

#[test]
fn why_ends_as_the_resume_would_that_it_tells_of() {
    let run = Run::new("why-none");
    run.damage("run/0001-0000000200.tkeep", 4096 + 10);
    assert_eq!(tensorkeep(&["why", &run.path("run")]).status.code(), Some(0));
    run.damage("run/0001-0000000100.tkeep", 4096 + 10);
    let output = tensorkeep(&["why", &run.path("run")]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output).contains("resume: fails, none verifies"), "{output:?}");
}
