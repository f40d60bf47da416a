//! Elements as numbers, a block at a time: the bytes of every dtype as f32 where that is exact,
//! else as f64. Complex numbers are their two components.

use tensorkeep::{Dtype, Error, ErrorKind, Result};

/// Elements in a block: its numbers stay in the processor's nearest caches from being made to being
/// summed, and ending a block costs little beside it.
pub const BLOCK: usize = 4096;

/// How elements become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Exact in f32.
    Single(Dtype),
    /// Needs f64; integers beyond 2^53 are rounded.
    Double(Dtype),
}

impl Kind {
    /// None for bytes whose meaning is unknown.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::Opaque => None,
            Dtype::U32 | Dtype::I32 | Dtype::U64 | Dtype::I64 | Dtype::F64 | Dtype::C128 => {
                Some(Self::Double(dtype))
            }
            _ => Some(Self::Single(dtype)),
        }
    }

    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            Self::Single(Dtype::C64) => 4,
            Self::Double(Dtype::C128) => 8,
            Self::Single(dtype) | Self::Double(dtype) => dtype.size(),
        }
    }
}

/// The 256 values of an 8-bit float, where the dtype is one.
pub fn table(dtype: Dtype) -> Option<Box<[f32; 256]>> {
    let decode: fn(u8) -> f32 = match dtype {
        Dtype::F8E4M3Fn => |byte| float8(byte, 3, 7, |byte| byte & 0x7F == 0x7F, |_| false),
        Dtype::F8E4M3 => |byte| float8(byte, 3, 7, |byte| byte & 0x7F > 0x78, |byte| byte & 0x7F == 0x78),
        Dtype::F8E4M3FnUz => |byte| float8(byte, 3, 8, |byte| byte == 0x80, |_| false),
        Dtype::F8E4M3B11FnUz => |byte| float8(byte, 3, 11, |byte| byte == 0x80, |_| false),
        Dtype::F8E5M2 => |byte| float8(byte, 2, 15, |byte| byte & 0x7F > 0x7C, |byte| byte & 0x7F == 0x7C),
        Dtype::F8E5M2FnUz => |byte| float8(byte, 2, 16, |byte| byte == 0x80, |_| false),
        Dtype::F8E3M4 => |byte| float8(byte, 4, 3, |byte| byte & 0x7F > 0x70, |byte| byte & 0x7F == 0x70),
        Dtype::F8E8M0Fnu => |byte| if byte == 0xFF { f32::NAN } else { (f32::from(byte) - 127.0).exp2() },
        _ => return None,
    };
    let mut values = Box::new([0.0; 256]);
    (0..=255).zip(values.iter_mut()).for_each(|(byte, value)| *value = decode(byte));
    Some(values)
}

/// An 8-bit float of one sign bit, exponent bits, and `mantissa` bits. Definitions as in the
/// ml_dtypes project.
fn float8(byte: u8, mantissa: u32, bias: i32, is_nan: fn(u8) -> bool, is_inf: fn(u8) -> bool) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    if is_nan(byte) {
        return f32::NAN;
    }
    if is_inf(byte) {
        return sign * f32::INFINITY;
    }
    let exponent = i32::from((byte & 0x7F) >> mantissa);
    let fraction = f32::from(byte & ((1 << mantissa) - 1)) / (1_u32 << mantissa) as f32;
    match exponent {
        0 => sign * fraction * ((1 - bias) as f32).exp2(),
        _ => sign * (1.0 + fraction) * ((exponent - bias) as f32).exp2(),
    }
}

/// The numbers of at most a block of bytes: where they lie, if they are f32 already, else in
/// `room`.
pub fn single_block<'b>(
    dtype: Dtype,
    table: Option<&[f32; 256]>,
    bytes: &'b [u8],
    room: &'b mut [f32; BLOCK],
) -> &'b [f32] {
    if let (Dtype::F32 | Dtype::C64, Ok(numbers)) = (dtype, bytemuck::try_cast_slice(bytes)) {
        return numbers;
    }
    let room = &mut room[..bytes.len() / Kind::Single(dtype).width()];
    singles(dtype, table, bytes, room);
    room
}

