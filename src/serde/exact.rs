//! Numbers as a float of the type that is asked for, exactly or not at all. serde's own conversions
//! round: an `f64` of a state that is read as an `f32` would come back as another number.

use super::fault::Fault;
use std::fmt::Display;

fn rounded(value: impl Display, to: &str) -> Fault {
    Fault::Said(format!("{value} is no {to}: it would be rounded"))
}

/// # Errors
/// For a value that `f32` does not have. A NaN is a NaN.
pub(super) fn f32_of_f64(value: f64) -> Result<f32, Fault> {
    let narrow = value as f32;
    let is_exact = f64::from(narrow) == value || value.is_nan();
    if is_exact { Ok(narrow) } else { Err(rounded(format_args!("the f64 {value:?}"), "f32")) }
}

/// # Errors
/// For an integer that `f32` does not have.
pub(super) fn f32_of_integer<T: Into<i128> + Display + Copy>(value: T) -> Result<f32, Fault> {
    let float = value.into() as f32;
    // OK to cast back: floats from integers of 64 bits are integers, and far below 2¹²⁷.
    if float as i128 == value.into() { Ok(float) } else { Err(rounded(value, "f32")) }
}

/// # Errors
/// For an integer that `f64` does not have.
pub(super) fn f64_of_integer<T: Into<i128> + Display + Copy>(value: T) -> Result<f64, Fault> {
    let float = value.into() as f64;
    // OK to cast back, as above.
    if float as i128 == value.into() { Ok(float) } else { Err(rounded(value, "f64")) }
}
