//! Numbers with units, as they are typed: sizes and ages.

use std::time::Duration;
use tensorkeep::{Error, ErrorKind, Result};

const AGES: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("", 1)];
const SIZES: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// 90s, 15m, 12h, 7d.
///
/// # Errors
/// `Invalid`.
pub fn age(text: &str) -> Result<Duration> {
    with_unit(text, AGES).map(Duration::from_secs)
}

/// 500MiB, 20GiB, 5GB.
///
/// # Errors
/// `Invalid`.
pub fn size(text: &str) -> Result<u64> {
    with_unit(text, SIZES)
}

/// A tolerance: a number of at least 0 that is one.
///
/// # Errors
/// `Invalid`.
pub fn tolerance(text: &str) -> Result<f64> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("{text:?} is no tolerance"))
            .expected("a finite number of at least 0")
    })
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = units.iter().find(|(unit, _)| *unit == text[digits..].trim());
    let value =
        text[..digits].parse::<u64>().ok().zip(unit).and_then(|(value, (_, unit))| value.checked_mul(*unit));
    value.ok_or_else(|| {
        let units: Vec<&str> = units.iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
        Error::new(ErrorKind::Invalid, format!("{text:?} is no number with a unit"))
            .expected(units.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_refused() {
        assert_eq!(age("12h").unwrap(), Duration::from_secs(43_200));
        assert_eq!((size("2GiB").unwrap(), size("7").unwrap()), (2 << 30, 7));
        assert_eq!(size("5GB").unwrap(), 5_000_000_000);
        for wrong in ["", "h", "12x", "99999999999999999999d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tolerance("1e-5").unwrap(), 1e-5);
        for wrong in ["nan", "inf", "-1", "", "x"] {
            assert!(tolerance(wrong).is_err(), "{wrong}");
        }
    }
}
