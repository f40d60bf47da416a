//! SPEC.md against the code: its test vectors, and what it says of bytes, against reading and
//! writing.

mod rules;
mod tables;

use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tensorkeep::{Codec, Dtype, ErrorKind, Progress, Snapshot, Tensor, Value, WriteOptions};
use test_support::build::{self, Container, Stored};
use test_support::{Zoo, open};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn spec() -> String {
    fs::read_to_string(root().join("SPEC.md")).unwrap()
}

/// The cells of the table after `<!-- name -->`, without its head and without backticks.
fn table(name: &str) -> Vec<Vec<String>> {
    let spec = spec();
    let start = spec.find(&format!("<!-- {name} -->")).unwrap_or_else(|| panic!("no table {name}"));
    let rows: Vec<Vec<String>> = spec[start..]
        .lines()
        .skip(3)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect();
    assert!(!rows.is_empty(), "table {name} is empty");
    rows
}

/// The bytes of every block of hexadecimal, by the words after `hex`.
fn vectors() -> BTreeMap<String, Vec<u8>> {
    let spec = spec();
    let blocks = spec.split("```hex ").skip(1).map(|block| {
        let (name, rest) = block.split_once('\n').unwrap();
        let digits = rest.split("```").next().unwrap().split_whitespace();
        (name.to_owned(), digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect())
    });
    blocks.collect()
}

/// Compares the library's container with one built from SPEC.md, which copies only the file id.
fn same_bytes(snapshot: &Snapshot<'_>, options: &WriteOptions, build: impl FnOnce(&mut Container)) {
    let written = snapshot.to_bytes(options).unwrap();
    let mut container = Container::new();
    container.file_id.copy_from_slice(&written[40..56]);
    container.front = build::header(container.file_id);
    build(&mut container);
    let built = container.finish();
    let differs = written.iter().zip(&built).position(|(written, built)| written != built);
    assert_eq!((differs, written.len()), (None, built.len()));
}

#[test]
fn a_writer_that_follows_this_document_gives_the_librarys_bytes() {
    // [R4] [R2] [R21] [R23] [R38] [R128] [R59]
    same_bytes(&Snapshot::new(), &WriteOptions::new(), |_| {});
    let (floats, bytes, zeros) = ([0.5_f32, -1.0], vec![7_u8; 70_000], vec![0.0_f64; 20_000]);
    let mut snapshot = Snapshot::new().tensor("b.floats", (&[2, 1][..], &floats[..])).unwrap();
    snapshot = snapshot.tensor("a.bytes", &bytes).unwrap().tensor("c.empty", &floats[..0]).unwrap();
    snapshot = snapshot.alias("head", "b.floats").unwrap().record("r", &(1, "two")).unwrap();
    snapshot = snapshot.progress(Progress::new(3).epoch(1));
    let progress = b"\x82\xA4step\x03\xA5epoch\x01";
    let floats_le = floats.map(f32::to_le_bytes).concat();
    let null = serde_json::Value::Null;
    same_bytes(&snapshot, &WriteOptions::new(), |container| {
        container.tensor("a.bytes", "u8", &[70_000], &bytes);
        container.tensor("b.floats", "f32", &[2, 1], &floats_le).tensor("c.empty", "f32", &[0], &[]);
        container.aliases(&[("head", 1)]);
        container.record("r", b"\x92\x01\xA3two", null.clone());
        container.record("tensorkeep.progress", progress, null.clone());
    });
    snapshot = snapshot.tensor("d.zeros", &zeros).unwrap();
    // Constant chunks become a fill; other chunks as small as these stay raw.
    let options = WriteOptions::new().codec(Codec::Balanced).chunk_log2(16);
    let fill =
        |size: usize| move |chunk: &[u8]| Stored { codec: 2, filter: 0, bytes: chunk[..size].to_vec() };
    let raw = |chunk: &[u8]| Stored { codec: 0, filter: 0, bytes: chunk.to_vec() };
    same_bytes(&snapshot, &options, |container| {
        container.tensor_in("a.bytes", "u8", &[70_000], &bytes, 16, fill(1));
        container.tensor_in("b.floats", "f32", &[2, 1], &floats_le, 16, raw).tensor_in(
            "c.empty",
            "f32",
            &[0],
            &[],
            16,
            raw,
        );
        container.tensor_in("d.zeros", "f64", &[20_000], &[0; 160_000], 16, fill(8));
        container.aliases(&[("head", 1)]);
        container.record("r", b"\x92\x01\xA3two", null.clone());
        container.record("tensorkeep.progress", progress, null.clone());
        *container.records.get("chunk_log2") = vec![16; 2];
    });
}

