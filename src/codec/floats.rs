//! Codec 4, float planes: words are rotated so that the exponent fills one byte plane, split into
//! planes, and each plane is coded by itself or left as it is. Owns: the planes' headers, and which
//! planes are coded. Knows words, not dtypes.
//!
//! The exponents of a tensor are few values, unevenly spread: two to four bits each. The mantissa
//! is noise, and its planes go through as they are, so that decoding costs one plane of Huffman and
//! a join.

use super::at_least;
use super::frames::{Effort, Frames, Unframer, bound};
use super::planes::{self, WIDEST};
use super::probe::{self, Look};
use crate::error::{Error, Result};
use tensorkeep_memcpy::copy;

/// A plane's method (u8) and its stored length in bytes (u32). All headers stand before all planes.
const HEADER: usize = 5;
/// The plane as it is.
const METHOD_RAW: u8 = 0;
/// One zstd frame.
const METHOD_FRAME: u8 = 1;

/// What to try on one byte of every word of floats; nothing on what looks like noise. When
/// `thorough`, everything.
pub fn efforts(plane: &[u8], thorough: bool) -> &'static [Effort] {
    if thorough {
        return &[Effort::Huffman, Effort::Thorough];
    }
    match probe::look(plane) {
        Look::Noise => &[],
        Look::Uneven => &[Effort::Huffman],
        Look::Runs => &[Effort::HuffmanAndRuns],
    }
}

/// Codes float planes, reusing its buffer.
#[derive(Default)]
pub struct FloatEncoder {
    frame: Vec<u8>,
}

impl FloatEncoder {
    /// Codes `raw`, words of `word` bytes, to the start of `out`; returns the length. [`efforts`]
    /// says what is tried. The planes are cut where they will stand if none is coded.
    ///
    /// # Errors
    /// Whatever zstd says.
    pub fn encode(
        &mut self,
        raw: &[u8],
        word: usize,
        thorough: bool,
        frames: &mut Frames,
        out: &mut Vec<u8>,
    ) -> Result<usize> {
        let count = raw.len() / word;
        let (headers, planes) = at_least(out, HEADER * word + raw.len()).split_at_mut(HEADER * word);
        planes::split(raw, word, true, planes);
        let mut end = 0;
        for (i, header) in headers.as_chunks_mut::<HEADER>().0.iter_mut().enumerate() {
            let here = i * count..(i + 1) * count;
            let plane = &planes[here.clone()];
            let frame = at_least(&mut self.frame, bound(count));
            let coded = frames.smallest(efforts(plane, thorough), plane, frame)?;
            let (method, len) = if let Some(len) = coded.filter(|&len| super::pays(len, count)) {
                copy(&frame[..len], &mut planes[end..][..len]);
                (METHOD_FRAME, len)
            } else {
                // Nothing has to move before a plane was coded, as with weights, of which the last
                // one is.
                if end < here.start {
                    planes.copy_within(here, end);
                }
                (METHOD_RAW, count)
            };
            header[0] = method;
            // OK to cast: a plane is part of a chunk, which is at most 64 MiB.
            header[1..].copy_from_slice(&(len as u32).to_le_bytes());
            end += len;
        }
        planes.copy_within(count * word..raw.len(), end);
        Ok(HEADER * word + end + raw.len() % word)
    }
}

/// Decodes float planes, reusing its buffer.
#[derive(Default)]
pub struct FloatDecoder {
    planes: Vec<u8>,
}

impl FloatDecoder {
    /// Fills `raw`, words of `word` bytes. Planes that are stored as they are go straight from
    /// `stored` to `raw`.
    ///
    /// # Errors
    /// `Damaged` when a header lies: its method is not known, its lengths do not add up, its frame
    /// is not one or has another length than the plane.
    pub fn decode(
        &mut self,
        stored: &[u8],
        raw: &mut [u8],
        word: usize,
        unframer: &mut Unframer,
    ) -> Result<()> {
        let count = raw.len() / word;
        let (headers, mut rest) = stored.split_at_checked(HEADER * word).ok_or_else(|| {
            Error::damaged("planes without whole headers").expected(HEADER * word).found(stored.len())
        })?;
        let mut planes = [&[][..]; WIDEST];
        let mut room = at_least(&mut self.planes, count * word);
        for (i, header) in headers.as_chunks::<HEADER>().0.iter().enumerate() {
            let [method, len @ ..] = *header;
            let len = u32::from_le_bytes(len) as usize;
            let wrong = || {
                Error::damaged(format!("header of plane {i}"))
                    .expected(format!("{count} raw bytes, or a shorter frame, of {} left", rest.len()))
                    .found(format!("{len} bytes by method {method}"))
            };
            let (plane, behind) = rest.split_at_checked(len).ok_or_else(wrong)?;
            planes[i] = match method {
                METHOD_RAW if len == count => plane,
                METHOD_FRAME if len < count => {
                    let (decoded, later) = std::mem::take(&mut room).split_at_mut(count);
                    unframer.fill(plane, decoded)?;
                    room = later;
                    decoded
                }
                _ => return Err(wrong()),
            };
            rest = behind;
        }
        let tail = raw.len() - count * word;
        if rest.len() != tail {
            return Err(Error::damaged("bytes behind the planes").expected(tail).found(rest.len()));
        }
        planes::join(&planes[..word], true, raw);
        raw[count * word..].copy_from_slice(rest);
        Ok(())
    }
}
