//! safetensors' dtypes by name: those that are ours, and those of less than a byte, which stay
//! opaque bytes.

use crate::dtype::Dtype;

/// A dtype of the format.
#[derive(Debug)]
pub struct Known {
    pub name: &'static str,
    bits: u64,
    /// Our dtype, if there is one.
    pub dtype: Option<Dtype>,
}

const fn ours(name: &'static str, dtype: Dtype) -> Known {
    Known { name, bits: dtype.bits(), dtype: Some(dtype) }
}

const fn packed(name: &'static str, bits: u64) -> Known {
    Known { name, bits, dtype: None }
}

const KNOWN: &[Known] = &[
    ours("BOOL", Dtype::Bool),
    packed("F4", 4),
    packed("F6_E2M3", 6),
    packed("F6_E3M2", 6),
    ours("U8", Dtype::U8),
    ours("I8", Dtype::I8),
    ours("U16", Dtype::U16),
    ours("I16", Dtype::I16),
    ours("U32", Dtype::U32),
    ours("I32", Dtype::I32),
    ours("U64", Dtype::U64),
    ours("I64", Dtype::I64),
    ours("F16", Dtype::F16),
    ours("BF16", Dtype::Bf16),
    ours("F32", Dtype::F32),
    ours("F64", Dtype::F64),
    ours("C64", Dtype::C64),
    ours("F8_E4M3", Dtype::F8E4M3Fn),
    ours("F8_E5M2", Dtype::F8E5M2),
    ours("F8_E8M0", Dtype::F8E8M0Fnu),
    ours("F8_E4M3FNUZ", Dtype::F8E4M3FnUz),
    ours("F8_E5M2FNUZ", Dtype::F8E5M2FnUz),
];

impl Known {
    /// The dtype of this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// safetensors' dtype for one of ours.
    pub fn of_dtype(dtype: Dtype) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.dtype == Some(dtype))
    }

    /// Bytes of a tensor of this shape; None when they are not a whole number, or overflow.
    pub fn byte_len(&self, shape: &[u64]) -> Option<u64> {
        let count = shape.iter().try_fold(1_u64, |count, &len| count.checked_mul(len))?;
        let bits = count.checked_mul(self.bits)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// `F4 [2, 8]`: the description of opaque bytes in the metadata.
pub fn described(name: &str, shape: &[u64]) -> String {
    format!("{name} {shape:?}")
}

/// Parses a description by [`described`], if the dtype is one of the format's whose bytes are
/// opaque here, and the length matches.
pub fn packed_of(described: &str, byte_len: u64) -> Option<(&'static Known, Vec<u64>)> {
    let (name, shape) = described.split_once(' ')?;
    let known = Known::of(name).filter(|known| known.dtype.is_none())?;
    let dims = shape.strip_prefix('[')?.strip_suffix(']')?.split(',').map(str::trim);
    let shape: Vec<u64> =
        dims.filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
    (known.byte_len(&shape) == Some(byte_len)).then_some((known, shape))
}