#[test]
fn extents_begin_at_the_documented_alignment() {
    // [R54] [R59]
    for row in table("table: alignment") {
        let numbers: Vec<usize> = row[0].split(' ').filter_map(|word| word.parse().ok()).collect();
        let align: u64 = row[1].parse().unwrap();
        for len in numbers {
            let bytes = vec![1_u8; len];
            let mut snapshot = Snapshot::new().tensor("a", &[9_u8][..]).unwrap().tensor("b", &bytes).unwrap();
            let tensor = Tensor::shared(Dtype::U8, &[len], std::sync::Arc::new(bytes.clone())).unwrap();
            snapshot = snapshot.tensor("c", tensor).unwrap();
            let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), false).unwrap();
            let place = |name: &str| checkpoint.info(name).unwrap().offset;
            assert_eq!(place("b"), 4097_u64.next_multiple_of(align), "{len} bytes");
            assert_eq!(place("c"), (place("b") + len as u64).next_multiple_of(align), "{len} bytes");
        }
    }
}

#[test]
fn the_mirror_is_written_while_the_index_is_small() {
    // [R22]
    for (count, mirrored) in [(5_000, true), (20_000, false)] {
        let mut snapshot = Snapshot::new();
        for i in 0..count {
            snapshot =
                snapshot.tensor(format!("{i:060}"), Tensor::new(Dtype::U8, &[0], &[]).unwrap()).unwrap();
        }
        let bytes = snapshot.to_bytes(&WriteOptions::new()).unwrap();
        let footer = &bytes[bytes.len() - 128..];
        let number = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().unwrap());
        assert_eq!((number(8) <= 1 << 20, number(24) != 0), (mirrored, mirrored));
        assert_eq!(open(&bytes, false).unwrap().tensors().count(), count);
    }
}

