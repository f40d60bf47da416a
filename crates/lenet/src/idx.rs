//! Reads IDX files, the format of MNIST, gzipped or not.
//!
//! The format, all integers big-endian (Y. LeCun, <http://yann.lecun.com/exdb/mnist/>): bytes 0 and
//! 1 are 0, byte 2 is the element type (8 for u8), byte 3 the number of axes; then the length of
//! each axis as u32; then the elements.
//!
//! For any bytes at all: no panic, and no more memory than the file's own contents take.

use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use tensorkeep::{Error, ErrorKind, Result};

const UNSIGNED_BYTE: u8 = 8;
/// No data set here comes near it; a gzipped file may claim any size.
const MOST_BYTES: usize = 1 << 30;

/// An array of bytes with its shape: `bytes.len()` is the product of `shape`.
#[derive(Debug, PartialEq, Eq)]
pub struct Idx {
    /// Lengths of the axes, as many as requested.
    pub shape: Vec<usize>,
    /// The elements, row by row.
    pub bytes: Vec<u8>,
}

impl Idx {
    /// Where in the file the elements start.
    pub fn header_len(&self) -> u64 {
        4 + 4 * self.shape.len() as u64
    }
}

/// Reads a file of unsigned bytes with `rank` axes. Byte offsets in errors count the unpacked
/// contents.
///
/// # Errors
/// `NotFound`, `Io`; `Foreign` if it is no such file; `Damaged` if it is too short or too long.
pub fn read(path: &Path, rank: u8) -> Result<Idx> {
    let named = |error: Error| error.in_object(path.display());
    let file = File::open(path).map_err(|error| named(Error::io("open", error)))?;
    let mut file = BufReader::new(file);
    let mut start = [0; 2];
    let filled = fill(&mut file, &mut start).map_err(named)?;
    let whole = start[..filled].chain(file);
    // By its contents and not its name: unpacked files keep their .gz often enough.
    if start == [0x1f, 0x8b] { parse(GzDecoder::new(whole), rank) } else { parse(whole, rank) }.map_err(named)
}

/// Reads the contents of such a file.
///
/// # Errors
/// As [`read`], without the file's name.
pub fn parse(mut contents: impl Read, rank: u8) -> Result<Idx> {
    let expected = [0, 0, UNSIGNED_BYTE, rank];
    let mut magic = [0; 4];
    let filled = fill(&mut contents, &mut magic)?;
    if filled < magic.len() || magic != expected {
        return Err(Error::new(ErrorKind::Foreign, format!("not an IDX file of bytes with {rank} axes"))
            .at_byte(0)
            .expected(hex(&expected))
            .found(if filled == 0 { "nothing".to_owned() } else { hex(&magic[..filled]) })
            .help("are the files of images and labels swapped?"));
    }
    let mut lens = vec![0; 4 * usize::from(rank)];
    let filled = fill(&mut contents, &mut lens)?;
    if filled < lens.len() {
        return Err(cut_short(4, lens.len(), filled));
    }
    let len = |bytes: &[u8]| bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
    let shape: Vec<usize> = lens.chunks_exact(4).map(len).collect();
    let count = shape.iter().try_fold(1_usize, |count, &len| count.checked_mul(len));
    let count = count.filter(|&count| count <= MOST_BYTES).ok_or_else(|| {
        Error::new(ErrorKind::LimitExceeded, format!("bytes of an array of shape {shape:?}"))
            .at_byte(4)
            .expected(format!("at most {MOST_BYTES}"))
    })?;
    let bytes = elements(contents, 4 + lens.len() as u64, count)?;
    Ok(Idx { shape, bytes })
}

/// Exactly `count` bytes up to the end, which start at byte `offset`.
fn elements(contents: impl Read, offset: u64, count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than expected, to notice a file that is too long.
    contents.take(count as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() {
        found if found == count => Ok(bytes),
        found if found < count => Err(cut_short(offset, count, found)),
        _ => Err(Error::new(ErrorKind::Damaged, "the file goes on after its last element")
            .at_byte(offset + count as u64)
            .help("copy or download it again")),
    }
}

/// Fills as much of `buffer` as there is input.
fn fill(contents: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match contents.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(filled)
}

/// The operating system's failure, or gzip's complaint about the bytes.
fn unreadable(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => {
            Error::new(ErrorKind::Damaged, "the gzip stream is broken or cut short")
                .help("copy or download it again")
                .because(error)
        }
        _ => Error::io("read", error),
    }
}

fn cut_short(offset: u64, expected: usize, found: usize) -> Error {
    Error::new(ErrorKind::Damaged, "the file is cut short")
        .at_byte(offset + found as u64)
        .expected(format!("{expected} bytes from byte {offset} on"))
        .found(found)
        .help("copy or download it again")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: u32, bytes: &[u8]) -> Vec<u8> {
        [&[0, 0, 8, 1], &count.to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn a_good_file_gives_shape_and_elements() {
        let idx = parse(&labels(3, &[7, 2, 1])[..], 1).unwrap();
        assert_eq!(idx, Idx { shape: vec![3], bytes: vec![7, 2, 1] });
        assert_eq!(idx.header_len(), 8);
        let images = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 9, 8];
        assert_eq!(parse(&images[..], 3).unwrap(), Idx { shape: vec![1, 1, 2], bytes: vec![9, 8] });
    }

    #[test]
    fn a_wrong_magic_number_is_named_in_the_error() {
        let error = parse(&labels(1, &[0])[..], 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        assert!(error.to_string().contains("at byte 0: expected 00000803, found 00000801"), "{error}");
        assert!(parse(&[0, 0][..], 1).unwrap_err().to_string().contains("found 0000"));
    }

    #[test]
    fn a_file_cut_anywhere_or_with_a_byte_too_many_is_damaged() {
        let whole = labels(3, &[7, 2, 1]);
        for len in 4..whole.len() {
            let error = parse(&whole[..len], 1).unwrap_err();
            assert_eq!((error.kind(), error.byte()), (ErrorKind::Damaged, Some(len as u64)), "{error}");
        }
        let error = parse(&[whole, vec![0]].concat()[..], 1).unwrap_err();
        assert_eq!((error.kind(), error.byte()), (ErrorKind::Damaged, Some(11)), "{error}");
    }

    #[test]
    fn sizes_that_lie_take_no_memory() {
        let error = parse(&labels(u32::MAX, &[])[..], 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let error = parse(&labels(1 << 30, &[0])[..], 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let overflow = [&[0, 0, 8, 3][..], &[0xff; 12]].concat();
        assert_eq!(parse(&overflow[..], 3).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