/// As [`single_block`], for the wide dtypes.
pub fn double_block<'b>(dtype: Dtype, bytes: &'b [u8], room: &'b mut [f64; BLOCK]) -> &'b [f64] {
    if let (Dtype::F64 | Dtype::C128, Ok(numbers)) = (dtype, bytemuck::try_cast_slice(bytes)) {
        return numbers;
    }
    let room = &mut room[..bytes.len() / Kind::Double(dtype).width()];
    doubles(dtype, bytes, room);
    room
}

/// Numbers of at most a block of bytes of any real dtype, as f64.
pub fn widened_block<'b>(
    dtype: Dtype,
    table: Option<&[f32; 256]>,
    bytes: &[u8],
    room: &'b mut [f64; BLOCK],
) -> &'b [f64] {
    let room = &mut room[..bytes.len() / dtype.size()];
    match Kind::of(dtype) {
        Some(Kind::Single(dtype)) => {
            let mut singles_room = [0.0; BLOCK];
            let found = single_block(dtype, table, bytes, &mut singles_room);
            room.iter_mut().zip(found).for_each(|(wide, &single)| *wide = f64::from(single));
        }
        Some(Kind::Double(dtype)) => doubles(dtype, bytes, room),
        None => {}
    }
    room
}

/// Refuses a truth value that is none, in bytes of which the first has the offset `offset` in its
/// tensor.
///
/// # Errors
/// `Damaged`.
pub fn check_bools(dtype: Dtype, offset: u64, bytes: &[u8]) -> Result<()> {
    if dtype != Dtype::Bool {
        return Ok(());
    }
    // Without a branch for each byte, which is what keeps it at memory's speed.
    if bytes.iter().fold(0, |all, byte| all | byte) <= 1 {
        return Ok(());
    }
    let at = bytes.iter().position(|&byte| byte > 1).unwrap_or(0);
    let what = format!("element {} of a tensor of bool", offset + at as u64);
    Err(Error::new(ErrorKind::Damaged, what).expected("0 or 1").found(bytes[at]))
}

/// Fills `out` with the numbers of `bytes`; both are of the same number of elements.
pub fn singles(dtype: Dtype, table: Option<&[f32; 256]>, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F32 | Dtype::C64 => each(bytes, out, f32::from_le_bytes),
        Dtype::Bf16 => each(bytes, out, |b: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F16 => {
            let mut halves = [half::f16::ZERO; BLOCK];
            let halves = &mut halves[..out.len()];
            each(bytes, halves, half::f16::from_le_bytes);
            half::slice::HalfFloatSliceExt::convert_to_f32_slice(&*halves, out);
        }
        Dtype::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        Dtype::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        Dtype::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        _ => match table {
            Some(table) => each(bytes, out, |[byte]: [u8; 1]| table[usize::from(byte)]),
            None => each(bytes, out, |[byte]: [u8; 1]| f32::from(byte)),
        },
    }
}

/// As [`singles`], for the wide dtypes.
pub fn doubles(dtype: Dtype, bytes: &[u8], out: &mut [f64]) {
    match dtype {
        Dtype::U32 => each(bytes, out, |b| f64::from(u32::from_le_bytes(b))),
        Dtype::I32 => each(bytes, out, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f64),
        Dtype::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f64),
        _ => each(bytes, out, f64::from_le_bytes),
    }
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], number: impl Fn([u8; N]) -> T) {
    let (chunks, _) = bytes.as_chunks::<N>();
    out.iter_mut().zip(chunks).for_each(|(out, chunk)| *out = number(*chunk));
}

/// How many NaNs and infinities bytes of floats hold: all bits of the exponent are set.
pub fn not_finite(dtype: Dtype, bytes: &[u8]) -> u64 {
    let exponent: &[u8] = match dtype {
        Dtype::F16 => &[0, 0x7C],
        Dtype::Bf16 => &[0x80, 0x7F],
        Dtype::F32 => &[0, 0, 0x80, 0x7F],
        Dtype::F64 => &[0, 0, 0, 0, 0, 0, 0xF0, 0x7F],
        _ => return 0,
    };
    let is_full = |value: &&[u8]| value.iter().zip(exponent).all(|(byte, mask)| byte & mask == *mask);
    bytes.chunks_exact(exponent.len()).filter(is_full).count() as u64
}