#[test]
fn a_writer_refuses_what_a_reader_would_refuse() {
    // [R100] [R88] [R89]
    let snapshot = Snapshot::new().tensor("deep", Tensor::new(Dtype::U8, &[1; 65], &[1]).unwrap()).unwrap();
    assert_eq!(snapshot.to_bytes(&WriteOptions::new()).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let mut snapshot = Snapshot::new();
    let nested = |depth| (0..depth).fold(Value::Int(1), |value, _| Value::List(vec![value]));
    snapshot = snapshot.record("deep", &nested(32)).unwrap();
    assert_eq!(snapshot.clone().record("deeper", &nested(33)).unwrap_err().kind(), ErrorKind::Invalid);
    let long = "x".repeat(1025);
    assert_eq!(snapshot.clone().record(&*long, &1).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(snapshot.clone().tensor(&long[1..], &[1_u8][..]).is_ok());
    let large = Value::Bytes(vec![0; 64 << 20]);
    assert_eq!(snapshot.clone().record("large", &large).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(snapshot.clone().record("tensorkeep.x", &1).unwrap_err().kind(), ErrorKind::Invalid);
    let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    assert_eq!(checkpoint.records().collect::<Vec<_>>(), ["deep"], "no reserved record that says nothing");
}

#[test]
#[cfg(feature = "ndarray")]
fn elements_stand_in_row_major_order() {
    // [R73]
    let columns_first = ndarray::Array2::from_shape_fn((3, 2), |(i, j)| (10 * j + i) as u8).reversed_axes();
    let snapshot = Snapshot::new().tensor("w", &columns_first).unwrap();
    let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    let tensor = checkpoint.tensor("w").unwrap();
    assert_eq!((tensor.shape(), tensor.bytes()), (&[2, 3][..], &[0, 1, 2, 10, 11, 12][..]));
}

#[test]
fn the_checksum_is_the_documented_one() {
    // [R92]
    let vectors = vectors();
    assert_eq!(vectors["crc input"], b"123456789");
    let value = 0xCBF4_3926_u32.to_le_bytes();
    assert_eq!(vectors["crc value"], value);
    assert_eq!(build::crc32(b"123456789").to_le_bytes(), value);
    // The library's output for these nine bytes.
    let snapshot = Snapshot::new().tensor("w", &b"123456789"[..]).unwrap();
    let bytes = snapshot.to_bytes(&WriteOptions::new()).unwrap();
    let column = [&b"\xAAchunk_crcs\xC4\x04"[..], &value].concat();
    assert!(bytes.windows(column.len()).any(|window| window == column));
}

#[test]
fn coded_chunks_decode_to_the_documented_bytes() {
    // [R68] [R66] [R63] [R129] [R130] [R132]
    let vectors = vectors();
    let coded = build::float_planes(&vectors["float-planes raw"], 2, |plane, bytes| {
        (plane == 1).then(|| zstd::bulk::compress(bytes, 3).unwrap())
    });
    assert_eq!(coded, vectors["float-planes stored"]);
    assert_eq!(build::planes(&vectors["planes raw"], 4), vectors["planes filtered"]);
    let filtered = zstd::bulk::decompress(&vectors["zstd stored"], 64).unwrap();
    assert_eq!(build::planes(&vectors["zstd raw"], 4), filtered);
    for (name, dtype, codec, filter) in
        [("zstd", "f32", 1, 1), ("fill", "f32", 2, 0), ("float-planes", "bf16", 4, 0)]
    {
        let raw = &vectors[&format!("{name} raw")];
        let stored = &vectors[&format!("{name} stored")];
        let mut container = Container::new();
        let store = |_: &[u8]| Stored { codec, filter, bytes: stored.clone() };
        let size = if dtype == "bf16" { 2 } else { 4 };
        container.tensor_in("w", dtype, &[raw.len() as u64 / size], raw, 20, store);
        let bytes = container.finish();
        for mapped in [false, true] {
            assert_eq!(open(&bytes, mapped).unwrap().tensor("w").unwrap().bytes(), raw, "{name}");
        }
    }
}

#[test]
fn verifying_a_file_leaves_no_byte_out_and_decodes_no_tensor() {
    // [R140] [R143] [R58] [R20]
    let mut container = Container::new();
    let garbage = |_: &[u8]| Stored { codec: 1, filter: 0, bytes: vec![9; 50] };
    container.tensor_in("a", "u8", &[100], &[0; 100], 20, garbage);
    container.tensor("b", "u8", &[1], &[1]).record("r", &[1], 1.into());
    let bytes = container.finish();
    for mapped in [false, true] {
        let checkpoint = open(&bytes, mapped).unwrap();
        let report = checkpoint.inspect().verify_all().unwrap();
        assert!(report.damage.is_empty() && report.unsupported.is_empty(), "{report:?}");
        assert_eq!(checkpoint.tensor("a").unwrap_err().kind(), ErrorKind::Damaged);
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let verified = open(&damaged, at % 2 == 0).and_then(|checkpoint| checkpoint.verify());
        assert!(verified.is_err(), "byte {at}");
    }
}

#[test]
fn a_frame_that_is_malformed_is_read_right_or_refused() {
    // [R136]: a block of one byte 3000 times, in a window of 1024.
    let block = (1_u32 | 1 << 1 | 3000 << 3).to_le_bytes();
    let frame = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x00][..], &block[..3], &[7]].concat();
    let mut container = Container::new();
    let stored = |_: &[u8]| Stored { codec: 1, filter: 0, bytes: frame.clone() };
    container.tensor_in("a", "u8", &[3000], &[7; 3000], 20, stored);
    match open(&container.finish(), true).unwrap().tensor("a") {
        Ok(tensor) => assert_eq!(tensor.bytes(), [7; 3000]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged),
    }
}

/// The container of section 19, by this library, with the document's file id.
fn minimal() -> Vec<u8> {
    let snapshot = Snapshot::new().tensor("w", &[1.0_f32, -2.0][..]).unwrap();
    let file_id = open(&container_of_the_document(), true).unwrap().inspect().file_id();
    snapshot.to_bytes(&WriteOptions::new().file_id(file_id)).unwrap()
}

fn container_of_the_document() -> Vec<u8> {
    let blocks: BTreeMap<usize, Vec<u8>> = vectors()
        .into_iter()
        .filter_map(|(name, bytes)| Some((name.strip_prefix("container ")?.parse().unwrap(), bytes)))
        .collect();
    let (last, footer) = blocks.last_key_value().unwrap();
    let mut bytes = vec![0; last + footer.len()];
    for (&at, block) in &blocks {
        bytes[at..at + block.len()].copy_from_slice(block);
    }
    bytes
}

#[test]
fn the_test_vectors_are_written_and_read() {
    // [R127] [R128]
    let bytes = container_of_the_document();
    assert!(spec().contains(&format!("{} bytes long", bytes.len())));
    assert!(bytes == minimal());
    let checkpoint = open(&bytes, true).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().elements::<f32>().unwrap(), [1.0, -2.0]);
    checkpoint.verify().unwrap();
}

