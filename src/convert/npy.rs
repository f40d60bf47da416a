//! NumPy's `.npy`: a magic, a Python dict as text, bytes. Reads and writes headers; `npy/descr.rs`
//! handles the description of elements.

mod descr;
mod literal;

use super::tensor::Place;
use super::{Foreign, ForeignTensor, Format, Note, strided};
use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::dtype::Dtype;
use crate::engine::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::byte_len;
pub use descr::DTYPES;
use descr::Elements;
use literal::Literal;
use std::sync::Arc;

pub const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself refuses more than 10,000 by default.
pub const LONGEST_HEADER: usize = 64 << 10;
/// The name of a file's only array.
pub const ARRAY: &str = "array";
/// Prefix of a tensor's name in the metadata key that holds NumPy's description of opaque elements.
pub const DESCR_KEY: &str = "numpy.descr.";

/// A parsed header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub elements: Elements,
    dims: Vec<usize>,
    column_major: bool,
    /// Offset of the elements.
    pub data_start: usize,
}

impl Header {
    /// Whether the file's bytes are in our order.
    pub fn is_plain(&self) -> bool {
        !self.column_major && !self.is_swapped()
    }

    fn is_swapped(&self) -> bool {
        matches!(self.elements, Elements::Number { big_endian: true, dtype } if dtype.size() > 1)
    }

    pub fn dtype(&self) -> Dtype {
        match self.elements {
            Elements::Number { dtype, .. } => dtype,
            Elements::Bytes { .. } => Dtype::Opaque,
        }
    }

    /// The tensor's shape: the bytes of an element that is not a number are the last axis.
    pub fn shape(&self) -> Vec<usize> {
        match self.elements {
            Elements::Number { .. } => self.dims.clone(),
            Elements::Bytes { len, .. } => [&self.dims[..], &[len]].concat(),
        }
    }

    /// Reorders a file's bytes into our order.
    pub fn arrange(&self, mut bytes: Buffer) -> Result<Buffer> {
        let width = match self.elements {
            Elements::Number { dtype, .. } => dtype.size(),
            Elements::Bytes { len, .. } => len,
        };
        if self.is_swapped() {
            // A complex number is two numbers.
            let part = if matches!(self.dtype(), Dtype::C64 | Dtype::C128) { width / 2 } else { width };
            strided::swap(&mut bytes, part);
        }
        if !self.column_major || bytes.is_empty() {
            return Ok(bytes);
        }
        strided::gather(&bytes, width, &self.dims, &strided::column_major(&self.dims))
    }

    pub fn byte_len(&self) -> Result<usize> {
        byte_len(self.dtype(), &self.shape()).map_err(super::lie)
    }

    /// Notes whether an array's bytes are reordered, and whether they are opaque.
    pub fn note(&self, name: &str, foreign: &mut Foreign) {
        let order = match (self.column_major, self.is_swapped()) {
            (false, false) => None,
            (true, false) => Some("column-major"),
            (false, true) => Some("big-endian"),
            (true, true) => Some("column-major and big-endian"),
        };
        if let Some(order) = order {
            let what = format!("{order} elements brought into row-major, little-endian order");
            foreign.notes.push(Note::kept(name, what));
        }
        if let Elements::Bytes { len, descr } = &self.elements {
            let what = format!("{descr} kept as opaque bytes, {len} an element");
            foreign.notes.push(Note::kept(name, what));
        }
    }

    /// The array as a tensor.
    pub fn tensor(&self, name: &str, place: Place) -> Result<ForeignTensor> {
        let tensor = ForeignTensor::new(name.to_owned(), self.dtype(), self.shape(), place)?;
        Ok(match &self.elements {
            Elements::Bytes { descr, .. } => tensor.meaning(DESCR_KEY, descr.clone()),
            Elements::Number { .. } => tensor,
        })
    }
}

/// Parses the header from a file's first bytes.
///
/// # Errors
/// `Damaged` when it is not a header, `Unsupported` for elements without a fixed length.
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
    // Only names of fields have characters in which the encodings differ.
    let text = match version {
        1 | 2 => text.iter().copied().map(char::from).collect(),
        _ => {
            String::from_utf8(text.to_vec()).map_err(|error| bad("the header is no UTF-8").because(error))?
        }
    };
    let dict =
        Literal::parse(&text).ok_or_else(|| bad("the header is no Python dict").found(text.trim_end()))?;
    let field =
        |name: &str| dict.get(name).ok_or_else(|| Error::damaged(format!("the header has no {name:?}")));
    let (descr, source) = field("descr")?;
    let elements = descr::parse(descr, source)?;
    let Literal::Bool(column_major) = *field("fortran_order")?.0 else {
        return Err(bad("fortran_order is neither True nor False"));
    };
    let (shape, source) = field("shape")?;
    let dims = dims(shape).ok_or_else(|| bad("shape is not a tuple of numbers").found(source))?;
    Ok(Header { elements, dims, column_major, data_start: start + len })
}

