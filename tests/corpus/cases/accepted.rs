//! Files that every reader accepts, and their contents.

use super::Case;
use serde_json::{Value, json};
use test_support::build::{
    Columns, Container, DTYPES, Stored, bin, header, planes, region, seal_footer, seal_header,
};

/// Little-endian bytes of floats.
pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Bytes of a gentle pattern that zstd shrinks.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i / 3) % 50) as u8).collect()
}

pub fn zstd_chunk(filter: u8, filtered: &[u8]) -> Stored {
    Stored { codec: 1, filter, bytes: zstd::bulk::compress(filtered, 3).unwrap() }
}

pub fn ok(file: &str, rules: &[&'static str], what: &'static str, container: &Container) -> Case {
    with_bytes(file, rules, what, container, container.finish())
}

pub fn with_bytes(
    file: &str,
    rules: &[&'static str],
    what: &'static str,
    container: &Container,
    bytes: Vec<u8>,
) -> Case {
    Case {
        file: format!("valid/{file}.tkeep"),
        rules: rules.to_vec(),
        expect: "ok",
        at: "",
        what,
        bytes,
        beside: Default::default(),
        facts: json!({ "tensors": container.expected_tensors, "records": container.expected_records }),
    }
}

/// Three tensors and a record, as in every file that is not about them.
pub fn base() -> Container {
    let mut container = Container::new();
    container
        .tensor("a", "f32", &[2, 3], &floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
        .tensor("b", "u8", &[0], &[])
        .tensor("c", "f64", &[], &1.5_f64.to_le_bytes())
        .record("r", &[0x93, 1, 2, 3], json!([1, 2, 3]));
    container
}

pub fn cases() -> Vec<Case> {
    [shapes_and_dtypes(), codecs(), index_and_mirror(), versions(), names_and_aliases(), records()]
        .into_iter()
        .flatten()
        .collect()
}

fn of_dtypes(names: &[&str]) -> Container {
    let mut sorted: Vec<&(&str, u16, u64)> = DTYPES.iter().filter(|dtype| names.contains(&dtype.0)).collect();
    sorted.sort();
    let mut container = Container::new();
    for (name, _, size) in sorted {
        let bytes: Vec<u8> = (0..3 * size).map(|i| i as u8 ^ 0xA5).collect();
        container.tensor(name, name, &[3], &bytes);
    }
    container
}

fn shapes_and_dtypes() -> Vec<Case> {
    let mut scalar = Container::new();
    scalar.tensor("step", "i64", &[], &(-7_i64).to_le_bytes());
    let mut empty = Container::new();
    empty
        .tensor("huge and empty", "f64", &[1 << 63, 0, 1 << 63], &[])
        .tensor("no rows", "bf16", &[3, 0, 2], &[])
        .tensor("not empty", "u8", &[1], &[9]);
    let mut rank = Container::new();
    rank.tensor("w", "u16", &[1; 64], &[1, 2]);
    let mut bools = Container::new();
    bools.tensor("mask", "bool", &[2, 2], &[0, 1, 1, 0]);
    let mut sizes = Container::new();
    for (name, len) in [("a", 8), ("b", 9), ("c", 17), ("d", 33), ("e", 1)] {
        sizes.tensor(name, "u8", &[len], &pattern(len as usize));
    }
    // Alignment follows the raw length, not the number of stored bytes.
    let fill = |chunk: &[u8]| Stored { codec: 2, filter: 0, bytes: chunk[..1].to_vec() };
    sizes.tensor_in("f", "u8", &[65536], &[3; 65536], 20, fill);
    let mut gap = Container::new();
    gap.tensor("a", "u8", &[1], &[1]);
    gap.front.resize(4096 + 4096, 0);
    gap.tensor("b", "u8", &[1], &[2]);
    vec![
        ok("empty", &["R36", "R4", "R40", "R126"], "no tensors and no records", &Container::new()),
        ok("scalar", &["R47", "R48"], "a tensor without axes has one element", &scalar),
        ok(
            "zero-length",
            &["R52", "R51", "R48", "R55"],
            "tensors without elements have no extent, and no product of their axes",
            &empty,
        ),
        ok("rank-64", &["R47", "R99"], "as many axes as there may be", &rank),
        ok("bool", &["R75"], "truth values", &bools),
        ok(
            "integers",
            &["R71", "R1", "R74"],
            "every integer dtype",
            &of_dtypes(&["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"]),
        ),
        ok(
            "floats",
            &["R71", "R74"],
            "every float of 16 to 64 bits",
            &of_dtypes(&["f16", "bf16", "f32", "f64"]),
        ),
        ok("complex", &["R71", "R74"], "complex numbers", &of_dtypes(&["c64", "c128"])),
        ok(
            "small-floats",
            &["R71"],
            "every float of 8 bits",
            &of_dtypes(&[
                "f8e4m3fn",
                "f8e4m3fnuz",
                "f8e5m2",
                "f8e5m2fnuz",
                "f8e8m0fnu",
                "f8e4m3",
                "f8e4m3b11fnuz",
                "f8e3m4",
            ]),
        ),
        ok("opaque", &["R71"], "bytes whose meaning only the user knows", &of_dtypes(&["opaque"])),
        ok("alignment", &["R54", "R2", "R59"], "extents of every alignment, the last one of a page", &sizes),
        ok("gap", &["R56"], "4095 bytes of padding between two extents", &gap),
        ok(
            "padding-before-index",
            &["R57"],
            "63 bytes of padding between the last extent and the index",
            Container::new().tensor("a", "u8", &[1], &[1]),
        ),
    ]
}

fn codecs() -> Vec<Case> {
    let raw = pattern(4096);
    let mut zstd = Container::new();
    zstd.tensor_in("bytes", "u8", &[4096], &raw, 20, |chunk| zstd_chunk(0, chunk));
    zstd.tensor("raw", "u8", &[3], &[1, 2, 3]);
    let mut widths = Container::new();
    for (name, size) in [("c128", 16), ("c64", 8), ("f16", 2), ("f32", 4)] {
        let shape = [4096 / size as u64];
        widths.tensor_in(name, name, &shape, &raw, 20, |chunk| zstd_chunk(1, &planes(chunk, size)));
    }
    let mut one = Container::new();
    one.tensor_in("u8", "u8", &[4096], &raw, 20, |chunk| zstd_chunk(1, chunk));
    let fill = |chunk: &[u8], size: usize| Stored { codec: 2, filter: 0, bytes: chunk[..size].to_vec() };
    let mut fills = Container::new();
    let ones = floats(&[1.0; 100]);
    fills
        .tensor_in("a", "f32", &[100], &ones, 20, |chunk| fill(chunk, 4))
        .tensor_in("b", "c128", &[2], &[0; 32], 20, |chunk| fill(chunk, 16))
        .tensor_in("c", "f64", &[1], &[7; 8], 20, |chunk| fill(chunk, 8))
        .tensor_in("d", "bool", &[70000], &[1; 70000], 16, |chunk| fill(chunk, 1));
    let mut chunks = Container::new();
    let many = [vec![0; 65536], pattern(65536), vec![9; 65536], vec![1, 2, 3, 4]].concat();
    chunks.tensor_in("many", "f32", &[many.len() as u64 / 4], &many, 16, |chunk| match chunk[1] {
        0 if chunk[5] == 0 => fill(chunk, 4),
        9 => fill(chunk, 4),
        2 => Stored { codec: 0, filter: 0, bytes: chunk.to_vec() },
        _ => zstd_chunk(1, &planes(chunk, 4)),
    });
    let mut log2 = Container::new();
    log2.tensor_in("16", "u8", &[3], &[1, 2, 3], 16, raw_chunk);
    log2.tensor_in("26", "u8", &[3], &[4, 5, 6], 26, raw_chunk);
    let unknown = |codec, filter| {
        let mut container = Container::new();
        container
            .tensor("a", "u8", &[2], &[1, 2])
            .unreadable("b", 12, &[4], 16, &[Stored { codec, filter, bytes: vec![1; 15] }])
            .tensor("c", "f32", &[1], &floats(&[2.5]))
            .aliases(&[("tied to b", 1)]);
        container
    };
    let unknown_dtype = |stored: Stored| {
        let mut container = Container::new();
        container.tensor("a", "u8", &[2], &[1, 2]).unreadable("b", 24, &[7], 40, &[stored]).tensor(
            "c",
            "f32",
            &[1],
            &floats(&[2.5]),
        );
        container
    };
    let small_fill = unknown_dtype(Stored { codec: 2, filter: 0, bytes: vec![5; 4] });
    vec![
        ok("zstd", &["R66", "R60", "R62"], "a zstd chunk without a filter beside a raw one", &zstd),
        ok("planes", &["R68", "R66"], "planes of elements of 2, 4, 8 and 16 bytes", &widths),
        ok("planes-of-bytes", &["R69"], "planes of elements of one byte change nothing", &one),
        ok("fill", &["R63"], "one element for a whole chunk, of several widths", &fills),
        ok(
            "many-chunks",
            &["R51", "R53", "R65", "R44"],
            "one tensor of fill, zstd and raw chunks, the last one of 4 bytes",
            &chunks,
        ),
        ok("chunk-sizes", &["R50", "R99"], "the smallest and the largest chunks", &log2),
        ok(
            "unknown-codec",
            &["R70"],
            "one tensor by a codec to come; the others are readable",
            &unknown(77, 3),
        ),
        ok("unknown-filter", &["R70"], "one tensor behind a filter to come", &unknown(1, 9)),
        ok(
            "unknown-dtype",
            &["R72"],
            "one tensor of a dtype to come, whose length does not follow from its shape",
            &unknown_dtype(Stored { codec: 0, filter: 0, bytes: vec![5; 40] }),
        ),
        ok("unknown-dtype-fill", &["R64"], "a dtype to come, of 4 bytes, as a fill", &small_fill),
    ]
}

pub fn raw_chunk(chunk: &[u8]) -> Stored {
    Stored { codec: 0, filter: 0, bytes: chunk.to_vec() }
}

fn footer_u64(bytes: &[u8], at: usize) -> usize {
    let start = bytes.len() - 128 + at;
    u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap()) as usize
}

fn index_and_mirror() -> Vec<Case> {
    let base = base();
    let damaged_at = |field, rules, file, what| {
        let mut bytes = base.finish();
        let offset = footer_u64(&bytes, field);
        bytes[offset..offset + 64].fill(0xEE);
        let mut case = with_bytes(file, rules, what, &base, bytes);
        case.at = "verify";
        case
    };
    let mut no_mirror = base.clone();
    no_mirror.mirror = false;
    let mut unknown = base.clone();
    unknown.sections.push((4, b"from the future".to_vec()));
    let mut order = base.payloads();
    order.reverse();
    let mut column = base.clone();
    column.tensors.0.push(("colours", vec![1, 2, 3]));
    // With every codec column in full, though all chunks are raw.
    let payloads = [(1, base.tensors.encode()), (2, base.records.encode())];
    let mut no_aliases = base.clone();
    no_aliases.aliases = Some(Columns::aliases(&[], &[], &[]));
    vec![
        damaged_at(
            0,
            &["R106", "R124", "R110"],
            "index-damaged",
            "the mirror is used because the index is damaged",
        )
        .with("mirror_used", true),
        damaged_at(24, &["R124", "R110", "R21"], "mirror-damaged", "only the mirror is damaged"),
        ok("no-mirror", &["R22", "R19", "R23"], "a file without a mirror", &no_mirror),
        ok("unknown-section", &["R37"], "a section of a kind to come", &unknown),
        with_bytes(
            "sections-reversed",
            &["R38", "R30"],
            "records before tensors in the index",
            &base,
            base.finish_with(&region(&order)),
        ),
        ok("unknown-column", &["R41", "R39"], "a column to come", &column),
        with_bytes(
            "codecs-of-raw-chunks",
            &["R43", "R42"],
            "the codec columns in full though every chunk is raw",
            &base,
            base.finish_with(&region(&payloads)),
        ),
        ok("aliases-empty", &["R76"], "a section of no aliases", &no_aliases),
    ]
}

/// The same flags in header and footer.
pub fn with_flags(container: &Container, header_at: usize, footer_at: usize, bits: u64) -> Vec<u8> {
    let mut bytes = container.finish();
    bytes[header_at..header_at + 8].copy_from_slice(&bits.to_le_bytes());
    let start = bytes.len() - 128 + footer_at;
    bytes[start..start + 8].copy_from_slice(&bits.to_le_bytes());
    seal_header(&mut bytes);
    seal_footer(&mut bytes);
    bytes
}

fn versions() -> Vec<Case> {
    let base = base();
    let mut write_version = base.finish();
    write_version[10] = 9;
    seal_header(&mut write_version);
    let mut other_id = base.clone();
    other_id.file_id = [0xFF; 16];
    other_id.front[..4096].copy_from_slice(&header([0xFF; 16]));
    vec![
        with_bytes(
            "compat-flag",
            &["R98"],
            "an unknown compat flag",
            &base,
            with_flags(&base, 16, 40, 1 << 63),
        ),
        with_bytes(
            "ro-compat-flag",
            &["R97"],
            "an unknown ro_compat flag",
            &base,
            with_flags(&base, 24, 48, 2),
        ),
        with_bytes("write-version", &["R9"], "a later write version", &base, write_version),
        ok("file-id", &["R11"], "any 16 bytes are a file id", &other_id),
    ]
}

fn names_and_aliases() -> Vec<Case> {
    let mut names = Container::new();
    let long = "x".repeat(1024);
    for name in [" ", "Z", "a", "a.b", "a/b", "\"quoted\\", &long, "é", "日本", "😀", "\u{80}"] {
        names.expected_tensors.insert(name.to_owned(), Value::Null);
    }
    let mut sorted: Vec<String> = names.expected_tensors.keys().cloned().collect();
    sorted.sort();
    for (i, name) in sorted.iter().enumerate() {
        names.tensor(name, "u8", &[1], &[i as u8]);
    }
    let mut tied = Container::new();
    tied.tensor("decoder", "f32", &[2], &floats(&[1.0, 2.0])).tensor("other", "u8", &[], &[5]);
    tied.aliases(&[("encoder", 0), ("head", 0), ("zzz", 1)]);
    vec![
        ok("names", &["R45", "R46", "R44", "R99"], "short, long and foreign names", &names),
        ok("tied", &["R79", "R77", "R78"], "tensors with several names", &tied),
    ]
}

fn records() -> Vec<Case> {
    let mut deep = Container::new();
    let nested = |depth: usize, inner: u8| [vec![0x91; depth], vec![inner]].concat();
    let value = |depth: usize, inner: Value| (0..depth).fold(inner, |value, _| json!([value]));
    deep.record("32 deep", &nested(32, 1), value(32, json!(1)));
    deep.record("32 deep around an empty one", &nested(32, 0x90), value(32, json!([])));
    let mut types = Container::new();
    types
        .record("f32", &[0xCA, 0x3F, 0x80, 0, 0], json!(1.0))
        .record("false", &[0xC2], json!(false))
        .record("i64", &[0xD3, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE], json!(-2))
        .record("keys", &[0x82, 0xA1, b'a', 1, 0xA1, b'b', 2], json!({ "a": 1, "b": 2 }))
        .record("nil", &[0xC0], Value::Null)
        .record("text", &[0xD9, 2, b'h', b'i'], json!("hi"));
    let mut reserved = Container::new();
    let map = |pairs: &[(&str, Vec<u8>)]| {
        let mut bytes = vec![0x80 | pairs.len() as u8];
        for (key, value) in pairs {
            bytes.push(0xA0 | key.len() as u8);
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    };
    let text = |text: &str| [vec![0xA0 | text.len() as u8], text.as_bytes().to_vec()].concat();
    let half = [vec![0xCB], 0.5_f64.to_be_bytes().to_vec()].concat();
    let seconds = [vec![0xCE], 1_750_000_000_u32.to_be_bytes().to_vec()].concat();
    reserved.tensor("model/weight", "f32", &[1], &floats(&[0.5]));
    reserved.record("tensorkeep.metadata", &map(&[("run", text("a"))]), json!({ "run": "a" }));
    reserved.record("tensorkeep.metrics", &map(&[("loss", half)]), json!({ "loss": 0.5 }));
    let model = map(&[("kind", text("linear")), ("config", map(&[("inputs", vec![3])]))]);
    reserved.record("tensorkeep.model", &model, json!({ "kind": "linear", "config": { "inputs": 3 } }));
    let progress = map(&[("step", vec![7]), ("epoch", vec![1])]);
    reserved.record("tensorkeep.progress", &progress, json!({ "step": 7, "epoch": 1 }));
    let save = map(&[
        ("attempt", vec![3]),
        ("step", vec![7]),
        ("saved_at", seconds),
        ("why", text("epoch")),
        ("resumed_from", vec![0xC0]),
    ]);
    let save_json =
        json!({ "attempt": 3, "step": 7, "saved_at": 1_750_000_000, "why": "epoch", "resumed_from": null });
    reserved.record("tensorkeep.save", &save, save_json);
    let mut long = Container::new();
    let repeated = "resume ".repeat(1000);
    let bytes =
        [vec![0xDA], (repeated.len() as u16).to_be_bytes().to_vec(), repeated.clone().into_bytes()].concat();
    long.record("notes", &bytes, json!(repeated));
    // The same record once more, stored as a zstd chunk.
    let mut coded = Container::new();
    coded.tensor_in("notes", "opaque", &[bytes.len() as u64], &bytes, 20, |chunk| zstd_chunk(0, chunk));
    std::mem::swap(&mut coded.tensors, &mut coded.records);
    coded.expected_tensors.clear();
    coded.expected_records = long.expected_records.clone();
    let mut bytes_record = Container::new();
    bytes_record.record("bin", &bin(&[0, 255]), json!([0, 255]));
    let mut ext = Container::new();
    ext.record("ext", &[0xD4, 5, 7], json!([5, [7]]));
    ext.record("ext of 3", &[0xC7, 3, 0xFF, 1, 2, 3], json!([-1, [1, 2, 3]]));
    let mut keys = Container::new();
    keys.record("keys", &[0x82, 1, 0xC3, 0xC0, 2], json!([[1, true], [null, 2]]));
    vec![
        ok("records-deep", &["R81", "R99"], "as deep as a record may be", &deep),
        ok("records-types", &["R80", "R84"], "values of several types, some in long forms", &types),
        ok("records-bin", &["R80"], "bytes as a record", &bytes_record),
        ok("records-ext", &["R80"], "extension types: their number and their bytes", &ext),
        ok("records-keys", &["R83", "R82"], "keys that are not text", &keys),
        ok("records-long", &["R49"], "a record of several thousand bytes", &long),
        ok("records-zstd", &["R49", "R66"], "a record in a zstd chunk", &coded),
        ok("records-reserved", &["R89", "R90", "R91"], "the reserved records of version 1", &reserved),
    ]
}
