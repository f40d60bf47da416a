//! Files at the edges of rules, where two readers may differ: each has a twin on the other side,
//! where there is one.

use super::Case;
use super::accepted::{base, ok, pattern, with_bytes, with_flags};
use super::refused::{DAMAGED, FOREIGN, READ, one, reject};
use serde_json::{Value, json};
use test_support::build::{Container, Stored, bin, float_planes, region, seal_header};

pub fn cases() -> Vec<Case> {
    [columns(), frame(), index(), frames(), records(), budgets()].into_iter().flatten().collect()
}

/// A table with further entries after its columns.
fn with_entries(columns: &[u8], entries: &[&[u8]]) -> Vec<u8> {
    let mut payload = columns.to_vec();
    assert!(payload[0] & 0x0F < 16 - entries.len() as u8, "a short map");
    payload[0] += entries.len() as u8;
    for entry in entries {
        payload.extend_from_slice(entry);
    }
    payload
}

fn columns() -> Vec<Case> {
    let mut base = base();
    base.aliases(&[("tied", 0)]);
    let with = |file: &str, what: &'static str, entries: &[&[u8]]| {
        let mut sections = base.payloads();
        for (_, payload) in &mut sections {
            *payload = with_entries(payload, entries);
        }
        with_bytes(file, &["R41", "R76"], what, &base, base.finish_with(&region(&sections)))
    };
    let nil = [&b"\xA5later"[..], &[0xC0]].concat();
    let map = [&b"\xA7another"[..], &[0x81, 1, 0x92, 0xC0, 0xCB, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    // By the number of a column, and by its name as bytes.
    let number = [&[0x00][..], &bin(&[9; 3])].concat();
    let bytes = [bin(b"offsets"), vec![0xA1, b'x']].concat();
    vec![
        with("unknown-column-values", "columns to come that are nil and a map", &[&nil, &map]),
        with("unknown-column-keys", "columns to come under a number and under bytes", &[&number, &bytes]),
    ]
}

fn frame() -> Vec<Case> {
    let mut version = with_flags(&base(), 32, 56, 1);
    version[8] = 0;
    seal_header(&mut version);
    let mut slack = Container::new();
    slack.front.resize(4096 + 64, 0);
    vec![
        reject(
            "read-version-0-incompat",
            &["R8", "R104"],
            DAMAGED,
            "no version, and a flag that would need a newer one",
            version,
        ),
        reject(
            "slack-without-extents",
            &["R57"],
            DAMAGED,
            "64 bytes between the header and the index of a file without extents",
            slack.finish(),
        ),
        reject(
            "four-bytes",
            &["R103", "R5"],
            FOREIGN,
            "the first four bytes of a container and no more",
            vec![0x89, 0x54, 0x4B, 0x50],
        ),
    ]
}

/// Exclusive-or with this does not change a CRC-32: the polynomial.
const UNSEEN: [u8; 5] = [0x41, 0x06, 0x71, 0xDB, 0x01];

fn index() -> Vec<Case> {
    let base = base();
    let changed = |field: usize, at: usize| {
        let mut bytes = base.finish();
        let field = bytes.len() - 128 + field;
        let start = u64::from_le_bytes(bytes[field..field + 8].try_into().unwrap()) as usize + at;
        for (byte, change) in bytes[start..].iter_mut().zip(UNSEEN) {
            *byte ^= change;
        }
        bytes
    };
    let at_verify = |file: &str, rules: &[&'static str], what: &'static str, bytes: Vec<u8>| {
        let mut case = with_bytes(file, rules, what, &base, bytes);
        case.at = "verify";
        case
    };
    let mut long = base.clone();
    long.sections.push((4, vec![0; 1 << 20]));
    vec![
        at_verify(
            "index-broken",
            &["R106", "R141"],
            "the mirror is used because the index breaks a rule, though its checksum is right",
            changed(0, 0),
        )
        .with("mirror_used", true),
        at_verify(
            "mirror-differs",
            &["R21", "R141"],
            "a mirror that is not the index and has its checksum",
            changed(24, 100),
        ),
        ok("mirror-of-a-long-index", &["R22"], "a mirror of an index of more than a mebibyte", &long),
    ]
}

/// 100 times the byte 7 as a frame of one block, after this header.
fn frame_of_100(header: &[u8]) -> Vec<u8> {
    [&[0x28, 0xB5, 0x2F, 0xFD][..], header, &[0x23, 0x03, 0x00, 0x07]].concat()
}

fn frames() -> Vec<Case> {
    let stored = |header: &[u8]| Stored { codec: 1, filter: 0, bytes: frame_of_100(header) };
    let container = |header: &[u8]| {
        let mut container = Container::new();
        container.tensor_in("a", "u8", &[100], &[7; 100], 20, |_| stored(header));
        container
    };
    let (largest, larger) = ([0x00, 17 << 3], [0x00, 17 << 3 | 1]);
    let planes = |header: &[u8]| {
        let planes = float_planes(&[7; 100], 1, |_, _| Some(frame_of_100(header)));
        let stored = Stored { codec: 4, filter: 0, bytes: planes };
        one(|container| {
            container.tensor_in("a", "f8e5m2", &[100], &[7; 100], 20, |_| stored.clone());
        })
    };
    let raw = pattern(4096);
    let behind_a_filter = |filter| Stored {
        codec: 4,
        filter,
        bytes: float_planes(&raw, 4, |_, plane| Some(zstd::bulk::compress(plane, 3).unwrap())),
    };
    vec![
        ok("zstd-window-largest", &["R134"], "a frame with a window of 2^27 bytes", &container(&largest)),
        reject(
            "zstd-window-larger",
            &["R134", "R67"],
            READ,
            "a frame with a window of 2^27 + 2^24 bytes",
            container(&larger).finish(),
        ),
        reject(
            "float-planes-frame-window",
            &["R134", "R132"],
            READ,
            "a plane whose frame has a window of 2^27 + 2^24 bytes",
            planes(&larger),
        ),
        ok(
            "zstd-dictionary-zero",
            &["R135", "R66"],
            "a frame that names the dictionary 0, which is none",
            &container(&[0x01, 0x00, 0x00]),
        ),
        reject(
            "float-planes-filter-unknown",
            &["R133", "R70"],
            READ,
            "float planes behind a filter to come: the codec is known, and has none",
            one(|container| {
                container.tensor_in("a", "f32", &[1024], &raw, 20, |_| behind_a_filter(9));
            }),
        ),
    ]
}

/// Turns the tensors of a container into its records: those may be coded.
fn as_records(mut container: Container) -> Container {
    std::mem::swap(&mut container.tensors, &mut container.records);
    container.expected_tensors.clear();
    container
}

fn records() -> Vec<Case> {
    let mut numbers = Container::new();
    let float = |value: f64| [vec![0xCB], value.to_be_bytes().to_vec()].concat();
    numbers
        .record("inf", &float(f64::INFINITY), json!("inf"))
        .record("least", &[&[0xD3][..], &i64::MIN.to_be_bytes()].concat(), json!(i64::MIN))
        .record("most", &[&[0xCF][..], &u64::MAX.to_be_bytes()].concat(), json!(u64::MAX))
        .record("nan", &float(f64::NAN), json!("NaN"))
        .record("negative inf", &float(f64::NEG_INFINITY), json!("-inf"));
    let mut named = Container::new();
    named.tensor("a", "u8", &[1], &[1]).record("a", &[2], json!(2)).record("tied", &[3], json!(3));
    named.aliases(&[("tied", 0)]);
    let mut unknown = Container::new();
    unknown.tensor_in("r", "opaque", &[16], &[0x90; 16], 20, |_| Stored {
        codec: 77,
        filter: 0,
        bytes: vec![1; 15],
    });
    let unknown = as_records(unknown).finish();
    let len = (64 << 20) + 1;
    let mut long = Container::new();
    let fill = Stored { codec: 2, filter: 0, bytes: vec![0x90] };
    long.unreadable("r", 255, &[len], len, &vec![fill; 65]);
    vec![
        ok("records-numbers", &["R80"], "the largest integers, and what JSON has no numbers for", &numbers),
        ok(
            "records-named-as-tensors",
            &["R46", "R77"],
            "records with the name of a tensor and of an alias",
            &named,
        ),
        reject(
            "record-unknown-codec",
            &["R70", "R144"],
            ("unsupported", "read"),
            "a record by a codec to come",
            unknown,
        ),
        reject(
            "record-too-long",
            &["R49", "R99"],
            DAMAGED,
            "a record of one byte more than there may be, all of it there",
            as_records(long).finish(),
        ),
    ]
}

/// 12 values, of which 4 are keys and 3 are maps, one of them empty.
fn record_of_many_kinds() -> (Vec<u8>, Value, u64) {
    let bytes = [
        &[0x83, 0xA1, b'a', 0x93, 1, 0xC0, 0x80, 0xA1, b'b'][..],
        &bin(&[5; 4]),
        &[0xA1, b'c', 0x81, 0xA1, b'd'],
        &[0xCB, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0],
    ];
    let value = json!({ "a": [1, null, {}], "b": [5, 5, 5, 5], "c": { "d": 1.0 } });
    let bytes = bytes.concat();
    let unfolded = bytes.len() as u64 + 64 * 12 + 64 * 4 + 640 * 2;
    (bytes, value, unfolded)
}

fn budgets() -> Vec<Case> {
    let mut equal = Container::new();
    equal.tensor("a", "u8", &[8192], &pattern(8192));
    let (bytes, value, unfolded) = record_of_many_kinds();
    let mut kinds = Container::new();
    kinds.record("r", &bytes, value);
    let lists = [vec![0xDD, 0, 0x10, 0, 0], vec![0x90; 1 << 20]].concat();
    let mut bomb = Container::new();
    bomb.tensor_in("r", "opaque", &[lists.len() as u64], &lists, 21, |chunk| {
        super::accepted::zstd_chunk(0, chunk)
    });
    vec![
        ok("budget-equal", &["R101"], "a tensor as long as the budget", &equal).with("budget", 8192),
        ok("record-unfolded", &["R137", "R138"], "a record whose unfolded size is the budget", &kinds)
            .with("budget", unfolded),
        reject(
            "record-unfolded-more",
            &["R137", "R138"],
            ("limit-exceeded", "read"),
            "the same with a budget of one byte less",
            kinds.finish(),
        )
        .with("budget", unfolded - 1),
        reject(
            "record-unfolds",
            &["R138", "R102"],
            ("limit-exceeded", "read"),
            "a mebibyte of empty lists out of a hundred bytes, within a budget of 16 MiB",
            as_records(bomb).finish(),
        )
        .with("budget", 1 << 24),
    ]
}
