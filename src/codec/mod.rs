//! Chunks: bytes to bytes. Owns: which codec and filter a chunk gets ([`Encoder`]), and undoing
//! them ([`Decoder`]). Knows nothing of files; checksums are over what comes out here, so that
//! nothing unverified is ever decoded.
//!
//! Floats become planes of their rotated words (floats.rs); integers of 4 and 8 bytes become planes
//! of their words, which zstd codes as one; everything else goes to zstd as it is. A chunk that
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

/// No filter.
pub const FILTER_NONE: u8 = 0;
/// Byte planes: all first bytes of the elements, then all second bytes, …
pub const FILTER_PLANES: u8 = 1;

/// How tensors and records are stored. What each costs and saves is measured by
/// `cargo bench --bench codec`. Whatever the codec, nothing is lost: what is read is bit for bit
/// what was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// As they are: saved at the disk's speed, loaded by mapping without a copy. The default on a
    /// local disk.
    #[default]
    Raw,
    /// Smaller at little cost: the exponents of floats by Huffman coding, integers and text by zstd
    /// at level 1. Chunks of one repeated element become that element; what saves less than 3 %,
    /// and chunks below 4 KiB, stay raw. The default where bytes travel over a network.
    Balanced,
    /// As small as can be had, and slow to write: zstd at level 19, in every way that might pay.
    /// Read as fast as [`Codec::Balanced`]. For what is written once and kept.
    Max,
}

/// A chunk below this stays raw: there is nothing to win.
const CODED_FROM: usize = 4096;

/// Whether so many coded bytes instead of so many raw ones are worth the decoding.
fn pays(coded: usize, raw: usize) -> bool {
    coded as u64 * 100 <= raw as u64 * 97
}

/// The start of a buffer that only grows: no chunk after the first of its size allocates or clears
/// memory.
fn at_least(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Bytes of the words that are rotated: an element, or a part of a complex one.
fn word(dtype: Dtype) -> usize {
    match dtype {
        Dtype::C64 | Dtype::C128 => dtype.size() / 2,
        _ => dtype.size(),
    }
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

/// Whether this version can undo a filter.
pub fn is_filter(filter: u8) -> bool {
    matches!(filter, FILTER_NONE | FILTER_PLANES)
}

impl Encoder {
    /// Encodes one chunk of elements of `dtype`.
    ///
    /// # Errors
    /// Whatever zstd says.
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
        let thorough = codec == Codec::Max;
        let (codec, filter, len) = match (dtype.is_float(), element) {
            (true, 2..) => {
                let frames = &mut self.frames;
                let len = self.floats.encode(raw, word(dtype), thorough, frames, &mut self.coded)?;
                (CODEC_FLOATS, FILTER_NONE, len)
            }
            // One byte holds the exponent already: there is nothing to rotate or to split.
            (true, _) => self.zstd(raw, 1, floats::efforts(raw, thorough))?,
            (false, _) if thorough => self.zstd_with_or_without_planes(raw, element)?,
            // Of two bytes neither is like the other's neighbour often enough: planes of u16 are
            // larger than u16.
            (false, 2) => self.zstd(raw, 1, &[Effort::Light])?,
            (false, _) => self.zstd(raw, element, &[Effort::Light])?,
        };
        if !pays(len, raw.len()) {
            return Ok(as_it_is);
        }
        Ok(Encoded { codec, filter, bytes: &self.coded[..len] })
    }

    /// One zstd frame of the planes of elements of so many bytes; as long as `raw` without any
    /// effort.
    fn zstd(&mut self, raw: &[u8], element: usize, efforts: &[Effort]) -> Result<(u8, u8, usize)> {
        let (filter, filtered) = if element == 1 {
            (FILTER_NONE, raw)
        } else {
            let planes = at_least(&mut self.planes, raw.len());
            planes::split(raw, element, false, planes);
            (FILTER_PLANES, &*planes)
        };
        let out = at_least(&mut self.coded, frames::bound(raw.len()));
        let len = self.frames.smallest(efforts, filtered, out)?;
        Ok((CODEC_ZSTD, filter, len.unwrap_or(raw.len())))
    }

    fn zstd_with_or_without_planes(&mut self, raw: &[u8], element: usize) -> Result<(u8, u8, usize)> {
        let without = self.zstd(raw, 1, &[Effort::Thorough])?;
        if element == 1 {
            return Ok(without);
        }
        std::mem::swap(&mut self.coded, &mut self.other);
        let with = self.zstd(raw, element, &[Effort::Thorough])?;
        if without.2 <= with.2 {
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
pub struct Decoder {
    copy: fn(&[u8], &mut [u8]),
    unframer: Unframer,
    floats: FloatDecoder,
    planes: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::for_total(0)
    }
}

impl Decoder {
    /// For chunks of so many raw bytes together, which decides how those are copied that are stored
    /// as they are.
    pub fn for_total(bytes: u64) -> Self {
        let copy = tensorkeep_memcpy::for_total(bytes);
        Self { copy, unframer: Unframer::default(), floats: FloatDecoder::default(), planes: Vec::new() }
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
            (CODEC_RAW, FILTER_NONE) if stored.len() == raw.len() => (self.copy)(stored, raw),
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

/// Fills `raw` with one element, by pieces that double: a copy for each element is as slow as the
/// element is short.
fn repeat(element: &[u8], raw: &mut [u8]) {
    if let [byte] = element {
        return raw.fill(*byte);
    }
    // Copied from what a core's nearest cache holds.
    const PIECE: usize = 16 << 10;
    let mut done = element.len().min(raw.len());
    raw[..done].copy_from_slice(&element[..done]);
    while done < raw.len() {
        let more = done.min(raw.len() - done).min((PIECE / element.len()).max(1) * element.len());
        raw.copy_within(..more, done);
        done += more;
    }
}

/// Undoes the filter of planes.
fn join_filtered(filtered: &[u8], element: usize, raw: &mut [u8]) {
    let count = raw.len() / element;
    let mut planes = [&[][..]; planes::WIDEST];
    for (i, plane) in planes.iter_mut().enumerate().take(element) {
        *plane = &filtered[i * count..][..count];
    }
    planes::join(&planes[..element], false, raw);
    raw[count * element..].copy_from_slice(&filtered[count * element..]);
}

#[cfg(test)]
mod tests;