/// Any one number, for printing; it reads back as the same number of its dtype.
pub fn one(dtype: Dtype, bytes: &[u8]) -> String {
    match (dtype, Kind::of(dtype)) {
        (Dtype::U64, _) if bytes.len() == 8 => {
            u64::from_le_bytes(bytes.try_into().unwrap_or_default()).to_string()
        }
        (Dtype::I64, _) if bytes.len() == 8 => {
            i64::from_le_bytes(bytes.try_into().unwrap_or_default()).to_string()
        }
        (Dtype::Bool, _) => (bytes != [0]).to_string(),
        (Dtype::C64 | Dtype::C128, _) => {
            let (real, imaginary) = bytes.split_at(bytes.len() / 2);
            let part = if dtype == Dtype::C64 { Dtype::F32 } else { Dtype::F64 };
            let imaginary = one(part, imaginary);
            let sign = if imaginary.starts_with('-') { "" } else { "+" };
            format!("{}{sign}{imaginary}i", one(part, real))
        }
        (_, Some(Kind::Single(_))) => {
            let mut out = [0.0];
            singles(dtype, table(dtype).as_deref(), bytes, &mut out);
            shorter(out[0].to_string(), || format!("{:e}", out[0]))
        }
        (_, Some(Kind::Double(_))) => {
            let mut out = [0.0];
            doubles(dtype, bytes, &mut out);
            shorter(out[0].to_string(), || format!("{:e}", out[0]))
        }
        (_, None) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Digits as people write them, unless an exponent spares a line of zeros.
fn shorter(plain: String, with_exponent: impl FnOnce() -> String) -> String {
    if plain.len() <= 20 { plain } else { with_exponent() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_are_what_ml_dtypes_says() {
        let value = |dtype, byte: u8| table(dtype).unwrap()[usize::from(byte)];
        assert_eq!(value(Dtype::F8E4M3Fn, 0x7E), 448.0);
        assert!(value(Dtype::F8E4M3Fn, 0x7F).is_nan());
        assert_eq!(value(Dtype::F8E4M3Fn, 0x01), 2.0_f32.powi(-9));
        assert_eq!(value(Dtype::F8E5M2, 0x7B), 57344.0);
        assert_eq!(value(Dtype::F8E5M2, 0xFC), f32::NEG_INFINITY);
        assert_eq!(value(Dtype::F8E4M3FnUz, 0x7F), 240.0);
        assert!(value(Dtype::F8E4M3FnUz, 0x80).is_nan());
        assert_eq!(value(Dtype::F8E8M0Fnu, 127), 1.0);
        assert_eq!(value(Dtype::F8E3M4, 0x6F), 15.5);
        assert_eq!(value(Dtype::F8E4M3B11FnUz, 0x7F), 30.0);
    }

    #[test]
    fn a_truth_value_that_is_none_is_damage_at_its_element() {
        assert!(check_bools(Dtype::Bool, 0, &[0, 1, 1]).is_ok());
        assert!(check_bools(Dtype::U8, 0, &[2]).is_ok());
        let error = check_bools(Dtype::Bool, 10, &[0, 1, 2]).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains("element 12"), "{error}");
    }

    #[test]
    fn one_number_of_each_kind_prints() {
        assert_eq!(one(Dtype::F32, &1.5_f32.to_le_bytes()), "1.5");
        assert_eq!(one(Dtype::U64, &u64::MAX.to_le_bytes()), u64::MAX.to_string());
        assert_eq!(one(Dtype::Bf16, &[0xC0, 0x3F]), "1.5");
        assert_eq!(one(Dtype::Bool, &[1]), "true");
        assert_eq!(one(Dtype::C64, &[0; 8]), "0+0i");
        let complex = |re: f32, im: f32| one(Dtype::C64, &[re.to_le_bytes(), im.to_le_bytes()].concat());
        assert_eq!((complex(1.0, -2.0), complex(f32::NAN, -0.0)), ("1-2i".to_owned(), "NaN-0i".to_owned()));
        let double = |value: f64| one(Dtype::F64, &value.to_le_bytes());
        assert_eq!([9e307, 5e-324, 0.1, 1e15].map(double), ["9e307", "5e-324", "0.1", "1000000000000000"]);
        assert_eq!(one(Dtype::F32, &f32::MAX.to_le_bytes()), "3.4028235e38");
        assert_eq!(one(Dtype::Opaque, &[255]), "ff");
    }
}
