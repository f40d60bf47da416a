//! Files that every reader refuses, each for one reason, in the files beside this one by subject.

mod contents;
mod frame;
mod index;
mod storage;
mod tables;

use crate::Case;
use crate::accepted::base;
use serde_json::json;
use test_support::build::{Container, region};

pub fn reject(
    file: &str,
    rules: &[&'static str],
    (expect, at): (&'static str, &'static str),
    what: &'static str,
    bytes: Vec<u8>,
) -> Case {
    Case {
        file: format!("reject/{file}.tkeep"),
        rules: rules.to_vec(),
        expect,
        at,
        what,
        bytes,
        beside: Default::default(),
        facts: json!({}),
    }
}

pub const DAMAGED: (&str, &str) = ("damaged", "open");
pub const FOREIGN: (&str, &str) = ("foreign", "open");
const NEWER: (&str, &str) = ("newer-version", "open");
pub const READ: (&str, &str) = ("damaged", "read");
const VERIFY: (&str, &str) = ("damaged", "verify");

pub fn cases() -> Vec<Case> {
    let parts = [
        frame::files,
        frame::headers,
        frame::footers,
        frame::places,
        index::regions,
        tables::columns,
        tables::payloads,
        tables::ends,
        tables::names,
        tables::shapes,
        tables::chunks,
        tables::records,
        storage::extents,
        storage::chunks,
        contents::aliases,
        contents::records,
        contents::budgets,
    ];
    parts.into_iter().flat_map(|part| part()).collect()
}

fn with_sections(edit: impl FnOnce(&mut Vec<(u32, Vec<u8>)>)) -> Vec<u8> {
    let container = base();
    let mut sections = container.payloads();
    edit(&mut sections);
    container.finish_with(&region(&sections))
}

/// One tensor `a`; `edit` alters its first column.
pub fn one(edit: impl FnOnce(&mut Container)) -> Vec<u8> {
    let mut container = Container::new();
    edit(&mut container);
    container.finish()
}
