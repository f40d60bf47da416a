//! The numbered rules of SPEC.md against the tests that name them.

use super::{root, spec};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tests of the rules of durable writes, beside the code: they need its `Vfs`.
const TESTS_OF_THE_ENGINE: [&str; 2] = ["src/engine/local/tests.rs", "src/engine/local/tests/plain.rs"];

/// The numbers of every `R` that is a word of its own.
fn tags(text: &str) -> BTreeSet<u32> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let starts = text.match_indices('R').map(|(at, _)| at).filter(|&at| at == 0 || !word(bytes[at - 1]));
    starts
        .filter_map(|at| {
            let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let ends = bytes.get(at + 1 + digits).is_none_or(|&byte| !word(byte));
            if ends { text[at + 1..at + 1 + digits].parse().ok() } else { None }
        })
        .collect()
}

/// The tags of rules in the order of SPEC.md; other mentions are not in brackets.
fn rules() -> Vec<u32> {
    let spec = spec();
    spec.split("[R").skip(1).map(|rest| rest.split(']').next().unwrap().parse().unwrap()).collect()
}

fn test_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            test_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "json") {
            found.push(path);
        }
    }
}

#[test]
fn rules_are_numbered_in_order() {
    assert!(rules().into_iter().eq(1..=rules().len() as u32), "{:?}", rules());
}

#[test]
fn every_rule_is_named_by_a_test_and_every_named_rule_exists() {
    let mut files = Vec::new();
    test_files(&root().join("tests"), &mut files);
    files.extend(TESTS_OF_THE_ENGINE.map(|file| root().join(file)));
    let rules: BTreeSet<u32> = rules().into_iter().collect();
    let mut named = BTreeSet::new();
    for file in files {
        let tags = tags(&fs::read_to_string(&file).unwrap());
        let unknown: Vec<_> = tags.difference(&rules).collect();
        assert!(unknown.is_empty(), "{} names rules that SPEC.md does not have: {unknown:?}", file.display());
        named.extend(tags);
    }
    let unproven: Vec<_> = rules.difference(&named).collect();
    assert!(unproven.is_empty(), "rules that no test names: {unproven:?}");
}
