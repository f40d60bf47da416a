//! Errors of a table's columns.

use super::{DAMAGED, one, reject, with_sections};
use crate::Case;
use crate::accepted::{base, raw_chunk};
use serde_json::Value;
use test_support::build::{Columns, bin};

/// The base container with lying columns of tensors.
fn with_tensors(edit: impl FnOnce(&mut Columns)) -> Vec<u8> {
    let mut container = base();
    edit(&mut container.tensors);
    container.finish()
}

/// The base container with another payload of the tensors' section.
fn with_payload(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    with_sections(|sections| edit(&mut sections[0].1))
}

/// Columns of a wrong length.
pub(super) fn columns() -> Vec<Case> {
    let mut cases = Vec::new();
    for column in [
        "name_ends",
        "dtypes",
        "dim_ends",
        "dims",
        "byte_lens",
        "offsets",
        "chunk_log2",
        "chunk_ends",
        "chunk_crcs",
    ] {
        cases.push(reject(
            &format!("column-{column}"),
            &["R42"],
            DAMAGED,
            "a column one byte short",
            with_tensors(|columns| {
                let column = columns.get(column);
                column.truncate(column.len() - 1);
            }),
        ));
    }
    for column in ["chunk_codecs", "chunk_filters", "chunk_stored"] {
        let payloads = |columns: &mut Columns| {
            columns.get(column).clear();
            with_sections(|sections| sections[0].1 = columns.encode())
        };
        cases.push(reject(
            &format!("column-{column}"),
            &["R43"],
            DAMAGED,
            "one codec column empty and the others in full",
            payloads(&mut base().tensors.clone()),
        ));
    }
    cases
}

pub(super) fn payloads() -> Vec<Case> {
    vec![
        reject(
            "table-not-a-map",
            &["R39"],
            DAMAGED,
            "a number for a table",
            with_payload(|payload| *payload = vec![1]),
        ),
        reject(
            "table-a-list",
            &["R39"],
            DAMAGED,
            "a list of columns for a map of columns",
            with_payload(|payload| {
                let columns = unless_raw_columns();
                *payload = vec![0x9D];
                for column in &columns {
                    payload.extend(bin(column));
                }
            }),
        ),
        reject(
            "column-missing",
            &["R40"],
            DAMAGED,
            "no column chunk_crcs",
            with_tensors(|columns| columns.0.retain(|(name, _)| *name != "chunk_crcs")),
        ),
        reject(
            "column-of-text",
            &["R40"],
            DAMAGED,
            "names as text",
            with_payload(|payload| {
                // fixmap, fixstr "names", bin8 of 3 bytes: the bin becomes a str8.
                assert_eq!(&payload[..8], b"\x8D\xA5names\xC4");
                payload[7] = 0xD9;
            }),
        ),
        reject(
            "column-twice",
            &["R40", "R82"],
            DAMAGED,
            "a column that stands twice",
            with_tensors(|columns| columns.0.push(("names", b"abc".to_vec()))),
        ),
        reject(
            "table-trailing",
            &["R39"],
            DAMAGED,
            "a byte behind the table",
            with_payload(|payload| payload.push(0)),
        ),
    ]
}

pub(super) fn ends() -> Vec<Case> {
    vec![
        reject(
            "name-ends-descend",
            &["R44"],
            DAMAGED,
            "a name that ends before it begins",
            with_tensors(|columns| columns.set32("name_ends", 0, 3)),
        ),
        reject(
            "name-ends-short",
            &["R44", "R42"],
            DAMAGED,
            "bytes behind the last name",
            with_tensors(|columns| columns.put("names", b"d")),
        ),
        reject(
            "dim-ends-descend",
            &["R44"],
            DAMAGED,
            "axes that end before they begin",
            with_tensors(|columns| columns.set32("dim_ends", 0, 4)),
        ),
        reject(
            "dim-ends-short",
            &["R44"],
            DAMAGED,
            "an axis of no tensor",
            with_tensors(|columns| columns.put("dims", &[1; 8])),
        ),
        reject(
            "chunk-ends-descend",
            &["R44"],
            DAMAGED,
            "chunks that end before they begin",
            with_tensors(|columns| columns.set32("chunk_ends", 0, u32::MAX)),
        ),
    ]
}

pub(super) fn names() -> Vec<Case> {
    let name = |name: &[u8]| {
        one(|container| {
            container.tensor("x", "u8", &[1], &[1]);
            *container.tensors.get("names") = name.to_vec();
            container.tensors.set32("name_ends", 0, name.len() as u32);
        })
    };
    let two_names = |first: &str, second: &str| {
        one(|container| {
            container.tensor(first, "u8", &[1], &[1]).tensor(second, "u8", &[1], &[2]);
        })
    };
    vec![
        reject("name-empty", &["R45"], DAMAGED, "an empty name", name(b"")),
        reject("name-long", &["R45", "R99"], DAMAGED, "a name of 1025 bytes", name(&[b'x'; 1025])),
        reject("name-control", &["R45"], DAMAGED, "a name with a line end", name(b"a\nb")),
        reject("name-delete", &["R45"], DAMAGED, "a name with byte 7f", name(b"a\x7F")),
        reject("name-zero", &["R45"], DAMAGED, "a name with byte 0", name(b"a\0")),
        reject("name-not-utf-8", &["R45"], DAMAGED, "a name that is not UTF-8", name(b"a\xFF")),
        reject(
            "name-cut",
            &["R45"],
            DAMAGED,
            "a name that ends within a character",
            one(|container| {
                container.tensor("é", "u8", &[1], &[1]).tensor("ê", "u8", &[1], &[2]);
                container.tensors.set32("name_ends", 0, 1);
            }),
        ),
        reject("names-unsorted", &["R46"], DAMAGED, "b before a", two_names("b", "a")),
        reject("names-twice", &["R46"], DAMAGED, "a name that stands twice", two_names("a", "a")),
    ]
}