#[test]
#[ignore = "prints the blocks of section 19, for whoever writes them"]
fn print_the_test_vectors() {
    let show = |name: &str, bytes: &[u8]| {
        println!("```hex {name}");
        for line in bytes.chunks(16) {
            println!("{}", line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
        }
        println!("```\n");
    };
    let raw: Vec<u8> = (0..16).flat_map(|i| (1.0 + i as f32 / 65536.0).to_le_bytes()).collect();
    show("zstd raw", &raw);
    show("zstd stored", &zstd::bulk::compress(&build::planes(&raw, 4), 3).unwrap());
    // From 1/4 to just below 2, with alternating signs.
    let raw: Vec<u8> = (0..64_u16).flat_map(|i| ((0x3E80 + i * 6) | ((i % 2) << 15)).to_le_bytes()).collect();
    show("float-planes raw", &raw);
    let frame = |plane, bytes: &[u8]| (plane == 1).then(|| zstd::bulk::compress(bytes, 3).unwrap());
    show("float-planes stored", &build::float_planes(&raw, 2, frame));
    let bytes = minimal();
    println!("{} bytes", bytes.len());
    // Runs of bytes between runs of at least 32 zeros, from and to multiples of 16.
    let mut at = 0;
    while at < bytes.len() {
        let zeros = |at: usize| bytes[at..(at + 32).min(bytes.len())].iter().all(|&byte| byte == 0);
        let start = (at..bytes.len()).step_by(16).find(|&at| !zeros(at)).unwrap();
        let start = if bytes[start..start + 16].iter().all(|&byte| byte == 0) { start + 16 } else { start };
        let end = (start..bytes.len()).step_by(16).find(|&at| zeros(at)).unwrap_or(bytes.len());
        show(&format!("container {start}"), &bytes[start..end]);
        at = end;
    }
}

#[test]
fn every_byte_of_a_file_is_covered() {
    // [R93] [R127]
    let zoo = Zoo::new();
    let bytes = zoo.snapshot().to_bytes(&WriteOptions::new()).unwrap();
    assert!(bytes == zoo.snapshot().to_bytes(&WriteOptions::new().workers(3)).unwrap());
    for at in (0..bytes.len()).step_by(509).chain(bytes.len() - 4096..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        let seen = open(&damaged, true).and_then(|checkpoint| checkpoint.verify());
        // With another first byte it is some other file.
        let kind = if at < 4 { ErrorKind::Foreign } else { ErrorKind::Damaged };
        assert_eq!(seen.unwrap_err().kind(), kind, "byte {at}");
    }
}

#[test]
fn a_history_is_what_this_document_says_or_damaged_alone() {
    // [R149] [R150] [R151] [R153]
    let text = |text: &str| [&[0xA0 | text.len() as u8], text.as_bytes()].concat();
    let history = |values: &[u8]| {
        let loss =
            [&[0x83][..], &text("steps"), &[0x92, 5, 2], &text("times"), &[0x92, 9, 0xFF], &text("values")];
        let metrics = [&text("metrics")[..], &[0x81], &text("loss"), &loss.concat(), values].concat();
        let lives = [&text("lives")[..], &[0x80]].concat();
        let mut container = Container::new();
        container.record("another", &[7], json!(7));
        container.record(
            "tensorkeep.history",
            &[&[0x83][..], &metrics, &lives, &text("new"), &[1]].concat(),
            json!(0),
        );
        container.finish()
    };
    // 0.5 as 32 bits, then -2 as 64 bits.
    let two = [&[0x92, 0xCA, 0x3F, 0, 0, 0, 0xCB, 0xC0][..], &[0; 7]].concat();
    let checkpoint = open(&history(&two), false).unwrap();
    let read = checkpoint.inspect().history().unwrap().unwrap();
    let loss = &read.metrics["loss"];
    assert_eq!(
        (&loss.steps[..], &loss.epochs[..], &loss.values[..]),
        (&[5, 7][..], &[0, 0][..], &[0.5, -2.0][..])
    );
    assert_eq!((&loss.times[..], loss.logged, read.lives.len()), (&[0.009, 0.008][..], 2, 0));
    let checkpoint = open(&history(&[0x91, 0xCA, 0x3F, 0, 0, 0]), false).unwrap();
    let error = checkpoint.inspect().history().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("column \"steps\" of metric \"loss\""), "{error}");
    assert_eq!(checkpoint.record::<u8>("another").unwrap(), 7);
    checkpoint.verify().unwrap();
}