fn dims(shape: &Literal) -> Option<Vec<usize>> {
    let Literal::Items(dims) = shape else { return None };
    let dim = |dim: &Literal| match dim {
        Literal::Int(dim) => usize::try_from(*dim).ok(),
        _ => None,
    };
    dims.iter().map(dim).collect()
}

/// The header of an array in our order, padded so that the elements begin at a multiple of 64; None
/// for a dtype that NumPy lacks, and for a shape that is too long.
pub fn header(dtype: Dtype, shape: &[usize]) -> Option<Vec<u8>> {
    with_descr(&descr::of(dtype)?, shape)
}

/// The header of opaque bytes with a known NumPy description, if its elements are as long as the
/// last axis.
pub fn header_of_bytes(descr: &str, shape: &[usize]) -> Option<Vec<u8>> {
    let (&last, dims) = shape.split_last()?;
    if opaque_len(descr)? == last { with_descr(descr, dims) } else { None }
}

/// Bytes of one element, by NumPy's description; None for numbers, and where the text does not
/// parse.
pub fn opaque_len(descr: &str) -> Option<usize> {
    match descr::parse(&Literal::parse(descr)?, descr).ok()? {
        Elements::Bytes { len, .. } => Some(len),
        Elements::Number { .. } => None,
    }
}

/// As NumPy chooses: version 1, in Latin-1, unless the names of fields have other characters, which
/// only version 3 has.
fn with_descr(descr: &str, shape: &[usize]) -> Option<Vec<u8>> {
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ({dims}), }}");
    let latin1: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    let (version, start, mut text) = match latin1 {
        Some(latin1) => (1, 10, latin1),
        None => (3, 12, text.into_bytes()),
    };
    let unpadded = start + text.len() + 1;
    text.extend(std::iter::repeat_n(b' ', unpadded.next_multiple_of(64) - unpadded));
    text.push(b'\n');
    let len = u16::try_from(text.len()).ok()?;
    let len_bytes = u32::from(len).to_le_bytes();
    Some([MAGIC, &[version, 0], &len_bytes[..start - 8], &text].concat())
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
    header.note(ARRAY, &mut foreign);
    let place = if header.is_plain() {
        Place::At(Arc::clone(blob), start)
    } else {
        let (blob, header) = (Arc::clone(blob), header.clone());
        Place::Made(Arc::new(move || {
            let mut bytes = Buffer::zeroed(len)?;
            blob.read_at(start, &mut bytes)?;
            header.arrange(bytes)
        }))
    };
    foreign.tensors.push(header.tensor(ARRAY, place)?);
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_aligned() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Bool, Dtype::C128] {
            for shape in [&[][..], &[3], &[2, 0, 5]] {
                let bytes = header(dtype, shape).unwrap();
                let parsed = parse(&bytes).unwrap();
                let again = (parsed.dtype(), parsed.shape(), parsed.data_start % 64);
                assert_eq!(again, (dtype, shape.to_vec(), 0));
            }
        }
        assert_eq!(header(Dtype::F8E4M3Fn, &[1]), None);
        let text = header_of_bytes("'<U4'", &[3, 2, 16]).unwrap();
        assert_eq!(parse(&text).unwrap().shape(), [3, 2, 16]);
        assert_eq!(header_of_bytes("'<U4'", &[3, 15]), None);
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        let with = |text: &str| {
            let len = (text.len() as u16).to_le_bytes();
            [MAGIC, &[1, 0], &len[..], text.as_bytes()].concat()
        };
        let header = parse(&with("{'descr': '>i2', 'fortran_order': True, 'shape': (2L, 3), }")).unwrap();
        assert!(header.is_swapped() && !header.is_plain());
        // A record's fields may have the names of the header's own keys.
        let record =
            "{'descr': [('shape', '<f4'), ('fortran_order', '<i2')], 'fortran_order': False, 'shape': (2,)}";
        assert_eq!(parse(&with(record)).unwrap().shape(), [2, 6]);
        for text in [
            "{}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}",
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
