//! NumPy's `.npy`: a magic, a Python dict as text, bytes. Owns: reading and writing that header, and which descriptions
//! are which dtypes.

use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, strided};
use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::byte_len;
use std::sync::Arc;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself refuses more than 10,000 by default.
pub const LONGEST_HEADER: usize = 64 << 10;

/// Dtypes by NumPy's kind and width.
const DTYPES: &[(&str, Dtype)] = &[
    ("b1", Dtype::Bool),
    ("u1", Dtype::U8),
    ("i1", Dtype::I8),
    ("u2", Dtype::U16),
    ("i2", Dtype::I16),
    ("u4", Dtype::U32),
    ("i4", Dtype::I32),
    ("u8", Dtype::U64),
    ("i8", Dtype::I64),
    ("f2", Dtype::F16),
    ("f4", Dtype::F32),
    ("f8", Dtype::F64),
    ("c8", Dtype::C64),
    ("c16", Dtype::C128),
];

/// A parsed header.
#[derive(Debug, PartialEq)]
pub struct Header {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub big_endian: bool,
    pub column_major: bool,
    /// Where the bytes begin.
    pub data_start: usize,
}

impl Header {
    pub fn is_plain(&self) -> bool {
        !self.big_endian && !self.column_major
    }

    /// Brings the bytes of a file into our order.
    pub fn arrange(&self, mut bytes: Buffer) -> Result<Buffer> {
        let width = self.dtype.size();
        if self.big_endian {
            // A complex number is two numbers.
            let part = if matches!(self.dtype, Dtype::C64 | Dtype::C128) { width / 2 } else { width };
            strided::swap(&mut bytes, part);
        }
        if !self.column_major {
            return Ok(bytes);
        }
        strided::gather(&bytes, width, &self.shape, &strided::column_major(&self.shape))
    }

    pub fn byte_len(&self) -> Result<usize> {
        byte_len(self.dtype, &self.shape).map_err(super::lie)
    }
}

/// Parses the header from a file's first bytes.
///
/// # Errors
/// `Damaged` when it is none, `Unsupported` for dtypes that are not numbers.
pub fn parse(head: &[u8]) -> Result<Header> {
    let bad = |what: &'static str| Error::damaged(what).expected("a .npy header");
    let version =
        *head.strip_prefix(MAGIC).and_then(|rest| rest.first()).ok_or_else(|| bad("no .npy magic"))?;
    let (len, start) = match (version, head.get(8..10), head.get(8..12)) {
        (1, Some(len), _) => (usize::from(u16::from_le_bytes([len[0], len[1]])), 10),
        (2 | 3, _, Some(len)) => (u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize, 12),
        (1..=3, ..) => return Err(bad("cut short")),
        _ => return Err(Error::new(ErrorKind::Unsupported, format!(".npy version {version}"))),
    };
    if len > LONGEST_HEADER {
        return Err(bad("the header is too long").found(len));
    }
    let text = head.get(start..start + len).ok_or_else(|| bad("cut short"))?;
    let text = std::str::from_utf8(text).map_err(|error| bad("the header is not text").because(error))?;
    let field =
        |name: &str| field(text, name).ok_or_else(|| Error::damaged(format!("the header has no {name:?}")));
    let (dtype, big_endian) = parse_descr(field("descr")?)?;
    let column_major = match field("fortran_order")? {
        text if text.starts_with("True") => true,
        text if text.starts_with("False") => false,
        _ => return Err(bad("fortran_order is neither True nor False")),
    };
    let shape = parse_shape(field("shape")?).ok_or_else(|| bad("shape is not a tuple of numbers"))?;
    Ok(Header { dtype, shape, big_endian, column_major, data_start: start + len })
}

