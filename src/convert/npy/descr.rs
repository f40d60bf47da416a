//! The description of elements in `.npy` headers: numbers with a dtype here, bytes of a fixed
//! length (text, dates, records, wider floats), and Python objects.

use super::literal::Literal;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// Dtypes by NumPy's kind and width.
pub const DTYPES: &[(&str, Dtype)] = &[
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
    // ml_dtypes has its own names for its dtypes, and NumPy saves none of them. Only this one is
    // recognisable.
    ("f1", Dtype::F8E5M2),
];
/// NumPy's descr for ml_dtypes' bfloat16. NumPy's own two-byte void is `|V2`, and all other dtypes
/// of ml_dtypes have one byte.
const BF16: &str = "<V2";

/// The kind of an array's elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// A number, possibly in big-endian order.
    Number { dtype: Dtype, big_endian: bool },
    /// A fixed number of bytes, and NumPy's description of them.
    Bytes { len: usize, descr: String },
}

/// Parses the descr value of the header, whose text is `source`.
///
/// # Errors
/// `Unsupported` for objects and for elements of unknown length.
pub fn parse(descr: &Literal, source: &str) -> Result<Elements> {
    if let Literal::Text(text) = descr {
        if text == BF16 {
            return Ok(Elements::Number { dtype: Dtype::Bf16, big_endian: false });
        }
        let (order, kind) = order_and_kind(text);
        if let Some(&(_, dtype)) = DTYPES.iter().find(|(name, _)| *name == kind) {
            return Ok(Elements::Number { dtype, big_endian: order == '>' });
        }
    }
    if has_objects(descr) {
        return Err(Error::new(ErrorKind::Unsupported, "an array of Python objects")
            .found(source)
            .help("its elements are a pickle, which is code and is not run; save it as numbers"));
    }
    match byte_len(descr) {
        Some(len) => Ok(Elements::Bytes { len, descr: source.to_owned() }),
        None => Err(Error::new(ErrorKind::Unsupported, "an array of elements that are not known here")
            .expected("numbers, text, dates, or records of them")
            .found(source)),
    }
}

/// NumPy's description of one of our dtypes, if it has one.
pub fn of(dtype: Dtype) -> Option<String> {
    if dtype == Dtype::Bf16 {
        return Some(format!("'{BF16}'"));
    }
    // NumPy itself cannot read the one-byte float that ml_dtypes makes it write.
    let (kind, _) = DTYPES.iter().find(|(kind, known)| *known == dtype && *kind != "f1")?;
    let order = if dtype.size() == 1 { '|' } else { '<' };
    Some(format!("'{order}{kind}'"))
}

fn order_and_kind(text: &str) -> (char, &str) {
    match text.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &text[1..]),
        _ => ('<', text),
    }
}

fn has_objects(descr: &Literal) -> bool {
    match descr {
        Literal::Text(text) => order_and_kind(text).1.starts_with('O'),
        Literal::Items(fields) => fields.iter().any(|field| match field {
            Literal::Items(parts) => parts.get(1).is_some_and(has_objects),
            _ => false,
        }),
        _ => false,
    }
}

/// Bytes of one element.
fn byte_len(descr: &Literal) -> Option<usize> {
    match descr {
        Literal::Text(text) => {
            let (kind, rest) = order_and_kind(text).1.split_at_checked(1)?;
            // A date's unit follows its length: M8[ns].
            let digits = rest.split('[').next()?;
            let len: usize = digits.parse().ok()?;
            match kind {
                "U" => len.checked_mul(4),
                "b" | "u" | "i" | "f" | "c" | "V" | "S" | "a" | "M" | "m" => Some(len),
                _ => None,
            }
        }
        Literal::Items(fields) => fields.iter().try_fold(0, |sum: usize, field| {
            let Literal::Items(parts) = field else { return None };
            let (of_one, count) = match parts.as_slice() {
                [_, descr] => (byte_len(descr)?, 1),
                [_, descr, shape] => (byte_len(descr)?, count(shape)?),
                _ => return None,
            };
            sum.checked_add(of_one.checked_mul(count)?)
        }),
        _ => None,
    }
}

/// Number of elements of a field that is itself an array.
fn count(shape: &Literal) -> Option<usize> {
    match shape {
        Literal::Int(len) => usize::try_from(*len).ok(),
        Literal::Items(_) => {
            super::dims(shape)?.iter().try_fold(1, |count: usize, &dim| count.checked_mul(dim))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(source: &str) -> Result<Elements> {
        parse(&Literal::parse(source).unwrap(), source)
    }

    #[test]
    fn bytes_of_a_fixed_length_keep_their_description() {
        for (source, expected) in [
            ("'<U4'", 16),
            ("'|S3'", 3),
            ("'<M8[ns]'", 8),
            ("'<f16'", 16),
            ("'|V2'", 2),
            ("'<V1'", 1),
            ("[('a', '<f4'), ('b', '<i2', (2, 3)), ('c', [('d', '|u1')], 2)]", 18),
        ] {
            match parsed(source).unwrap() {
                Elements::Bytes { len, descr } => assert_eq!((len, descr.as_str()), (expected, source)),
                number => panic!("{source}: {number:?}"),
            }
        }
        let bf16 = Elements::Number { dtype: Dtype::Bf16, big_endian: false };
        assert_eq!((parsed("'<V2'").unwrap(), of(Dtype::Bf16).as_deref()), (bf16, Some("'<V2'")));
    }

    #[test]
    fn objects_and_unknown_kinds_are_told_whole() {
        for (source, word) in
            [("'|O'", "objects"), ("[('a', '|O'), ('b', '<i2')]", "objects"), ("'<x9'", "not known")]
        {
            let error = parsed(source).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(word) && text.contains(source), "{text}");
        }
    }
}
