//! Errors of aliases and of records; and files that exceed a reader's budget.

use super::{DAMAGED, READ, one, reject, with_sections};
use crate::Case;
use crate::accepted::base;
use serde_json::{Value, json};
use test_support::build::{Columns, Stored};

pub(super) fn aliases() -> Vec<Case> {
    let with = |names: &[u8], ends: &[u32], targets: &[u32]| {
        let mut container = base();
        container.aliases = Some(Columns::aliases(names, ends, targets));
        container.finish()
    };
    vec![
        reject("aliases-unsorted", &["R77"], DAMAGED, "y before x", with(b"yx", &[1, 2], &[0, 0])),
        reject("aliases-twice", &["R77"], DAMAGED, "x and x", with(b"xx", &[1, 2], &[0, 0])),
        reject("alias-of-a-name", &["R77"], DAMAGED, "the name of a tensor", with(b"c", &[1], &[0])),
        reject(
            "alias-cycle",
            &["R78"],
            DAMAGED,
            "x for y and y for x, as if aliases were numbered behind the tensors",
            with(b"xy", &[1, 2], &[4, 3]),
        ),
        reject("alias-target", &["R78"], DAMAGED, "an alias of no tensor", with(b"x", &[1], &[u32::MAX])),
        reject("alias-ends", &["R76"], DAMAGED, "bytes behind the last alias", with(b"xy", &[1], &[0])),
        reject("alias-past", &["R76"], DAMAGED, "an alias longer than the names", with(b"x", &[9], &[0])),
        reject("alias-targets", &["R76"], DAMAGED, "a target too many", with(b"x", &[1], &[0, 0])),
        reject("alias-empty", &["R76"], DAMAGED, "an empty alias", with(b"", &[0], &[0])),
        reject("alias-control", &["R76"], DAMAGED, "an alias with a tab", with(b"\t", &[1], &[0])),
        reject("aliases-not-a-map", &["R76"], DAMAGED, "nil for aliases", {
            with_sections(|sections| sections.push((3, vec![0xC0])))
        }),
    ]
}

pub(super) fn records() -> Vec<Case> {
    let record = |bytes: &[u8]| {
        one(|container| {
            container.record("bad", bytes, Value::Null).record("good", &[0x01], json!(1));
            container.tensor("a", "u8", &[0], &[]);
        })
    };
    let nested = [vec![0x91; 33], vec![1]].concat();
    let cases: [(&str, &'static str, &'static str, &[u8]); 13] = [
        ("record-deep", "R81", "33 lists, one in the other", &nested),
        ("record-trailing", "R80", "a byte behind the value", &[1, 1]),
        ("record-no-value", "R80", "no bytes", &[]),
        ("record-cut", "R80", "a value that ends early", &[0xCB, 0, 0]),
        ("record-key-twice", "R82", "a key that stands twice", &[0x82, 0xA1, b'a', 1, 0xA1, b'a', 2]),
        (
            "record-key-twice-long",
            "R82",
            "a key that stands twice, once in a longer form",
            &[0x82, 0xA1, b'a', 1, 0xD9, 1, b'a', 2],
        ),
        ("record-number-twice", "R82", "a number as a key, twice", &[0x82, 7, 1, 7, 2]),
        ("record-key-list", "R83", "a list as a key", &[0x81, 0x90, 1]),
        ("record-key-map", "R83", "a map as a key", &[0x81, 0x80, 1]),
        ("record-text", "R84", "text that is not UTF-8", &[0xA1, 0xFF]),
        ("record-count", "R85", "a list of 2^32 - 1 items", &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("record-length", "R85", "bytes of 2^32 - 1", &[0xC6, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("record-marker", "R86", "the unused marker", &[0xC1]),
    ];
    let also = ["R87"];
    cases
        .map(|(file, rule, what, bytes)| {
            let rules: Vec<&'static str> = [rule].into_iter().chain(also).collect();
            reject(file, &rules, READ, what, record(bytes)).with("records", json!({ "good": 1 }))
        })
        .into()
}

pub(super) fn budgets() -> Vec<Case> {
    let large = one(|container| {
        container.tensor_in("a", "f32", &[1 << 22], &vec![0; 1 << 24], 24, |_| Stored {
            codec: 2,
            filter: 0,
            bytes: vec![0; 4],
        });
    });
    vec![
        reject(
            "budget-tensor",
            &["R101", "R102", "R108"],
            ("limit-exceeded", "read"),
            "16 MiB out of 4 bytes, within a budget of a mebibyte",
            large.clone(),
        )
        .with("budget", 1 << 20),
        reject(
            "budget-index",
            &["R101"],
            ("limit-exceeded", "open"),
            "an index beyond a budget of 100 bytes",
            large,
        )
        .with("budget", 100),
    ]
}
