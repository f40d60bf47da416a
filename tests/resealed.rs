//! Containers that lie with valid checksums. The parser behind the checksums must refuse them or
//! read them; it must not panic, and must not allocate out of proportion to the bytes given.

use std::collections::BTreeSet;
use tensorkeep::{ErrorKind, Value};
use test_support::counting::{Counting, peak_of};
use test_support::edits::{
    Outcome, STEP, bomb, edited, read_everything, read_record, record_template, seeds,
};
use test_support::reseal::{self, Pieces, reseal, with_record};
use test_support::{CODECS, Zoo};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// splitmix64: the same programs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Reads bytes both ways; peak memory must be in proportion. Returns the outcome of the mapped
/// reading.
fn read_within_proportion(bytes: &[u8]) -> Outcome {
    let [_, mapped] = [false, true].map(|mapped| {
        let (outcome, peak) = peak_of(|| read_everything(bytes, mapped));
        assert!(peak <= 64 * bytes.len() + (1 << 20), "{peak} bytes held for a file of {}", bytes.len());
        outcome
    });
    mapped
}

#[test]
fn a_container_taken_apart_and_put_together_is_the_same() {
    for seed in seeds() {
        let bytes = seed.join();
        let again = Pieces::of(&bytes).unwrap();
        assert!(again.join() == bytes);
        let mut resealed = bytes.clone();
        reseal(&mut resealed);
        assert!(resealed == bytes, "nothing changed, so every checksum is as the writer made it");
        assert!(matches!(read_everything(&bytes, true), Outcome::Opened { .. }));
    }
    // The writer's own bytes, not only ours.
    let zoo = Zoo::new();
    for &codec in CODECS {
        let bytes = zoo.snapshot().to_bytes(&tensorkeep::WriteOptions::new().codec(codec)).unwrap();
        assert!(Pieces::of(&bytes).unwrap().join() == bytes);
    }
}

#[test]
fn lies_with_valid_checksums_never_panic() {
    let seeds = seeds();
    let mut random = Random(1);
    let (mut opened, mut words) = (0, BTreeSet::new());
    const ROUNDS: usize = 12_000;
    for round in 0..ROUNDS {
        // A quarter goes to each seed; most programs are one step, which damages one field and
        // passes many checks.
        let steps = [1, 1, 1, 2, 3, 5][random.next() as usize % 6];
        let program = random.bytes(steps * STEP);
        let bytes = edited(&seeds[round % seeds.len()], &program);
        match read_within_proportion(&bytes) {
            Outcome::Opened { .. } => opened += 1,
            Outcome::Refused(kind, text) => {
                assert!(REFUSALS.contains(&kind), "{text}");
                words.insert(kind_of_refusal(&text));
            }
        }
    }
    // Without recomputed checksums every lie would end at one of six checksums, and none would
    // open.
    assert!(opened > ROUNDS / 10 && opened < ROUNDS * 9 / 10, "{opened} of {ROUNDS} opened");
    assert!(words.len() > 40, "only {} kinds of refusal: {words:#?}", words.len());
    // But a lie about a section's length leads to a header that is none, and cannot be sealed.
    let unsealed = |words: &&String| words.contains("checksum of") && !words.contains("section header");
    assert_eq!(words.iter().find(unsealed), None, "a checksum was not made: {words:#?}");
}

/// Errors allowed on opening. `Mismatch`: today an index whose map lacks a column is called that,
/// not `Damaged`.
const REFUSALS: [ErrorKind; 5] = [
    ErrorKind::Damaged,
    ErrorKind::Foreign,
    ErrorKind::NewerVersion,
    ErrorKind::LimitExceeded,
    ErrorKind::Mismatch,
];

