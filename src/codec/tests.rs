//! Round trips of every dtype and length, and stored bytes with every header falsified.

use super::*;
use proptest::prelude::*;

const CODED: [Codec; 2] = [Codec::Balanced, Codec::Max];

fn round_trip(raw: &[u8], dtype: Dtype, codec: Codec) -> (u8, usize) {
    let mut encoder = Encoder::default();
    let encoded = encoder.encode(raw, dtype, codec).unwrap();
    let mut decoded = vec![0xEE; raw.len()];
    Decoder::default().decode(encoded.codec, encoded.filter, encoded.bytes, &mut decoded, dtype).unwrap();
    assert!(decoded == raw);
    assert!(encoded.codec == CODEC_RAW || encoded.bytes.len() < raw.len());
    (encoded.codec, encoded.bytes.len())
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

/// Normal deviates, as the sum of twelve uniform ones, with full mantissas.
fn normals(count: usize) -> Vec<f32> {
    let noise = noise(48 * count);
    let uniform = |bytes: &[u8]| f64::from(u32::from_le_bytes(bytes.try_into().unwrap())) / 4_294_967_296.0;
    let sum = |bytes: &[u8]| bytes.chunks(4).map(uniform).sum::<f64>() - 6.0;
    noise.chunks(48).map(|bytes| (sum(bytes) * 0.02) as f32).collect()
}

#[test]
fn one_element_fills_a_chunk_of_any_length() {
    for width in [1, 2, 3, 4, 8, 16, 20_000] {
        let element: Vec<u8> = (0..width).map(|i| (i % 251 + 1) as u8).collect();
        for count in [0, 1, 2, 3, 7, 1000, 16_385] {
            let mut raw = vec![0xEE; width * count];
            let mut decoder = Decoder::default();
            decoder.decode(CODEC_FILL, FILTER_NONE, &element, &mut raw, Dtype::Opaque).unwrap();
            assert!(raw.chunks(width).all(|found| found == element), "{width} {count}");
        }
    }
}

#[test]
fn each_kind_of_bytes_goes_its_own_way() {
    let floats = normals(40_000);
    let halves: Vec<half::bf16> = floats.iter().map(|&value| half::bf16::from_f32(value)).collect();
    let doubles: Vec<f64> = floats.windows(2).map(|pair| f64::from(pair[0]) / f64::from(pair[1])).collect();
    let small: Vec<u8> = floats.iter().map(|value| (value * 500.0) as i8 as u8).collect();
    let ids: Vec<i64> = (0..40_000).map(|i| i * 37 % 50_000).collect();
    // Every second row of 1000 is zeros: runs in every plane. Without matches, each of their bytes
    // costs a bit: 1.9 in all.
    let rarely_touched: Vec<f32> =
        floats.iter().enumerate().map(|(i, &value)| value * (i / 1000 % 2) as f32).collect();
    let text = b"one line of a log, and the next one\n".repeat(500);
    for codec in CODED {
        let check = |raw: &[u8], dtype, expected, ratio: f64| {
            let (found, len) = round_trip(raw, dtype, codec);
            let found_ratio = raw.len() as f64 / len as f64;
            assert!(found == expected && found_ratio > ratio, "{dtype} {codec:?}: {found}, {found_ratio:.3}");
        };
        check(bytemuck::cast_slice(&floats), Dtype::F32, CODEC_FLOATS, 1.18);
        check(bytemuck::cast_slice(&floats), Dtype::C64, CODEC_FLOATS, 1.18);
        check(bytemuck::cast_slice(&halves), Dtype::Bf16, CODEC_FLOATS, 1.45);
        check(bytemuck::cast_slice(&doubles), Dtype::F64, CODEC_FLOATS, 1.1);
        check(bytemuck::cast_slice(&rarely_touched), Dtype::F32, CODEC_FLOATS, 2.0);
        check(&small, Dtype::F8E5M2, CODEC_ZSTD, 1.4);
        check(bytemuck::cast_slice(&ids), Dtype::I64, CODEC_ZSTD, 4.0);
        check(&text, Dtype::Opaque, CODEC_ZSTD, 50.0);
        for dtype in [Dtype::U8, Dtype::U16, Dtype::F8E4M3, Dtype::Bf16, Dtype::F32, Dtype::I64] {
            check(&noise(100_000), dtype, CODEC_RAW, 0.99);
        }
        check(&text[..4095], Dtype::Opaque, CODEC_RAW, 0.99);
        assert_eq!(round_trip(&[0; 65_536], Dtype::F32, codec), (CODEC_FILL, 4));
        assert_eq!(round_trip(&[7; 65_536], Dtype::C128, codec), (CODEC_FILL, 16));
        assert_eq!(round_trip(&[7; 16], Dtype::U8, codec), (CODEC_FILL, 1));
    }
    assert_eq!(round_trip(&[7; 65_536], Dtype::F32, Codec::Raw).0, CODEC_RAW);
}

#[test]
fn max_is_never_larger_than_balanced() {
    let floats = normals(30_000);
    let half_zeros = [&floats[..15_000], &[0.0; 15_000]].concat();
    let sorted: Vec<u32> = (0..30_000).map(|i| i * i).collect();
    for (raw, dtype) in [
        (bytemuck::cast_slice(&floats), Dtype::F32),
        (bytemuck::cast_slice(&floats[..20_000]), Dtype::F64),
        (bytemuck::cast_slice(&half_zeros), Dtype::F32),
        (bytemuck::cast_slice(&sorted), Dtype::U32),
        (bytemuck::cast_slice(&sorted), Dtype::U16),
        // As floats, these suit LZ.
        (bytemuck::cast_slice(&sorted), Dtype::F16),
    ] {
        let [balanced, max] = CODED.map(|codec| round_trip(raw, dtype, codec).1);
        assert!(max <= balanced, "{dtype}: {max} and {balanced}");
    }
}

#[test]
fn an_encoder_gives_the_same_bytes_whatever_it_encoded_before() {
    let floats = normals(20_000);
    let raw: &[u8] = bytemuck::cast_slice(&floats);
    for codec in CODED {
        let mut used = Encoder::default();
        for (bytes, dtype) in [(raw, Dtype::I64), (&raw[..9999], Dtype::U8), (&raw[4..], Dtype::F64)] {
            used.encode(bytes, dtype, codec).unwrap();
        }
        let mut fresh = Encoder::default();
        let expected = fresh.encode(raw, Dtype::F32, codec).unwrap();
        assert_eq!(used.encode(raw, Dtype::F32, codec).unwrap(), expected);
    }
}

#[test]
fn the_frames_of_planes_are_ordinary_ones() {
    let floats = normals(65_536);
    let mut encoder = Encoder::default();
    let encoded = encoder.encode(bytemuck::cast_slice(&floats), Dtype::F32, Codec::Balanced).unwrap();
    assert_eq!(encoded.bytes[..15], [[0, 0, 0, 1, 0]; 3].concat(), "mantissas as they are");
    assert_eq!(encoded.bytes[15], 1);
    // By the streaming decoder, which does not know the plane's length.
    let exponents = zstd::stream::decode_all(&encoded.bytes[20 + 3 * 65_536..]).unwrap();
    assert!(exponents.into_iter().eq(floats.iter().map(|value| (value.to_bits() << 1 >> 24) as u8)));
}

#[test]
fn hostile_stored_bytes_stay_within_the_raw_length() {
    let mut decoder = Decoder::default();
    let mut raw = [0; 100];
    let bomb = zstd::bulk::compress(&vec![0; 50 << 20], 3).unwrap();
    let mut decode = |codec, filter, stored: &[u8]| {
        decoder.decode(codec, filter, stored, &mut raw, Dtype::F32).unwrap_err().kind()
    };
    assert_eq!(decode(CODEC_ZSTD, FILTER_NONE, &bomb), ErrorKind::Damaged);
    assert_eq!(decode(CODEC_ZSTD, FILTER_PLANES, b"no zstd at all"), ErrorKind::Damaged);
    assert_eq!(
        decode(CODEC_ZSTD, FILTER_NONE, &zstd::bulk::compress(&[0; 99], 3).unwrap()),
        ErrorKind::Damaged
    );
    assert_eq!(decode(CODEC_FILL, FILTER_NONE, &[]), ErrorKind::Damaged);
    assert_eq!(decode(CODEC_FILL, FILTER_NONE, &[1; 3]), ErrorKind::Damaged);
    assert_eq!(decode(CODEC_RAW, FILTER_NONE, &[1; 3]), ErrorKind::Damaged);
    assert_eq!(decode(3, FILTER_NONE, &[1; 3]), ErrorKind::Unsupported);
    assert_eq!(decode(9, FILTER_NONE, &[1; 3]), ErrorKind::Unsupported);
    assert_eq!(decode(CODEC_RAW, 9, &[1; 100]), ErrorKind::Unsupported);
    assert_eq!(decode(CODEC_FLOATS, FILTER_PLANES, &[1; 100]), ErrorKind::Damaged);
}

/// 16 KiB of floats by codec 4: three raw planes, one frame.
fn float_planes() -> (Vec<u8>, Vec<u8>) {
    let raw: Vec<u8> = bytemuck::cast_slice(&normals(4096)).to_vec();
    let mut encoder = Encoder::default();
    let encoded = encoder.encode(&raw, Dtype::F32, Codec::Balanced).unwrap();
    assert_eq!(encoded.codec, CODEC_FLOATS);
    (encoded.bytes.to_vec(), raw)
}

#[test]
fn every_field_of_a_plane_header_is_checked() {
    let (stored, raw) = float_planes();
    let mut decoder = Decoder::default();
    let mut decode = |stored: &[u8]| {
        let mut decoded = vec![0; raw.len()];
        decoder.decode(CODEC_FLOATS, FILTER_NONE, stored, &mut decoded, Dtype::F32).map(|()| decoded)
    };
    assert!(decode(&stored).unwrap() == raw);
    // Any other value in any byte of any header.
    for at in 0..20 {
        for value in (0..=255).filter(|&value| value != stored[at]) {
            let mut lie = stored.clone();
            lie[at] = value;
            let error = decode(&lie).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at} is {value}: {error}");
        }
    }
    for cut in 0..stored.len() {
        assert_eq!(decode(&stored[..cut]).unwrap_err().kind(), ErrorKind::Damaged, "cut at {cut}");
    }
    assert_eq!(decode(&[&stored[..], &[0]].concat()).unwrap_err().kind(), ErrorKind::Damaged);
    for len in [0, 1, 4095, 4097, 50 << 20] {
        let frame = zstd::bulk::compress(&vec![0; len], 3).unwrap();
        let mut bomb = stored[..20 + 3 * 4096].to_vec();
        bomb[16..20].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        bomb.extend_from_slice(&frame);
        assert_eq!(decode(&bomb).unwrap_err().kind(), ErrorKind::Damaged, "a frame of {len} bytes");
    }
}

