//! Errors of the extents of tensors, and of the storage of their chunks.

use super::{DAMAGED, READ, VERIFY, one, reject};
use crate::Case;
use crate::accepted::{base, pattern, raw_chunk, zstd_chunk};
use serde_json::{Value, json};
use test_support::build::{Container, Stored, region};

pub(super) fn extents() -> Vec<Case> {
    let two = |edit: fn(&mut Container)| {
        one(|container| {
            container.tensor("a", "u8", &[8], &[1; 8]).tensor("b", "u8", &[8], &[2; 8]);
            edit(container);
        })
    };
    let mut padding = base().finish();
    assert_eq!(padding[4096 + 24 + 8 + 4], 0);
    padding[4096 + 24 + 8 + 5] = 1;
    vec![
        reject(
            "extent-unaligned",
            &["R54"],
            DAMAGED,
            "an extent that begins 4 bytes late",
            two(|container| container.tensors.set64("offsets", 1, 4108)),
        ),
        reject(
            "extent-unaligned-page",
            &["R54"],
            DAMAGED,
            "64 KiB that do not begin on a page",
            one(|container| {
                container.tensor("a", "u8", &[1], &[1]);
                container.tensor_in("b", "u8", &[65536], &[0; 65536], 20, |_| Stored {
                    codec: 2,
                    filter: 0,
                    bytes: vec![0],
                });
                container.tensors.set64("offsets", 1, 4160);
                container.front.truncate(4160);
                container.front.push(0);
            }),
        ),
        reject(
            "extent-overlap",
            &["R55"],
            DAMAGED,
            "two tensors in one place",
            two(|container| container.tensors.set64("offsets", 1, 4096)),
        ),
        reject(
            "extent-order",
            &["R55"],
            DAMAGED,
            "the second tensor before the first",
            two(|container| {
                container.tensors.set64("offsets", 0, 4104);
                container.tensors.set64("offsets", 1, 4096);
            }),
        ),
        reject(
            "extent-in-header",
            &["R55"],
            DAMAGED,
            "a tensor within the header",
            two(|container| container.tensors.set64("offsets", 0, 0)),
        ),
        reject(
            "extent-in-index",
            &["R57"],
            DAMAGED,
            "a tensor within the index",
            two(|container| container.tensors.set64("offsets", 1, 4160)),
        ),
        reject(
            "extent-wraps",
            &["R57"],
            DAMAGED,
            "an extent at the end of the u64s",
            two(|container| container.tensors.set64("offsets", 1, u64::MAX - 7)),
        ),
        reject(
            "extent-gap",
            &["R56"],
            DAMAGED,
            "4096 bytes between two extents",
            one(|container| {
                container.tensor("a", "u8", &[8], &[1; 8]);
                container.front.resize(4096 + 8 + 4096, 0);
                container.tensor("b", "u8", &[8], &[2; 8]);
            }),
        ),
        reject(
            "extent-gap-first",
            &["R56"],
            DAMAGED,
            "4096 bytes between the header and the first extent",
            one(|container| {
                container.front.resize(4096 + 4096, 0);
                container.tensor("a", "u8", &[8], &[1; 8]);
            }),
        ),
        reject(
            "record-before-tensor",
            &["R55"],
            DAMAGED,
            "a record whose extent lies before a tensor's",
            one(|container| {
                container.record("r", &[1], Value::Null).tensor("a", "u8", &[8], &[1; 8]);
            }),
        ),
        reject(
            "slack-before-index",
            &["R57"],
            DAMAGED,
            "64 bytes between the last extent and the index",
            one(|container| {
                container.tensor("a", "u8", &[64], &[1; 64]);
                container.front.resize(container.front.len() + 64, 0);
            }),
        ),
        reject(
            "padding",
            &["R58", "R123", "R110", "R93"],
            VERIFY,
            "a byte of padding that is not zero; every tensor is readable",
            padding,
        ),
    ]
}

