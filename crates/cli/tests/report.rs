//! The page of a run: well-formed, self-contained, small, and safe against hostile names.

mod common;

use common::Run;

/// Every tag is closed in its turn, every attribute is quoted, and which elements and attributes
/// there are.
fn parse(page: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut open, mut elements, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag that ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of turn");
            continue;
        }
        let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut attrs) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        while let Some((key, value)) = attrs.trim_start().split_once("=\"") {
            let (value, next) = value.split_once('"').expect("a quoted value");
            attributes.push((key.to_owned(), value.to_owned()));
            attrs = next;
        }
        elements.push(name.to_owned());
        if closed {
            continue;
        }
        open.push(name.to_owned());
        if name == "script" || name == "style" {
            rest = &rest[rest.find(&format!("</{name}>")).expect("an end of it")..];
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    (elements, attributes)
}

#[test]
fn the_page_is_well_formed_and_loads_nothing() {
    let run = Run::new(6);
    let page = run.page();
    let (elements, attributes) = parse(&page);
    assert_eq!(elements.iter().filter(|name| *name == "script").count(), 1);
    for name in ["img", "link", "iframe", "object", "embed", "base"] {
        assert!(!elements.iter().any(|element| element == name), "{name}");
    }
    for (key, value) in &attributes {
        assert!(
            !["src", "href", "action", "srcset"].contains(&key.as_str()) && !key.starts_with("on"),
            "{key}={value}"
        );
    }
    assert!(!page.contains("http") && !page.contains("url(") && !page.contains("@import"));
    assert!(page.contains("&lt;script&gt;alert(1)"), "the hostile name is shown as text");
}

#[test]
fn the_page_says_what_a_person_looks_for() {
    let run = Run::new(6);
    let page = run.page();
    for expected in [
        "Yes, from step 6.",
        "NaN or infinities in 1 tensor",
        "attempt 2",
        "best 0.",
        "Where the bytes are",
        "From 0001-0000000001 to 0002-0000000006",
        "attempt 1 → 2",
        "training stands still for a save, median",
        "at worst",
        "Times are those of 4 saves",
    ] {
        assert!(page.contains(expected), "{expected:?} is not on the page");
    }
    run.damage("0002-0000000006.tkeep");
    let page = run.page();
    parse(&page);
    assert!(page.contains("Yes, from step 5, with a loss.") && page.contains("checksum of chunk 0"));
}

#[test]
fn fifty_checkpoints_are_below_a_megabyte() {
    let page = Run::with(50, 1200).page();
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert_eq!(page.matches("class=\"pair\"").count(), 15, "every two of six");
}

#[test]
fn an_empty_run_has_a_page_too() {
    let run = Run::new(0);
    let page = run.page();
    parse(&page);
    assert!(page.contains("No checkpoints yet"));
    assert!(page.contains("from an attempt's second save on"));
}
