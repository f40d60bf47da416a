//! Codec 4, float planes: words are rotated so that the exponent fills one byte plane, split into
//! planes, and each plane is coded separately or stored raw.
//!
//! The exponents of a tensor take few values, unevenly distributed: two to four bits each. The
//! mantissa is noise, and its planes are stored raw, so that decoding costs one Huffman-coded plane
//! and a join.

use super::frames::{Effort, Frames, Unframer, bound};
use super::planes::{self, Rotation, WIDEST};
use super::probe::{self, Look};
use super::{Tries, at_least};
use crate::error::{Error, Result};
use tensorkeep_memcpy::copy;

/// A plane's method (u8) and its stored length in bytes (u32). All headers precede all planes.
const HEADER: usize = 5;
/// The plane, uncoded.
const METHOD_RAW: u8 = 0;
/// One zstd frame.
const METHOD_FRAME: u8 = 1;

/// The efforts to try on one byte plane of floats; if only likely ones, none on noise.
pub(super) fn efforts(plane: &[u8], tries: Tries) -> &'static [Effort] {
    match tries {
        Tries::All => &[Effort::Huffman, Effort::Thorough],
        Tries::Likely => match probe::look(plane) {
            Look::Noise => &[],
            Look::Uneven => &[Effort::Huffman],
            Look::Runs => &[Effort::HuffmanAndRuns],
        },
    }
}

/// Codes float planes, reusing its buffer.
#[derive(Default)]
pub struct FloatEncoder {
    frame: Vec<u8>,
}

impl FloatEncoder {
    /// Codes `raw`, words of `word` bytes, to the start of `out` and returns the length.
    /// [`efforts`] lists the attempts. Planes are split into their final places for the case that
    /// none is coded.
    ///
    /// # Errors
    /// Errors of zstd.
    pub(super) fn encode(
        &mut self,
        raw: &[u8],
        word: usize,
        tries: Tries,
        frames: &mut Frames,
        out: &mut Vec<u8>,
    ) -> Result<usize> {
        let count = raw.len() / word;
        let (headers, planes) = at_least(out, HEADER * word + raw.len()).split_at_mut(HEADER * word);
        planes::split(raw, word, Rotation::OneBit, planes);
        let mut end = 0;
        for (i, header) in headers.as_chunks_mut::<HEADER>().0.iter_mut().enumerate() {
            let here = i * count..(i + 1) * count;
            let plane = &planes[here.clone()];
            let frame = at_least(&mut self.frame, bound(count));
            let coded = frames.smallest(efforts(plane, tries), plane, frame)?;
            let (method, len) = if let Some(len) = coded.filter(|&len| super::pays(len, count)) {
                copy(&frame[..len], &mut planes[end..][..len]);
                (METHOD_FRAME, len)
            } else {
                // Until a plane is coded, nothing moves: with weights, only the last plane is
                // coded.
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
    /// Fills `raw`, words of `word` bytes. Raw planes are joined directly from `stored`.
    ///
    /// # Errors
    /// `Damaged` when a header is wrong: its method is unknown, its lengths do not add up, or its
    /// frame is not a frame or decodes to another length than the plane's.
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
        planes::join(&planes[..word], Rotation::OneBit, raw);
        raw[count * word..].copy_from_slice(rest);
        Ok(())
    }
}
