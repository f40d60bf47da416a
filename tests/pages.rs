//! The documentation pages: their length, their links, and that each snippet is a doctest.

use std::fs;
use std::path::{Path, PathBuf};

const REPOSITORY: &str = "https://github.com/tensorkeep/tensorkeep/blob/main/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files directly in a folder of the repository.
fn pages_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

fn pages() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let readmes = crates.map(|member| member.join("README.md")).filter(|path| path.is_file());
    [pages_in(""), pages_in("docs"), pages_in("docs/guide"), pages_in(".github"), readmes.collect()].concat()
}

/// The targets of links, outside of code blocks.
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

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[test]
fn every_link_into_the_repository_leads_to_a_file() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let file = link.split('#').next().unwrap();
            let target = match file.strip_prefix(REPOSITORY) {
                Some(file) => root().join(file),
                None if file.is_empty() || file.contains("://") => continue,
                None => page.parent().unwrap().join(file),
            };
            count += 1;
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
    assert!(count > 40, "{count} links were looked at");
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    assert_eq!(links("a [b](c.md) and\n```rust\nx[0](1)\n```\n[d](e#f)"), ["c.md", "e#f"]);
}

#[test]
fn the_readme_has_at_most_eight_hundred_words() {
    let count = words(include_str!("../README.md"));
    assert!(count <= 800, "{count} words");
}

#[test]
fn pages_of_the_guide_have_at_most_nine_hundred_words() {
    for page in pages_in("docs/guide") {
        let count = words(&fs::read_to_string(&page).unwrap());
        assert!(count <= 900, "{}: {count} words", page.display());
    }
}

/// mdbook silently omits a page that the summary does not name.
#[test]
fn the_summary_names_every_page_of_the_guide() {
    let summary = include_str!("../docs/guide/SUMMARY.md");
    for page in pages_in("docs/guide") {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("]({name})")), "{name}");
    }
}

/// `mod pages` of src/lib.rs is the list. Pages of other crates belong to those crates, which name
/// them in their own src/lib.rs: this package's tests do not compile candle or burn.
#[test]
fn every_page_with_rust_in_it_is_a_doctest() {
    let own = include_str!("../src/lib.rs").split_once("mod pages {").unwrap().1;
    let members = ["candle", "burn"].map(|member| {
        let text = fs::read_to_string(root().join(format!("crates/{member}/src/lib.rs"))).unwrap();
        text.replace("\"../../../docs/", "\"../docs/")
    });
    let list = [own, &members[0], &members[1]].concat();
    let mut count = 0;
    let all = [pages_in(""), pages_in("docs"), pages_in("docs/guide")].concat();
    for page in all.into_iter().filter(|page| !page.ends_with("SUMMARY.md")) {
        let text = fs::read_to_string(&page).unwrap();
        for fence in text.lines().filter(|line| line.trim_start().starts_with("```rust")) {
            assert!(!fence.contains("ignore"), "{}: {fence}", page.display());
        }
        if text.contains("```rust") || page.parent().unwrap().ends_with("guide") {
            count += 1;
            let path = page.strip_prefix(root()).unwrap().display().to_string();
            assert!(list.contains(&format!("\"../{path}\"")), "{path} is not in src/lib.rs");
        }
    }
    assert!(count > 8, "{count} pages were looked at");
}