/// What stands behind a key of the dict.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let quoted = |quote: char| text.find(&format!("{quote}{name}{quote}")).map(|at| at + name.len() + 2);
    let rest = &text[quoted('\'').or_else(|| quoted('"'))?..];
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn parse_descr(text: &str) -> Result<(Dtype, bool)> {
    let unsupported = |found: &str| {
        Error::new(ErrorKind::Unsupported, "an array that does not hold numbers")
            .found(found)
            .help("objects would need pickle, which runs code; records and text have no dtype here")
    };
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let descr = quote.and_then(|quote| text[1..].split(quote).next());
    let descr = descr.ok_or_else(|| unsupported(text.split(',').next().unwrap_or(text)))?;
    let (order, kind) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
        _ => ('<', descr),
    };
    let found = DTYPES.iter().find(|(name, _)| *name == kind);
    let dtype = found.map(|&(_, dtype)| dtype).ok_or_else(|| unsupported(descr))?;
    Ok((dtype, order == '>'))
}

fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let inside = text.strip_prefix('(')?.split_once(')')?.0;
    // Python 2 wrote an L behind long integers.
    let dims = inside.split(',').map(|dim| dim.trim().trim_end_matches('L')).filter(|dim| !dim.is_empty());
    dims.map(|dim| dim.parse().ok()).collect()
}

/// The header of an array in our order, padded so that the bytes begin at a multiple of 64; None for a dtype that NumPy
/// does not have.
pub fn header(dtype: Dtype, shape: &[usize]) -> Option<Vec<u8>> {
    let kind = DTYPES.iter().find(|(_, known)| *known == dtype)?.0;
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    let unpadded = 10 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let len = u16::try_from(text.len()).ok()?;
    Some([MAGIC, &[1, 0], &len.to_le_bytes(), text.as_bytes()].concat())
}

pub fn open(blob: &Arc<dyn Blob>, budget: &Budget) -> Result<Foreign> {
    let mut head = vec![0; blob.len().min(LONGEST_HEADER as u64 + 12) as usize];
    budget.spend(head.len() as u64, "the header")?;
    blob.read_at(0, &mut head)?;
    let header = parse(&head)?;
    let mut foreign = Foreign::empty(Format::Npy, blob.len());
    let start = header.data_start as u64;
    let len = header.byte_len()?;
    if start.checked_add(len as u64) != Some(blob.len()) {
        return Err(Error::damaged("length of the file")
            .expected(format!("{start} + {len}"))
            .found(blob.len()));
    }
    let name = "array".to_owned();
    let (dtype, shape) = (header.dtype, header.shape.clone());
    let place = if header.is_plain() {
        Place::At(Arc::clone(blob), start)
    } else {
        foreign.notes.push(order_note(&name, &header));
        let blob = Arc::clone(blob);
        Place::Made(Arc::new(move || {
            let mut bytes = Buffer::zeroed(len)?;
            blob.read_at(start, &mut bytes)?;
            header.arrange(bytes)
        }))
    };
    foreign.tensors.push(ForeignTensor::new(name, dtype, shape, place)?);
    Ok(foreign)
}

pub fn order_note(name: &str, header: &Header) -> Note {
    let order = if header.column_major { "column-major" } else { "big-endian" };
    Note::kept(name, format!("{order} elements brought into row-major, little-endian order"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_aligned() {
        for shape in [&[][..], &[3], &[2, 0, 5]] {
            let bytes = header(Dtype::F32, shape).unwrap();
            let parsed = parse(&bytes).unwrap();
            assert_eq!((parsed.dtype, &parsed.shape[..], parsed.data_start % 64), (Dtype::F32, shape, 0));
        }
        assert_eq!(header(Dtype::Bf16, &[1]), None);
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        let with = |text: &str| {
            let len = (text.len() as u16).to_le_bytes();
            [MAGIC, &[1, 0], &len[..], text.as_bytes()].concat()
        };
        assert!(
            parse(&with("{'descr': '>i2', 'fortran_order': True, 'shape': (2L, 3), }")).unwrap().big_endian
        );
        for text in [
            "{}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1",
            "{'descr': '<f",
        ] {
            assert!(parse(&with(text)).is_err(), "{text}");
        }
        assert!(parse(b"\x93NUMPY\x01").is_err());
        assert!(parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").is_err());
    }
}