proptest! {
    #[test]
    fn any_chunk_of_any_dtype_and_length_survives(
        elements in prop::collection::vec(any::<u64>(), 0..3000),
        shift in 0..64,
        cut in 0..16_usize,
        dtype in 0..Dtype::ALL.len(),
        codec in 0..2_usize,
    ) {
        let elements: Vec<u64> = elements.iter().map(|element| element >> shift).collect();
        let bytes: &[u8] = bytemuck::cast_slice(&elements);
        // Odd tails: no dtype's chunks have them, and they survive anyway.
        round_trip(&bytes[..bytes.len().saturating_sub(cut)], Dtype::ALL[dtype], CODED[codec]);
    }

    #[test]
    fn edited_float_planes_are_an_error_or_as_many_bytes(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near in any::<bool>(),
        dtype in 0..Dtype::ALL.len(),
    ) {
        let (mut stored, raw) = float_planes();
        let len = if near { 24 } else { stored.len() };
        for (at, value) in &edits {
            stored[at.index(len)] = *value;
        }
        let mut decoded = vec![0; raw.len()];
        let decode = Decoder::default().decode(CODEC_FLOATS, 0, &stored, &mut decoded, Dtype::ALL[dtype]);
        prop_assert!(decode.is_ok() || decode.unwrap_err().kind() == ErrorKind::Damaged);
    }
}
