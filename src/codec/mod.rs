//! Chunks: bytes to bytes. Owns: which codec and filter a chunk gets ([`Encoder`]), and undoing them ([`Decoder`]).
//! Knows nothing of files; checksums are over what comes out here, so that nothing unverified is ever decoded.

mod planes;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{CODEC_FILL, CODEC_RAW, CODEC_ZSTD};

/// No filter.
pub const FILTER_NONE: u8 = 0;
/// Byte planes: all first bytes of the elements, then all second bytes, …
pub const FILTER_PLANES: u8 = 1;

/// How tensors and records are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// As they are: saved at the disk's speed, loaded by mapping without a copy.
    #[default]
    Raw,
    /// Byte planes and zstd at this level (1 to 22, 3 is usual), chunk by chunk; chunks of one repeated element become
    /// that element, and chunks that would save less than 3 % stay raw.
    Zstd(i32),
}

/// A chunk below this stays raw: there is nothing to win.
const CODED_FROM: usize = 4096;

/// Encodes chunks, reusing its buffers.
pub struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    planes: Vec<u8>,
    coded: Vec<u8>,
}

/// What became of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded<'e> {
    /// Codec id.
    pub codec: u8,
    /// Filter id.
    pub filter: u8,
    /// The stored bytes.
    pub bytes: &'e [u8],
}

impl Encoder {
    /// # Errors
    /// `Invalid` when the level is none of zstd's.
    pub fn new(codec: Codec) -> Result<Self> {
        let zstd = match codec {
            Codec::Raw => None,
            Codec::Zstd(level) if zstd::compression_level_range().contains(&level) => Some(
                zstd::bulk::Compressor::new(level)
                    .map_err(|error| Error::io("starting zstd failed", error))?,
            ),
            Codec::Zstd(level) => {
                let range = zstd::compression_level_range();
                return Err(Error::invalid("zstd level")
                    .expected(format!("{} to {}", range.start(), range.end()))
                    .found(level));
            }
        };
        Ok(Self { zstd, planes: Vec::new(), coded: Vec::new() })
    }

    /// Encodes one chunk of elements of `dtype`.
    ///
    /// # Errors
    /// Whatever zstd says.
    pub fn encode<'e>(&'e mut self, raw: &'e [u8], dtype: Dtype) -> Result<Encoded<'e>> {
        let as_it_is = Encoded { codec: CODEC_RAW, filter: FILTER_NONE, bytes: raw };
        let Some(zstd) = &mut self.zstd else { return Ok(as_it_is) };
        let element = dtype.size();
        if is_one_element_repeated(raw, element) && raw.len() > element {
            return Ok(Encoded { codec: CODEC_FILL, filter: FILTER_NONE, bytes: &raw[..element] });
        }
        if raw.len() < CODED_FROM {
            return Ok(as_it_is);
        }
        let filter = if element > 1 { FILTER_PLANES } else { FILTER_NONE };
        let filtered = match filter {
            FILTER_PLANES => {
                self.planes.resize(raw.len(), 0);
                planes::split(raw, element, &mut self.planes);
                &self.planes[..]
            }
            _ => raw,
        };
        self.coded.resize(zstd::zstd_safe::compress_bound(raw.len()), 0);
        let len = zstd
            .compress_to_buffer(filtered, &mut self.coded[..])
            .map_err(|error| Error::io("zstd failed to compress", error))?;
        if len as u64 * 100 > raw.len() as u64 * 97 {
            return Ok(as_it_is);
        }
        Ok(Encoded { codec: CODEC_ZSTD, filter, bytes: &self.coded[..len] })
    }
}

fn is_one_element_repeated(raw: &[u8], element: usize) -> bool {
    raw.len() >= element && raw[element..] == raw[..raw.len() - element]
}

/// Decodes chunks, reusing its buffers.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    planes: Vec<u8>,
}

