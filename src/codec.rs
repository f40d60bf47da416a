//! Encoding and decoding chunks: [`Encoder`] picks a codec and filter for each chunk, [`Decoder`]
//! undoes them. Checksums are over the encoded bytes, so no unverified byte is ever decoded.
//!
//! Floats become byte planes of their rotated words (floats.rs). Integers of 4 and 8 bytes become
//! byte planes, which zstd codes together. Everything else goes to zstd unfiltered. A chunk that
//! saves less than 3 % stays raw.

mod floats;
mod frames;
mod planes;
mod probe;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::table::{CODEC_FILL, CODEC_FLOATS, CODEC_RAW, CODEC_ZSTD};
use floats::{FloatDecoder, FloatEncoder};
use frames::{Effort, Frames, Unframer};
use planes::Rotation;
use tensorkeep_memcpy::Copier;

/// No filter.
pub const FILTER_NONE: u8 = 0;
/// Byte planes: all first bytes of the elements, then all second bytes, …
pub const FILTER_PLANES: u8 = 1;

/// How tensors and records are stored. All codecs are lossless. `cargo bench --bench codec`
/// measures the cost and the ratio of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// Uncompressed: saved at the disk's speed, loaded by mapping without a copy. The default on a
    /// local disk.
    #[default]
    Raw,
    /// Smaller at little cost: the exponents of floats by Huffman coding, integers and text by zstd
    /// at level 1. Chunks of one repeated element store that element once; chunks that would save
    /// less than 3 %, and chunks below 4 KiB, stay raw. The default for storage over a network.
    Balanced,
    /// As small as possible, and slow to write: zstd at level 19, with and without planes. Read as
    /// fast as [`Codec::Balanced`]. For archives, written once.
    Max,
}

/// A chunk below this stays raw: coding it gains nothing.
const CODED_FROM: usize = 4096;

/// Whether the saving is worth the decoding: at least 3 %.
fn pays(coded: usize, raw: usize) -> bool {
    coded as u64 * 100 <= raw as u64 * 97
}

/// The start of a buffer that only grows, so that no chunk after the first of its size allocates or
/// clears memory.
fn at_least(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Bytes of the words that are rotated: an element, or half of a complex one.
fn word(dtype: Dtype) -> usize {
    match dtype {
        Dtype::C64 | Dtype::C128 => dtype.size() / 2,
        _ => dtype.size(),
    }
}

/// The ways of coding that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tries {
    /// Those that suit a sample of the bytes.
    Likely,
    All,
}

/// A chunk in `Encoder::coded`: its codec, filter and length.
struct Coded {
    codec: u8,
    filter: u8,
    len: usize,
}

/// Encodes chunks, reusing its buffers.
#[derive(Default)]
pub struct Encoder {
    frames: Frames,
    floats: FloatEncoder,
    planes: Vec<u8>,
    coded: Vec<u8>,
    other: Vec<u8>,
}

/// An encoded chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded<'e> {
    /// Codec id.
    pub codec: u8,
    /// Filter id.
    pub filter: u8,
    /// The stored bytes.
    pub bytes: &'e [u8],
}

/// Whether this version can undo a filter.
pub fn is_filter(filter: u8) -> bool {
    matches!(filter, FILTER_NONE | FILTER_PLANES)
}

impl Encoder {
    /// Encodes one chunk of elements of `dtype`.
    ///
    /// # Errors
    /// Errors of zstd.
    pub fn encode<'e>(&'e mut self, raw: &'e [u8], dtype: Dtype, codec: Codec) -> Result<Encoded<'e>> {
        let as_it_is = Encoded { codec: CODEC_RAW, filter: FILTER_NONE, bytes: raw };
        if codec == Codec::Raw {
            return Ok(as_it_is);
        }
        let element = dtype.size();
        if is_one_element_repeated(raw, element) && raw.len() > element {
            return Ok(Encoded { codec: CODEC_FILL, filter: FILTER_NONE, bytes: &raw[..element] });
        }
        if raw.len() < CODED_FROM {
            return Ok(as_it_is);
        }
        let tries = if codec == Codec::Max { Tries::All } else { Tries::Likely };
        let Coded { codec, filter, len } = match (dtype.is_float(), element) {
            (true, 2..) => {
                let frames = &mut self.frames;
                let len = self.floats.encode(raw, word(dtype), tries, frames, &mut self.coded)?;
                Coded { codec: CODEC_FLOATS, filter: FILTER_NONE, len }
            }
            // A one-byte float has its exponent in one plane already: nothing to rotate or to
            // split.
            (true, _) => self.zstd(raw, 1, floats::efforts(raw, tries))?,
            (false, _) if tries == Tries::All => self.zstd_with_or_without_planes(raw, element)?,
            // Planes of u16 compress worse than u16: neither byte resembles its neighbours often
            // enough.
            (false, 2) => self.zstd(raw, 1, &[Effort::Light])?,
            (false, _) => self.zstd(raw, element, &[Effort::Light])?,
        };
        if !pays(len, raw.len()) {
            return Ok(as_it_is);
        }
        Ok(Encoded { codec, filter, bytes: &self.coded[..len] })
    }

