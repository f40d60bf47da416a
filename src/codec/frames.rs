//! zstd frames: how much [`Effort`] goes into one, and decoding exactly one frame to exactly the
//! announced length.

use crate::error::{Error, Result};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter, ParamSwitch, Strategy};

/// How a frame is made. Every zstd decoder reads all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// zstd as an entropy coder: its Huffman stage, without a search for matches.
    ///
    /// Planes of dense floats do not repeat: the matches that zstd finds are accidents and cost
    /// more to encode than they save. Exponents of trained f32 weights, entropy 2.57 bits: level 3
    /// codes them in 3.21 bits at 0.13 GB/s and decodes at 0.7; this in 2.6 bits at 1.0 and 1.7.
    /// Strategy `fast` with a target length of a whole block skips the block. Such settings, like
    /// zstd's negative levels, turn its Huffman stage off unless the literal compression mode turns
    /// it on.
    Huffman,
    /// As [`Self::Huffman`], with a search for runs from one position in 64. Matches of 7 bytes and
    /// more are rarely accidents, and a table of 2^12 entries stays in the L1 cache. First moments
    /// of which every second row was never touched: 2.36 times smaller, without a search 1.88.
    /// Without runs it costs a fifth of the speed in both directions.
    HuffmanAndRuns,
    /// Level 1: for integers, text and masks, which do repeat.
    Light,
    /// Level 19: smallest, at a few MB/s. Decodes as fast as any other.
    Thorough,
}

impl Effort {
    fn compressor(self) -> std::io::Result<Compressor<'static>> {
        match self {
            Self::Light => Compressor::new(1),
            Self::Thorough => Compressor::new(19),
            Self::Huffman => huffman(zstd_safe::BLOCKSIZE_MAX),
            Self::HuffmanAndRuns => huffman(64),
        }
    }
}

/// zstd's Huffman stage, and a search for matches in steps of this many bytes.
fn huffman(step: u32) -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(1)?;
    for parameter in [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::TargetLength(step),
        CParameter::MinMatch(7),
        CParameter::HashLog(12),
        CParameter::LiteralCompressionMode(ParamSwitch::Enable),
    ] {
        compressor.set_parameter(parameter)?;
    }
    Ok(compressor)
}

/// Upper bound of the length of a frame of `len` bytes.
pub fn bound(len: usize) -> usize {
    zstd_safe::compress_bound(len)
}

/// Makes frames, with one context for each effort in use.
#[derive(Default)]
pub struct Frames {
    contexts: [Option<Compressor<'static>>; 4],
    other: Vec<u8>,
}

impl Frames {
    /// Writes the smallest frame of `bytes` among these efforts to the start of `out`, which has
    /// room for [`bound`]. Returns its length, `None` if there are no efforts.
    ///
    /// # Errors
    /// Errors of zstd.
    pub fn smallest(&mut self, efforts: &[Effort], bytes: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
        let mut smallest = None;
        for &effort in efforts {
            let Some(len) = smallest else {
                smallest = Some(self.compress(effort, bytes, out)?);
                continue;
            };
            let mut other = std::mem::take(&mut self.other);
            let other_len = self.compress(effort, bytes, super::at_least(&mut other, bound(bytes.len())));
            self.other = other;
            let other_len = other_len?;
            if other_len < len {
                out[..other_len].copy_from_slice(&self.other[..other_len]);
                smallest = Some(other_len);
            }
        }
        Ok(smallest)
    }