impl Decoder {
    /// Fills `raw` from a chunk's stored bytes. Never writes or allocates beyond `raw.len()`.
    ///
    /// # Errors
    /// `Unsupported` for a codec or filter this version does not know; `Damaged` when the bytes do not decode to
    /// exactly `raw.len()` bytes.
    pub fn decode(
        &mut self,
        codec: u8,
        filter: u8,
        stored: &[u8],
        raw: &mut [u8],
        dtype: Dtype,
    ) -> Result<()> {
        match (codec, filter) {
            (CODEC_RAW, FILTER_NONE) if stored.len() == raw.len() => raw.copy_from_slice(stored),
            (CODEC_FILL, FILTER_NONE) if !stored.is_empty() && raw.len().is_multiple_of(stored.len()) => {
                raw.chunks_exact_mut(stored.len()).for_each(|element| element.copy_from_slice(stored));
            }
            (CODEC_ZSTD, FILTER_NONE) => self.unzstd(stored, raw)?,
            (CODEC_ZSTD, FILTER_PLANES) => {
                let mut planes = std::mem::take(&mut self.planes);
                planes.resize(raw.len(), 0);
                let decoded = self.unzstd(stored, &mut planes);
                if decoded.is_ok() {
                    planes::join(&planes, dtype.size(), raw);
                }
                self.planes = planes;
                decoded?;
            }
            (CODEC_RAW | CODEC_FILL, FILTER_NONE) => {
                return Err(Error::damaged("stored length").expected(raw.len()).found(stored.len()));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "stored by a codec that this version does not know",
                )
                .found(format!("codec {codec}, filter {filter}"))
                .help("update tensorkeep; the file's other tensors are readable"));
            }
        }
        Ok(())
    }

    fn unzstd(&mut self, stored: &[u8], raw: &mut [u8]) -> Result<()> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(
                zstd::bulk::Decompressor::new().map_err(|error| Error::io("starting zstd failed", error))?,
            ),
        };
        if !zstd::zstd_safe::find_frame_compressed_size(stored).is_ok_and(|len| len == stored.len()) {
            return Err(Error::damaged("the bytes match their checksum and are not one zstd frame"));
        }
        match zstd.decompress_to_buffer(stored, raw) {
            Ok(len) if len == raw.len() => Ok(()),
            Ok(len) => Err(Error::damaged("decoded length").expected(raw.len()).found(len)),
            Err(error) => {
                Err(Error::damaged("the bytes match their checksum and are not zstd").because(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(raw: &[u8], dtype: Dtype, codec: Codec) -> (u8, usize) {
        let mut encoder = Encoder::new(codec).unwrap();
        let encoded = encoder.encode(raw, dtype).unwrap();
        let mut decoded = vec![0xEE; raw.len()];
        Decoder::default().decode(encoded.codec, encoded.filter, encoded.bytes, &mut decoded, dtype).unwrap();
        assert!(decoded == raw);
        (encoded.codec, encoded.bytes.len())
    }

    #[test]
    fn floats_shrink_noise_stays_raw_and_constants_become_one_element() {
        let floats: Vec<f32> = (0..40_000).map(|i| (i as f32 * 0.37).sin() * 0.05).collect();
        let (codec, len) = round_trip(bytemuck::cast_slice(&floats), Dtype::F32, Codec::Zstd(3));
        assert_eq!(codec, CODEC_ZSTD);
        assert!(len < 160_000 * 9 / 10, "{len}");
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        assert_eq!(round_trip(&noise, Dtype::U8, Codec::Zstd(3)).0, CODEC_RAW);
        assert_eq!(round_trip(&[0; 65536], Dtype::F32, Codec::Zstd(3)), (CODEC_FILL, 4));
        assert_eq!(round_trip(&[7; 65536], Dtype::C128, Codec::Zstd(3)), (CODEC_FILL, 16));
        assert_eq!(round_trip(&[7; 65536], Dtype::F32, Codec::Raw).0, CODEC_RAW);
    }

    #[test]
    fn hostile_stored_bytes_are_errors_and_a_bomb_stays_within_the_raw_length() {
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
        assert_eq!(decode(9, FILTER_NONE, &[1; 3]), ErrorKind::Unsupported);
        assert_eq!(decode(CODEC_RAW, 9, &[1; 100]), ErrorKind::Unsupported);
    }

    #[test]
    fn a_level_that_zstd_does_not_have_is_refused() {
        assert_eq!(Encoder::new(Codec::Zstd(99)).err().unwrap().kind(), ErrorKind::Invalid);
    }

    proptest! {
        #[test]
        fn any_chunk_survives(elements in prop::collection::vec(any::<u64>(), 0..3000), shift in 0..64, dtype in 0..4_usize) {
            let elements: Vec<u64> = elements.iter().map(|element| element >> shift).collect();
            let dtype = [Dtype::U8, Dtype::Bf16, Dtype::F32, Dtype::I64][dtype];
            round_trip(bytemuck::cast_slice(&elements), dtype, Codec::Zstd(1));
        }
    }
}