pub(super) fn chunks() -> Vec<Case> {
    let raw = pattern(4096);
    let coded = |stored: Stored| {
        one(|container| {
            container.tensor_in("a", "f32", &[1024], &raw, 20, |_| stored.clone());
        })
    };
    let stored = |codec: u8, filter: u8, bytes: &[u8]| Stored { codec, filter, bytes: bytes.to_vec() };
    let good = zstd_chunk(0, &raw).bytes;
    let mut bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
    bomb.truncate(4000);
    let mut with_dictionary = zstd::bulk::Compressor::with_dictionary(3, &raw[..512]).unwrap();
    let with_dictionary = with_dictionary.compress(&raw).unwrap();
    let damaged = |edit: fn(&mut Container)| {
        let mut container = Container::new();
        container.tensor("a", "u8", &[8], &[1; 8]).tensor("b", "u8", &[8], &[2; 8]).aliases(&[("c", 0)]);
        let mut facts = container.expected_tensors.clone();
        for name in ["a", "c"] {
            facts[name] = json!({ "dtype": "u8", "shape": [8], "error": "damaged" });
        }
        edit(&mut container);
        (container.finish(), Value::Object(facts))
    };
    let (flipped, facts_flipped) = damaged(|container| container.front[4096 + 3] ^= 0x10);
    let (zeroed, facts_zeroed) = damaged(|container| container.tensors.set32("chunk_crcs", 0, 0));
    let (both_zeroed, facts_both) = damaged(|container| {
        container.tensors.set32("chunk_crcs", 0, 0);
        container.front[4096..4104].fill(0);
    });
    vec![
        reject(
            "chunk-flipped",
            &["R61", "R122", "R108", "R79"],
            READ,
            "one bit of one tensor flipped; the other tensor is readable",
            flipped,
        )
        .with("tensors", facts_flipped),
        reject("chunk-crc-zeroed", &["R61"], READ, "a checksum of 0 is no exception", zeroed)
            .with("tensors", facts_zeroed),
        reject("chunk-and-crc-zeroed", &["R61"], READ, "zeroed bytes under a zeroed checksum", both_zeroed)
            .with("tensors", facts_both),
        reject("raw-with-filter", &["R62"], DAMAGED, "a raw chunk behind a filter", {
            let mut container = base();
            container.tensors.get("chunk_filters")[0] = 1;
            container.tensors.get("chunk_codecs")[0] = 0;
            container
                .finish_with(&region(&[(1, container.tensors.encode()), (2, container.records.encode())]))
        }),
        reject("raw-short", &["R62"], DAMAGED, "a raw chunk with a stored length of its own", {
            let mut container = base();
            container.tensors.set32("chunk_stored", 0, 23);
            container
                .finish_with(&region(&[(1, container.tensors.encode()), (2, container.records.encode())]))
        }),
        reject(
            "fill-short",
            &["R63"],
            DAMAGED,
            "a fill of 3 bytes for elements of 4",
            coded(stored(2, 0, &[1; 3])),
        ),
        reject(
            "fill-long",
            &["R63"],
            DAMAGED,
            "a fill of 8 bytes for elements of 4",
            coded(stored(2, 0, &[1; 8])),
        ),
        reject("fill-nothing", &["R63"], DAMAGED, "a fill of no bytes", coded(stored(2, 0, &[]))),
        reject("fill-with-filter", &["R63"], DAMAGED, "a fill behind a filter", coded(stored(2, 1, &[1; 4]))),
        reject(
            "coded-not-smaller",
            &["R65"],
            DAMAGED,
            "a zstd chunk as long as what it decodes to",
            coded(stored(1, 0, &raw)),
        ),
        reject("coded-nothing", &["R65"], DAMAGED, "a zstd chunk of no bytes", coded(stored(1, 0, &[]))),
        reject(
            "unknown-codec-nothing",
            &["R65"],
            DAMAGED,
            "a chunk of an unknown codec and of no bytes",
            coded(stored(200, 0, &[])),
        ),
        reject("zstd-garbage", &["R66"], READ, "a zstd chunk that is none", coded(stored(1, 0, &[9; 100]))),
        reject(
            "zstd-cut",
            &["R67"],
            READ,
            "a frame without its last byte, under a right checksum",
            coded(stored(1, 0, &good[..good.len() - 1])),
        ),
        reject(
            "zstd-short",
            &["R67"],
            READ,
            "a frame of one byte less",
            coded(stored(1, 0, &zstd_chunk(0, &raw[1..]).bytes)),
        ),
        reject(
            "zstd-two-frames",
            &["R66"],
            READ,
            "two frames in one chunk",
            coded(stored(
                1,
                0,
                &[zstd_chunk(0, &raw[..1000]).bytes, zstd_chunk(0, &raw[1000..]).bytes].concat(),
            )),
        ),
        reject(
            "zstd-dictionary",
            &["R66"],
            READ,
            "a frame that asks for a dictionary",
            coded(stored(1, 0, &with_dictionary)),
        ),
        reject(
            "zstd-bomb",
            &["R67", "R102"],
            READ,
            "a frame of a mebibyte for a chunk of 4096 bytes",
            coded(stored(1, 1, &bomb)),
        ),
        reject(
            "bool-of-two",
            &["R75"],
            READ,
            "a truth value of 2",
            one(|container| {
                container.tensor("a", "bool", &[2], &[1, 2]);
            }),
        ),
        reject(
            "unsupported-dtype",
            &["R72", "R108"],
            ("unsupported", "read"),
            "a tensor of a dtype to come, which a caller asks for",
            one(|container| {
                container.unreadable("a", 24, &[1], 1, &[raw_chunk(&[1])]);
            }),
        ),
        reject(
            "unsupported-codec",
            &["R70", "R108"],
            ("unsupported", "read"),
            "a tensor of a codec to come, which a caller asks for",
            coded(stored(3, 0, &[1; 9])),
        ),
    ]
}
