//! Conversions between float widths, and of integers into floats: to the nearest value, ties to
//! even, the same on every machine.

use crate::buffer::Buffer;
use crate::dtype::{Dtype, Element};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Tensor;
use half::{bf16, f16};

impl Tensor<'_> {
    /// The tensor in another dtype: floats of another width, or integers as floats, rounded to the
    /// nearest value, ties to even, once. A tensor that has the dtype is returned as it is.
    ///
    /// ```
    /// # use tensorkeep::{Dtype, Tensor};
    /// let weights = Tensor::from_elements(&[2], &[0.5_f32, 1.0 / 3.0])?;
    /// let halves = weights.cast(Dtype::Bf16)?;
    /// assert_eq!((halves.dtype(), halves.bytes().len()), (Dtype::Bf16, 4));
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Unsupported` for other conversions, such as of floats into integers; `LimitExceeded` when
    /// the memory cannot be allocated.
    pub fn cast(self, dtype: Dtype) -> Result<Self> {
        let from = self.dtype();
        if from == dtype || is_possible(from, dtype) || is_possible_of_integers(from, dtype) {
            return to(dtype, self);
        }
        Err(Error::new(ErrorKind::Unsupported, "conversion of a tensor")
            .expected("floats of 16, 32 or 64 bits, or integers into them")
            .found(format!("{from} into {dtype}")))
    }
}

/// Whether one float dtype can be converted into the other.
pub(super) fn is_possible(from: Dtype, to: Dtype) -> bool {
    is_real(from) && is_real(to)
}

/// Whether an integer dtype can be converted into a float dtype.
pub(super) fn is_possible_of_integers(from: Dtype, to: Dtype) -> bool {
    use Dtype::{I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(from, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64) && is_real(to)
}

fn is_real(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
}

/// The tensor in another dtype, or unchanged if it has that dtype.
pub(super) fn to(dtype: Dtype, tensor: Tensor<'_>) -> Result<Tensor<'_>> {
    if tensor.dtype() == dtype {
        return Ok(tensor);
    }
    match tensor.dtype() {
        Dtype::F16 => narrow(&tensor, dtype, |value: f16| value.to_f64()),
        Dtype::Bf16 => narrow(&tensor, dtype, |value: bf16| value.to_f64()),
        Dtype::F32 => narrow(&tensor, dtype, |value: f32| f64::from(value)),
        Dtype::I8 => narrow(&tensor, dtype, |value: i8| f64::from(value)),
        Dtype::I16 => narrow(&tensor, dtype, |value: i16| f64::from(value)),
        Dtype::I32 => narrow(&tensor, dtype, |value: i32| f64::from(value)),
        Dtype::U8 => narrow(&tensor, dtype, |value: u8| f64::from(value)),
        Dtype::U16 => narrow(&tensor, dtype, |value: u16| f64::from(value)),
        Dtype::U32 => narrow(&tensor, dtype, |value: u32| f64::from(value)),
        Dtype::I64 if dtype == Dtype::F64 => convert(&tensor, |value: i64| value as f64, |value| value),
        Dtype::U64 if dtype == Dtype::F64 => convert(&tensor, |value: u64| value as f64, |value| value),
        Dtype::I64 => narrow(&tensor, dtype, |value: i64| to_odd_f64(value.unsigned_abs(), value < 0)),
        Dtype::U64 => narrow(&tensor, dtype, |value: u64| to_odd_f64(value, false)),
        _ => narrow(&tensor, dtype, |value: f64| value),
    }
}

/// An `f64` that rounds to the same shorter float as the integer does: see [`to_odd`].
fn to_odd_f64(magnitude: u64, is_negative: bool) -> f64 {
    let beyond = (64 - magnitude.leading_zeros()).saturating_sub(f64::MANTISSA_DIGITS);
    let kept = magnitude >> beyond << beyond;
    // OK to cast: the digits left fit an f64.
    let odd = f64::from_bits((kept as f64).to_bits() | u64::from(kept != magnitude));
    if is_negative { -odd } else { odd }
}

fn narrow<T: Element>(
    tensor: &Tensor<'_>,
    dtype: Dtype,
    widen: impl Fn(T) -> f64,
) -> Result<Tensor<'static>> {
    match dtype {
        Dtype::F16 => convert(tensor, widen, |value| f16::from_f32_const(to_odd(value))),
        Dtype::Bf16 => convert(tensor, widen, |value| bf16::from_f32_const(to_odd(value))),
        Dtype::F32 => convert(tensor, widen, |value| value as f32),
        _ => convert(tensor, widen, |value| value),
    }
}

/// An `f32` that rounds to the same 16-bit float as `value` does: if it loses digits, its last bit
/// is set to 1, so that no value looks like a tie unless it is one (Boldo and Melquiond, "Emulation
/// of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008). `half`
/// converts from `f64` differently on different processors, and not always rounding.
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || value.is_nan() {
        return nearest;
    }
    let rounded_up = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(rounded_up)) | 1)
}

fn convert<T: Element, U: Element>(
    tensor: &Tensor<'_>,
    widen: impl Fn(T) -> f64,
    narrow: impl Fn(f64) -> U,
) -> Result<Tensor<'static>> {
    let elements = tensor.elements::<T>()?;
    let mut buffer = Buffer::zeroed(size_of_val(elements) / size_of::<T>() * size_of::<U>())?;
    for (out, &element) in buffer.chunks_exact_mut(size_of::<U>()).zip(elements) {
        out.copy_from_slice(bytemuck::bytes_of(&narrow(widen(element))));
    }
    Tensor::owned(U::DTYPE, tensor.shape(), buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether neither neighbour of `found` is nearer to `value`.
    fn is_nearest(value: f64, found: f64, below: f64, above: f64, found_is_even: bool) -> bool {
        let off = (found - value).abs();
        let (low, high) = ((below - value).abs(), (above - value).abs());
        off < low.min(high) || (off == low.min(high) && found_is_even)
    }

    fn check(values: &[f64]) {
        let tensor = Tensor::from_elements(&[values.len()], values).unwrap();
        let bf = to(Dtype::Bf16, tensor.clone()).unwrap();
        let half = to(Dtype::F16, tensor).unwrap();
        let pairs = bf.elements::<bf16>().unwrap().iter().zip(half.elements::<f16>().unwrap());
        for (&value, (bf, half)) in values.iter().zip(pairs) {
            let of = |bits: u16| f64::from(bf16::from_bits(bits).to_f32());
            let bits = bf.to_bits();
            let nearest = is_nearest(value, of(bits), of(bits.wrapping_sub(1)), of(bits + 1), bits % 2 == 0);
            assert!(nearest, "{value:e} as bf16 is {bf:e}");
            let of = |bits: u16| f64::from(f16::from_bits(bits).to_f32());
            let bits = half.to_bits();
            let nearest = is_nearest(value, of(bits), of(bits.wrapping_sub(1)), of(bits + 1), bits % 2 == 0);
            assert!(nearest, "{value:e} as f16 is {half:e}");
        }
    }

    #[test]
    fn narrowing_rounds_to_the_nearest_and_ties_to_even() {
        let of = |value: f64| -> (f32, f32) {
            let tensor = Tensor::from_elements(&[1], std::slice::from_ref(&value)).unwrap();
            let bf = to(Dtype::Bf16, tensor.clone()).unwrap().scalar::<bf16>().unwrap();
            (bf.to_f32(), to(Dtype::F16, tensor).unwrap().scalar::<f16>().unwrap().to_f32())
        };
        // Above a tie by the last bit of an f32, and by less than an f32 holds.
        assert_eq!(of(1.0 + 2_f64.powi(-8) + 2_f64.powi(-23)).0, 1.007_812_5);
        assert_eq!(of(1.0 + 2_f64.powi(-8) + 2_f64.powi(-40)).0, 1.007_812_5);
        assert_eq!(of(1.0 + 2_f64.powi(-11) + 2_f64.powi(-40)).1, 1.000_976_6);
        // Ties.
        assert_eq!(of(1.0 + 2_f64.powi(-8)).0, 1.0);
        assert_eq!(of(1.0 + 3.0 * 2_f64.powi(-8)).0, 1.015_625);
        assert_eq!(of(1.0 + 2_f64.powi(-11)).1, 1.0);
        // Beyond the range, and below the smallest value.
        assert_eq!(of(65_519.9), (65_536.0, 65_504.0));
        assert_eq!(of(65_520.0).1, f32::INFINITY);
        assert_eq!(of(f64::MAX), (f32::INFINITY, f32::INFINITY));
        assert_eq!(of(f64::NEG_INFINITY), (f32::NEG_INFINITY, f32::NEG_INFINITY));
        assert_eq!(of(-1e-300).0.to_bits(), (-0.0_f32).to_bits());
        assert!(of(f64::NAN).0.is_nan() && of(f64::NAN).1.is_nan());
    }

    #[test]
    fn integers_round_once_on_their_way_into_floats() {
        let of =
            |value: i64, dtype| scalar(&to(dtype, Tensor::from_elements(&[1], &[value]).unwrap()).unwrap());
        for value in [0, 1, -7, 1 << 24, i64::MAX, i64::MIN, (1 << 53) + 1, (1 << 24) + 1] {
            assert_eq!(of(value, Dtype::F64), value as f64, "{value}");
            assert_eq!(of(value, Dtype::F32), f64::from(value as f32), "{value}");
        }
        // Above a tie of f32 by less than an f64 holds: rounded twice, it would round as the tie.
        let value = (1_i64 << 60) + (1 << 36) + 1;
        assert_eq!(of(value, Dtype::F32), f64::from(value as f32));
        assert_eq!(of(-value, Dtype::F32), f64::from(-value as f32));
        assert_eq!(
            (of(2049, Dtype::F16), of(2051, Dtype::F16), of(257, Dtype::Bf16)),
            (2048.0, 2052.0, 256.0)
        );
        assert_eq!(of(65_520, Dtype::F16), f64::INFINITY);
        let most = to(Dtype::F32, Tensor::from_elements(&[1], &[u64::MAX]).unwrap()).unwrap();
        assert_eq!(most.scalar::<f32>().unwrap(), u64::MAX as f32);
        assert!(
            !is_possible_of_integers(Dtype::I64, Dtype::I32)
                && !is_possible_of_integers(Dtype::F32, Dtype::I64)
        );
    }

    fn scalar(tensor: &Tensor<'_>) -> f64 {
        match tensor.dtype() {
            Dtype::F16 => tensor.scalar::<f16>().unwrap().to_f64(),
            Dtype::Bf16 => tensor.scalar::<bf16>().unwrap().to_f64(),
            Dtype::F32 => f64::from(tensor.scalar::<f32>().unwrap()),
            _ => tensor.scalar::<f64>().unwrap(),
        }
    }

    #[test]
    fn every_narrowed_value_has_no_nearer_neighbour() {
        // Positive, finite and above the smallest in both formats, so that each result has two
        // neighbours.
        let mut state = 1_u64;
        let values: Vec<f64> = (0..200_000)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let scale = 2_f64.powi(i % 29 - 20);
                // Near ties: 8 or 11 bits, then zeros, then the last bits of an f32 or an f64.
                let tail =
                    [0.0, 2_f64.powi(-23), 2_f64.powi(-40), -2_f64.powi(-40)][(state >> 60) as usize % 4];
                let leading = (state >> 20) % (1 << 12);
                (1.0 + leading as f64 / 4096.0 + tail) * scale
            })
            .collect();
        check(&values);
    }
}
