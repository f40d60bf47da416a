//! Element types: the dtypes with their exact ids and names, bits per element, and their Rust types
//! ([`Element`]).

use crate::error::{Error, Result};
use bytemuck::{CheckedBitPattern, NoUninit};
use std::fmt;
use std::str::FromStr;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $bits:literal;)*) => {
        /// The type of a tensor's elements, little-endian on disk and in memory.
        ///
        /// The 8-bit floats keep their exact kind: `f8e4m3fn` and `f8e4m3fnuz` differ in bias and
        /// NaN, and no conversion between them is implied. Names and definitions follow the
        /// `ml_dtypes` project.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Dtype { $($(#[$doc])* $variant,)* }

        impl Dtype {
            /// Every dtype, in the order of their ids.
            pub const ALL: &'static [Dtype] = &[$(Self::$variant,)*];

            /// The id on disk.
            pub const fn id(self) -> u16 {
                match self { $(Self::$variant => $id,)* }
            }

            /// The dtype of an id on disk, `None` for ids this version does not know.
            #[inline]
            pub const fn from_id(id: u16) -> Option<Self> {
                // A table lookup: a `match` compiles to a jump, for each entry of a listing.
                const BY_ID: [Option<Dtype>; 256] = {
                    let mut by_id = [None; 256];
                    $(by_id[$id] = Some(Dtype::$variant);)*
                    by_id
                };
                if id < 256 { BY_ID[id as usize] } else { None }
            }

            /// The name: `f32`, `bf16`, `f8e4m3fn`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Bits per element. A multiple of 8 for every dtype of format version 1.
            pub const fn bits(self) -> u64 {
                match self { $(Self::$variant => $bits,)* }
            }
        }
    };
}

dtypes! {
    /// One byte, 0 or 1.
    Bool = 1, "bool", 8;
    /// Unsigned 8-bit integer.
    U8 = 2, "u8", 8;
    /// Signed 8-bit integer.
    I8 = 3, "i8", 8;
    /// Unsigned 16-bit integer.
    U16 = 4, "u16", 16;
    /// Signed 16-bit integer.
    I16 = 5, "i16", 16;
    /// Unsigned 32-bit integer.
    U32 = 6, "u32", 32;
    /// Signed 32-bit integer.
    I32 = 7, "i32", 32;
    /// Unsigned 64-bit integer.
    U64 = 8, "u64", 64;
    /// Signed 64-bit integer.
    I64 = 9, "i64", 64;
    /// IEEE 754 binary16.
    F16 = 10, "f16", 16;
    /// bfloat16: the upper half of a binary32.
    Bf16 = 11, "bf16", 16;
    /// IEEE 754 binary32.
    F32 = 12, "f32", 32;
    /// IEEE 754 binary64.
    F64 = 13, "f64", 64;
    /// Complex of two binary32: real, imaginary.
    C64 = 14, "c64", 64;
    /// Complex of two binary64: real, imaginary.
    C128 = 15, "c128", 128;
    /// 8-bit float, 4 exponent and 3 mantissa bits, finite with NaN (no infinities).
    F8E4M3Fn = 16, "f8e4m3fn", 8;
    /// As `f8e4m3fn` with bias 8, no negative zero, one NaN.
    F8E4M3FnUz = 17, "f8e4m3fnuz", 8;
    /// 8-bit float, 5 exponent and 2 mantissa bits, with infinities.
    F8E5M2 = 18, "f8e5m2", 8;
    /// As `f8e5m2` with bias 16, finite, no negative zero, one NaN.
    F8E5M2FnUz = 19, "f8e5m2fnuz", 8;
    /// 8-bit power-of-two scale: exponent only, unsigned, finite with NaN.
    F8E8M0Fnu = 20, "f8e8m0fnu", 8;
    /// 8-bit float, 4 exponent and 3 mantissa bits, with infinities (IEEE-like).
    F8E4M3 = 21, "f8e4m3", 8;
    /// 8-bit float, 4 exponent and 3 mantissa bits, bias 11, finite, no negative zero, one NaN.
    F8E4M3B11FnUz = 22, "f8e4m3b11fnuz", 8;
    /// 8-bit float, 3 exponent and 4 mantissa bits, with infinities (IEEE-like).
    F8E3M4 = 23, "f8e3m4", 8;
    /// Bytes whose meaning is the user's; one element is one byte.
    Opaque = 255, "opaque", 8;
}

impl Dtype {
    /// Bytes per element.
    #[inline]
    pub const fn size(self) -> usize {
        (self.bits() / 8) as usize
    }

    /// Whether elements are floating point or complex numbers.
    pub const fn is_float(self) -> bool {
        matches!(self.id(), 10..=23)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            Error::invalid(format!("unknown dtype {name:?}")).expected(format!("one of {}", names.join(", ")))
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type whose values are the elements of one [`Dtype`].
///
/// Complex numbers are `[f32; 2]` and `[f64; 2]` (real, imaginary), and `num_complex::Complex` with
/// the feature `ndarray`. The 8-bit floats have no Rust type; use their bytes.
pub trait Element: sealed::Sealed + Copy + CheckedBitPattern + NoUninit + Send + Sync + 'static {
    /// The dtype of these elements.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),* $(,)?) => {
        $(impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        })*
    };
}

elements! {
    bool => Bool, u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64, [f32; 2] => C64, [f64; 2] => C128,
}

#[cfg(feature = "ndarray")]
elements! { num_complex::Complex<f32> => C64, num_complex::Complex<f64> => C128 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_names_and_dtypes_map_one_to_one() {
        for &dtype in Dtype::ALL {
            assert_eq!(Dtype::from_id(dtype.id()), Some(dtype));
            assert_eq!(dtype.name().parse::<Dtype>().unwrap(), dtype);
            assert_eq!(dtype.bits() % 8, 0);
        }
        assert_eq!(Dtype::from_id(0), None);
        assert!("f8".parse::<Dtype>().unwrap_err().to_string().contains("f8e4m3fn"));
    }

    #[test]
    fn a_rust_type_is_as_large_as_its_dtype() {
        fn check<T: Element>() {
            assert_eq!(size_of::<T>(), T::DTYPE.size());
        }
        check::<bool>();
        check::<half::bf16>();
        check::<f64>();
        check::<[f64; 2]>();
    }
}
