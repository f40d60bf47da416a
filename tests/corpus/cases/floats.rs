//! Float planes, codec 4: files that every reader accepts, and their twins, in which each field of
//! the planes' headers lies.

use super::Case;
use super::accepted::{ok, pattern};
use super::refused::{DAMAGED, READ, one, reject};
use test_support::build::{Container, Stored, float_planes};

pub fn cases() -> Vec<Case> {
    accepted().into_iter().chain(refused()).collect()
}

/// Codec 4 with frames for the planes that `coded` names.
fn float_chunk(chunk: &[u8], word: usize, coded: impl Fn(usize) -> bool) -> Stored {
    let frame = |plane, bytes: &[u8]| coded(plane).then(|| zstd::bulk::compress(bytes, 3).unwrap());
    Stored { codec: 4, filter: 0, bytes: float_planes(chunk, word, frame) }
}

fn accepted() -> Vec<Case> {
    let raw = pattern(4096);
    let mut widths = Container::new();
    for (name, size, word) in
        [("bf16", 2, 2), ("c128", 16, 8), ("c64", 8, 4), ("f32", 4, 4), ("f64", 8, 8), ("f8e5m2", 1, 1)]
    {
        let shape = [4096 / size];
        widths.tensor_in(name, name, &shape, &raw, 20, |chunk| float_chunk(chunk, word, |_| true));
    }
    let mut some_raw = Container::new();
    some_raw
        .tensor_in("highest", "f32", &[1024], &raw, 20, |chunk| float_chunk(chunk, 4, |plane| plane == 3))
        .tensor_in("lowest", "f32", &[1024], &raw, 20, |chunk| float_chunk(chunk, 4, |plane| plane == 0));
    let mut chunks = Container::new();
    let three = [pattern(65536), vec![9; 65536], pattern(4000)].concat();
    chunks.tensor_in("many", "i32", &[three.len() as u64 / 4], &three, 16, |chunk| match chunk[1] {
        9 => Stored { codec: 2, filter: 0, bytes: chunk[..4].to_vec() },
        _ => float_chunk(chunk, 4, |_| true),
    });
    vec![
        ok(
            "float-planes",
            &["R129", "R130", "R132"],
            "rotated planes of words of 1, 2, 4 and 8 bytes, each a frame",
            &widths,
        ),
        ok(
            "float-planes-some-raw",
            &["R130", "R131"],
            "one plane of four is a frame, the first or the last",
            &some_raw,
        ),
        ok(
            "float-planes-in-chunks",
            &["R129", "R51", "R53"],
            "chunks of float planes, here of integers, beside a fill",
            &chunks,
        ),
    ]
}

/// A frame of 1024 bytes that decodes to 1024 bytes: a stored block of 1010 and one byte 14 times.
fn frame_as_long_as_its_plane() -> Vec<u8> {
    let block = |last: u32, kind: u32, len: u32| (last | kind << 1 | len << 3).to_le_bytes()[..3].to_vec();
    let header = [0x28, 0xB5, 0x2F, 0xFD, 0x60, 0x00, 0x03];
    [&header[..], &block(0, 0, 1010), &pattern(1010), &block(1, 1, 14), &[7]].concat()
}

/// One tensor of four planes of 1024 bytes, the upper two as frames: each case has one wrong field.
fn refused() -> Vec<Case> {
    let raw = pattern(4096);
    let good = float_chunk(&raw, 4, |plane| plane > 1).bytes;
    let last = u32::from_le_bytes(good[16..20].try_into().unwrap()) as usize;
    assert_eq!((good[0], good[5], good[10], good[15]), (0, 0, 1, 1));
    let stored_as = |filter: u8, bytes: Vec<u8>| {
        let stored = Stored { codec: 4, filter, bytes };
        one(|container| {
            container.tensor_in("a", "f32", &[1024], &raw, 20, |_| stored.clone());
        })
    };
    let case = |file: &str, rules: &[&'static str], what: &'static str, bytes: Vec<u8>| {
        reject(&format!("float-planes-{file}"), rules, READ, what, stored_as(0, bytes))
    };
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        edit(&mut bytes);
        bytes
    };
    let set =
        |at: usize, value: u32| edited(&|bytes| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()));
    // Another frame in place of the last plane's, with its right length.
    let with_last = |frame: &[u8]| {
        edited(&|bytes| {
            bytes.truncate(bytes.len() - last);
            bytes.extend_from_slice(frame);
            bytes[16..20].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        })
    };
    let zeros = |len: usize| zstd::bulk::compress(&vec![0; len], 3).unwrap();
    let mut with_dictionary = zstd::bulk::Compressor::with_dictionary(3, &raw[..512]).unwrap();
    let with_dictionary = with_dictionary.compress(&raw[..1024]).unwrap();
    let two_frames = [zeros(500), zeros(524)].concat();
    let longer = float_chunk(&raw, 4, |_| false).bytes;
    vec![
        case("headers-cut", &["R130"], "fewer bytes than the headers have", good[..19].to_vec()),
        case("cut", &["R130"], "without the last byte of the last plane", good[..good.len() - 1].to_vec()),
        case("long", &["R130"], "one byte behind the planes", edited(&|bytes| bytes.push(0))),
        case("raw-short", &["R131"], "a plane as it is, of 1023 bytes", set(1, 1023)),
        case("raw-huge", &["R131"], "a plane as it is that claims 4 GiB", set(1, u32::MAX)),
        case("frame-huge", &["R132"], "a frame that claims 4 GiB", set(11, u32::MAX)),
        case("frame-nothing", &["R132"], "a frame of no bytes", with_last(&[])),
        case(
            "frame-not-smaller",
            &["R132"],
            "a frame as long as its plane, which it decodes to",
            with_last(&frame_as_long_as_its_plane()),
        ),
        case("frame-garbage", &["R132"], "a frame that is none", with_last(&[9; 100])),
        case("frame-short", &["R132"], "a frame of one byte less than its plane", with_last(&zeros(1023))),
        case("frame-two", &["R132"], "two frames in one plane", with_last(&two_frames)),
        case(
            "frame-dictionary",
            &["R132"],
            "a frame that asks for a dictionary",
            with_last(&with_dictionary),
        ),
        case(
            "bomb",
            &["R132", "R102"],
            "a frame of a mebibyte for a plane of 1024 bytes",
            with_last(&zeros(1 << 20)),
        ),
        case("method", &["R133"], "a plane of a method that is none", edited(&|bytes| bytes[0] = 2)),
        reject(
            "float-planes-filter",
            &["R133"],
            READ,
            "float planes behind a filter",
            stored_as(1, good.clone()),
        ),
        reject(
            "float-planes-not-smaller",
            &["R65"],
            DAMAGED,
            "float planes that are longer than their chunk",
            stored_as(0, longer),
        ),
    ]
}