/// An error's text without its numbers and names.
fn kind_of_refusal(text: &str) -> String {
    let words = text.split([':', ';']).find(|part| !part.contains("memory") && !part.contains("tensor "));
    let unquoted = words.unwrap_or(text).split('"').next().unwrap_or_default();
    unquoted.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[test]
fn records_of_random_bytes_are_refused_or_read_without_a_panic() {
    let template = record_template();
    let mut random = Random(2);
    let (mut values, mut mismatched) = (0, 0);
    for _ in 0..20_000 {
        let len = 1 + random.next() as usize % 40;
        let mut record = random.bytes(len);
        // Half of all random bytes are small integers; markers of lists, maps, text and extensions
        // are more frequent here.
        for byte in &mut record {
            if random.next().is_multiple_of(2) {
                *byte = [0x81, 0x82, 0x91, 0x92, 0xA1, 0xC0, 0xC4, 0xC7, 0xD4, 0xDC, 0xDE, 0xCA]
                    [*byte as usize % 12];
            }
        }
        match read_record(&with_record(&template, &record), true) {
            Ok(value) => values += usize::from(!value.to_string().is_empty()),
            Err(error) => mismatched += usize::from(error.kind() == ErrorKind::Mismatch),
        }
    }
    assert!(values > 200, "{values} records were values");
    assert_eq!(mismatched, 0, "what the door lets in is a value");
}

/// A program of one step that puts a bomb into a chunk.
fn bombed(chunk: u16) -> [u8; STEP] {
    let [low, high] = chunk.to_le_bytes();
    [17, 0, low, high, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[test]
fn a_decompression_bomb_takes_no_more_than_its_chunk() {
    let frame = bomb(3000);
    assert_eq!(frame.len(), 3000);
    assert_eq!(zstd::bulk::decompress(&frame, 200 << 20).unwrap().len(), 747 * (128 << 10) + 3);
    let mut refusals = 0;
    for seed in seeds() {
        let chunks = reseal::chunks(&seed.join());
        let coded = chunks.iter().filter(|chunk| chunk.codec != 0).count() as u16;
        for chunk in 0..coded {
            let whole = read_everything(&seed.join(), true);
            let Outcome::Opened { refused: before, .. } = whole else { panic!("{whole:?}") };
            let bytes = edited(&seed, &bombed(chunk));
            let Outcome::Opened { refused, .. } = read_within_proportion(&bytes) else {
                panic!("a table is whole")
            };
            refusals += usize::from(refused > before);
        }
    }
    assert!(refusals > 3, "only {refusals} chunks with a bomb in them were refused");
}

#[test]
fn records_that_lie_about_counts_and_depth_are_refused() {
    let template = record_template();
    let nested = |marker: &[u8], depth: usize| [marker.repeat(depth), vec![1]].concat();
    let refused = [
        // 4 Gi elements of a list, entries of a map, bytes of text, of bin, of an extension.
        vec![0xDD, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        vec![0xDF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1],
        vec![0xDB, 0xFF, 0xFF, 0xFF, 0xFF, b'x'],
        vec![0xC6, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        vec![0xC9, 0xFF, 0xFF, 0xFF, 0xFF, 5, 1],
        // Lists in lists, and maps in maps, deeper than any stack.
        nested(&[0x91], 33),
        nested(&[0x91], 1_000_000),
        nested(&[0x81, 1], 1_000_000),
        // Lists of lists, each of which announces more than it has.
        nested(&[0xDC, 0xFF, 0xFF], 30),
        // One key twice.
        vec![0x82, 1, 1, 1, 2],
    ];
    for record in refused {
        let bytes = with_record(&template, &record);
        let (outcome, peak) = peak_of(|| read_record(&bytes, true));
        let error = outcome.expect_err("a lie");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(peak <= 8 * bytes.len() + (1 << 20), "{peak} bytes held for {}", bytes.len());
    }
    assert!(read_record(&with_record(&template, &nested(&[0x91], 32)), true).is_ok());
}

#[test]
fn a_record_holds_its_bytes_and_nothing_else() {
    let template = record_template();
    let value = |record: &[u8]| read_record(&with_record(&template, record), false);
    assert_eq!(
        value(&[0x93, 1, 2, 3]).unwrap(),
        Value::List(vec![Value::Int(1), Value::Int(2), Value::Int(3)])
    );
    assert_eq!(value(&[0xD4, 5, 9]).unwrap(), Value::List(vec![Value::Int(5), Value::Bytes(vec![9])]));
    assert!(value(&[0x93, 1, 2]).is_err());
    assert!(value(&[]).is_err());
}

#[test]
fn bytes_that_once_broke_a_reader_do_not_break_it_again() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "tkeep")) {
        let bytes = std::fs::read(path).unwrap();
        for mapped in [false, true] {
            read_everything(&bytes, mapped);
        }
    }
}
