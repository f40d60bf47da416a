//! Records, which are MessagePack, and the columns of a table: encoding and decoding. Every
//! MessagePack byte of a file passes the structural check in walk.rs before serde sees it.

mod places;
mod walk;

pub use places::without_places;
pub use walk::check;

use super::limits::Limits;
use crate::error::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use walk::{Item, Walker};

/// Encodes a record by field names, and refuses values that [`decode`] would refuse.
///
/// # Errors
/// `Invalid` when serde refuses, `LimitExceeded` beyond [`Limits`].
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let bytes = rmp_serde::to_vec_named(value)
        .map_err(|error| Error::invalid("the value cannot be a record").because(error))?;
    encoded(bytes)
}

/// Checks a record that was encoded elsewhere: returns it unless [`decode`] would refuse it.
///
/// # Errors
/// As [`encode`].
pub fn encoded(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let limit = Limits::V1.record_bytes;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::LimitExceeded, "length of the record")
            .expected(format!("at most {limit} bytes"))
            .found(bytes.len())
            .help("store large arrays as tensors"));
    }
    check(&bytes).map_err(|error| error.with_kind(ErrorKind::Invalid))?;
    Ok(bytes)
}

/// Encodes this crate's own structs of columns, which cannot fail and need no [`check`].
pub fn encode_trusted<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("a struct of byte strings, text and numbers is always MessagePack")
}

/// Decodes bytes from a file, after their checksum was verified.
///
/// # Errors
/// `Damaged` when the bytes are not one well-formed value within the limits; `Mismatch` when they
/// are, but not a `T`.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    check(bytes)?;
    rmp_serde::from_slice(bytes).map_err(|error| {
        Error::new(ErrorKind::Mismatch, format!("the record is not a {}", short_type_name::<T>()))
            .because(error)
    })
}

/// Like [`decode`], for types that borrow nothing.
///
/// # Errors
/// As [`decode`].
pub fn decode_owned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    decode(bytes)
}

/// The binary columns of these names in a map. Other columns are ignored, with keys and values of
/// any kind.
///
/// # Errors
/// `Damaged` when the bytes are not a map that keeps the rules of records, or a column is missing
/// or not binary.
pub(super) fn columns<'a, const N: usize>(bytes: &'a [u8], names: [&str; N]) -> Result<[&'a [u8]; N]> {
    check(bytes)?;
    let mut walker = Walker::new(bytes);
    let Item::Map(pairs) = walker.item()? else { return Err(walker.wrong("no map of columns")) };
    let mut found = [None; N];
    for _ in 0..pairs {
        let place = match walker.item()? {
            Item::Text(key) => names.iter().position(|name| name.as_bytes() == key),
            _ => None,
        };
        let Some(place) = place else {
            walker.skip_value()?;
            continue;
        };
        let Item::Bin(column) = walker.item()? else {
            return Err(walker.wrong("a column that is not bytes"));
        };
        found[place] = Some(column);
    }
    if let Some(missing) = found.iter().position(Option::is_none) {
        return Err(Error::damaged("a column is missing").expected(names[missing]));
    }
    Ok(found.map(Option::unwrap_or_default))
}

fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let generic = name.find('<').unwrap_or(name.len());
    name[..generic].rfind("::").map_or(name, |at| &name[at + 2..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Adam {
        lr: f64,
        betas: (f32, f32),
        history: Vec<f32>,
        name: Option<String>,
    }

    #[test]
    fn a_record_survives_the_round_trip_bit_for_bit() {
        let adam =
            Adam { lr: 0.1 + 0.2, betas: (0.9, 0.999), history: vec![f32::MIN_POSITIVE, -0.0], name: None };
        let bytes = encode(&adam).unwrap();
        assert_eq!(decode::<Adam>(&bytes).unwrap(), adam);
        let error = decode::<BTreeMap<String, u8>>(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    }

    #[test]
    fn nesting_trailing_bytes_and_duplicate_keys_are_refused() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0x01]].concat();
        assert!(check(&nested(32)).is_ok());
        assert!(check(&nested(33)).unwrap_err().to_string().contains("nesting"));
        assert!(check(&nested(100_000)).is_err());
        assert!(check(&[0x01, 0x01]).unwrap_err().to_string().contains("after the end"));
        // {"a": 1, "a": 2}, the second time with the long form of the key
        let twice = [0x82, 0xA1, b'a', 1, 0xD9, 1, b'a', 2];
        assert!(check(&twice).unwrap_err().to_string().contains("twice"));
        assert!(check(&[0x82, 0xA1, b'a', 1, 0xA1, b'b', 2]).is_ok());
    }

    #[test]
    fn lying_counts_are_refused_before_anything_is_allocated() {
        for bytes in [
            &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF][..],
            &[0xDF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xC6, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xDB, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xC9, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xCB, 0, 0],
            &[0xC1],
            &[0xA1, 0xFF],
            &[0x81, 0x90, 0x01],
            &[],
        ] {
            assert_eq!(check(bytes).unwrap_err().kind(), ErrorKind::Damaged, "{bytes:x?}");
        }
    }
}
