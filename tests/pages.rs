//! The pages for people: the README stays short, and links lead somewhere. Their snippets are compiled as doctests.

use std::fs;
use std::path::{Path, PathBuf};

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_folder = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let crates = in_folder(root.join("crates")).map(|member| member.join("README.md"));
    let all = in_folder(root.to_owned()).chain(in_folder(root.join("docs"))).chain(crates);
    all.filter(|path| path.extension().is_some_and(|extension| extension == "md") && path.is_file()).collect()
}

/// What stands in the parentheses of links, outside of code.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (number, prose) in text.split("```").enumerate() {
        if number % 2 == 0 {
            let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| target));
        }
    }
    found
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            count += 1;
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
    assert!(count > 10, "{count} links were looked at");
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    assert_eq!(links("a [b](c.md) and\n```rust\nx[0](1)\n```\n[d](e#f)"), ["c.md", "e#f"]);
}

#[test]
fn the_readme_has_at_most_eight_hundred_words() {
    let readme = include_str!("../README.md");
    assert!(readme.split_whitespace().count() <= 800, "{} words", readme.split_whitespace().count());
}