    fn compress(&mut self, effort: Effort, bytes: &[u8], out: &mut [u8]) -> Result<usize> {
        let context = match &mut self.contexts[effort as usize] {
            Some(context) => context,
            none => {
                none.insert(effort.compressor().map_err(|error| Error::io("starting zstd failed", error))?)
            }
        };
        context.compress_to_buffer(bytes, out).map_err(|error| Error::io("zstd failed to compress", error))
    }
}

/// The largest window that a frame may request: longer than any chunk, the window of zstd's highest
/// level for input of unknown length, and the default limit of every zstd decoder.
const MOST_WINDOW: u64 = 1 << 27;

/// The window that a frame's header requests; `None` if it is the frame's own length, or if the
/// header is cut short.
fn window(frame: &[u8]) -> Option<u64> {
    let &[_, _, _, _, descriptor, window, ..] = frame else { return None };
    let single_segment = descriptor & 0x20 != 0;
    let base = 1_u64 << (10 + (window >> 3));
    (!single_segment).then(|| base + base / 8 * u64::from(window & 7))
}

/// Reads frames.
#[derive(Default)]
pub struct Unframer(Option<Decompressor<'static>>);

impl Unframer {
    /// Fills `raw` from one frame. Never writes beyond `raw`, and allocates nothing by the frame's
    /// claims.
    ///
    /// # Errors
    /// `Damaged` when `stored` is not exactly one frame, or does not decode to exactly `raw.len()`
    /// bytes.
    pub fn fill(&mut self, stored: &[u8], raw: &mut [u8]) -> Result<()> {
        let context = match &mut self.0 {
            Some(context) => context,
            none => {
                none.insert(Decompressor::new().map_err(|error| Error::io("starting zstd failed", error))?)
            }
        };
        if !zstd_safe::find_frame_compressed_size(stored).is_ok_and(|len| len == stored.len()) {
            return Err(Error::damaged("the bytes match their checksum and are not one zstd frame"));
        }
        if let Some(window) = window(stored).filter(|&window| window > MOST_WINDOW) {
            return Err(Error::damaged("window of the zstd frame")
                .expected(format!("at most {MOST_WINDOW}"))
                .found(window));
        }
        match context.decompress_to_buffer(stored, raw) {
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
    use crate::error::ErrorKind;

    #[test]
    fn no_frame_that_is_written_asks_for_more_window_than_is_read() {
        // Longer than the windows of all of these levels, longer than those of the low ones, and
        // about a block.
        for len in [1 << 24, 1 << 20, (1 << 17) + 1, 1000, 1] {
            let bytes = vec![7; len];
            let mut frame = vec![0; bound(len)];
            for effort in [Effort::Huffman, Effort::HuffmanAndRuns, Effort::Light, Effort::Thorough] {
                let stored = Frames::default().smallest(&[effort], &bytes, &mut frame).unwrap().unwrap();
                let asked = window(&frame[..stored]).unwrap_or(len as u64);
                assert!(asked <= 1 << 26, "{asked} for {len} bytes by {effort:?}");
            }
        }
        // Also of the levels that are not used here.
        for level in -7..=22 {
            let (bytes, mut frame) = (vec![7; 1 << 20], vec![0; bound(1 << 20)]);
            let stored = Compressor::new(level).unwrap().compress_to_buffer(&bytes, &mut frame).unwrap();
            assert!(window(&frame[..stored]).unwrap_or_default() <= 1 << 26, "level {level}");
        }
    }

    #[test]
    fn a_window_is_read_up_to_the_bound_and_no_further() {
        // 100 times one byte, after a header with a window and without a length.
        let frame = |window: u8| [0x28, 0xB5, 0x2F, 0xFD, 0x00, window, 0x23, 0x03, 0x00, 0x07];
        let mut raw = [0; 100];
        for (descriptor, asked) in [(0, 1 << 10), (17 << 3, 1 << 27), (16 << 3 | 7, (1 << 26) / 8 * 15)] {
            assert_eq!(window(&frame(descriptor)), Some(asked));
            Unframer::default().fill(&frame(descriptor), &mut raw).unwrap();
            assert_eq!(raw, [7; 100]);
        }
        for descriptor in [17 << 3 | 1, 18 << 3, 22 << 3, 255] {
            let error = Unframer::default().fill(&frame(descriptor), &mut raw).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        }
    }
}
