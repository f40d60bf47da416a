//! The layers of ARCHITECTURE.md: imports point down only, modules on one row do not import each
//! other, and unsafe code is confined to listed files.

#[path = "architecture/graph.rs"]
mod graph;

use graph::{Graph, circle};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rows of ARCHITECTURE.md, lowest first.
const ROWS: &[&[&str]] = &[
    &["clock", "error", "sync"],
    &["deadline"],
    &["dtype", "budget", "buffer", "names", "pipeline"],
    &["layout", "tensor"],
    &["format"],
    &["codec", "collective", "engine", "snapshot"],
    &["state_dict"],
    &["writer", "checkpoint"],
    &["model", "serde", "store"],
    &["convert", "testing"],
];

/// The only files with unsafe code: the mapping itself, and the unsafe function that passes its
/// promise on. (Non-temporal copies are in a crate of their own, crates/memcpy.)
const UNSAFE: &[&str] = &["checkpoint/open.rs", "engine/vfs/map.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn files() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    let name = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Code without comments and without the tests at the end of a file.
fn code(text: &str) -> String {
    let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let line_code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text[..tests].lines().map(line_code).collect::<Vec<_>>().join("\n")
}

/// The modules named after `crate::`, lists in braces included.
fn imports(code: &str) -> Vec<String> {
    code.match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with('$'))
        .flat_map(|(at, found)| {
            let rest = &code[at + found.len()..];
            let inside = rest.strip_prefix('{').map(|list| &list[..list.find('}').unwrap_or(0)]);
            let items: Vec<&str> = inside.map_or_else(|| vec![rest], |list| list.split(',').collect());
            items.into_iter().map(first_word).collect::<Vec<_>>()
        })
        .collect()
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_point_down_only() {
    let row: BTreeMap<&str, usize> =
        ROWS.iter().enumerate().flat_map(|(row, names)| names.iter().map(move |name| (*name, row))).collect();
    let mut wrong = Vec::new();
    for (file, text) in files() {
        let room = file.split(['/', '.']).next().unwrap();
        if room == "lib" || file.contains("/tests") {
            continue;
        }
        let own_row = *row
            .get(room)
            .unwrap_or_else(|| panic!("src/{file} is in no row of this test and ARCHITECTURE.md"));
        for import in imports(&code(&text)) {
            let Some(&other_row) = row.get(import.as_str()) else {
                // Types re-exported at the root: errors and results only.
                assert!(
                    ["Error", "ErrorKind", "Result", "Buffer"].contains(&import.as_str()),
                    "src/{file} imports crate::{import} from the root: name its module"
                );
                continue;
            };
            if import != room && other_row >= own_row {
                wrong.push(format!("src/{file} (row {own_row}) imports {import} (row {other_row})"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

/// Files of one folder, each with those in its own folder, use each other in one direction.
#[test]
fn no_files_of_a_folder_use_each_other_in_a_circle() {
    let all = all_files();
    let crates = all.iter().filter_map(|(file, _)| file.split_once("src/").map(|(root, _)| root));
    let mut roots: Vec<&str> = crates.collect();
    roots.dedup();
    assert!(roots.len() > 10, "the test sees nothing: {roots:?}");
    for root in roots {
        let of_root = all.iter().filter_map(|(file, text)| {
            let file = file.strip_prefix(root)?.strip_prefix("src/")?;
            (!file.contains("tests")).then(|| (file, code(text)))
        });
        let found = circle(&Graph::new(of_root).siblings());
        assert!(found.is_none(), "{root}src: each uses the next, and the last one the first: {found:?}");
    }
}

#[test]
fn the_test_of_circles_sees_them_through_reexports() {
    let files = |store: &str| {
        [
            ("lib.rs", "mod a;\nmod b;\npub use b::deep::Thing;"),
            ("a.rs", store),
            ("b.rs", "mod deep;"),
            ("b/deep.rs", "use crate::{a::{self, Other}, c};\npub struct Thing;"),
        ]
        .map(|(file, code)| (file, code.to_owned()))
    };
    let found = |store| circle(&Graph::new(files(store)).siblings());
    assert_eq!(found("pub struct Other;"), None);
    assert_eq!(found("use super::Thing;").map(|way| way.len()), Some(2));
    assert_eq!(found("fn f() { super::b::deep::g() }").map(|way| way.len()), Some(2));
}

/// `name.rs` beside `name/`; only modules shared by tests are a `mod.rs`, which cargo takes for no
/// test.
#[test]
fn modules_are_named_after_themselves() {
    let named_mod = |file: &String| file.ends_with("/mod.rs") && !file.contains("tests/");
    let found: Vec<String> = all_files().into_iter().map(|(file, _)| file).filter(named_mod).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_import_test_sees_lists_and_single_imports() {
    let found = imports(
        "use crate::engine::{Blob, Lock};\nuse crate::{store, names::nearest};\nlet x = crate::Result::Ok(1);",
    );
    assert_eq!(found, ["engine", "store", "names", "Result"]);
}

#[test]
fn unsafe_code_is_in_its_room_only() {
    let word = "unsafe";
    let mut found: Vec<String> = files()
        .into_iter()
        .filter(|(_, text)| {
            let code = code(text);
            [format!("{word} {{"), format!("{word} fn"), format!("{word} impl")]
                .iter()
                .any(|use_| code.contains(use_))
        })
        .map(|(file, _)| file)
        .collect();
    found.sort();
    assert_eq!(found, UNSAFE);
}

#[test]
fn every_file_says_first_what_it_owns_and_stays_readable() {
    for (file, text) in files() {
        assert!(text.starts_with("//!"), "src/{file} does not begin with what it owns");
        let lines = code(&text).lines().count();
        assert!(
            lines <= 400 || file.ends_with("tests.rs"),
            "src/{file} has {lines} lines of code: two rooms in one?"
        );
    }
}

/// Functions of more than 60 lines, by name and length.
fn long_functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let functions = lines.iter().enumerate().filter_map(|(number, line)| {
        let (before, name) = line.split_once("fn ")?;
        let is_item =
            before.split_whitespace().all(|word| word.chars().next().is_some_and(char::is_alphabetic));
        (is_item && !line.ends_with(';')).then(|| (number, indent(line), first_word(name)))
    });
    let length = |(start, depth, name): (usize, usize, String)| {
        let end = lines[start..].iter().position(|line| indent(line) == depth && line.trim() == "}")?;
        (end >= 60).then_some((name, end + 1))
    };
    functions.filter_map(length).collect()
}

#[test]
fn functions_fit_a_screen() {
    let product =
        all_files().into_iter().filter(|(file, _)| file.contains("src/") && !file.contains("tests"));
    let long: Vec<(String, String, usize)> = product
        .flat_map(|(file, text)| {
            let long = long_functions(&code(&text)).into_iter();
            long.map(move |(name, lines)| (file.clone(), name, lines))
        })
        .collect();
    assert!(long.is_empty(), "functions of more than 60 lines: {long:#?}");
    let sample = format!("fn short() {{\n}}\nfn long() {{\n{}}}\n", "    a();\n".repeat(60));
    assert_eq!(long_functions(&sample), [("long".to_owned(), 62)], "the test sees nothing");
}

#[test]
fn the_files_of_the_plan_are_there() {
    let plan = include_str!("../ARCHITECTURE.md").split("```").nth(1).unwrap();
    let plan = plan.split("\ncrates/").next().unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/.".contains(c);
    let named: Vec<&str> = plan.split(|c| !is_name(c)).filter(|word| word.ends_with(".rs")).collect();
    let files: Vec<String> = files().into_iter().map(|(file, _)| format!("/{file}")).collect();
    assert!(named.len() > 40, "the test sees nothing: {named:?}");
    for name in named {
        assert!(files.iter().any(|file| file.ends_with(&format!("/{name}"))), "there is no {name}");
    }
}

/// Every Rust file of the workspace.
fn all_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "crates", "tests", "examples", "benches", "fuzz/fuzz_targets"] {
        sources(&root.join(folder), &mut found);
    }
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Line numbers of comments that are too long: prose, not code blocks, tables or indented text.
fn long_comments(text: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let comment = line.trim_start();
        let Some(body) = comment.strip_prefix("//").map(|body| body.trim_start_matches(['/', '!'])) else {
            is_code = false;
            continue;
        };
        is_code ^= body.trim_start().starts_with("```");
        let is_prose = !is_code && !body.trim_start().starts_with(['|', '`']) && !body.starts_with("    ");
        if is_prose && line.chars().count() > 100 && body.trim().contains(' ') {
            found.push(number + 1);
        }
    }
    found
}

#[test]
fn comments_end_at_column_100() {
    let long = all_files()
        .into_iter()
        .flat_map(|(file, text)| long_comments(&text).into_iter().map(move |line| format!("{file}:{line}")));
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "comments beyond column 100:\n{}", long.join("\n"));
    let words = format!("/// {}\n/// ```\n/// {}\n", "a ".repeat(50), "b ".repeat(50));
    assert_eq!(long_comments(&words), [1], "the test sees nothing");
}

#[test]
fn names_of_tests_have_at_most_60_characters() {
    let names = |text: &str| -> Vec<String> {
        let tests = text.split("#[test]").skip(1);
        tests.filter_map(|test| Some(first_word(test.split_once("fn ")?.1))).collect()
    };
    for (file, text) in all_files() {
        for name in names(&text) {
            assert!(name.len() <= 60, "{file}: {name} has {} characters", name.len());
        }
    }
}

/// `cargo tree` from the dependency up to this package, including everything that tests build.
fn ways_to(dependency: &str) -> String {
    let arguments = ["tree", "--offline", "--all-features", "-e", "all", "--invert", dependency];
    let tree = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    String::from_utf8(tree.unwrap().stdout).unwrap()
}

#[test]
fn testing_this_package_compiles_nothing_heavy() {
    assert!(ways_to("serde").contains("tensorkeep"), "the test sees nothing");
    for heavy in ["tokio", "pyo3", "candle-core", "burn-core"] {
        let ways = ways_to(heavy);
        assert!(ways.is_empty(), "heavy dependencies are for members: {ways}");
    }
}
