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
    assert_eq!(elements.iter().filter(|name| *name == "script").count(), 3, "theme, data, scripts");
    for name in ["img", "link", "iframe", "object", "embed", "base"] {
        assert!(!elements.iter().any(|element| element == name), "{name}");
    }
    for (key, value) in &attributes {
        let is_here = key == "href" && value.starts_with('#');
        assert!(
            is_here || !["src", "href", "action", "srcset"].contains(&key.as_str()) && !key.starts_with("on"),
            "{key}={value}"
        );
    }
    let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_namespace.contains("http:") && !page.contains("https:") && !page.contains("@import"));
    assert!(page.contains("&lt;script&gt;alert(1)"), "the hostile name is shown as text");
}

/// What stands on the page without a script.
fn without_scripts(page: &str) -> String {
    page[..page.find("<script type=\"application/json\"").expect("data")].to_owned()
}

#[test]
fn what_a_person_looks_for_reads_without_a_script() {
    let run = Run::new(6);
    let page = without_scripts(&run.page());
    for expected in [
        "It resumes from step 6, but no kept checkpoint is finite.",
        "NaN in 1 of 22 tensors",
        "broken.weight",
        "Best loss",
        "6 of 6, every byte",
        "2 attempts:",
        "None in the 6 that were read whole.",
        "One save, of 4",
        "id=\"c6\"",
        "all, 1 best loss (min)",
    ] {
        assert!(page.contains(expected), "{expected:?} is not on the page");
    }
    run.damage("0002-0000000006.tkeep");
    let page = run.page();
    parse(&page);
    let page = without_scripts(&page);
    for expected in ["1 of the 6 that were read whole damaged", "Bit rot in <code>", "checksum of chunk 0"] {
        assert!(page.contains(expected), "{expected:?} is not on the page");
    }
}

#[test]
fn nothing_is_called_verified_that_was_not() {
    let run = Run::new(6);
    let reader = tensorkeep::Reader::open(&run.0).unwrap();
    let mut options = tensorkeep_cli::report::Options::titled("quick");
    options.quick = true;
    let page = without_scripts(&tensorkeep_cli::report::html(&reader, &options).unwrap());
    assert!(page.contains("Step 6 is the newest; not verified."));
    assert!(page.contains("Nothing was verified: made with --quick."));
    assert!(!page.contains(">verified<") && !page.contains("every byte verified"));
}

#[test]
fn fifty_checkpoints_are_below_a_megabyte() {
    let page = Run::with(50, 1200).page();
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn an_empty_run_has_a_page_too() {
    let run = Run::new(0);
    let page = run.page();
    parse(&page);
    assert!(page.contains("Nothing to resume from: no checkpoint was saved yet."));
    assert!(!page.contains("id=\"damage\""), "sections without data are left out");
}