pub(super) fn shapes() -> Vec<Case> {
    let overflow = |dims: [u64; 2], dtype: &'static str| {
        one(|container| {
            container.tensor("a", dtype, &dims, &[1; 16]);
        })
    };
    vec![
        reject(
            "rank-65",
            &["R47", "R99"],
            DAMAGED,
            "65 axes",
            one(|container| {
                container.tensor("a", "u8", &[1; 65], &[1]);
            }),
        ),
        reject(
            "byte-len",
            &["R48"],
            DAMAGED,
            "one byte less than shape and dtype say",
            with_tensors(|columns| columns.set64("byte_lens", 0, 23)),
        ),
        reject(
            "byte-len-of-nothing",
            &["R48"],
            DAMAGED,
            "bytes of a tensor without elements",
            one(|container| {
                container.tensor("a", "f32", &[2, 0], &[0; 8]);
            }),
        ),
        reject(
            "shape-overflow",
            &["R48"],
            DAMAGED,
            "2^32 times 2^32 and more",
            overflow([1 << 32, (1 << 32) + 2], "f64"),
        ),
        reject(
            "shape-wraps",
            &["R48"],
            DAMAGED,
            "axes whose product is 16 modulo 2^64",
            overflow([(1 << 60) + 1, 16], "u8"),
        ),
        reject(
            "bytes-wrap",
            &["R48"],
            DAMAGED,
            "2^61 + 2 elements of 8 bytes",
            overflow([(1 << 61) + 2, 1], "f64"),
        ),
        reject(
            "tensor-too-large",
            &["R99"],
            DAMAGED,
            "2^60 + 1 bytes of an unknown dtype",
            one(|container| {
                container.unreadable("a", 999, &[1], (1 << 60) + 1, &[raw_chunk(&[1])]);
            }),
        ),
    ]
}

pub(super) fn chunks() -> Vec<Case> {
    vec![
        reject(
            "chunk-log2-15",
            &["R50"],
            DAMAGED,
            "chunks of 2^15 bytes",
            with_tensors(|columns| columns.get("chunk_log2")[0] = 15),
        ),
        reject(
            "chunk-log2-27",
            &["R50", "R99"],
            DAMAGED,
            "chunks of 2^27 bytes, of an empty tensor",
            with_tensors(|columns| columns.get("chunk_log2")[1] = 27),
        ),
        reject(
            "chunks-none",
            &["R51"],
            DAMAGED,
            "a tensor with bytes and without chunks",
            with_tensors(|columns| {
                for i in 0..3 {
                    columns.set32("chunk_ends", i, 0);
                }
                for name in ["chunk_crcs", "chunk_codecs", "chunk_filters", "chunk_stored"] {
                    columns.get(name).clear();
                }
            }),
        ),
        reject(
            "chunks-of-nothing",
            &["R51", "R52"],
            DAMAGED,
            "a chunk of a tensor without bytes, whose checksum is 0",
            with_tensors(|columns| {
                columns.set32("chunk_ends", 1, 2);
                columns.set32("chunk_ends", 2, 3);
                columns.put("chunk_crcs", &[0; 4]);
                columns.put("chunk_codecs", &[0]);
                columns.put("chunk_filters", &[0]);
                columns.put("chunk_stored", &[0; 4]);
            }),
        ),
        reject(
            "offset-of-nothing",
            &["R52"],
            DAMAGED,
            "an offset of a tensor without bytes",
            with_tensors(|columns| columns.set64("offsets", 1, 4096)),
        ),
    ]
}

pub(super) fn records() -> Vec<Case> {
    vec![
        reject(
            "record-of-floats",
            &["R49"],
            DAMAGED,
            "a record of dtype f32",
            one(|container| {
                container.record("r", &[1, 2, 3, 4], Value::Null);
                *container.records.get("dtypes") = 12_u16.to_le_bytes().to_vec();
                container.records.set64("dims", 0, 1);
            }),
        ),
        reject(
            "record-of-two-axes",
            &["R49"],
            DAMAGED,
            "a record with two axes",
            one(|container| {
                container.record("r", &[1], Value::Null);
                container.records.put("dims", &1_u64.to_le_bytes());
                container.records.set32("dim_ends", 0, 2);
            }),
        ),
        reject(
            "record-too-large",
            &["R49", "R99"],
            DAMAGED,
            "a record of 64 MiB and a byte",
            one(|container| {
                container.record("r", &[1], Value::Null);
                container.records.set64("dims", 0, (64 << 20) + 1);
                container.records.set64("byte_lens", 0, (64 << 20) + 1);
            }),
        ),
    ]
}

/// The tensors' columns of the base container, as written when every chunk is raw.
fn unless_raw_columns() -> Vec<Vec<u8>> {
    let coded = ["chunk_codecs", "chunk_filters", "chunk_stored"];
    let columns = base().tensors.0;
    columns.into_iter().map(|(name, column)| if coded.contains(&name) { vec![] } else { column }).collect()
}