    /// One zstd frame of the planes of elements of `element` bytes; as long as `raw` if there are
    /// no efforts.
    fn zstd(&mut self, raw: &[u8], element: usize, efforts: &[Effort]) -> Result<Coded> {
        let (filter, filtered) = if element == 1 {
            (FILTER_NONE, raw)
        } else {
            let planes = at_least(&mut self.planes, raw.len());
            planes::split(raw, element, Rotation::None, planes);
            (FILTER_PLANES, &*planes)
        };
        let out = at_least(&mut self.coded, frames::bound(raw.len()));
        let len = self.frames.smallest(efforts, filtered, out)?;
        Ok(Coded { codec: CODEC_ZSTD, filter, len: len.unwrap_or(raw.len()) })
    }

    fn zstd_with_or_without_planes(&mut self, raw: &[u8], element: usize) -> Result<Coded> {
        let without = self.zstd(raw, 1, &[Effort::Thorough])?;
        if element == 1 {
            return Ok(without);
        }
        std::mem::swap(&mut self.coded, &mut self.other);
        let with = self.zstd(raw, element, &[Effort::Thorough])?;
        if without.len <= with.len {
            std::mem::swap(&mut self.coded, &mut self.other);
            return Ok(without);
        }
        Ok(with)
    }
}

fn is_one_element_repeated(raw: &[u8], element: usize) -> bool {
    raw.len() >= element && raw[element..] == raw[..raw.len() - element]
}

/// Decodes chunks, reusing its buffers.
#[derive(Default)]
pub struct Decoder {
    copier: Copier,
    unframer: Unframer,
    floats: FloatDecoder,
    planes: Vec<u8>,
}

impl Decoder {
    /// For chunks of `bytes` raw bytes in total, which decides how raw chunks are copied.
    pub fn for_total(bytes: u64) -> Self {
        Self { copier: Copier::for_total(bytes), ..Self::default() }
    }

    /// Fills `raw` from a chunk's stored bytes. Never writes or allocates beyond `raw.len()`.
    ///
    /// # Errors
    /// `Unsupported` for a codec or filter this version does not know; `Damaged` when the bytes do
    /// not decode to exactly `raw.len()` bytes.
    pub fn decode(
        &mut self,
        codec: u8,
        filter: u8,
        stored: &[u8],
        raw: &mut [u8],
        dtype: Dtype,
    ) -> Result<()> {
        match (codec, filter) {
            (CODEC_RAW, FILTER_NONE) if stored.len() == raw.len() => self.copier.copy(stored, raw),
            (CODEC_FILL, FILTER_NONE) if !stored.is_empty() && raw.len().is_multiple_of(stored.len()) => {
                repeat(stored, raw);
            }
            (CODEC_ZSTD, FILTER_NONE) => self.unframer.fill(stored, raw)?,
            (CODEC_ZSTD, FILTER_PLANES) => {
                let planes = at_least(&mut self.planes, raw.len());
                self.unframer.fill(stored, planes)?;
                join_filtered(planes, dtype.size(), raw);
            }
            (CODEC_FLOATS, FILTER_NONE) => {
                self.floats.decode(stored, raw, word(dtype), &mut self.unframer)?;
            }
            (CODEC_FLOATS, _) => {
                return Err(Error::damaged("filter of float planes").expected(FILTER_NONE).found(filter));
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
}

/// Fills `raw` with one element, in pieces that double: a copy per element is slow for short
/// elements.
fn repeat(element: &[u8], raw: &mut [u8]) {
    if let [byte] = element {
        return raw.fill(*byte);
    }
    // Small enough to copy from the L1 cache.
    const PIECE: usize = 16 << 10;
    let mut done = element.len().min(raw.len());
    raw[..done].copy_from_slice(&element[..done]);
    while done < raw.len() {
        let more = done.min(raw.len() - done).min((PIECE / element.len()).max(1) * element.len());
        raw.copy_within(..more, done);
        done += more;
    }
}

/// Undoes [`FILTER_PLANES`].
fn join_filtered(filtered: &[u8], element: usize, raw: &mut [u8]) {
    let count = raw.len() / element;
    let mut planes = [&[][..]; planes::WIDEST];
    for (i, plane) in planes.iter_mut().enumerate().take(element) {
        *plane = &filtered[i * count..][..count];
    }
    planes::join(&planes[..element], Rotation::None, raw);
    raw[count * element..].copy_from_slice(&filtered[count * element..]);
}

#[cfg(test)]
mod tests;
